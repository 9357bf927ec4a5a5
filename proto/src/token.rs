//! Join tokens: one-time admission, and the pins that make the first connection safe.
//!
//! The operator hands a token to a device over a channel of its own. Its text form is one word:
//!
//! ```text
//! fedveil-join-v1.<base64url without padding of>
//!     secret (32) ‖ ca (32) ‖ signer (32) ‖ authority (32) ‖ checksum (4)
//! ```
//!
//! where the checksum is the first four bytes of SHA-256 over the prefix and the 128 bytes before it. It finds typing
//! errors; it authenticates nothing.
//!
//! The secret is drawn by the coordinator, which keeps only its digest. There is no expiry in the token: whether a
//! token can still be redeemed is the registry's knowledge alone.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const FAMILY: &str = "fedveil-join-v";
const PREFIX: &str = "fedveil-join-v1.";
const BODY: usize = 4 * 32;
const CHECKSUM: usize = 4;

/// What a client of this federation trusts, by SHA-256 digest. Public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// Of the certificate authority's certificate, DER.
    pub ca: [u8; 32],
    /// Of the Ed25519 public key that signs models and plans.
    pub signer: [u8; 32],
    /// Of the Ed25519 public key of the enrolment authority, which signs identities.
    pub authority: [u8; 32],
}

/// A one-time admission to one federation.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct JoinToken {
    secret: [u8; 32],
    #[zeroize(skip)]
    pins: Pins,
}

impl JoinToken {
    /// A token around a secret of 32 bytes, which must come from the operating system's generator.
    pub fn new(secret: [u8; 32], pins: Pins) -> Self {
        Self { secret, pins }
    }

    /// The secret that the client shows once, to the coordinator.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// SHA-256 of the secret: what the coordinator's registry keeps.
    pub fn secret_digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// What the holder of the token trusts.
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// The text form. It admits whoever has it: for a file or an owner's eyes, never for a log.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; BODY + CHECKSUM]);
        for (slot, part) in bytes.chunks_exact_mut(32).zip([
            &self.secret,
            &self.pins.ca,
            &self.pins.signer,
            &self.pins.authority,
        ]) {
            slot.copy_from_slice(part);
        }
        let checksum = checksum(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&checksum);
        // Sized up front, so that growth leaves no copy of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * bytes.len()));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
        text
    }
}

impl FromStr for JoinToken {
    type Err = TokenParseError;

    /// Reads the text form; white space around it is allowed, as a file or a shell leaves it.
    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        let text = text.trim();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix(FAMILY).and_then(|rest| rest.split_once('.')?.0.parse().ok());
            return Err(version.map_or(TokenParseError::NotAToken, TokenParseError::Version));
        };
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenParseError::Encoding)?);
        if bytes.len() != BODY + CHECKSUM {
            return Err(TokenParseError::Length(bytes.len()));
        }
        let (body, found) = bytes.split_at(BODY);
        if found != checksum(body) {
            return Err(TokenParseError::Checksum);
        }
        let part = |index: usize| -> [u8; 32] {
            body[32 * index..32 * (index + 1)].try_into().expect("a slice of 32 bytes")
        };
        Ok(Self::new(part(0), Pins { ca: part(1), signer: part(2), authority: part(3) }))
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(PREFIX).chain_update(body).finalize();
    *digest.first_chunk().expect("a SHA-256 digest has 32 bytes")
}

/// Why a text is not a join token. The text itself is never repeated: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenParseError {
    /// The text does not begin like a join token.
    #[error("text is not a join token; a join token begins with \"{PREFIX}\"")]
    NotAToken,
    /// The token is of this version.
    #[error("join token has version {0}; accepted is version 1")]
    Version(u32),
    /// What follows the prefix is not base64url.
    #[error("join token is damaged: not base64url without padding after \"{PREFIX}\"")]
    Encoding,
    /// The token holds this many bytes.
    #[error("join token is damaged: it holds {0} bytes; accepted are {len}", len = BODY + CHECKSUM)]
    Length(usize),
    /// The checksum does not fit the rest.
    #[error("join token is damaged: its checksum does not fit, a character is missing or mistyped")]
    Checksum,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken::new([1; 32], Pins { ca: [2; 32], signer: [3; 32], authority: [4; 32] })
    }

    fn parse_error(text: &str) -> TokenParseError {
        text.parse::<JoinToken>().err().expect("the text is refused")
    }

    /// The text form of version 1, fixed: a token written by one release is read by another.
    const GOLDEN: &str = "fedveil-join-v1.AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgIC\
        AgICAgICAgICAgMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAS_lhE1";

    #[test]
    fn golden() {
        assert_eq!(*token().to_text(), GOLDEN);
    }

    #[test]
    fn round_trip_with_white_space() {
        let parsed: JoinToken = format!("  {}\n", *token().to_text()).parse().ok().unwrap();
        assert_eq!(parsed.secret(), token().secret());
        assert_eq!(parsed.pins(), token().pins());
        assert_eq!(parsed.secret_digest(), <[u8; 32]>::from(Sha256::digest([1; 32])));
    }

    #[test]
    fn errors_are_exact() {
        let text = token().to_text();
        assert_eq!(parse_error(""), TokenParseError::NotAToken);
        assert_eq!(parse_error("fedveil-join-vX.AAAA"), TokenParseError::NotAToken);
        assert_eq!(parse_error("fedveil-join-v2.AAAA"), TokenParseError::Version(2));
        assert_eq!(parse_error(&format!("{}=", *text)), TokenParseError::Encoding);
        assert_eq!(parse_error(&text[..text.len() - 4]), TokenParseError::Length(129));
        assert_eq!(parse_error(PREFIX), TokenParseError::Length(0));
        assert_eq!(parse_error(&text.replacen("AQEB", "AQEC", 1)), TokenParseError::Checksum);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(fedveil-join-v1\\.)?[A-Za-z0-9_.é-]{0,200}") {
            // A random text with a right checksum has probability 2^-32.
            prop_assert!(text.parse::<JoinToken>().is_err());
        }

        #[test]
        fn one_wrong_character_is_found(place in 0_usize..176, letter in "[A-Za-z0-9_-]") {
            let text = token().to_text();
            let mut wrong = text.to_string();
            wrong.replace_range(PREFIX.len() + place..=PREFIX.len() + place, &letter);
            prop_assume!(wrong != *text);
            prop_assert_eq!(parse_error(&wrong), TokenParseError::Checksum);
        }
    }
}
