//! Scenarios: what is refused, what is sized, and that one scenario has one history.

use super::*;
use crate::federation::{Federation, RoundOutcome};
use crate::record::ClientAccuracy;
use std::num::NonZeroUsize;

fn small() -> Spec {
    let mut spec = Spec::default();
    spec.rounds = 2;
    spec.population.clients = 24;
    spec.aggregation.group_size = 12;
    spec.privacy.epsilon = 60.0;
    spec
}

fn fleet(spec: &Spec) -> Result<Fleet, ScenarioError> {
    let data = spec.data.load(&std::collections::BTreeMap::new(), spec.seed).unwrap();
    Fleet::new(spec, data, &spec.plan().unwrap().model)
}

/// Digests of the published models.
fn history_on(threads: usize, spec: &Spec) -> Vec<String> {
    let planned = spec.plan().unwrap();
    let setup = spec.setup(&planned, NonZeroUsize::new(threads).unwrap());
    let mut federation = Federation::new(setup, fleet(spec).unwrap()).unwrap();
    let mut published = Vec::new();
    while let Some(round) = federation.run_round() {
        if let RoundOutcome::Published { model, .. } = round.outcome {
            published.push(model.to_string());
        }
    }
    published
}

fn history(spec: &Spec) -> Vec<String> {
    history_on(1, spec)
}

#[test]
fn noise_is_sized_for_the_budget_and_not_beyond() {
    for epsilon in [1.0, 8.0, 60.0] {
        let mut spec = small();
        spec.privacy.epsilon = epsilon;
        let planned = spec.plan().unwrap();
        let spent = planned.terms.guarantee.epsilon(spec.rounds);
        assert!(spent <= epsilon && spent > 0.97 * epsilon, "{spent} of {epsilon}");
        assert_eq!(planned.terms.affordable_rounds, spec.rounds);
        // A multiplier that is given stays.
        spec.privacy.noise_multiplier = Some(planned.plan.privacy.noise_multiplier);
        assert_eq!(spec.plan().unwrap().plan.privacy, planned.plan.privacy);
    }
}

#[test]
fn one_seed_has_one_history() {
    let first = history(&small());
    assert_eq!(first.len(), 2);
    assert_eq!(first, history_on(3, &small()));
    assert_ne!(first, history(&Spec { seed: 2, ..small() }));
}

#[test]
fn refusals_name_the_key_of_the_scenario() {
    type Case = (fn(&mut Spec), &'static str);
    let cases: [Case; 15] = [
        (
            |spec| spec.population.cohort = Some(25),
            "population.cohort is 25, accepted is 1 to population.clients (24)",
        ),
        (
            |spec| spec.population.sampling = "all".into(),
            "population.sampling is \"all\", accepted is fixed or poisson",
        ),
        (|spec| spec.attackers.clients = 24, "attackers.clients is 24, accepted is 0 to 23"),
        (|spec| spec.availability.dropout = 0.9, "availability.dropout is 0.9"),
        (|spec| spec.availability.online = 0.0, "availability.online is 0"),
        (|spec| spec.network.loss = 0.5, "network.loss is 0.5"),
        (
            |spec| spec.population.check_in = Some(23),
            "population.check_in is 23, accepted is the cohort (24)",
        ),
        (|spec| spec.evaluation.every = 0, "evaluation.every is 0"),
        (|spec| spec.evaluation.clients = 25, "evaluation.clients is 25"),
        (|spec| spec.model.architecture = "mlp".into(), "model.architecture is \"mlp\""),
        (|spec| spec.aggregation.mode = "clear".into(), "aggregation.mode is clear, accepted is secagg"),
        (
            |spec| spec.aggregation.group_size = 25,
            "aggregation.group_size is 25, accepted is 3 to the cohort, 24",
        ),
        (|spec| spec.robustness.rule = "best".into(), "robustness.rule"),
        (|spec| spec.rounds = 0, "rounds is 0"),
        (|spec| spec.privacy.noise_multiplier = Some(0.01), "privacy.epsilon is 60, accepted is at least"),
    ];
    for (change, expected) in cases {
        let mut spec = small();
        change(&mut spec);
        let found = spec.plan().expect_err(expected).to_string();
        assert!(found.starts_with(expected), "{found}, expected: {expected}");
    }
    let mut spec = small();
    (spec.attackers.clients, spec.attackers.attack) = (1, "rumour".into());
    assert!(fleet(&spec).err().unwrap().to_string().starts_with("attackers: unknown attack \"rumour\""));
    let mut spec = small();
    spec.partition = crate::partition::Partitioner::Natural { min_size: 1 };
    assert!(fleet(&spec).err().unwrap().to_string().starts_with("partition: the partition \"natural\""));
    let mut spec = small();
    spec.model.architecture = "softmax:64x10".into();
    assert!(fleet(&spec).err().unwrap().to_string().starts_with("model.architecture: data of"));
}

#[test]
fn in_the_clear_a_round_needs_half_of_its_cohort() {
    let mut spec = small();
    spec.aggregation.mode = "insecure_plain".into();
    spec.privacy.placement = "central".into();
    spec.availability.dropout = 0.2;
    let planned = spec.plan().unwrap();
    assert_eq!((planned.plan.cohort.clients, planned.plan.cohort.minimum), (24, 12));
    assert_eq!(history(&spec).len(), 2);
}

#[test]
fn a_population_that_comes_and_goes_trains_over_a_network() {
    let mut spec = small();
    spec.population.clients = 300;
    spec.population.cohort = Some(24);
    spec.population.check_in = Some(30);
    spec.availability.online = 0.5;
    spec.availability.daily_swing = 0.5;
    spec.devices.milliseconds_per_example = 10.0;
    spec.devices.straggler_share = 0.2;
    (spec.network.latency_ms, spec.network.up_kbit_per_second) = (50.0, 1000.0);
    let first = history(&spec);
    assert_eq!(first.len(), 2);
    assert_eq!(first, history_on(2, &spec));
    // The network takes time and changes no arithmetic; whoever comes is another matter.
    spec.network.latency_ms = 0.0;
    assert_eq!(history(&spec).len(), 2);
}

#[test]
fn an_infinite_epsilon_is_a_plan_without_noise() {
    let mut spec = small();
    spec.aggregation.mode = "insecure_plain".into();
    spec.privacy.placement = "central".into();
    spec.population.sampling = "poisson".into();
    spec.privacy.epsilon = f64::INFINITY;
    spec.privacy.clip_norm = f64::INFINITY;
    let planned = spec.plan().unwrap();
    assert!(!planned.terms.guarantee.has_noise());
    assert_eq!(
        (planned.plan.privacy.placement.as_str(), planned.plan.cohort.population),
        ("insecure_none", None)
    );
    assert_eq!(planned.terms.affordable_rounds, spec.rounds);
    let refused = |spec: &Spec| spec.plan().unwrap_err().to_string();
    spec.privacy.noise_multiplier = Some(1.0);
    assert!(refused(&spec).starts_with("privacy.noise_multiplier is 1, accepted is nothing"));
    spec.privacy.noise_multiplier = None;
    spec.aggregation.mode = "secagg".into();
    assert!(refused(&spec).starts_with("privacy.placement is insecure_none, accepted is distributed"));
}

#[test]
fn the_poisoned_are_as_many_as_asked_and_measured_clients_are_not_among_them() {
    let mut spec = small();
    (spec.attackers.clients, spec.evaluation.clients) = (5, 24);
    let fleet = fleet(&spec).unwrap();
    assert_eq!(fleet.poisoned().len(), 5);
    let planned = spec.plan().unwrap();
    let measure = Measure::new(planned.model.clone(), &fleet, 24, 24, spec.seed);
    let model =
        fedveil_learning::model_file::to_safetensors(&planned.model, &planned.model.initial(1)).unwrap();
    assert_eq!(measure.of(&fleet, &model).unwrap().clients.unwrap().clients, 19);
}

#[test]
fn the_worst_tenth_is_a_mean_of_the_worst() {
    let accuracies: Vec<f64> = (0..20).rev().map(|rank| f64::from(rank) / 20.0).collect();
    let told = ClientAccuracy::of(&accuracies).unwrap();
    assert_eq!(told.clients, 20);
    assert!((told.worst_tenth - 0.025).abs() < 1e-12 && (told.mean - 0.475).abs() < 1e-12);
    assert_eq!(told.quantiles, [0.0, 0.2, 0.45, 0.7, 0.95]);
    assert_eq!(ClientAccuracy::of(&[]), None);
    assert_eq!(ClientAccuracy::of(&[0.5]).unwrap().quantiles, [0.5; 5]);
}
