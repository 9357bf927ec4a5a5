//! Frames of one stream, put together to messages.
//!
//! An input is a sequence of frames, two bytes each: the kind, and where it is the highest bit of the second byte, that
//! the frame is the last; the rest of that byte is the length, 124 to 127 standing for those around a full frame.

use fedveil_proto::{Assembler, Kind, frames, limits::FRAME, v1::Frame};

use super::{Seeds, seed};

/// More would only take time.
const MOST_FRAMES: usize = 12;

/// Whether every frame is taken and no message is cut off.
pub fn run(input: &[u8]) -> bool {
    let limit = |kind: Kind| [40, FRAME, 2 * FRAME + 3][u32::from(kind) as usize % 3];
    let mut assembler = Assembler::new(limit);
    let mut pending: Vec<Frame> = Vec::new();
    for &[kind, length] in input.as_chunks::<2>().0.iter().take(MOST_FRAMES) {
        let frame = frame(kind, length);
        pending.push(frame.clone());
        match assembler.push(frame) {
            Err(_) => return false,
            Ok(None) => assert!(assembler.is_partial(), "a message without an end has begun"),
            Ok(Some((kind, message))) => {
                assert!(!assembler.is_partial(), "a message has ended");
                assert!(message.len() <= limit(kind), "the limit holds");
                assert!(frames(kind, message).eq(pending.drain(..)), "a message has one sequence of frames");
            }
        }
    }
    !assembler.is_partial()
}

fn frame(kind: u8, length: u8) -> Frame {
    let last = length & 0x80 != 0;
    let length = match length & 0x7f {
        124 => FRAME - 1,
        125 => FRAME,
        126 => FRAME + 1,
        127 => 2 * FRAME,
        short => short.into(),
    };
    Frame { kind: kind.into(), last, data: vec![kind; length].into() }
}

pub fn seeds() -> Seeds {
    const FULL: u8 = 125;
    const LAST: u8 = 0x80;
    // The kinds of limits 40, one frame, and more than two.
    let [small, medium, large] = [36, 34, 35];
    vec![
        seed("accepted-empty-message", [small, LAST]),
        seed("accepted-one-of-every-kind", {
            let kinds = (1..=10).chain(34..=45);
            kinds.flat_map(|kind| [kind, LAST + 40]).collect::<Vec<u8>>()
        }),
        seed("accepted-as-long-as-allowed", [large, FULL, large, FULL, large, LAST + 3, medium, LAST + FULL]),
        seed("refused-one-byte-too-long", [large, FULL, large, FULL, large, LAST + 4]),
        seed("refused-announced-too-long", [medium, FULL]),
        seed("refused-unknown-kind", [11, LAST]),
        seed("refused-kind-changes", [large, FULL, medium, LAST + 1]),
        seed("refused-empty-end", [large, FULL, large, LAST]),
        seed("refused-short-frame-inside", [large, 7, large, LAST + 7]),
        seed("refused-frame-too-long", [large, LAST + 126]),
        seed("refused-cut-off", [small, LAST, large, FULL]),
    ]
}
