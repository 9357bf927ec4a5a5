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

/// 12 clients in the clear without noise, of whom two collude and see what the others send.
struct Seen {
    conspiracy: Mutex<Conspiracy>,
    /// What honest clients have computed, by round and client, and what colluders have sent.
    honest: Mutex<BTreeMap<u32, BTreeMap<usize, Vec<f64>>>>,
    sent: Mutex<BTreeMap<(u32, usize), Vec<i64>>>,
    shares: Vec<Dataset>,
}

const SEEING: [usize; 2] = [0, 7];

impl Seen {
    fn new(attack: Attack) -> Self {
        let shares = shares(12);
        let member = |&index: &usize| Member { data: shares[index].clone(), seed: index as u64 };
        let members = SEEING.iter().map(member).collect();
        let conspiracy = Mutex::new(Conspiracy::new(attack, members, datasets::spectrum_of, 5));
        Self { conspiracy, honest: Mutex::default(), sent: Mutex::default(), shares }
    }

    fn run(self, threads: usize, clip_norm: f64) -> Federation<Self> {
        let mut setup = plain::in_the_clear("local");
        setup.plan.privacy = Privacy::none(clip_norm);
        setup.policy =
            Policy { allow_insecure_plain: true, allow_insecure_no_noise: true, ..Policy::default() };
        setup.plan.model = Model { architecture: "softmax:25x10".to_owned(), parameters: 260 };
        setup.plan.server.rule = "trimmed-mean".to_owned();
        setup.plan.server.assumed_byzantine = 2;
        setup.threads = threads.try_into().unwrap();
        let mut federation = Federation::new(setup, self).unwrap();
        federation.run();
        assert_eq!(published(&federation.events()), [0, 1, 2], "{:?}", aborted(&federation.events()));
        federation
    }
}

impl Scenario for Seen {
    fn contribute(&self, &Work { client, round, model, plan, .. }: &Work<'_>) -> Result<Trained, String> {
        if let Some(member) = SEEING.iter().position(|colluder| *colluder == client) {
            let honest = || self.honest.lock().unwrap()[&round].values().cloned().collect();
            let mut conspiracy = self.conspiracy.lock().unwrap();
            let sent = conspiracy.contribute_seeing(member, round, model, plan, honest).unwrap();
            self.sent.lock().unwrap().insert((round, client), sent.clone());
            return Ok(Contribution::DangerUnbounded(sent).into());
        }
        let data = datasets::spectrum_of(&self.shares[client]);
        let update = local_update(&data, model, plan, client as u64 + u64::from(round)).unwrap();
        let seen = update.iter().map(|&value| f64::from(value)).collect();
        self.honest.lock().unwrap().entry(round).or_default().insert(client, seen);
        Ok(Contribution::Update(update).into())
    }

    fn looks_at_others(&self, client: usize) -> bool {
        SEEING.contains(&client)
    }

    fn training_time(&self, client: usize, _round: u32) -> u64 {
        if SEEING.contains(&client) { 30_000 } else { client as u64 }
    }
}

#[test]
fn in_the_clear_attackers_may_see_every_honest_update_of_the_round() {
    for name in ["ipm", "opt-alie", "mimic", "sign-flip", "label-flip"] {
        let attack = Attack::new(name, None).unwrap();
        let federation = Seen::new(attack).run(1, f64::INFINITY);
        let Seen { honest, sent, .. } = federation.scenario();
        let (honest, sent) = (honest.lock().unwrap(), sent.lock().unwrap());
        assert_eq!((honest.len(), sent.len()), (2, 4), "{name}");
        let reals = |steps: &[i64]| -> Vec<f64> {
            steps.iter().map(|&step| step as f64 / f64::from(1 << 24)).collect()
        };
        let rows: Vec<Vec<f64>> = honest[&1].values().cloned().collect();
        assert_eq!(rows.len(), 10, "{name}: every honest update");
        let mean = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / 10.0;
        let expected: Vec<f64> = match name {
            "ipm" => (0..260).map(|at| -2.0 * mean(at)).collect(),
            "mimic" => rows[0].clone(),
            "opt-alie" => {
                let rule = "trimmed-mean".parse().unwrap();
                let knowledge = crate::attack::Knowledge::of_honest(&rows, 2).with_rule(&rule, 2);
                attack.craft(&knowledge, &mut stream(1, "unused", 0, 0)).unwrap()
            }
            // As published: no louder than an honest update.
            _ => {
                let spec: ModelSpec = "softmax:25x10".parse().unwrap();
                let parameters = spec.initial(federation.seed());
                let model = model_file::to_safetensors(&spec, &parameters).unwrap();
                let data = datasets::spectrum_of(&federation.scenario().shares[0]);
                let data = if name == "sign-flip" { data } else { data.relabel(|label| 9 - label).unwrap() };
                let plan = federation.coordinator().plan().plan().clone();
                let sign = if name == "sign-flip" { -1.0 } else { 1.0 };
                let update = local_update(&data, &model, &plan, 1).unwrap();
                update.into_iter().map(|value| sign * f64::from(value)).collect()
            }
        };
        let found = reals(&sent[&(1, 0)]);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, {expected}");
        }
    }
}

#[test]
fn what_attackers_see_does_not_depend_on_threads() {
    let models = |threads| {
        let federation = Seen::new(Attack::new("alie", None).unwrap()).run(threads, 0.5);
        federation.model().unwrap().to_vec()
    };
    assert_eq!(models(1), models(3));
}

#[test]
fn a_loud_attacker_in_the_clear_is_as_long_as_the_coordinator_takes() {
    let attack = Attack::new("sign-flip", Some(40.0)).unwrap();
    let federation = Seen::new(attack).run(1, 0.5);
    let sent = federation.scenario().sent.lock().unwrap();
    for steps in sent.values() {
        let squares: f64 = steps.iter().map(|&step| (step as f64 / f64::from(1 << 24)).powi(2)).sum();
        assert!((squares.sqrt() / 0.5 - 1.0).abs() < 1e-3, "{squares}");
    }
    let dropped =
        federation.events().iter().filter(|event| matches!(event, Event::ClientDropped { .. })).count();
    assert_eq!(dropped, 0, "nobody is refused");
}

#[test]
fn nobody_sees_an_honest_update_in_groups() {
    let Setup { plan, clients, .. } = setup(1);
    let spec: ModelSpec = plan.model.architecture.parse().unwrap();
    let model = model_file::to_safetensors(&spec, &spec.initial(1)).unwrap();
    let mut conspiracy = conspiracy(Attack::new("ipm", None).unwrap(), &shares(clients));
    let error = conspiracy.contribute_seeing(0, 1, &model, &plan, || panic!("not asked")).unwrap_err();
    assert!(error.to_string().starts_with("in mode secagg nobody sees"), "{error}");
}
