//! What a peer may at most send. Both ends refuse more, before they keep it in memory.

use thiserror::Error;

/// Version of the protocol that this crate speaks. Peers of another version are refused, not adapted to.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest encoded gRPC message, in bytes: the limit to set on both directions of clients and servers.
pub const MAX_GRPC_MESSAGE: usize = 1 << 20;

/// Bytes of data in every frame of a message but its last. See [`crate::framing`].
pub const FRAME: usize = 256 << 10;

/// Largest model file, in bytes: what a client accepts as a `Model` message, unless its plan says less.
pub const MAX_MODEL: usize = 256 << 20;

/// Longest reason that a client gives with `Decline`, in bytes.
pub const MAX_DECLINE: usize = 512;

/// Largest certificate request, in bytes.
pub const MAX_CSR: usize = 4 << 10;

/// Largest certificate of any kind, in bytes.
pub const MAX_CERTIFICATE: usize = 4 << 10;

/// Longest client name, in bytes.
pub const MAX_NAME: usize = 64;

/// Checks that `name` can name a client: 1 to [`MAX_NAME`] characters out of `a-z A-Z 0-9 . - _`.
///
/// Names appear in certificates, logs and reports, so they hold nothing that any of these would have to escape.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong(name.len()));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
        Some(character) => Err(NameError::Character(character)),
        None => Ok(()),
    }
}

/// Why a client's name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("client name is empty; accepted are 1 to {MAX_NAME} characters")]
    Empty,
    /// The name has this many bytes.
    #[error("client name has {0} bytes; accepted are 1 to {MAX_NAME}")]
    TooLong(usize),
    /// The name holds this character.
    #[error("client name holds {0:?}; accepted are letters, digits, '.', '-' and '_' of ASCII")]
    Character(char),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(check_name("phone-07.lab_A"), Ok(()));
        assert_eq!(check_name(&"n".repeat(MAX_NAME)), Ok(()));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(&"n".repeat(MAX_NAME + 1)), Err(NameError::TooLong(MAX_NAME + 1)));
        for (name, found) in [("a b", ' '), ("a/b", '/'), ("é", 'é'), ("a\n", '\n'), ("a=b", '=')] {
            assert_eq!(check_name(name), Err(NameError::Character(found)));
        }
    }

    #[test]
    fn a_frame_fits_a_grpc_message() {
        // Kind, last and the length of data cost less than 32 bytes around the data.
        const { assert!(FRAME + 32 <= MAX_GRPC_MESSAGE) }
    }
}
