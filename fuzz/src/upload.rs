//! Masked inputs, in one piece and in many.
//!
//! The first four bytes of an input are the lengths of the layers (masked, body), the width of the masked layer's
//! elements, and how the message is cut; the rest is the message.

use fedveil_aggregation::secagg::{CodecError, MaskedInput, Upload, VERSION, protocol::Shape};

use super::{Seeds, seed};

/// Whether the message is a masked input of that shape.
pub fn run(input: &[u8]) -> bool {
    let Some((&[masked, body, bits, cut], message)) = input.split_first_chunk() else { return false };
    let shape = Shape {
        masked: usize::from(masked) + 1,
        masked_bits: 8 + u32::from(bits) % 25,
        body: usize::from(body) % 16,
    };
    let length = 2 + 8 * shape.body + (shape.masked * shape.masked_bits as usize).div_ceil(8);
    let whole = decode(shape, [message]);
    for cut in [decode(shape, message.chunks(1)), decode(shape, pieces(message, cut))] {
        // Of a message that is too long and wrong, what is noticed first depends on the pieces.
        assert!(cut.is_ok() == whole.is_ok(), "how the message is cut makes no difference");
        assert!(cut == whole || message.len() > length, "how the message is cut makes no difference");
    }
    assert!(whole.is_err() || message.len() == length, "a message of a shape has one length");
    whole.is_ok()
}

fn decode<'a>(shape: Shape, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<MaskedInput, CodecError> {
    let mut upload = Upload::new(shape);
    for piece in pieces {
        if let Err(error) = upload.push(piece) {
            assert_eq!(upload.push(&[]), Err(error), "an error stays");
            assert!(upload.finish().err() == Some(error), "an error stays");
            return Err(error);
        }
    }
    upload.finish()
}

/// The message in pieces of 0 to 37 bytes, whose lengths follow from `cut`.
fn pieces(mut message: &[u8], cut: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut state = u32::from(cut);
    while !message.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, rest) = message.split_at(message.len().min((state >> 24) as usize % 38));
        pieces.push(piece);
        message = rest;
    }
    pieces
}

pub fn seeds() -> Seeds {
    let message = |[masked, body, bits]: [u8; 3], layers: &[u8]| {
        [&[masked - 1, body, bits - 8, 7, VERSION, 8], layers].concat()
    };
    // The largest residue modulo 2^64 − 2^32 + 1, and the modulus.
    let (largest, modulus) =
        (0xffff_ffff_0000_0000_u64.to_le_bytes(), 0xffff_ffff_0000_0001_u64.to_le_bytes());
    let other = |at: usize, byte: u8| {
        let mut message = message([1, 0, 8], &[255]);
        message[at] = byte;
        message
    };
    vec![
        seed("accepted-one-element", message([1, 0, 8], &[255])),
        seed("accepted-padding", message([9, 0, 9], &[&[255; 10], [1].as_slice()].concat())),
        seed("accepted-with-body", message([2, 2, 32], &[&[0; 8], largest.as_slice(), &[255; 8]].concat())),
        seed("accepted-long", message([250, 15, 32], &[0x5a; 8 * 15 + 4 * 250])),
        seed("refused-padding", message([9, 0, 9], &[&[255; 10], [3].as_slice()].concat())),
        seed("refused-modulus", message([2, 2, 32], &[&[0; 8], modulus.as_slice(), &[255; 8]].concat())),
        seed("refused-cut-short", message([9, 0, 9], &[255; 10])),
        seed("refused-byte-after", message([1, 0, 8], &[255, 0])),
        seed("refused-version", other(4, VERSION + 1)),
        seed("refused-kind", other(5, 7)),
        seed("refused-kind-and-byte-after", [other(5, 7).as_slice(), &[0]].concat()),
        seed("refused-empty", [0; 4]),
    ]
}
