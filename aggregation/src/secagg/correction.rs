//! Error correction of Shamir shares: which of them are wrong, and the secret behind the rest.
//!
//! The shares of a limb are a Reed–Solomon codeword: values at distinct points of a polynomial of degree below the
//! threshold t. Of m shares ⌊(m − t) / 2⌋ wrong ones can be corrected, and the result is then unique. The decoder is
//! Gao's ("A New Algorithm for Decoding Reed–Solomon Codes", 2003): with g₀ = Π (x − xᵢ) and g₁ through all shares, run
//! Euclid's algorithm on (g₀, g₁) until a remainder r = u·g₀ + v·g₁ has degree below (m + t) / 2; the polynomial is
//! then r / v. That takes O(m²) multiplications and O(m) inversions in the field.
//!
//! Its running time depends on the shares. It is for the coordinator, to whom they were revealed.

use curve25519_dalek::Scalar;
use zeroize::Zeroizing;

use super::shamir::{Share, combine, evaluate};

/// What wrong shares hid.
pub(super) struct Corrected {
    /// The secret of the shares that are right.
    pub(super) secret: Zeroizing<[u8; 32]>,
    /// Positions of the holders whose shares are wrong in either limb, in the order in which they were given.
    pub(super) wrong: Vec<usize>,
}

/// The secret of which all but at most ⌊(m − t) / 2⌋ of the m shares, at distinct positions, are shares with the
/// threshold t; `None` where there is no such secret.
pub(super) fn correct(shares: &[(usize, &Share)], threshold: usize) -> Option<Corrected> {
    let correctable = shares.len().checked_sub(threshold)? / 2;
    let (vanishing, through) = interpolate(shares);
    let mut limbs = Zeroizing::new([Scalar::ZERO; 2]);
    let mut wrong = vec![false; shares.len()];
    for (limb, through) in through.into_iter().enumerate() {
        let polynomial = decode(vanishing.clone(), through, threshold)?;
        for (wrong, (position, share)) in wrong.iter_mut().zip(shares) {
            *wrong |= evaluate(&polynomial.0, *position) != share.0[limb];
        }
        limbs[limb] = polynomial.0.first().copied().unwrap_or_default();
    }
    let wrong: Vec<usize> =
        shares.iter().zip(wrong).filter_map(|((at, _), wrong)| wrong.then_some(*at)).collect();
    if wrong.len() > correctable {
        return None;
    }
    Some(Corrected { secret: combine(*limbs)?, wrong })
}

/// The polynomial that vanishes at all points, and for each limb the one of lowest degree through all shares (Newton).
fn interpolate(shares: &[(usize, &Share)]) -> (Polynomial, [Polynomial; 2]) {
    let mut vanishing = Polynomial::with_capacity(shares.len() + 1);
    vanishing.0.push(Scalar::ONE);
    let mut through = [(); 2].map(|()| Polynomial::with_capacity(shares.len()));
    for (position, share) in shares {
        let inverse = evaluate(&vanishing.0, *position).invert();
        for (polynomial, value) in through.iter_mut().zip(&share.0) {
            let missing = (value - evaluate(&polynomial.0, *position)) * inverse;
            polynomial.subtract(-missing, 0, &vanishing);
        }
        let point = Scalar::from(*position as u64 + 1);
        vanishing.0.insert(0, Scalar::ZERO);
        for i in 1..vanishing.len() {
            let coefficient = vanishing.0[i];
            vanishing.0[i - 1] -= point * coefficient;
        }
    }
    (vanishing, through)
}

/// Gao's decoder; `None` where no polynomial of degree below `threshold` is near enough.
fn decode(vanishing: Polynomial, through: Polynomial, threshold: usize) -> Option<Polynomial> {
    let shares = vanishing.len() - 1;
    let mut last = Row { remainder: vanishing, factor: Polynomial::with_capacity(shares) };
    let mut row = Row { remainder: through, factor: Polynomial::with_capacity(shares) };
    row.factor.0.push(Scalar::ONE);
    // deg ≥ (m + t) / 2, in terms of the length deg + 1
    while 2 * row.remainder.len() >= shares + threshold + 2 {
        last.reduce(&row);
        std::mem::swap(&mut last, &mut row);
    }
    row.remainder.divide(&row.factor).filter(|quotient| quotient.len() <= threshold)
}

/// A step of Euclid's algorithm: remainder = u·g₀ + factor·g₁ for some u.
struct Row {
    remainder: Polynomial,
    factor: Polynomial,
}

impl Row {
    /// Takes the remainder modulo that of `by`, which is not zero.
    fn reduce(&mut self, by: &Self) {
        let inverse = by.remainder.leading().invert();
        while let Some(shift) = self.remainder.len().checked_sub(by.remainder.len()) {
            let multiple = self.remainder.leading() * inverse;
            self.remainder.subtract(multiple, shift, &by.remainder);
            self.factor.subtract(multiple, shift, &by.factor);
        }
    }
}

/// Coefficients, constant term first, the last one not zero; none for the zero polynomial.
#[derive(Clone)]
struct Polynomial(Zeroizing<Vec<Scalar>>);

impl Polynomial {
    /// Zero, with room for `len` coefficients: growing beyond would leave copies behind that nobody erases.
    fn with_capacity(len: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(len)))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn leading(&self) -> Scalar {
        self.0.last().copied().unwrap_or_default()
    }

    fn pad(&mut self, len: usize) {
        if self.len() < len {
            self.0.resize(len, Scalar::ZERO);
        }
    }

    /// Subtracts `multiple` · x^`shift` · `other`.
    fn subtract(&mut self, multiple: Scalar, shift: usize, other: &Self) {
        self.pad(shift + other.len());
        for (ours, theirs) in self.0[shift..].iter_mut().zip(other.0.iter()) {
            *ours -= multiple * theirs;
        }
        while self.0.pop_if(|leading| *leading == Scalar::ZERO).is_some() {}
    }

    /// The quotient by `divisor`, which is not zero; `None` where it leaves a remainder.
    fn divide(mut self, divisor: &Self) -> Option<Self> {
        let inverse = divisor.leading().invert();
        let mut quotient = Self::with_capacity(self.len());
        while let Some(shift) = self.len().checked_sub(divisor.len()) {
            let multiple = self.leading() * inverse;
            quotient.pad(shift + 1);
            quotient.0[shift] = multiple;
            self.subtract(multiple, shift, divisor);
        }
        self.0.is_empty().then_some(quotient)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::MAX_COHORT;
    use super::super::shamir::split;
    use super::*;
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::{Rng, SeedableRng};

    fn corrected(positions: &[usize], shares: &[Share], threshold: usize) -> Option<([u8; 32], Vec<usize>)> {
        let shares: Vec<_> = positions.iter().copied().zip(shares).collect();
        correct(&shares, threshold).map(|Corrected { secret, wrong }| (*secret, wrong))
    }

    fn noise(rng: &mut ChaCha20Rng) -> Scalar {
        Scalar::from(rng.next_u64()) + Scalar::ONE
    }

    /// Shares at any positions, and which limbs of which of them are altered: 1, 2 or both (3).
    fn scenario() -> impl Strategy<Value = (usize, Vec<usize>, Vec<u8>)> {
        (1_usize..24).prop_flat_map(|count| {
            let positions = prop::collection::btree_set(0_usize..MAX_COHORT, count);
            let positions = positions.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle();
            let altered = prop_oneof![3 => Just(0_u8), 1 => 1_u8..=3];
            (1..=count, positions, prop::collection::vec(altered, count))
        })
    }

    proptest! {
        #[test]
        fn wrong_shares_within_the_bound_are_named_and_beyond_it_never_taken_for_fewer(
            (threshold, positions, altered) in scenario(),
            secret: [u8; 32],
            seed: [u8; 32],
        ) {
            let mut rng = ChaCha20Rng::from_seed(seed);
            let mut shares = split(&secret, threshold, positions.iter().copied(), &mut rng);
            for (share, altered) in shares.iter_mut().zip(&altered) {
                for limb in (0..2).filter(|limb| altered >> limb & 1 == 1) {
                    share.0[limb] += noise(&mut rng);
                }
            }
            let altered: Vec<usize> =
                positions.iter().zip(&altered).filter_map(|(at, altered)| (*altered > 0).then_some(*at)).collect();
            let correctable = (positions.len() - threshold) / 2;
            match corrected(&positions, &shares, threshold) {
                found if altered.len() <= correctable => prop_assert_eq!(found, Some((secret, altered))),
                Some((_, wrong)) => prop_assert!(wrong.len() <= correctable),
                None => {}
            }
        }

        #[test]
        fn shares_of_nothing_have_no_secret(seed: [u8; 32], count in 3_usize..20) {
            let mut rng = ChaCha20Rng::from_seed(seed);
            let shares: Vec<Share> = (0..count).map(|_| Share([noise(&mut rng), noise(&mut rng)])).collect();
            let positions: Vec<usize> = (0..count).collect();
            prop_assert_eq!(corrected(&positions, &shares, 1), None);
            prop_assert_eq!(corrected(&positions, &shares, count + 1), None);
        }
    }

    #[test]
    fn a_consistent_lie_of_the_holders_wins_only_past_half_of_the_slack() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let positions: Vec<usize> = (0..32).collect();
        let truth = split(&[1; 32], 22, 0..32, &mut rng);
        let lie = split(&[2; 32], 22, 0..32, &mut rng);
        let mixed = |lies: usize| -> Vec<Share> { [&lie[..lies], &truth[lies..]].concat() };
        assert_eq!(corrected(&positions, &mixed(5), 22), Some(([1; 32], (0..5).collect())));
        assert_eq!(corrected(&positions, &mixed(6), 22), None);
        assert_eq!(corrected(&positions, &mixed(26), 22), None);
        assert_eq!(corrected(&positions, &mixed(27), 22), Some(([2; 32], (27..32).collect())));
    }

    #[test]
    fn a_limb_over_16_bytes_is_no_secret() {
        let shares = [(); 5].map(|()| Share([-Scalar::ONE, Scalar::ONE]));
        assert_eq!(corrected(&[0, 1, 2, 3, 4], &shares, 3), None);
    }

    /// The zero polynomial and errors that only one limb has.
    #[test]
    fn a_secret_of_zeros_is_corrected() {
        let mut shares = [(); 7].map(|()| Share([Scalar::ZERO; 2]));
        shares[6].0[0] = Scalar::ONE;
        shares[2].0[1] = Scalar::ONE;
        assert_eq!(corrected(&[0, 1, 2, 3, 4, 5, 6], &shares, 3), Some(([0; 32], vec![2, 6])));
    }
}
