//! Scenarios: what is refused, what is sized, and that one scenario has one history.

use super::*;
use crate::algorithm::{Choice, Needs, REGISTRY, Setting};
use crate::federation::{Federation, Hierarchy, RoundOutcome, Spread, Weights};
use crate::record::ClientAccuracy;
use std::num::NonZeroUsize;

fn small() -> Spec {
    let mut spec = Spec { rounds: 2, ..Spec::default() };
    spec.population.clients = 24;
    spec.aggregation.group_size = 12;
    spec.privacy.epsilon = 60.0;
    spec
}

fn fleet(spec: &Spec) -> Result<Fleet, ScenarioError> {
    let data = spec.data.load(&std::collections::BTreeMap::new(), spec.seed).unwrap();
    Fleet::new(spec, &spec.plan().unwrap(), data)
}

/// Digests of the published models.
fn history_on(threads: usize, spec: &Spec) -> Vec<String> {
    let planned = spec.plan().unwrap();
    let mut setup = spec.setup(&planned, NonZeroUsize::new(threads).unwrap());
    setup.initial = Some(planned.runner.initial(&planned.model.initial(spec.seed)).unwrap().into());
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
    let cases: [Case; 18] = [
        (
            |spec| spec.population.cohort = Some(25),
            "population.cohort is 25, accepted is 1 to population.clients (24)",
        ),
        (
            |spec| spec.population.sampling = "all".into(),
            "population.sampling is \"all\", accepted is fixed or poisson",
        ),
        (|spec| spec.attackers.clients = 24, "attackers.clients is 24, accepted is 0 to 23"),
        (|spec| spec.faults.client_crash = 1.5, "faults.client_crash is 1.5, accepted is a probability"),
        (|spec| spec.availability.probability = -0.5, "availability.probability is -0.5"),
        (|spec| spec.network.loss = 2.0, "network.loss is 2"),
        (|spec| spec.algorithm.name = "fedbest".into(), "algorithm: unknown algorithm \"fedbest\""),
        (|spec| spec.algorithm.options = [("mu".into(), Setting::Number(1.0))].into(), "algorithm: "),
        (
            |spec| spec.algorithm = AlgorithmSection { name: "qfedavg".into(), options: [].into() },
            "algorithm: ",
        ),
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
    spec.faults.client_crash = 0.2;
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
    spec.availability.probability = 0.5;
    (spec.compute.training_ms, spec.compute.stragglers) = (Spread { median: 2000.0, sigma: 0.5 }, 0.2);
    spec.network.latency_ms = Spread { median: 50.0, sigma: 1.0 };
    spec.network.up_kbit_per_second = Spread { median: 1000.0, sigma: 0.0 };
    let first = history(&spec);
    assert_eq!(first.len(), 2);
    assert_eq!(first, history_on(2, &spec));
    // The network takes time and changes no arithmetic; whoever comes is another matter.
    spec.network.latency_ms = Spread::default();
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
    let refusal = refused(&spec);
    assert!(refusal.starts_with("privacy.placement is insecure_none, accepted is distributed"), "{refusal}");
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
    assert_eq!(measure.of(&fleet, &model, |_| None).unwrap().clients.unwrap().clients, 19);
}

#[test]
fn every_algorithm_runs_in_a_scenario_and_learns() {
    for algorithm in &REGISTRY {
        let mut spec = small();
        spec.rounds = 3;
        spec.algorithm = AlgorithmSection { name: algorithm.name.into(), options: [].into() };
        if algorithm.name == "fedbuff" {
            // Eight of the 24 are a buffer.
            spec.algorithm.options = [("concurrency".into(), Setting::Number(16.0))].into();
            spec.population.cohort = Some(8);
            spec.compute.training_ms = Spread { median: 1000.0, sigma: 1.0 };
        }
        spec.model.architecture = "mlp:25x12x10".into();
        spec.privacy.epsilon = f64::INFINITY;
        spec.privacy.clip_norm = f64::INFINITY;
        spec.aggregation.mode = "insecure_plain".into();
        if algorithm.name == "fedbn" {
            // It is about normalisation layers, and refuses a model that has none.
            let refusal = spec.plan().unwrap_err().to_string();
            assert!(refusal.starts_with("algorithm: algorithm fedbn: "), "{refusal}");
            continue;
        }
        let planned = spec.plan().unwrap();
        let fleet = fleet(&spec).unwrap();
        let measure = Measure::new(planned.model.clone(), &fleet, 24, 24, spec.seed);
        let mut setup = spec.setup(&planned, NonZeroUsize::MIN);
        let initial = planned.runner.initial(&planned.model.initial(spec.seed)).unwrap();
        let before = measure.of(&fleet, &initial, |_| None).unwrap();
        setup.initial = Some(initial.into());
        let mut federation = Federation::new(setup, fleet).unwrap();
        while federation.run_round().is_some() {}
        let model = federation.model().unwrap();
        let after = measure.of(federation.scenario(), &model, |client| federation.memory_of(client)).unwrap();
        assert!(after.loss < before.loss, "{}: {} after {}", algorithm.name, after.loss, before.loss);
        let keeps = (0..24).filter(|&client| federation.memory_of(client).is_some()).count();
        let may_keep = algorithm.client_keeps != "nothing";
        assert!(keeps == 0 || keeps == 24 && may_keep, "{}: {keeps} clients keep something", algorithm.name);
    }
}

#[test]
fn an_algorithm_that_wants_every_update_is_refused_where_the_server_sees_sums() {
    for algorithm in REGISTRY.iter().filter(|algorithm| {
        matches!(
            (algorithm.needs)(&algorithm.options(&Choice::of(algorithm.name)).unwrap()),
            Needs::EveryUpdate(_)
        )
    }) {
        let mut spec = small();
        spec.algorithm = AlgorithmSection { name: algorithm.name.into(), options: [].into() };
        let refusal = spec.plan().unwrap_err().to_string();
        assert!(refusal.contains("is for mode insecure_plain, not secagg: "), "{refusal}");
    }
}

#[test]
fn nobody_forges_what_is_more_than_an_update() {
    let mut spec = small();
    spec.attackers.clients = 1;
    spec.algorithm = AlgorithmSection { name: "scaffold".into(), options: [].into() };
    let refusal = spec.plan().unwrap_err().to_string();
    assert!(refusal.starts_with("attackers.clients is 1, accepted is 0 with algorithm.name"), "{refusal}");
}

#[test]
fn a_hierarchy_is_planned_for_all_rounds_of_a_region() {
    let mut spec = small();
    spec.population.clients = 100;
    spec.population.cohort = Some(24);
    let Hierarchy { rounds, .. } = spec.hierarchy.insert(Hierarchy {
        regions: 4,
        rounds: 3,
        weights: Weights::Uniform,
        conditions: spec.conditions(),
    });
    assert_eq!(*rounds, 3);
    let planned = spec.plan().unwrap();
    assert_eq!((planned.plan.rounds, planned.terms.affordable_rounds), (6, 6));
    let cloud = planned.cloud.clone().unwrap();
    assert_eq!((cloud.rounds, cloud.cohort.clients, cloud.mode.as_str()), (2, 4, "insecure_plain"));
    assert_ne!(cloud.id, planned.plan.id);
    let setup = spec.cloud_setup(&planned, NonZeroUsize::MIN).unwrap();
    assert_eq!((setup.clients, setup.plan.simulated), (4, true));
    let mut wrong = spec.clone();
    wrong.hierarchy.as_mut().unwrap().regions = 1;
    assert!(wrong.plan().unwrap_err().to_string().starts_with("hierarchy.regions is 1, accepted is 2 to"));
    wrong = spec.clone();
    wrong.attackers.clients = 1;
    assert!(wrong.plan().unwrap_err().to_string().starts_with("attackers.clients is 1, accepted is 0 in a"));
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

/// A row for each client, of whom five are poisoned and see what the others send.
fn seeing() -> Spec {
    let mut spec = small();
    spec.algorithm.name = "fedsgd".into();
    spec.algorithm.options =
        [("batch_size".into(), Setting::Number(8.0)), ("momentum".into(), Setting::Number(0.9))].into();
    spec.aggregation.mode = "insecure_plain".into();
    (spec.privacy.epsilon, spec.privacy.clip_norm) = (f64::INFINITY, f64::INFINITY);
    (spec.population.minimum, spec.rounds) = (Some(24), 3);
    (spec.robustness.rule, spec.robustness.assumed_byzantine) = ("trimmed-mean".into(), 5);
    spec.robustness.influence = false;
    (spec.attackers.clients, spec.attackers.attack) = (5, "alie".into());
    (spec.attackers.knowledge, spec.attackers.data) = ("all".into(), "sample".into());
    spec
}

#[test]
fn attackers_who_see_the_round_do_so_on_any_number_of_threads() {
    let first = history(&seeing());
    assert_eq!(first.len(), 3);
    assert_eq!(first, history_on(3, &seeing()));
    let mut guessing = seeing();
    guessing.attackers.knowledge = "fellows".into();
    assert_ne!(first, history(&guessing));
}

#[test]
fn nobody_sees_or_leaves_out_anything_in_groups() {
    let refused = |change: fn(&mut Spec)| {
        let mut spec = small();
        change(&mut spec);
        spec.plan().unwrap_err().to_string()
    };
    let found = refused(|spec| spec.attackers.knowledge = "all".into());
    assert!(
        found.starts_with("attackers.knowledge is all, accepted is fellows in modes with groups"),
        "{found}"
    );
    let found = refused(|spec| spec.attackers.knowledge = "some".into());
    assert_eq!(found, "attackers.knowledge is \"some\", accepted is fellows or all");
    let found = refused(|spec| spec.attackers.data = "none".into());
    assert_eq!(found, "attackers.data is \"none\", accepted is partition or sample");
    let found = refused(|spec| spec.robustness.influence = false);
    assert!(
        found.starts_with("robustness.influence is false, accepted is true in modes with groups"),
        "{found}"
    );
}
