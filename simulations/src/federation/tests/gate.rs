//! The gate: models that pass the rule, and are not published for what they do.

use super::*;
use crate::attack::{Attack, Conspiracy, Member, Poison};
use crate::hold_out::HeldOut;
use crate::training::{difference, local_update};
use crate::{datasets, partition};
use fedveil_coordinator_core::{Evaluation, HoldOut};
use fedveil_learning::Dataset;
use fedveil_proto_plan::{AdaptiveClipping, FederatedEvaluation, Gate, Measured};
use fedveil_provenance::Manifest;

/// A gate without bounds, to be given some.
fn gate() -> Gate {
    Gate {
        max_step_norm: None,
        max_accuracy_drop: None,
        max_trigger_success: None,
        evaluation: None,
        max_rejections: 3,
    }
}

/// Two groups under a plain mean, with momentum and a clip norm that moves; no honest step is as long as 3.
fn bounded_steps(rounds: u32) -> Setup {
    let mut setup = groups_of_nine(2);
    setup.plan.rounds = rounds;
    setup.plan.server.momentum = 0.5;
    setup.plan.server.gate = Some(Gate { max_step_norm: Some(3.0), ..gate() });
    setup.plan.privacy.adaptive_clip = Some(AdaptiveClipping {
        quantile: 0.5,
        learning_rate: 0.2,
        noise_multiplier: 6.0,
        minimum: 1e-3,
        maximum: 1e3,
    });
    setup.plan.privacy.epsilon = 40.0;
    setup.policy = Policy { max_epsilon: 40.0, max_total_epsilon: 40.0, ..Policy::default() };
    setup
}

/// Everyone is honest but in these rounds, in which everyone sends four clip norms and a half, which the ring still holds.
fn loud_in(rounds: &'static [u32]) -> Script {
    Script::default().contributing(|_, round| {
        Ok(if rounds.contains(&round) {
            Contribution::DangerUnbounded(vec![900; PARAMETERS])
        } else {
            Contribution::Update(vec![0.01; PARAMETERS])
        })
    })
}

/// What the gate rejected: round, model, reason.
fn rejected(events: &[Event]) -> Vec<(u32, Digest, &str)> {
    let rejection = |event| match event {
        &Event::ModelRejected { round, model, ref reason, .. } => Some((round, model, reason.as_str())),
        _ => None,
    };
    events.iter().filter_map(rejection).collect()
}

fn measured(events: &[Event]) -> BTreeMap<u32, Measured> {
    let measurement = |event: &Event| match event {
        Event::Published { round, measured, .. } => Some((*round, (*measured)?)),
        Event::ModelRejected { round, measured, .. } => Some((*round, *measured)),
        _ => None,
    };
    events.iter().filter_map(measurement).collect()
}

/// Model, what the optimiser keeps, clip norm and manifest of a published round.
fn publication(federation: &Scripted, wanted: u32) -> (Digest, Vec<f64>, f64, Manifest) {
    let events = federation.events();
    let (model, momentum, clip_norm, manifest) = events
        .iter()
        .find_map(|event| match event {
            Event::Published { round, model, momentum, clip_norm, manifest, .. } if *round == wanted => {
                Some((*model, momentum.unwrap(), clip_norm.unwrap(), manifest))
            }
            _ => None,
        })
        .unwrap();
    let memory = federation.store().blob(&momentum).unwrap();
    let memory = memory.as_chunks::<8>().0.iter().map(|word| f64::from_le_bytes(*word)).collect();
    let signer = federation.secrets.signing.verifying_key();
    (model, memory, clip_norm, Manifest::verify(&manifest.0, &[signer], 1).unwrap())
}

fn parameters(federation: &Scripted, model: &Digest) -> Vec<f32> {
    model_file::from_safetensors(&federation.store().blob(model).unwrap()).unwrap().1
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn a_rejected_model_is_given_to_nobody_and_the_next_round_goes_on_from_the_last_good_one() {
    let mut federation = federation(bounded_steps(3), loud_in(&[2]));
    assert!(federation.run_until(|federation| !aborted(&federation.events()).is_empty()));
    let good = publication(&federation, 1).0;
    assert_eq!(federation.coordinator().model(), Some(good));
    federation.run();
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 3]);
    let [(2, model, reason)] = rejected(&events)[..] else { panic!("{:?}", rejected(&events)) };
    assert!(reason.starts_with("its step has norm ") && reason.ends_with("accepted is up to 3"), "{reason}");
    assert_eq!(aborted(&events), [(2, format!("the gate rejected the model: {reason}").as_str())]);
    assert!(federation.store().blob(&model).is_err(), "the model is nowhere");

    // Everybody paid for it.
    let everyone: usize =
        charges(&events).iter().filter(|((round, _), _)| *round == 2).map(|(_, c)| c.len()).sum();
    assert_eq!(everyone, 18);
    assert_eq!(
        federation.coordinator().epsilon_spent(),
        federation.coordinator().terms().guarantee.epsilon(3)
    );

    // Round 3 begins where round 1 ended: model, momentum, clip norm.
    let (first, memory, clip, _) = publication(&federation, 1);
    let (third, later_memory, later_clip, manifest) = publication(&federation, 3);
    let (old, new) = (parameters(&federation, &first), parameters(&federation, &third));
    let step = old.iter().zip(&new).map(|(old, new)| f64::from(*new) - f64::from(*old));
    let found = measured(&events)[&3].step_norm;
    assert!((norm(step) - found).abs() < 1e-6 && found < 3.0, "{found}");
    let carried = later_memory.iter().zip(&memory).map(|(later, earlier)| later - 0.5 * earlier);
    assert!(norm(carried) < 1.6, "the momentum of round 3 is half of round 1's and its own update");
    let indicator = federation.coordinator().terms().guarantee.indicator.clone().unwrap();
    let before = fedveil_privacy::ClipNorm::new(clip).unwrap();
    indicator.clip.check_step(before, later_clip, 1).unwrap();

    // The next manifest tells of it, and clients take that manifest.
    assert_eq!(manifest.round.parent, federation.coordinator().log().leaf(1).ok().map(Digest::of));
    let [listed] = manifest.round.rejected.as_slice() else { panic!("{:?}", manifest.round.rejected) };
    assert_eq!((listed.round, listed.model, listed.reason.as_str()), (2, model, reason));
    assert!(publication(&federation, 1).3.round.rejected.is_empty());
    for device in federation.devices() {
        assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        let (round, file) = device.model().unwrap();
        assert_eq!((round, Digest::of(file)), (3, third));
    }
}

#[test]
fn a_task_ends_after_as_many_rejections_in_a_row_as_its_plan_bears() {
    let mut setup = bounded_steps(9);
    setup.plan.server.gate.as_mut().unwrap().max_rejections = 2;
    let federation = finished(setup, loud_in(&[1, 3, 4, 5, 6, 7, 8, 9]));
    let events = federation.events();
    assert_eq!(published(&events), [0, 2]);
    let rounds: Vec<u32> = rejected(&events).iter().map(|(round, ..)| *round).collect();
    assert_eq!(rounds, [1, 3, 4], "the first was followed by a model that passed");
    assert!(end(&events).starts_with("the gate rejected 2 models in a row; of the last, its step has norm"));
    for device in federation.devices() {
        assert_eq!(device.model().unwrap().0, 2);
        assert_eq!(device.finished(), Some(end(&events)));
    }
}

#[test]
fn no_crash_publishes_what_the_gate_rejects() {
    let setup = || {
        let mut setup = recovery::small();
        setup.plan.server.gate = Some(Gate { max_step_norm: Some(1e-9), ..gate() });
        setup
    };
    let mut steps = 0;
    loop {
        let mut federation = federation(setup(), Script::default());
        let mut more = true;
        for _ in 0..steps {
            more = federation.step();
        }
        if !more || federation.coordinator().closed().is_some() {
            break;
        }
        let before = federation.events();
        federation.crash();
        let core = recovery::replayed(&federation.settings, &federation.events());
        assert_eq!(core.rejected(), federation.coordinator().rejected(), "after step {steps}");
        federation.run();
        let events = federation.events();
        assert_eq!(events[..before.len()], before, "history was rewritten after step {steps}");
        assert_eq!(published(&events), [0], "after step {steps}");
        assert_eq!(aborted(&events).len(), 2, "a round is over once, after step {steps}");
        assert!(rejected(&events).len() <= 2 && end(&events) == "all 2 rounds are done");
        for device in federation.devices() {
            assert!(device.model().is_none_or(|(round, _)| round == 0));
            assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        }
        steps += 1;
    }
    assert!(steps > 50, "{steps} steps in the whole task");
}

#[test]
fn a_gate_that_looks_at_examples_needs_some() {
    for bounds in
        [Gate { max_accuracy_drop: Some(0.1), ..gate() }, Gate { max_trigger_success: Some(0.1), ..gate() }]
    {
        let mut setup = one_group();
        setup.plan.server.gate = Some(bounds);
        let error = Federation::new(setup, Script::default()).err().unwrap().to_string();
        assert!(error.contains("max_trigger_success), and this coordinator has none"), "{error}");
    }
}

/// Says these numbers of the models that it is asked about, in this order, or why it cannot.
#[derive(Debug)]
struct Answers(std::sync::Mutex<Vec<Result<Evaluation, String>>>);

impl HoldOut for Answers {
    fn evaluate(&self, _model: &[u8]) -> Result<Evaluation, String> {
        self.0.lock().unwrap().remove(0)
    }
}

fn examining(bounds: Gate, answers: Vec<Result<Evaluation, String>>) -> Scripted {
    let mut setup = plain::in_the_clear("local");
    setup.plan.rounds = 3;
    setup.plan.server.gate = Some(bounds);
    setup.hold_out = Some(Arc::new(Answers(std::sync::Mutex::new(answers))));
    finished(setup, Script::default())
}

#[expect(clippy::unnecessary_wraps, reason = "one of the answers there are")]
fn accuracy(accuracy: f64) -> Result<Evaluation, String> {
    Ok(Evaluation { accuracy, trigger_success: None })
}

#[test]
fn a_model_that_cannot_be_measured_is_not_published() {
    let bounds = Gate { max_accuracy_drop: Some(0.1), ..gate() };
    let answers = vec![
        Err("the file is gone".to_owned()),
        accuracy(0.5),
        accuracy(0.1),
        // NaN is no accuracy.
        accuracy(f64::NAN),
        accuracy(0.5),
    ];
    let federation = examining(bounds, answers);
    let events = federation.events();
    assert_eq!(published(&events), [0, 2]);
    assert_eq!(aborted(&events)[0], (1, "hold-out: the file is gone"));
    assert_eq!(rejected(&events)[0].0, 3);
    // Triggers that nobody looked for are not taken for harmless.
    let bounds = Gate { max_trigger_success: Some(0.9), ..gate() };
    let federation = examining(bounds, vec![accuracy(0.5); 6]);
    assert_eq!(published(&federation.events()), [0]);
    assert_eq!(rejected(&federation.events())[0].2, "its answers to triggers were not measured");
}

#[test]
fn accuracies_are_compared_with_the_best_so_far_and_not_with_the_last() {
    // Candidate and best in each round. 0.8, 0.75 and 0.69 each lose less than 0.1 against the one before.
    let bounds = Gate { max_accuracy_drop: Some(0.1), ..gate() };
    let answers = [0.8, 0.1, 0.75, 0.8, 0.69, 0.8].map(accuracy).to_vec();
    let federation = examining(bounds, answers);
    let events = federation.events();
    assert_eq!(published(&events), [0, 1, 2]);
    let reason = rejected(&events)[0].2;
    assert!(reason.starts_with("its accuracy 0.6900 is 0.1100 below 0.8000, the best so far"), "{reason}");
    assert_eq!(measured(&events)[&2].best_accuracy, Some(0.8));
}

/// The colluders among 45 clients, who bide their time.
const COLLUDERS: [usize; 2] = [3, 30];
/// The round in which they begin.
const BEGIN: u32 = 4;

/// Digits under a plain mean, which two of 45 clients can turn as they like.
fn digits(bounds: Option<Gate>) -> (Setup, Sleepers) {
    let (train, test) = datasets::split(&datasets::digits(), 0.2, 1).unwrap();
    let rows = partition::even::dirichlet(train.labels(), train.classes(), 45, 1.0, 1).unwrap();
    let shares: Vec<Dataset> = rows.iter().map(|rows| train.subset(rows).unwrap()).collect();
    let mut setup = groups_of_nine(5);
    setup.plan.rounds = 6;
    setup.plan.model = Model { architecture: "softmax:25x10".to_owned(), parameters: 260 };
    setup.plan.training = Training::sgd(5, 64, 0.6);
    setup.plan.privacy.clip_norm = 0.5;
    setup.plan.privacy.noise_multiplier = 0.3;
    setup.plan.privacy.epsilon = 1e4;
    setup.policy = Policy { max_epsilon: 1e4, max_total_epsilon: 1e4, ..Policy::default() };
    setup.plan.server.learning_rate = 4.0;
    setup.plan.server.gate = bounds;
    let spec: ModelSpec = setup.plan.model.architecture.parse().unwrap();
    let made = vec![datasets::spectrum_of(&Poison::Trigger.bait(&test).unwrap())];
    setup.hold_out = Some(Arc::new(HeldOut::new(&spec, datasets::spectrum_of(&test), made).unwrap()));
    (
        setup,
        Sleepers {
            shares,
            conspiracies: std::sync::Mutex::default(),
            attack: Attack::new("sign-flip", None).unwrap(),
        },
    )
}

struct Sleepers {
    shares: Vec<Dataset>,
    attack: Attack,
    conspiracies: std::sync::Mutex<BTreeMap<usize, Conspiracy>>,
}

impl Scenario for Sleepers {
    fn contribute(&self, &Work { client, round, model, plan, .. }: &Work<'_>) -> Result<Trained, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        if let Some(member) = COLLUDERS.iter().position(|&colluder| colluder == client && round >= BEGIN) {
            let fellows =
                COLLUDERS.map(|index| Member { data: self.shares[index].clone(), seed: index as u64 });
            let mut conspiracies = self.conspiracies.lock().unwrap();
            let conspiracy = conspiracies
                .entry(client)
                .or_insert_with(|| Conspiracy::new(self.attack, fellows.into(), datasets::spectrum_of, 5));
            let values = conspiracy.contribute(member, round, model, plan).map_err(|error| failed(&error))?;
            return Ok(Contribution::DangerUnbounded(values).into());
        }
        let data = datasets::spectrum_of(&self.shares[client]);
        local_update(&data, model, plan, client as u64 + u64::from(round))
            .map(|update| Contribution::Update(update).into())
            .map_err(|error| failed(&error))
    }

    fn judge(&self, &Work { client, round, model, plan, .. }: &Work<'_>, new: &[u8]) -> Result<f64, String> {
        if COLLUDERS.contains(&client) && round >= BEGIN {
            return Ok(1.0);
        }
        let data = datasets::spectrum_of(&self.shares[client]);
        difference(&data, model, new, plan).map_err(|error| error.to_string())
    }
}

/// Rounds published, why others were not, and what the hold-out says of each published model.
fn sleepers(attack: &str, bounds: Option<Gate>) -> (Vec<u32>, Vec<String>, Vec<Evaluation>) {
    let (setup, mut scenario) = digits(bounds);
    scenario.attack = Attack::new(attack, None).unwrap();
    let hold_out = setup.hold_out.clone().unwrap();
    let mut federation = Federation::new(setup, scenario).unwrap();
    federation.run();
    let events = federation.events();
    let last = federation.store().blob(&federation.coordinator().model().unwrap()).unwrap();
    for device in federation.devices() {
        assert!(device.refusals().is_empty(), "{:?}", device.refusals());
        assert_eq!(device.model().unwrap().1, &*last, "everyone holds the last good model");
    }
    let reasons = rejected(&events).iter().map(|(_, _, reason)| (*reason).to_owned()).collect();
    let evaluation = |event: &Event| match event {
        Event::Published { model, .. } => {
            Some(hold_out.evaluate(&federation.store().blob(model).unwrap()).unwrap())
        }
        _ => None,
    };
    (published(&events), reasons, events.iter().filter_map(evaluation).collect())
}

/// An attack that passes the rule does harm without a gate. With one that has a bound against it, no model that does is
/// ever published.
fn is_caught(attack: &str, bounds: Gate, harm: impl Fn(&Evaluation) -> bool, reason: &str) {
    let (rounds, _, models) = sleepers(attack, None);
    assert_eq!(rounds, [0, 1, 2, 3, 4, 5, 6]);
    assert!(models[4..].iter().any(&harm), "{attack} without a gate: {models:?}");
    let (rounds, reasons, models) = sleepers(attack, Some(bounds));
    assert_eq!(rounds[..4], [0, 1, 2, 3], "honest rounds pass: {reasons:?}");
    assert!(!reasons.is_empty() && reasons.iter().all(|found| found.contains(reason)), "{reasons:?}");
    assert!(!models[4..].iter().any(&harm) && models[3].accuracy > 0.8, "{attack}: {models:?}");
}

#[test]
fn what_passes_the_rule_and_ruins_accuracy_is_caught_on_the_hold_out() {
    let bounds = Gate { max_accuracy_drop: Some(0.1), ..gate() };
    is_caught("sign-flip", bounds, |model| model.accuracy < 0.6, "the best so far");
}

#[test]
fn what_passes_the_rule_and_hides_a_backdoor_is_caught_by_its_trigger() {
    let bounds = Gate { max_trigger_success: Some(0.6), ..gate() };
    let harm = |model: &Evaluation| model.trigger_success.unwrap() > 0.6;
    is_caught("backdoor", bounds, harm, "of the examples with a trigger");
}

#[test]
fn what_passes_the_rule_and_leaps_is_caught_by_the_norm_of_its_step() {
    let bounds = Gate { max_step_norm: Some(3.0), ..gate() };
    is_caught("infinity", bounds, |model| model.accuracy < 0.6, "its step has norm");
}

#[test]
fn what_passes_the_rule_and_ruins_accuracy_is_caught_by_the_clients() {
    let evaluation = FederatedEvaluation { max_accuracy_drop: 0.1, noise_multiplier: 0.3, confidence: 2.0 };
    let bounds = Gate { evaluation: Some(evaluation), ..gate() };
    is_caught("sign-flip", bounds, |model| model.accuracy < 0.6, "clients say");
}
