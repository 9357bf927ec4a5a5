//! Shamir secret sharing (Shamir 1979) of 32-byte secrets over the scalar field of Ed25519.
//!
//! The field has 2^252.4 elements, fewer than a 32-byte secret has values, so a secret is shared as two 16-byte limbs,
//! each exactly one field element: nothing is truncated or reduced. The holder at position p (from 0, below
//! [`MAX_COHORT`]) has the polynomials' values at x = p + 1.
//!
//! Shares are not verifiable by themselves. Both secrets of the protocol are committed to in advance (a public key, a
//! hash), and what is recovered is compared with that. What to do where it differs is in `correction`.

use curve25519_dalek::Scalar;
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::config::MAX_COHORT;

/// Length of an encoded share.
pub(super) const SHARE_LEN: usize = 64;

/// One holder's part of a secret: a field element for each limb.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Share(pub(super) [Scalar; 2]);

impl Share {
    pub(super) fn encode(&self) -> Zeroizing<[u8; SHARE_LEN]> {
        let mut bytes = Zeroizing::new([0; SHARE_LEN]);
        bytes[..32].copy_from_slice(self.0[0].as_bytes());
        bytes[32..].copy_from_slice(self.0[1].as_bytes());
        bytes
    }

    /// Inverse of [`encode`](Self::encode); `None` on field elements that are not canonical.
    pub(super) fn decode(bytes: &[u8; SHARE_LEN]) -> Option<Self> {
        let (limbs, _) = bytes.as_chunks::<32>();
        let limb = |limb: usize| Option::from(Scalar::from_canonical_bytes(limbs[limb]));
        Some(Self([limb(0)?, limb(1)?]))
    }
}

/// Splits `secret` among the holders at `positions`, in their order; any `threshold` of the shares recover it, fewer say
/// nothing about it. The coefficients are drawn in ascending order, those of the first limb before those of the second,
/// each from 64 bytes of `rng`.
pub(super) fn split(
    secret: &[u8; 32],
    threshold: usize,
    positions: impl Iterator<Item = usize>,
    rng: &mut impl CryptoRng,
) -> Vec<Share> {
    let (limbs, _) = secret.as_chunks::<16>();
    let polynomials: [Zeroizing<Vec<Scalar>>; 2] = [0, 1].map(|limb| {
        let mut coefficients = Zeroizing::new(Vec::with_capacity(threshold));
        coefficients.push(Scalar::from(u128::from_le_bytes(limbs[limb])));
        coefficients.extend((1..threshold).map(|_| random_scalar(rng)));
        coefficients
    });
    positions.map(|position| Share([0, 1].map(|limb| evaluate(&polynomials[limb], position)))).collect()
}

/// The coefficients that recover every secret shared to the same holders: computed once, used for each secret.
pub(super) struct Interpolation {
    coefficients: Vec<Scalar>,
}

impl Interpolation {
    /// Lagrange coefficients at zero for distinct holder positions: Π_j x_j / (x_i · Π_{j≠i} (x_j − x_i)).
    pub(super) fn new(positions: impl Iterator<Item = usize>) -> Self {
        let points: Vec<i128> = positions.map(|position| position as i128 + 1).collect();
        let denominator =
            |at: i128| product(points.iter().map(|&other| if other == at { at } else { other - at }));
        let mut coefficients: Vec<Scalar> = points.iter().map(|&point| denominator(point)).collect();
        Scalar::invert_batch_alloc(&mut coefficients);
        let all = product(points.iter().copied());
        for coefficient in &mut coefficients {
            *coefficient *= all;
        }
        Self { coefficients }
    }

    /// The secret behind the holders' shares, in the order of their positions; `None` where there is no 32-byte secret.
    pub(super) fn recover(&self, shares: &[&Share]) -> Option<Zeroizing<[u8; 32]>> {
        combine([0, 1].map(|limb| {
            let terms = self.coefficients.iter().zip(shares).map(|(weight, share)| weight * share.0[limb]);
            terms.sum()
        }))
    }
}

/// The secret of these limbs; `None` where one is over 16 bytes.
pub(super) fn combine(mut limbs: [Scalar; 2]) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    let mut fits = true;
    for (limb, out) in limbs.iter().zip(secret.chunks_exact_mut(16)) {
        let (low, high) = limb.as_bytes().split_at(16);
        out.copy_from_slice(low);
        fits &= high == [0; 16];
    }
    limbs.zeroize();
    fits.then_some(secret)
}

/// The value of a polynomial, constant term first, for the holder at `position`.
///
/// Horner's rule with a reduction only every 16 steps: x is at most 2^16, so they take a value below 2^253 to one below
/// 2^512, which is as wide as the reduction accepts.
pub(super) fn evaluate(coefficients: &[Scalar], position: usize) -> Scalar {
    const STEPS: usize = 16;
    const { assert!(MAX_COHORT <= 1 << 16) };
    debug_assert!(position < MAX_COHORT);
    let x = position as u128 + 1;
    let mut value = Scalar::ZERO;
    let mut wide = Zeroizing::new([0_u64; 8]);
    let mut bytes = Zeroizing::new([0; 64]);
    for block in coefficients.rchunks(STEPS) {
        wide[4..].fill(0);
        wide[..4].copy_from_slice(&words(&value));
        for words in block.iter().rev().map(words) {
            let mut carry = 0;
            for (i, word) in wide.iter_mut().enumerate() {
                carry += u128::from(*word) * x + u128::from(words.get(i).copied().unwrap_or(0));
                *word = carry as u64;
                carry >>= 64;
            }
        }
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(wide.iter()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        value = Scalar::from_bytes_mod_order_wide(&bytes);
    }
    value
}

fn words(scalar: &Scalar) -> [u64; 4] {
    let (words, _) = scalar.as_bytes().as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// The product of small numbers, with as few multiplications in the field as fit.
fn product(factors: impl Iterator<Item = i128>) -> Scalar {
    let scalar = |value: i128| {
        let magnitude = Scalar::from(value.unsigned_abs());
        if value < 0 { -magnitude } else { magnitude }
    };
    let (mut product, mut small) = (Scalar::ONE, 1_i128);
    for factor in factors {
        small = small.checked_mul(factor).unwrap_or_else(|| {
            product *= scalar(small);
            factor
        });
    }
    product * scalar(small)
}

fn random_scalar(rng: &mut impl CryptoRng) -> Scalar {
    let mut wide = Zeroizing::new([0; 64]);
    rng.fill_bytes(wide.as_mut());
    Scalar::from_bytes_mod_order_wide(&wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn recover(shares: &[Share], positions: &[usize]) -> Option<[u8; 32]> {
        let shares: Vec<&Share> = positions.iter().map(|&position| &shares[position]).collect();
        Interpolation::new(positions.iter().copied()).recover(&shares).map(|secret| *secret)
    }

    proptest! {
        #[test]
        fn any_threshold_of_the_shares_recovers_and_one_fewer_does_not(
            secret: [u8; 32],
            seed: [u8; 32],
            (holders, threshold) in (2_usize..12).prop_flat_map(|s| (Just(s), 2..=s)),
            rotation: usize,
        ) {
            let shares = split(&secret, threshold, 0..holders, &mut ChaCha20Rng::from_seed(seed));
            let chosen: Vec<usize> = (0..threshold).map(|i| (i + rotation % holders) % holders).collect();
            prop_assert_eq!(recover(&shares, &chosen), Some(secret));
            prop_assert_ne!(recover(&shares, &chosen[1..]), Some(secret));
        }
    }

    #[test]
    fn the_largest_secret_survives_and_the_field_order_is_not_canonical() {
        let shares = split(&[0xff; 32], 3, 0..5, &mut ChaCha20Rng::from_seed([1; 32]));
        assert_eq!(recover(&shares, &[4, 0, 2]), Some([0xff; 32]));

        let encoded = shares[0].encode();
        assert_eq!(Share::decode(&encoded).unwrap().encode(), encoded);
        assert!(Share::decode(&[0xff; SHARE_LEN]).is_none());
    }

    #[test]
    fn an_altered_share_gives_no_secret_or_another() {
        let mut shares = split(&[9; 32], 3, 0..5, &mut ChaCha20Rng::from_seed([1; 32]));
        shares[1].0[0] += Scalar::ONE;
        assert_ne!(recover(&shares, &[0, 1, 2]), Some([9; 32]));
        assert_eq!(recover(&shares, &[0, 3, 2]), Some([9; 32]));
    }

    #[test]
    fn values_of_the_largest_polynomials_are_those_of_plain_horner() {
        let largest = -Scalar::ONE;
        for (coefficients, position) in
            [(1, 0), (15, 3), (16, 7), (17, 65_535), (33, 65_535), (67, 0), (96, 999)]
        {
            let x = Scalar::from(position as u64 + 1);
            let plain = (0..coefficients).fold(Scalar::ZERO, |value, _| value * x + largest);
            assert_eq!(evaluate(&vec![largest; coefficients], position), plain);
        }
    }

    #[test]
    fn positions_at_both_ends_of_a_ring_recover() {
        let positions: Vec<usize> = (0..48).chain(65_488..65_536).collect();
        let shares = split(&[7; 32], 67, positions.iter().copied(), &mut ChaCha20Rng::from_seed([2; 32]));
        let interpolation = Interpolation::new(positions[20..87].iter().copied());
        let shares: Vec<&Share> = shares[20..87].iter().collect();
        assert_eq!(interpolation.recover(&shares).as_deref(), Some(&[7; 32]));
    }
}
