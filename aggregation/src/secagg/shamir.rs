//! Shamir secret sharing (Shamir 1979) of 32-byte secrets over the scalar field of Ed25519.
//!
//! The field has 2^252.4 elements, fewer than a 32-byte secret has values, so a secret is shared as two 16-byte limbs,
//! each exactly one field element: nothing is truncated or reduced. The holder at position p (from 0) has the
//! polynomials' values at x = p + 1.
//!
//! Shares are not verifiable by themselves. Both secrets of the protocol are committed to in advance (a public key, a
//! hash), and what is recovered is compared with that.

use curve25519_dalek::Scalar;
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of an encoded share.
pub(super) const SHARE_LEN: usize = 64;

/// One holder's part of a secret: a field element for each limb.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Share([Scalar; 2]);

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

/// Splits `secret` among `holders` positions; any `threshold` of the shares recover it, fewer say nothing about it.
pub(super) fn split(
    secret: &[u8; 32],
    threshold: usize,
    positions: impl Iterator<Item = usize>,
    rng: &mut impl CryptoRng,
) -> Vec<Share> {
    let (limbs, _) = secret.as_chunks::<16>();
    let polynomials: [Zeroizing<Vec<Scalar>>; 2] = [0, 1].map(|limb| {
        let constant = Scalar::from(u128::from_le_bytes(limbs[limb]));
        Zeroizing::new(std::iter::once(constant).chain((1..threshold).map(|_| random_scalar(rng))).collect())
    });
    positions.map(|position| Share([0, 1].map(|limb| evaluate(&polynomials[limb], point(position))))).collect()
}

/// The coefficients that recover every secret shared to the same holders: computed once, used for each secret.
pub(super) struct Interpolation {
    coefficients: Vec<Scalar>,
}

impl Interpolation {
    /// Lagrange coefficients at zero for distinct holder positions.
    pub(super) fn new(positions: impl Iterator<Item = usize>) -> Self {
        let points: Vec<Scalar> = positions.map(point).collect();
        let others = |i: usize| points.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, x)| x);
        let mut inverses: Vec<Scalar> =
            (0..points.len()).map(|i| others(i).map(|x| x - points[i]).product()).collect();
        Scalar::invert_batch_alloc(&mut inverses);
        let coefficients = (0..points.len()).map(|i| inverses[i] * others(i).product::<Scalar>()).collect();
        Self { coefficients }
    }

    /// The secret behind the holders' shares, in the order of their positions; `None` where there is no 32-byte secret.
    pub(super) fn recover(&self, shares: &[&Share]) -> Option<Zeroizing<[u8; 32]>> {
        let mut secret = Zeroizing::new([0; 32]);
        for (limb, out) in secret.chunks_exact_mut(16).enumerate() {
            let terms = self.coefficients.iter().zip(shares).map(|(weight, share)| weight * share.0[limb]);
            let value: Scalar = terms.sum();
            let (low, high) = value.as_bytes().split_at(16);
            if high != [0; 16] {
                return None;
            }
            out.copy_from_slice(low);
        }
        Some(secret)
    }
}

fn point(position: usize) -> Scalar {
    Scalar::from(position as u64 + 1)
}

fn evaluate(coefficients: &[Scalar], x: Scalar) -> Scalar {
    coefficients.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient)
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
}
