//! Identity certificates.

use ed25519_dalek::SigningKey;
use fedveil_aggregation::secagg::{IdentityCertificate, MAX_NAME_LEN};

use super::{Seeds, seed};

const NOW: u64 = 1_000;

/// Whether the input is a certificate, or one could be issued for the key and the name that it is made of.
pub fn run(input: &[u8]) -> bool {
    let issued = input.split_first_chunk::<32>().is_some_and(|(key, name)| issued(key, name));
    let verified = IdentityCertificate::verify(input, &authority().verifying_key(), NOW);
    if let Ok(identity) = &verified {
        let key = identity.public_key().as_bytes();
        let again = IdentityCertificate::issue(&authority(), key, identity.name(), identity.not_after());
        assert_eq!(again.as_deref(), Ok(input), "a certificate has one encoding");
        assert!(identity.not_after() >= NOW, "it is valid now");
    }
    issued | verified.is_ok()
}

/// Issues and verifies.
fn issued(key: &[u8; 32], name: &[u8]) -> bool {
    let Ok(name) = str::from_utf8(name) else { return false };
    let Ok(certificate) = IdentityCertificate::issue(&authority(), key, name, NOW) else { return false };
    let identity = IdentityCertificate::verify(&certificate, &authority().verifying_key(), NOW)
        .expect("what the authority issues verifies");
    assert_eq!(
        (identity.name(), identity.public_key().as_bytes()),
        (name, key),
        "it says what was certified"
    );
    true
}

fn authority() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn seeds() -> Seeds {
    let key = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    let certificate = |authority: &SigningKey, name: &str, not_after| {
        IdentityCertificate::issue(authority, &key, name, not_after).expect("key and name can be certified")
    };
    let longest = "é".repeat(MAX_NAME_LEN / 2);
    let good = certificate(&authority(), "phone 1", NOW);
    let with_name_length = |length: u32| {
        let mut bytes = good.clone();
        bytes[42..46].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    vec![
        seed("accepted", good.clone()),
        seed("accepted-without-a-name", certificate(&authority(), "", u64::MAX)),
        seed("accepted-longest-name", certificate(&authority(), &longest, NOW)),
        seed("accepted-key-and-name", [&key, longest.as_bytes()].concat()),
        seed("refused-name-too-long", [&key, longest.as_bytes(), b"x"].concat()),
        seed("refused-name-not-text", [&key, b"\xff".as_slice()].concat()),
        seed("refused-key-of-small-order", [[1].as_slice(), &[0; 31]].concat()),
        seed("refused-expired", certificate(&authority(), "phone 1", NOW - 1)),
        seed("refused-other-authority", certificate(&SigningKey::from_bytes(&[9; 32]), "phone 1", NOW)),
        seed("refused-name-length-65", with_name_length(65)),
        seed("refused-name-length-most", with_name_length(u32::MAX)),
        seed("refused-cut-short", &good[..good.len() - 1]),
        seed("refused-byte-after", [good.as_slice(), &[0]].concat()),
        seed("refused-version", [&[2], &good[1..]].concat()),
    ]
}
