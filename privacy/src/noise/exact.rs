//! Probabilities to any precision: what decides where a register is not enough.
//!
//! A law's *ratio* at x is P[x]/P[0]; it comes as two integers around it, in units of 2^-bits. All roundings go outwards,
//! so the enclosure is proven whatever the precision; more precision makes it narrower without end.
//!
//! These functions run about once in 2^35 samples. They are simple before they are fast: a Skellam ratio takes time
//! proportional to x + σ.

use dashu::integer::UBig;
use rand_core::CryptoRng;

use super::NoiseKind;

/// Decides threshold + U < scale·2^shift·ratio(x) for U uniform on [0, 1), of which it draws as many bits as it takes.
pub(super) fn below_ratio(
    kind: NoiseKind,
    variance: u64,
    x: u64,
    (threshold, scale, shift): (u64, u64, usize),
    rng: &mut impl CryptoRng,
) -> bool {
    let mut drawn = UBig::from(threshold);
    for bits in (64..).step_by(64) {
        drawn = (drawn << 64) + rng.next_u64();
        let precision = bits + shift + 64;
        let (low, high) = enclose(kind, variance, x, precision);
        let least = &drawn << (precision - bits);
        let most = (&drawn + UBig::ONE) << (precision - bits);
        if most <= (low * scale) << shift {
            return true;
        }
        if least >= (high * scale) << shift {
            return false;
        }
    }
    unreachable!("the range has no end")
}

/// The ratio at x lies between the two, in units of 2^-bits.
pub(super) fn enclose(kind: NoiseKind, variance: u64, x: u64, bits: usize) -> (UBig, UBig) {
    match kind {
        NoiseKind::DiscreteGaussian => gaussian(variance, x, bits),
        NoiseKind::Skellam => skellam(variance, x, bits),
    }
}

/// exp(−y) = exp(−y/2^k)^(2^k) for y = x²/2σ², with k such that y/2^k < ½.
fn gaussian(variance: u64, x: u64, bits: usize) -> (UBig, UBig) {
    let (numerator, denominator) = (UBig::from(x) * UBig::from(x), UBig::from(variance) << 1);
    let halvings = bit_length(&(&numerator / &denominator)) + 1;
    let work = bits + halvings + 32;
    let y = (numerator << work) / (denominator << halvings);
    // Each term is at most 2 units too small, because its error is less than half that of the one before plus 1. The
    // terms after the last come to less than 2 units, and y itself is less than 1 unit too small.
    let (mut even, mut odd) = (UBig::ZERO, UBig::ZERO);
    let (mut term, mut terms) = (UBig::ONE << work, 0u32);
    while term > UBig::ZERO {
        *(if terms % 2 == 0 { &mut even } else { &mut odd }) += &term;
        terms += 1;
        term = ((term * &y) >> work) / terms;
    }
    let slack = UBig::from(2 * terms + 4);
    let exponential = even - odd;
    let (mut low, mut high) = (&exponential - &slack, exponential + slack);
    for _ in 0..halvings {
        low = (&low * &low) >> work;
        high = ((&high * &high) >> work) + UBig::ONE;
    }
    (low >> (work - bits), (high >> (work - bits)) + UBig::ONE)
}

/// I_x(μ)/I_0(μ) as the product of r_ν = I_{ν+1}(μ)/I_ν(μ) over ν < x. Backwards from 0 ≤ r_ν ≤ 1 at a ν far out,
/// r_ν = μ/(2(ν + 1) + μ·r_{ν+1}) exchanges the bounds and narrows them by r_ν² at each step.
fn skellam(variance: u64, x: u64, bits: usize) -> (UBig, UBig) {
    let work = bits + 96;
    let start = x + (u128::from(variance) * work as u128).isqrt() as u64 + work as u64;
    let mu = UBig::from(variance);
    let numerator = &mu << (2 * work);
    let (mut low, mut high) = (UBig::ZERO, UBig::ONE << work);
    let (mut product_low, mut product_high) = (UBig::ONE << work, UBig::ONE << work);
    for order in (0..start).rev() {
        let whole = UBig::from(2 * (order + 1)) << work;
        let next_low = &numerator / (&whole + &mu * high);
        high = &numerator / (whole + &mu * low) + UBig::ONE;
        low = next_low;
        if order < x {
            product_low = (product_low * &low) >> work;
            product_high = ((product_high * &high) >> work) + UBig::ONE;
        }
    }
    (product_low >> (work - bits), (product_high >> (work - bits)) + UBig::ONE)
}

fn bit_length(value: &UBig) -> usize {
    use dashu::base::BitTest;
    value.bit_len()
}
