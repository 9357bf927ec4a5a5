//! Clients that lie, repeat themselves or come late, and bytes that are no messages.

use proptest::prelude::*;
use zeroize::ZeroizeOnDrop;

use super::super::agreement::Secret;
use super::super::graph::Graph;
use super::super::groups::ClaimedRoster;
use super::super::messages::{
    Claim, Delivery, Survivors, decode_reveals, decode_signatures, encode_reveals, encode_signatures,
};
use super::super::shamir::Share;
use super::*;

const ALL: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

#[test]
fn a_client_advertises_once_and_only_into_an_open_cohort() {
    let parameters = SessionParameters { min_cohort: 7, max_cohort: 8, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (_, advertisements) = session.until_roster();
    let mut cohort = Cohort::new(session.config.clone());
    cohort.apply_advertise(cohort.check_advertise(&advertisements[0], NOW).unwrap());
    assert_eq!(cohort.check_advertise(&advertisements[0], NOW), Err(Fault::Repeated));
    let (_, again) = session.advertise(0);
    assert_eq!(cohort.check_advertise(&again, NOW), Err(Fault::Repeated));
    assert!(matches!(
        cohort.check_advertise(&advertisements[1], NOT_AFTER + 1),
        Err(Fault::Advertisement(AdvertisementError::Identity(IdentityError::Expired { .. })))
    ));
    assert_eq!(cohort.clone().seal(), Err(Abort::CohortTooSmall { found: 1, min: 7 }));
    for message in &advertisements[1..8] {
        cohort.apply_advertise(cohort.check_advertise(message, NOW).unwrap());
    }
    assert_eq!(cohort.check_advertise(&advertisements[8], NOW), Err(Fault::CohortFull { max: 8 }));
}

#[test]
fn a_client_does_not_start_with_an_identity_that_others_would_refuse() {
    let mut session = Session::of_seven(1);
    let mut start = |key: usize, certificate: &[u8], now| {
        refusal(advertise(session.config.clone(), &session.keys[key], certificate, now, &mut session.rng))
    };
    let expired = IdentityError::Expired { not_after: NOT_AFTER, now: NOT_AFTER + 1 };
    assert_eq!(start(0, &session.certificates[0], NOT_AFTER + 1), Refusal::OwnIdentity(expired));
    assert_eq!(start(0, &session.certificates[1], NOW), Refusal::OwnIdentity(IdentityError::OtherKey));
}

#[test]
fn a_nonce_is_the_committed_one_of_a_member() {
    let mut session = Session::of_seven(1);
    let (_, roster, nonces) = session.until_reveals();
    let check =
        |client: ClientId, nonce: &Nonce| roster.check_reveal(&session.config, client, &nonce.encode());
    let nonce = nonces[&session.id(0)];
    assert_eq!(check(session.id(0), &nonce), Ok(nonce));
    assert_eq!(check(session.id(1), &nonce), Err(Fault::AlteredReveal));
    assert_eq!(check(ClientId([0; 32]), &nonce), Err(Fault::NotAMember));
    let (_, _, older) = Session::of_seven(2).until_reveals();
    assert_eq!(check(session.id(0), &older[&session.id(0)]), Err(Fault::AlteredReveal));
}

#[test]
fn shares_come_once_from_members_in_their_phase() {
    let mut session = Session::of_seven(1);
    let (_, mut server, shares) = session.until_delivery();
    let id = session.id(0);
    let checked = server.check_shares(id, &shares[0]).unwrap();
    server.apply_shares(id, checked);
    assert_eq!(server.check_shares(id, &shares[0]), Err(Fault::Repeated));
    assert_eq!(server.check_shares(ClientId([0; 32]), &shares[0]), Err(Fault::NotAMember));
    assert_eq!(server.received(), [id]);
    assert_eq!(server.awaited().len(), 6);
    let early = Fault::Phase { phase: Phase::Sharing, expected: Phase::Collecting };
    assert_eq!(server.expects_input(id), Err(early));
    for (client, message) in shares.iter().enumerate().take(5).skip(1) {
        let checked = server.check_shares(session.id(client), message).unwrap();
        server.apply_shares(session.id(client), checked);
    }
    assert_eq!(server.close_sharing().unwrap().len(), 5);
    let late = Fault::Phase { phase: Phase::Collecting, expected: Phase::Sharing };
    assert_eq!(server.check_shares(session.id(5), &shares[5]), Err(late));
    assert_eq!(server.expects_input(session.id(5)), Err(Fault::NotASharer));
    server.apply_masked_input(session.id(5), [0; 32]);
    assert!(server.received().is_empty(), "what was not accepted is not recorded either");
    assert_eq!(server.close_collecting(), Err(Abort::TooFewSurvivors { found: 0, min: 5 }));
}

#[test]
fn inputs_of_the_wrong_shape_are_refused() {
    let parameters = SessionParameters { ring_bits: 9, ..seven() };
    let mut session = Session::new(parameters, 7, 1);
    let (mut clients, server) = session.until_input();
    let (_, message) = ok(clients.remove(0).submit(&session.inputs[0], &mut session.rng));
    let input = session.decode(&message).unwrap();
    assert_eq!(server.check_masked_input(session.id(0), &input), Ok(()));
    let check = |message: &[u8]| session.decode(message).unwrap_err();
    let shorter = &message[..message.len() - 1];
    assert_eq!(check(shorter), CodecError::Truncated { needed: 10, left: 9 });
    let longer = [message.as_slice(), &[0]].concat();
    assert_eq!(check(&longer), CodecError::Trailing { extra: 1 });
    let mut padded = message.clone();
    *padded.last_mut().unwrap() |= 0x80;
    assert_eq!(check(&padded), CodecError::Value { field: "padding" });
    let no_member = server.check_masked_input(ClientId([0; 32]), &input);
    assert_eq!(no_member, Err(Fault::NotAMember));

    let short = refusal(clients.remove(0).submit(&[0; 6], &mut session.rng));
    assert_eq!(short, Refusal::InputLength { found: 6, expected: 7 });
    let large = refusal(clients.remove(0).submit(&[0, 0, 1 << 9, 0, 0, 0, 0], &mut session.rng));
    assert_eq!(large, Refusal::InputRange { index: 2, bits: 9 });
}

#[test]
fn an_input_counts_once_and_in_its_own_group() {
    let mut session = Session::of_seven(1);
    let (mut clients, mut server) = session.until_input();
    let (_, message) = ok(clients.remove(0).submit(&session.inputs[0], &mut session.rng));
    let (id, input) = (session.id(0), session.decode(&message).unwrap());
    server.check_masked_input(id, &input).unwrap();
    let mut sum = server.accumulator();
    sum.add(id, &input).unwrap();
    assert_eq!(sum.add(id, &input), Err(AccumulateError::Repeated(id)));
    assert_eq!(sum.clone().merge(&sum), Err(AccumulateError::Repeated(id)));
    server.apply_masked_input(id, *input.digest());
    assert_eq!(server.check_masked_input(id, &input), Err(Fault::Repeated));

    let (_, other) = Session::of_seven(2).until_input();
    assert_eq!(other.accumulator().merge(&sum), Err(AccumulateError::OtherGroup));
    let shorter = SessionParameters { length: 6, ..seven() };
    let (_, other) = Session::new(shorter, 7, 1).until_input();
    let shape = AccumulateError::OtherShape { found: (7, 0), expected: (6, 0) };
    assert_eq!(other.accumulator().add(id, &input), Err(shape));
}

/// A client that sends what another sent, to double its input unseen.
#[test]
fn copied_ciphertext() {
    let mut session = Session::of_seven(1);
    let (mut clients, mut server) = session.until_input();
    let (_, message) = ok(clients.remove(0).submit(&session.inputs[0], &mut session.rng));
    let input = session.decode(&message).unwrap();
    server.apply_masked_input(session.id(0), *input.digest());
    assert_eq!(server.check_masked_input(session.id(1), &input), Err(Fault::Copied));
    let (_, message) = ok(clients.remove(0).submit(&session.inputs[0], &mut session.rng));
    assert_eq!(server.check_masked_input(session.id(1), &session.decode(&message).unwrap()), Ok(()));
}

/// Once a client is declared dropped, others give its mask key away: its input must not even be looked at.
#[test]
fn late_input_of_a_client_declared_dropped() {
    let mut session = Session::of_seven(1);
    let (clients, mut server) = session.until_input();
    let mut inputs = Vec::new();
    for (client, state) in clients.into_iter().enumerate() {
        let (_, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
        let input = session.decode(&message).unwrap();
        if client > 0 {
            server.apply_masked_input(session.id(client), *input.digest());
        }
        inputs.push(input);
    }
    server.close_collecting().unwrap();
    assert_eq!(server.check_masked_input(session.id(0), &inputs[0]), Err(Fault::LateInput));
    server.apply_masked_input(session.id(0), *inputs[0].digest());
    assert_eq!(server.awaited().len(), 6, "nor does recording it change the survivors");
    assert_eq!(server.check_consistency(session.id(0), &[]), Err(Fault::NotASurvivor));
}

#[test]
fn a_phase_ends_once() {
    let mut session = Session::of_seven(1);
    let (_, mut server, _) = session.until_survivors(&ALL);
    let out_of_order = |phase, expected| Abort::OutOfOrder { phase, expected };
    assert_eq!(server.close_unmasking().err(), Some(out_of_order(Phase::Collecting, Phase::Unmasking)));
    server.close_collecting().unwrap();
    assert_eq!(server.close_collecting(), Err(out_of_order(Phase::Consistency, Phase::Collecting)));
    assert_eq!(server.phase(), Phase::Consistency);

    let abort = Abort::TooFewNeighbours { owner: session.id(0), found: 0, min: 4 };
    assert_eq!(server.close_consistency(), Err(abort));
    assert_eq!(server.phase(), Phase::Over);
    assert_eq!(server.close_consistency(), Err(out_of_order(Phase::Over, Phase::Consistency)));
}

#[test]
fn a_signature_on_another_set_is_refused() {
    let mut session = Session::of_seven(1);
    let (_, mut server, _) = session.until_survivors(&ALL);
    let message = server.close_collecting().unwrap();
    let mut other = message.clone();
    *other.last_mut().unwrap() ^= 1;
    let sign = |message: &[u8], key: usize| {
        Consistency::sign(server.transcript(), message, &session.keys[key]).encode()
    };
    assert!(server.check_consistency(session.id(1), &sign(&message, 1)).is_ok());
    assert_eq!(server.check_consistency(session.id(1), &sign(&other, 1)), Err(Fault::BadSignature));
    assert_eq!(server.check_consistency(session.id(1), &sign(&message, 2)), Err(Fault::BadSignature));
}

/// The sum of a group of twelve from which client 11 drops out after sharing, and all clients' identifiers. The shares
/// for which `is_false` holds, given holder and owner, are falsified.
fn sum_of_eleven(
    parameters: SessionParameters,
    is_false: impl Fn(usize, usize) -> bool,
) -> (Result<Sum, Abort>, Vec<ClientId>) {
    let mut session = Session::new(parameters, 12, 1);
    let graph = Graph::new(12, session.config.parameters().degree);
    let (clients, mut server, sum) = session.until_signatures(&(0..11).collect::<Vec<_>>());
    let signatures = server.close_consistency().unwrap();
    for (holder, state) in clients {
        let id = session.id(holder);
        let mut reply = ok(state.on_signatures(&signatures[&id]));
        for (owner, share) in graph.neighbours(holder).into_iter().zip(reply[2..].chunks_mut(64)) {
            share[0] ^= u8::from(is_false(holder, owner));
        }
        let shares = server.check_unmask(id, &reply).unwrap();
        server.apply_unmask(id, shares);
    }
    (server.close_unmasking().unwrap().sum(&sum), (0..12).map(|client| session.id(client)).collect())
}

#[track_caller]
fn assert_sum_of_eleven(result: Result<Sum, Abort>, blamed: &[ClientId]) {
    let Sum { values, blamed: found } = result.unwrap();
    assert_eq!(values, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(found, blamed);
}

/// Of six shares, four of which are enough, one may be false, of either kind of secret. Nobody is blamed for one: it
/// may be the holder's doing or the dealer's.
#[test]
fn false_shamir_share() {
    for owner in [5, 11] {
        let holder = Graph::new(12, 6).neighbours(owner)[1];
        let (result, _) = sum_of_eleven(twelve(), |at, of| (at, of) == (holder, owner));
        assert_sum_of_eleven(result, &[]);
    }
}

/// Client 2 misses the share that 11 holds; with five left none of them may be false. With six, two may not.
#[test]
fn more_false_shamir_shares_than_can_be_corrected() {
    let (result, ids) = sum_of_eleven(twelve(), |holder, owner| (holder, owner) == (1, 2));
    assert_eq!(result, Err(Abort::BadShares { owner: ids[2] }));
    let (result, ids) = sum_of_eleven(twelve(), |holder, owner| owner == 5 && [3, 4].contains(&holder));
    assert_eq!(result, Err(Abort::BadShares { owner: ids[5] }));
}

/// One colluder may frame an honest member; the shares of two dealers are wrong in one holder's hands only if it lies.
#[test]
fn a_holder_of_many_false_shares_is_blamed() {
    let (result, ids) = sum_of_eleven(twelve(), |holder, owner| holder == 4 && [5, 6].contains(&owner));
    assert_sum_of_eleven(result, &[ids[4]]);
}

/// With ten neighbours and a threshold of six, one colluder does not break a neighbourhood and two false shares are
/// corrected: where two are false, their holders being one colluder at most, the dealer made them so.
#[test]
fn a_dealer_of_many_false_shares_is_blamed() {
    let ten = SessionParameters { degree: 10, threshold: 6, ..twelve() };
    let (result, ids) = sum_of_eleven(ten, |holder, owner| owner == 5 && [2, 3].contains(&holder));
    assert_sum_of_eleven(result, &[ids[5]]);
}

#[test]
fn a_sum_of_other_inputs_is_not_unmasked() {
    let mut session = Session::of_seven(1);
    let (clients, mut server, sum) = session.until_signatures(&ALL);
    let empty = server.accumulator();
    let signatures = server.close_consistency().unwrap();
    for (client, state) in clients {
        let id = session.id(client);
        let shares = server.check_unmask(id, &ok(state.on_signatures(&signatures[&id]))).unwrap();
        server.apply_unmask(id, shares);
    }
    let unmasking = server.close_unmasking().unwrap();
    assert_eq!(unmasking.sum(&empty), Err(Abort::OtherInputs));
    assert_eq!(unmasking.sum(&sum).unwrap(), Sum { values: vec![1; 7], blamed: Vec::new() });
}

type Decoder = fn(&[u8]) -> Result<(), CodecError>;

/// One valid message of every kind that has no signature over all of it, with its decoder for a group of seven.
fn messages() -> Vec<(&'static str, Vec<u8>, Decoder)> {
    let (_, roster, nonces) = Session::of_seven(1).until_reveals();
    let reveals: Vec<(usize, Nonce)> =
        nonces.iter().map(|(id, nonce)| (roster.index_of(*id).unwrap(), *nonce)).collect();
    let (_, _, shares) = Session::of_seven(1).until_delivery();
    let mut session = Session::of_seven(1);
    let (mut clients, mut server, _) = session.until_signatures(&ALL);
    let signature = Consistency::sign(server.transcript(), &[], &session.keys[0]);
    let survivors = {
        let (_, mut server, _) = Session::of_seven(1).until_survivors(&ALL);
        server.close_collecting().unwrap()
    };
    let delivery = {
        let (_, mut server, shares) = Session::of_seven(1).until_delivery();
        for (client, message) in shares.iter().enumerate() {
            let shares = server.check_shares(session.id(client), message).unwrap();
            server.apply_shares(session.id(client), shares);
        }
        server.close_sharing().unwrap().remove(&session.id(3)).unwrap()
    };
    let signatures = server.close_consistency().unwrap().remove(&session.id(0)).unwrap();
    let unmask = ok(clients.remove(&0).unwrap().on_signatures(&signatures));
    vec![
        ("reveal", reveals[0].1.encode(), |bytes| Nonce::decode(bytes).map(drop)),
        ("reveals", encode_reveals(&reveals), |bytes| decode_reveals(bytes, 7).map(drop)),
        ("shares", shares[0].clone(), |bytes| Shares::decode(bytes, 6).map(drop)),
        ("delivery", delivery, |bytes| Delivery::decode(bytes, 7, &[0, 1, 2, 4, 5, 6]).map(drop)),
        ("survivors", survivors, |bytes| Survivors::decode(bytes, 7).map(drop)),
        ("consistency", signature.encode(), |bytes| Consistency::decode(bytes).map(drop)),
        ("signatures", encode_signatures(&[(3, signature)]), |bytes| decode_signatures(bytes, 7).map(drop)),
        ("unmask", unmask, |bytes| Unmask::decode(bytes, 6).map(drop)),
    ]
}

#[test]
fn truncated_extended_or_mistaken_messages_are_refused() {
    let messages = messages();
    for (name, message, decode) in &messages {
        assert_eq!(decode(message), Ok(()), "{name}");
        for len in 0..message.len() {
            assert!(decode(&message[..len]).is_err(), "{name} of {len} bytes");
        }
        let longer = [message.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err(CodecError::Trailing { extra: 1 }), "{name}");
        for (other_name, other, _) in messages.iter().filter(|(other, _, _)| other != name) {
            assert!(matches!(decode(other), Err(CodecError::Kind { .. })), "{other_name} as {name}");
        }
    }
}

#[test]
fn truncated_or_extended_rosters_and_advertisements_are_refused() {
    let mut session = Session::of_seven(1);
    let (_, advertisements) = session.until_roster();
    let roster = session.seal(&advertisements);
    let cohort = Cohort::new(session.config.clone());
    let entry = &advertisements[0];
    for len in 0..entry.len() {
        let fault = cohort.check_advertise(&entry[..len], NOW);
        assert!(matches!(fault, Err(Fault::Advertisement(_))), "length {len}");
    }
    let longer = [entry.as_slice(), &[0]].concat();
    assert!(matches!(cohort.check_advertise(&longer, NOW), Err(Fault::Advertisement(_))));

    let parse = |bytes: &[u8]| ClaimedRoster::parse(bytes, &session.config);
    let parsed = parse(roster.message()).ok().unwrap();
    assert_eq!(parsed.root(), roster.root());
    let ids = |claim: &Claim| claim.client_id();
    assert!(parsed.claims().iter().map(ids).eq(roster.members().iter().map(Advertisement::client_id)));
    for len in (0..roster.message().len()).step_by(37) {
        assert!(parse(&roster.message()[..len]).is_err(), "length {len}");
    }
    let longer = [roster.message(), &[0]].concat();
    let trailing = RosterError::Malformed(CodecError::Trailing { extra: 1 });
    assert_eq!(parse(&longer).err(), Some(trailing));
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 1_u8..=12) {
        if let Some(header) = bytes.first_chunk_mut() {
            *header = [VERSION, kind];
        }
        let config = Session::of_seven(1).config;
        prop_assert!(ClaimedRoster::parse(&bytes, &config).is_err());
        let mut upload = config.upload();
        let message = upload.push(&bytes).and_then(|()| upload.finish());
        prop_assert!(message.is_err() || (bytes.len() == config.limits().masked_input && bytes[1] == 8));
        prop_assert!(Cohort::new(config).check_advertise(&bytes, NOW).is_err());
        let authority = authority().verifying_key();
        prop_assert!(IdentityCertificate::verify(&bytes, &authority, NOW).is_err());
        let decoders: [Decoder; 8] = [
            |bytes| Nonce::decode(bytes).map(drop),
            |bytes| decode_reveals(bytes, 7).map(drop),
            |bytes| Shares::decode(bytes, 1).map(drop),
            |bytes| Delivery::decode(bytes, 2, &[0]).map(drop),
            |bytes| Survivors::decode(bytes, 7).map(drop),
            |bytes| Consistency::decode(bytes).map(drop),
            |bytes| decode_signatures(bytes, 7).map(drop),
            |bytes| Unmask::decode(bytes, 2).map(drop),
        ];
        // At most the one decoder of this kind accepts, and then the bytes happen to have its exact shape.
        prop_assert!(decoders.iter().filter(|decode| decode(&bytes).is_ok()).count() <= 1);
    }
}

/// Secrets are erased when their holder is dropped; this fails to compile where a type loses that.
#[test]
fn secrets_are_erased_on_drop() {
    fn erased<T: ZeroizeOnDrop>() {}
    erased::<Secret>();
    erased::<Share>();
    erased::<SigningKey>();
}
