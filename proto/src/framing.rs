//! Messages of any length over gRPC messages of bounded length.
//!
//! A message becomes consecutive [`Frame`]s of one kind: every frame but the last carries exactly [`FRAME`] bytes,
//! the last carries the rest. So each message has one sequence of frames and each sequence one message, a peer cannot
//! make the receiver work for frames that carry nothing, and what the receiver holds never exceeds the limit that it
//! set for the kind.

use prost::bytes::Bytes;
use thiserror::Error;

use crate::{Kind, UnknownKind, limits::FRAME, v1::Frame};

/// Splits a message into frames, without copying its bytes.
pub fn frames(kind: Kind, message: impl Into<Bytes>) -> impl Iterator<Item = Frame> + Send + 'static {
    let mut rest = Some(message.into());
    std::iter::from_fn(move || {
        let mut data = rest.take()?;
        if data.len() > FRAME {
            rest = Some(data.split_off(FRAME));
        }
        Some(Frame { kind: kind.into(), last: rest.is_none(), data })
    })
}

/// The data of one frame, in its place in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Kind of the message.
    pub kind: Kind,
    /// Whether the message begins with it.
    pub first: bool,
    /// Whether the message ends with it.
    pub last: bool,
    /// The data.
    pub data: Bytes,
}

/// Checks the frames of one direction of one stream and lets their data through, for messages that need not be in
/// memory as a whole.
///
/// After an error the stream has lost its meaning: the caller closes it.
pub struct Deframer<L> {
    limit: L,
    /// Kind and length so far of a message that has begun.
    begun: Option<(Kind, usize)>,
}

impl<L: Fn(Kind) -> usize> Deframer<L> {
    /// Accepts messages of at most `limit(kind)` bytes.
    pub fn new(limit: L) -> Self {
        Self { limit, begun: None }
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: Frame) -> Result<Chunk, FrameError> {
        let Frame { kind: number, last, data } = frame;
        let kind = Kind::try_from(number)?;
        let (first, before) = match self.begun.take() {
            None => (true, 0),
            Some((begun, _)) if begun != kind => return Err(FrameError::KindChanged { begun, found: kind }),
            Some((_, length)) => (false, length),
        };
        let accepted = match (last, first) {
            (false, _) => FRAME..=FRAME,
            (true, true) => 0..=FRAME,
            (true, false) => 1..=FRAME,
        };
        if !accepted.contains(&data.len()) {
            return Err(FrameError::Length {
                found: data.len(),
                least: *accepted.start(),
                most: *accepted.end(),
            });
        }
        let limit = (self.limit)(kind);
        let length = before.saturating_add(data.len());
        // A frame that is not the last announces at least one more byte.
        if length.saturating_add(usize::from(!last)) > limit {
            return Err(FrameError::TooLong { kind, limit });
        }
        if !last {
            self.begun = Some((kind, length));
        }
        Ok(Chunk { kind, first, last, data })
    }

    /// Whether a message has begun and not ended: a stream that ends here was cut off.
    pub fn is_partial(&self) -> bool {
        self.begun.is_some()
    }
}

/// Puts the frames of one direction of one stream together again.
///
/// After an error the stream has lost its meaning: the caller closes it.
pub struct Assembler<L> {
    deframer: Deframer<L>,
    /// Data of a message that has begun: what has arrived, never what was announced.
    partial: Vec<u8>,
}

impl<L: Fn(Kind) -> usize> Assembler<L> {
    /// An assembler that accepts messages of at most `limit(kind)` bytes.
    pub fn new(limit: L) -> Self {
        Self { deframer: Deframer::new(limit), partial: Vec::new() }
    }

    /// Takes the next frame; gives the message that it completes, if it does.
    pub fn push(&mut self, frame: Frame) -> Result<Option<(Kind, Vec<u8>)>, FrameError> {
        let Chunk { kind, last, data, .. } =
            self.deframer.push(frame).inspect_err(|_| self.partial.clear())?;
        self.partial.extend_from_slice(&data);
        Ok(last.then(|| (kind, std::mem::take(&mut self.partial))))
    }

    /// Whether a message has begun and not ended: a stream that ends here was cut off.
    pub fn is_partial(&self) -> bool {
        self.deframer.is_partial()
    }
}

/// Why a frame is refused. Always the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame's kind is no kind.
    #[error(transparent)]
    UnknownKind(#[from] UnknownKind),
    /// The frame belongs to another message than the one that has begun.
    #[error("frame of kind {found:?} inside a message of kind {begun:?}")]
    KindChanged {
        /// Kind of the message that has begun.
        begun: Kind,
        /// Kind of the frame.
        found: Kind,
    },
    /// The frame has more or less data than its place in the message allows.
    #[error("frame carries {found} bytes; accepted are {least} to {most} at this place")]
    Length {
        /// Bytes in the frame.
        found: usize,
        /// Least bytes accepted.
        least: usize,
        /// Most bytes accepted.
        most: usize,
    },
    /// The message is longer than the receiver allows for its kind.
    #[error("message of kind {kind:?} exceeds {limit} bytes")]
    TooLong {
        /// Kind of the message.
        kind: Kind,
        /// Most bytes accepted.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: Kind, last: bool, length: usize) -> Frame {
        Frame { kind: kind.into(), last, data: vec![7; length].into() }
    }

    #[test]
    fn frames_at_the_boundaries() {
        for (length, expected) in [
            (0, vec![0]),
            (1, vec![1]),
            (FRAME - 1, vec![FRAME - 1]),
            (FRAME, vec![FRAME]),
            (FRAME + 1, vec![FRAME, 1]),
            (2 * FRAME, vec![FRAME, FRAME]),
        ] {
            let frames: Vec<Frame> = frames(Kind::Model, vec![1; length]).collect();
            assert_eq!(frames.iter().map(|frame| frame.data.len()).collect::<Vec<_>>(), expected);
            assert!(frames.iter().rev().skip(1).all(|frame| !frame.last));
            assert!(frames.last().unwrap().last);
        }
    }

    #[test]
    fn limit_is_exact() {
        let message = vec![3; FRAME + 10];
        for (limit, fits) in [(FRAME + 10, true), (FRAME + 9, false)] {
            let mut assembler = Assembler::new(|_| limit);
            let outcome: Result<Vec<_>, _> =
                frames(Kind::Input, message.clone()).map(|frame| assembler.push(frame)).collect();
            if fits {
                assert_eq!(outcome.unwrap(), [None, Some((Kind::Input, message.clone()))]);
            } else {
                assert_eq!(outcome.unwrap_err(), FrameError::TooLong { kind: Kind::Input, limit });
            }
        }
    }

    #[test]
    fn a_message_that_must_exceed_the_limit_is_refused_before_its_end() {
        let mut assembler = Assembler::new(|_| FRAME);
        assert_eq!(
            assembler.push(frame(Kind::Model, false, FRAME)),
            Err(FrameError::TooLong { kind: Kind::Model, limit: FRAME })
        );
    }

    #[test]
    fn the_limit_is_per_kind() {
        let mut assembler = Assembler::new(|kind| if kind == Kind::Input { 8 } else { 4 });
        assert!(assembler.push(frame(Kind::Input, true, 8)).unwrap().is_some());
        assert_eq!(
            assembler.push(frame(Kind::Join, true, 8)),
            Err(FrameError::TooLong { kind: Kind::Join, limit: 4 })
        );
    }

    #[test]
    fn bad_sequences() {
        let begun = || {
            let mut assembler = Assembler::new(|_| 4 * FRAME);
            assert_eq!(assembler.push(frame(Kind::Input, false, FRAME)), Ok(None));
            assert!(assembler.is_partial());
            assembler
        };
        assert_eq!(
            begun().push(frame(Kind::Join, true, 1)),
            Err(FrameError::KindChanged { begun: Kind::Input, found: Kind::Join })
        );
        for (last, length, least) in [(false, 0, FRAME), (false, FRAME - 1, FRAME), (true, FRAME + 1, 0)] {
            assert_eq!(
                Assembler::new(|_| 4 * FRAME).push(frame(Kind::Input, last, length)),
                Err(FrameError::Length { found: length, least, most: FRAME })
            );
        }
        for (last, length, least) in
            [(false, 0, FRAME), (false, FRAME + 1, FRAME), (true, 0, 1), (true, FRAME + 1, 1)]
        {
            assert_eq!(
                begun().push(frame(Kind::Input, last, length)),
                Err(FrameError::Length { found: length, least, most: FRAME })
            );
        }
        let unknown = Frame { kind: 11, last: true, data: Bytes::new() };
        assert_eq!(begun().push(unknown), Err(FrameError::UnknownKind(UnknownKind(11))));
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        proptest::sample::select(Kind::ALL.to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_survive(messages in prop::collection::vec((any_kind(), 0_usize..3 * FRAME, any::<u8>()), 1..4)) {
            let mut assembler = Assembler::new(|_| 3 * FRAME);
            for (kind, length, fill) in messages {
                let message: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ fill).collect();
                let mut out = Vec::new();
                for frame in frames(kind, message.clone()) {
                    out.extend(assembler.push(frame).unwrap());
                }
                prop_assert!(!assembler.is_partial());
                prop_assert_eq!(out, vec![(kind, message)]);
            }
        }

        #[test]
        fn hostile_frames_never_hold_more_than_the_limit(
            limit in 0_usize..3 * FRAME,
            sequence in prop::collection::vec(
                (0_u32..50, any::<bool>(), prop_oneof![Just(FRAME), 0..=FRAME + 1]), 0..12),
        ) {
            let mut assembler = Assembler::new(|_| limit);
            for (kind, last, length) in sequence {
                if let Ok(Some((_, message))) =
                    assembler.push(Frame { kind, last, data: vec![0; length].into() })
                {
                    prop_assert!(message.len() <= limit);
                }
                prop_assert!(assembler.partial.is_empty() || assembler.partial.len() < limit);
            }
        }
    }
}
