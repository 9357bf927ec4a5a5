//! Whole sessions, byte for byte: what every message of a seeded session is, kept in `tests/vectors/secagg` at the root
//! of the workspace. Beside it, `reference.py` reads the files as a coordinator would and arrives at the same sums.
//!
//! After a change of the formats, which comes with a new version of them, the files are written anew by
//! `cargo test -p fedveil-aggregation -- --ignored session_vectors_are_written`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::ring::element_mask;
use super::*;

/// A session to record: two groups of ten on a ring, of which each loses members in its own way.
fn pairwise() -> Script {
    let parameters = SessionParameters {
        length: 6,
        group_size: 10,
        degree: 4,
        threshold: 3,
        min_survivors: 8,
        min_cohort: 21,
        max_cohort: 21,
        max_missing_reveals: 1,
        ..seven()
    };
    let lost = [
        ((0, 0), Kind::Shares),
        ((0, 5), Kind::Unmask),
        ((1, 3), Kind::MaskedInput),
        ((1, 8), Kind::Consistency),
    ];
    Script { parameters, clients: 21, silent: 4, lost: lost.into() }
}

/// One group, a complete graph, that loses an input; the last coefficient is not full.
fn rlwe() -> Script {
    let parameters = SessionParameters {
        protocol: ProtocolKind::RlweTwoLayer,
        prg: Prg::ChaCha20,
        ring_bits: 26,
        length: 5,
        group_size: 5,
        degree: 4,
        threshold: 3,
        min_survivors: 4,
        min_cohort: 6,
        max_cohort: 6,
        max_missing_reveals: 1,
        ..seven()
    };
    Script { parameters, clients: 6, silent: 2, lost: [((0, 1), Kind::MaskedInput)].into() }
}

/// What is to happen.
struct Script {
    parameters: SessionParameters,
    clients: usize,
    /// The client that does not reveal its nonce.
    silent: usize,
    /// By group and position: the first message that a member does not send.
    lost: BTreeMap<(usize, usize), Kind>,
}

impl Script {
    fn sends(&self, member: (usize, usize), kind: Kind) -> bool {
        self.lost.get(&member).is_none_or(|first| (kind as u8) < *first as u8)
    }
}

/// Messages in the order in which they were sent.
#[derive(Default)]
struct Record(Vec<Value>);

impl Record {
    /// Notes a message to or from a client, or to all of them, or to all of a group.
    fn note(&mut self, kind: Kind, client: Option<usize>, group: Option<usize>, message: &[u8]) {
        let name = match kind {
            Kind::Identity => unreachable!("certificates travel inside advertisements"),
            Kind::Advertise => "advertise",
            Kind::Roster => "roster",
            Kind::Reveal => "reveal",
            Kind::Reveals => "reveals",
            Kind::Shares => "shares",
            Kind::Delivery => "delivery",
            Kind::MaskedInput => "masked input",
            Kind::Survivors => "survivors",
            Kind::Consistency => "consistency",
            Kind::Signatures => "signatures",
            Kind::Unmask => "unmask",
        };
        let digest = hex::encode(Sha256::digest(message));
        let mut entry = json!({"kind": name, "client": client, "group": group, "sha256": digest});
        // What a reader needs to follow the session; the rest is in these, sealed, or follows from them.
        let in_full = [
            Kind::Roster,
            Kind::Reveals,
            Kind::MaskedInput,
            Kind::Survivors,
            Kind::Consistency,
            Kind::Unmask,
        ];
        if in_full.contains(&kind) {
            entry["bytes"] = hex::encode(message).into();
        }
        self.0.push(entry);
    }
}

/// Plays a script and writes down what happened.
fn recorded(script: &Script) -> String {
    let mut session = Session::new(script.parameters.clone(), script.clients, 11);
    let (length, mask) = (script.parameters.length, element_mask(script.parameters.ring_bits));
    let input =
        |client: usize| (0..length).map(|i| ((client as i32 - 5) * 1_000 + i as i32) as u32 & mask).collect();
    session.inputs = (0..script.clients).map(input).collect();
    let mut record = Record::default();

    let (clients, advertisements) = session.until_roster();
    for (client, message) in advertisements.iter().enumerate() {
        record.note(Kind::Advertise, Some(client), None, message);
    }
    let roster = session.seal(&advertisements);
    record.note(Kind::Roster, None, None, roster.message());

    let (mut nonces, mut revealed) = (BTreeMap::new(), BTreeMap::new());
    for (client, state) in clients.into_iter().enumerate().filter(|(client, _)| *client != script.silent) {
        let (state, message) = ok(state.on_roster(roster.message()));
        record.note(Kind::Reveal, Some(client), None, &message);
        let id = session.id(client);
        nonces.insert(id, roster.check_reveal(&session.config, id, &message).unwrap());
        revealed.insert(client, state);
    }
    let (reveals, groups) = roster.form_groups(&session.config, &nonces).unwrap();
    record.note(Kind::Reveals, None, None, &reveals);

    let mut ends = Vec::new();
    for group in &groups {
        let states = group.members().iter().map(|client| revealed.remove(client).unwrap()).collect();
        let server = GroupServer::new(&session.config, &roster, group);
        let (survivors, Sum { values, blamed }) =
            play_group(script, &mut session, &mut record, group, server, states, &reveals);
        assert!(blamed.is_empty());
        let transcript = hex::encode(group.transcript());
        ends.push(json!({"members": group.members(), "transcript": transcript, "survivors": survivors, "sum": values}));
    }

    let clients = session.keys.iter().zip(&session.inputs);
    let clients =
        clients.map(|(key, input)| json!({"id": hex::encode(identity(key).client_id().0), "input": input}));
    rendered(&[
        ("parameters", vec![described(&script.parameters)]),
        ("clients", clients.collect()),
        ("messages", record.0),
        ("groups", ends),
    ])
}

/// Plays one group to its end: positions of its survivors, and their sum.
fn play_group(
    script: &Script,
    session: &mut Session,
    record: &mut Record,
    group: &Group,
    mut server: GroupServer,
    states: Vec<AwaitReveals>,
    reveals: &[u8],
) -> (Vec<usize>, Sum) {
    let index = group.index();
    let client = |position: usize| group.members()[position];
    let sends = |position: usize, kind: Kind| script.sends((index, position), kind);
    let mut note = |kind: Kind, position: usize, message: &[u8]| {
        record.note(kind, Some(client(position)), Some(index), message);
    };

    let mut sharing = BTreeMap::new();
    for (position, state) in states.into_iter().enumerate() {
        let (state, message) = ok(state.on_reveals(reveals, NOW, &mut session.rng));
        if sends(position, Kind::Shares) {
            note(Kind::Shares, position, &message);
            let id = session.id(client(position));
            let shares = server.check_shares(id, &message).unwrap();
            server.apply_shares(id, shares);
            sharing.insert(position, state);
        }
    }

    let deliveries = server.close_sharing().unwrap();
    let mut sum = server.accumulator();
    let mut submitted = BTreeMap::new();
    for (position, state) in sharing {
        let id = session.id(client(position));
        note(Kind::Delivery, position, &deliveries[&id]);
        let state = ok(state.on_delivery(&deliveries[&id]));
        if sends(position, Kind::MaskedInput) {
            let (state, message) = ok(state.submit(&session.inputs[client(position)], &mut session.rng));
            note(Kind::MaskedInput, position, &message);
            let input = session.decode(&message).unwrap();
            server.check_masked_input(id, &input).unwrap();
            sum.add(id, &input).unwrap();
            server.apply_masked_input(id, *input.digest());
            submitted.insert(position, state);
        }
    }

    let survivors = server.close_collecting().unwrap();
    record.note(Kind::Survivors, None, Some(index), &survivors);
    let mut note = |kind: Kind, position: usize, message: &[u8]| {
        record.note(kind, Some(client(position)), Some(index), message);
    };
    let positions: Vec<usize> = submitted.keys().copied().collect();
    let mut signed = BTreeMap::new();
    for (position, state) in submitted {
        let (state, message) = ok(state.on_survivors(&survivors));
        if sends(position, Kind::Consistency) {
            note(Kind::Consistency, position, &message);
            let id = session.id(client(position));
            let consistency = server.check_consistency(id, &message).unwrap();
            server.apply_consistency(id, consistency);
            signed.insert(position, state);
        }
    }

    let signatures = server.close_consistency().unwrap();
    for (position, state) in signed {
        let id = session.id(client(position));
        note(Kind::Signatures, position, &signatures[&id]);
        let message = ok(state.on_signatures(&signatures[&id]));
        if sends(position, Kind::Unmask) {
            note(Kind::Unmask, position, &message);
            let shares = server.check_unmask(id, &message).unwrap();
            server.apply_unmask(id, shares);
        }
    }
    (positions, server.close_unmasking().unwrap().sum(&sum).unwrap())
}

fn described(parameters: &SessionParameters) -> Value {
    let SessionParameters { context, authority, protocol, prg, .. } = parameters;
    let prg = match prg {
        Prg::Aes256Ctr => "aes-256-ctr",
        Prg::ChaCha20 => "chacha20",
    };
    json!({
        "context": hex::encode(context),
        "authority": hex::encode(authority),
        "protocol": protocol.name(),
        "prg": prg,
        "ring_bits": parameters.ring_bits,
        "length": parameters.length,
        "group_size": parameters.group_size,
        "degree": parameters.degree,
        "threshold": parameters.threshold,
        "min_survivors": parameters.min_survivors,
        "min_cohort": parameters.min_cohort,
        "max_cohort": parameters.max_cohort,
        "max_missing_reveals": parameters.max_missing_reveals,
    })
}

/// JSON with one entry a line.
fn rendered(sections: &[(&str, Vec<Value>)]) -> String {
    let sections: Vec<String> = sections
        .iter()
        .map(|(name, entries)| {
            let entries: Vec<String> = entries.iter().map(|entry| format!("    {entry}")).collect();
            format!("  \"{name}\": [\n{}\n  ]", entries.join(",\n"))
        })
        .collect();
    format!("{{\n{}\n}}\n", sections.join(",\n"))
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/secagg");

fn sessions() -> [(&'static str, Script); 2] {
    [("session-pairwise-mask.json", pairwise()), ("session-rlwe-two-layer.json", rlwe())]
}

#[test]
fn sessions_are_byte_for_byte_those_on_file() {
    for (name, script) in sessions() {
        let on_file = std::fs::read_to_string(Path::new(FOLDER).join(name)).expect(name);
        let recorded = recorded(&script);
        for (line, (found, wanted)) in recorded.lines().zip(on_file.lines()).enumerate() {
            assert_eq!(found, wanted, "{name}, line {}", line + 1);
        }
        assert_eq!(recorded.len(), on_file.len(), "{name}");
    }
}

#[test]
#[ignore = "writes the files that the other test reads"]
fn session_vectors_are_written() {
    for (name, script) in sessions() {
        std::fs::write(Path::new(FOLDER).join(name), recorded(&script)).expect(name);
    }
}
