//! Randomness by name: every draw of a simulation is a function of what it is for, never of what was drawn before.

use ed25519_dalek::SigningKey;
use fedveil_coordinator_core::NoiseKey;
use fedveil_provenance::Digest;
use rand_core::{Rng, SeedableRng};

/// The generator for one purpose of one client (0 for the coordinator's own) in one round (0 for what is of no round).
///
/// ChaCha20 counts its blocks, so that streams of different names share nothing, however much is drawn from each, in
/// whatever order, on whatever thread.
pub fn stream(seed: u64, purpose: &str, client: usize, round: u32) -> chacha20::ChaCha20Rng {
    let name = format!("fedveil/federation/v2\n{seed}\n{purpose}\n{client}\n{round}");
    chacha20::ChaCha20Rng::from_seed(Digest::of(name).0)
}

/// A number in `[0, 1)` with 53 random bits, one draw of its own.
pub fn fraction(seed: u64, purpose: &str, client: usize, round: u32) -> f64 {
    unit(&mut stream(seed, purpose, client, round))
}

/// A number in `[0, 1)` with 53 random bits.
pub(super) fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number in `0..bound`, `bound` above 0, uniform but for 2⁻³².
pub(super) fn below(rng: &mut impl Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

pub(super) fn bytes(seed: u64, purpose: &str, client: usize, round: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    stream(seed, purpose, client, round).fill_bytes(&mut bytes);
    bytes
}

pub(super) fn signing_key(seed: u64, purpose: &str, client: usize) -> SigningKey {
    SigningKey::from_bytes(&bytes(seed, purpose, client, 0))
}

pub(super) fn noise_key(seed: u64) -> NoiseKey {
    NoiseKey::new(zeroize::Zeroizing::new(bytes(seed, "noise key", 0, 0)))
}
