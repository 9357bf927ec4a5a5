//! Z_q[X]/(X^4096 + 1) for q = 2^64 − 2^32 + 1: arithmetic of coefficients and the number-theoretic transform.
//!
//! 2^64 ≡ 2^32 − 1 and 2^96 ≡ −1 (mod q), so a 128-bit product reduces by shifts and additions. Between operations
//! a residue is *loose*: any u64. [`canonical`] makes it less than q; [`add`] and [`sub`] want a canonical second
//! operand, which spares them a second correction. Nothing is looked up by values, and nothing branches on them as far as [`select_unpredictable`] can
//! persuade the compiler: carries of secrets are coin tosses, so branches would be slow as well as telling.
//!
//! The transform is negacyclic: entry i is the polynomial's value at ψ^(2·rev(i) + 1), rev reversing twelve bits and ψ
//! being a primitive 8192nd root of unity. The powers of ψ are merged into the butterflies (Longa and Naehrig, CANS
//! 2016), and the orders fit each other, so nothing is permuted. Keys are transformed forwards once, blocks come back
//! by the hundred: only [`inverse`] is tuned (radix 4, where the fourth root of unity 2^48 costs a shift).

use std::hint::select_unpredictable;

/// q = 2^64 − 2^32 + 1, a prime; q − 1 is divisible by 2^32.
pub(super) const Q: u64 = 0xffff_ffff_0000_0001;

/// Coefficients of a polynomial.
pub(in crate::secagg) const N: usize = 1 << LOG_N;

const LOG_N: u32 = 12;

/// 2^64 mod q.
const EPSILON: u64 = 0xffff_ffff;

/// ψ = 7^((q − 1) / 8192); 7 generates Z_q^*.
const PSI: u64 = 1_532_612_707_718_625_687;

/// ψ^(2·4096 − 1).
const PSI_INVERSE: u64 = power(PSI, 2 * N as u64 - 1);

/// 1 / 4096.
const N_INVERSE: u64 = power(N as u64, Q - 2);

/// ψ^rev(i).
static FORWARD: [u64; N] = bit_reversed_powers(PSI);

/// For each radix-4 block in order of use: w, w², w³, where w is the block's twiddle in the first of both layers.
static INVERSE: [[u64; 3]; (N - 1) / 3] = inverse_twiddles();

/// The residue that is less than q.
pub(in crate::secagg) fn canonical(x: u64) -> u64 {
    x.min(x.wrapping_sub(Q))
}

/// `a + b`, loose, for `b` canonical.
pub(super) fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    select_unpredictable(carry, sum.wrapping_add(EPSILON), sum)
}

/// `a − b`, loose, for `b` canonical.
pub(super) fn sub(a: u64, b: u64) -> u64 {
    let (difference, borrow) = a.overflowing_sub(b);
    select_unpredictable(borrow, difference.wrapping_sub(EPSILON), difference)
}

/// `a · b`, loose.
pub(in crate::secagg) fn mul(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b))
}

/// The canonical residue of a number in (−q, q).
pub(super) fn from_signed(x: i64) -> u64 {
    let x = x.cast_unsigned();
    x.wrapping_add(Q & ((x >> 63).wrapping_neg()))
}

/// Coefficients to values, divided by 4096: with that, `inverse(a ∘ forward(s))` is the product of s with the
/// polynomial whose values are a, and `inverse(forward(s))` is s.
pub(in crate::secagg) fn forward(values: &mut [u64]) {
    assert_eq!(values.len(), N, "a polynomial has {N} coefficients");
    let mut half = N / 2;
    let mut twiddles = FORWARD[1..].iter();
    while half > 0 {
        for (block, &twiddle) in values.chunks_exact_mut(2 * half).zip(&mut twiddles) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let product = canonical(mul(*b, twiddle));
                (*a, *b) = (add(*a, product), sub(*a, product));
            }
        }
        half /= 2;
    }
    for value in values {
        *value = mul(*value, N_INVERSE);
    }
}

/// Values to coefficients, loose, not divided by 4096 (see [`forward`]).
pub(in crate::secagg) fn inverse(values: &mut [u64]) {
    assert_eq!(values.len(), N, "a polynomial has {N} coefficients");
    let mut twiddles = INVERSE.iter();
    let mut quarter = 1;
    while quarter < N {
        for (block, twiddles) in values.chunks_exact_mut(4 * quarter).zip(&mut twiddles) {
            let (low, high) = block.split_at_mut(2 * quarter);
            let ((x0, x1), (x2, x3)) = (low.split_at_mut(quarter), high.split_at_mut(quarter));
            for (((x0, x1), x2), x3) in x0.iter_mut().zip(x1).zip(x2).zip(x3) {
                [*x0, *x1, *x2, *x3] = inverse_butterfly([*x0, *x1, *x2, *x3], twiddles);
            }
        }
        quarter *= 4;
    }
}

/// Two layers of Gentleman-Sande butterflies. The first has the twiddles w and −2^48·w, the second has w² twice.
#[inline]
fn inverse_butterfly([x0, x1, x2, x3]: [u64; 4], &[w, w2, w3]: &[u64; 3]) -> [u64; 4] {
    let (x1, x3) = (canonical(x1), canonical(x3));
    let (sum_low, difference_low) = (add(x0, x1), sub(x0, x1));
    let sum_high = canonical(add(x2, x3));
    let difference_high = canonical(reduce((sub(x2, x3) as u128) << 48));
    [
        add(sum_low, sum_high),
        mul(sub(difference_low, difference_high), w),
        mul(sub(sum_low, sum_high), w2),
        mul(add(difference_low, difference_high), w3),
    ]
}

/// With x = l + 2^64·m + 2^96·h, x ≡ l + (2^32 − 1)·m − h.
fn reduce(x: u128) -> u64 {
    let (low, high) = (x as u64, (x >> 64) as u64);
    // A borrow leaves at least 2^64 − 2^32, a carry at most 2^64 − 2^33: neither correction wraps.
    let (low, borrow) = low.overflowing_sub(high >> 32);
    let low = select_unpredictable(borrow, low.wrapping_sub(EPSILON), low);
    let (sum, carry) = low.overflowing_add((high & EPSILON) * EPSILON);
    select_unpredictable(carry, sum.wrapping_add(EPSILON), sum)
}

/// Product of canonical residues, for tables.
const fn const_mul(a: u64, b: u64) -> u64 {
    (a as u128 * b as u128 % Q as u128) as u64
}

const fn power(base: u64, mut exponent: u64) -> u64 {
    let (mut square, mut result) = (base, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = const_mul(result, square);
        }
        square = const_mul(square, square);
        exponent >>= 1;
    }
    result
}

#[expect(clippy::large_stack_arrays, reason = "evaluated at compile time")]
const fn bit_reversed_powers(base: u64) -> [u64; N] {
    let mut powers = [0; N];
    let (mut exponent, mut value) = (0_usize, 1);
    while exponent < N {
        powers[exponent.reverse_bits() >> (usize::BITS - LOG_N)] = value;
        value = const_mul(value, base);
        exponent += 1;
    }
    powers
}

#[expect(clippy::large_stack_arrays, reason = "evaluated at compile time")]
const fn inverse_twiddles() -> [[u64; 3]; (N - 1) / 3] {
    let powers = bit_reversed_powers(PSI_INVERSE);
    let mut twiddles = [[0; 3]; (N - 1) / 3];
    let (mut next, mut blocks) = (0, N / 4);
    while blocks > 0 {
        let mut block = 0;
        while block < blocks {
            let (first, second) = (powers[2 * (blocks + block)], powers[blocks + block]);
            twiddles[next] = [first, second, const_mul(first, second)];
            next += 1;
            block += 1;
        }
        blocks /= 4;
    }
    twiddles
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EDGES: [u64; 13] =
        [0, 1, 2, EPSILON - 1, EPSILON, EPSILON + 1, 1 << 48, Q / 2, Q - 1, Q, Q + 1, u64::MAX - 1, u64::MAX];

    fn modulo(x: u128) -> u64 {
        (x % u128::from(Q)) as u64
    }

    /// Coefficients that look random but depend on nothing.
    fn polynomial(seed: u64) -> Vec<u64> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            canonical(state ^ (state >> 29))
        })
        .take(N)
        .collect()
    }

    fn multiply(a: &[u64], b: &[u64]) -> Vec<u64> {
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        forward(&mut a);
        forward(&mut b);
        let mut product: Vec<u64> = a.into_iter().zip(b).map(|(a, b)| mul(mul(a, N as u64), b)).collect();
        inverse(&mut product);
        product.into_iter().map(canonical).collect()
    }

    fn schoolbook(a: &[u64], b: &[u64]) -> Vec<u64> {
        let mut product = vec![0; N];
        for (i, &a) in a.iter().enumerate() {
            for (j, &b) in b.iter().enumerate() {
                let term = modulo(u128::from(a) * u128::from(b));
                let term = if i + j < N { term } else { modulo(u128::from(Q - term)) };
                product[(i + j) % N] = modulo(u128::from(product[(i + j) % N]) + u128::from(term));
            }
        }
        product
    }

    #[test]
    fn constants_are_what_they_are_called() {
        assert_eq!(PSI, power(7, (Q - 1) / 8192));
        assert_eq!(power(PSI, N as u64), Q - 1, "psi is a primitive 8192nd root of unity");
        assert_eq!(modulo(u128::from(PSI) * u128::from(PSI_INVERSE)), 1);
        assert_eq!(power(PSI, 2048), 1 << 48, "the fourth root that the butterfly shifts by");
        assert_eq!(modulo(u128::from(N_INVERSE) * N as u128), 1);
    }

    #[test]
    fn arithmetic_is_right_at_the_edges() {
        for a in EDGES {
            assert_eq!(canonical(a), a % Q);
            for b in EDGES {
                let (wide_a, wide_b) = (u128::from(a), u128::from(b % Q));
                assert_eq!(canonical(add(a, b % Q)), modulo(wide_a + wide_b), "{a} + {b}");
                assert_eq!(canonical(sub(a, b % Q)), modulo(wide_a + u128::from(Q) - wide_b), "{a} - {b}");
                assert_eq!(canonical(mul(a, b)), modulo(wide_a * u128::from(b)), "{a} * {b}");
                assert_eq!(
                    canonical(reduce(wide_a << 64 | u128::from(b))),
                    modulo(wide_a << 64 | u128::from(b))
                );
            }
        }
        assert_eq!([from_signed(-1), from_signed(0), from_signed(1)], [Q - 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_integers(a: u64, b: u64, x: u128) {
            let b = b % Q;
            prop_assert_eq!(canonical(add(a, b)), modulo(u128::from(a) + u128::from(b)));
            prop_assert_eq!(canonical(sub(a, b)), modulo(u128::from(a) + u128::from(Q - b)));
            prop_assert_eq!(canonical(reduce(x)), modulo(x));
        }
    }

    /// Values of X^k at ψ^(2·rev(i) + 1), computed from the definition.
    #[test]
    fn monomials_have_the_values_that_the_definition_says() {
        for k in [0_usize, 1, 2, 1000, N - 1] {
            let mut values = vec![0; N];
            values[k] = 1;
            forward(&mut values);
            for i in [0_usize, 1, 2, 77, 2048, N - 1] {
                let point = power(PSI, 2 * (i.reverse_bits() >> 52) as u64 + 1);
                let value = canonical(mul(values[i], N as u64));
                assert_eq!(value, power(point, k as u64), "X^{k}, entry {i}");
            }
        }
    }

    #[test]
    fn inverse_undoes_forward() {
        let extremes: Vec<u64> = EDGES.iter().copied().cycle().take(N).collect();
        for coefficients in [polynomial(1), vec![Q - 1; N], vec![u64::MAX; N], extremes] {
            let mut values = coefficients.clone();
            forward(&mut values);
            inverse(&mut values);
            assert!(values.iter().zip(&coefficients).all(|(value, wanted)| canonical(*value) == wanted % Q));
        }
    }

    #[test]
    fn products_are_negacyclic_convolutions() {
        let (a, b) = (polynomial(2), polynomial(3));
        assert!(multiply(&a, &b) == schoolbook(&a, &b));
        let top = vec![Q - 1; N];
        assert!(multiply(&top, &a) == schoolbook(&top, &a));
        let mut monomial = vec![0; N];
        monomial[N - 1] = 1;
        let mut square = vec![0; N];
        square[N - 2] = Q - 1;
        assert!(multiply(&monomial, &monomial) == square, "X^4095 squared is -X^4094");
    }
}
