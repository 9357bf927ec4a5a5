//! Known answers, good and bad, from the reference in `tests/vectors/secagg` at the root of the workspace.

use std::convert::Infallible;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::super::agreement::{
    Route, Secret, is_strong_public_key, open, pairwise_mask_key, seal, self_mask_key,
};
use super::super::codec::CodecError;
use super::super::correction::{Corrected, correct};
use super::super::prg::{Mask, Prg, Sign};
use super::super::ring::{element_mask, pack};
use super::super::shamir::{Interpolation, Share, split};
use super::super::transcript::{derive_key, digest};
use super::unpacked;

/// The vectors of one file.
macro_rules! vectors {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/vectors/secagg/",
            $name
        )))
        .expect($name)
    };
}

mod graph;
mod ntt;
mod rlwe;

/// Bytes in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// So many bytes in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes<const N: usize>([u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(deserializer)?;
        let len = bytes.len();
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom(format!("{len} bytes, not {N}")))
    }
}

/// The cases of a section, at least one.
#[derive(Deserialize)]
#[serde(try_from = "Vec<T>", bound = "T: DeserializeOwned")]
struct Cases<T>(Vec<T>);

impl<T> TryFrom<Vec<T>> for Cases<T> {
    type Error = &'static str;

    fn try_from(cases: Vec<T>) -> Result<Self, Self::Error> {
        if cases.is_empty() { Err("a section without cases") } else { Ok(Self(cases)) }
    }
}

fn slices(parts: &[Hex]) -> Vec<&[u8]> {
    parts.iter().map(|Hex(part)| part.as_slice()).collect()
}

/// SHA-256 of elements as little-endian numbers of 32 bits.
fn elements_digest(elements: impl IntoIterator<Item = u32>) -> Bytes<32> {
    let mut hash = Sha256::new();
    elements.into_iter().for_each(|element| hash.update(element.to_le_bytes()));
    Bytes(hash.finalize().into())
}

/// SHA-256 of words as little-endian numbers of 64 bits.
fn words_digest(words: &[u64]) -> Bytes<32> {
    let mut hash = Sha256::new();
    for word in words {
        hash.update(word.to_le_bytes());
    }
    Bytes(hash.finalize().into())
}

/// The ChaCha20 stream of a key.
fn key_stream(key: &[u8; 32], len: usize) -> Vec<u8> {
    let mut stream = vec![0; len];
    ChaCha20::new(key.into(), &[0; 12].into()).apply_keystream(&mut stream);
    stream
}

fn cipher(name: &str) -> Prg {
    match name {
        "aes-256-ctr" => Prg::Aes256Ctr,
        "chacha20" => Prg::ChaCha20,
        other => panic!("cipher {other}"),
    }
}

mod kdf {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        digests: Cases<DigestCase>,
        keys: Cases<KeyCase>,
        pairwise_mask_keys: Cases<PairCase>,
        self_mask_keys: Cases<SelfCase>,
        boxes: Cases<BoxCase>,
        public_keys: Cases<PublicKeyCase>,
    }

    #[derive(Deserialize)]
    struct DigestCase {
        purpose: String,
        parts: Vec<Hex>,
        digest: Bytes<32>,
    }

    #[derive(Deserialize)]
    struct KeyCase {
        purpose: String,
        transcript: Bytes<32>,
        secret: Bytes<32>,
        parts: Vec<Hex>,
        key: Bytes<32>,
    }

    #[derive(Deserialize)]
    struct PairCase {
        transcript: Bytes<32>,
        secret: Bytes<32>,
        position: usize,
        their_key: Bytes<32>,
        their_position: usize,
        key: Bytes<32>,
    }

    #[derive(Deserialize)]
    struct SelfCase {
        transcript: Bytes<32>,
        seed: Bytes<32>,
        position: usize,
        key: Bytes<32>,
    }

    #[derive(Deserialize)]
    struct BoxCase {
        transcript: Bytes<32>,
        secret: Bytes<32>,
        their_key: Bytes<32>,
        sender: usize,
        recipient: usize,
        sealed: Hex,
        plaintext: Option<Hex>,
    }

    #[derive(Deserialize)]
    struct PublicKeyCase {
        key: Bytes<32>,
        strong: bool,
    }

    fn vectors() -> Vectors {
        vectors!("kdf.json")
    }

    #[test]
    fn digests_and_derived_keys() {
        let Vectors { digests, keys, .. } = vectors();
        for case in &digests.0 {
            assert_eq!(digest(&case.purpose, &slices(&case.parts)), case.digest.0, "{}", case.purpose);
        }
        for case in &keys.0 {
            let key = derive_key(&case.purpose, &case.transcript.0, &case.secret.0, &slices(&case.parts));
            assert_eq!(*key, case.key.0, "{}", case.purpose);
        }
    }

    #[test]
    fn keys_of_masks() {
        let Vectors { pairwise_mask_keys, self_mask_keys, .. } = vectors();
        for case in &pairwise_mask_keys.0 {
            let ours = Secret::from_bytes(&case.secret.0);
            let (theirs, at) = (&case.their_key.0, case.their_position);
            let key = pairwise_mask_key(&case.transcript.0, &ours, case.position, theirs, at);
            assert_eq!(*key, case.key.0);
        }
        for case in &self_mask_keys.0 {
            assert_eq!(*self_mask_key(&case.transcript.0, &case.seed.0, case.position), case.key.0);
        }
    }

    #[test]
    fn boxes_open_on_their_route_alone() {
        let Vectors { boxes, .. } = vectors();
        for case in &boxes.0 {
            let ours = Secret::from_bytes(&case.secret.0);
            let route =
                Route { transcript: &case.transcript.0, sender: case.sender, recipient: case.recipient };
            let agreed = ours.agree(&case.their_key.0);
            let opened = open(&agreed, route, &case.sealed.0);
            assert_eq!(opened.as_deref(), case.plaintext.as_ref().map(|plaintext| &plaintext.0));
            if let Some(Hex(plaintext)) = &case.plaintext {
                assert_eq!(seal(&agreed, route, plaintext), case.sealed.0);
            }
        }
        assert!(boxes.0.iter().any(|case| case.plaintext.is_none()));
    }

    #[test]
    fn weak_public_keys() {
        let Vectors { public_keys, .. } = vectors();
        for case in &public_keys.0 {
            assert_eq!(is_strong_public_key(&case.key.0), case.strong, "{}", hex::encode(case.key.0));
        }
    }
}

mod prg {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        masks: Cases<MaskCase>,
    }

    #[derive(Deserialize)]
    struct MaskCase {
        cipher: String,
        key: Bytes<32>,
        bits: u32,
        length: usize,
        first: Vec<u32>,
        mask: Bytes<32>,
        first_values: Vec<u32>,
        plus: Bytes<32>,
        minus: Bytes<32>,
    }

    fn mask(case: &MaskCase, sign: Sign) -> Mask {
        (Zeroizing::new(case.key.0), sign)
    }

    /// Values 0, 1, 2, … times an odd constant, so that sums wrap.
    fn values(length: usize, bits: u32) -> Vec<u32> {
        (0..length as u32).map(|i| i.wrapping_mul(0x9e37_79b1) >> (32 - bits)).collect()
    }

    #[test]
    fn masks_of_both_ciphers_added_and_taken_away() {
        let Vectors { masks } = vectors!("prg.json");
        for case in &masks.0 {
            let prg = cipher(&case.cipher);
            let reduced = |sign, mut vector: Vec<u32>| {
                prg.apply([mask(case, sign)], &mut vector);
                elements_digest(vector.into_iter().map(|element| element & element_mask(case.bits)))
            };
            let values = values(case.length, case.bits);
            let mut first = vec![0; case.first.len()];
            prg.apply([mask(case, Sign::Plus)], &mut first);
            assert_eq!(first, case.first);
            assert_eq!(values[..case.first_values.len()], case.first_values);
            assert_eq!(reduced(Sign::Plus, vec![0; case.length]), case.mask);
            assert_eq!(reduced(Sign::Plus, values.clone()), case.plus);
            assert_eq!(reduced(Sign::Minus, values), case.minus);
        }
    }
}

mod shamir {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        splits: Cases<SplitCase>,
        recoveries: Cases<RecoveryCase>,
        corrections: Cases<CorrectionCase>,
        encodings: Cases<EncodingCase>,
    }

    #[derive(Deserialize)]
    struct SplitCase {
        secret: Bytes<32>,
        threshold: usize,
        positions: Vec<usize>,
        stream: Hex,
        shares: Vec<Bytes<64>>,
    }

    #[derive(Deserialize)]
    struct RecoveryCase {
        positions: Vec<usize>,
        shares: Vec<Bytes<64>>,
        secret: Option<Bytes<32>>,
    }

    #[derive(Deserialize)]
    struct CorrectionCase {
        positions: Vec<usize>,
        threshold: usize,
        shares: Vec<Bytes<64>>,
        secret: Option<Bytes<32>>,
        wrong: Option<Vec<usize>>,
    }

    #[derive(Deserialize)]
    struct EncodingCase {
        share: Bytes<64>,
        accepted: bool,
    }

    /// Gives out the bytes that it was given, and no others.
    struct Given(std::vec::IntoIter<u8>);

    impl TryRng for Given {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            unreachable!("bytes are drawn only as slices")
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            unreachable!("bytes are drawn only as slices")
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            out.fill_with(|| self.0.next().expect("the stream is long enough"));
            Ok(())
        }
    }

    impl TryCryptoRng for Given {}

    fn vectors() -> Vectors {
        vectors!("shamir.json")
    }

    fn decoded(shares: &[Bytes<64>]) -> Vec<Share> {
        shares.iter().map(|share| Share::decode(&share.0).unwrap()).collect()
    }

    #[test]
    fn secrets_split_with_given_coefficients() {
        for case in vectors().splits.0 {
            let mut rng = Given(case.stream.0.into_iter());
            let shares = split(&case.secret.0, case.threshold, case.positions.iter().copied(), &mut rng);
            let encoded: Vec<Bytes<64>> = shares.iter().map(|share| Bytes(*share.encode())).collect();
            assert_eq!(encoded, case.shares);
            assert_eq!(rng.0.len(), 0, "all of the stream is used");
        }
    }

    #[test]
    fn secrets_recovered_and_such_as_are_none() {
        let Vectors { recoveries, .. } = vectors();
        for case in &recoveries.0 {
            let shares = decoded(&case.shares);
            let interpolation = Interpolation::new(case.positions.iter().copied());
            let secret = interpolation.recover(&shares.iter().collect::<Vec<_>>());
            assert_eq!(secret.map(|secret| Bytes(*secret)), case.secret, "{:?}", case.positions);
        }
        assert!(recoveries.0.iter().any(|case| case.secret.is_none()));
    }

    #[test]
    fn wrong_shares_corrected_and_such_as_cannot_be() {
        let Vectors { corrections, .. } = vectors();
        for case in &corrections.0 {
            let shares = decoded(&case.shares);
            let shares: Vec<(usize, &Share)> = case.positions.iter().copied().zip(&shares).collect();
            let found = correct(&shares, case.threshold);
            let (secret, wrong) = found.map(|Corrected { secret, wrong }| (Bytes(*secret), wrong)).unzip();
            assert_eq!((secret, &wrong), (case.secret, &case.wrong), "{:?}", case.positions);
        }
        assert!(corrections.0.iter().any(|case| case.secret.is_none()));
    }

    #[test]
    fn field_elements_have_one_encoding() {
        for case in vectors().encodings.0 {
            let share = Share::decode(&case.share.0);
            assert_eq!(share.is_some(), case.accepted, "{}", hex::encode(case.share.0));
            assert!(share.is_none_or(|share| *share.encode() == case.share.0));
        }
    }
}

mod packing {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        good: Cases<GoodCase>,
        bad: Cases<BadCase>,
    }

    #[derive(Deserialize)]
    struct GoodCase {
        bits: u32,
        elements: Vec<u32>,
        packed: Hex,
    }

    #[derive(Deserialize)]
    struct BadCase {
        bits: u32,
        length: usize,
        packed: Hex,
        error: String,
    }

    #[test]
    fn elements_of_every_width() {
        let Vectors { good, bad } = vectors!("packing.json");
        for case in &good.0 {
            let mut packed = Vec::new();
            pack(&case.elements, case.bits, &mut packed);
            assert_eq!(packed, case.packed.0, "{} bits", case.bits);
            assert_eq!(unpacked(&packed, case.elements.len(), case.bits).as_ref(), Ok(&case.elements));
        }
        for case in &bad.0 {
            let name = match unpacked(&case.packed.0, case.length, case.bits) {
                Err(CodecError::Value { field: "padding" }) => "padding",
                Err(CodecError::Truncated { .. }) => "truncated",
                Err(CodecError::Trailing { .. }) => "trailing",
                other => panic!("{} bits, {} bytes: {other:?}", case.bits, case.packed.0.len()),
            };
            assert_eq!(name, case.error, "{} bits", case.bits);
        }
        assert!((8..=32).all(|bits| good.0.iter().any(|case| case.bits == bits)));
    }
}
