//! Mode `insecure_plain`: rounds without groups, noise that the coordinator adds, cohorts drawn by coins.

use super::*;
use fedveil_client_core::{PolicyRefusal, Refusal};
use fedveil_proto::Kind::PlainInput;
use fedveil_proto_plan::CorrelatedNoise;
use fedveil_provenance::{Decision, Envelope, Influence};
use std::sync::Mutex;

/// 12 clients whose updates the coordinator sees, which their owners allow. The noise in placement `local` is the least
/// there is, one step: so is the privacy.
pub(super) fn in_the_clear(placement: &str) -> Setup {
    let mut setup = one_group();
    setup.plan.mode = "insecure_plain".to_owned();
    setup.plan.aggregation = Aggregation::none();
    setup.plan.privacy.placement = placement.to_owned();
    if placement == "local" {
        setup.plan.privacy.noise_multiplier = 1e-3;
        setup.plan.privacy.epsilon = 1e8;
    }
    setup.policy =
        Policy { allow_insecure_plain: true, max_epsilon: 1e8, max_total_epsilon: 1e8, ..Policy::default() };
    setup
}

/// Central noise for so many rounds, which the budget pays for.
fn central(rounds: u32, clients: u32, population: Option<u32>) -> Setup {
    let mut setup = in_the_clear("central");
    setup.plan.rounds = rounds;
    setup.plan.privacy.epsilon = 1e4;
    setup.plan.cohort = Cohort { clients, minimum: 2, assumed_malicious: 0, population };
    setup
}

/// Everyone sends these steps as they are.
fn sending(steps: [i64; PARAMETERS]) -> Script {
    Script::default().contributing(move |_, _| Ok(Contribution::DangerUnbounded(steps.to_vec())))
}

/// Client i sends i + 1 in coordinate i, whatever the others send.
fn numbers() -> Script {
    Script::default().contributing(|client, _| {
        let mut values = vec![0; PARAMETERS];
        values[client] = client as i64 + 1;
        Ok(Contribution::DangerUnbounded(values))
    })
}

/// The published models in steps of the plan's grid, first the initial one.
fn models(federation: &Scripted) -> Vec<Vec<f64>> {
    let step = federation.coordinator().terms().guarantee.grid.to_real(&[1])[0];
    let read = |event: &Event| match event {
        Event::Published { model, .. } => {
            let file = federation.store().blob(model).unwrap();
            let (_, values) = model_file::from_safetensors(&file).unwrap();
            Some(values.into_iter().map(|value| f64::from(value) / step).collect())
        }
        _ => None,
    };
    federation.events().iter().filter_map(read).collect()
}

/// The noise of every round in which nothing else was summed: what the model moved by, times the planned cohort.
fn noise(federation: &Scripted) -> Vec<Vec<f64>> {
    let cohort = f64::from(federation.coordinator().plan().plan().cohort.clients);
    let models = models(federation);
    let moved = models.windows(2).map(|pair| {
        let differences = pair[0].iter().zip(&pair[1]).map(|(before, after)| (after - before) * cohort);
        differences.map(f64::round).collect()
    });
    moved.collect()
}

fn cohorts(federation: &Scripted) -> Vec<Vec<Client>> {
    let drawn = |event: Event| match event {
        Event::RoundOpened { cohort, .. } => Some(cohort),
        _ => None,
    };
    federation.events().into_iter().filter_map(drawn).collect()
}

/// Why client 0 was taken out of rounds.
fn dropped(federation: &Scripted) -> Vec<String> {
    let id = federation.devices()[0].id();
    let reason = |event: Event| match event {
        Event::ClientDropped { client, reason } if client == id => Some(reason),
        _ => None,
    };
    federation.events().into_iter().filter_map(reason).collect()
}

#[test]
fn the_model_moves_by_the_mean_of_the_updates() {
    let vanish = |client, round, before| before == PlainInput && client == 3 && round == 2;
    let federation = finished(in_the_clear("local"), numbers().vanishing(vanish));
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    let models = models(&federation);
    let [initial, first, second] = models.as_slice() else { panic!("three models") };
    for client in 0..12 {
        let steps = (client + 1) as f64;
        // Those who answered are divided by, and a client that left in time is not among them.
        let rest = if client == 3 { 0.0 } else { steps / 11.0 };
        for (round, before, after, expected) in [(1, initial, first, steps / 12.0), (2, first, second, rest)]
        {
            let moved = after[client] - before[client];
            assert!((moved - expected).abs() < 1e-3, "client {client}, round {round}: {moved}, {expected}");
        }
    }
    assert!(second[12..].iter().all(|&value| value == 0.0));
    let [_, first, second] = manifests(&federation).try_into().unwrap();
    let told = |manifest: Manifest| {
        manifest.round.groups.iter().map(|g| (g.members, g.survivors)).collect::<Vec<_>>()
    };
    assert_eq!((told(first), told(second)), (vec![(12, 12)], vec![(12, 11)]), "one entry for all");
    let charged = charges(&federation.events());
    assert_eq!(charged.values().map(BTreeSet::len).collect::<Vec<_>>(), [12, 11]);
}

#[test]
fn an_honest_update_is_clipped_rounded_and_noised_by_its_client() {
    let mut setup = in_the_clear("local");
    (setup.plan.rounds, setup.plan.privacy.noise_multiplier) = (1, 0.5);
    let script = Script::default().contributing(|_, _| Ok(Contribution::Update(vec![9.0; PARAMETERS])));
    let federation = finished(setup, script);
    let guarantee = federation.coordinator().terms().guarantee.clone();
    let inputs: Vec<Vec<i32>> = federation
        .scenario()
        .sent
        .iter()
        .filter(|message| message.kind == PlainInput)
        .map(|message| {
            message.bytes[4..].as_chunks::<4>().0.iter().map(|step| i32::from_le_bytes(*step)).collect()
        })
        .collect();
    assert_eq!(inputs.len(), 12);
    // Of norm 1024 in 27 equal coordinates, and noise of σ = 0.5 norms in each of them.
    let clipped = 1024.0 / (PARAMETERS as f64).sqrt();
    let count = (12 * PARAMETERS) as f64;
    let values = || inputs.iter().flatten().map(|&step| f64::from(step));
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - clipped).powi(2)).sum::<f64>() / count;
    let sigma = (guarantee.share.get() as f64).sqrt();
    assert!((mean - clipped).abs() < 5.0 * sigma / count.sqrt(), "{mean}, {clipped}");
    assert!((variance / sigma.powi(2) - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "{variance}");
    assert_eq!(guarantee.epsilon(1), federation.coordinator().epsilon_spent());
    assert_eq!(guarantee.epsilon(1), federation.devices()[0].participant().epsilon_spent());
}

#[test]
fn a_robust_rule_drops_the_clients_that_attack() {
    let mut setup = in_the_clear("local");
    (setup.plan.rounds, setup.plan.server.rule, setup.plan.server.assumed_byzantine) =
        (1, "multi-krum".to_owned(), 2);
    let script = Script::default().contributing(|client, _| {
        let value = if client < 2 { -1_000_000 } else { 100 + client as i64 };
        Ok(Contribution::DangerUnbounded(vec![value; PARAMETERS]))
    });
    let federation = finished(setup, script);
    let moved = models(&federation)[1][0];
    assert!((102.0..=111.0).contains(&moved), "{moved}");
    let manifest = manifests(&federation).pop().unwrap();
    // Rows are in the order of identities.
    let mut order: Vec<usize> = (0..12).collect();
    order.sort_by_key(|&client| federation.devices()[client].id());
    assert_eq!(manifest.round.groups.len(), 12, "one entry for each client");
    for (entry, client) in manifest.round.groups.iter().zip(order) {
        assert_eq!((entry.members, entry.survivors), (1, 1));
        let expected = if client < 2 { Decision::Dropped } else { Decision::Kept };
        assert!(client >= 2 || entry.decision == expected, "client {client}: {entry:?}");
    }
    let kept = manifest.round.groups.iter().filter(|entry| entry.decision == Decision::Kept).count();
    assert_eq!(kept, 10);
}

#[test]
fn a_round_without_enough_updates_for_its_rule_is_aborted_and_costs_nothing() {
    let mut setup = in_the_clear("local");
    (setup.plan.server.rule, setup.plan.server.assumed_byzantine) = ("trimmed-mean".to_owned(), 4);
    let vanish = |client, round, before| before == PlainInput && client < 4 && round == 1;
    let federation = finished(setup, numbers().vanishing(vanish));
    let events = federation.events();
    assert_eq!(aborted(&events), [(1, "8 clients sent an update, the rule trimmed-mean needs 9")]);
    assert_eq!(published(&events), [0, 2]);
    assert_eq!(charges(&events).into_keys().collect::<Vec<_>>(), [(2, 0)]);
}

#[test]
fn an_update_reaches_no_event_and_no_blob() {
    let steps: [i64; PARAMETERS] = std::array::from_fn(|i| 30 + i as i64);
    let mut setup = in_the_clear("central");
    setup.plan.rounds = 1;
    let federation = finished(setup, sending(steps));
    let sent = federation.scenario().sent.iter().find(|message| message.kind == PlainInput);
    let message = sent.unwrap().bytes.clone();
    let wide: Vec<u8> = steps.iter().flat_map(|step| step.to_le_bytes()).collect();
    let real: Vec<u8> = steps.iter().flat_map(|&step| (step as f64).to_le_bytes()).collect();
    let blobs = federation.store().blobs();
    assert_eq!(blobs.len(), 3, "two models and the optimiser's momentum");
    for blob in blobs {
        let blob = federation.store().blob(&blob).unwrap();
        for trace in [&message[4..20], &wide[..16], &real[..16]] {
            assert!(!blob.windows(trace.len()).any(|window| window == trace));
        }
    }
    let events = serde_json::to_string(&federation.events()).unwrap();
    assert!(!events.contains(&Digest::of(&message).to_string()));
    assert!(!events.contains(&Digest::of(&message[4..]).to_string()));
}

#[test]
fn central_noise_is_of_the_variance_that_is_charged_for_and_new_in_every_round() {
    let federation = finished(central(60, 12, None), sending([0; PARAMETERS]));
    let noise = noise(&federation);
    assert_eq!(noise.len(), 60);
    let share = federation.coordinator().terms().guarantee.share.get() as f64;
    let bound = federation.coordinator().terms().guarantee.grid.norm_bound_squared() as f64;
    assert_eq!(share, (1.5_f64.powi(2) * bound).ceil(), "z times the norm bound");
    let count = (60 * PARAMETERS) as f64;
    let variance = noise.iter().flatten().map(|value| value * value).sum::<f64>() / count;
    assert!((variance / share - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "{variance}, {share}");
    let mean = noise.iter().flatten().sum::<f64>() / count;
    assert!(mean.abs() < 5.0 * (share / count).sqrt(), "{mean}");
    for (round, values) in noise.iter().enumerate() {
        assert!(!noise[..round].contains(values), "round {} has the noise of another one", round + 1);
    }
    // Another task of the same coordinator has other noise.
    let mut setup = central(1, 12, None);
    setup.plan.id = Digest::of("another");
    let other = finished(setup, sending([0; PARAMETERS]));
    assert_ne!(self::noise(&other)[0], noise[0]);
}

#[test]
fn a_round_has_the_same_noise_whatever_crashed_before_it() {
    let expected = noise(&finished(central(3, 12, None), sending([0; PARAMETERS])));
    let mut federation = federation(central(3, 12, None), sending([0; PARAMETERS]));
    assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "closing"))));
    federation.crash();
    federation.run();
    let events = federation.events();
    assert_eq!(aborted(&events), [(1, "the coordinator restarted")]);
    assert!(charges(&events).contains_key(&(1, 0)), "it stays charged");
    assert_eq!(noise(&federation), expected[1..]);
}

#[test]
fn the_sum_is_divided_by_the_planned_cohort_whoever_answers() {
    let vanish = |client, _, before| before == PlainInput && client < 5;
    let steps: [i64; PARAMETERS] = std::array::from_fn(|i| if i == 0 { 900 } else { 0 });
    let mut setup = central(1, 12, None);
    setup.plan.privacy.noise_multiplier = 1e-3;
    setup.plan.privacy.epsilon = 1e8;
    let federation = finished(setup, sending(steps).vanishing(vanish));
    let moved = models(&federation)[1][0];
    assert!((moved - 900.0 * 7.0 / 12.0).abs() < 1.0, "{moved}");
}

#[test]
fn an_update_beyond_the_norm_that_noise_is_sized_for_is_in_no_sum() {
    let mut setup = central(1, 12, None);
    setup.plan.privacy.noise_multiplier = 1e-3;
    setup.plan.privacy.epsilon = 1e8;
    let script = Script::default().contributing(|client, _| {
        let mut values = vec![0; PARAMETERS];
        values[client] = if client == 0 { 2_000 } else { 600 };
        Ok(Contribution::DangerUnbounded(values))
    });
    let federation = finished(setup, script);
    let reasons = dropped(&federation);
    assert!(
        reasons.len() == 1 && reasons[0].starts_with("the update's norm is beyond 1024.5"),
        "{reasons:?}"
    );
    let models = models(&federation);
    assert!(models[1][0].abs() < 1.0, "{}", models[1][0]);
    assert!((models[1][1] - 50.0).abs() < 1.0, "{}", models[1][1]);
    assert_eq!(charges(&federation.events())[&(1, 0)].len(), 11);
}

#[test]
fn cohorts_are_drawn_by_coins_and_everyone_pays_for_every_round() {
    const ROUNDS: u32 = 80;
    let mut setup = central(ROUNDS, 9, Some(27));
    setup.clients = 27;
    let federation = finished(setup, sending([0; PARAMETERS]));
    let events = federation.events();
    assert_eq!(published(&events).len(), 1 + ROUNDS as usize);
    let cohorts = cohorts(&federation);
    // 27 coins that fall with probability 1/3: binomial, of mean 9 and variance 6.
    let count = f64::from(ROUNDS);
    let sizes = || cohorts.iter().map(|cohort| cohort.len() as f64);
    let mean = sizes().sum::<f64>() / count;
    let variance = sizes().map(|size| (size - 9.0).powi(2)).sum::<f64>() / count;
    assert!((mean - 9.0).abs() < 5.0 * (6.0 / count).sqrt(), "{mean}");
    assert!((variance / 6.0 - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "{variance}");
    for device in federation.devices() {
        let drawn = cohorts.iter().filter(|cohort| cohort.contains(&device.id())).count() as f64;
        assert!((drawn - count / 3.0).abs() < 5.0 * (count * 2.0 / 9.0).sqrt(), "{drawn} of {count}");
    }
    let charged = charges(&events);
    assert_eq!(charged.len(), ROUNDS as usize);
    assert!(charged.values().all(|clients| clients.len() == 27));
    let guarantee = &federation.coordinator().terms().guarantee;
    assert_eq!(federation.coordinator().epsilon_spent(), guarantee.epsilon(ROUNDS));
    let full = central(ROUNDS, 9, None).plan.check().unwrap().guarantee.epsilon(ROUNDS);
    assert!(guarantee.epsilon(ROUNDS) < 0.5 * full, "{} of {full}", guarantee.epsilon(ROUNDS));
    for device in federation.devices() {
        assert_eq!(device.participant().epsilon_spent(), guarantee.epsilon(ROUNDS), "drawn or not");
    }
}

#[test]
fn a_round_that_draws_nobody_is_released_and_charged_like_any_other() {
    // 12 coins that fall with probability 1/10000.
    let federation = finished(central(3, 2, Some(20_000)), sending([500; PARAMETERS]));
    let events = federation.events();
    assert_eq!(cohorts(&federation), [const { Vec::new() }; 3]);
    assert_eq!(published(&events), [0, 1, 2, 3]);
    assert_eq!(aborted(&events), []);
    assert_eq!(charges(&events).values().map(BTreeSet::len).collect::<Vec<_>>(), [12; 3]);
    assert!(noise(&federation).iter().all(|noise| noise.iter().any(|&value| value != 0.0)));
}

/// The noise is in the sum alone: a number about one client's update would be one without noise.
#[test]
fn manifests_with_noise_in_the_sum_tell_nothing_of_a_single_update() {
    for population in [None, Some(13)] {
        let federation = finished(central(2, 12, population), numbers());
        let manifests = manifests(&federation);
        assert_eq!(manifests.len(), 3);
        for manifest in &manifests {
            for group in &manifest.round.groups {
                let told = (group.index, group.members, group.score, group.explanation);
                assert_eq!(told, (0, 12, None, None), "one decision about all of them");
            }
        }
        let lines = federation.coordinator().log();
        for leaf in 0..lines.size() {
            let text = Envelope::parse(lines.leaf(leaf).unwrap()).unwrap();
            let text = String::from_utf8(text.danger_unverified_payload().to_vec()).unwrap();
            for word in ["explanation", "distance", "cosine", "norm\":", "z_score", "influence"] {
                let known = text.replace("clip_norm\":", "");
                assert!(!known.contains(word), "{word} is in {text}");
            }
        }
        let stored = serde_json::to_string(&federation.events()).unwrap();
        assert!(!stored.contains("explanation"), "nor in what the coordinator keeps");
    }
    // A rule that compares clients is not to be had with such noise.
    let mut setup = central(2, 12, None);
    setup.plan.server.rule = "median".to_owned();
    assert!(setup.plan.check().unwrap_err().to_string().contains("accepted is mean"));
}

/// Of updates that their clients have noised everything may be told.
#[test]
fn decisions_about_noised_updates_are_explained() {
    let mut setup = in_the_clear("local");
    setup.plan.server.rule = "multi-krum".to_owned();
    setup.plan.server.assumed_byzantine = 2;
    let poisoned = |client: usize, _| {
        let value = if client < 2 { 1 << 15 } else { 1 };
        Ok(Contribution::DangerUnbounded(vec![value; PARAMETERS]))
    };
    let federation = finished(setup, Script::default().contributing(poisoned));
    for manifest in &manifests(&federation)[1..] {
        let dropped: Vec<_> =
            manifest.round.groups.iter().filter(|client| client.decision == Decision::Dropped).collect();
        assert_eq!(dropped.len(), 2);
        for client in dropped {
            assert!(client.reason.contains("deviations above the median of 12 clients"), "{client:?}");
            let explanation = client.explanation.unwrap();
            assert!(matches!(explanation.influence, Influence::Moves(far) if far.is_finite()), "{client:?}");
        }
    }
}

#[test]
fn what_clients_are_told_does_not_tell_who_was_drawn() {
    /// How long rounds take, and what a manifest says of who was there.
    fn seen(setup: Setup, script: Script) -> Vec<(u64, usize, String)> {
        let federation = finished(setup, script);
        let times: Vec<u64> = federation
            .events()
            .iter()
            .filter_map(|event| if let Event::Published { at, .. } = event { Some(at.0) } else { None })
            .collect();
        let told = manifests(&federation).into_iter();
        times.into_iter().zip(told).map(|(at, m)| (at, m.round.groups.len(), m.round.rule)).collect()
    }
    // As many are connected, so that each round begins when its time to join is over.
    let many = seen(central(3, 12, Some(13)), sending([0; PARAMETERS]));
    let nobody = seen(central(3, 2, Some(20_000)), sending([0; PARAMETERS]));
    let some = seen(
        central(3, 6, Some(13)),
        sending([0; PARAMETERS]).vanishing(|client, _, before| before == PlainInput && client < 3),
    );
    assert_eq!(many, nobody);
    assert_eq!(many, some);

    // Nor can a guess be checked against the commitment.
    let mut federation = finished(central(1, 2, Some(20_000)), sending([0; PARAMETERS]));
    let one = manifests(&federation)[1].round.cohort_commitment;
    federation = finished(Setup { seed: 2, ..central(1, 2, Some(20_000)) }, sending([0; PARAMETERS]));
    assert_ne!(manifests(&federation)[1].round.cohort_commitment, one, "two empty cohorts look alike");
}

#[test]
fn an_update_of_the_wrong_length_is_refused_and_drops_its_sender() {
    for (change, reason) in [
        (-1_i32, "an update of 27 parameters has 112 bytes, the message has 111"),
        (1, "an update of 27 parameters has 112 bytes, the message has more"),
        (-112, "an update of 27 parameters has 112 bytes, the message has 0"),
    ] {
        let alter = move |bytes: &mut Vec<u8>| bytes.resize((bytes.len() as i32 + change) as usize, 0);
        let federation = finished(in_the_clear("central"), Script::default().altering(0, PlainInput, alter));
        assert_eq!(dropped(&federation), [reason; 2]);
        assert_eq!(published(&federation.events()), [0, 1, 2]);
    }
}

#[test]
fn an_update_counts_once_and_only_while_it_is_awaited() {
    let twice = |now, message: Message| {
        let copies = if message.client == 0 && message.kind == PlainInput { 2 } else { 1 };
        vec![(now, message); copies]
    };
    // With another seed, client 0 may be the last one of the round.
    let is_last = |setup: &Setup| {
        let ids = federation(setup.clone(), Script::default());
        ids.devices().iter().max_by_key(|device| device.id()).unwrap().id() == ids.devices()[0].id()
    };
    let setups = (1..).map(|seed| Setup { seed, ..in_the_clear("local") });
    let setup = setups.into_iter().find(|setup| !is_last(setup)).unwrap();
    let federation = finished(setup, numbers().routing(twice));
    assert_eq!(dropped(&federation), ["message was already accepted from this client"; 2]);
    assert!((models(&federation)[1][0] - 1.0 / 12.0).abs() < 1e-3);

    let late = |now: Millis, message: Message| {
        let late = message.client == 0 && message.kind == PlainInput;
        vec![(Millis(now.0 + if late { 60_001 } else { 0 }), message)]
    };
    // It comes when the next round is open, and counts in neither.
    let federation = finished(in_the_clear("local"), numbers().routing(late));
    assert_eq!(dropped(&federation), ["sent no update in time"; 2]);
    assert_eq!(models(&federation)[2][0], 0.0);
    let told = federation.scenario().sent.iter().filter(|message| message.kind == Kind::Reject);
    let told: Vec<&[u8]> = told.map(|message| message.bytes.as_ref()).collect();
    assert_eq!(told[0], b"too late: an update of round 1 in round 2");
}

#[test]
fn messages_of_the_other_mode_are_refused_by_both_sides() {
    // Clients: the coordinator takes neither for the other.
    let inject = |setup: Setup, phase, kind| {
        let mut federation = federation(setup, numbers());
        assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, phase))));
        let bytes: Bytes = vec![0; 4 * PARAMETERS].into();
        federation.inject(Message { client: 0, direction: Direction::Up, kind, bytes });
        federation.run();
        assert_eq!(dropped(&federation)[0], format!("{kind:?} message in the phase {phase}"));
        assert_eq!(published(&federation.events()), [0, 1, 2]);
    };
    for phase in ["keys", "beacon", "sharing", "collecting", "consistency"] {
        inject(one_group(), phase, PlainInput);
    }
    for kind in [Kind::Advertise, Kind::Reveal, Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask] {
        inject(in_the_clear("local"), "updates", kind);
    }
    // A coordinator: whatever it sends under a plan of secure aggregation, no update leaves in the clear.
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_from_client()).chain([PlainInput]) {
        let mut federation = federation(one_group(), numbers());
        assert!(
            federation.run_until(|federation| federation.coordinator().phase() == Some((1, "collecting")))
        );
        let bytes: Bytes = vec![0; 4].into();
        federation.inject(Message { client: 0, direction: Direction::Down, kind, bytes });
        federation.run();
        for client in 0..12 {
            assert_eq!(sent_by(&mut federation, client, PlainInput), 0, "{kind:?}");
        }
    }
    for kind in [Kind::Roster, Kind::Reveals, Kind::Delivery, Kind::Survivors, Kind::Signatures] {
        let mut federation = federation(in_the_clear("local"), numbers());
        assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "updates"))));
        federation.inject(Message { client: 0, direction: Direction::Down, kind, bytes: Vec::new().into() });
        federation.run();
        let refusals = federation.devices()[0].refusals();
        assert!(matches!(refusals, [Refusal::Unexpected { .. }]), "{kind:?}: {refusals:?}");
    }
}

#[test]
fn a_plan_in_the_clear_is_refused_unless_the_owner_allows_it() {
    for placement in ["local", "central"] {
        let mut setup = in_the_clear(placement);
        setup.policy.allow_insecure_plain = false;
        let mut federation = finished(setup, numbers());
        assert_eq!(published(&federation.events()), [0], "nobody takes part");
        for client in 0..12 {
            let device = &federation.devices()[client];
            assert!(
                matches!(device.refusals(), [Refusal::Policy(PolicyRefusal::InsecurePlain)]),
                "{:?}",
                device.refusals()
            );
            assert!(device.finished().unwrap().contains("allow_insecure_plain = false"));
            assert_eq!(sent_by(&mut federation, client, Kind::Join), 0);
            assert_eq!(sent_by(&mut federation, client, PlainInput), 0);
        }
    }
}

#[test]
fn a_client_trains_once_in_a_round() {
    let trained = Arc::new(Mutex::new(Vec::new()));
    let log = trained.clone();
    let script = Script::default().contributing(move |client, round| {
        log.lock().unwrap().push((client, round));
        Ok(Contribution::Update(vec![0.01; PARAMETERS]))
    });
    let mut federation = federation(in_the_clear("local"), script);
    assert!(federation.run_until(|federation| federation.coordinator().phase() == Some((1, "updates"))));
    let open = Bytes::copy_from_slice(&1_u32.to_be_bytes());
    for _ in 0..2 {
        let message =
            Message { client: 0, direction: Direction::Down, kind: Kind::RoundOpen, bytes: open.clone() };
        federation.inject(message);
    }
    federation.run();
    let mut seen = trained.lock().unwrap().clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), trained.lock().unwrap().len(), "a round is trained for once");
    assert!(sent_by(&mut federation, 0, PlainInput) <= 2);
}

/// Correlated noise over 12 rounds, for cohorts of 3 out of 9 clients.
fn correlated(matrix: &str, bands: Option<u32>) -> Setup {
    let mut setup = central(12, 3, None);
    (setup.clients, setup.plan.cohort.minimum) = (9, 2);
    setup.plan.privacy.correlated_noise =
        Some(CorrelatedNoise { matrix: matrix.to_owned(), bands, min_separation: 3, max_participations: 2 });
    setup
}

#[test]
fn with_correlated_noise_nobody_takes_part_too_soon_or_too_often() {
    let federation = finished(correlated("toeplitz", None), sending([0; PARAMETERS]));
    assert_eq!(published(&federation.events()), (0..=12).collect::<Vec<_>>());
    let cohorts = cohorts(&federation);
    for device in federation.devices() {
        let rounds: Vec<usize> = (0..12).filter(|&round| cohorts[round].contains(&device.id())).collect();
        assert!(rounds.len() == 2, "everyone is drawn as often as may be: {rounds:?}");
        assert!(rounds[1] - rounds[0] >= 3, "{rounds:?}");
        // One loss for the whole task.
        let guarantee = &federation.coordinator().terms().guarantee;
        assert_eq!(device.participant().epsilon_spent(), guarantee.epsilon(1));
        assert_eq!(federation.coordinator().epsilon_spent(), guarantee.epsilon(12));
    }
    assert!(cohorts[..6].iter().all(|cohort| cohort.len() == 3), "three at a time, all nine in three rounds");
    // Nobody is left for the rounds after that, and their noise is released all the same.
    assert_eq!(cohorts[6..].iter().map(Vec::len).sum::<usize>(), 0);
}

#[test]
fn correlated_noise_is_that_of_the_whole_run_whatever_crashed() {
    for (matrix, bands) in [("toeplitz", None), ("banded-toeplitz", Some(3))] {
        let expected = noise(&finished(correlated(matrix, bands), sending([0; PARAMETERS])));
        let mut federation = federation(correlated(matrix, bands), sending([0; PARAMETERS]));
        let closing = |federation: &Scripted| federation.coordinator().phase() == Some((5, "closing"));
        assert!(federation.run_until(closing));
        federation.crash();
        federation.run();
        let events = federation.events();
        assert_eq!(aborted(&events), [(5, "the coordinator restarted")]);
        let found = noise(&federation);
        // Noise is drawn anew from the key for every round, the one that gave nothing included.
        assert_eq!(found[..4], expected[..4]);
        assert_eq!(found[4..], expected[5..]);
    }
}

#[test]
fn correlated_noise_is_taken_back_by_later_rounds() {
    let spread = |setup: Setup| {
        let noise = noise(&finished(setup, sending([0; PARAMETERS])));
        let total: Vec<f64> = (0..PARAMETERS).map(|at| noise.iter().map(|noise| noise[at]).sum()).collect();
        total.iter().map(|value| value * value).sum::<f64>() / PARAMETERS as f64
    };
    let mut independent = correlated("toeplitz", None);
    independent.plan.privacy.correlated_noise = None;
    independent.plan.rounds = 200;
    let mut toeplitz = correlated("toeplitz", None);
    toeplitz.plan.rounds = 200;
    // In squares of one round's independent noise: 200 of that, against 2.8 for the last row of B times 9.3 for the
    // square of the sensitivity of two participations.
    let (independent, toeplitz) = (spread(independent), spread(toeplitz));
    assert!(toeplitz < independent / 3.0, "{toeplitz}, {independent}");
}
