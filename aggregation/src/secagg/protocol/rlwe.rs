//! The vector travels in an RLWE ciphertext under a fresh key; only the 4096 coefficients of the key are masked.
//!
//! With R = Z_q[X]/(X^N + 1), N = 4096 and q = 2^64 − 2^32 + 1, client i draws a key s_i once per session, and for block j
//! of its vector sends
//!
//! ```text
//!   c_ij = a_j·s_i + e_ij + Δ·m_ij        masked layer: s_i as integers mod 2^masked_bits
//! ```
//!
//! a_j is uniform, expanded from the group's transcript by everyone. Ciphertexts and keys add up, so the coordinator,
//! with S = Σ s_i from under the masks, has Σ c_ij − a_j·S = Σ e_ij + Δ·Σ m_ij, and rounds to multiples of Δ. This is the
//! two-layer encoding of ACORN (Bell et al., USENIX Security 2023) and the KAHE of Willow (Bell-Clark et al., CRYPTO
//! 2025). One sampled vector costs a client one transform per 4096 coefficients, however many neighbours it has.
//!
//! # Encoding
//!
//! A residue mod 2^b stands for the signed number in [−2^(b−1), 2^(b−1)) congruent to it. A coefficient carries `slots`
//! of them, m = Σ_k v_k·2^(bk). Sums are right while the signed sum in each slot stays in that same range, where also
//! the ring's sum does not wrap; a sum outside spoils its own coefficient's slots and no others. For reading, the
//! constant 2^(b−1)·Σ_k 2^(bk) turns the signed digits of Σm into plain ones. The last ciphertext block is cut to the
//! coefficients in use: the body is in the coefficient domain, a_j in the transform's (see [`ntt`](super::ntt)).
//!
//! # Noise
//!
//! Let σ_e² = 81/2 be the errors' variance, n the largest number of summands, L the number of coefficients in the body
//! and Δ = ⌊q / 2^(b·slots)⌋. Discrete Gaussians are sub-Gaussian with their own parameter, E[exp(tX)] ≤ exp(t²σ²/2)
//! (Canonne, Kamath, Steinke, NeurIPS 2020), and a coefficient is misread only if its |Σe| ≥ Δ/2, so by Chernoff
//!
//! ```text
//!   P(any coefficient is misread) ≤ 2·L·exp(−(Δ/2)² / (2·n·σ_e²)) = 2·L·exp(−Δ² / (324·n))
//! ```
//!
//! `slots` is the largest number for which that is at most 2^-40; the comparison is in integers, so that all parties
//! arrive at the same. Two slots of 26 bits leave Δ = 4095 and do for n ≤ 1,244 at L = 2^19. The sampler's distance
//! from the distribution, n·L·2^-93, is nothing beside it.
//!
//! # Secrecy
//!
//! σ is always the *standard deviation*, not the width s = √(2π)·σ of the lattice literature: 4.5 for keys and
//! √2·4.5 = 6.364 for errors (the values of Willow). The coordinator learns more than ciphertexts, namely S and Σe
//! (hint-RLWE; Kim et al., CRYPTO 2023), for a group with any number of colluders the sums over the h honest survivors.
//! Take h = 2, the worst case in which there is something to hide. Given s_1 + s_2 = z, s_1 has weights
//! exp(−x²/2σ² − (z−x)²/2σ²) ∝ exp(−(x − z/2)²/σ²): *exactly* a discrete Gaussian again, about the known z/2, with
//! deviation σ/√2. The same holds for errors, independently. So what is left is RLWE, shifted by known amounts, with
//!
//! ```text
//!   key     4.5/√2   = 3.182, 3.72 bits of entropy in each coefficient (log2(σ·√(2πe))), 15,200 in all
//!   errors  6.364/√2 = 4.5
//! ```
//!
//! and more for larger h: σ·√(1 − 1/h). The Homomorphic Encryption Standard (2018), for N = 4096, ternary keys (deviation
//! 0.82) and errors of deviation 3.2, allows log2 q up to 109, 75, 58 for 128, 192, 256 bits against classical
//! attacks, and 101, 70, 54 against quantum ones. Here log2 q = 64, keys and errors are wider: above the 192-bit class in
//! both columns. With binary keys instead, each coefficient of S that is 0 or h would give away all h keys there.
//! A key that encrypts under two different a_j's of the same session is what RLWE with several samples means; a key
//! in two sessions is not, hence the fresh `secret`.
//!
//! Streams are ChaCha20, whose keys are derived for one purpose each: `a` from the transcript alone (word by word,
//! little-endian, those below q), key and errors from `secret` under the transcript. Key, errors and products are
//! erased after use; copies that the compiler makes on the stack are not.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use super::gaussian::{self, KEY_TAIL};
use super::ntt::{self, N, Q};
use super::{GroupTranscript, Layers, Protocol, Shape};
use crate::secagg::config::MAX_LENGTH;
use crate::secagg::ring::element_mask;
use crate::secagg::transcript::{derive_key, digest};

/// Most summands whose keys' sum fits 32 bits.
const MAX_SUMMANDS: usize = (i32::MAX as usize) / KEY_TAIL;

/// A round may fail to decode with probability 2^-40.
const FAILURE_BITS: u128 = 40;

/// 8·σ_e², in the exponent of the failure probability.
const EIGHT_ERROR_VARIANCES: u128 = 324;

/// Parameters that the encryption has no room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RlweError {
    /// Ring width out of range.
    #[error("ring_bits is {0}, accepted are 8 to 32")]
    RingBits(u32),
    /// Vector length out of range.
    #[error("length is {0}, accepted are 1 to {MAX_LENGTH}")]
    Length(usize),
    /// Nobody, or more keys than 32 bits hold the sum of.
    #[error("summands is {0}, accepted are 1 to {MAX_SUMMANDS}")]
    Summands(usize),
}

/// RLWE encryption of the vector, pairwise masks for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RlweTwoLayer {
    ring_bits: u32,
    length: usize,
    summands: usize,
    slots: usize,
    masked_bits: u32,
    /// Δ
    delta: u64,
    /// ⌊2^64 / Δ⌋
    reciprocal: u64,
    /// 2^(b−1)·Σ_k 2^(bk): makes all digits of a sum nonnegative.
    offset: u64,
    /// Δ·offset
    bias: u64,
}

impl RlweTwoLayer {
    /// For vectors of `length` residues mod 2^`ring_bits`, sums of at most `summands` of them.
    pub fn new(ring_bits: u32, length: usize, summands: usize) -> Result<Self, RlweError> {
        if !(8..=32).contains(&ring_bits) {
            return Err(RlweError::RingBits(ring_bits));
        }
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(RlweError::Length(length));
        }
        if !(1..=MAX_SUMMANDS).contains(&summands) {
            return Err(RlweError::Summands(summands));
        }
        let slots = (1..=64 / ring_bits as usize)
            .rev()
            .find(|&slots| noise_fits(delta(ring_bits, slots), length.div_ceil(slots), summands))
            .expect("with one slot, Δ² ≥ (2^32 − 1)², and the noise of MAX_SUMMANDS needs less than 2^40");
        Ok(Self::with_slots(ring_bits, length, summands, slots))
    }

    fn with_slots(ring_bits: u32, length: usize, summands: usize, slots: usize) -> Self {
        let delta = delta(ring_bits, slots);
        let ones = (0..slots).fold(0, |ones, _| ones << ring_bits | 1);
        let largest_key = summands * KEY_TAIL;
        Self {
            ring_bits,
            length,
            summands,
            slots,
            masked_bits: (usize::BITS - largest_key.leading_zeros() + 1).max(8),
            delta,
            reciprocal: ((1_u128 << 64) / u128::from(delta)) as u64,
            offset: ones << (ring_bits - 1),
            bias: delta * (ones << (ring_bits - 1)),
        }
    }

    /// Elements in one coefficient.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// log2 of the bound on the probability that any element of a sum is read wrongly; at most −40.
    pub fn failure_probability_log2(&self) -> f64 {
        let exponent = (self.delta as f64).powi(2) / (EIGHT_ERROR_VARIANCES as f64 * self.summands as f64);
        1.0 + (self.coefficients() as f64).log2() - exponent * std::f64::consts::LOG2_E
    }

    fn coefficients(&self) -> usize {
        self.length.div_ceil(self.slots)
    }
}

impl Protocol for RlweTwoLayer {
    fn shape(&self) -> Shape {
        Shape { masked: N, masked_bits: self.masked_bits, body: self.coefficients() }
    }

    fn encode(&self, transcript: &GroupTranscript, values: &[u32], secret: &[u8; 32]) -> Layers {
        assert_eq!(values.len(), self.length, "the vector's length is the session's");
        let mut key = Zeroizing::new(vec![0; N]);
        gaussian::KEYS.sample(&derive_key("rlwe key", transcript, secret, &[]), &mut key);
        let mut errors = Zeroizing::new(vec![0; self.coefficients()]);
        gaussian::ERRORS.sample(&derive_key("rlwe errors", transcript, secret, &[]), &mut errors);

        let mut products = Products::new(transcript, key.iter().map(|&x| i64::from(x)));
        let mut body = Vec::with_capacity(self.coefficients());
        for (errors, values) in errors.chunks(N).zip(values.chunks(N * self.slots)) {
            let product = products.next_block();
            body.extend(product.iter().zip(errors).zip(values.chunks(self.slots)).map(
                |((&product, &error), digits)| {
                    // Both canonical: 0 ≤ packed + offset < 2^(b·slots) ≤ q / Δ, and |error| < bias < q − |error|.
                    let message = self.delta * self.offset.wrapping_add_signed(self.pack(digits));
                    let error = (Q - self.bias).wrapping_add_signed(i64::from(error));
                    ntt::canonical(ntt::add(ntt::add(product, message), error))
                },
            ));
        }
        Layers { masked: key.iter().map(|&x| i32::from(x) as u32).collect(), body }
    }

    fn decode(&self, transcript: &GroupTranscript, sum: Layers) -> Vec<u32> {
        assert_eq!(sum.masked.len(), N, "the masked layer is a key");
        assert_eq!(sum.body.len(), self.coefficients(), "the body is as shape() says");
        let unused = 32 - self.masked_bits;
        let key = sum.masked.iter().map(|&x| i64::from((x << unused).cast_signed() >> unused));
        let mut products = Products::new(transcript, key);
        let shift = self.bias + self.delta / 2;
        let mut values = vec![0; self.length];
        for (body, values) in sum.body.chunks(N).zip(values.chunks_mut(N * self.slots)) {
            let product = products.next_block();
            for ((&sum, values), &product) in body.iter().zip(values.chunks_mut(self.slots)).zip(product) {
                let noisy = ntt::add(ntt::sub(sum, ntt::canonical(product)), shift);
                self.unpack(self.divide_by_delta(ntt::canonical(noisy)), values);
            }
        }
        values
    }
}

impl RlweTwoLayer {
    /// Σ_k v_k·2^(bk), v_k being the signed number that the k-th digit stands for; absent ones are zero.
    fn pack(&self, digits: &[u32]) -> i64 {
        let unused = 32 - self.ring_bits;
        digits.iter().rev().fold(0, |packed, &digit| {
            (packed << self.ring_bits) + i64::from((digit << unused).cast_signed() >> unused)
        })
    }

    /// From a packed sum plus offset, the residues of its digits.
    fn unpack(&self, mut packed: u64, digits: &mut [u32]) {
        let (half, mask) = (1 << (self.ring_bits - 1), element_mask(self.ring_bits));
        for digit in digits {
            *digit = packed as u32 & mask ^ half;
            packed >>= self.ring_bits;
        }
    }

    /// ⌊x / Δ⌋: the estimate from the reciprocal is right or one too small.
    fn divide_by_delta(&self, x: u64) -> u64 {
        let estimate = ((u128::from(x) * u128::from(self.reciprocal)) >> 64) as u64;
        estimate + u64::from(x - estimate * self.delta >= self.delta)
    }
}

/// The products a_0·s, a_1·s, … of one transcript's public polynomials with a key.
struct Products {
    stream: ChaCha20,
    key: Zeroizing<Vec<u64>>,
    block: Zeroizing<Vec<u64>>,
}

impl Products {
    fn new(transcript: &GroupTranscript, key: impl Iterator<Item = i64>) -> Self {
        let mut key: Zeroizing<Vec<u64>> = Zeroizing::new(key.map(ntt::from_signed).collect());
        ntt::forward(&mut key);
        Self { stream: public_stream(transcript), key, block: Zeroizing::new(vec![0; N]) }
    }

    /// Coefficients of the next product, loose.
    fn next_block(&mut self) -> &[u64] {
        fill_uniform(|bytes| self.stream.write_keystream(bytes), &mut self.block);
        for (value, &key) in self.block.iter_mut().zip(self.key.iter()) {
            *value = ntt::mul(*value, key);
        }
        ntt::inverse(&mut self.block);
        &self.block
    }
}

fn public_stream(transcript: &GroupTranscript) -> ChaCha20 {
    ChaCha20::new(&digest("rlwe public polynomials", &[transcript]).into(), &[0; 12].into())
}

/// Fills `values` with the first words of a stream that are less than q; all but one in 2^32 are.
fn fill_uniform(mut draw: impl FnMut(&mut [u8]), values: &mut [u64]) {
    let mut stream = [0; 8 * 512];
    let mut filled = 0;
    while filled < values.len() {
        let bytes = &mut stream[..8 * (values.len() - filled).min(512)];
        draw(bytes);
        for word in bytes.as_chunks().0 {
            let word = u64::from_le_bytes(*word);
            values[filled] = word;
            filled += usize::from(word < Q);
        }
    }
}

/// Δ
fn delta(ring_bits: u32, slots: usize) -> u64 {
    (u128::from(Q) >> (ring_bits as usize * slots)) as u64
}

/// 2·L·exp(−Δ²/(324·n)) ≤ 2^-40, with log2 L rounded up and ln 2 too: Δ² / (324·n) ≥ ln 2 · (1 + log2 L + 40).
fn noise_fits(delta: u64, coefficients: usize, summands: usize) -> bool {
    const LN_2_MILLIONTHS: u128 = 693_148;
    let bits = 1 + u128::from(coefficients.next_power_of_two().ilog2()) + FAILURE_BITS;
    let needed = bits * LN_2_MILLIONTHS * EIGHT_ERROR_VARIANCES * summands as u128;
    u128::from(delta).pow(2).saturating_mul(1_000_000) >= needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSCRIPT: GroupTranscript = [0x11; 32];

    /// Residues that stand for numbers in [−bound, bound], different for every client.
    fn vector(client: u64, length: usize, ring_bits: u32, bound: u64) -> Vec<u32> {
        let mut words = vec![0; length];
        let mut stream =
            ChaCha20::new(&digest("test vector", &[&client.to_le_bytes()]).into(), &[0; 12].into());
        fill_uniform(|bytes| stream.write_keystream(bytes), &mut words);
        let centred =
            |word: u64| (word % (2 * bound + 1)).wrapping_sub(bound) as u32 & element_mask(ring_bits);
        words.into_iter().map(centred).collect()
    }

    fn secret(client: u64) -> [u8; 32] {
        digest("test secret", &[&client.to_le_bytes()])
    }

    fn add_layers(sum: &mut Layers, layers: &Layers) {
        for (sum, &x) in sum.masked.iter_mut().zip(&layers.masked) {
            *sum = sum.wrapping_add(x);
        }
        for (sum, &x) in sum.body.iter_mut().zip(&layers.body) {
            assert!(x < Q, "a coefficient is not canonical");
            *sum = ntt::canonical(ntt::add(*sum, x));
        }
    }

    /// Sum through the protocol; of the masked layer only `masked_bits` bits survive, as under masks.
    fn sum(protocol: &RlweTwoLayer, vectors: &[Vec<u32>]) -> Vec<u32> {
        let shape = protocol.shape();
        let mut sum = Layers { masked: vec![0; shape.masked], body: vec![0; shape.body] };
        for (client, values) in (0..).zip(vectors) {
            let layers = protocol.encode(&TRANSCRIPT, values, &secret(client));
            assert_eq!((layers.masked.len(), layers.body.len()), (shape.masked, shape.body));
            add_layers(&mut sum, &layers);
        }
        for x in &mut sum.masked {
            *x &= element_mask(shape.masked_bits);
        }
        protocol.decode(&TRANSCRIPT, sum)
    }

    fn plain_sum(ring_bits: u32, vectors: &[Vec<u32>]) -> Vec<u32> {
        let mut sum = vec![0_u32; vectors[0].len()];
        for values in vectors {
            for (sum, &value) in sum.iter_mut().zip(values) {
                *sum = sum.wrapping_add(value) & element_mask(ring_bits);
            }
        }
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn sums_are_those_of_the_ring(ring_bits in 8_u32..=32, length in 1_usize..20_000, summands in 1_u64..=40) {
            let bound = ((1 << (ring_bits - 1)) - 1) / summands;
            let vectors: Vec<_> =
                (0..summands).map(|client| vector(client, length, ring_bits, bound)).collect();
            let protocol = RlweTwoLayer::new(ring_bits, length, summands as usize).unwrap();
            prop_assert!(sum(&protocol, &vectors) == plain_sum(ring_bits, &vectors), "{:?}", protocol);
        }
    }

    /// Every slot at both ends of its range, in vectors that leave the last coefficient partly empty.
    #[test]
    fn sums_reach_the_ends_of_the_range() {
        for ring_bits in [8, 13, 16, 26, 31, 32] {
            let (low, high) = (1_u32 << (ring_bits - 1), (1 << (ring_bits - 1)) - 1);
            for summands in [1, 2, 3] {
                let ends = [low, high, 0, element_mask(ring_bits)];
                let mut vectors = vec![vec![0; 4097]; summands];
                vectors[0] = ends.into_iter().cycle().take(4097).collect();
                let protocol = RlweTwoLayer::new(ring_bits, 4097, summands).unwrap();
                assert_eq!(sum(&protocol, &vectors), vectors[0], "{protocol:?}");
                vectors[0] = vec![low; 4097];
                assert_eq!(sum(&protocol, &vectors), vectors[0], "{protocol:?}");
                vectors[0] = vec![high; 4097];
                assert_eq!(sum(&protocol, &vectors), vectors[0], "{protocol:?}");
            }
        }
    }

    #[test]
    fn a_slot_overflow_spoils_its_own_coefficient_only() {
        let mut vectors = vec![vector(0, 100, 16, 1000), vector(1, 100, 16, 1000)];
        let protocol = RlweTwoLayer::new(16, 100, 2).unwrap();
        assert_eq!(protocol.slots(), 3);
        for values in &mut vectors {
            values[30] = 0x7fff;
            values[62] = 0x8000;
        }
        let (found, wanted) = (sum(&protocol, &vectors), plain_sum(16, &vectors));
        let wrong: Vec<usize> = (0..100).filter(|&i| found[i] != wanted[i]).collect();
        assert!(!wrong.is_empty() && wrong.iter().all(|i| [30, 31, 32, 60, 61, 62].contains(i)), "{wrong:?}");
    }

    /// With Δ = 127 a coefficient of a sum of ten is misread when |Σe| ≥ 64, a Gaussian of variance 405 rounded to
    /// integers: Q(63.5/√405) on either side, 0.00160 in all. The Chernoff bound says at most 0.0138.
    #[test]
    fn misreadings_are_as_frequent_as_derived() {
        let (summands, coefficients) = (10, 1 << 16);
        let protocol = RlweTwoLayer::with_slots(19, 3 * coefficients, summands, 3);
        assert_eq!((protocol.delta, protocol.coefficients()), (127, coefficients));
        let vectors = vec![vec![0; 3 * coefficients]; summands];
        let misread = sum(&protocol, &vectors).chunks(3).filter(|slots| slots != &[0; 3]).count() as f64;
        let expected = 0.001_60 * coefficients as f64;
        assert!((misread - expected).abs() < 5.0 * expected.sqrt(), "{misread} misread, expected {expected}");
        let bound = protocol.failure_probability_log2().exp2();
        assert!(misread < bound && (bound / coefficients as f64 - 0.013_77).abs() < 0.000_01, "{bound}");
    }

    #[test]
    fn as_many_slots_as_the_noise_allows() {
        let slots =
            |ring_bits, length, summands| RlweTwoLayer::new(ring_bits, length, summands).unwrap().slots();
        assert_eq!((slots(26, 1 << 20, 1244), slots(26, 1 << 20, 1245)), (2, 1));
        assert_eq!((slots(8, 1000, 2), slots(8, 1000, 1000)), (7, 6));
        assert_eq!(slots(32, MAX_LENGTH, MAX_SUMMANDS), 1);
        for ring_bits in 8..=32 {
            for summands in [1, 2, 40, 1000, 65_536, MAX_SUMMANDS] {
                for length in [1, 1 << 20, MAX_LENGTH] {
                    let protocol = RlweTwoLayer::new(ring_bits, length, summands).unwrap();
                    let failure = protocol.failure_probability_log2();
                    assert!(failure <= -40.0, "2^{failure}: {protocol:?}");
                    assert!(protocol.delta * protocol.offset == protocol.bias && protocol.bias > 78);
                    if (protocol.slots + 1) * (ring_bits as usize) < 60 {
                        let more = RlweTwoLayer::with_slots(ring_bits, length, summands, protocol.slots + 1);
                        assert!(more.failure_probability_log2() > -40.001, "room for another: {protocol:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_of_keys_fit_the_masked_layer() {
        for summands in [1, 2, 3, 1000, 65_536, MAX_SUMMANDS] {
            let bits = RlweTwoLayer::new(16, 1, summands).unwrap().shape().masked_bits;
            assert!(
                (8..=32).contains(&bits) && (summands * KEY_TAIL) < 1 << (bits - 1),
                "{summands}: {bits}"
            );
            assert!(bits == 8 || summands * KEY_TAIL >= 1 << (bits - 2), "{summands}: {bits} is too many");
        }
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        assert_eq!(RlweTwoLayer::new(7, 1, 1), Err(RlweError::RingBits(7)));
        assert_eq!(RlweTwoLayer::new(33, 1, 1), Err(RlweError::RingBits(33)));
        assert_eq!(RlweTwoLayer::new(16, 0, 1), Err(RlweError::Length(0)));
        assert_eq!(RlweTwoLayer::new(16, MAX_LENGTH + 1, 1), Err(RlweError::Length(MAX_LENGTH + 1)));
        assert_eq!(RlweTwoLayer::new(16, 1, 0), Err(RlweError::Summands(0)));
        assert_eq!(RlweTwoLayer::new(16, 1, MAX_SUMMANDS + 1), Err(RlweError::Summands(MAX_SUMMANDS + 1)));
    }

    #[test]
    fn every_transcript_has_polynomials_of_its_own() {
        let block = |transcript: [u8; 32]| {
            let mut values = vec![0; 2 * N];
            let mut stream = public_stream(&transcript);
            fill_uniform(|bytes| stream.write_keystream(bytes), &mut values);
            values
        };
        let base = block(TRANSCRIPT);
        assert!(base.iter().all(|&value| value < Q && value != 0));
        assert!(base[..N].iter().zip(&base[N..]).all(|(a, b)| a != b), "blocks have different polynomials");
        for bit in 0..256 {
            let mut other = TRANSCRIPT;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(base.iter().zip(block(other)).all(|(a, b)| *a != b), "bit {bit} of the transcript");
        }
    }

    #[test]
    fn words_of_at_least_q_are_skipped() {
        let words = [5, Q, Q - 1, u64::MAX, 0, Q + 1, 7, 8];
        let mut source = words.iter().flat_map(|word| word.to_le_bytes());
        let mut values = [0; 5];
        fill_uniform(|bytes| bytes.fill_with(|| source.next().expect("enough words")), &mut values);
        assert_eq!(values, [5, Q - 1, 0, 7, 8]);
    }

    #[test]
    fn every_bit_of_the_secret_changes_everything() {
        let protocol = RlweTwoLayer::new(26, 2 * N, 10).unwrap();
        let (values, secret) = (vector(0, 2 * N, 26, 1000), [0x5a; 32]);
        let base = protocol.encode(&TRANSCRIPT, &values, &secret);
        for bit in 0..256 {
            let mut other = secret;
            other[bit / 8] ^= 1 << (bit % 8);
            let other = protocol.encode(&TRANSCRIPT, &values, &other);
            assert!(base.body.iter().zip(&other.body).all(|(a, b)| a != b), "bit {bit}: body");
            let same = base.masked.iter().zip(&other.masked).filter(|(a, b)| a == b).count();
            // Two independent keys agree in a coefficient with probability 1/(2·σ·√π) = 0.063.
            assert!(same < 400, "bit {bit}: {same} of 4096 key coefficients are the same");
        }
    }

    /// χ² of the upper and of the lower byte of each coefficient, for a vector of zeros.
    #[test]
    fn a_ciphertext_looks_uniform() {
        let protocol = RlweTwoLayer::new(26, 1 << 18, 10).unwrap();
        let body = protocol.encode(&TRANSCRIPT, &vec![0; 1 << 18], &secret(0)).body;
        let expected = body.len() as f64 / 256.0;
        for shift in [56, 0] {
            let mut counts = [0_u32; 256];
            for x in &body {
                counts[(x >> shift) as usize & 255] += 1;
            }
            let statistic: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
            assert!((statistic - 255.0).abs() < 5.0 * 510_f64.sqrt(), "χ² {statistic} of 255, shift {shift}");
        }
    }
}
