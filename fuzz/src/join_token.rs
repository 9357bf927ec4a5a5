//! Join tokens, as an owner pastes them.

use fedveil_proto::{JoinToken, Pins};

use super::{Seeds, seed};

/// Whether the text is a join token.
pub fn run(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else { return false };
    let Ok(token) = text.parse::<JoinToken>() else { return false };
    assert_eq!(*token.to_text(), text.trim(), "a token has one text");
    true
}

pub fn seeds() -> Seeds {
    let token = JoinToken::new([1; 32], Pins { ca: [2; 32], signer: [3; 32], authority: [4; 32] });
    let text = token.to_text();
    vec![
        seed("accepted", text.as_bytes()),
        seed("accepted-in-white-space", format!(" \t{}\r\n", *text)),
        seed("refused-version", text.replacen("v1", "v4294967296", 1)),
        seed("refused-padded", format!("{}=", *text)),
        seed("refused-cut-short", &text.as_bytes()[..text.len() - 4]),
        seed("refused-prefix-alone", "fedveil-join-v1."),
        seed("refused-mistyped", text.replacen("AQEB", "AQEC", 1)),
        seed("refused-not-ascii", text.replacen("AQEB", "ÄQÉB", 1)),
    ]
}
