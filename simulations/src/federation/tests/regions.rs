//! Federations whose clients are federations.

use super::super::regions;
use super::no_noise::without_noise;
use super::*;
use crate::datasets;
use crate::training::local_update;
use fedveil_learning::{Dataset, evaluate};
use std::num::NonZeroUsize;

/// Clients that go half of the way to a number of their own, in all parameters: where none are noised, clipped or left out, the
/// model is what a line on paper gives.
struct Halfway(Vec<f32>);

impl Scenario for &Halfway {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        let (_, model) = model_file::from_safetensors(work.model).unwrap();
        let target = self.0[work.client];
        let update = model.iter().map(|value| (target - value) / 2.0).collect();
        // It counts its trainings, of which each is of a later round.
        let times = work.memory.map_or(0, |memory| memory[0]);
        assert!(work.round > u32::from(times), "round {} of client {}", work.round, work.client);
        Ok(Trained {
            contribution: Contribution::Update(update),
            memory: Some(Bytes::copy_from_slice(&[times + 1])),
        })
    }
}

fn hierarchy(regions: u32, rounds: u32, weights: Weights) -> Hierarchy {
    Hierarchy { regions, rounds, weights, conditions: Conditions::default() }
}

/// A plan without noise in which all of so many take part.
fn all_of(clients: u32, rounds: u32) -> Setup {
    let mut setup = without_noise(f64::INFINITY);
    setup.plan.rounds = rounds;
    setup.plan.cohort = Cohort { clients, minimum: clients, assumed_malicious: 0, population: None };
    setup.clients = clients as usize;
    setup
}

/// The model after each round, which is the same in all parameters.
fn value_of(model: &[u8]) -> f32 {
    let (_, parameters) = model_file::from_safetensors(model).unwrap();
    assert!(parameters.iter().all(|value| *value == parameters[0]), "{parameters:?}");
    parameters[0]
}

fn zeros() -> Bytes {
    let spec: ModelSpec = "softmax:8x3".parse().unwrap();
    model_file::to_safetensors(&spec, &[0.0; PARAMETERS]).unwrap().into()
}

#[test]
fn two_regions_of_two_clients_come_to_what_a_calculation_gives() {
    let clients = Halfway(vec![1.0, 3.0, 5.0, 9.0]);
    let mut cloud = all_of(2, 2);
    cloud.initial = Some(zeros());
    let mut region = all_of(2, 1);
    region.clients = 4;
    let regions = Regions::new(&hierarchy(2, 2, Weights::Uniform), &cloud, region, |_, _| &clients).unwrap();
    assert_eq!(regions.plan().rounds, 4);
    let mut federation = Federation::new(cloud, regions).unwrap();
    // Region 0 goes half of the way to 2, twice: 1, 1.5. Region 1 to 7: 3.5, 5.25. The cloud takes the mean.
    let round = federation.run_round().unwrap();
    assert_eq!((round.cohort, round.inputs), (2, 2));
    assert_eq!(value_of(&federation.model().unwrap()), 3.375);
    // From there 2.6875, 2.34375 and 5.1875, 6.09375.
    federation.run_round().unwrap();
    assert_eq!(value_of(&federation.model().unwrap()), 4.21875);
    let (newest, told) = federation.scenario().newest();
    assert_eq!((newest, told.len()), (2, 2));
    for summaries in told.values() {
        let found: Vec<(u32, usize)> = summaries.iter().map(|it| (it.round, it.inputs)).collect();
        assert_eq!(found, [(3, 2), (4, 2)]);
    }
    assert!(federation.run_round().is_none());
}

#[test]
fn a_region_counts_for_its_clients_or_as_any_other() {
    let clients = Halfway(vec![4.0, 8.0, 8.0, 8.0, 8.0]);
    // Regions of 2 and 3 clients: from 0 to 3 and to 4. The weights are 2/2.5 and 3/2.5.
    for (weights, expected) in [(Weights::Uniform, 3.5), (Weights::Clients, 1.5 * 0.8 + 2.0 * 1.2)] {
        let mut cloud = all_of(2, 1);
        cloud.initial = Some(zeros());
        let mut region = all_of(2, 1);
        region.clients = 5;
        region.plan.cohort.clients = 3;
        let regions = Regions::new(&hierarchy(2, 1, weights), &cloud, region, |_, _| &clients).unwrap();
        let mut federation = Federation::new(cloud, regions).unwrap();
        federation.run();
        let found = value_of(&federation.model().unwrap());
        assert!((found - expected).abs() < 1e-6, "{weights:?}: {found}, expected {expected}");
    }
}

#[test]
fn each_level_has_its_own_mode() {
    // Nine regions under masks and noise of the cloud's own, of two clients each in the clear.
    let clients = Halfway(vec![0.1; 18]);
    let mut cloud = groups_of_nine(1);
    cloud.plan.privacy.clip_norm = 10.0;
    let mut region = all_of(2, 1);
    region.clients = 18;
    let regions = Regions::new(&hierarchy(9, 2, Weights::Uniform), &cloud, region, |_, _| &clients).unwrap();
    let mut federation = Federation::new(cloud, regions).unwrap();
    federation.run();
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    // Two regions in the clear, of nine clients each under masks and noise.
    let clients = Halfway(vec![0.1; 18]);
    let cloud = all_of(2, 2);
    let mut region = groups_of_nine(1);
    region.clients = 18;
    let regions = Regions::new(&hierarchy(2, 1, Weights::Uniform), &cloud, region, |_, _| &clients).unwrap();
    let mut federation = Federation::new(cloud, regions).unwrap();
    federation.run();
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    let (_, told) = federation.scenario().newest();
    assert!(told.values().flatten().all(|round| round.bytes_up > 9 * 100 && round.inputs == 9));
}

#[test]
fn a_budget_pays_for_all_rounds_of_a_region_or_nothing_runs() {
    let clients = Halfway(vec![0.0; 18]);
    let cloud = all_of(2, 3);
    let mut region = groups_of_nine(1);
    region.clients = 18;
    let mut whole = region.plan.clone();
    whole.rounds = 6;
    let six = whole.check().unwrap().guarantee.epsilon(6);
    let made = |epsilon: f64| {
        let mut region = region.clone();
        region.plan.privacy.epsilon = epsilon;
        // A plan of the two rounds of one round of the cloud would be paid for.
        region.plan.rounds = 2;
        assert_eq!(region.plan.check().unwrap().affordable_rounds, 2);
        Regions::new(&hierarchy(2, 2, Weights::Uniform), &cloud, region, |_, _| &clients)
    };
    let accepted = made(six * 1.000_001).unwrap();
    assert_eq!(accepted.plan().rounds, 6);
    let budget = six * 0.999;
    let error = made(budget).err().unwrap().to_string();
    let expected = format!(
        "a client's region runs 6 rounds, which cost epsilon {six:.2}; privacy.epsilon is {budget}, which pays for 5"
    );
    assert_eq!(error, expected);
}

#[test]
fn hierarchies_that_cannot_be_are_refused() {
    let clients = Halfway(vec![0.0; 8]);
    let cloud = all_of(4, 3);
    let mut region = all_of(2, 1);
    region.clients = 8;
    let refused = |hierarchy: &Hierarchy, cloud: &Setup, region: &Setup| {
        Regions::new(hierarchy, cloud, region.clone(), |_, _| &clients).err().unwrap().to_string()
    };
    let fits = hierarchy(4, 2, Weights::Uniform);
    for (regions, rounds, expected) in [
        (0, 1, "hierarchy.regions is 0, accepted is 1 to 8, the clients there are"),
        (9, 1, "hierarchy.regions is 9, accepted is 1 to 8, the clients there are"),
        (3, 1, "the cloud has 4 clients, accepted is 3, its regions"),
        (4, 0, "hierarchy.rounds is 0, accepted is a number from 1 of which 3 times as many can be counted"),
    ] {
        let found = refused(&hierarchy(regions, rounds, Weights::Uniform), &cloud, &region);
        assert_eq!(found, expected);
    }
    let change = |change: fn(&mut Setup)| {
        let mut region = region.clone();
        change(&mut region);
        refused(&fits, &cloud, &region)
    };
    let other = change(|region| region.plan.model.architecture = "softmax:2x9".to_owned());
    assert_eq!(other, "the regions' model is softmax:2x9 of 27, the cloud's is softmax:8x3 of 27");
    let small = change(|region| region.plan.cohort = Cohort { clients: 3, minimum: 3, ..region.plan.cohort });
    assert!(small.starts_with("region 0: 2 clients check in for a round"), "{small}");
    let correlated = change(|region| {
        region.plan.privacy = plain::in_the_clear("central").plan.privacy;
        region.plan.privacy.correlated_noise = Some(fedveil_proto_plan::CorrelatedNoise {
            matrix: "toeplitz".to_owned(),
            bands: None,
            min_separation: 1,
            max_participations: 1,
        });
    });
    assert!(correlated.starts_with("privacy.correlated_noise is not for regions"), "{correlated}");
    let mut late = fits.clone();
    late.conditions.network.loss = 2.0;
    assert!(refused(&late, &cloud, &region).starts_with("hierarchy.conditions: network.loss is 2"));
}

#[test]
fn a_region_that_makes_no_model_declines_and_the_others_go_on() {
    struct Refusing;
    impl Scenario for Refusing {
        fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
            if work.client < 2 {
                return Err("no data".to_owned());
            }
            Ok(Contribution::Update(vec![1.0; PARAMETERS]).into())
        }
    }
    let mut cloud = all_of(3, 1);
    cloud.initial = Some(zeros());
    let mut region = all_of(2, 1);
    region.clients = 6;
    let regions = Regions::new(&hierarchy(3, 1, Weights::Uniform), &cloud, region, |_, _| Refusing).unwrap();
    let mut federation = Federation::new(cloud, regions).unwrap();
    let round = federation.run_round().unwrap();
    assert_eq!((round.inputs, round.dropped), (2, 1));
    assert_eq!(value_of(&federation.model().unwrap()), 1.0);
    let reasons: Vec<String> = federation
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ClientDropped { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert!(reasons[0].contains("region 0 has made no model"), "{reasons:?}");
}

#[test]
fn one_history_on_any_number_of_threads_and_over_a_resumption() {
    let clients = Halfway((0..30).map(|client| client as f32 / 16.0).collect());
    let run = |threads, keep: Keep, rounds: Option<usize>| {
        let mut cloud = all_of(3, 4);
        (cloud.clients, cloud.attendance) = (5, Attendance::CheckIn { clients: 3 });
        (cloud.threads, cloud.keep) = (NonZeroUsize::new(threads).unwrap(), keep);
        let mut region = all_of(4, 1);
        (region.clients, region.attendance) = (30, Attendance::CheckIn { clients: 4 });
        let regions =
            Regions::new(&hierarchy(5, 3, Weights::Clients), &cloud, region, |_, _| &clients).unwrap();
        let mut federation = Federation::resume(cloud, regions).unwrap();
        for _ in 0..rounds.unwrap_or(usize::MAX) {
            if federation.run_round().is_none() {
                break;
            }
        }
        (federation.store().digest(), federation.coordinator().model(), federation.memories.clone())
    };
    let expected = run(1, Keep::Everything, None);
    assert!(expected.2.values().any(|memory| memory.len() > 4 * 9), "regions keep what their clients keep");
    assert!(run(3, Keep::Everything, None) == expected);
    let folder = tempfile::TempDir::new().unwrap();
    let keep = || Keep::Folder { path: folder.path().to_owned(), events: Events::All, every: 1 };
    run(2, keep(), Some(2));
    assert!(run(2, keep(), None) == expected);
}

#[test]
fn what_regions_keep_is_packed_and_unpacked() {
    let memories: BTreeMap<u32, Bytes> = [(3, vec![1, 2, 3]), (9, Vec::new()), (u32::MAX, vec![7; 300])]
        .map(|(client, memory)| (client, memory.into()))
        .into();
    let bytes = regions::packed(&memories);
    assert_eq!(regions::unpacked(&bytes).unwrap(), memories);
    for cut in [1, 7, 10, bytes.len() - 1] {
        assert_eq!(regions::unpacked(&bytes[..cut]).unwrap_err(), "a region's memory ends inside an entry");
    }
}

/// Clients with digits.
struct Digits(Vec<Dataset>);

impl Scenario for &Digits {
    fn contribute(&self, &Work { client, round, model, plan, .. }: &Work<'_>) -> Result<Trained, String> {
        let seed = u64::from(round) << 32 | client as u64;
        let update = local_update(&self.0[client], model, plan, seed).map_err(|error| error.to_string())?;
        Ok(Contribution::Update(update).into())
    }
}

#[test]
fn the_cloud_waits_as_long_as_its_regions_take() {
    struct Slow;
    impl Scenario for Slow {
        fn contribute(&self, _work: &Work<'_>) -> Result<Trained, String> {
            Ok(Contribution::Update(vec![1.0; PARAMETERS]).into())
        }
        /// Clients 0 to 5, in two rounds of the region: 1 to 6 seconds, and twice as long in every second round.
        fn training_time(&self, client: usize, round: u32) -> u64 {
            1_000 * (client as u64 + 1) * if round.is_multiple_of(2) { 2 } else { 1 }
        }
    }
    for threads in [1, 3] {
        let mut cloud = all_of(3, 2);
        cloud.plan.phase_seconds = 3_600;
        cloud.threads = NonZeroUsize::new(threads).unwrap();
        let mut region = all_of(2, 1);
        region.clients = 6;
        let mut between = hierarchy(3, 2, Weights::Uniform);
        between.conditions.compute.training_ms = serde_json::from_str("500").unwrap();
        let regions = Regions::new(&between, &cloud, region, |_, _| Slow).unwrap();
        let mut federation = Federation::new(cloud, regions).unwrap();
        // The slowest client trains for 6 and for 12 seconds.
        for end in [18_500, 37_000] {
            let round = federation.run_round().unwrap();
            assert_eq!((round.ended, round.inputs), (Millis(end), 3));
            let (_, told) = federation.scenario().newest();
            let ends: Vec<u64> = told.values().map(|told| told[1].ended.0).collect();
            assert_eq!(ends, [6_000, 12_000, 18_000]);
        }
    }
}

#[test]
fn a_hierarchy_learns_the_digits_and_talks_less_to_the_cloud() {
    let (train, test) = datasets::split(&datasets::digits(), datasets::TEST_SHARE, 5).unwrap();
    let mut order: Vec<usize> = (0..train.len()).collect();
    order.sort_by_key(|&row| (train.labels()[row] + 10 * (row as u32 % 2) % 13, row));
    let shares = order.chunks(order.len().div_ceil(20)).map(|rows| train.subset(rows).unwrap());
    let clients = Digits(shares.collect());
    let spec: ModelSpec = "softmax:64x10".parse().unwrap();
    let digits = |mut setup: Setup| {
        setup.plan.model = Model { architecture: spec.name().to_owned(), parameters: 650 };
        setup.plan.training = Training::sgd(2, 32, 0.1);
        setup
    };
    let cloud = digits(all_of(4, 5));
    let mut region = digits(all_of(5, 1));
    region.clients = 20;
    let regions = Regions::new(&hierarchy(4, 2, Weights::Clients), &cloud, region, |_, _| &clients).unwrap();
    let mut federation = Federation::new(cloud, regions).unwrap();
    let (mut to_cloud, mut within) = (0, 0);
    while let Some(round) = federation.run_round() {
        to_cloud += round.bytes_up;
        let (_, told) = federation.scenario().newest();
        within += told.values().flatten().map(|round| round.bytes_up).sum::<u64>();
    }
    let (_, parameters) = model_file::from_safetensors(&federation.model().unwrap()).unwrap();
    let accuracy = evaluate(&spec, &parameters, &test).unwrap().accuracy;
    println!("accuracy {accuracy:.3}, {to_cloud} bytes to the cloud, {within} within regions");
    assert!(accuracy > 0.8, "{accuracy}");
    assert!(to_cloud * 8 < within, "ten times as many clients' updates as regions': {to_cloud}, {within}");
}
