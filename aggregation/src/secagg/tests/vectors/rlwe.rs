//! RLWE: noise budget, encryption, and reading of sums.

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
        assert_eq!(rlwe.decode(&[0; 32], layers), case.values, "{} bits, {:?}", case.ring_bits, case.wanted);
    }
    assert!(readings.0.iter().any(|case| case.values != case.wanted));
}
