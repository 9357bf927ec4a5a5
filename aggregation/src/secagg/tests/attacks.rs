//! A malicious coordinator, alone or with some of the clients. Client 0 is the victim.

use super::super::agreement::{Secret, pairwise_mask_key, self_mask_key};
use super::super::codec::{Kind, Writer};
use super::super::config::BOX_LEN;
use super::super::messages::{Delivery, MemberSet, Offer, Survivors, encode_reveals, encode_signatures};
use super::super::prg::Sign;
use super::super::ring::unpack;
use super::super::shamir::{Interpolation, Share};
use super::*;

const HEADER: usize = 2;

/// A roster message made by hand: nothing is checked.
fn roster_of(advertisements: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::new(Kind::Roster).u32(advertisements.len());
    for advertisement in advertisements {
        writer = writer.u32(advertisement.len()).bytes(advertisement);
    }
    writer.finish()
}

/// What the victim says to a roster in which a colluder's entry is another, at roster index 6.
fn refusal_of_entry(change: impl FnOnce(&Session, Vec<u8>) -> Vec<u8>) -> Refusal {
    let mut session = Session::of_seven(1);
    let (mut clients, mut advertisements) = session.until_roster();
    let entry = advertisements.pop().unwrap();
    advertisements.push(change(&session, entry));
    refusal(clients.swap_remove(0).on_roster(&roster_of(&advertisements), NOW))
}

fn entry_error(source: impl Into<AdvertisementError>) -> Refusal {
    RosterError::Entry { index: 6, source: source.into() }.into()
}

/// What a client might advertise; it signs whatever it likes.
fn offer(session: &Session, client: usize) -> Offer<'_> {
    Offer {
        certificate: &session.certificates[client],
        box_key: Secret::from_bytes(&[11; 32]).public_key(),
        mask_key: Secret::from_bytes(&[12; 32]).public_key(),
        nonce_commitment: [0; 32],
        seed_commitment: [0; 32],
    }
}

fn sign(session: &Session, client: usize, offer: &Offer<'_>) -> Vec<u8> {
    offer.sign(&session.config, &session.keys[client])
}

#[test]
fn forged_identity_in_the_roster() {
    let refused = refusal_of_entry(|session, _| {
        let key = session.keys[6].verifying_key().to_bytes();
        let own_authority = SigningKey::from_bytes(&[66; 32]);
        let forged = IdentityCertificate::issue(&own_authority, &key, "sybil", NOT_AFTER).unwrap();
        sign(session, 6, &Offer { certificate: &forged, ..offer(session, 6) })
    });
    assert_eq!(refused, entry_error(IdentityError::Forged));
}

#[test]
fn expired_identity_in_the_roster() {
    let refused = refusal_of_entry(|session, _| {
        let expired = certificate(&session.keys[6], NOW - 1);
        sign(session, 6, &Offer { certificate: &expired, ..offer(session, 6) })
    });
    assert_eq!(refused, entry_error(IdentityError::Expired { not_after: NOW - 1, now: NOW }));
}

#[test]
fn unsigned_advertisement_in_the_roster() {
    let refused = refusal_of_entry(|_, mut entry| {
        let signature = entry.len() - 64;
        entry[signature..].fill(0);
        entry
    });
    assert_eq!(refused, entry_error(AdvertisementError::Signature));
}

#[test]
fn keys_substituted_by_the_coordinator() {
    for from_end in [64 + 3 * 32, 64 + 4 * 32] {
        let refused = refusal_of_entry(|_, mut entry| {
            let key = entry.len() - from_end;
            entry[key..key + 32].copy_from_slice(&Secret::from_bytes(&[13; 32]).public_key());
            entry
        });
        assert_eq!(refused, entry_error(AdvertisementError::Signature));
    }
}

#[test]
fn small_order_keys_of_a_colluder() {
    for key in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let boxes =
            refusal_of_entry(|session, _| sign(session, 6, &Offer { box_key: key, ..offer(session, 6) }));
        assert_eq!(boxes, entry_error(AdvertisementError::WeakKey));
        let masks =
            refusal_of_entry(|session, _| sign(session, 6, &Offer { mask_key: key, ..offer(session, 6) }));
        assert_eq!(masks, entry_error(AdvertisementError::WeakKey));
    }
}

#[test]
fn a_colluder_repeats_a_key() {
    let same = refusal_of_entry(|session, _| {
        let offer = offer(session, 6);
        sign(session, 6, &Offer { box_key: offer.mask_key, ..offer })
    });
    assert_eq!(same, entry_error(AdvertisementError::RepeatedKey));

    let mut session = Session::of_seven(1);
    let (mut clients, mut advertisements) = session.until_roster();
    let victims = session.seal(&advertisements).members()[0].mask_key;
    advertisements[6] = sign(&session, 6, &Offer { mask_key: victims, ..offer(&session, 6) });
    let mut cohort = Cohort::new(session.config.clone());
    cohort.apply_advertise(cohort.check_advertise(&advertisements[0], NOW).unwrap());
    assert_eq!(cohort.check_advertise(&advertisements[6], NOW), Err(Fault::RepeatedKey));
    let refused = refusal(clients.swap_remove(0).on_roster(&roster_of(&advertisements), NOW));
    assert_eq!(refused, RosterError::RepeatedKey.into());
}

#[test]
fn one_identity_twice_in_the_roster() {
    let refused = refusal_of_entry(|session, _| sign(session, 5, &offer(session, 5)));
    assert_eq!(refused, RosterError::Malformed(CodecError::Order { field: "client identifiers" }).into());
}

#[test]
fn own_entry_missing_or_of_another_session() {
    let parameters = SessionParameters { min_cohort: 7, max_cohort: 8, ..seven() };
    let mut session = Session::new(parameters, 8, 1);
    let (mut clients, advertisements) = session.until_roster();
    let without = roster_of(&advertisements[1..]);
    assert_eq!(refusal(clients.remove(0).on_roster(&without, NOW)), Refusal::NotInRoster);

    let mut replayed = advertisements;
    replayed[1] = session.advertise(1).1;
    assert_eq!(refusal(clients.remove(0).on_roster(&roster_of(&replayed), NOW)), Refusal::NotInRoster);
}

#[test]
fn cohort_too_small_or_too_large() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 8, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (mut clients, advertisements) = session.until_roster();
    let small = refusal(clients.remove(0).on_roster(&roster_of(&advertisements[..7]), NOW));
    assert_eq!(small, RosterError::TooSmall { found: 7, min: 8 }.into());
    let large = refusal(clients.remove(0).on_roster(&roster_of(&advertisements), NOW));
    assert_eq!(large, RosterError::Malformed(CodecError::Value { field: "number of clients" }).into());
}

#[test]
fn another_plan_or_model_for_one_client() {
    let mut session = Session::of_seven(1);
    let (mut clients, mut advertisements) = session.until_roster();
    let mut misled = Session::new(SessionParameters { context: [2; 32], ..seven() }, 7, 2);
    let (misled_client, advertisement) = misled.advertise(6);

    let fault = Cohort::new(session.config.clone()).check_advertise(&advertisement, NOW).unwrap_err();
    assert_eq!(fault, Fault::Advertisement(AdvertisementError::Signature));
    advertisements[6] = advertisement;
    let roster = roster_of(&advertisements);
    let refused = refusal(clients.swap_remove(0).on_roster(&roster, NOW));
    assert_eq!(refused, entry_error(AdvertisementError::Signature));
    let refused = refusal(misled_client.on_roster(&roster, NOW));
    let source = AdvertisementError::Signature;
    assert_eq!(refused, RosterError::Entry { index: 0, source }.into());
}

/// The nonces in roster order, as the honest message has them.
fn reveals(roster: &Roster, nonces: &BTreeMap<ClientId, Nonce>) -> Vec<(usize, Nonce)> {
    nonces.iter().map(|(id, nonce)| (roster.index_of(*id).unwrap(), *nonce)).collect()
}

#[test]
fn altered_reveal() {
    let mut session = Session::of_seven(1);
    let (mut clients, roster, nonces) = session.until_reveals();
    let mut reveals = reveals(&roster, &nonces);
    reveals[3].1.0[0] ^= 1;
    let message = encode_reveals(&reveals);
    let refused = refusal(clients.remove(0).on_reveals(&message, &mut session.rng));
    assert_eq!(refused, Refusal::AlteredReveal { index: 3 });
    let refused = refusal(clients.remove(2).on_reveals(&message, &mut session.rng));
    assert_eq!(refused, Refusal::NotRevealed);
}

#[test]
fn too_many_missing_reveals() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 9, max_missing_reveals: 1, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (mut clients, roster, nonces) = session.until_reveals();
    let reveals = reveals(&roster, &nonces);
    ok(clients.remove(0).on_reveals(&encode_reveals(&reveals[..8]), &mut session.rng));
    let refused = refusal(clients.remove(0).on_reveals(&encode_reveals(&reveals[..7]), &mut session.rng));
    assert_eq!(refused, Refusal::MissingReveals { missing: 2, max: 1 });
}

#[test]
fn own_reveal_missing() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 9, max_missing_reveals: 1, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (mut clients, roster, nonces) = session.until_reveals();
    let reveals = reveals(&roster, &nonces);
    let refused = refusal(clients.remove(0).on_reveals(&encode_reveals(&reveals[1..]), &mut session.rng));
    assert_eq!(refused, Refusal::NotRevealed);
}

/// A colluder signs two advertisements, and the victim is shown the one, all others the other. The coordinator forwards
/// everybody's nonces to everybody; still the victim is in a group of its own, and no box of the others opens there.
#[test]
fn another_roster_for_the_victim() {
    let mut session = Session::of_seven(1);
    let (mut clients, mut advertisements) = session.until_roster();
    let roster = session.seal(&advertisements);
    let (second_face, advertisement) = session.advertise(6);
    let first_face = clients.pop().unwrap();
    advertisements[6] = advertisement;
    let victims_roster = session.seal(&advertisements);

    let mut nonces = BTreeMap::new();
    let mut reveal = |client: usize, state: AwaitRoster, roster: &Roster| {
        let (state, reply) = ok(state.on_roster(roster.message(), NOW));
        nonces.insert(
            session.id(client),
            roster.check_reveal(&session.config, session.id(client), &reply).unwrap(),
        );
        (state, nonces.clone())
    };
    let victim = reveal(0, clients.remove(0), &victims_roster).0;
    let others: Vec<AwaitReveals> =
        clients.into_iter().zip(1..).map(|(state, client)| reveal(client, state, &roster).0).collect();
    let nonces = reveal(6, first_face, &roster).1;
    let victims_nonces = reveal(6, second_face, &victims_roster).1;

    let (message, _) = victims_roster.form_groups(&session.config, &victims_nonces).unwrap();
    let (victim, shares) = ok(victim.on_reveals(&message, &mut session.rng));
    let (message, _) = roster.form_groups(&session.config, &nonces).unwrap();
    let mut shares = vec![shares];
    shares.extend(others.into_iter().map(|state| ok(state.on_reveals(&message, &mut session.rng)).1));
    let refused = refusal(victim.on_delivery(&delivery(&shares, &[0, 1, 2, 3, 4, 5])));
    assert_eq!(refused, Refusal::BadBox { sender: 1 });
}

/// Exchanges the boxes at the two places of two clients' messages.
fn swap_boxes(messages: &mut [Vec<u8>], (a, at_a): (usize, usize), (b, at_b): (usize, usize)) {
    let range = |at: usize| HEADER + at * BOX_LEN..HEADER + (at + 1) * BOX_LEN;
    let (box_a, box_b) = (messages[a][range(at_a)].to_vec(), messages[b][range(at_b)].to_vec());
    messages[a][range(at_a)].copy_from_slice(&box_b);
    messages[b][range(at_b)].copy_from_slice(&box_a);
}

/// The victim's answer once the coordinator has changed the members' messages.
fn refusal_of_boxes(change: impl FnOnce(&mut Session, &mut Vec<Vec<u8>>)) -> Refusal {
    let mut session = Session::of_seven(1);
    let (mut clients, mut server, mut shares) = session.until_delivery();
    change(&mut session, &mut shares);
    for (client, message) in shares.iter().enumerate() {
        let shares = server.check_shares(session.id(client), message).unwrap();
        server.apply_shares(session.id(client), shares);
    }
    let deliveries = server.close_sharing().unwrap();
    refusal(clients.swap_remove(0).on_delivery(&deliveries[&session.id(0)]))
}

#[test]
fn box_for_another_recipient() {
    let refused = refusal_of_boxes(|_, shares| swap_boxes(shares, (1, 0), (1, 1)));
    assert_eq!(refused, Refusal::BadBox { sender: 1 });
}

#[test]
fn box_of_another_sender() {
    let refused = refusal_of_boxes(|_, shares| swap_boxes(shares, (4, 0), (5, 0)));
    assert_eq!(refused, Refusal::BadBox { sender: 4 });
}

#[test]
fn box_altered_in_one_bit() {
    let refused = refusal_of_boxes(|_, shares| shares[3][HEADER + BOX_LEN - 1] ^= 1);
    assert_eq!(refused, Refusal::BadBox { sender: 3 });
}

#[test]
fn boxes_of_an_older_session() {
    let refused =
        refusal_of_boxes(|_, shares| shares[2] = Session::of_seven(2).until_delivery().2.swap_remove(2));
    assert_eq!(refused, Refusal::BadBox { sender: 2 });
}

#[test]
fn own_box_reflected() {
    let refused = refusal_of_boxes(|_, shares| swap_boxes(shares, (0, 0), (1, 0)));
    assert_eq!(refused, Refusal::BadBox { sender: 1 });
}

/// A delivery by hand: the boxes of `senders` for the victim.
fn delivery(shares: &[Vec<u8>], sharers: &[usize]) -> Vec<u8> {
    let set = MemberSet::of(7, sharers.iter().copied());
    let senders = sharers.iter().filter(|sender| **sender != 0);
    let boxes: Vec<[u8; BOX_LEN]> =
        senders.map(|sender| shares[*sender][HEADER..HEADER + BOX_LEN].try_into().unwrap()).collect();
    Delivery::encode(&set, boxes.iter())
}

#[test]
fn delivery_of_too_few_or_without_oneself() {
    let on_delivery = |sharers: &[usize]| {
        let (mut clients, _, shares) = Session::of_seven(1).until_delivery();
        clients.swap_remove(0).on_delivery(&delivery(&shares, sharers))
    };
    ok(on_delivery(&[0, 1, 2, 3, 4]));
    assert_eq!(refusal(on_delivery(&[0, 1, 2, 3])), Refusal::TooFewSharers { found: 4, min: 5 });
    assert_eq!(refusal(on_delivery(&[1, 2, 3, 4, 5])), Refusal::NotASharer);
}

fn survivors(sharers: &[usize], submitters: &[usize]) -> Vec<u8> {
    let set = |positions: &[usize]| MemberSet::of(7, positions.iter().copied());
    Survivors { sharers: set(sharers), submitters: set(submitters) }.encode()
}

const ALL: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

fn refusal_of_survivors(sharers: &[usize], submitters: &[usize]) -> Refusal {
    let (mut clients, _, _) = Session::of_seven(1).until_survivors(&ALL);
    refusal(clients.swap_remove(0).on_survivors(&survivors(sharers, submitters)))
}

#[test]
fn survivor_set_smaller_than_agreed() {
    assert_eq!(refusal_of_survivors(&ALL, &[0, 1, 2, 3]), Refusal::TooFewSurvivors { found: 4, min: 5 });
}

#[test]
fn survivor_set_without_oneself() {
    assert_eq!(refusal_of_survivors(&ALL, &[1, 2, 3, 4, 5, 6]), Refusal::NotASurvivor);
}

#[test]
fn survivor_set_with_other_sharers() {
    assert_eq!(refusal_of_survivors(&[0, 1, 2, 3, 4, 5], &[0, 1, 2, 3, 4, 5]), Refusal::OtherSharers);
}

#[test]
fn survivor_that_never_shared() {
    let mut session = Session::of_seven(1);
    let (mut clients, _, shares) = session.until_delivery();
    let sharers = [0, 1, 2, 3, 4, 5];
    let state = ok(clients.swap_remove(0).on_delivery(&delivery(&shares, &sharers)));
    let (state, _) = ok(state.submit(&session.inputs[0]));
    assert_eq!(refusal(state.on_survivors(&survivors(&sharers, &ALL))), Refusal::UnknownSurvivor);
}

/// A client signs one set and its type is gone: a second one, be it sent to the same client or to others, finds nobody
/// who signs both, so at most one of two sets gets its t signatures.
#[test]
fn second_survivor_set() {
    let (clients, _, _) = Session::of_seven(1).until_survivors(&ALL);
    let sets = [survivors(&ALL, &ALL), survivors(&ALL, &[0, 1, 2, 3, 4, 5])];
    let (states, signatures): (Vec<_>, Vec<_>) = clients
        .into_iter()
        .enumerate()
        .map(|(client, state)| ok(state.on_survivors(&sets[usize::from(client >= 4 && client != 6)])))
        .unzip();
    let signatures: BTreeMap<usize, Consistency> =
        signatures.iter().map(|message| Consistency::decode(message).unwrap()).enumerate().collect();
    let everything = encode_signatures(signatures.iter());
    let pick = |which: &[usize]| {
        encode_signatures(
            signatures.iter().filter(|(client, _)| which.contains(client)).collect::<Vec<_>>().into_iter(),
        )
    };
    let mut states = states.into_iter();
    let mut on_signatures = |message: &[u8]| refusal(states.next().unwrap().on_signatures(message));
    assert_eq!(on_signatures(&everything), Refusal::BadSignature { signer: 4 });
    assert_eq!(on_signatures(&pick(&[0, 1, 2, 3])), Refusal::TooFewSignatures { found: 4, min: 5 });
    assert_eq!(on_signatures(&pick(&[0, 1, 2, 3, 5])), Refusal::BadSignature { signer: 5 });
}

/// What the victim says to signatures on its survivor set, of all but client 6, that were changed. The change is given
/// a way to sign that set with any client's key.
fn refusal_of_signatures(
    change: impl FnOnce(&mut BTreeMap<usize, Consistency>, &dyn Fn(usize) -> Consistency),
) -> Refusal {
    let mut session = Session::of_seven(1);
    let (mut clients, server, _) = session.until_signatures(&[0, 1, 2, 3, 4, 5]);
    let message = survivors(&ALL, &[0, 1, 2, 3, 4, 5]);
    let sign = |client: usize| Consistency::sign(server.transcript(), &message, &session.keys[client]);
    let mut signatures = (0..6).map(|client| (client, sign(client))).collect();
    change(&mut signatures, &sign);
    refusal(clients.remove(&0).unwrap().on_signatures(&encode_signatures(signatures.iter())))
}

#[test]
fn too_few_consistency_signatures() {
    let refused = refusal_of_signatures(|signatures, _| signatures.retain(|client, _| *client < 4));
    assert_eq!(refused, Refusal::TooFewSignatures { found: 4, min: 5 });
}

#[test]
fn signature_of_a_member_that_is_no_survivor() {
    let refused = refusal_of_signatures(|signatures, sign| {
        signatures.insert(6, sign(6));
    });
    assert_eq!(refused, Refusal::BadSignature { signer: 6 });
}

#[test]
fn signature_moved_to_another_member() {
    let refused = refusal_of_signatures(|signatures, sign| {
        signatures.insert(3, sign(5));
    });
    assert_eq!(refused, Refusal::BadSignature { signer: 3 });
}

#[test]
fn signature_of_an_older_session() {
    let refused = refusal_of_signatures(|signatures, _| {
        let mut older = Session::of_seven(2);
        let (_, server, _) = older.until_survivors(&ALL);
        let message = survivors(&ALL, &[0, 1, 2, 3, 4, 5]);
        signatures.insert(2, Consistency::sign(server.transcript(), &message, &older.keys[2]));
    });
    assert_eq!(refused, Refusal::BadSignature { signer: 2 });
}

#[test]
fn one_signature_listed_twice() {
    let mut session = Session::of_seven(1);
    let (mut clients, mut server, _) = session.until_signatures(&ALL);
    let mut message = server.close_consistency().unwrap();
    let entry = |nth: usize| HEADER + 4 + nth * 68..HEADER + 4 + (nth + 1) * 68;
    message.copy_within(entry(1), entry(2).start);
    let refused = refusal(clients.remove(&0).unwrap().on_signatures(&message));
    assert_eq!(refused, Refusal::Malformed(CodecError::Order { field: "signers" }));
}

/// The coordinator and `colluders` tell some that the victim survived and others that it dropped out. Returns the
/// victim's vector if they learn it.
///
/// Equal seeds make equal sessions, so one session under each story yields what the two halves of one cohort would
/// answer; an honest member takes part in one story only, a colluder in both.
fn both_share_kinds(colluders: &[usize], alive: &[usize], dropped: &[usize]) -> Option<Vec<u32>> {
    assert!(alive.iter().all(|client| !dropped.contains(client)), "an honest member signs once");
    let answers = |honest: &[usize], submitters: &[usize]| -> Option<BTreeMap<usize, Vec<u8>>> {
        let (clients, _, _) = Session::of_seven(1).until_survivors(&ALL);
        let message = survivors(&ALL, submitters);
        let both = |client: &usize| honest.contains(client) || colluders.contains(client);
        let (mut states, mut signatures) = (BTreeMap::new(), BTreeMap::new());
        for (client, state) in clients.into_iter().enumerate().filter(|(client, _)| both(client)) {
            let (state, signature) = ok(state.on_survivors(&message));
            signatures.insert(client, Consistency::decode(&signature).unwrap());
            states.insert(client, state);
        }
        let signatures = encode_signatures(signatures.iter());
        states
            .into_iter()
            .map(|(client, state)| Some((client, state.on_signatures(&signatures).ok()?)))
            .collect()
    };
    let (seeds, masks) = (answers(alive, &ALL)?, answers(dropped, &ALL[1..])?);

    // The victim's share comes first in every answer.
    let recover = |answers: &BTreeMap<usize, Vec<u8>>| {
        let shares: Vec<Share> = answers
            .values()
            .map(|answer| Share::decode(answer[HEADER..HEADER + 64].try_into().unwrap()).unwrap())
            .collect();
        Interpolation::new(answers.keys().copied()).recover(&shares.iter().collect::<Vec<_>>()).unwrap()
    };
    let (seed, mask) = (recover(&seeds), Secret::from_bytes(&recover(&masks)));
    let mut session = Session::of_seven(1);
    let (mut clients, server) = session.until_input();
    let (_, message) = ok(clients.swap_remove(0).submit(&session.inputs[0]));
    let mut vector = unpack(&message[HEADER..], 7, 20).unwrap();
    let prg = Prg::Aes256Ctr;
    prg.apply(&self_mask_key(server.transcript(), &seed, 0), Sign::Minus, &mut vector);
    for (position, peer) in server.advertisements().iter().enumerate().skip(1) {
        let key = pairwise_mask_key(server.transcript(), &mask, 0, &peer.mask_key, position);
        prg.apply(&key, Sign::Minus, &mut vector);
    }
    Some(vector.iter().map(|value| value & ((1 << 20) - 1)).collect())
}

/// Seven members, t = 5: it takes 2 · 5 − 7 = 3 colluders, however the honest are divided.
#[test]
fn both_share_kinds_for_one_client_take_the_stated_number_of_colluders() {
    assert_eq!(Session::of_seven(1).config.colluders_to_break(7), 3);
    let honest = [1, 2, 3, 4];
    for split in 0..=4 {
        let alive = [&[0], &honest[..split]].concat();
        assert_eq!(both_share_kinds(&[5, 6], &alive, &honest[split..]), None, "split {split}");
    }
    let victims = vec![1, 0, 0, 0, 0, 0, 0];
    assert_eq!(both_share_kinds(&[4, 5, 6], &[0, 1], &[2, 3]), Some(victims));
}
