//! Plans that hold, and the reason why each other one does not.

use super::*;
use fedveil_privacy::{Composition, Neighbours, Sampling};

/// 12 clients in one group; every test starts from it.
fn plan() -> TaskPlan {
    TaskPlan {
        version: VERSION,
        task: "test".to_owned(),
        id: Digest::of("test"),
        mode: "secagg".to_owned(),
        rounds: 2,
        phase_seconds: 60,
        model: Model { architecture: "softmax:8x3".to_owned(), parameters: 27 },
        cohort: Cohort { clients: 12, minimum: 10, assumed_malicious: 1, population: None },
        training: Training::sgd(1, 8, 0.1),
        privacy: Privacy {
            placement: "distributed".to_owned(),
            mechanism: "discrete-gaussian".to_owned(),
            clip_norm: 1.0,
            noise_multiplier: 1.5,
            resolution: 1024,
            epsilon: 15.0,
            delta: 1e-5,
            correlated_noise: None,
            adaptive_clip: None,
        },
        aggregation: Aggregation {
            protocol: "pairwise-mask".to_owned(),
            group_size: 9,
            degree: 64,
            threshold: 7,
            min_survivors: 8,
            max_missing_reveals: 1,
            masks: "chacha20".to_owned(),
            break_probability: 0.0,
        },
        server: Server {
            rule: "mean".to_owned(),
            pre: Vec::new(),
            options: BTreeMap::new(),
            assumed_byzantine: 0,
            learning_rate: 1.0,
            momentum: 0.0,
            gate: None,
            optimizer: None,
        },
    }
}

fn refusal(change: impl FnOnce(&mut TaskPlan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    plan.check().expect_err("the plan was spoilt").to_string()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

#[test]
fn the_terms_follow_from_the_plan() {
    let terms = plan().check().unwrap();
    assert_eq!((terms.groups, terms.minimum_rows), (1, 1));
    // All 12 form one group of twelve, since two of nine would take 18; a cohort of 9 forms one of nine.
    assert_eq!(terms.largest_group, 12);
    assert_eq!((terms.colluders_to_break, terms.break_probability_log2), (2 * 7 - 11, f64::NEG_INFINITY));
    assert_eq!(terms.affordable_rounds, 2);
    assert!(terms.guarantee.epsilon(2) <= 15.0);
    assert_eq!((terms.guarantee.colluders, terms.guarantee.honest), (1, 7));
    assert_eq!(
        (terms.guarantee.placement.to_string(), terms.guarantee.noise),
        ("distributed".to_owned(), NoiseKind::DiscreteGaussian)
    );
}

#[test]
fn the_largest_group_is_the_worst_over_all_cohorts() {
    let mut plan = plan();
    plan.cohort = Cohort { clients: 40, minimum: 31, assumed_malicious: 1, population: None };
    plan.aggregation.max_missing_reveals = 1;
    plan.aggregation.group_size = 10;
    // 39 clients make three groups of 13; 40 make four of 10.
    let terms = plan.check().unwrap();
    assert_eq!((terms.groups, terms.largest_group), (4, 13));
}

#[test]
fn the_privacy_budget_limits_the_rounds() {
    let mut plan = plan();
    plan.rounds = 1000;
    let terms = plan.check().unwrap();
    let affordable = terms.affordable_rounds;
    assert!((1..1000).contains(&affordable), "{affordable}");
    assert!(terms.guarantee.epsilon(affordable) <= 15.0 && terms.guarantee.epsilon(affordable + 1) > 15.0);
}

fn examples() -> ExamplePrivacy {
    ExamplePrivacy { clip_norm: 1.0, noise_multiplier: 1.5, sampling_rate: 0.1, epsilon: 8.0, delta: 1e-5 }
}

#[test]
fn example_privacy_is_charged_for_every_step_of_every_round() {
    let mut plan = plan();
    assert!(plan.check().unwrap().example.is_none());
    (plan.training.epochs, plan.training.example_privacy) = (3, Some(examples()));
    let terms = plan.check().unwrap();
    let example = terms.example.unwrap();
    assert_eq!(example.steps_per_round, 30);
    let steps = 30 * terms.affordable_rounds;
    assert_eq!(example.epsilon, example.guarantee.epsilon(steps.into()));
    // What `fedveil privacy epsilon --accountant rdp` says of as many rounds.
    let rounds = Composition::new(Neighbours::AddRemove)
        .then(Sampling::Poisson(SamplingRate::new(0.1).unwrap()), NoiseMultiplier::new(1.5).unwrap(), steps)
        .unwrap();
    let found = rounds.rdp().epsilon(Delta::new(1e-5).unwrap()).epsilon;
    assert!(example.epsilon >= found * (1.0 - 1e-6) && example.epsilon < found * 1.02, "{found}");
    // An epoch of a rate that does not divide it takes a step more, never one less.
    plan.training.example_privacy = Some(ExamplePrivacy { sampling_rate: 0.07, ..examples() });
    assert_eq!(plan.check().unwrap().example.unwrap().steps_per_round, 43);
}

#[test]
fn a_plan_that_would_spend_more_on_an_example_is_refused() {
    let with = |change: fn(&mut ExamplePrivacy)| {
        let mut section = examples();
        change(&mut section);
        refusal(|plan| plan.training.example_privacy = Some(section))
    };
    let spent = with(|section| section.epsilon = 0.5);
    assert!(
        spent.contains("training.example_privacy: ") && spent.contains("of 10 steps spend epsilon"),
        "{spent}"
    );
    assert!(spent.contains("its epsilon accepts 0.5"), "{spent}");
    for (change, expected) in [
        (
            (|section| section.clip_norm = 0.0) as fn(&mut ExamplePrivacy),
            "clip_norm is 0, accepted is a number from",
        ),
        (|section| section.noise_multiplier = 0.0, "noise_multiplier is 0, accepted is a number from 0.001"),
        (
            |section| section.noise_multiplier = 1e3,
            "noise_multiplier is 1000, accepted is a number from 0.001 to 250",
        ),
        (|section| section.noise_multiplier = f64::NAN, "noise_multiplier is NaN"),
        (
            |section| section.sampling_rate = 1.5,
            "sampling_rate is 1.5, accepted is a number above 0, at most 1",
        ),
        (
            |section| section.sampling_rate = 1e-9,
            "sampling_rate is 0.000000001, accepted is at least 0.000001",
        ),
        (|section| section.epsilon = 0.0, "epsilon is 0, accepted is a finite number above 0"),
        (|section| section.delta = 1.0, "delta is 1, accepted is a number above 0 and below 1"),
    ] {
        let found = with(change);
        assert!(
            found.contains(&format!("training.example_privacy.{expected}")),
            "{found}, expected: {expected}"
        );
    }
}

#[test]
fn every_bad_field_is_named_with_what_is_accepted() {
    type Change = fn(&mut TaskPlan);
    let cases: [(Change, &str); 45] = [
        (|plan| plan.version = 1, "version is 1, accepted is 3 to 3"),
        (|plan| plan.mode = "plain".into(), "mode is plain, accepted is secagg"),
        (|plan| plan.task = String::new(), "task is , accepted is a name of 1 to 64 bytes"),
        (|plan| plan.task = "x".repeat(65), "accepted is a name of 1 to 64 bytes"),
        (|plan| plan.rounds = 0, "rounds is 0, accepted is 1 to 100000"),
        (|plan| plan.phase_seconds = 0, "phase_seconds is 0, accepted is 1 to 86400"),
        (|plan| plan.model.parameters = 0, "model.parameters is 0, accepted is 1 to 4194304"),
        (|plan| plan.model.parameters = MAX_PARAMETERS + 1, "model.parameters is 4194305"),
        (|plan| plan.cohort.clients = 1, "cohort.clients is 1, accepted is 2 to 20000"),
        (|plan| plan.cohort.clients = MAX_CLIENTS + 1, "cohort.clients is 20001"),
        (|plan| plan.cohort.minimum = 13, "cohort.minimum is 13, accepted is 2 to 12"),
        (|plan| plan.cohort.minimum = 1, "cohort.minimum is 1, accepted is 2 to 12"),
        (|plan| plan.cohort.assumed_malicious = 10, "cohort.assumed_malicious is 10, accepted is 0 to 9"),
        (|plan| plan.training.epochs = 0, "training.epochs is 0, accepted is 1 to 1000"),
        (|plan| plan.training.learning_rate = 0.0, "training.learning_rate is 0, accepted is more than 0"),
        (|plan| plan.training.learning_rate = f64::NAN, "training.learning_rate is NaN"),
        (
            |plan| plan.privacy.clip_norm = 0.0,
            "privacy.clip_norm is 0, accepted is a number from 1e-12 to 1e12",
        ),
        (|plan| plan.privacy.clip_norm = f64::INFINITY, "privacy.clip_norm is inf"),
        (|plan| plan.privacy.noise_multiplier = 0.0, "privacy.noise_multiplier is 0"),
        (|plan| plan.privacy.noise_multiplier = f64::NAN, "privacy.noise_multiplier is NaN"),
        (|plan| plan.privacy.resolution = 0, "privacy.resolution is 0, accepted is a number of steps"),
        (
            |plan| plan.privacy.placement = "central".into(),
            "privacy.placement is central, accepted is distributed, local",
        ),
        (
            |plan| plan.privacy.mechanism = "laplace".into(),
            "privacy.mechanism is laplace, accepted is discrete-gaussian, skellam",
        ),
        (|plan| plan.privacy.epsilon = 0.0, "privacy.epsilon is 0, accepted is a finite number above 0"),
        (|plan| plan.privacy.delta = f64::NAN, "privacy.delta is NaN, accepted is a number above 0"),
        (
            |plan| plan.privacy.delta = 0.1,
            "privacy.delta is 0.1, accepted is a number above 0, at most 1/12 (one in cohort.clients)",
        ),
        (|plan| plan.privacy.epsilon = -1.0, "privacy.epsilon is -1, accepted is a finite number above 0"),
        (|plan| plan.privacy.delta = 0.0, "privacy.delta is 0, accepted is a number above 0 and below 1"),
        (|plan| plan.privacy.delta = 1.0, "privacy.delta is 1, accepted is a number above 0 and below 1"),
        (|plan| plan.aggregation.group_size = 2, "aggregation.group_size is 2, accepted is 3 to 10"),
        (|plan| plan.aggregation.group_size = 11, "aggregation.group_size is 11, accepted is 3 to 10"),
        (|plan| plan.aggregation.group_size = 10, "aggregation.group_size is 10, accepted is up to 9"),
        (
            |plan| plan.aggregation.protocol = "plain".into(),
            "aggregation.protocol is plain, accepted is pairwise-mask, rlwe-two-layer",
        ),
        (|plan| plan.aggregation.degree = 1, "aggregation.degree is 1, accepted is 2 to 20000"),
        (|plan| plan.aggregation.degree = 9, "aggregation.degree is 9, accepted is an even number, or 11"),
        (|plan| plan.aggregation.threshold = 8, "aggregation.threshold is 8, accepted is 2 to 7"),
        (
            |plan| plan.aggregation.break_probability = 1.0,
            "aggregation.break_probability is 1, accepted is 0 or more, below 1",
        ),
        (|plan| plan.aggregation.min_survivors = 10, "aggregation.min_survivors is 10, accepted is 3 to 9"),
        (
            |plan| plan.aggregation.max_missing_reveals = 2,
            "aggregation.max_missing_reveals is 2, accepted is 0 to 1",
        ),
        (
            |plan| plan.aggregation.masks = "rot13".into(),
            "aggregation.masks is rot13, accepted is aes-256-ctr, chacha20",
        ),
        (|plan| plan.server.rule = "average".into(), "server.rule is average, accepted is mean"),
        (
            |plan| plan.server.assumed_byzantine = 1 << 31,
            "server.assumed_byzantine is 2147483648, accepted is 0 to 12",
        ),
        (|plan| plan.server.learning_rate = -1.0, "server.learning_rate is -1, accepted is more than 0"),
        (|plan| plan.server.momentum = 1.0, "server.momentum is 1, accepted is 0 or more, below 1"),
        (|plan| plan.server.momentum = f64::NAN, "server.momentum is NaN"),
    ];
    for (change, expected) in cases {
        let found = refusal(change);
        assert!(found.contains(expected), "{found}, expected: {expected}");
    }
}

#[test]
fn a_threshold_that_half_the_neighbours_reach_is_refused() {
    assert!(
        refusal(|plan| plan.aggregation.threshold = 5)
            .contains("aggregation.threshold is 5, accepted is more than 5")
    );
}

#[test]
fn more_colluders_than_the_threshold_bears_are_refused() {
    let found = refusal(|plan| plan.cohort.assumed_malicious = 3);
    let expected = "aggregation.threshold 7 among 11 neighbours falls to 3 colluders; with cohort.assumed_malicious 3 \
                    that happens with probability up to 1.00e0, and aggregation.break_probability accepts 0e0";
    assert!(found.contains(expected), "{found}");
}

#[test]
fn a_sum_that_no_ring_holds_is_refused() {
    let found = refusal(|plan| {
        plan.privacy.resolution = 1 << 24;
        plan.cohort = Cohort { clients: 600, minimum: 600, assumed_malicious: 0, population: None };
        plan.aggregation.group_size = 600;
        plan.aggregation.degree = 600;
        plan.aggregation.threshold = 400;
        plan.aggregation.min_survivors = 500;
        plan.aggregation.max_missing_reveals = 0;
    });
    assert!(found.contains("privacy: a group sum needs a ring of"), "{found}");
    let found = refusal(|plan| plan.privacy.noise_multiplier = 1e6);
    let expected = "privacy.noise_multiplier is 1000000, accepted is one that at privacy.resolution 1024 makes \
                    the noise variance a number of squared steps from 1 to 2^48, not ";
    assert!(found.contains(expected), "{found}");
}

#[test]
fn a_rule_that_needs_more_groups_than_the_cohort_makes_is_refused() {
    let found = refusal(|plan| {
        plan.server.rule = "multi-krum".to_owned();
        plan.server.assumed_byzantine = 1;
    });
    let expected = "server.rule multi-krum bears 1 poisoned groups only among 5 or more, and cohort.minimum 10 makes 1 \
                    groups of aggregation.group_size 9";
    assert!(found.contains(expected), "{found}");
}

/// Six groups of nine, all of whose members are there: the median bears two poisoned ones.
fn six_groups() -> TaskPlan {
    let mut plan = plan();
    plan.cohort = Cohort { clients: 54, minimum: 54, assumed_malicious: 1, population: None };
    plan.aggregation.max_missing_reveals = 0;
    (plan.server.rule, plan.server.assumed_byzantine) = ("median".to_owned(), 2);
    plan
}

#[test]
fn the_terms_say_how_many_attackers_the_groups_bear() {
    let terms = six_groups().check().unwrap();
    assert_eq!((terms.groups, terms.minimum_rows), (6, 5));
    // Two attackers are borne wherever they are; a third is in a third group more often than once in a thousand rounds.
    assert_eq!((terms.borne, terms.borne_mostly), (2, 2));
    assert!(terms.too_many_poisoned.abs() < 1e-12);
    let mut worse = six_groups();
    worse.cohort.assumed_malicious = 2;
    worse.aggregation.break_probability = 0.5;
    assert!(worse.check().unwrap().too_many_poisoned.abs() < 1e-12);
    worse.server.assumed_byzantine = 1;
    let terms = worse.check().unwrap();
    // Two are in two groups unless the second takes one of the eight other seats of the first's group, of 53.
    assert!((terms.too_many_poisoned - 45.0 / 53.0).abs() < 1e-12, "{}", terms.too_many_poisoned);
    assert_eq!((terms.borne, terms.borne_mostly), (1, 1));
    // The mean bears nobody, whatever its plan assumes.
    worse.server.rule = "mean".to_owned();
    let terms = worse.check().unwrap();
    assert_eq!((terms.borne, terms.borne_mostly, terms.too_many_poisoned), (0, 0, 1.0));
}

#[test]
fn a_rule_is_refused_whose_bound_the_fewest_groups_miss() {
    // One client less may come, and nine less than a multiple of nine make one group less.
    let mut plan = six_groups();
    plan.cohort.minimum = 44;
    let expected = "server.rule median bears 2 poisoned groups only among 5 or more, and cohort.minimum 44 makes 4 \
                    groups of aggregation.group_size 9";
    assert!(plan.check().unwrap_err().to_string().contains(expected));
    for (rule, f, wanted) in [("median", 3, 7), ("krum", 2, 7), ("bulyan", 1, 7)] {
        let mut plan = six_groups();
        (plan.server.rule, plan.server.assumed_byzantine) = (rule.to_owned(), f);
        let expected = format!("server.rule {rule} bears {f} poisoned groups only among {wanted} or more");
        assert!(plan.check().unwrap_err().to_string().contains(&expected), "{rule}");
    }
    // byzfl's count of neighbours asks for a bare majority.
    let mut plan = six_groups();
    (plan.server.rule, plan.server.assumed_byzantine) = ("krum".to_owned(), 2);
    plan.server.options.insert("variant".to_owned(), Setting::Word("byzfl".to_owned()));
    assert_eq!(plan.check().unwrap().borne, 2);
}

#[test]
fn a_rule_whose_search_would_not_end_is_refused() {
    let found = refusal(|plan| {
        plan.cohort = Cohort { clients: 900, minimum: 900, assumed_malicious: 1, population: None };
        plan.server.rule = "mda".to_owned();
        plan.server.assumed_byzantine = 40;
    });
    assert!(
        found.contains("server.assumed_byzantine: ") && found.contains("may search 1099511627776 subsets"),
        "{found}"
    );
}

#[test]
fn a_signed_plan_comes_back_as_it_was_signed() {
    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let read = SignedPlan::verify(signed.bytes(), &key().verifying_key()).unwrap();
    assert_eq!(read.plan(), &plan());
    assert_eq!((read.bytes(), read.digest()), (signed.bytes(), Digest::of(signed.bytes())));
    assert_eq!(read.origin(), format!("fedveil/{}", signed.digest()));
}

#[test]
fn a_plan_by_another_signer_or_altered_is_refused() {
    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    assert!(matches!(SignedPlan::verify(signed.bytes(), &other), Err(PlanError::Signature(_))));
    for position in 0..signed.bytes().len() {
        let mut bytes = signed.bytes().to_vec();
        bytes[position] ^= 1;
        assert!(SignedPlan::verify(&bytes, &key().verifying_key()).is_err(), "byte {position}");
    }
}

#[test]
fn an_envelope_of_another_type_is_no_plan() {
    let payload = serde_json::to_vec(&plan()).unwrap();
    let bytes = Envelope::sign("application/vnd.fedveil.round.v1+json", payload, &[&key()]).to_json();
    assert!(matches!(SignedPlan::verify(&bytes, &key().verifying_key()), Err(PlanError::Signature(_))));
}

#[test]
fn a_signed_payload_that_is_no_plan_is_refused() {
    let mut unknown = serde_json::to_value(plan()).unwrap();
    unknown["surprise"] = 1.into();
    let mut missing = serde_json::to_value(plan()).unwrap();
    missing.as_object_mut().unwrap().remove("privacy");
    for (payload, expected) in [
        (serde_json::to_vec(&unknown).unwrap(), "unknown field `surprise`"),
        (serde_json::to_vec(&missing).unwrap(), "missing field `privacy`"),
        (b"{".to_vec(), "EOF"),
    ] {
        let bytes = Envelope::sign(PAYLOAD_TYPE, payload, &[&key()]).to_json();
        let error = SignedPlan::verify(&bytes, &key().verifying_key()).unwrap_err();
        assert!(matches!(&error, PlanError::Malformed(reason) if reason.contains(expected)), "{error}");
    }
}

#[test]
fn an_oversized_plan_is_not_even_read() {
    let error = SignedPlan::verify(&vec![b'{'; MAX_BYTES + 1], &key().verifying_key()).unwrap_err();
    assert_eq!(error.to_string(), "task plan: 65537 bytes, accepted are up to 65536");
}

#[test]
fn sessions_differ_by_plan_round_and_model() {
    let authority = key().verifying_key();
    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let other = SignedPlan::sign(TaskPlan { id: Digest::of("another"), ..plan() }, &key()).unwrap();
    let terms = plan().check().unwrap();
    let model = Digest::of("model");
    let context = |plan: &SignedPlan, round, model: &Digest| {
        let session = terms.session(plan, &authority, round, model).unwrap();
        session.parameters().context
    };
    let first = context(&signed, 1, &model);
    assert_eq!(first, context(&signed, 1, &model));
    assert_ne!(first, context(&signed, 2, &model));
    assert_ne!(first, context(&signed, 1, &Digest::of("another model")));
    assert_ne!(first, context(&other, 1, &model));
}

#[test]
fn local_noise_trusts_nobody_and_skellam_shares_cost_hardly_more() {
    let terms = |placement: &str, mechanism: &str| {
        let mut plan = plan();
        placement.clone_into(&mut plan.privacy.placement);
        mechanism.clone_into(&mut plan.privacy.mechanism);
        plan.check().unwrap().guarantee
    };
    let (shared, local) = (terms("distributed", "discrete-gaussian"), terms("local", "discrete-gaussian"));
    assert_eq!((shared.honest, local.honest, local.colluders), (7, 1, 0));
    assert_eq!(local.share.get().div_ceil(7), shared.share.get());
    assert!(
        (shared.epsilon(2) / local.epsilon(2) - 1.0).abs() < 1e-5,
        "it is the same noise that is counted"
    );
    let skellam = terms("distributed", "skellam");
    assert_eq!(skellam.share, shared.share);
    let more = skellam.epsilon(2) / shared.epsilon(2);
    assert!(more > 1.0 && more < 1.01, "{more}");
}

/// The same 12 clients, whose updates the coordinator sees and adds noise to.
fn plan_in_the_clear() -> TaskPlan {
    let mut plan = plan();
    plan.mode = "insecure_plain".to_owned();
    plan.privacy.placement = "central".to_owned();
    plan.aggregation = Aggregation::none();
    plan
}

fn correlated() -> CorrelatedNoise {
    let matrix = "banded-toeplitz".to_owned();
    CorrelatedNoise { matrix, bands: Some(2), min_separation: 2, max_participations: 1 }
}

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
fn rotations_differ_by_task_round_and_model() {
    let model = Digest::of("model");
    let first = plan().rotation_seed(1, &model);
    assert_eq!(first, plan().rotation_seed(1, &model));
    assert_ne!(first, plan().rotation_seed(2, &model));
    assert_ne!(first, plan().rotation_seed(1, &Digest::of("another model")));
    assert_ne!(first, TaskPlan { id: Digest::of("another"), ..plan() }.rotation_seed(1, &model));
}

#[test]
fn a_checked_plan_always_makes_a_session() {
    // Every small shape: whatever `check` lets pass, both sides can run.
    let authority = key().verifying_key();
    let mut sessions = 0;
    for (clients, minimum, group_size) in (3..15)
        .flat_map(|n| (3..=n).flat_map(move |minimum| (3..=minimum).map(move |size| (n, minimum, size))))
    {
        for min_survivors in 3..=group_size {
            for threshold in 2..min_survivors {
                let mut plan = plan();
                plan.cohort = Cohort { clients, minimum, assumed_malicious: 0, population: None };
                plan.aggregation = Aggregation {
                    protocol: "pairwise-mask".to_owned(),
                    group_size,
                    degree: 64,
                    threshold,
                    min_survivors,
                    max_missing_reveals: minimum / 10,
                    masks: "aes-256-ctr".to_owned(),
                    break_probability: 0.0,
                };
                let Ok(terms) = plan.check() else { continue };
                let signed = SignedPlan::sign(plan, &key()).unwrap();
                let session = terms.session(&signed, &authority, 1, &Digest::of("model")).unwrap();
                assert_eq!(session.max_group_len(), terms.largest_group as usize);
                sessions += 1;
            }
        }
    }
    assert!(sessions > 100, "{sessions}");
}

fn adaptive_clip() -> AdaptiveClipping {
    AdaptiveClipping { quantile: 0.5, learning_rate: 0.2, noise_multiplier: 6.0, minimum: 0.1, maximum: 10.0 }
}

#[test]
fn an_adaptive_clip_norm_out_of_range_is_refused_by_key() {
    let mut fits = plan();
    fits.privacy.adaptive_clip = Some(adaptive_clip());
    assert!(fits.check().is_ok());
    let cases: [(AdaptiveClipping, &str); 6] = [
        (
            AdaptiveClipping { quantile: 1.0, ..adaptive_clip() },
            "privacy.adaptive_clip.quantile is 1, accepted",
        ),
        (
            AdaptiveClipping { learning_rate: 0.0, ..adaptive_clip() },
            "privacy.adaptive_clip.learning_rate is 0",
        ),
        (
            AdaptiveClipping { noise_multiplier: 0.0, ..adaptive_clip() },
            "privacy.adaptive_clip.noise_multiplier is 0",
        ),
        (AdaptiveClipping { minimum: 0.0, ..adaptive_clip() }, "privacy.adaptive_clip.minimum is 0"),
        (AdaptiveClipping { maximum: 0.05, ..adaptive_clip() }, "privacy.adaptive_clip.maximum is 0.05"),
        (
            AdaptiveClipping { minimum: 2.0, ..adaptive_clip() },
            "privacy.clip_norm is 1, accepted is a number from",
        ),
    ];
    for (section, reason) in cases {
        let mut refused = plan();
        refused.privacy.adaptive_clip = Some(section);
        let error = refused.check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
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
fn a_task_pays_for_what_clients_say_of_its_models() {
    let evaluation = FederatedEvaluation { max_accuracy_drop: 0.1, noise_multiplier: 1.5, confidence: 2.0 };
    let gate = Gate {
        max_step_norm: None,
        max_accuracy_drop: None,
        max_trigger_success: None,
        evaluation: Some(evaluation),
        max_rejections: 3,
    };
    let mut asking = plan();
    asking.server.gate = Some(gate);
    asking.privacy.epsilon = 40.0;
    let terms = asking.check().unwrap();
    let without = plan().check().unwrap();
    // Two releases of about the same noise cost what twice as many rounds of one cost.
    let (both, twice) = (terms.guarantee.epsilon(1), without.guarantee.epsilon(2));
    assert!((both / twice - 1.0).abs() < 0.02, "{both}, {twice}");
    let answers = terms.guarantee.epsilon_of_evaluation(2).unwrap();
    assert!((answers / twice - 1.0).abs() < 0.02, "{answers}, {twice}");
    assert_eq!(without.guarantee.epsilon_of_evaluation(2), None);
    // Answers are as many chances to break a client as updates are.
    asking.cohort = Cohort { clients: 60, minimum: 58, assumed_malicious: 6, population: None };
    asking.aggregation.break_probability = 0.9;
    let mut silent = asking.clone();
    silent.server.gate = None;
    let [more, less] = [asking, silent].map(|plan| plan.check().unwrap().break_probability_log2);
    assert!((more - less - 1.0).abs() < 0.01, "{more}, {less}");

    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let [task, parent, model] = ["task", "parent", "model"].map(Digest::of);
    let candidate = Candidate { task, round: 1, parent, model };
    let authority = key().verifying_key();
    assert!(without.evaluation_session(&signed, &authority, &candidate).is_err());
    let context = |candidate: &Candidate| {
        let session = terms.evaluation_session(&signed, &authority, candidate).unwrap();
        (session.parameters().length, session.parameters().context)
    };
    let (length, one) = context(&candidate);
    assert_eq!(length, 1);
    let update = terms.session(&signed, &authority, 1, &model).unwrap().parameters().context;
    let others = [
        Candidate { round: 2, ..candidate },
        Candidate { parent: Digest::of("other"), ..candidate },
        Candidate { model: Digest::of("other"), ..candidate },
    ];
    for other in others.iter().map(|other| context(other).1).chain([update]) {
        assert_ne!(other, one);
    }
}

#[test]
fn pre_aggregators_and_options_make_the_rule() {
    let mut plan = plan();
    let options = |plan: &mut TaskPlan, pairs: &[(&str, Setting)]| {
        plan.server.options = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    };
    let word = |text: &str| Setting::Word(text.to_owned());
    plan.server.rule = "centered-clipping".to_owned();
    plan.server.pre = vec!["clip".to_owned(), "nnm".to_owned()];
    options(&mut plan, &[("c", Setting::Number(1.5)), ("start", word("median"))]);
    let rule = plan.check().unwrap().rule;
    let expected =
        Rule::new("centered-clipping", &["clip", "nnm"], &[("c", "1.5"), ("start", "median")]).unwrap();
    assert!(rule == expected);
    assert_eq!(rule.to_string(), "clip+nnm+centered-clipping");

    // What is signed is what is read.
    let text = serde_json::to_string(&plan).unwrap();
    assert!(text.contains(r#""pre":["clip","nnm"],"options":{"c":1.5,"start":"median"}"#), "{text}");
    assert_eq!(serde_json::from_str::<TaskPlan>(&text).unwrap(), plan);

    for (key, value, expected) in [
        ("c", Setting::Number(-1.0), "option c of clip is \"-1\", accepted is a number above 0"),
        ("depth", Setting::Number(1.0), "clip + nnm + centered-clipping has no option \"depth\""),
        ("start", word("1,2"), "server.options is start = 1,2, accepted is zero, median"),
        ("start", Setting::Number(3.0), "server.options is start = 3, accepted is zero, median"),
    ] {
        options(&mut plan, &[(key, value)]);
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    options(&mut plan, &[("seed", Setting::Number(4.0))]);
    plan.server.pre = vec!["bucketing".to_owned()];
    let error = plan.check().unwrap_err().to_string();
    assert!(error.contains("server.options is seed = 4, accepted is no value"), "{error}");
    options(&mut plan, &[]);
    plan.server.pre = vec!["mixing".to_owned()];
    let error = plan.check().unwrap_err().to_string();
    assert!(
        error.contains("unknown pre-aggregator \"mixing\"; accepted are clip, arc, nnm, bucketing"),
        "{error}"
    );
    plan.server.pre = vec!["clip".to_owned(); 5];
    let error = plan.check().unwrap_err().to_string();
    assert!(error.contains("server.pre is 5 names, accepted is up to 4"), "{error}");
}

/// The plan in the clear, and nobody's noise.
fn plan_without_noise(clip_norm: f64) -> TaskPlan {
    TaskPlan { privacy: Privacy::none(clip_norm), ..plan_in_the_clear() }
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

#[test]
fn a_server_optimizer_is_of_the_plan() {
    type Case = (fn(&mut AdaptiveOptimizer), &'static str);

    let adaptive = |change: fn(&mut AdaptiveOptimizer)| {
        let mut plan = plan();
        let mut optimizer = AdaptiveOptimizer::of("yogi");
        change(&mut optimizer);
        plan.server.optimizer = Some(optimizer);
        plan
    };
    let expected = ServerOptimizer::Adaptive {
        rule: Adaptive::Yogi,
        learning_rate: 1.0,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    };
    assert_eq!(adaptive(|_| ()).check().unwrap().optimizer, expected);
    let read: Server =
        serde_json::from_str(r#"{"rule":"mean","assumed_byzantine":0,"learning_rate":1.0,"momentum":0.0,"optimizer":{"name":"yogi"}}"#)
            .unwrap();
    assert_eq!(read.optimizer, Some(AdaptiveOptimizer::of("yogi")));
    let cases: [Case; 4] = [
        (|it| it.name = "adamw".into(), "server.optimizer.name is adamw, accepted is adagrad, adam, yogi"),
        (|it| it.beta1 = 1.0, "server.optimizer.beta1 is 1, accepted is a number from 0, below 1"),
        (|it| it.beta2 = -0.1, "server.optimizer.beta2 is -0.1, accepted is a number from 0, below 1"),
        (|it| it.tau = 0.0, "server.optimizer.tau is 0, accepted is a finite number above 0"),
    ];
    for (change, reason) in cases {
        let error = adaptive(change).check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
    let mut both = adaptive(|_| ());
    both.server.momentum = 0.5;
    let error = both.check().unwrap_err().to_string();
    assert!(error.contains("server.momentum is 0.5, accepted is 0 with server.optimizer"), "{error}");
}

#[test]
fn settings_of_local_training_are_of_the_plan() {
    type Case = (fn(&mut TaskPlan), &'static str);

    let mut fits = plan();
    (fits.training.momentum, fits.training.proximal) = (Some(0.9), Some(0.01));
    (fits.training.planned_steps, fits.training.batch_size) = (Some(10), 0);
    fits.check().unwrap();
    let text = serde_json::to_string(&fits).unwrap();
    assert!(
        text.contains(r#""learning_rate":0.1,"momentum":0.9,"proximal":0.01,"planned_steps":10}"#),
        "{text}"
    );
    let cases: [Case; 4] = [
        (|plan| plan.training.momentum = Some(1.0), "training.momentum is 1, accepted is 0 or more, below 1"),
        (|plan| plan.training.proximal = Some(f64::NAN), "training.proximal is NaN, accepted is more than 0"),
        (
            |plan| plan.training.planned_steps = Some(0),
            "training.planned_steps is 0, accepted is 1 to 1000000",
        ),
        (|plan| plan.training.batch_size = 65_537, "training.batch_size is 65537, accepted is 0 to 65536"),
    ];
    for (change, reason) in cases {
        let error = refusal(change);
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
}
