//! A coordinator that shows different things to different clients, chooses what is not its choice, or plays old
//! messages again.

use std::sync::Arc;

use super::super::codec::{Kind, Writer};
use super::super::messages::encode_reveals;
use super::super::protocol::{BODY_MODULUS, Layers, Protocol, RlweTwoLayer};
use super::*;

/// A5: of n nonces the coordinator may leave out w = 1, so it chooses among n + 1 beacons, and by no other means:
/// neither the order of the reveals nor their contents are its own.
#[test]
fn grinding_the_beacon_reaches_as_many_orders_as_reveals_may_be_missing() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 9, max_missing_reveals: 1, ..seven() };
    let start = || Session::new(parameters.clone(), 9, 1).until_reveals();
    let (_, roster, nonces) = start();
    let session = Session::new(parameters.clone(), 9, 1);
    let mut orders = Vec::new();
    for missing in std::iter::once(None).chain((0..9).map(Some)) {
        let mut left = nonces.clone();
        missing.map(|index: usize| left.remove(&roster.members()[index].client_id()).unwrap());
        let (message, groups) = roster.form_groups(&session.config, &left).unwrap();
        let (mut clients, ..) = start();
        let witness = usize::from(missing == Some(0));
        ok(clients.swap_remove(witness).on_reveals(&message, NOW, &mut ChaCha20Rng::seed_from_u64(1)));
        orders.push((groups[0].members().to_vec(), *groups[0].transcript()));
    }
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), 10);

    let mut reveals: Vec<_> = (0..9).map(|at| (at, nonces[&roster.members()[at].client_id()])).collect();
    let refused = |reveals: &[(usize, Nonce)]| {
        let (mut clients, ..) = start();
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        refusal(clients.swap_remove(0).on_reveals(&encode_reveals(reveals), NOW, rng))
    };
    let order = Refusal::Malformed(CodecError::Order { field: "roster indices" });
    reveals.swap(3, 4);
    assert_eq!(refused(&reveals), order);
    reveals.swap(3, 4);
    reveals[5] = reveals[4];
    assert_eq!(refused(&reveals), order);
    reveals[5] = (5, reveals[4].1);
    assert_eq!(refused(&reveals), Refusal::AlteredReveal { index: 5 });
}

/// A5, A8: a client that was made to believe in weaker parameters than the others is in no session with them, whichever
/// parameter it is.
#[test]
fn downgrade_of_a_parameter_for_one_client() {
    type Change = fn(&mut SessionParameters);
    let changes: [Change; 10] = [
        |p| p.degree = 4,
        |p| (p.degree, p.threshold) = (8, 5),
        |p| p.threshold = 5,
        |p| p.min_survivors = 5,
        |p| (p.min_cohort, p.group_size, p.min_survivors) = (11, 11, 8),
        |p| p.max_cohort = 13,
        |p| p.ring_bits = 32,
        |p| p.length = 11,
        |p| p.prg = Prg::ChaCha20,
        |p| p.protocol = ProtocolKind::RlweTwoLayer,
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let mut weaker = twelve();
        change(&mut weaker);
        let mut session = Session::of_twelve(1);
        let (mut clients, mut advertisements) = session.until_roster();
        let mut misled = Session::new(weaker, 12, 2);
        let (misled_client, advertisement) = misled.advertise(11);

        let fault = Cohort::new(session.config.clone()).check_advertise(&advertisement, NOW);
        assert_eq!(fault, Err(Fault::Advertisement(AdvertisementError::Signature)), "change {nth}");
        // A coordinator that goes on with it all the same.
        advertisements[11] = advertisement;
        let roster = advertisements
            .iter()
            .fold(Writer::new(Kind::Roster).u32(12), |writer, entry| writer.u32(entry.len()).bytes(entry))
            .finish();
        clients[11] = misled_client;
        let (mut states, replies): (Vec<_>, Vec<_>) =
            clients.into_iter().map(|state| ok(state.on_roster(&roster))).unzip();
        let reveals: Vec<_> = replies.iter().map(|reply| Nonce::decode(reply).unwrap()).enumerate().collect();
        let message = encode_reveals(&reveals);
        let refused = refusal(states.pop().unwrap().on_reveals(&message, NOW, &mut session.rng));
        assert_eq!(refused, Refusal::AlteredReveal { index: 0 }, "change {nth}");
        for state in states {
            let refused = refusal(state.on_reveals(&message, NOW, &mut session.rng));
            assert_eq!(refused, Refusal::AlteredReveal { index: 11 }, "change {nth}");
        }
    }
}

/// What the coordinator sends to a client in an honest session, in order.
fn messages_to(parameters: &SessionParameters, seed: u64, id: ClientId) -> [Vec<u8>; 5] {
    let session = || Session::new(parameters.clone(), parameters.group_size, seed);
    let everyone: Vec<usize> = (0..parameters.group_size).collect();
    let (_, roster, nonces) = session().until_reveals();
    let (reveals, _) = roster.form_groups(&session().config, &nonces).unwrap();
    let delivery = {
        let mut session = session();
        let (_, mut server, shares) = session.until_delivery();
        for (client, message) in shares.iter().enumerate() {
            let shares = server.check_shares(session.id(client), message).unwrap();
            server.apply_shares(session.id(client), shares);
        }
        server.close_sharing().unwrap().remove(&id).unwrap()
    };
    let survivors = session().until_survivors(&everyone).1.close_collecting().unwrap();
    let signatures =
        session().until_signatures(&everyone).1.close_consistency().unwrap().remove(&id).unwrap();
    [roster.message().to_vec(), reveals, delivery, survivors, signatures]
}

/// How a client of an honest session takes a message when it waits for the one with this number.
fn on_message(
    parameters: &SessionParameters,
    id: ClientId,
    stage: usize,
    message: &[u8],
) -> Result<(), Refusal> {
    let mut session = Session::new(parameters.clone(), parameters.group_size, 1);
    let everyone: Vec<usize> = (0..parameters.group_size).collect();
    let find = |session: &Session| everyone.iter().copied().find(|client| session.id(*client) == id).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    match stage {
        0 => {
            let mut clients = session.until_roster().0;
            clients.swap_remove(find(&session)).on_roster(message).map(drop)
        }
        1 => {
            let mut clients = session.until_reveals().0;
            clients.swap_remove(find(&session)).on_reveals(message, NOW, &mut rng).map(drop)
        }
        2 => {
            let mut clients = session.until_delivery().0;
            clients.swap_remove(find(&session)).on_delivery(message).map(drop)
        }
        3 => {
            let mut clients = session.until_survivors(&everyone).0;
            clients.swap_remove(find(&session)).on_survivors(message).map(drop)
        }
        _ => {
            let mut clients = session.until_signatures(&everyone).0;
            clients.remove(&find(&session)).unwrap().on_signatures(message).map(drop)
        }
    }
}

/// A6: the same clients, the same plan, an older session. A survivor set alone says nothing of its session; the
/// signatures on it do.
#[test]
fn replay_of_every_message_of_an_older_session() {
    for parameters in graphs_and_protocols() {
        let id = Session::new(parameters.clone(), parameters.group_size, 1).id(0);
        let [roster, reveals, delivery, survivors, signatures] = messages_to(&parameters, 2, id);
        let take = |stage, message: &[u8]| on_message(&parameters, id, stage, message);
        assert_eq!(take(0, &roster), Err(Refusal::NotInRoster));
        assert_eq!(take(1, &reveals), Err(Refusal::NotRevealed));
        assert!(matches!(take(2, &delivery), Err(Refusal::BadBox { .. })));
        assert_eq!(take(3, &survivors), Ok(()));
        assert!(matches!(take(4, &signatures), Err(Refusal::BadSignature { .. })));
        // Of the session itself they are all accepted.
        for (stage, message) in messages_to(&parameters, 1, id).iter().enumerate() {
            assert_eq!(take(stage, message), Ok(()), "stage {stage}");
        }
    }
}

/// A6: stages skipped, repeated, rolled back or swapped. A client waits for one kind of message at a time, and is gone
/// once another one came.
#[test]
fn restart_rollback_and_reordering_of_stages() {
    for parameters in [seven(), twelve()] {
        let id = Session::new(parameters.clone(), parameters.group_size, 1).id(0);
        let kinds = [Kind::Roster, Kind::Reveals, Kind::Delivery, Kind::Survivors, Kind::Signatures];
        let messages = messages_to(&parameters, 1, id);
        for (stage, expected) in kinds.iter().enumerate() {
            for (found, message) in kinds.iter().zip(&messages).filter(|(found, _)| *found != expected) {
                let kind = CodecError::Kind { found: *found as u8, expected: *expected as u8 };
                let refused =
                    if stage == 0 { RosterError::from(kind).into() } else { Refusal::Malformed(kind) };
                assert_eq!(on_message(&parameters, id, stage, message), Err(refused), "stage {stage}");
            }
        }
    }
}

/// A6, of clients: what an older session's coordinator accepted is worth nothing to this one.
#[test]
fn replay_of_a_clients_older_messages() {
    for parameters in graphs_and_protocols() {
        let everyone: Vec<usize> = (0..parameters.group_size).collect();
        let session = |seed| Session::new(parameters.clone(), parameters.group_size, seed);
        let mut now = session(1);
        let (_, mut server, _) = now.until_survivors(&everyone);
        let message = server.close_collecting().unwrap();
        let mut older = session(2);
        let (_, older_server, _) = older.until_survivors(&everyone);
        for client in 0..everyone.len() {
            let old = Consistency::sign(older_server.transcript(), &message, &older.keys[client]).encode();
            assert_eq!(server.check_consistency(older.id(client), &old), Err(Fault::BadSignature));
        }
    }
}

/// A7: one client was given another model, and by some miracle everything up to its input went unnoticed. With the
/// coordinator asking for all the secrets that it may have, the masks of its input do not come off, and its signature
/// does not hold.
#[test]
fn inconsistent_models_leave_the_masks_on_and_the_signatures_void() {
    for parameters in graphs_and_protocols() {
        let clients = parameters.group_size;
        let misled = SessionParameters { context: [2; 32], ..parameters.clone() };
        // Equal seeds: the same keys and secrets on both sides.
        let mut other = Session::new(misled, clients, 1);
        let (mut states, other_server) = other.until_input();
        let victim = other.id(0);
        let (_, upload) = ok(states.swap_remove(0).submit(&vec![1; other.inputs[0].len()], &mut other.rng));

        let sum = |mixed: bool| {
            let mut session = Session::new(parameters.clone(), clients, 1);
            session.inputs = vec![vec![1; session.config.parameters().length]; clients];
            let (states, mut server) = session.until_input();
            let mut sum = server.accumulator();
            let mut waiting = Vec::new();
            for (client, state) in states.into_iter().enumerate() {
                let (state, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
                let id = session.id(client);
                let message = if mixed && id == victim { &upload } else { &message };
                let input = session.decode(message).unwrap();
                sum.add(id, &input).unwrap();
                server.apply_masked_input(id, *input.digest());
                waiting.push(state);
            }
            let message = server.close_collecting().unwrap();
            let mut signed = BTreeMap::new();
            for (client, state) in waiting.into_iter().enumerate() {
                let (id, (state, reply)) = (session.id(client), ok(state.on_survivors(&message)));
                if id == victim {
                    let void = Consistency::sign(other_server.transcript(), &message, &session.keys[client]);
                    assert_eq!(server.check_consistency(id, &void.encode()), Err(Fault::BadSignature));
                }
                server.apply_consistency(id, server.check_consistency(id, &reply).unwrap());
                signed.insert(client, state);
            }
            session.finish(signed, server, &sum).unwrap().values
        };
        let expected = clients as u32;
        assert!(sum(false).iter().all(|value| *value == expected));
        assert!(sum(true).iter().all(|value| *value != expected));
    }
}

/// A9: the public polynomials are the transcript's, so nobody can make them zero or bring them back, and a key encrypts
/// under them once. With a zero polynomial a key of zeros would read a ciphertext; with the same key under the same
/// polynomials the difference of two ciphertexts is the difference of the vectors.
#[test]
fn malicious_or_reused_public_polynomials() {
    let protocol = RlweTwoLayer::new(16, 9_000, 7).unwrap();
    let (here, elsewhere) = ([1; 32], [2; 32]);
    let vectors =
        [0, 1].map(|client| (0..9_000).map(|at| at % 500 + client * (at % 77)).collect::<Vec<u32>>());
    let no_key = vec![0; protocol.shape().masked];
    let differing = |a: &[u32], b: &[u32]| a.iter().zip(b).filter(|(a, b)| a != b).count();
    let difference = |a: &Layers, b: &Layers| Layers {
        masked: no_key.clone(),
        body: a
            .body
            .iter()
            .zip(&b.body)
            .map(|(a, b)| if a < b { BODY_MODULUS - b + a } else { a - b })
            .collect(),
    };

    let first = protocol.encode(&here, &vectors[0], &[5; 32]);
    assert_eq!(protocol.decode(&here, first.clone()), vectors[0]);
    let without_key = Layers { masked: no_key.clone(), body: first.body.clone() };
    assert!(
        differing(&protocol.decode(&here, without_key), &vectors[0]) > 8_900,
        "a is not zero in any block"
    );
    assert!(
        differing(&protocol.decode(&elsewhere, first.clone()), &vectors[0]) > 8_900,
        "a is the transcript's"
    );

    let gap: Vec<u32> = vectors[1].iter().zip(&vectors[0]).map(|(b, a)| b - a).collect();
    let again = protocol.encode(&here, &vectors[1], &[5; 32]);
    assert_eq!(protocol.decode(&here, difference(&again, &first)), gap, "what reuse would give away");
    let fresh = protocol.encode(&here, &vectors[1], &[6; 32]);
    assert!(differing(&protocol.decode(&here, difference(&fresh, &first)), &gap) > 8_900);
    let same_secret = protocol.encode(&elsewhere, &vectors[1], &[5; 32]);
    assert_ne!(same_secret.masked, first.masked, "nor is a key that of another transcript");
    assert!(differing(&protocol.decode(&here, difference(&same_secret, &first)), &gap) > 8_900);

    // In sessions the secret is fresh, though client and vector are the same.
    let upload = |seed| {
        let mut session =
            Session::new(SessionParameters { protocol: ProtocolKind::RlweTwoLayer, ..seven() }, 7, seed);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let message = ok(session.until_input().0.swap_remove(0).submit(&[1; 7], &mut rng)).1;
        session.decode(&message).unwrap().layers.body
    };
    assert!(upload(1).iter().zip(upload(2)).all(|(a, b)| *a != b));
}

/// Clients of one process may take from one another what all are sent alike. It leads to the same replies, and is not taken
/// from a client of another session or another roster.
#[test]
fn what_another_client_has_read_is_taken_within_its_session_alone() {
    let other_prg = || Session::new(SessionParameters { prg: Prg::ChaCha20, ..seven() }, 7, 1);
    let (states, roster, nonces) = Session::of_seven(1).until_reveals();
    let (clients, _) = Session::of_seven(1).until_roster();
    let shared = Arc::new(clients[3].read(roster.message()).unwrap());
    for (client, (state, nonce)) in clients.into_iter().zip(nonces.values()).enumerate() {
        let (_, reply) = ok(state.on_claimed(shared.clone()));
        assert_eq!(reply, nonce.encode(), "client {client}");
    }
    let elsewhere = Arc::new(other_prg().until_roster().0[3].read(roster.message()).unwrap());
    let client = Session::of_seven(1).until_roster().0.remove(0);
    assert_eq!(refusal(client.on_claimed(elsewhere)), Refusal::NotInRoster);

    let (message, _) = roster.form_groups(&Session::of_seven(1).config, &nonces).unwrap();
    let rng = || ChaCha20Rng::seed_from_u64(9);
    let shared = states[3].read(&message, NOW).unwrap();
    let alone = Session::of_seven(1).until_reveals().0;
    for (state, alone) in states.into_iter().zip(alone) {
        let (_, shares) = ok(state.on_announced(&shared, &mut rng()));
        assert_eq!(shares, ok(alone.on_reveals(&message, NOW, &mut rng())).1);
    }
    let (states, roster, nonces) = Session::of_seven(2).until_reveals();
    let (message, _) = roster.form_groups(&Session::of_seven(2).config, &nonces).unwrap();
    let elsewhere = states[0].read(&message, NOW).unwrap();
    let client = Session::of_seven(1).until_reveals().0.remove(0);
    assert_eq!(refusal(client.on_announced(&elsewhere, &mut rng())), Refusal::NotRevealed);
}
