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
        serde_json::from_str(include_str!(concat!("../../../../tests/vectors/secagg/", $name))).expect($name)
    };
}

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

mod graph {
    use super::*;
    use crate::secagg::config::{ConfigError, SessionConfig, SessionParameters};
    use crate::secagg::graph::Graph;
    use crate::secagg::groups::form_groups;
    use crate::secagg::messages::Nonce;
    use crate::secagg::protocol::ProtocolKind;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        parameters: Cases<ParametersCase>,
        groups: Cases<GroupsCase>,
        graphs: Cases<GraphCase>,
    }

    #[derive(Deserialize)]
    struct ParametersCase {
        parameters: Parameters,
        accepted: bool,
    }

    #[derive(Deserialize)]
    struct GroupsCase {
        parameters: Parameters,
        root: Bytes<32>,
        message: Hex,
        missing: Vec<usize>,
        sizes: Vec<usize>,
        members: Option<Vec<Vec<usize>>>,
        members_digest: Bytes<32>,
        transcripts: Vec<Bytes<32>>,
    }

    #[derive(Deserialize)]
    struct Parameters {
        context: Bytes<32>,
        authority: Bytes<32>,
        protocol: String,
        prg: String,
        ring_bits: u32,
        length: usize,
        group_size: usize,
        degree: usize,
        threshold: usize,
        min_survivors: usize,
        min_cohort: usize,
        max_cohort: usize,
        max_missing_reveals: usize,
    }

    impl Parameters {
        fn config(&self) -> Result<SessionConfig, ConfigError> {
            let parameters = SessionParameters {
                context: self.context.0,
                authority: self.authority.0,
                protocol: self.protocol.parse::<ProtocolKind>().unwrap(),
                prg: cipher(&self.prg),
                ring_bits: self.ring_bits,
                length: self.length,
                group_size: self.group_size,
                degree: self.degree,
                threshold: self.threshold,
                min_survivors: self.min_survivors,
                min_cohort: self.min_cohort,
                max_cohort: self.max_cohort,
                max_missing_reveals: self.max_missing_reveals,
            };
            SessionConfig::new(parameters)
        }
    }

    #[derive(Deserialize)]
    struct GraphCase {
        size: usize,
        degree: usize,
        first: Vec<usize>,
        last: Vec<usize>,
        digest: Bytes<32>,
    }

    fn vectors() -> Vectors {
        vectors!("graph.json")
    }

    #[test]
    fn parameters_with_and_without_a_graph() {
        for case in vectors().parameters.0 {
            let (parameters, found) = (&case.parameters, case.parameters.config());
            let numbers = (parameters.degree, parameters.threshold, parameters.min_survivors);
            assert_eq!(found.is_ok(), case.accepted, "degree, threshold, survivors {numbers:?}: {found:?}");
        }
    }

    #[test]
    fn groups_in_ring_order_from_the_beacon() {
        for case in vectors().groups.0 {
            let (config, cohort) = (case.parameters.config().unwrap(), case.parameters.max_cohort);
            let revealed = (0..cohort).filter(|index| !case.missing.contains(index));
            let reveals: Vec<(usize, Nonce)> = revealed.map(|index| (index, Nonce([0; 32]))).collect();
            let groups = form_groups(&config, &case.root.0, &case.message.0, &reveals);
            let members: Vec<Vec<usize>> = groups.iter().map(|group| group.members().to_vec()).collect();
            assert_eq!(members.iter().map(Vec::len).collect::<Vec<_>>(), case.sizes);
            assert_eq!(
                elements_digest(members.iter().flatten().map(|&index| index as u32)),
                case.members_digest
            );
            assert!(case.members.is_none_or(|wanted| wanted == members), "{cohort} clients");
            let transcripts: Vec<_> = groups.iter().map(|group| Bytes(*group.transcript())).collect();
            assert_eq!(transcripts, case.transcripts, "{cohort} clients");
        }
    }

    #[test]
    fn neighbours_on_the_ring() {
        for case in vectors().graphs.0 {
            let graph = Graph::new(case.size, case.degree);
            assert_eq!(graph.neighbours(0), case.first);
            assert_eq!(graph.neighbours(case.size - 1), case.last);
            let all = (0..case.size).flat_map(|position| graph.neighbours(position));
            assert_eq!(elements_digest(all.map(|other| other as u32)), case.digest, "{} members", case.size);
        }
    }
}

mod ntt {
    use super::*;
    use crate::secagg::protocol::ntt::{N, canonical, forward, inverse, mul};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        transforms: Cases<TransformCase>,
        products: Cases<ProductCase>,
        sparse: Cases<SparseCase>,
    }

    #[derive(Deserialize)]
    struct TransformCase {
        seed: Bytes<32>,
        first: Vec<u64>,
        digest: Bytes<32>,
    }

    #[derive(Deserialize)]
    struct ProductCase {
        left: Bytes<32>,
        right: Bytes<32>,
        first: Vec<u64>,
        digest: Bytes<32>,
    }

    /// Exponents and coefficients.
    type Terms = Vec<(usize, u64)>;

    #[derive(Deserialize)]
    struct SparseCase {
        left: Terms,
        right: Terms,
        product: Terms,
    }

    fn vectors() -> Vectors {
        vectors!("ntt.json")
    }

    /// Words of the seed's ChaCha20 stream, not reduced.
    fn polynomial(seed: &Bytes<32>) -> Vec<u64> {
        let stream = key_stream(&seed.0, 8 * N);
        stream.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    /// `forward` divides by N.
    fn values(coefficients: &[u64]) -> Vec<u64> {
        let mut values = coefficients.to_vec();
        forward(&mut values);
        values.into_iter().map(|value| canonical(mul(value, N as u64))).collect()
    }

    fn product(left: &[u64], right: &[u64]) -> Vec<u64> {
        let mut right = right.to_vec();
        forward(&mut right);
        let mut product: Vec<u64> = values(left).into_iter().zip(right).map(|(a, b)| mul(a, b)).collect();
        inverse(&mut product);
        product.into_iter().map(canonical).collect()
    }

    fn dense(terms: &Terms) -> Vec<u64> {
        let mut coefficients = vec![0; N];
        terms.iter().for_each(|(exponent, coefficient)| coefficients[*exponent] = *coefficient);
        coefficients
    }

    #[test]
    fn values_in_their_order() {
        for case in vectors().transforms.0 {
            let coefficients = polynomial(&case.seed);
            let values = values(&coefficients);
            assert_eq!(values[..case.first.len()], case.first);
            assert_eq!(words_digest(&values), case.digest);
            let mut back = coefficients.clone();
            forward(&mut back);
            inverse(&mut back);
            assert!(back.iter().zip(&coefficients).all(|(a, b)| canonical(*a) == canonical(*b)));
        }
    }

    #[test]
    fn negacyclic_products() {
        let Vectors { products, sparse, .. } = vectors();
        for case in &products.0 {
            let product = product(&polynomial(&case.left), &polynomial(&case.right));
            assert_eq!(product[..case.first.len()], case.first);
            assert_eq!(words_digest(&product), case.digest);
        }
        for case in &sparse.0 {
            let (left, right) = (&case.left, &case.right);
            assert_eq!(product(&dense(left), &dense(right)), dense(&case.product), "{left:?} · {right:?}");
        }
    }
}

mod rlwe {
    use super::*;
    use crate::secagg::protocol::{Layers, Protocol, RlweTwoLayer};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vectors {
        parameters: Cases<ParametersCase>,
        encodings: Cases<EncodingCase>,
        sums: Cases<SumCase>,
        readings: Cases<ReadingCase>,
    }

    #[derive(Deserialize)]
    struct ParametersCase {
        ring_bits: u32,
        length: usize,
        summands: usize,
        slots: usize,
        masked_bits: u32,
        body: usize,
    }

    #[derive(Deserialize)]
    struct EncodingCase {
        ring_bits: u32,
        length: usize,
        summands: usize,
        transcript: Bytes<32>,
        secret: Bytes<32>,
        /// Where there are no values, the words of this seed's ChaCha20 stream less 2^(b−1), reduced into the ring.
        seed: Bytes<32>,
        values: Option<Vec<u32>>,
        key: Vec<i32>,
        key_digest: Bytes<32>,
        body: Vec<u64>,
        body_digest: Bytes<32>,
    }

    #[derive(Deserialize)]
    struct SumCase {
        ring_bits: u32,
        length: usize,
        summands: usize,
        transcript: Bytes<32>,
        parties: Vec<Party>,
        body: Vec<u64>,
        sum: Vec<u32>,
    }

    #[derive(Deserialize)]
    struct Party {
        secret: Bytes<32>,
        values: Vec<u32>,
    }

    #[derive(Deserialize)]
    struct ReadingCase {
        ring_bits: u32,
        slots: usize,
        summands: usize,
        body: Vec<u64>,
        wanted: Vec<u32>,
        values: Vec<u32>,
    }

    fn vectors() -> Vectors {
        vectors!("rlwe.json")
    }

    #[test]
    fn parameters_from_the_noise_budget() {
        for case in vectors().parameters.0 {
            let rlwe = RlweTwoLayer::new(case.ring_bits, case.length, case.summands).unwrap();
            let shape = rlwe.shape();
            let found = (rlwe.slots(), shape.masked_bits, shape.body);
            let bits = case.ring_bits;
            assert_eq!(
                found,
                (case.slots, case.masked_bits, case.body),
                "{bits} bits, {} summands",
                case.summands
            );
        }
    }

    #[test]
    fn vectors_encoded() {
        for case in vectors().encodings.0 {
            let values = case.values.unwrap_or_else(|| {
                let words = key_stream(&case.seed.0, 4 * case.length);
                let words = words.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
                words
                    .map(|word| word.wrapping_sub(1 << (case.ring_bits - 1)) & element_mask(case.ring_bits))
                    .collect()
            });
            let rlwe = RlweTwoLayer::new(case.ring_bits, case.length, case.summands).unwrap();
            let Layers { masked, body } = rlwe.encode(&case.transcript.0, &values, &case.secret.0);
            let key: Vec<i32> = masked.iter().map(|element| element.cast_signed()).collect();
            assert_eq!(key[..case.key.len()], case.key);
            assert_eq!(elements_digest(masked), case.key_digest);
            assert_eq!(body[..case.body.len()], case.body);
            assert_eq!(words_digest(&body), case.body_digest, "{} bits", case.ring_bits);
        }
    }

    #[test]
    fn sums_decoded() {
        for case in vectors().sums.0 {
            let rlwe = RlweTwoLayer::new(case.ring_bits, case.length, case.summands).unwrap();
            let mut masked = vec![0_u32; rlwe.shape().masked];
            for party in &case.parties {
                let key = rlwe.encode(&case.transcript.0, &party.values, &party.secret.0).masked;
                masked.iter_mut().zip(key).for_each(|(sum, key)| *sum = sum.wrapping_add(key));
            }
            let sum = rlwe.decode(&case.transcript.0, Layers { masked, body: case.body });
            assert_eq!(sum, case.sum, "{} bits", case.ring_bits);
        }
    }

    #[test]
    fn slots_read_under_noise_up_to_half_a_step_and_beyond() {
        let Vectors { readings, .. } = vectors();
        for case in &readings.0 {
            let rlwe = RlweTwoLayer::new(case.ring_bits, case.slots, case.summands).unwrap();
            assert_eq!(rlwe.slots(), case.slots);
            let layers = Layers { masked: vec![0; rlwe.shape().masked], body: case.body.clone() };
            assert_eq!(
                rlwe.decode(&[0; 32], layers),
                case.values,
                "{} bits, {:?}",
                case.ring_bits,
                case.wanted
            );
        }
        assert!(readings.0.iter().any(|case| case.values != case.wanted));
    }
}
