//! What a plan means, and which plans mean nothing that both sides could keep.

use fedveil_privacy::{Composition, Delta, Neighbours, NoiseKind, NoiseMultiplier, Sampling, SamplingRate};
use fedveil_provenance::Candidate;

use super::*;

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
