//! SHA-256 digests: 64 lower-case hex digits wherever they are written.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest (FIPS 180-4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// A text that is not 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// Too short or too long.
    #[error("a SHA-256 digest is 64 lower-case hex digits, found {0} bytes")]
    Length(usize),
    /// Upper-case digits count as wrong, so that a digest has one spelling.
    #[error("a SHA-256 digest is 64 lower-case hex digits, found another character at byte {0}")]
    Character(usize),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Thirty-two bytes from 64 lower-case hex digits.
pub(crate) fn parse_hex(text: &str) -> Result<[u8; 32], ParseDigestError> {
    if text.len() != 64 {
        return Err(ParseDigestError::Length(text.len()));
    }
    if let Some(at) = text.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(ParseDigestError::Character(at));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).expect("64 hex digits are 32 bytes");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 example: SHA-256("abc").
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn text_and_json_are_the_same_hex() {
        let digest = Digest::of("abc");
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{ABC}\"")).unwrap(), digest);
    }

    #[test]
    fn a_digest_has_one_spelling() {
        assert_eq!(ABC[1..].parse::<Digest>(), Err(ParseDigestError::Length(63)));
        assert_eq!(ABC.to_uppercase().parse::<Digest>(), Err(ParseDigestError::Character(0)));
        assert_eq!(ABC.replace('7', "g").parse::<Digest>(), Err(ParseDigestError::Character(2)));
        assert_eq!("é".repeat(32).parse::<Digest>(), Err(ParseDigestError::Character(0)));
    }
}
