//! Clients that send what they should not, when they should not.

use super::*;
use proptest::prelude::*;

/// Kinds that clients send.
fn kinds() -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.is_from_client()).collect()
}

fn from_client(client: usize, kind: Kind, bytes: &[u8]) -> Message {
    Message { client, direction: Direction::Up, kind, bytes: Bytes::copy_from_slice(bytes) }
}

/// Reasons for which this client was taken out of rounds.
fn dropped(federation: &Scripted, client: usize) -> Vec<String> {
    let id = federation.devices()[client].id();
    let reason = |event: Event| match event {
        Event::ClientDropped { client, reason } if client == id => Some(reason),
        _ => None,
    };
    federation.events().into_iter().filter_map(reason).collect()
}

/// What the coordinator told a client about its faults.
fn rejections(federation: &mut Scripted, client: usize) -> Vec<String> {
    let is_it = |message: &&Message| (message.client, message.kind) == (client, Kind::Reject);
    let text = |message: &Message| String::from_utf8(message.bytes.to_vec()).unwrap();
    federation.scenario().sent.iter().filter(is_it).map(text).collect()
}

#[test]
fn an_input_after_its_group_closed_is_refused_and_in_no_sum() {
    let delay = |now: Millis, message: Message| {
        let late = message.client == 0 && message.kind == Kind::Input && now < Millis(1);
        vec![(Millis(now.0 + if late { 60_001 } else { 0 }), message)]
    };
    // The others answer the survivor set later still, so that the round is in progress when the input comes.
    let slow = move |now: Millis, message: Message| {
        let mut arrivals = delay(now, message);
        for (arrival, message) in &mut arrivals {
            if message.kind == Kind::Consistency && *arrival < Millis(60_010) {
                arrival.0 += 10;
            }
        }
        arrivals
    };
    let mut federation = finished(one_group(), Script::unit_vectors().routing(slow));
    assert_eq!(rejections(&mut federation, 0), ["too late: the client is not in a round in progress"]);
    assert_eq!(dropped(&federation, 0), ["did not answer in time (collecting)"]);
    let sums = sums(&federation);
    assert_eq!((sums[&(1, 0)][0], sums[&(2, 0)][0]), (0, 1), "late in round 1, in time in round 2");
    assert_eq!(sent_by(&mut federation, 0, Kind::Unmask), 1);
}

#[test]
fn a_message_of_another_phase_is_refused_and_drops_its_sender() {
    for kind in [Kind::Reveal, Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask, Kind::Hello] {
        let mut federation = federation(one_group(), Script::unit_vectors());
        assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "keys"))));
        federation.inject(from_client(0, kind, b"early"));
        federation.run();
        let reason = format!("{kind:?} message in the phase keys");
        assert_eq!(dropped(&federation, 0), [reason.as_str()]);
        assert_eq!(rejections(&mut federation, 0)[0], reason);
        assert_eq!(published(&federation.events()), [0, 1, 2], "the others went on");
        assert_eq!(sums(&federation)[&(1, 0)][0], 0);
    }
}

#[test]
fn a_message_sent_twice_counts_once_and_drops_its_sender() {
    for kind in [Kind::Advertise, Kind::Reveal, Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask] {
        let twice = move |now, message: Message| {
            let copies = if message.client == 0 && message.kind == kind { 2 } else { 1 };
            vec![(now, message); copies]
        };
        let federation = finished(one_group(), Script::unit_vectors().routing(twice));
        assert_eq!(published(&federation.events()), [0, 1, 2], "{kind:?} twice");
        for (group, sum) in sums(&federation) {
            assert!(
                sum.iter().all(|&count| count <= 1),
                "{kind:?} twice, round and group {group:?}: {sum:?}"
            );
        }
        assert_eq!(dropped(&federation, 0).len(), 2, "{kind:?} twice: {:?}", dropped(&federation, 0));
    }
}

#[test]
fn what_one_client_said_is_worth_nothing_from_another() {
    // The last in the order in which a cohort is spoken to, and answers.
    let ids = federation(one_group(), Script::default());
    let thief = (0..12).max_by_key(|&client| ids.devices()[client].id()).unwrap();
    for kind in [Kind::Advertise, Kind::Reveal, Kind::Consistency, Kind::Unmask] {
        let mut said: Option<Bytes> = None;
        let repeat = move |now, mut message: Message| {
            if message.kind == kind && message.client == thief {
                message.bytes = said.clone().expect("the others came before");
            } else if message.kind == kind {
                said = Some(message.bytes.clone());
            }
            vec![(now, message)]
        };
        let federation = finished(one_group(), Script::unit_vectors().routing(repeat));
        let events = federation.events();
        let sums = sums(&federation);
        if kind == Kind::Unmask {
            // Where t others answered, its shares are not used; where they are, the group has no sum.
            assert_eq!(aborted(&events).len() + sums.len(), 2);
            assert!(sums.values().all(|sum| sum.iter().sum::<i64>() == 12));
            continue;
        }
        assert_eq!(dropped(&federation, thief).len(), 2, "{kind:?}: {:?}", dropped(&federation, thief));
        assert_eq!(published(&events), [0, 1, 2], "{kind:?}");
        let counted = i64::from(kind == Kind::Consistency);
        assert!(sums.values().all(|sum| sum[thief] == counted && sum.iter().sum::<i64>() == 11 + counted));
    }
}

#[test]
fn a_second_session_of_one_identity_is_refused_and_the_first_goes_on() {
    let mut federation = federation(one_group(), Script::unit_vectors());
    assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "keys"))));
    let client = federation.devices()[0].id();
    let before = federation.events().len();
    // The shell would answer on the second session; here the answer must not reach the first.
    let outcomes = federation.driver.handle(vec![Command::Connect { client }], Millis(0), [0; 32]).unwrap();
    assert!(outcomes.events.is_empty() && outcomes.effects.is_empty());
    assert_eq!(outcomes.rejects[0].1.reason, "this identity has a session already");
    assert!(!outcomes.rejects[0].1.drops);
    assert_eq!(federation.events().len(), before);
    federation.run();
    assert_eq!(sums(&federation)[&(1, 0)][0], 1);
}

#[test]
fn a_client_that_claims_a_longer_log_does_not_join() {
    for (claim, reason) in [
        (7_u64.to_be_bytes().to_vec(), "the client has verified 7 log entries, and this log has 0"),
        (
            u64::MAX.to_be_bytes().to_vec(),
            "the client has verified 18446744073709551615 log entries, and this log has 0",
        ),
        (vec![0; 7], "a log size has 8 bytes, the message has 7"),
        (Vec::new(), "a log size has 8 bytes, the message has 0"),
    ] {
        let claims = move |now, mut message: Message| {
            if message.client == 0 && message.kind == Kind::Join {
                message.bytes = claim.clone().into();
            }
            // The initial model is signed before any message arrives; here it must come after the joins.
            vec![(now, message)]
        };
        let mut federation = federation(one_group(), Script::default().routing(claims));
        federation.run();
        let told = rejections(&mut federation, 0);
        let size = reason.replace("has 0", "has 1");
        assert!(told == [reason] || told == [size.as_str()], "{told:?}");
        assert_eq!(sent_by(&mut federation, 0, Kind::Advertise), 0);
        assert_eq!(published(&federation.events()), [0, 1, 2], "the others are enough");
    }
}

#[test]
fn who_has_no_session_is_not_listened_to() {
    let mut federation = federation(one_group(), Script::default());
    federation.run_until(|federation| federation.coordinator().phase() == Some((1, "keys")));
    federation.disconnect(0);
    for client in [federation.devices()[0].id(), Digest::of("nobody")] {
        for kind in kinds() {
            let command = Command::Message { client, kind, bytes: vec![0; 8] };
            let outcomes = federation.driver.handle(vec![command], Millis(0), [0; 32]).unwrap();
            assert!(outcomes.events.is_empty() && outcomes.effects.is_empty());
            assert_eq!(outcomes.rejects[0].1.reason, "no session");
        }
    }
}

#[test]
fn what_a_client_declines_with_is_printable_and_short() {
    let mut federation = federation(one_group(), Script::default());
    federation.run_until(|federation| federation.coordinator().phase() == Some((1, "keys")));
    let text = ["\u{1b}[2J\n".as_bytes(), &[0xff; 600]].concat();
    federation.inject(from_client(0, Kind::Decline, &text));
    federation.run();
    let reason = &dropped(&federation, 0)[0];
    assert!(reason.starts_with("declined: ?[2J?") && reason.len() <= 220, "{reason}");
    assert!(reason.bytes().all(|byte| (32..127).contains(&byte)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever one client sends at whatever time: no panic, no event about another client, and the round is theirs.
    #[test]
    fn garbage_of_one_client_harms_nobody_else(
        steps in 0_usize..220,
        kind in prop::sample::select(kinds()),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut federation = federation(one_round(), Script::unit_vectors());
        for _ in 0..steps {
            federation.step();
        }
        let id = federation.devices()[0].id();
        let before = federation.events().len();
        let was_closed = federation.coordinator().closed().is_some();
        federation.command(Command::Message { client: id, kind, bytes });
        for event in &federation.events()[before..] {
            let about = match event {
                Event::ClientJoined { client, .. }
                | Event::ClientDropped { client, .. }
                | Event::Advertised { client, .. }
                | Event::Revealed { client, .. }
                | Event::Shared { client, .. }
                | Event::InputAccepted { client, .. }
                | Event::Signed { client, .. }
                | Event::Unmasked { client, .. } => Some(*client),
                _ => None,
            };
            prop_assert!(about.is_none_or(|client| client == id), "{event:?}");
        }
        federation.run();
        prop_assert_eq!(published(&federation.events()), [0, 1]);
        for sum in sums(&federation).values() {
            prop_assert!(sum[1..12].iter().all(|&count| count == 1), "{:?}", sum);
        }
        prop_assert!(was_closed || federation.devices()[1..].iter().all(|device| device.refusals().is_empty()));
    }

    /// The same with one bit of an honest message.
    #[test]
    fn one_flipped_bit_of_one_client_harms_nobody_else(
        kind in prop::sample::select(vec![Kind::Advertise, Kind::Consistency, Kind::Unmask]),
        position in any::<prop::sample::Index>(),
        bit in 0_u32..8,
    ) {
        let script = Script::unit_vectors().altering(0, kind, move |bytes| {
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
        });
        let federation = finished(one_round(), script);
        let events = federation.events();
        // A false share is found out when it is used, and costs the group its sum; it never gives a wrong one.
        if kind == Kind::Unmask {
            prop_assert_eq!(end(&events), "all 1 rounds are done");
        } else {
            prop_assert_eq!(published(&events), [0, 1]);
        }
        for sum in sums(&federation).values() {
            prop_assert!(sum[1..12].iter().all(|&count| count == 1) && sum[0] <= 1, "{:?}", sum);
        }
    }
}
