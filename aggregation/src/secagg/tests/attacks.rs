//! A malicious coordinator, alone or with some of the clients. Client 0 is the victim.

use super::super::agreement::Secret;
use super::super::codec::{Kind, Writer};
use super::super::config::BOX_LEN;
use super::super::messages::{Delivery, MemberSet, Offer, Survivors, encode_reveals, encode_signatures};
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

/// What the victim says, once it knows its group, to a roster in which a colluder's entry is another, at roster index 6.
/// The colluder's nonce stays, so that the change is all that is wrong.
fn refusal_of_entry(change: impl FnOnce(&Session, Vec<u8>) -> Vec<u8>) -> Refusal {
    let mut session = Session::of_seven(1);
    let (clients, mut advertisements) = session.until_roster();
    let honest = session.seal(&advertisements);
    let entry = advertisements.pop().unwrap();
    advertisements.push(change(&session, entry));
    let roster = roster_of(&advertisements);

    let mut reveals = Vec::new();
    let mut victim = None;
    for (index, state) in clients.into_iter().enumerate() {
        let seen = if index == 6 { honest.message() } else { &roster };
        let (state, reply) = match state.on_roster(seen) {
            Ok(revealed) => revealed,
            Err(refusal) => return refusal,
        };
        reveals.push((index, Nonce::decode(&reply).unwrap()));
        victim.get_or_insert(state);
    }
    refusal(victim.unwrap().on_reveals(&encode_reveals(&reveals), NOW, &mut session.rng))
}

fn entry_error(source: impl Into<AdvertisementError>) -> Refusal {
    RosterError::Entry { index: 6, source: source.into() }.into()
}

/// What a client might advertise in place of `entry`, with the nonce of that; it signs whatever it likes.
fn offer<'a>(session: &'a Session, client: usize, entry: &[u8]) -> Offer<'a> {
    let nonce_commitment = entry.len() - 64 - 2 * 32;
    Offer {
        certificate: &session.certificates[client],
        box_key: Secret::from_bytes(&[11; 32]).public_key(),
        mask_key: Secret::from_bytes(&[12; 32]).public_key(),
        nonce_commitment: *entry[nonce_commitment..].first_chunk().unwrap(),
        seed_commitment: [0; 32],
    }
}

fn sign(session: &Session, client: usize, offer: &Offer<'_>) -> Vec<u8> {
    offer.sign(&session.config, &session.keys[client])
}

#[test]
fn forged_identity_in_the_roster() {
    let refused = refusal_of_entry(|session, entry| {
        let key = session.keys[6].verifying_key().to_bytes();
        let own_authority = SigningKey::from_bytes(&[66; 32]);
        let forged = IdentityCertificate::issue(&own_authority, &key, "sybil", NOT_AFTER).unwrap();
        sign(session, 6, &Offer { certificate: &forged, ..offer(session, 6, &entry) })
    });
    assert_eq!(refused, entry_error(IdentityError::Forged));
}

#[test]
fn expired_identity_in_the_roster() {
    let refused = refusal_of_entry(|session, entry| {
        let expired = certificate(&session.keys[6], NOW - 1);
        sign(session, 6, &Offer { certificate: &expired, ..offer(session, 6, &entry) })
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
        let boxes = refusal_of_entry(|session, entry| {
            sign(session, 6, &Offer { box_key: key, ..offer(session, 6, &entry) })
        });
        assert_eq!(boxes, entry_error(AdvertisementError::WeakKey));
        let masks = refusal_of_entry(|session, entry| {
            sign(session, 6, &Offer { mask_key: key, ..offer(session, 6, &entry) })
        });
        assert_eq!(masks, entry_error(AdvertisementError::WeakKey));
    }
}

#[test]
fn a_colluder_repeats_a_key() {
    let same = refusal_of_entry(|session, entry| {
        let offer = offer(session, 6, &entry);
        sign(session, 6, &Offer { box_key: offer.mask_key, ..offer })
    });
    assert_eq!(same, entry_error(AdvertisementError::RepeatedKey));

    let mut session = Session::of_seven(1);
    let (mut clients, mut advertisements) = session.until_roster();
    let victims = *session.seal(&advertisements).members()[0].mask_key();
    advertisements[6] =
        sign(&session, 6, &Offer { mask_key: victims, ..offer(&session, 6, &advertisements[6]) });
    let mut cohort = Cohort::new(session.config.clone());
    cohort.apply_advertise(cohort.check_advertise(&advertisements[0], NOW).unwrap());
    assert_eq!(cohort.check_advertise(&advertisements[6], NOW), Err(Fault::RepeatedKey));
    let refused = refusal(clients.swap_remove(0).on_roster(&roster_of(&advertisements)));
    assert_eq!(refused, RosterError::RepeatedKey.into());
}

#[test]
fn one_identity_twice_in_the_roster() {
    let refused = refusal_of_entry(|session, entry| sign(session, 5, &offer(session, 5, &entry)));
    assert_eq!(refused, RosterError::Malformed(CodecError::Order { field: "client identifiers" }).into());
}

#[test]
fn own_entry_missing_or_of_another_session() {
    let parameters = SessionParameters { min_cohort: 7, max_cohort: 8, ..seven() };
    let mut session = Session::new(parameters, 8, 1);
    let (mut clients, advertisements) = session.until_roster();
    let without = roster_of(&advertisements[1..]);
    assert_eq!(refusal(clients.remove(0).on_roster(&without)), Refusal::NotInRoster);

    let mut replayed = advertisements;
    replayed[1] = session.advertise(1).1;
    assert_eq!(refusal(clients.remove(0).on_roster(&roster_of(&replayed))), Refusal::NotInRoster);
}

#[test]
fn cohort_too_small_or_too_large() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 8, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (mut clients, advertisements) = session.until_roster();
    let small = refusal(clients.remove(0).on_roster(&roster_of(&advertisements[..7])));
    assert_eq!(small, RosterError::TooSmall { found: 7, min: 8 }.into());
    let large = refusal(clients.remove(0).on_roster(&roster_of(&advertisements)));
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
    let victim = clients.remove(0);
    let (misled_client, reply) = ok(misled_client.on_roster(&roster));
    let (victim, victims_reply) = ok(victim.on_roster(&roster));
    let others = clients.into_iter().take(5).map(|state| ok(state.on_roster(&roster)).1);
    let replies = std::iter::once(victims_reply).chain(others).chain([reply]);
    let reveals: Vec<_> = replies.map(|reply| Nonce::decode(&reply).unwrap()).enumerate().collect();
    let message = encode_reveals(&reveals);
    // The nonces' commitments bind the context too.
    let refused = refusal(victim.on_reveals(&message, NOW, &mut session.rng));
    assert_eq!(refused, Refusal::AlteredReveal { index: 6 });
    let refused = refusal(misled_client.on_reveals(&message, NOW, &mut session.rng));
    assert_eq!(refused, Refusal::AlteredReveal { index: 0 });
}

/// Clients that nobody certified: where they are in an honest client's group it leaves, elsewhere they do no harm.
#[test]
fn invented_clients_in_ones_own_group_or_elsewhere() {
    let parameters = SessionParameters { length: 14, min_cohort: 14, max_cohort: 14, ..seven() };
    let mut session = Session::new(parameters, 14, 1);
    let own_authority = SigningKey::from_bytes(&[66; 32]);
    let invented: Vec<Vec<u8>> = session
        .keys
        .iter()
        .map(|key| {
            let key = key.verifying_key().to_bytes();
            IdentityCertificate::issue(&own_authority, &key, "sybil", NOT_AFTER).unwrap()
        })
        .collect();
    let (clients, mut advertisements) = session.until_roster();
    let certified = session.seal(&advertisements);
    let last = advertisements.pop().unwrap();
    advertisements.push(sign(
        &session,
        13,
        &Offer { certificate: &invented[13], ..offer(&session, 13, &last) },
    ));
    let roster = roster_of(&advertisements);

    // The nonce of the invented one is the coordinator's to reveal.
    let (states, replies): (Vec<_>, Vec<_>) = clients
        .into_iter()
        .enumerate()
        .map(|(index, state)| ok(state.on_roster(if index == 13 { certified.message() } else { &roster })))
        .unzip();
    let reveals: Vec<_> = replies.iter().map(|reply| Nonce::decode(reply).unwrap()).enumerate().collect();
    let message = encode_reveals(&reveals);
    let (mut stayed, mut left) = (Vec::new(), Vec::new());
    for (index, state) in states.into_iter().take(13).enumerate() {
        match state.on_reveals(&message, NOW, &mut session.rng) {
            Ok((state, _)) => stayed.push((index, state.group_index())),
            Err(refusal) => left.push(refusal),
        }
    }
    assert_eq!((stayed.len(), left.len()), (7, 6), "one group of seven, and the invented one's");
    assert!(stayed.iter().all(|(_, group)| *group == stayed[0].1));
    let forged = RosterError::Entry { index: 13, source: IdentityError::Forged.into() };
    assert!(left.iter().all(|refusal| *refusal == forged.clone().into()));
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
    let refused = refusal(clients.remove(0).on_reveals(&message, NOW, &mut session.rng));
    assert_eq!(refused, Refusal::AlteredReveal { index: 3 });
    let refused = refusal(clients.remove(2).on_reveals(&message, NOW, &mut session.rng));
    assert_eq!(refused, Refusal::NotRevealed);
}

#[test]
fn too_many_missing_reveals() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 9, max_missing_reveals: 1, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (mut clients, roster, nonces) = session.until_reveals();
    let reveals = reveals(&roster, &nonces);
    ok(clients.remove(0).on_reveals(&encode_reveals(&reveals[..8]), NOW, &mut session.rng));
    let refused =
        refusal(clients.remove(0).on_reveals(&encode_reveals(&reveals[..7]), NOW, &mut session.rng));
    assert_eq!(refused, Refusal::MissingReveals { missing: 2, max: 1 });
}

#[test]
fn own_reveal_missing() {
    let parameters = SessionParameters { min_cohort: 8, max_cohort: 9, max_missing_reveals: 1, ..seven() };
    let mut session = Session::new(parameters, 9, 1);
    let (mut clients, roster, nonces) = session.until_reveals();
    let reveals = reveals(&roster, &nonces);
    let refused =
        refusal(clients.remove(0).on_reveals(&encode_reveals(&reveals[1..]), NOW, &mut session.rng));
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
        let (state, reply) = ok(state.on_roster(roster.message()));
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

    let (message, groups) = victims_roster.form_groups(&session.config, &victims_nonces).unwrap();
    let position = |index: usize| groups[0].members().iter().position(|member| *member == index).unwrap();
    let own = position(0);
    let (victim, own_shares) = ok(victim.on_reveals(&message, NOW, &mut session.rng));
    let (message, _) = roster.form_groups(&session.config, &nonces).unwrap();
    let mut shares = vec![own_shares; 7];
    for (state, client) in others.into_iter().zip(1..) {
        shares[position(client)] = ok(state.on_reveals(&message, NOW, &mut session.rng)).1;
    }
    let sharers: Vec<usize> = (0..7).filter(|at| *at != position(6)).collect();
    let first = *sharers.iter().find(|at| **at != own).unwrap();
    let refused = refusal(victim.on_delivery(&delivery(&shares, own, &sharers)));
    assert_eq!(refused, Refusal::BadBox { sender: first });
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

/// A delivery by hand, in a group of seven: the boxes of `sharers` for the one at `recipient`.
fn delivery(shares: &[Vec<u8>], recipient: usize, sharers: &[usize]) -> Vec<u8> {
    let set = MemberSet::of(7, sharers.iter().copied());
    let boxed = |sender: usize| -> [u8; BOX_LEN] {
        let nth = if recipient < sender { recipient } else { recipient - 1 };
        shares[sender][HEADER + nth * BOX_LEN..][..BOX_LEN].try_into().unwrap()
    };
    let boxes: Vec<_> = sharers.iter().filter(|at| **at != recipient).map(|at| boxed(*at)).collect();
    Delivery::encode(&set, boxes.iter())
}

#[test]
fn delivery_of_too_few_or_without_oneself() {
    let on_delivery = |sharers: &[usize]| {
        let (mut clients, _, shares) = Session::of_seven(1).until_delivery();
        clients.swap_remove(0).on_delivery(&delivery(&shares, 0, sharers))
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
    let state = ok(clients.swap_remove(0).on_delivery(&delivery(&shares, 0, &sharers)));
    let (state, _) = ok(state.submit(&session.inputs[0], &mut session.rng));
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
    let signatures: Vec<(usize, Consistency)> =
        signatures.iter().map(|message| Consistency::decode(message).unwrap()).enumerate().collect();
    let pick = |which: &[usize]| {
        let picked = signatures.iter().copied().filter(|(client, _)| which.contains(client));
        encode_signatures(&picked.collect::<Vec<_>>())
    };
    let mut states = states.into_iter();
    let mut on_signatures = |message: &[u8]| refusal(states.next().unwrap().on_signatures(message));
    assert_eq!(on_signatures(&pick(&[1, 2, 3, 4, 5, 6])), Refusal::BadSignature { signer: 4 });
    assert_eq!(on_signatures(&pick(&[0, 2, 3])), Refusal::TooFewSignatures { found: 3, min: 4 });
    assert_eq!(on_signatures(&pick(&[0, 1, 3, 5])), Refusal::BadSignature { signer: 5 });
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
    let mut signatures = (1..6).map(|client| (client, sign(client))).collect();
    change(&mut signatures, &sign);
    let signatures: Vec<_> = signatures.into_iter().collect();
    refusal(clients.remove(&0).unwrap().on_signatures(&encode_signatures(&signatures)))
}

#[test]
fn too_few_consistency_signatures() {
    let refused = refusal_of_signatures(|signatures, _| signatures.retain(|client, _| *client < 4));
    assert_eq!(refused, Refusal::TooFewSignatures { found: 3, min: 4 });
}

/// The client's own is no proof of what others saw.
#[test]
fn own_signature_counted() {
    let refused = refusal_of_signatures(|signatures, sign| {
        signatures.retain(|client, _| *client < 4);
        signatures.insert(0, sign(0));
    });
    assert_eq!(refused, Refusal::BadSignature { signer: 0 });
}

/// On a ring, colluders far from the victim vouch for nothing there.
#[test]
fn signature_of_a_member_that_is_no_neighbour() {
    let everyone: Vec<usize> = (0..12).collect();
    let mut session = Session::of_twelve(1);
    let (mut clients, mut server, _) = session.until_survivors(&everyone);
    let message = server.close_collecting().unwrap();
    let (state, _) = ok(clients.swap_remove(0).on_survivors(&message));
    let signers = [1, 2, 3, 6, 11];
    let sign =
        |client: usize| (client, Consistency::sign(server.transcript(), &message, &session.keys[client]));
    let refused = refusal(state.on_signatures(&encode_signatures(&signers.map(sign))));
    assert_eq!(refused, Refusal::BadSignature { signer: 6 });
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
    let mut message = server.close_consistency().unwrap().remove(&session.id(0)).unwrap();
    let entry = |nth: usize| HEADER + 4 + nth * 68..HEADER + 4 + (nth + 1) * 68;
    message.copy_within(entry(1), entry(2).start);
    let refused = refusal(clients.remove(&0).unwrap().on_signatures(&message));
    assert_eq!(refused, Refusal::Malformed(CodecError::Order { field: "signers" }));
}
