//! A masked input on its way in, decoded piece by piece.
//!
//! ```text
//!  version ‖ kind ‖ body: u64 little-endian, each below q ‖ masked layer: bit-packed, zero padding
//! ```
//!
//! The message has one length and one encoding per pair of layers. Decoding needs the layers' memory and a few bytes,
//! whatever the sizes of the pieces.

use sha2::{Digest, Sha256};

use super::codec::{CodecError, HEADER_LEN, Kind, Reader, Writer};
use super::protocol::{BODY_MODULUS, Layers, Shape};
use super::ring::{UNIT, pack, packed_len, unpack, unpack_last};

/// A masked input, checked for shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedInput {
    pub(super) layers: Layers,
    digest: [u8; 32],
}

/// Elements that stand for a whole input.
const DIGESTED: usize = 4096;

impl MaskedInput {
    fn new(layers: Layers) -> Self {
        let mut hash = Sha256::new();
        for element in layers.masked.iter().take(DIGESTED) {
            hash.update(element.to_le_bytes());
        }
        Self { layers, digest: hash.finalize().into() }
    }

    /// SHA-256 of the masked layer's first [`DIGESTED`] elements, each as a little-endian `u32`. Under a mask that only
    /// its sender knows they are uniformly random: who sends the same has copied them. Hashing all of the message, at
    /// several milliseconds, would tell no more, and cost a coordinator more than the rest of taking it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Length of the message in bytes.
pub(super) fn upload_len(shape: &Shape) -> usize {
    HEADER_LEN + 8 * shape.body + packed_len(shape.masked, shape.masked_bits)
}

/// The message of masked layers; elements of the masked layer are taken mod 2^b.
pub(super) fn encode_upload(shape: &Shape, layers: &Layers) -> Vec<u8> {
    let mut message = Writer::new(Kind::MaskedInput).finish();
    message.reserve_exact(upload_len(shape) - HEADER_LEN);
    for coefficient in &layers.body {
        message.extend_from_slice(&coefficient.to_le_bytes());
    }
    pack(&layers.masked, shape.masked_bits, &mut message);
    message
}

/// Takes a masked input in pieces of any size.
pub struct Upload {
    shape: Shape,
    /// Bytes so far.
    taken: usize,
    /// The beginning of a unit whose end is in a later piece.
    carry: Vec<u8>,
    header: bool,
    layers: Layers,
    /// The first error is also the last word.
    failed: Option<CodecError>,
}

impl Upload {
    /// For a message of layers of this shape.
    pub fn new(shape: Shape) -> Self {
        let layers =
            Layers { masked: Vec::with_capacity(shape.masked), body: Vec::with_capacity(shape.body) };
        Self { shape, taken: 0, carry: Vec::with_capacity(32), header: false, layers, failed: None }
    }

    /// Takes the next bytes of the message. What failed once fails always.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let result = self.failed.map_or_else(|| self.decode(bytes), Err);
        self.failed = result.err();
        result
    }

    /// Ends the message; fails unless all of it was there.
    pub fn finish(self) -> Result<MaskedInput, CodecError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let needed = upload_len(&self.shape);
        if self.taken < needed {
            return Err(CodecError::Truncated { needed, left: self.taken });
        }
        Ok(MaskedInput::new(self.layers))
    }

    fn decode(&mut self, mut bytes: &[u8]) -> Result<(), CodecError> {
        let left = upload_len(&self.shape) - self.taken;
        if bytes.len() > left {
            return Err(CodecError::Trailing { extra: bytes.len() - left });
        }
        self.taken += bytes.len();
        while !bytes.is_empty() {
            let (part, unit, units) = self.part();
            if self.carry.is_empty() && bytes.len() >= unit {
                let (whole, rest) = bytes.split_at((bytes.len() / unit).min(units) * unit);
                self.decode_units(part, whole)?;
                bytes = rest;
            } else {
                let (head, rest) = bytes.split_at(bytes.len().min(unit - self.carry.len()));
                self.carry.extend_from_slice(head);
                bytes = rest;
                if self.carry.len() == unit {
                    let whole = std::mem::take(&mut self.carry);
                    self.decode_units(part, &whole)?;
                }
            }
        }
        Ok(())
    }

    /// The part of the message that comes next, the length of its units in bytes, and how many are to come.
    fn part(&self) -> (Part, usize, usize) {
        let Shape { masked, masked_bits, body } = self.shape;
        let (body, masked) = (body - self.layers.body.len(), masked - self.layers.masked.len());
        if !self.header {
            (Part::Header, HEADER_LEN, 1)
        } else if body > 0 {
            (Part::Body, 8, body)
        } else if masked >= UNIT {
            (Part::Masked, packed_len(UNIT, masked_bits), masked / UNIT)
        } else {
            (Part::Last, packed_len(masked, masked_bits), 1)
        }
    }

    fn decode_units(&mut self, part: Part, bytes: &[u8]) -> Result<(), CodecError> {
        let Shape { masked, masked_bits, .. } = self.shape;
        match part {
            Part::Header => {
                Reader::new(bytes, Kind::MaskedInput)?;
                self.header = true;
            }
            Part::Body => {
                let (coefficients, _) = bytes.as_chunks::<8>();
                let before = self.layers.body.len();
                self.layers.body.extend(coefficients.iter().map(|bytes| u64::from_le_bytes(*bytes)));
                if self.layers.body[before..].iter().any(|&coefficient| coefficient >= BODY_MODULUS) {
                    return Err(CodecError::Value { field: "coefficient" });
                }
            }
            Part::Masked => unpack(bytes, masked_bits, &mut self.layers.masked),
            Part::Last => {
                let missing = masked - self.layers.masked.len();
                self.layers.masked.extend(unpack_last(bytes, missing, masked_bits)?);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Part {
    Header,
    Body,
    Masked,
    /// What is left of the masked layer after its last whole unit.
    Last,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secagg::VERSION;
    use crate::secagg::ring::element_mask;
    use proptest::prelude::*;

    /// Layers, and their message.
    fn upload() -> impl Strategy<Value = (Shape, Layers)> {
        (1_usize..60, 8_u32..=32, 0_usize..20).prop_flat_map(|(masked, masked_bits, body)| {
            let elements = prop::collection::vec(0..=element_mask(masked_bits), masked);
            let coefficients = prop::collection::vec(0..BODY_MODULUS, body);
            (Just(Shape { masked, masked_bits, body }), elements, coefficients)
                .prop_map(|(shape, masked, body)| (shape, Layers { masked, body }))
        })
    }

    fn decode<'a>(
        shape: Shape,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<MaskedInput, CodecError> {
        let mut upload = Upload::new(shape);
        pieces.into_iter().try_for_each(|piece| upload.push(piece))?;
        upload.finish()
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_input(
            (shape, layers) in upload(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let message = encode_upload(&shape, &layers);
            prop_assert_eq!(message.len(), upload_len(&shape));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            cuts.extend([0, message.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &message[cut[0]..cut[1]]);
            let whole = decode(shape, [message.as_slice()]).unwrap();
            prop_assert!(whole.layers == layers);
            prop_assert!(decode(shape, pieces) == Ok(whole.clone()));
            prop_assert!(decode(shape, message.chunks(1)) == Ok(whole));
        }

        #[test]
        fn short_and_long_ones_are_refused((shape, layers) in upload(), chunk in 1_usize..50) {
            let mut message = encode_upload(&shape, &layers);
            let needed = message.len();
            for left in 0..needed {
                let error = decode(shape, message[..left].chunks(chunk)).err();
                prop_assert_eq!(error, Some(CodecError::Truncated { needed, left }));
            }
            message.push(0);
            let error = decode(shape, message.chunks(chunk)).err();
            prop_assert_eq!(error, Some(CodecError::Trailing { extra: 1 }));
        }
    }

    const SHAPE: Shape = Shape { masked: 9, masked_bits: 9, body: 2 };

    fn message() -> Vec<u8> {
        encode_upload(&SHAPE, &Layers { masked: vec![511; 9], body: vec![0, BODY_MODULUS - 1] })
    }

    #[test]
    fn what_is_not_canonical_is_refused_in_pieces_of_any_size() {
        let changes: [(usize, u8, CodecError); 4] = [
            (0, 9, CodecError::Version { found: 9 }),
            (1, 3, CodecError::Kind { found: 3, expected: Kind::MaskedInput as u8 }),
            (10, 1, CodecError::Value { field: "coefficient" }),
            (28, 3, CodecError::Value { field: "padding" }),
        ];
        assert_eq!(message().len(), 29);
        assert_eq!(message()[0], VERSION);
        for (at, byte, error) in changes {
            let mut message = message();
            message[at] = byte;
            for chunk in 1..=message.len() {
                assert_eq!(
                    decode(SHAPE, message.chunks(chunk)).err(),
                    Some(error),
                    "byte {at}, pieces of {chunk}"
                );
            }
        }
    }

    #[test]
    fn the_digest_is_of_the_masked_layers_beginning() {
        let digest = |change: fn(&mut Layers)| {
            let mut layers = Layers { masked: vec![3; DIGESTED + 1], body: vec![4; 2] };
            change(&mut layers);
            *MaskedInput::new(layers).digest()
        };
        let unchanged = digest(|_| {});
        assert_ne!(digest(|layers| layers.masked[0] += 1), unchanged);
        assert_ne!(digest(|layers| layers.masked[DIGESTED - 1] += 1), unchanged);
        assert_eq!(digest(|layers| layers.masked[DIGESTED] += 1), unchanged);
        assert_eq!(digest(|layers| layers.body[0] += 1), unchanged);
    }

    #[test]
    fn an_error_is_not_forgotten() {
        let mut upload = Upload::new(SHAPE);
        let error = CodecError::Version { found: 9 };
        assert_eq!(upload.push(&[9, 8]), Err(error));
        assert_eq!(upload.push(&message()), Err(error));
        assert_eq!(upload.finish().err(), Some(error));
    }
}
