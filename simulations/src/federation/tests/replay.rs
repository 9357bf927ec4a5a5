//! Finished rounds, closed again from what was stored of them.

use super::*;
use fedveil_coordinator_core::{ReplayError, replay};
use fedveil_proto_plan::AdaptiveClipping;
use fedveil_provenance::{Decision, GroupDecision, Influence};

/// Three rounds of five groups, one of them poisoned, with everything that a round hands on to the next.
fn run(adaptive: bool) -> Scripted {
    let mut setup = groups_of_nine(5);
    setup.plan.rounds = 3;
    setup.plan.server.assumed_byzantine = 1;
    setup.plan.server.momentum = 0.5;
    if adaptive {
        setup.plan.server.rule = "mda".to_owned();
        setup.plan.privacy.epsilon = 1e3;
        setup.policy = Policy { max_epsilon: 1e3, ..setup.policy };
        setup.plan.privacy.adaptive_clip = Some(AdaptiveClipping {
            quantile: 0.5,
            learning_rate: 0.5,
            noise_multiplier: 0.5,
            minimum: 0.01,
            maximum: 100.0,
        });
    } else {
        setup.plan.server.rule = "centered-clipping".to_owned();
        setup.plan.server.pre = vec!["bucketing".to_owned()];
    }
    let contribute = |client: usize, round: u32| {
        if client == 5 {
            return Ok(Contribution::Update(vec![-9.0; PARAMETERS]));
        }
        Ok(Contribution::Update((0..PARAMETERS).map(|at| (at as f32 + round as f32) / 100.0).collect()))
    };
    // In round 2 a group loses two members, and is withheld.
    let vanish = move |client, round, before| adaptive && before == Kind::Shares && round == 2 && client < 4;
    finished(setup, Script::default().contributing(contribute).vanishing(vanish))
}

fn outcomes(federation: &Scripted, manifests: &[Manifest], events: &[Event]) -> Vec<Result<usize, String>> {
    let signer = federation.secrets.signing.verifying_key();
    let rounds = replay(&signer, manifests, events, federation.store()).unwrap();
    rounds.into_iter().map(|round| round.outcome.map_err(|error| error.to_string())).collect()
}

#[test]
fn a_replay_gives_every_decision_number_and_model_again() {
    for adaptive in [false, true] {
        let federation = run(adaptive);
        let events = federation.events();
        assert_eq!(published(&events), [0, 1, 2, 3]);
        let manifests = manifests(&federation);
        assert_eq!(outcomes(&federation, &manifests, &events), vec![Ok(5); 3]);
        let decisions = || manifests.iter().flat_map(|manifest| &manifest.round.groups);
        let withheld = decisions().filter(|group| group.decision == Decision::Withheld).count();
        assert_eq!(withheld > 0, adaptive);
    }
}

/// A coordinator that signs what its rule did not decide, or numbers that it did not find, is found out.
#[test]
fn a_decision_that_is_not_the_rules_is_named_by_round_and_group() {
    type Change = fn(&mut GroupDecision);

    let federation = run(true);
    let events = federation.events();
    let honest = manifests(&federation);
    let round = honest[1].round.round;
    let kept = honest[1].round.groups.iter().position(|group| group.decision == Decision::Kept).unwrap();
    let changes: [(Change, &str); 9] = [
        (
            |group| group.decision = Decision::Dropped,
            "the decision is signed as dropped, and is kept by its sums",
        ),
        (|group| group.explanation = None, "distance is signed as none, and is "),
        (|group| group.explanation.as_mut().unwrap().distance += 1.0, "distance is signed as "),
        (|group| group.explanation.as_mut().unwrap().cosine = None, "cosine is signed as none"),
        (|group| group.explanation.as_mut().unwrap().norm = 0.0, "norm is signed as 0"),
        (|group| group.explanation.as_mut().unwrap().z_score = 7.0, "z_score is signed as 7"),
        (
            |group| group.explanation.as_mut().unwrap().influence = Influence::Moves(1e3),
            "influence is signed as 1000",
        ),
        (|group| group.score = Some(-1.0), "score is signed as -1"),
        (|group| group.reason = "a hunch".to_owned(), "reason is signed as \"a hunch\""),
    ];
    for (change, text) in changes {
        let mut signed = honest.clone();
        change(&mut signed[1].round.groups[kept]);
        let found = outcomes(&federation, &signed, &events);
        let error = found[0].as_ref().unwrap_err();
        assert!(error.starts_with(&format!("round {round}, group {kept}: {text}")), "{error}");
        assert!(found[1..].iter().all(Result::is_ok), "{found:?}");
    }
    // Nor can what the coordinator went on with be other than what it signed.
    let mut stored = events.clone();
    for event in &mut stored {
        if let Event::Published { round: found, groups, .. } = event
            && *found == round
        {
            groups[kept].survivors -= 1;
        }
    }
    let error = outcomes(&federation, &honest, &stored).swap_remove(0).unwrap_err();
    assert!(error.contains("the number of survivors is signed as"), "{error}");
}

#[test]
fn what_a_manifest_says_of_its_round_follows_from_the_events() {
    type Change = fn(&mut Manifest);

    let federation = run(true);
    let events = federation.events();
    let honest = manifests(&federation);
    let changes: [(Change, &str); 6] = [
        (|manifest| manifest.model = Digest::of("another"), "the model is signed as"),
        (|manifest| manifest.round.rule = "mean".to_owned(), "the rule is signed as mean"),
        (|manifest| manifest.round.cohort_commitment = Digest::of(""), "the cohort is signed as"),
        (|manifest| manifest.round.task_digest = Digest::of(""), "the task is signed as"),
        (|manifest| drop(manifest.round.groups.pop()), "the number of decisions is signed as 4, and is 5"),
        (
            |manifest| {
                let more = manifest.round.groups[0].clone();
                manifest.round.groups.push(GroupDecision { index: 5, ..more });
            },
            "",
        ),
    ];
    for (change, text) in changes {
        let mut signed = honest.clone();
        change(&mut signed[1]);
        let error = outcomes(&federation, &signed, &events).swap_remove(0).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
    let signer = federation.secrets.signing.verifying_key();
    let few = replay(&signer, &honest[1..], &events, federation.store());
    assert!(matches!(few, Err(ReplayError::Published { .. })));
    let nothing = replay(&signer, &honest, &events[1..], federation.store());
    assert!(matches!(nothing, Err(ReplayError::NoTask)));
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key();
    assert!(matches!(replay(&other, &honest, &events, federation.store()), Err(ReplayError::Plan(_))));
}

/// Sums of another length, of numbers that no rule takes, or that are not there, are errors and no panic.
#[test]
fn a_sum_that_was_changed_is_refused() {
    let federation = run(true);
    let honest = manifests(&federation);
    for (bytes, text) in
        [(vec![0; 8], "a group's sum has 8 bytes"), (vec![0x7f; 8 * (PARAMETERS + 1)], "group ")]
    {
        let digest = federation
            .store()
            .append(&[], std::slice::from_ref(&bytes))
            .map(|()| Digest::of(&bytes))
            .unwrap();
        let mut events = federation.events();
        let sum = events.iter_mut().find_map(|event| match event {
            Event::GroupSummed { sum, .. } => Some(sum),
            _ => None,
        });
        *sum.unwrap() = digest;
        let error = outcomes(&federation, &honest, &events).swap_remove(0).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
    let mut events = federation.events();
    for event in &mut events {
        if let Event::GroupSummed { sum, .. } = event {
            *sum = Digest::of("nowhere");
        }
    }
    let found = outcomes(&federation, &honest, &events);
    assert!(
        found.iter().all(|round| round.as_ref().is_err_and(|error| error.contains("no blob"))),
        "{found:?}"
    );
}

#[test]
fn updates_in_the_clear_leave_nothing_to_replay() {
    let federation = finished(plain::in_the_clear("local"), Script::default());
    let signer = federation.secrets.signing.verifying_key();
    let nothing = replay(&signer, &manifests(&federation), &federation.events(), federation.store());
    assert!(matches!(nothing, Err(ReplayError::NoSums)));
}
