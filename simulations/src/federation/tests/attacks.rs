//! Every attack of the registry, by colluders who are clients like others, through the whole protocol.

use super::*;
use crate::attack::{ATTACKS, Attack, Conspiracy, Member};
use crate::training::local_update;
use crate::{datasets, partition};
use fedveil_learning::Dataset;
use std::sync::Mutex;

/// The colluders: one in a group, or both in one.
const COLLUDERS: [usize; 2] = [3, 30];

/// 45 clients in five groups of nine, of which the rule bears two bad ones.
fn setup(rounds: u32) -> Setup {
    let mut setup = groups_of_nine(5);
    setup.plan.rounds = rounds;
    setup.plan.model = Model { architecture: "softmax:25x10".to_owned(), parameters: 260 };
    setup.plan.privacy.clip_norm = 0.5;
    setup.plan.server.rule = "mda".to_owned();
    setup.plan.server.assumed_byzantine = 2;
    setup
}

/// Images for each client.
fn shares(clients: usize) -> Vec<Dataset> {
    let images = datasets::digits();
    let rows = partition::even::dirichlet(images.labels(), images.classes(), clients, 1.0, 1).unwrap();
    rows.iter().map(|rows| images.subset(rows).unwrap()).collect()
}

fn conspiracy(attack: Attack, shares: &[Dataset]) -> Conspiracy {
    let member = |&index: &usize| Member { data: shares[index].clone(), seed: index as u64 };
    Conspiracy::new(attack, COLLUDERS.iter().map(member).collect(), datasets::spectrum_of, 5)
}

/// Honest clients, and colluders each of whom has its own copy of what they know.
struct Infiltrated {
    honest: Vec<Dataset>,
    colluders: BTreeMap<usize, Mutex<Conspiracy>>,
}

impl Infiltrated {
    fn new(attack: Attack, clients: usize) -> Self {
        let shares = shares(clients);
        let colluders = COLLUDERS.map(|client| (client, Mutex::new(conspiracy(attack, &shares)))).into();
        Self { honest: shares.iter().map(datasets::spectrum_of).collect(), colluders }
    }
}

impl Scenario for Infiltrated {
    fn contribute(&self, &Work { client, round, model, plan, .. }: &Work<'_>) -> Result<Trained, String> {
        if let Some(conspiracy) = self.colluders.get(&client) {
            let mut conspiracy = conspiracy.lock().unwrap();
            let member = COLLUDERS.iter().position(|colluder| *colluder == client).expect("it is one");
            let values = conspiracy.contribute(member, round, model, plan).map_err(|error| error.to_string());
            return Ok(Contribution::DangerUnbounded(values?).into());
        }
        let seed = client as u64 + u64::from(round);
        let update = local_update(&self.honest[client], model, plan, seed).map_err(|error| error.to_string());
        Ok(Contribution::Update(update?).into())
    }
}

#[test]
fn every_attack_runs_and_breaks_no_round() {
    for spec in &ATTACKS {
        let attack = Attack::new(spec.name, None).unwrap();
        let setup = setup(2);
        let scenario = Infiltrated::new(attack, setup.clients);
        let mut federation = Federation::new(setup, scenario).unwrap();
        federation.run();
        let events = federation.events();
        assert_eq!(published(&events), [0, 1, 2], "{attack}: {:?}", aborted(&events));
        for device in federation.devices() {
            assert!(device.refusals().is_empty(), "{attack}: {:?}", device.refusals());
            let (_, parameters) = model_file::from_safetensors(device.model().unwrap().1).unwrap();
            // A rule that let infinity in would have moved the model by thousands.
            assert!(parameters.iter().all(|value| value.abs() < 10.0), "{attack}");
        }
        let charged = charges(&events).values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(charged, 2 * 45, "{attack}: colluders declined");
    }
}

/// The steps that the colluders send in round 1 of the setup, and the plan's numbers for it.
fn sent(attack: Attack) -> ([Vec<i64>; 2], Vec<Dataset>, Vec<u8>, TaskPlan) {
    let Setup { plan, clients, .. } = setup(1);
    let spec: ModelSpec = plan.model.architecture.parse().unwrap();
    let model = model_file::to_safetensors(&spec, &spec.initial(1)).unwrap();
    let shares = shares(clients);
    let send = |member| conspiracy(attack, &shares).contribute(member, 1, &model, &plan).unwrap();
    let steps = [send(0), send(1)];
    (steps, shares, model, plan)
}

/// L2 norm in clip norms.
fn norm(steps: &[i64], plan: &TaskPlan) -> f64 {
    let squares: f64 = steps.iter().map(|&step| (step as f64).powi(2)).sum();
    squares.sqrt() / f64::from(plan.privacy.resolution)
}

#[test]
fn loud_attacks_have_the_norm_that_is_their_strength() {
    for (name, default) in
        [("sign-flip", 40.0), ("gaussian", 40.0), ("label-flip", 40.0), ("scale", 40.0), ("edge-case", 10.0)]
    {
        for (strength, expected) in [(None, default), (Some(3.0), 3.0)] {
            let ([one, two], _, _, plan) = sent(Attack::new(name, strength).unwrap());
            for steps in [&one, &two] {
                assert!((norm(steps, &plan) / expected - 1.0).abs() < 1e-3, "{name}: {}", norm(steps, &plan));
            }
            assert_ne!(one, two, "{name}: colluders have streams and data of their own");
        }
    }
}

#[test]
fn infinity_becomes_the_largest_ring_value() {
    let ([one, two], _, _, plan) = sent(Attack::new("infinity", None).unwrap());
    let largest = (1_i64 << (plan.check().unwrap().guarantee.ring_bits - 1)) - 1;
    assert!(one.iter().chain(&two).all(|&step| step == largest));
}

#[test]
fn a_colluder_moves_the_mean_of_its_group_to_the_vector() {
    // The vector of mimic is the first colluder's honest update u. The rest of nine is expected to add 4 (u + v),
    // and nine times u less that is 5 u - 4 v.
    let ([one, two], shares, model, plan) = sent(Attack::new("mimic", None).unwrap());
    assert_eq!(one, two);
    let clip = plan.privacy.clip_norm;
    let [u, v] = COLLUDERS.map(|client| {
        let features = datasets::spectrum_of(&shares[client]);
        let update = local_update(&features, &model, &plan, client as u64 + 1).unwrap();
        let update: Vec<f64> = update.into_iter().map(f64::from).collect();
        let norm = update.iter().map(|value| value * value).sum::<f64>().sqrt();
        update.iter().map(|value| value * (clip / norm).min(1.0)).collect::<Vec<f64>>()
    });
    let steps = f64::from(plan.privacy.resolution) / clip;
    let vector: Vec<f64> = u.iter().zip(&v).map(|(u, v)| (5.0 * u - 4.0 * v) * steps).collect();
    assert_is_rotated(&one, &vector, 1, &model, &plan);
}

/// Checks steps against a vector in the model's coordinates, in steps.
fn assert_is_rotated(found: &[i64], vector: &[f64], round: u32, model: &[u8], plan: &TaskPlan) {
    let mut expected: Vec<f32> = vector.iter().map(|&value| value as f32).collect();
    let seed = plan.rotation_seed(round, &Digest::of(model));
    Rotation::new(&seed, expected.len()).forward(&mut expected);
    for (found, expected) in found.iter().zip(expected) {
        assert!((*found as f64 - f64::from(expected)).abs() < 0.51, "{found}, {expected}");
    }
}

#[test]
fn crafted_rows_are_those_of_all_colluders() {
    for spec in ATTACKS.iter().filter(|spec| spec.needs() != crate::attack::Needs::Nothing) {
        let ([one, two], ..) = sent(Attack::new(spec.name, None).unwrap());
        assert_eq!(one, two, "{}", spec.name);
        assert!(one.iter().any(|&step| step != 0), "{}", spec.name);
    }
}

#[test]
fn replacement_multiplies_by_clients_over_colluders() {
    let (default, ..) = sent(Attack::new("backdoor", None).unwrap());
    let (single, _, _, plan) = sent(Attack::new("backdoor", Some(1.0)).unwrap());
    for (default, single) in default.iter().zip(&single) {
        let ratio = norm(default, &plan) / norm(single, &plan);
        assert!((ratio / 22.5 - 1.0).abs() < 1e-2, "{ratio}");
    }
}

#[test]
fn the_lazy_send_the_published_step_and_zero_before_there_is_one() {
    let Setup { plan, clients, .. } = setup(1);
    let spec: ModelSpec = plan.model.architecture.parse().unwrap();
    let old = spec.initial(1);
    let new: Vec<f32> = old.iter().zip(0..).map(|(value, at)| value + at as f32 / 1024.0).collect();
    let mut conspiracy = conspiracy(Attack::new("lazy", None).unwrap(), &shares(clients));
    let mut send = |round, parameters: &[f32]| {
        let model = model_file::to_safetensors(&spec, parameters).unwrap();
        (conspiracy.contribute(0, round, &model, &plan).unwrap(), model)
    };
    assert!(send(1, &old).0.iter().all(|step| *step == 0));
    let (steps, model) = send(2, &new);
    // 1/1024 is two steps of 1/2048.
    let expected: Vec<f64> = (0..260).map(|at| f64::from(2 * at)).collect();
    assert_is_rotated(&steps, &expected, 2, &model, &plan);
    assert_eq!(send(2, &new).0, steps, "asked twice");
}
