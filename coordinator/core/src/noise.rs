//! The coordinator's own noise, for plans whose placement is `central`.
//!
//! What is drawn is a function of a secret key, the task and the round: a job that runs again draws the same, and a round
//! is released with one noise only. Nothing that was drawn is stored. Whoever has the key can take the noise off every
//! model of its tasks, so it is as secret as the updates.
//!
//! A round has a number of its own, which is durable before its first message, and is never opened again. Whoever takes a
//! coordinator back to an older state breaks that: two releases of one round with the same noise differ by their updates.

use chacha20::ChaCha20Rng;
use fedveil_provenance::Digest;
use hkdf::Hkdf;
use rand_core::SeedableRng;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The secret from which noise is drawn. Its owner keeps it apart from the key that signs.
pub struct NoiseKey(Zeroizing<[u8; 32]>);

impl NoiseKey {
    /// A key out of 32 bytes of the operating system's randomness.
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// The generator for one purpose in one round (HKDF-SHA256, RFC 5869, into ChaCha20).
    pub(crate) fn stream(&self, task: &Digest, round: u32, purpose: &str) -> ChaCha20Rng {
        let mut seed = Zeroizing::new([0; 32]);
        let info: [&[u8]; 3] = [&task.0, &round.to_be_bytes(), purpose.as_bytes()];
        Hkdf::<Sha256>::new(Some(b"fedveil/noise/v1"), self.0.as_ref())
            .expand_multi_info(&info, seed.as_mut())
            .expect("32 bytes are fewer than HKDF can give");
        ChaCha20Rng::from_seed(*seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng;

    #[test]
    fn a_stream_is_of_its_key_task_round_and_purpose() {
        let [key, other_key] = [1, 2].map(|byte| NoiseKey::new(Zeroizing::new([byte; 32])));
        let first = |key: &NoiseKey, task: &str, round, purpose| {
            key.stream(&Digest::of(task), round, purpose).next_u64()
        };
        let one = first(&key, "a", 1, "update");
        assert_eq!(one, first(&key, "a", 1, "update"));
        for other in [
            first(&other_key, "a", 1, "update"),
            first(&key, "b", 1, "update"),
            first(&key, "a", 2, "update"),
            first(&key, "a", 1, "cohort"),
        ] {
            assert_ne!(one, other);
        }
    }
}
