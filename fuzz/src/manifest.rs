//! Manifests, in the envelope that a peer sends, and as a statement that the pinned key has signed.

use fedveil_provenance::{Digest, Envelope, Manifest};

use super::{
    Seeds,
    history::{key, manifest, other_key},
    seed,
};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Whether the input is a signed manifest, or would be one if the pinned key had signed it.
pub fn run(input: &[u8]) -> bool {
    let signed = Envelope::sign(PAYLOAD_TYPE, input.to_vec(), &[&key()]).to_json();
    verify(input) | verify(&signed)
}

fn verify(envelope: &[u8]) -> bool {
    let trusted = [key().verifying_key()];
    assert!(Manifest::verify(envelope, &[], 0).is_err(), "nobody is trusted");
    let Ok(manifest) = Manifest::verify(envelope, &trusted, 1) else { return false };
    let again = manifest.sign(&[&key()]).expect("what verifies can be signed");
    assert_eq!(Manifest::verify(&again, &trusted, 1), Ok(manifest), "a manifest survives its encoding");
    true
}

pub fn seeds() -> Seeds {
    let first = manifest(0, None);
    let second = manifest(1, Some(Digest::of("first")));
    let envelope = second.sign(&[&key()]).expect("the manifest is one that verifies");
    let payload = |envelope: &[u8]| {
        let envelope = Envelope::parse(envelope).expect("a manifest is an envelope");
        String::from_utf8(envelope.danger_unverified_payload().to_vec()).expect("a statement is JSON")
    };
    let statement = payload(&envelope);
    let change = |from: &str, to: &str| {
        assert!(statement.contains(from), "the statement holds {from}");
        statement.replacen(from, to, 1)
    };
    vec![
        seed("accepted-envelope", envelope.clone()),
        seed("accepted-first", payload(&first.sign(&[&key()]).expect("the manifest is one that verifies"))),
        seed("accepted-statement", statement.clone()),
        seed("accepted-withheld-group", change("\"kept\"", "\"withheld\"").replacen("0.1,", "null,", 1)),
        seed(
            "refused-other-signer",
            second.sign(&[&other_key()]).expect("the manifest is one that verifies"),
        ),
        seed("refused-cut-short", &envelope[..envelope.len() / 2]),
        seed("refused-other-statement", change("urn:fedveil:round:v2", "urn:fedveil:run:v1")),
        seed("refused-other-file", change("model.safetensors", "../model.safetensors")),
        seed("refused-unknown-member", change("\"rule\"", "\"rules\"")),
        seed("refused-more-survivors-than-members", change("\"survivors\":16", "\"survivors\":19")),
        seed("refused-epsilon-not-finite", change("\"epsilon_spent\":0.7", "\"epsilon_spent\":1e999")),
        seed("refused-more-spent-than-there-was", change("\"epsilon_spent\":0.7", "\"epsilon_spent\":15.1")),
        seed("refused-older-format", change("urn:fedveil:round:v2", "urn:fedveil:round:v1")),
        seed("refused-unit-that-is-no-word", change("\"user\"", "\"all of them\"")),
        seed("refused-digest-in-capitals", statement.to_uppercase()),
        seed(
            "refused-path-out-of-the-folder",
            change(
                "\"files\":[]",
                &format!("\"files\":[{{\"path\":\"a/../../b\",\"digest\":\"{}\"}}]", "0".repeat(64)),
            ),
        ),
    ]
}
