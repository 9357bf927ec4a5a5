//! What each mode and placement asks of a plan, and what it refuses.

use super::*;

#[test]
fn a_plan_in_the_clear_has_rows_of_clients_and_no_session() {
    let plan = plan_in_the_clear();
    let terms = plan.check().unwrap();
    assert_eq!(
        (terms.mode, terms.groups, terms.largest_group, terms.colluders_to_break),
        (Mode::InsecurePlain, 0, 1, 0)
    );
    assert_eq!(terms.break_probability_log2, 0.0, "the coordinator sees updates with certainty");
    assert!(terms.warning().unwrap().contains("INSECURE"));
    assert!(self::plan().check().unwrap().warning().is_none());
    let signed = SignedPlan::sign(plan.clone(), &key()).unwrap();
    let session = terms.session(&signed, &key().verifying_key(), 1, &Digest::of("model"));
    assert!(session.unwrap_err().to_string().contains("no session of secure aggregation"));

    // One loss for each participation, for each round, or for the task.
    let full = terms.guarantee;
    let poisson =
        TaskPlan { cohort: Cohort { population: Some(120), ..plan.cohort.clone() }, ..plan.clone() };
    let poisson = poisson.check().unwrap();
    assert_eq!(poisson.minimum_rows, 0, "nothing depends on who was drawn");
    assert!(poisson.guarantee.epsilon(2) < 0.5 * full.epsilon(2));
    let mut whole = plan;
    whole.privacy.correlated_noise = Some(correlated());
    let whole = whole.check().unwrap().guarantee;
    assert_eq!(whole.epsilon(1), whole.epsilon(2));
    assert!((whole.epsilon(1) / full.epsilon(1) - 1.0).abs() < 1e-3);

    // Rules that go by the rows alone; each client is one of them.
    let mut robust = plan_in_the_clear();
    robust.privacy.placement = "local".to_owned();
    (robust.server.rule, robust.server.assumed_byzantine) = ("foolsgold".to_owned(), 3);
    assert_eq!(robust.check().unwrap().minimum_rows, 4);
    let terms = robust.check().unwrap();
    assert_eq!((terms.borne, terms.borne_mostly, terms.too_many_poisoned), (3, 3, 0.0));
    robust.server.rule = "trimmed-mean".to_owned();
    assert_eq!(robust.check().unwrap().minimum_rows, 7);
}

#[test]
fn what_only_makes_sense_in_one_mode_is_refused_in_the_other_with_the_reason() {
    type Case = (fn(&mut TaskPlan), &'static str);
    let clear: [Case; 18] = [
        (|plan| plan.aggregation = self::plan().aggregation, "aggregation promises masks"),
        (
            |plan| plan.aggregation.min_survivors = 8,
            "accepted are protocol and masks \"none\" and 0 for the rest",
        ),
        (
            |plan| plan.privacy.placement = "distributed".into(),
            "accepted is local, central, insecure_none (distributed noise hides",
        ),
        (|plan| plan.server.rule = "fltrust".into(), "server.rule is fltrust, accepted is mean, median"),
        (|plan| plan.server.rule = "monna".into(), "server.rule is monna, accepted is mean, median"),
        (
            |plan| plan.server.rule = "median".into(),
            "server.rule is median, accepted is mean (the noise of placement",
        ),
        (
            |plan| {
                (plan.privacy.placement, plan.server.rule, plan.server.assumed_byzantine) =
                    ("local".into(), "krum".into(), 5);
            },
            "server.rule krum bears 5 poisoned clients only among 13 or more, and cohort.minimum is 10",
        ),
        (
            |plan| {
                (plan.privacy.placement, plan.server.rule) = ("local".into(), "median".into());
                plan.cohort.clients = MAX_ROWS + 1;
            },
            "cohort.clients is 2001, accepted is 2 to 2000",
        ),
        (|plan| plan.cohort.population = Some(11), "cohort.population is 11, accepted is 12 to 20000"),
        (
            |plan| (plan.cohort.population, plan.privacy.delta) = (Some(20_000), 1e-4),
            "privacy.delta is 0.0001, accepted is a number above 0, at most 1/20000 (one in cohort.population)",
        ),
        (
            |plan| (plan.privacy.placement, plan.cohort.population) = ("local".into(), Some(20)),
            "cohort.population amplifies privacy only in placement central",
        ),
        (
            |plan| {
                plan.privacy.placement = "local".into();
                plan.privacy.correlated_noise = Some(correlated());
            },
            "privacy.correlated_noise wants privacy.placement central",
        ),
        (
            |plan| (plan.cohort.population, plan.privacy.correlated_noise) = (Some(20), Some(correlated())),
            "privacy.correlated_noise has no amplification by sampling",
        ),
        (
            |plan| {
                plan.privacy.correlated_noise =
                    Some(CorrelatedNoise { matrix: "identity".into(), ..correlated() });
            },
            "privacy.correlated_noise.matrix is identity, accepted is toeplitz, banded-toeplitz",
        ),
        (
            |plan| plan.privacy.correlated_noise = Some(CorrelatedNoise { bands: None, ..correlated() }),
            "privacy.correlated_noise.bands is left out, accepted is 1 to 2 with matrix banded-toeplitz",
        ),
        (
            |plan| plan.privacy.correlated_noise = Some(CorrelatedNoise { bands: Some(3), ..correlated() }),
            "privacy.correlated_noise.bands is 3, accepted is 1 to 2",
        ),
        (
            |plan| {
                plan.privacy.correlated_noise = Some(CorrelatedNoise { min_separation: 0, ..correlated() });
            },
            "privacy.correlated_noise.min_separation is 0, accepted is 1 to 2",
        ),
        (
            |plan| {
                plan.privacy.mechanism = "skellam".into();
                plan.privacy.correlated_noise = Some(correlated());
            },
            "mechanism is skellam, accepted with correlated noise is discrete-gaussian",
        ),
    ];
    for (change, expected) in clear {
        let mut plan = plan_in_the_clear();
        change(&mut plan);
        let found = plan.check().expect_err(expected).to_string();
        assert!(found.contains(expected), "{found}, expected: {expected}");
    }
    let groups: [Case; 4] = [
        (
            |plan| plan.privacy.placement = "central".into(),
            "accepted is distributed, local (central wants mode insecure_plain",
        ),
        (
            |plan| plan.cohort.population = Some(20),
            "cohort.population amplifies privacy only where nobody is told",
        ),
        (
            |plan| plan.privacy.correlated_noise = Some(correlated()),
            "privacy.correlated_noise wants privacy.placement central",
        ),
        (|plan| plan.aggregation = Aggregation::none(), "aggregation.group_size is 0"),
    ];
    for (change, expected) in groups {
        let found = refusal(change);
        assert!(found.contains(expected), "{found}, expected: {expected}");
    }
}

#[test]
fn an_adaptive_clip_norm_is_for_secure_aggregation_alone() {
    let mut refused = plan_in_the_clear();
    refused.privacy.adaptive_clip = Some(adaptive_clip());
    let error = refused.check().unwrap_err().to_string();
    assert!(
        error.contains("privacy.adaptive_clip is a section, accepted is nothing but in mode secagg"),
        "{error}"
    );
}

#[test]
fn a_plan_without_noise_promises_nothing_and_says_so() {
    for clip_norm in [f64::INFINITY, 0.5] {
        let plan = plan_without_noise(clip_norm);
        let terms = plan.check().unwrap();
        assert!(!terms.guarantee.has_noise());
        assert_eq!(terms.guarantee.grid.clip().get(), clip_norm);
        assert_eq!(
            [0, 1, 2].map(|rounds| terms.guarantee.epsilon(rounds)),
            [0.0, f64::INFINITY, f64::INFINITY]
        );
        assert_eq!(terms.affordable_rounds, plan.rounds);
        let warning = terms.warning().unwrap();
        assert!(warning.contains("insecure_none") && warning.contains("epsilon is infinite"), "{warning}");
        let claim = terms.privacy_claim(&plan, f64::INFINITY);
        let words = [&claim.unit, &claim.neighbours, &claim.accountant, &claim.mechanism];
        assert_eq!(words, ["none"; 4]);
        assert_eq!((claim.placement.as_str(), claim.noise_multiplier), ("insecure_none", 0.0));
        // A coordinator may have charged nobody, or somebody everything.
        let may = |epsilon, rounds| terms.can_have_spent(epsilon, rounds);
        assert!(may(0.0, 0) && may(0.0, 1) && may(f64::INFINITY, 1));
        assert!(!may(f64::INFINITY, 0) && !may(3.0, 1));
    }
    // Golden: JSON has no infinity, and `null` stands for it.
    let text = serde_json::to_string(&plan_without_noise(f64::INFINITY)).unwrap();
    let section = r#""privacy":{"placement":"insecure_none","mechanism":"none","clip_norm":null,"noise_multiplier":0.0,"resolution":0,"epsilon":null,"delta":0.00001}"#;
    assert!(text.contains(section), "{text}");
    assert_eq!(serde_json::from_str::<TaskPlan>(&text).unwrap(), plan_without_noise(f64::INFINITY));
}

#[test]
fn a_plan_without_noise_is_for_the_clear_alone_and_promises_no_noise() {
    type Case = (fn(&mut TaskPlan), &'static str);
    let cases: [Case; 10] = [
        (
            |plan| {
                *plan = TaskPlan { privacy: Privacy::none(1.0), ..self::plan() };
            },
            "privacy.placement is insecure_none, accepted is distributed, local (insecure_none wants mode",
        ),
        (|plan| plan.privacy.mechanism = "discrete-gaussian".into(), "privacy promises noise that placement"),
        (|plan| plan.privacy.noise_multiplier = 1.0, "privacy promises noise"),
        (|plan| plan.privacy.resolution = 1024, "privacy promises noise"),
        (|plan| plan.privacy.epsilon = 15.0, "privacy promises noise"),
        (
            |plan| plan.privacy.clip_norm = 0.0,
            "privacy.clip_norm is 0, accepted is a number from 1e-12 to 1e12, or infinite",
        ),
        (|plan| plan.privacy.clip_norm = f64::NAN, "privacy promises noise"),
        (|plan| plan.cohort.population = Some(20), "without noise there is none"),
        (|plan| plan.privacy.correlated_noise = Some(correlated()), "privacy.correlated_noise wants"),
        (|plan| plan.privacy.placement = "central".into(), "privacy.clip_norm is inf, accepted is a number"),
    ];
    for (change, expected) in cases {
        let mut plan = plan_without_noise(f64::INFINITY);
        change(&mut plan);
        let found = plan.check().expect_err(expected).to_string();
        assert!(found.contains(expected), "{found}, expected: {expected}");
    }
    let infinite = refusal(|plan| plan.privacy.epsilon = f64::INFINITY);
    assert!(infinite.contains("privacy.epsilon is inf, accepted is a finite number"), "{infinite}");
}
