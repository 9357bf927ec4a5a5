//! Canonical byte encoding of every message.
//!
//! A message is `version ‖ kind ‖ fields`; integers are little-endian and of fixed width, and every byte is accounted
//! for: a value has exactly one encoding, and a decoder accepts no byte more and no byte less. There is no
//! self-describing layer and no optional field, so the bytes received are the bytes that are signed and hashed.

/// Version of all messages, certificates and domain-separation tags of this module.
pub const VERSION: u8 = 1;

/// Why bytes from a peer are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes stop inside a field.
    #[error("message is cut short: a field of {needed} bytes has {left} left")]
    Truncated {
        /// Length of the field in bytes.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the end of the message")]
    Trailing {
        /// Number of bytes too many.
        extra: usize,
    },
    /// The sender speaks another version.
    #[error("message version {found}, accepted is {VERSION}")]
    Version {
        /// Version found.
        found: u8,
    },
    /// A message of another kind, or none of this protocol.
    #[error("message kind {found}, expected {expected}")]
    Kind {
        /// Kind byte found.
        found: u8,
        /// Kind byte that this step expects.
        expected: u8,
    },
    /// A value outside its range, or not in its one canonical encoding.
    #[error("{field} is out of range or not canonical")]
    Value {
        /// Name of the field.
        field: &'static str,
    },
    /// A list whose entries are not strictly ascending.
    #[error("{field} are not strictly ascending")]
    Order {
        /// Name of the list.
        field: &'static str,
    },
}

/// First bytes of a message, so that none can be taken for another.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Identity = 1,
    Advertise,
    Roster,
    Reveal,
    Reveals,
    Shares,
    Delivery,
    MaskedInput,
    Survivors,
    Consistency,
    Signatures,
    Unmask,
}

/// Length of `version ‖ kind`.
pub(super) const HEADER_LEN: usize = 2;

/// Appends fields to a message.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: Kind) -> Self {
        Self(vec![VERSION, kind as u8])
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }

    pub(super) fn u32(self, value: usize) -> Self {
        let value = u32::try_from(value).expect("counts and indices are bounded by the configuration");
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes fields off received bytes.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks version and kind.
    pub(super) fn new(bytes: &'a [u8], kind: Kind) -> Result<Self, CodecError> {
        let mut reader = Self(bytes);
        let [version, found] = reader.array()?;
        if version != VERSION {
            return Err(CodecError::Version { found: version });
        }
        if found != kind as u8 {
            return Err(CodecError::Kind { found, expected: kind as u8 });
        }
        Ok(reader)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) =
            self.0.split_at_checked(len).ok_or(CodecError::Truncated { needed: len, left: self.0.len() })?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        Ok(self.bytes(N)?.try_into().expect("bytes(N) returns N bytes"))
    }

    pub(super) fn u32(&mut self) -> Result<usize, CodecError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// A count of entries, refused above `max` before anything is read for them.
    pub(super) fn count(&mut self, max: usize, field: &'static str) -> Result<usize, CodecError> {
        let count = self.u32()?;
        if count > max { Err(CodecError::Value { field }) } else { Ok(count) }
    }

    pub(super) fn finish(self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Trailing { extra: self.0.len() }) }
    }
}

/// Fails unless `index` follows `last` strictly.
pub(super) fn ascending(
    last: &mut Option<usize>,
    index: usize,
    field: &'static str,
) -> Result<(), CodecError> {
    if last.is_some_and(|last| index <= last) {
        return Err(CodecError::Order { field });
    }
    *last = Some(index);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_every_byte_is_accounted_for() {
        let message = Writer::new(Kind::Reveal).u32(7).bytes(&[1, 2, 3]).finish();
        let mut reader = Reader::new(&message, Kind::Reveal).unwrap();
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.array(), Ok([1, 2]));
        assert_eq!(reader.bytes(2), Err(CodecError::Truncated { needed: 2, left: 1 }));
        assert_eq!(reader.finish(), Err(CodecError::Trailing { extra: 1 }));
    }

    #[test]
    fn another_version_or_kind_is_refused() {
        let mut message = Writer::new(Kind::Reveal).finish();
        let error = |bytes: &[u8]| Reader::new(bytes, Kind::Unmask).err();
        assert_eq!(error(&message), Some(CodecError::Kind { found: 4, expected: 12 }));
        message[0] = 9;
        assert_eq!(error(&message), Some(CodecError::Version { found: 9 }));
        assert_eq!(error(&[1]), Some(CodecError::Truncated { needed: 2, left: 1 }));
    }

    #[test]
    fn a_count_above_its_bound_is_refused_before_anything_is_read() {
        let message = Writer::new(Kind::Roster).u32(6).finish();
        let mut reader = Reader::new(&message, Kind::Roster).unwrap();
        assert_eq!(reader.count(5, "members"), Err(CodecError::Value { field: "members" }));
    }
}
