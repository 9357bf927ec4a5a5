//! Checkpoints, as a signed note, and as lines that the log's key has signed.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::Signer;
use fedveil_provenance::{Checkpoint, Digest, SigningKey};

use super::{
    Seeds,
    history::{ORIGIN, key, logs, other_key},
    seed,
};

/// Whether the input is a checkpoint of the log, or would be one if its key had signed it.
pub fn run(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else { return false };
    verify(text) | verify(&note(text, ORIGIN, &key()))
}

fn verify(text: &str) -> bool {
    let silent = SigningKey::from_bytes(&[3; 32]);
    let unsigned = Checkpoint::verify(text, ORIGIN, &silent.verifying_key());
    assert!(unsigned.is_err(), "this key signed nothing");
    let Ok(checkpoint) = Checkpoint::verify(text, ORIGIN, &key().verifying_key()) else { return false };
    assert_eq!(checkpoint.origin, ORIGIN, "the log is the one that was asked for");
    let again = Checkpoint::sign(ORIGIN, &checkpoint.head, &key()).expect("the origin names a log");
    assert!(
        text.starts_with(again.split_once("\n\n").expect("a note has a body").0),
        "a head has one spelling"
    );
    true
}

/// A signed note (c2sp.org/signed-note) of any lines, by the key of this name.
fn note(body: &str, name: &str, key: &SigningKey) -> String {
    let named = [name.as_bytes(), b"\n\x01", key.verifying_key().as_bytes()].concat();
    let mut signature = Digest::of(named).0[..4].to_vec();
    signature.extend_from_slice(&key.sign(body.as_bytes()).to_bytes());
    format!("{body}\n— {name} {}\n", BASE64_STANDARD.encode(signature))
}

pub fn seeds() -> Seeds {
    let checkpoint = logs(1).pop().expect("there is a log for each round").1;
    let body = format!("{}\n", checkpoint.split_once("\n\n").expect("a note has a body").0);
    let witness = format!("— witness.example {}\n", BASE64_STANDARD.encode([1; 76]));
    vec![
        seed("accepted-note", checkpoint.clone()),
        seed("accepted-with-a-witness", format!("{checkpoint}{witness}")),
        seed("accepted-lines", body.clone()),
        seed("refused-other-key", note(&body, ORIGIN, &other_key())),
        seed("refused-other-log", note(&body.replace("digits", "letters"), ORIGIN, &key())),
        seed("refused-no-signature", format!("{body}\n")),
        seed("refused-altered", checkpoint.replacen("\n2\n", "\n3\n", 1)),
        seed("refused-leading-zero", body.replacen("\n2\n", "\n02\n", 1)),
        seed("refused-too-many-leaves", body.replacen("\n2\n", "\n281474976710657\n", 1)),
        seed("refused-extension-line", format!("{body}extension\n")),
        seed("refused-no-line", ORIGIN),
    ]
}
