//! A coordinator that lies to client 0. It holds the signing key; what it does not hold are the clients' secrets.

use super::*;
use fedveil_client_core::Refusal;
use fedveil_proto_plan::AdaptiveClipping;
use fedveil_provenance::{Checkpoint, Log, Manifest, PrivacyClaim, Publication};
use proptest::prelude::*;

/// Lets the federation run on and checks that client 0 refuses for that reason, and that nothing of what it holds back
/// leaves it afterwards: no input, no share, and after a final refusal not a word.
fn assert_refuses(federation: &mut Scripted, reason: &str, is_final: bool) {
    assert!(
        federation.run_until(|federation| !federation.devices()[0].refusals().is_empty()),
        "client 0 refused nothing, expected: {reason}"
    );
    let refusal = &federation.devices()[0].refusals()[0];
    assert!(refusal.to_string().contains(reason), "{refusal}, expected: {reason}");
    assert_eq!(refusal.is_final(), is_final, "{refusal}");
    assert_eq!(federation.devices()[0].finished().is_some(), is_final);
    let seen = federation.scenario().sent.len();
    federation.run();
    for message in federation.scenario().sent[seen..].iter().filter(|message| message.client == 0) {
        if message.kind == Kind::RoundOpen {
            break;
        }
        assert!(message.direction == Direction::Down || !is_final, "client 0 sent {:?}", message.kind);
        assert!(![Kind::Input, Kind::Unmask].contains(&message.kind), "client 0 sent {:?}", message.kind);
    }
    assert!(federation.devices()[1..].iter().all(|device| device.refusals().is_empty()));
}

/// What a client has read of the publication's manifest, changed and signed again.
fn resigned(federation: &Scripted, leaf: u64, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let signer = &federation.secrets.signing;
    let bytes = federation.coordinator().log().leaf(leaf).unwrap();
    let mut manifest = Manifest::verify(bytes, &[signer.verifying_key()], 1).unwrap();
    change(&mut manifest);
    manifest.sign(&[signer]).unwrap()
}

fn checkpoint(federation: &Scripted, log: &Log) -> String {
    Checkpoint::sign(&federation.coordinator().plan().origin(), &log.head(), &federation.secrets.signing)
        .unwrap()
}

fn down(kind: Kind, bytes: impl AsRef<[u8]>) -> Message {
    let bytes = Bytes::copy_from_slice(bytes.as_ref());
    Message { client: 0, direction: Direction::Down, kind, bytes }
}

/// One group, for so many rounds.
fn one_group_of(rounds: u32) -> Setup {
    let mut setup = one_group();
    setup.plan.rounds = rounds;
    setup
}

/// Client 0 holds the model of round 1, and round 2 has begun.
fn after_round_1() -> Scripted {
    after_round_1_of(one_group_of(3))
}

fn after_round_1_of(setup: Setup) -> Scripted {
    let mut federation = federation(setup, Script::default());
    let adopted =
        |federation: &Scripted| federation.devices()[0].model().is_some_and(|(round, _)| round == 1);
    assert!(federation.run_until(adopted));
    federation
}

/// The log after round 1 with a manifest of round 2 at its end.
fn next(federation: &Scripted, change: impl FnOnce(&mut Manifest)) -> Log {
    let mut log = federation.coordinator().log().clone();
    let parent = Digest::of(log.leaf(1).unwrap());
    log.append(resigned(federation, 1, |manifest| {
        manifest.round.round = 2;
        manifest.round.parent = Some(parent);
        change(manifest);
    }));
    log
}

/// Offers client 0 the last leaf of that log.
fn offer(federation: &mut Scripted, log: &Log) {
    let checkpoint = checkpoint(federation, log);
    let publication = Publication::new(log, checkpoint, log.size() - 1, 2).unwrap();
    federation.inject(down(Kind::Publication, publication.to_bytes()));
}

#[test]
fn the_forgeries_of_these_tests_are_accepted_but_for_their_one_flaw() {
    let mut federation = after_round_1();
    let model = federation.devices()[0].model().unwrap().1.to_vec();
    let log = next(&federation, |_| {});
    offer(&mut federation, &log);
    federation.inject(down(Kind::Model, model));
    assert!(federation.run_until(|federation| federation.devices()[0].model().unwrap().0 == 2));
    assert!(federation.devices()[0].refusals().is_empty());
}

#[test]
fn a_plan_that_was_altered_is_refused() {
    let alter = |bytes: &mut Vec<u8>| {
        let start = bytes.windows(11).position(|window| window == b"\"payload\":\"").unwrap() + 11;
        bytes[start + 40] = if bytes[start + 40] == b'A' { b'B' } else { b'A' };
    };
    let mut federation = federation(one_group(), Script::default().altering(0, Kind::Plan, alter));
    assert_refuses(&mut federation, "task plan signature", true);
    assert!(matches!(federation.devices()[0].refusals(), [Refusal::Plan(PlanError::Signature(_))]));
}

#[test]
fn a_plan_that_another_key_signed_is_refused() {
    let other = SignedPlan::sign(one_group().plan, &SigningKey::from_bytes(&[9; 32])).unwrap();
    let replace = move |bytes: &mut Vec<u8>| *bytes = other.bytes().to_vec();
    let mut federation = federation(one_group(), Script::default().altering(0, Kind::Plan, replace));
    assert_refuses(&mut federation, "task plan signature", true);
}

#[test]
fn a_signed_plan_that_makes_no_sense_is_refused() {
    type Change = fn(&mut TaskPlan);
    let cases: [(Change, &str); 4] = [
        (|plan| plan.aggregation.threshold = 5, "aggregation.threshold is 5, accepted is more than 5"),
        (|plan| plan.privacy.delta = 0.1, "privacy.delta is 0.1, accepted is a number above 0, at most 1/12"),
        (|plan| plan.privacy.noise_multiplier = 0.0, "privacy.noise_multiplier is 0, accepted is"),
        (
            |plan| "elsewhere".clone_into(&mut plan.privacy.placement),
            "privacy.placement is elsewhere, accepted",
        ),
    ];
    for (change, reason) in cases {
        let mut plan = one_group().plan;
        change(&mut plan);
        let signed = SignedPlan::sign(plan, &draws::signing_key(1, "signer", 0)).unwrap();
        let replace = move |bytes: &mut Vec<u8>| *bytes = signed.bytes().to_vec();
        let mut federation = federation(one_group(), Script::default().altering(0, Kind::Plan, replace));
        assert_refuses(&mut federation, reason, true);
    }
}

#[test]
fn a_plan_beyond_the_owners_policy_is_refused_by_the_name_of_the_limit() {
    let strict = [
        (Policy { max_epsilon: 1.0, ..Policy::default() }, "allows max_epsilon 1, the plan wants"),
        (
            Policy { max_delta: 1e-6, ..Policy::default() },
            "allows max_delta 0.000001, the plan wants 0.00001",
        ),
        (
            Policy { max_total_epsilon: 2.0, ..Policy::default() },
            "allows max_total_epsilon 2 at delta 0.00001 over all tasks; 0.0000 is spent, and 2 more rounds",
        ),
        (Policy { min_survivors: 9, ..Policy::default() }, "allows min_survivors 9, the plan wants 8"),
        (
            Policy { min_colluders_to_break: 4, ..Policy::default() },
            "allows min_colluders_to_break 4, the plan wants 3",
        ),
    ];
    for (policy, reason) in strict {
        let federation = finished(Setup { policy, ..one_group() }, Script::default());
        assert_eq!(published(&federation.events()), [0], "nobody takes part");
        for device in federation.devices() {
            let refusals = device.refusals();
            assert!(matches!(refusals, [Refusal::Policy(_) | Refusal::Total(_)]), "{refusals:?}");
            assert!(device.finished().unwrap().contains(reason), "{:?}", device.finished());
        }
    }
}

#[test]
fn an_altered_model_is_refused() {
    let alter = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let mut federation = federation(one_group(), Script::default().altering(0, Kind::Model, alter));
    assert_refuses(&mut federation, "the model's digest is", true);
    assert!(federation.devices()[0].model().is_none());
}

#[test]
fn an_altered_manifest_is_refused() {
    let mut federation = after_round_1();
    let mut log = federation.coordinator().log().clone();
    let mut manifest = log.leaf(1).unwrap().to_vec();
    let start = manifest.windows(11).position(|window| window == b"\"payload\":\"").unwrap() + 11;
    manifest[start + 40] = if manifest[start + 40] == b'A' { b'B' } else { b'A' };
    log.append(manifest);
    offer(&mut federation, &log);
    assert_refuses(&mut federation, "the signature of the manifest does not verify", true);
}

#[test]
fn a_manifest_by_an_unknown_key_is_refused() {
    let mut federation = after_round_1();
    let mut log = federation.coordinator().log().clone();
    let mut manifest =
        Manifest::verify(log.leaf(1).unwrap(), &[federation.secrets.signing.verifying_key()], 1).unwrap();
    manifest.round.round = 2;
    log.append(manifest.sign(&[&SigningKey::from_bytes(&[9; 32])]).unwrap());
    offer(&mut federation, &log);
    assert_refuses(&mut federation, "the manifest is signed by no pinned key", true);
}

#[test]
fn a_model_that_does_not_follow_the_one_held_is_refused() {
    let mut federation = after_round_1();
    let log = next(&federation, |manifest| manifest.round.parent = Some(Digest::of("another")));
    offer(&mut federation, &log);
    assert_refuses(&mut federation, "the manifest of round 2 follows", true);
}

#[test]
fn an_older_model_is_refused() {
    let mut federation = after_round_1();
    let log = federation.coordinator().log().clone();
    let publication = Publication::new(&log, checkpoint(&federation, &log), 0, 2).unwrap();
    federation.inject(down(Kind::Publication, publication.to_bytes()));
    assert_refuses(&mut federation, "rollback: the offered round is 0, this client already accepted 1", true);
}

#[test]
fn a_shorter_log_is_refused() {
    let mut federation = after_round_1();
    let mut log = Log::new();
    log.append(next(&federation, |_| {}).leaf(2).unwrap().to_vec());
    let publication = Publication {
        consistency: Vec::new(),
        ..Publication::new(&log, checkpoint(&federation, &log), 0, 0).unwrap()
    };
    federation.inject(down(Kind::Publication, publication.to_bytes()));
    assert_refuses(
        &mut federation,
        "rollback: the offered log size is 1, this client already accepted 2",
        true,
    );
}

#[test]
fn a_forked_log_is_refused() {
    let mut federation = after_round_1();
    let mut log = Log::new();
    log.append(resigned(&federation, 0, |manifest| manifest.model = Digest::of("for the others")));
    for leaf in 1..3 {
        log.append(next(&federation, |_| {}).leaf(leaf).unwrap().to_vec());
    }
    offer(&mut federation, &log);
    assert_refuses(&mut federation, "fork: the offered log of 3 leaves does not continue", true);
}

#[test]
fn a_model_outside_of_the_log_is_refused() {
    let mut federation = after_round_1();
    let honest = next(&federation, |_| {});
    let secret = next(&federation, |manifest| manifest.model = Digest::of("for one client"));
    let checkpoint = checkpoint(&federation, &honest);
    let mut publication = Publication::new(&honest, checkpoint, 2, 2).unwrap();
    publication.manifest = secret.leaf(2).unwrap().to_vec();
    federation.inject(down(Kind::Publication, publication.to_bytes()));
    assert_refuses(&mut federation, "the manifest is not leaf 2 of the offered log of 3 leaves", true);
}

#[test]
fn a_model_of_another_task_is_refused() {
    let mut federation = after_round_1();
    let log = next(&federation, |manifest| manifest.round.task_digest = Digest::of("another task"));
    offer(&mut federation, &log);
    assert_refuses(&mut federation, "the manifest is of task", true);
}

#[test]
fn a_manifest_whose_privacy_is_not_the_plans_is_refused() {
    type Lie = fn(&mut PrivacyClaim);
    let lies: [(Lie, &str); 10] = [
        (|claim| claim.epsilon_budget = 99.0, "not that of the plan: epsilon_budget is 99, expected 15"),
        (|claim| claim.delta = 1e-9, "not that of the plan: delta is 0.000000001, expected 0.00001"),
        (|claim| claim.unit = "example".to_owned(), "unit is example, expected user"),
        (|claim| claim.neighbours = "add-remove".to_owned(), "neighbours is add-remove, expected zero-out"),
        (|claim| claim.accountant = "pld".to_owned(), "accountant is pld, expected"),
        (|claim| claim.sampling = "poisson".to_owned(), "sampling is poisson, expected"),
        (|claim| claim.placement = "local".to_owned(), "placement is local, expected distributed"),
        (|claim| claim.mechanism = "skellam".to_owned(), "mechanism is skellam, expected discrete-gaussian"),
        (|claim| claim.noise_multiplier = 9.0, "noise_multiplier is 9, expected 1.5"),
        (|claim| claim.clip_norm = 0.1, "clip_norm is 0.1, expected 1"),
    ];
    for (lie, reason) in lies {
        let mut federation = after_round_1();
        let log = next(&federation, |manifest| lie(&mut manifest.round.privacy));
        offer(&mut federation, &log);
        assert_refuses(&mut federation, reason, true);
    }
}

#[test]
fn a_clip_norm_that_jumps_is_refused() {
    let adaptive = || {
        let mut setup = one_group_of(3);
        setup.plan.privacy.adaptive_clip = Some(AdaptiveClipping {
            quantile: 0.5,
            learning_rate: 0.2,
            noise_multiplier: 4.0,
            minimum: 0.5,
            maximum: 2.0,
        });
        setup
    };
    for (jump, lie) in [(Some(1.3), 1.3), (Some(0.7), 0.7), (Some(40.0), 40.0), (Some(0.0), 0.0), (None, 1.0)]
    {
        let mut federation = after_round_1_of(adaptive());
        let log = next(&federation, |manifest| {
            manifest.round.privacy.clip_norm = lie;
            if jump.is_none() {
                manifest.round.privacy.adaptive_clip = false;
            }
        });
        offer(&mut federation, &log);
        let reason = match jump {
            Some(found) => format!("clip norm is {found}, accepted after "),
            None => "adaptive_clip is false, expected true".to_owned(),
        };
        assert_refuses(&mut federation, &reason, true);
    }
}

#[test]
fn a_manifest_that_misstates_what_was_spent_is_refused() {
    let guarantee = one_group().plan.check().unwrap().guarantee;
    for (spent, reason) in [
        (0.0, "epsilon 0 was spent, the one before it said"),
        (guarantee.epsilon(1) * 0.999, "was spent, the one before it said"),
        (f64::midpoint(guarantee.epsilon(1), guarantee.epsilon(2)), "by its plan the task has spent"),
        // Nobody can have taken part three times by the end of round 2.
        (one_group_of(3).plan.check().unwrap().guarantee.epsilon(3), "1 of them or more and 2 at most"),
    ] {
        let mut federation = after_round_1();
        let log = next(&federation, |manifest| manifest.round.privacy.epsilon_spent = spent);
        offer(&mut federation, &log);
        assert_refuses(&mut federation, reason, true);
    }
}

/// A client that was asked to unmask knows that it was charged.
#[test]
fn a_manifest_that_hides_a_charge_is_refused() {
    // The same seed makes the same history: what this one signs, the other federation's client believes.
    let twin = after_round_1();
    let mut log = Log::new();
    log.append(twin.coordinator().log().leaf(0).unwrap().to_vec());
    log.append(resigned(&twin, 1, |manifest| manifest.round.privacy.epsilon_spent = 0.0));
    let forged = Publication::new(&log, checkpoint(&twin, &log), 1, 1).unwrap().to_bytes();
    let mut publications = 0;
    let swap = move |now, mut message: Message| {
        if (message.client, message.kind) == (0, Kind::Publication) {
            publications += 1;
            if publications == 2 {
                message.bytes = forged.clone().into();
            }
        }
        vec![(now, message)]
    };
    let mut federation = federation(one_group_of(3), Script::default().routing(swap));
    assert_refuses(&mut federation, "says that epsilon 0 was spent by round 1", true);
    assert_eq!(federation.devices()[0].model().unwrap().0, 0);
}

#[test]
fn a_model_without_its_publication_is_refused() {
    let lose = |now, message: Message| {
        let lost = message.client == 0 && message.kind == Kind::Publication;
        if lost { Vec::new() } else { vec![(now, message)] }
    };
    let mut federation = federation(one_group(), Script::default().routing(lose));
    assert_refuses(&mut federation, "unexpected Model message without its publication", false);
    assert!(federation.devices()[0].model().is_none());
    assert_eq!(sent_by(&mut federation, 0, Kind::Advertise), 0, "no model, no round");
}

#[test]
fn a_publication_without_its_model_moves_nothing() {
    let mut models = 0;
    let lose = move |now, message: Message| {
        let is_model = (message.client, message.kind) == (0, Kind::Model);
        models += u32::from(is_model);
        if is_model && models > 1 { Vec::new() } else { vec![(now, message)] }
    };
    let mut federation = federation(one_group(), Script::default().routing(lose));
    // Its session of round 2 is bound to the model that it holds, so its keys are not accepted.
    assert_refuses(
        &mut federation,
        "unexpected Publication message before the model of the one before",
        false,
    );
    let device = &federation.devices()[0];
    assert_eq!(device.model().unwrap().0, 0);
    assert_eq!(device.record().tasks.values().next().unwrap().head.unwrap().round, 0);
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    assert_eq!(sent_by(&mut federation, 0, Kind::Input), 1, "in round 1 only");
}

#[test]
fn a_client_that_is_given_another_model_than_the_others_is_in_no_round_with_them() {
    // The same seed makes the same keys and the same plan: what this one signs, the other federation believes.
    let mut twin = federation(one_group(), Script::default());
    assert!(twin.run_until(|twin| published(&twin.events()) == [0]));
    let spec: ModelSpec = "softmax:8x3".parse().unwrap();
    let other = model_file::to_safetensors(&spec, &[0.5; PARAMETERS]).unwrap();
    let mut log = Log::new();
    log.append(resigned(&twin, 0, |manifest| manifest.model = Digest::of(&other)));
    let publication = Publication::new(&log, checkpoint(&twin, &log), 0, 0).unwrap().to_bytes();

    let swap = move |now, mut message: Message| {
        if message.client == 0 {
            match message.kind {
                Kind::Publication => message.bytes = publication.clone().into(),
                Kind::Model => message.bytes = other.clone().into(),
                // The honest core rejects the keys of another session; this coordinator keeps that to itself.
                Kind::Reject | Kind::Roster => return Vec::new(),
                _ => {}
            }
        }
        // Client 0 is shown the roster of the others.
        if message.client == 1 && message.kind == Kind::Roster {
            return vec![(now, Message { client: 0, ..message.clone() }), (now, message)];
        }
        vec![(now, message)]
    };
    let mut federation = federation(one_group(), Script::unit_vectors().routing(swap));
    assert_refuses(&mut federation, "refused the round: own advertisement is missing from the roster", false);
    assert_eq!(sent_by(&mut federation, 0, Kind::Reveal), 0);
    assert_eq!(sums(&federation)[&(1, 0)].iter().sum::<i64>(), 11);
}

#[test]
fn a_round_that_is_over_is_not_entered_again() {
    for (message, reason) in [
        (1_u32.to_be_bytes().to_vec(), "round 1 is not after round"),
        (0_u32.to_be_bytes().to_vec(), "round 0 is not after round"),
        (4_u32.to_be_bytes().to_vec(), "round 4 is not after round"),
        (vec![0; 5], "a round number has 4 bytes, the message has 5"),
    ] {
        let mut federation = after_round_1();
        let advertised = sent_by(&mut federation, 0, Kind::Advertise);
        federation.inject(down(Kind::RoundOpen, message));
        assert_refuses(&mut federation, reason, false);
        assert!(sent_by(&mut federation, 0, Kind::Advertise) <= advertised + 2, "rounds 2 and 3 at most");
    }
}

#[test]
fn a_round_in_progress_is_not_started_over() {
    let mut federation = federation(one_group(), Script::default());
    assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "collecting"))));
    federation.inject(down(Kind::RoundOpen, 1_u32.to_be_bytes()));
    assert_refuses(&mut federation, "round 1 is not after round 1", false);
}

#[test]
fn a_bad_publication_in_the_middle_of_a_round_erases_the_round() {
    for phase in ["sharing", "collecting", "consistency", "unmasking"] {
        let mut federation = after_round_1();
        assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((2, phase))));
        federation.inject(down(Kind::Publication, *b"{}"));
        let answered = sent_by(&mut federation, 0, Kind::Unmask);
        assert!(federation.run_until(|federation| federation.devices()[0].finished().is_some()));
        federation.run();
        assert!(sent_by(&mut federation, 0, Kind::Unmask) <= answered + usize::from(phase == "unmasking"));
        assert!(matches!(federation.devices()[0].refusals(), [Refusal::Publication(_)]));
    }
}

#[test]
fn a_second_survivor_set_is_not_signed() {
    let mut federation = federation(one_group(), Script::default());
    assert!(federation.run_until(|federation| sent_by_0(federation, Kind::Consistency)));
    let survivors =
        federation.scenario().sent.iter().find(|message| message.kind == Kind::Survivors).cloned();
    federation.inject(down(Kind::Survivors, survivors.unwrap().bytes));
    assert_refuses(&mut federation, "unexpected Survivors message while waiting for signatures", false);
    assert_eq!(sent_by(&mut federation, 0, Kind::Consistency), 2, "once in each round");
}

#[test]
fn shares_are_sent_once() {
    let mut federation = federation(one_group(), Script::default());
    assert!(federation.run_until(|federation| sent_by_0(federation, Kind::Unmask)));
    let signatures =
        federation.scenario().sent.iter().find(|message| message.kind == Kind::Signatures).cloned();
    federation.inject(down(Kind::Signatures, signatures.unwrap().bytes));
    assert_refuses(&mut federation, "unexpected Signatures message outside of a round", false);
    assert_eq!(sent_by(&mut federation, 0, Kind::Unmask), 2, "once in each round");
}

fn sent_by_0(federation: &Scripted, kind: Kind) -> bool {
    federation.scenario.sent.iter().any(|message| (message.client, message.kind) == (0, kind))
}

/// What a coordinator sends in a session of secure aggregation.
const SESSION: [Kind; 5] = [Kind::Roster, Kind::Reveals, Kind::Delivery, Kind::Survivors, Kind::Signatures];

/// What a client says at most once in a round.
const SAID_ONCE: [Kind; 6] =
    [Kind::Advertise, Kind::Reveal, Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any bit of any message of the session: client 0 sends no share, and where the message comes before its input,
    /// no input either.
    #[test]
    fn one_flipped_bit_of_a_session_ends_it_for_the_client(
        kind in prop::sample::select(SESSION.to_vec()),
        position in any::<prop::sample::Index>(),
        bit in 0_u32..8,
    ) {
        let flip = move |bytes: &mut Vec<u8>| {
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
        };
        let mut federation = finished(one_round(), Script::unit_vectors().altering(0, kind, flip));
        prop_assert_eq!(sent_by(&mut federation, 0, Kind::Unmask), 0);
        if kind <= Kind::Delivery {
            prop_assert_eq!(sent_by(&mut federation, 0, Kind::Input), 0);
        }
        let events = federation.events();
        prop_assert_eq!(end(&events), "all 1 rounds are done");
        for device in &federation.devices()[1..] {
            prop_assert!(device.refusals().is_empty());
        }
    }

    /// Any message of the round again, at any time after it: stages are not begun again, and nothing is said twice.
    #[test]
    fn a_message_of_the_round_again_makes_no_client_say_anything_twice(
        steps in 20_usize..220,
        which in any::<prop::sample::Index>(),
    ) {
        let mut federation = federation(one_round(), Script::unit_vectors());
        for _ in 0..steps {
            federation.step();
        }
        let to_0 = |message: &&Message| message.client == 0 && message.direction == Direction::Down;
        let sent: Vec<Message> = federation.scenario().sent.iter().filter(to_0).cloned().collect();
        prop_assume!(!sent.is_empty());
        federation.inject(which.get(&sent).clone());
        federation.run();
        for kind in SAID_ONCE {
            prop_assert!(sent_by(&mut federation, 0, kind) <= 1, "{:?}", kind);
        }
        for sum in sums(&federation).values() {
            prop_assert!(sum[1..12].iter().all(|&count| count == 1) && sum[0] <= 1, "{:?}", sum);
        }
    }

    /// Whatever a coordinator sends at whatever time: no panic, and nothing that the client had not to send anyway.
    #[test]
    fn garbage_of_the_coordinator_makes_no_client_say_more(
        steps in 0_usize..220,
        kind in prop::sample::select(Kind::ALL.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut federation = federation(one_round(), Script::unit_vectors());
        for _ in 0..steps {
            federation.step();
        }
        federation.inject(down(kind, bytes));
        federation.run();
        for kind in [Kind::Advertise, Kind::Input, Kind::Unmask] {
            prop_assert!(sent_by(&mut federation, 0, kind) <= 1, "{:?}", kind);
        }
        for sum in sums(&federation).values() {
            prop_assert!(sum[1..12].iter().all(|&count| count == 1) && sum[0] <= 1, "{:?}", sum);
        }
    }
}
