//! The coordinator of secure aggregation, to which one message of a client comes altered.
//!
//! The first byte of an input says which; the rest is the message. It is refused, or the session goes on as far as the
//! protocol promises: what is signed or committed to is what the client said in the honest session; boxes that were
//! altered open for nobody; an input changes the sum and not how it is reached; false shares never change the sum.

use fedveil_aggregation::secagg::{Abort, GroupServer, Sum};

use super::{
    Seeds, seed,
    session::{CHOSEN, HEARD, NOW, SENT, SESSION, decode, id, play},
};

/// Whether the message is accepted.
pub fn run(input: &[u8]) -> bool {
    let Some((&which, message)) = input.split_first() else { return false };
    let which = usize::from(which) % SENT.len();
    let honest = SESSION.sent[&CHOSEN][which] == message;
    match SENT[which] {
        "advertise" => advertise(message, honest),
        "reveal" => {
            let accepted = SESSION.roster.check_reveal(&SESSION.config, id(CHOSEN), message).is_ok();
            assert_eq!(accepted, honest, "a nonce is the one that was committed to");
            accepted
        }
        "shares" => shares(message, honest),
        "input" => masked_input(message, honest),
        "consistency" => {
            let accepted = SESSION.phases[2].check_consistency(id(CHOSEN), message).is_ok();
            assert_eq!(accepted, honest, "a signature is the client's");
            accepted
        }
        _ => unmask(message, honest),
    }
}

fn advertise(message: &[u8], honest: bool) -> bool {
    let mut cohort = SESSION.cohort.clone();
    let advertisement = cohort.check_advertise(message, NOW);
    assert_eq!(advertisement.is_ok(), honest, "an advertisement is signed");
    let Ok(advertisement) = advertisement else { return false };
    cohort.apply_advertise(advertisement);
    assert!(cohort.seal().as_ref() == Ok(&SESSION.roster), "the roster follows from the advertisements");
    true
}

fn shares(message: &[u8], honest: bool) -> bool {
    let mut server = SESSION.phases[0].clone();
    let Ok(shares) = server.check_shares(id(CHOSEN), message) else { return false };
    server.apply_shares(id(CHOSEN), shares);
    let deliveries = server.close_sharing().expect("everyone has shared");
    let delivery = HEARD.iter().position(|name| *name == "delivery").expect("clients hear of boxes");
    let altered = |client: &&u8| deliveries[&id(**client)] != SESSION.heard[*client][delivery];
    let recipient = SESSION.survivors.iter().find(altered);
    assert!(!honest || recipient.is_none(), "honest shares are delivered");
    if let Some(recipient) = recipient {
        let mut heard = SESSION.heard[recipient].clone();
        heard[delivery].clone_from(&deliveries[&id(*recipient)]);
        assert!(play(&SESSION.config, *recipient, &heard).is_err(), "an altered box does not open");
    }
    true
}

fn masked_input(message: &[u8], honest: bool) -> bool {
    let mut server = SESSION.phases[1].clone();
    let Some(input) = decode(&SESSION.config, message) else { return false };
    if server.check_masked_input(id(CHOSEN), &input).is_err() {
        return false;
    }
    let mut inputs = SESSION.inputs[0].clone();
    inputs.add(id(CHOSEN), &input).expect("the client's first");
    server.apply_masked_input(id(CHOSEN), *input.digest());
    let survivors = server.close_collecting().expect("enough have submitted");
    assert_eq!(&survivors, &SESSION.heard[&CHOSEN][3], "the survivors are who submitted");
    for &client in &SESSION.survivors {
        let signature = server.check_consistency(id(client), &SESSION.sent[&client][4]);
        server.apply_consistency(id(client), signature.expect("the survivors are those that were signed"));
    }
    server.close_consistency().expect("all survivors have signed");
    for &client in &SESSION.survivors {
        let answer = server.check_unmask(id(client), &SESSION.sent[&client][5]);
        server.apply_unmask(id(client), answer.expect("the survivors are those that were answered for"));
    }
    let sum = server.close_unmasking().expect("all survivors have answered").sum(&inputs);
    let Sum { values, blamed } = sum.expect("the masks do not depend on what was masked");
    assert!(!honest || values == SESSION.sum, "honest inputs have their sum");
    assert!(blamed.is_empty(), "nobody gave a false share");
    true
}

fn unmask(message: &[u8], honest: bool) -> bool {
    let server: &GroupServer = &SESSION.phases[3];
    let mut server = server.clone();
    let Ok(answer) = server.check_unmask(id(CHOSEN), message) else { return false };
    server.apply_unmask(id(CHOSEN), answer);
    match server.close_unmasking().expect("all survivors have answered").sum(&SESSION.inputs[1]) {
        Ok(Sum { values, blamed }) => {
            assert_eq!(values, SESSION.sum, "false shares never change the sum");
            assert!(
                blamed.iter().all(|client| !honest && *client == id(CHOSEN)),
                "nobody is blamed for another"
            );
        }
        Err(Abort::BadShares { .. }) => assert!(!honest, "honest shares recover every secret"),
        Err(other) => panic!("{other}"),
    }
    true
}

pub fn seeds() -> Seeds {
    let other = SESSION.survivors[0];
    let mut seeds = Vec::new();
    for (which, name) in (0_u8..).zip(SENT) {
        let message = &SESSION.sent[&CHOSEN][usize::from(which)];
        let mut add = |outcome: &str, change: &str, message: &[u8]| {
            seeds.push(seed(&format!("{outcome}-{name}{change}"), [&[which], message].concat()));
        };
        let altered = |at: usize, by: u8| {
            let mut message = message.clone();
            message[at] ^= by;
            message
        };
        // What the coordinator cannot look into.
        let opaque = ["shares", "input", "unmask"].contains(&name);
        add("accepted", "", message);
        add(if opaque { "accepted" } else { "refused" }, "-altered", &altered(2, 1));
        add("refused", "-of-another-kind", &SESSION.sent[&CHOSEN][(usize::from(which) + 1) % SENT.len()]);
        add("refused", "-version", &altered(0, 1));
        add("refused", "-cut-short", &message[..message.len() - 1]);
        add("refused", "-byte-after", &[message.as_slice(), &[0]].concat());
        add("refused", "-empty", &[]);
        match name {
            "advertise" | "reveal" | "consistency" | "input" => {
                add("refused", "-of-another-client", &SESSION.sent[&other][usize::from(which)]);
            }
            "unmask" => {
                add("accepted", "-of-another-client", &SESSION.sent[&other][usize::from(which)]);
                add("accepted", "-all-false", &{
                    let mut message = message.clone();
                    message[2..].iter_mut().step_by(32).for_each(|byte| *byte ^= 1);
                    message
                });
                add(
                    "refused",
                    "-share-out-of-range",
                    &[&message[..2], &vec![0xff; message.len() - 2]].concat(),
                );
            }
            _ => {}
        }
    }
    seeds
}
