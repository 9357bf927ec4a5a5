//! A client of secure aggregation, to which one message of an honest session comes altered.
//!
//! The first byte of an input says which; the rest is the message. The client refuses, or ends up answering what it
//! answered in the honest session: no message of a coordinator gets anything else out of it.

use super::{
    Seeds, seed,
    session::{CHOSEN, HEARD, SESSION, play},
};

/// Whether the client plays its part to the end.
pub fn run(input: &[u8]) -> bool {
    let Some((&which, message)) = input.split_first() else { return false };
    let session = &*SESSION;
    let mut heard = session.heard[&CHOSEN].clone();
    heard[usize::from(which) % HEARD.len()] = message.to_vec();
    let Ok(sent) = play(&session.config, CHOSEN, &heard) else { return false };
    assert!(sent == session.sent[&CHOSEN], "the client was made to say something else");
    true
}

pub fn seeds() -> Seeds {
    let heard = &SESSION.heard[&CHOSEN];
    let other = SESSION.survivors[0];
    let mut seeds = Vec::new();
    for (which, name) in (0_u8..).zip(HEARD) {
        let message = &heard[usize::from(which)];
        let mut add = |outcome: &str, change: &str, message: &[u8]| {
            seeds.push(seed(&format!("{outcome}-{name}{change}"), [&[which], message].concat()));
        };
        let middle = message.len() / 2;
        let altered = |at: usize, by: u8| {
            let mut message = message.clone();
            message[at] ^= by;
            message
        };
        add("accepted", "", message);
        add("refused", "-of-another-kind", &heard[(usize::from(which) + 1) % HEARD.len()]);
        add("refused", "-cut-short", &message[..middle]);
        add("refused", "-altered-at-its-start", &altered(2, 1));
        add("refused", "-altered-at-its-end", &altered(message.len() - 1, 0x80));
        add("refused", "-byte-after", &[message.as_slice(), &[0]].concat());
        add("refused", "-empty", &[]);
        match name {
            "roster" | "reveals" => {
                add("refused", "-count-too-large", &[&message[..2], &[0xff; 4], &message[6..]].concat());
                // The last entry of the roster has its length before it.
                let entry = (message.len() - 6) / 16;
                let without_last =
                    [&message[..2], &[15, 0, 0, 0], &message[6..message.len() - entry]].concat();
                add("refused", "-entry-missing", &without_last);
            }
            "delivery" => {
                add("refused", "-of-another-client", &SESSION.heard[&other][usize::from(which)]);
                add("refused", "-nobody-shared", &[&message[..2], &[0]].concat());
            }
            "survivors" => add("refused", "-all-survived", &[&message[..2], &[0xff; 2]].concat()),
            "signatures" => {
                add("refused", "-of-another-client", &SESSION.heard[&other][usize::from(which)]);
                let signature = 4 + 64;
                let enough = [&message[..2], &[4, 0, 0, 0], &message[6..6 + 4 * signature]].concat();
                add("accepted", "-just-enough", &enough);
                let too_few = [&message[..2], &[3, 0, 0, 0], &message[6..6 + 3 * signature]].concat();
                add("refused", "-too-few", &too_few);
            }
            _ => {}
        }
    }
    seeds
}
