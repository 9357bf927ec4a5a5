//! Expansion of a 256-bit key into a vector of ring elements.
//!
//! The key is used whole: masks that stretch a shorter seed can be found by trying every seed. A key expands once, to
//! one vector, so a constant initial counter is sound.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Counts in the block's last 32 bits, which the 2^26 blocks of the longest vector do not leave: the stream is that of a
/// 128-bit counter, and comes faster.
type Aes256Ctr = ctr::Ctr32BE<aes::Aes256Enc>;

/// The stream cipher behind the masks. Both take the whole 256-bit key and a zero counter block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prg {
    /// AES-256 in counter mode (NIST SP 800-38A): fastest where the processor has AES instructions.
    Aes256Ctr,
    /// ChaCha20 (RFC 8439): fastest elsewhere.
    ChaCha20,
}

/// Whether a mask is added or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

/// A vector expanded from the key, to be added or subtracted.
pub(super) type Mask = (Zeroizing<[u8; 32]>, Sign);

impl Prg {
    /// Applies masks to `values`, element by element mod 2^32, hence also mod 2^b for every b ≤ 32; element i of a mask
    /// is the i-th little-endian `u32` of its key stream.
    pub(super) fn apply(self, masks: impl IntoIterator<Item = Mask>, values: &mut [u32]) {
        match self {
            Self::Aes256Ctr => {
                let stream = |key: &[u8; 32]| Aes256Ctr::new(key.into(), &[0; 16].into());
                expand(masks.into_iter().map(|(key, sign)| (stream(&key), sign)), values);
            }
            Self::ChaCha20 => {
                let stream = |key: &[u8; 32]| ChaCha20::new(key.into(), &[0; 12].into());
                expand(masks.into_iter().map(|(key, sign)| (stream(&key), sign)), values);
            }
        }
    }
}

/// Applies all masks to one piece of the vector before it goes to the next, so that piece and key stream stay in the
/// first-level cache. Masks beyond `BATCH` take another round, which bounds the ciphers that are kept.
fn expand<C: StreamCipher>(masks: impl Iterator<Item = (C, Sign)>, values: &mut [u32]) {
    const PIECE: usize = 2048;
    const BATCH: usize = 128;
    let mut stream = Zeroizing::new([0_u8; 4 * PIECE]);
    let mut masks = masks.peekable();
    while masks.peek().is_some() {
        let mut batch: Vec<(C, Sign)> = masks.by_ref().take(BATCH).collect();
        for piece in values.chunks_mut(PIECE) {
            for (cipher, sign) in &mut batch {
                let stream = &mut stream[..4 * piece.len()];
                cipher.write_keystream(stream);
                let (words, _) = stream.as_chunks::<4>();
                let words = words.iter().map(|word| u32::from_le_bytes(*word));
                let pairs = piece.iter_mut().zip(words);
                match sign {
                    Sign::Plus => pairs.for_each(|(value, word)| *value = value.wrapping_add(word)),
                    Sign::Minus => pairs.for_each(|(value, word)| *value = value.wrapping_sub(word)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Prg; 2] = [Prg::Aes256Ctr, Prg::ChaCha20];

    fn vector(prg: Prg, key: &[u8; 32], length: usize) -> Vec<u32> {
        let mut values = vec![0; length];
        prg.apply([(Zeroizing::new(*key), Sign::Plus)], &mut values);
        values
    }

    fn bytes(prg: Prg, key: &[u8; 32]) -> [u8; 16] {
        let words = vector(prg, key, 4);
        std::array::from_fn(|i| words[i / 4].to_le_bytes()[i % 4])
    }

    /// The zero-key, zero-counter blocks: AES-256 from NIST's KAT (GFSbox/VarTxt zero plaintext), ChaCha20 from RFC
    /// 8439 appendix A.1, vector 1.
    #[test]
    fn known_answers() {
        assert_eq!(hex::encode(bytes(Prg::Aes256Ctr, &[0; 32])), "dc95c078a2408989ad48a21492842087");
        assert_eq!(hex::encode(bytes(Prg::ChaCha20, &[0; 32])), "76b8e0ada0f13d90405d6ae55386bd28");
    }

    #[test]
    fn every_key_bit_matters() {
        for prg in BOTH {
            let key = [0x5a; 32];
            let mask = vector(prg, &key, 64);
            for bit in 0..256 {
                let mut other = key;
                other[bit / 8] ^= 1 << (bit % 8);
                let differing = mask.iter().zip(vector(prg, &other, 64)).filter(|(a, b)| **a != *b).count();
                assert!(differing > 60, "{prg:?}: bit {bit} changes only {differing} of 64 elements");
            }
        }
    }

    #[test]
    fn minus_undoes_plus_and_a_longer_vector_starts_alike() {
        for prg in BOTH {
            let mut values = vector(prg, &[3; 32], 3000);
            assert_eq!(values[..100], vector(prg, &[3; 32], 100));
            prg.apply([(Zeroizing::new([3; 32]), Sign::Minus)], &mut values);
            assert_eq!(values, vec![0; 3000]);
        }
    }

    /// More masks and elements than are handled at once.
    #[test]
    fn many_masks_are_the_sum_of_each() {
        for prg in BOTH {
            let sign = |key: u32| if key.is_multiple_of(3) { Sign::Minus } else { Sign::Plus };
            let key = |key: u32| {
                let mut bytes = [7; 32];
                bytes[..4].copy_from_slice(&key.to_le_bytes());
                bytes
            };
            let mut values = vec![1; 5000];
            prg.apply((0..300).map(|at| (Zeroizing::new(key(at)), sign(at))), &mut values);
            let mut expected = vec![1_u32; 5000];
            for at in 0..300 {
                let mask = vector(prg, &key(at), 5000);
                expected.iter_mut().zip(mask).for_each(|(sum, word)| {
                    *sum = match sign(at) {
                        Sign::Plus => sum.wrapping_add(word),
                        Sign::Minus => sum.wrapping_sub(word),
                    };
                });
            }
            assert_eq!(values, expected);
        }
    }
}
