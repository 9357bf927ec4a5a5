//! Rounds that end well, rounds that lose clients, and what they cost.

use super::*;
use fedveil_provenance::{Decision, Explanation, Influence, NoInfluence};

const STEPS_OF_A_ROUND: [Kind; 6] =
    [Kind::Advertise, Kind::Reveal, Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask];

#[test]
fn a_task_trains_and_every_client_holds_the_verified_model() {
    let federation = finished(groups_of_nine(3), Script::default());
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2]);
    assert_eq!(end(&events), "all 2 rounds are done");
    let model = federation.coordinator().model().unwrap();
    for device in federation.devices() {
        assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        assert_eq!(device.finished(), Some("all 2 rounds are done"));
        let (round, file) = device.model().unwrap();
        assert_eq!((round, Digest::of(file)), (2, model));
        model_file::from_safetensors(file).unwrap();
        assert_eq!(device.participant().epsilon_spent(), federation.coordinator().epsilon_spent());
    }
    assert_eq!(federation.now().0, 0, "nobody was waited for");
}

#[test]
fn the_model_moves_by_the_mean_of_the_group_means() {
    let federation = finished(groups_of_nine(2), Script::unit_vectors());
    // Each coordinate of 18 holds one step in one of two groups of nine; two rounds.
    let sum: Vec<i64> = (0..PARAMETERS).map(|at| i64::from(at < 18)).collect();
    moved_by(&federation, &sum, 2.0 * 9.0);
}

/// Checks that two rounds moved the model, which began at zero, by `sum` over `divisor` each.
fn moved_by(federation: &Scripted, sum: &[i64], divisor: f64) {
    let rounds = [1, 2].map(|round| rotated_back(federation, round, sum));
    let (_, parameters) = model_file::from_safetensors(federation.devices()[0].model().unwrap().1).unwrap();
    for (coordinate, value) in parameters.into_iter().enumerate() {
        let expected = (rounds[0][coordinate] + rounds[1][coordinate]) / divisor;
        let close =
            (f64::from(value) - expected).abs() <= 1e-6 * rounds[0].iter().map(|x| x.abs()).sum::<f64>();
        assert!(close, "coordinate {coordinate}: {value}, {expected}");
    }
}

#[test]
fn equal_seeds_give_equal_events_byte_for_byte_and_others_do_not() {
    let history = |seed| {
        let federation = finished(Setup { seed, ..groups_of_nine(2) }, Script::default());
        let model = federation.devices()[0].model().unwrap().1.to_vec();
        (serde_json::to_vec(&federation.events()).unwrap(), model)
    };
    let (events, model) = history(7);
    assert!(history(7) == (events.clone(), model.clone()), "seed 7 gave two histories");
    let (other_events, other_model) = history(8);
    assert!(events != other_events && model != other_model, "seeds 7 and 8 gave one history");
}

#[test]
fn every_survivor_is_in_one_sum_once_and_nobody_else_is_in_any() {
    let vanish = |client, round, before| match before {
        Kind::Shares => client == 3 && round == 1,
        Kind::Input => client == 7,
        Kind::Consistency => client == 11 && round == 2,
        _ => false,
    };
    let setup = groups_of_nine(3);
    let federation = finished(setup, Script::unit_vectors().vanishing(vanish));
    let charged = charges(&federation.events());
    let sums = sums(&federation);
    assert!(sums.len() >= 4, "{} sums", sums.len());
    for (group, sum) in sums {
        let expected: Vec<i64> = (0..PARAMETERS)
            .map(|client| charged[&group].contains(&federation.devices()[client].id()).into())
            .collect();
        assert_eq!(sum, expected, "round and group {group:?}");
        assert_eq!(sum[7], 0, "client 7 vanished before its input");
        if group.0 == 1 {
            assert_eq!(sum[3], 0, "client 3 shared nothing");
        }
    }
}

#[test]
fn every_protocol_and_every_graph_gives_the_plain_sums() {
    for (protocol, degree) in
        [("pairwise-mask", 64), ("rlwe-two-layer", 64), ("pairwise-mask", 10), ("rlwe-two-layer", 10)]
    {
        let mut setup = one_group();
        protocol.clone_into(&mut setup.plan.aggregation.protocol);
        setup.plan.aggregation.degree = degree;
        let vanish = |client, round, before| before == Kind::Input && client == 4 && round == 2;
        let federation = finished(setup, Script::unit_vectors().vanishing(vanish));
        assert_eq!(published(&federation.events()), [0, 1, 2], "{protocol}, degree {degree}");
        let sums = sums(&federation);
        let all: Vec<i64> = (0..PARAMETERS).map(|at| i64::from(at < 12)).collect();
        assert_eq!(sums[&(1, 0)], all, "{protocol}, degree {degree}");
        let without: Vec<i64> = (0..PARAMETERS).map(|at| i64::from(at < 12 && at != 4)).collect();
        assert_eq!(sums[&(2, 0)], without, "{protocol}, degree {degree}");
    }
}

#[test]
fn sums_are_the_plain_sums_and_the_noise_of_their_placement_and_mechanism() {
    // Norm 1, which is the clip, in 410 coordinates of which one stands out.
    let update: Vec<f32> = (0..410).map(|at| if at == 7 { 0.8 } else { 0.6 / 409f32.sqrt() }).collect();
    for (placement, mechanism) in [
        ("distributed", "discrete-gaussian"),
        ("distributed", "skellam"),
        ("local", "discrete-gaussian"),
        ("local", "skellam"),
    ] {
        let mut setup = one_group();
        setup.plan.model = Model { architecture: "softmax:40x10".to_owned(), parameters: 410 };
        placement.clone_into(&mut setup.plan.privacy.placement);
        mechanism.clone_into(&mut setup.plan.privacy.mechanism);
        // Little enough noise that a sum which was not rotated back would not pass.
        (setup.plan.privacy.noise_multiplier, setup.plan.privacy.resolution) = (0.3, 64);
        (setup.plan.privacy.epsilon, setup.policy.max_epsilon) = (1e3, 1e3);
        let honest = update.clone();
        let script = Script::default().contributing(move |_, _| Ok(Contribution::Update(honest.clone())));
        let vanish = |client, round, before| before == Kind::Input && client == 4 && round == 2;
        let federation = finished(setup, script.vanishing(vanish));
        let guarantee = &federation.coordinator().terms().guarantee;
        assert_eq!(
            (guarantee.placement.to_string(), guarantee.noise.to_string()),
            (placement.into(), mechanism.into())
        );
        for ((round, _), sum) in sums(&federation) {
            let members = if round == 1 { 12.0 } else { 11.0 };
            let noise: f64 = rotated_back(&federation, round, &sum)
                .iter()
                .zip(&update)
                .map(|(sum, &own)| ((sum - members * f64::from(own)) * guarantee.grid.scale()).powi(2))
                .sum();
            // Rounding varies by a quarter of a step² at most.
            let (low, high) =
                (members * guarantee.share.get() as f64, members * (guarantee.share.get() as f64 + 0.25));
            let spread = 5.0 * (2.0 / 410f64).sqrt();
            assert!(
                noise / 410.0 > low * (1.0 - spread) && noise / 410.0 < high * (1.0 + spread),
                "{placement} {mechanism}, round {round}: {} for {low} to {high}",
                noise / 410.0
            );
        }
    }
}

#[test]
fn a_round_bears_drop_outs_before_every_message() {
    for (kind, bearable) in STEPS_OF_A_ROUND.into_iter().zip([2, 1, 4, 4, 4, 4]) {
        let vanish = move |client, round, before| before == kind && client < bearable && round == 1;
        let federation = finished(one_group(), Script::unit_vectors().vanishing(vanish));
        assert_eq!(published(&federation.events()), [0, 1, 2], "{bearable} vanished before {kind:?}");
        let sums = sums(&federation);
        let total: i64 = sums[&(1, 0)].iter().sum();
        let in_time = if kind > Kind::Input { 12 } else { 12 - bearable as i64 };
        assert_eq!(total, in_time, "{bearable} vanished before {kind:?}");
        assert_eq!(sums[&(2, 0)].iter().sum::<i64>(), 12, "who came back takes part again");
    }
}

#[test]
fn a_client_that_only_falls_silent_is_waited_for_until_the_deadline() {
    let lose = |now, message: Message| {
        let lost = message.client == 0 && message.kind == Kind::Input;
        if lost { Vec::new() } else { vec![(now, message)] }
    };
    let federation = finished(one_group(), Script::unit_vectors().routing(lose));
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    assert_eq!(sums(&federation)[&(1, 0)][0], 0);
    // The full cohort joined at once; only the collecting phases ran to their end, 60 seconds each.
    assert_eq!(federation.now(), Millis(120_000));
    let reason = "did not answer in time (collecting)";
    let dropped =
        |event: &&Event| matches!(event, Event::ClientDropped { reason: found, .. } if found == reason);
    assert_eq!(federation.events().iter().filter(dropped).count(), 2);
}

#[test]
fn too_many_drop_outs_give_no_sum_and_cost_only_what_reached_unmasking() {
    let reasons = [
        (Kind::Advertise, 3, "cohort has 9 clients, it takes 10"),
        (Kind::Reveal, 2, "2 reveals are missing, clients accept 1"),
        (Kind::Shares, 5, "0 of 1 groups gave a sum, the rule mean needs 1"),
        (Kind::Input, 5, "0 of 1 groups gave a sum, the rule mean needs 1"),
        (Kind::Consistency, 5, "0 of 1 groups gave a sum, the rule mean needs 1"),
        (Kind::Unmask, 5, "0 of 1 groups gave a sum, the rule mean needs 1"),
    ];
    for (kind, lost, reason) in reasons {
        let vanish = move |client, round, before| before == kind && client < lost && round == 1;
        let federation = finished(one_group(), Script::unit_vectors().vanishing(vanish));
        let events = federation.events();
        assert_eq!(aborted(&events), [(1, reason)], "{lost} vanished before {kind:?}");
        assert_eq!(published(&events), [0, 2], "{lost} vanished before {kind:?}");
        let charged: Vec<_> = charges(&events).into_keys().collect();
        let expected: &[(u32, u32)] = if kind == Kind::Unmask { &[(1, 0), (2, 0)] } else { &[(2, 0)] };
        assert_eq!(charged, expected, "{lost} vanished before {kind:?}");
        assert!(!sums(&federation).contains_key(&(1, 0)));
    }
}

#[test]
fn a_withheld_group_leaves_the_others_alone() {
    // Of three that vanish before their input, two are in one of the two groups, which bears one.
    let vanish = |client, round, before| before == Kind::Input && client < 3 && round == 1;
    let federation = finished(groups_of_nine(2), Script::unit_vectors().vanishing(vanish));
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2]);
    let sums = sums(&federation);
    let of_round_1: Vec<_> = sums.keys().filter(|(round, _)| *round == 1).collect();
    assert_eq!(of_round_1.len(), 1);
    let charged: Vec<_> = charges(&events).into_keys().collect();
    assert_eq!(charged, sums.into_keys().collect::<Vec<_>>(), "who is not in a sum is not charged");
    let Some(Event::Published { groups, .. }) =
        events.iter().find(|event| matches!(event, Event::Published { round: 1, .. }))
    else {
        panic!("round 1 was published")
    };
    let withheld: Vec<_> = groups.iter().filter(|group| group.decision == Decision::Withheld).collect();
    assert_eq!(withheld.len(), 1);
    assert!(withheld[0].reason.contains("members submitted, it takes 8"), "{}", withheld[0].reason);
}

#[test]
fn a_robust_rule_runs_on_the_group_means() {
    let mut setup = groups_of_nine(3);
    setup.plan.server.rule = "mda".to_owned();
    setup.plan.server.assumed_byzantine = 1;
    let poisoned = |client: usize, _| {
        let value = if client == 5 { 1 << 15 } else { 1 };
        Ok(Contribution::DangerUnbounded(vec![value; PARAMETERS]))
    };
    let federation = finished(setup, Script::default().contributing(poisoned));
    let dropped = |event: &Event| match event {
        Event::Published { round: 1.., groups, .. } => {
            Some(groups.iter().filter(|group| group.decision == Decision::Dropped).count())
        }
        _ => None,
    };
    assert_eq!(federation.events().iter().filter_map(dropped).collect::<Vec<_>>(), [1, 1]);
    // Every other group's mean is one step in each coordinate.
    moved_by(&federation, &[1; PARAMETERS], 1.0);
    for manifest in &manifests(&federation)[1..] {
        for group in &manifest.round.groups {
            let Explanation { cosine, z_score, influence, .. } = group.explanation.unwrap();
            if group.decision == Decision::Kept {
                assert_eq!((group.reason.as_str(), z_score.abs() < 2.0), ("", true), "{group:?}");
            } else {
                assert!(group.reason.contains("deviations above the median of 3 groups"), "{group:?}");
                // So large a value wraps, and points back.
                assert!(z_score > 2.0 && cosine.is_some_and(|cosine| cosine < -0.99), "{group:?}");
            }
            // Three groups bear one poisoned one, and two would not.
            assert_eq!(influence, Influence::Unknown(NoInfluence::TooFewRows));
        }
    }
}

#[test]
fn pre_aggregators_compose_with_a_rule_on_the_group_means() {
    let composed = |pre: &[&str]| {
        let mut setup = groups_of_nine(5);
        setup.plan.server.rule = "trimmed-mean".to_owned();
        setup.plan.server.pre = pre.iter().map(|name| (*name).to_owned()).collect();
        setup.plan.server.assumed_byzantine = 1;
        let poisoned = |client: usize, _| {
            let value = if client == 5 { 1 << 15 } else { 1 };
            Ok(Contribution::DangerUnbounded(vec![value; PARAMETERS]))
        };
        finished(setup, Script::default().contributing(poisoned))
    };
    for pre in [&["clip", "nnm"][..], &["bucketing"]] {
        let federation = composed(pre);
        let named = format!("{}+trimmed-mean", pre.join("+"));
        let rules: BTreeSet<String> = manifests(&federation).into_iter().map(|m| m.round.rule).collect();
        assert_eq!(rules, BTreeSet::from([named.clone()]));
        if pre != ["bucketing"] {
            // The poisoned row is mixed from clean ones and itself; every clean one is as before.
            moved_by(&federation, &[1; PARAMETERS], 1.0);
        }
        // What is drawn follows from the transcript.
        let histories =
            [federation, composed(pre)].map(|federation| serde_json::to_vec(&federation.events()).unwrap());
        assert!(histories[0] == histories[1], "{named}: one seed gave two histories");
    }
}

#[test]
fn a_rule_with_a_memory_starts_where_it_ended() {
    let mut setup = groups_of_nine(2);
    // Every row is one step in each coordinate, and half as far is gone at once.
    let step = setup.plan.privacy.clip_norm / f64::from(setup.plan.privacy.resolution);
    let tau = step * (PARAMETERS as f64).sqrt() / 2.0;
    setup.plan.server.rule = "centered-clipping".to_owned();
    setup.plan.server.options.insert("tau".to_owned(), Setting::Number(tau));
    let ones = |_, _| Ok(Contribution::DangerUnbounded(vec![1; PARAMETERS]));
    let federation = finished(setup, Script::default().contributing(ones));
    let rows = [1, 2].map(|round| rotated_back(&federation, round, &[1; PARAMETERS]));
    let norm = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut center = vec![0.0; PARAMETERS];
    let mut moved = vec![0.0; PARAMETERS];
    for row in &rows {
        let difference: Vec<f64> = row.iter().zip(&center).map(|(row, center)| row - center).collect();
        let factor = (tau / norm(&difference)).min(1.0);
        for ((center, moved), difference) in center.iter_mut().zip(&mut moved).zip(difference) {
            *center += factor * difference;
            *moved += *center;
        }
    }
    let (_, parameters) = model_file::from_safetensors(federation.devices()[0].model().unwrap().1).unwrap();
    for (value, moved) in parameters.into_iter().zip(&moved) {
        assert!((f64::from(value) - moved).abs() <= 1e-5 * tau, "{value}, expected {moved}");
    }
    let forgetful: Vec<f64> =
        rows[0].iter().zip(&rows[1]).map(|(a, b)| tau * (a / norm(&rows[0]) + b / norm(&rows[1]))).collect();
    let apart: Vec<f64> = moved.iter().zip(&forgetful).map(|(a, b)| a - b).collect();
    assert!(norm(&apart) > 0.1 * tau, "a start at zero would have given the same");
}

#[test]
fn nobody_is_asked_to_unmask_before_the_charge_is_durable() {
    let mut federation = federation(groups_of_nine(3), Script::default());
    let mut seen = 0;
    let mut asked = 0;
    while federation.step() {
        let events = federation.events();
        let charged = charges(&events);
        let round = by_round(&events).last().map_or(0, |(round, _)| *round);
        let sent = federation.scenario_mut().sent.split_off(seen);
        for message in sent.iter().filter(|message| message.kind == Kind::Signatures) {
            let client = federation.devices()[message.client].id();
            let is_charged =
                charged.iter().any(|((of, _), clients)| *of == round && clients.contains(&client));
            assert!(is_charged, "client {} was asked to unmask without a charge", message.client);
            asked += 1;
        }
        federation.scenario_mut().sent.extend(sent);
        seen = federation.scenario().sent.len();
    }
    assert_eq!(asked, 2 * 27);
}

/// A setup whose ε pays for `affordable` of 10 rounds.
fn affording(affordable: u32) -> Setup {
    let mut setup = one_group();
    setup.plan.rounds = 10;
    let guarantee = setup.plan.check().unwrap().guarantee;
    setup.plan.privacy.epsilon =
        f64::midpoint(guarantee.epsilon(affordable), guarantee.epsilon(affordable + 1));
    assert_eq!(setup.plan.check().unwrap().affordable_rounds, affordable);
    setup
}

#[test]
fn the_task_stops_before_it_would_pass_its_privacy_budget() {
    let setup = affording(2);
    let budget = setup.plan.privacy.epsilon;
    let federation = finished(setup, Script::default());
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2]);
    assert!(
        end(&events).starts_with("one more round would pass the privacy budget epsilon"),
        "{}",
        end(&events)
    );
    let spent = federation.coordinator().epsilon_spent();
    assert!(spent > 0.0 && spent <= budget, "{spent} of {budget}");
    for device in federation.devices() {
        assert_eq!(device.participant().epsilon_spent(), spent);
    }
}

#[test]
fn the_task_stops_when_too_few_can_pay_though_some_still_can() {
    let vanish = |client, round, before| before == Kind::Input && client < 2 && round == 1;
    let federation = finished(affording(2), Script::default().vanishing(vanish));
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2]);
    assert!(end(&events).starts_with("one more round would pass the privacy budget"), "{}", end(&events));
}

#[test]
fn a_client_that_has_spent_its_budget_declines_whatever_the_coordinator_thinks() {
    // Everyone submits in round 1, and too few sign: the clients have charged themselves, the coordinator charged nobody.
    let vanish = |client, round, before| before == Kind::Consistency && client < 5 && round == 1;
    let mut federation = finished(affording(1), Script::default().vanishing(vanish));
    assert!(charges(&federation.events()).is_empty());
    assert_eq!(federation.coordinator().epsilon_spent(), 0.0);
    for client in 0..12 {
        assert_eq!(sent_by(&mut federation, client, Kind::Input), 1);
        assert_eq!(sent_by(&mut federation, client, Kind::Advertise), 1);
        let declines = declines(&mut federation, client);
        assert_eq!(declines.len(), 9, "every later round is declined");
        assert!(declines[0].contains("would pass the privacy budget"), "{}", declines[0]);
    }
}

#[test]
fn a_client_that_missed_rounds_catches_up_in_order() {
    let mut setup = one_group();
    setup.plan.rounds = 4;
    let mut federation = federation(setup, Script::default());
    assert!(federation.run_until(|federation| published(&federation.events()).contains(&1)));
    assert!(
        federation
            .run_until(|federation| federation.devices()[11].model().is_some_and(|(round, _)| round == 1))
    );
    federation.disconnect(11);
    assert!(federation.run_until(|federation| published(&federation.events()).contains(&3)));
    let before = federation.scenario().sent.len();
    federation.connect(11);
    federation.run();
    let is_for_it = |message: &&Message| (message.client, message.direction) == (11, Direction::Down);
    let kinds: Vec<Kind> = federation.scenario().sent[before..]
        .iter()
        .filter(is_for_it)
        .map(|message| message.kind)
        .take(4)
        .collect();
    assert_eq!(kinds, [Kind::Plan, Kind::Publication, Kind::Publication, Kind::Model]);
    let device = &federation.devices()[11];
    assert!(device.refusals().is_empty(), "{:?}", device.refusals());
    assert_eq!(device.model().unwrap().0, 4);
    let record = device.record().tasks.values().next().unwrap();
    assert_eq!(record.head.unwrap().log, federation.coordinator().log().head());
}

#[test]
fn a_newcomer_starts_with_the_newest_model() {
    let mut federation = federation(one_group(), Script::default());
    federation.disconnect(11);
    assert!(federation.run_until(|federation| published(&federation.events()).contains(&1)));
    federation.connect(11);
    assert!(federation.run_until(|federation| federation.devices()[11].model().is_some()));
    assert_eq!(federation.devices()[11].model().unwrap().0, 1);
    assert!(federation.now() > Millis(0), "the first round waited for a full cohort");
}

#[test]
fn a_contribution_that_is_no_update_is_declined_and_the_round_goes_on() {
    let contribute = |client: usize, _| match client {
        0 => Ok(Contribution::Update(vec![f32::NAN; PARAMETERS])),
        1 => Ok(Contribution::Update(vec![0.0; PARAMETERS + 1])),
        2 => Err("the disk is full".to_owned()),
        3 => Ok(Contribution::DangerUnbounded(vec![1; 3])),
        _ => Ok(Contribution::Update(vec![0.0; PARAMETERS])),
    };
    let mut federation = finished(one_group(), Script::default().contributing(contribute));
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    let expected = [
        "local update: coordinate 0 of the update is not finite",
        "local update: 28 values, the model has 27",
        "local update: the disk is full",
        "refused the round: input has 3 elements, the session's vectors have 27",
    ];
    for (client, expected) in expected.into_iter().enumerate() {
        assert_eq!(declines(&mut federation, client), [expected, expected]);
        assert_eq!(sent_by(&mut federation, client, Kind::Input), 0);
        assert_eq!(federation.devices()[client].participant().epsilon_spent(), 0.0, "nothing was spent");
    }
}

#[test]
fn slow_and_uneven_links_change_the_time_and_not_the_sums() {
    let delay = |now: Millis, message: Message| {
        let arrival = Millis(now.0 + 7 * (message.client as u64 * 5 % 11) + 1);
        vec![(arrival, message)]
    };
    let federation = finished(one_group(), Script::unit_vectors().routing(delay));
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    assert!(sums(&federation).values().all(|sum| sum.iter().sum::<i64>() == 12));
    assert!(federation.now() > Millis(100) && federation.now() < Millis(10_000), "{:?}", federation.now());
}

#[test]
fn every_message_fits_the_limits_that_transports_enforce() {
    let vanish = |client, round, before| before == Kind::Input && client == 2 && round == 1;
    let federation = finished(groups_of_nine(3), Script::default().vanishing(vanish));
    let up = federation.coordinator().message_limits();
    let down = federation.devices()[0].participant().message_limits().unwrap();
    let mut kinds = BTreeSet::new();
    for message in &federation.scenario().sent {
        let limit = match message.direction {
            Direction::Up => up(message.kind),
            Direction::Down => down.of(message.kind),
        };
        assert!(
            message.bytes.len() <= limit,
            "{:?} of {} bytes, at most {limit}",
            message.kind,
            message.bytes.len()
        );
        kinds.insert(message.kind);
    }
    assert_eq!(kinds.len(), 17, "{kinds:?}");
}
