//! Every algorithm against a case computed by hand, every refusal, and whether they learn.

use super::weighted::{Ratio, fair};
use super::*;
use crate::datasets;
use crate::federation::Work;
use fedveil_learning::{Role, evaluate};
use fedveil_proto_plan::{
    Aggregation, Cohort, ExamplePrivacy, Mode, Model, Privacy, Server, Training, VERSION,
};
use fedveil_provenance::Digest;

/// Research without noise: as many clients as this in every round.
fn plan(clients: u32, architecture: &str) -> TaskPlan {
    let spec: ModelSpec = architecture.parse().unwrap();
    TaskPlan {
        version: VERSION,
        task: "test".to_owned(),
        id: Digest::of("test"),
        mode: "insecure_plain".to_owned(),
        rounds: 20,
        phase_seconds: 60,
        model: Model { architecture: architecture.to_owned(), parameters: spec.parameters() as u32 },
        cohort: Cohort { clients, minimum: clients, assumed_malicious: 0, population: None },
        training: Training::sgd(1, 16, 1.0),
        privacy: Privacy::none(f64::INFINITY),
        aggregation: Aggregation::none(),
        server: Server::mean(),
        simulated: false,
    }
}

/// One example x = 1 of the first of two classes, for `softmax:1x2`: parameters are b₀, b₁, w₀, w₁, and the gradient is
/// (−r, r, −r, r), where r is the probability of the wrong class.
fn one() -> Dataset {
    Dataset::new(vec![1.0], vec![0], 1, 2).unwrap()
}

/// The probability of the wrong class at these parameters.
fn wrong([b0, b1, w0, w1]: [f32; 4]) -> f32 {
    1.0 / (1.0 + (b0 + w0 - b1 - w1).exp())
}

/// A runner of two clients out of four, on `softmax:1x2`.
fn runner(choice: &Choice, change: impl FnOnce(&mut TaskPlan)) -> (Runner, TaskPlan) {
    let mut plan = plan(2, "softmax:1x2");
    change(&mut plan);
    let runner = Runner::new(choice, "softmax:1x2".parse().unwrap(), 4, &mut plan).unwrap();
    (runner, plan)
}

/// A round of client 0 with the newest state.
fn work<'a>(plan: &'a TaskPlan, round: u32, model: &'a [u8], memory: Option<&'a [u8]>) -> Work<'a> {
    Work { client: 0, round, model, staleness: 0, plan, memory }
}

/// What a client with [`one`] makes of this global state.
fn given(
    choice: &Choice,
    change: impl FnOnce(&mut TaskPlan),
    state: &[f32],
    memory: Option<&[f32]>,
) -> Given {
    given_late(choice, change, state, memory, 0)
}

/// The same of a state that has so many newer ones.
fn given_late(
    choice: &Choice,
    change: impl FnOnce(&mut TaskPlan),
    state: &[f32],
    memory: Option<&[f32]>,
    staleness: u32,
) -> Given {
    let (runner, plan) = runner(choice, change);
    let mut file = runner.initial(&[0.0; 4]).unwrap();
    let start = file.len() - 4 * state.len();
    file.truncate(start);
    file.extend(state.iter().flat_map(|value| value.to_le_bytes()));
    let bytes = |memory: &[f32]| memory.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let memory = memory.map(bytes);
    let work = Work { staleness, ..work(&plan, 1, &file, memory.as_deref()) };
    let (vector, memory) = runner.contribute(&work, &one(), 7).unwrap();
    let reals =
        |bytes: Vec<u8>| bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    Given { vector, memory: memory.map(reals) }
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    let near = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
    assert!(near, "{found:?}, expected {expected:?}");
}

/// A step (b, −b, b, −b), as all are that start from one.
fn step(size: f32) -> [f32; 4] {
    [size, -size, size, -size]
}

#[test]
fn fedavg_sums_its_epochs_and_fedsgd_takes_one_step() {
    // From 0 the wrong class has probability 1/2; after a step of that, 1 / (1 + e²).
    let two = |plan: &mut TaskPlan| plan.training.epochs = 2;
    let second = 1.0 / (1.0 + 2_f32.exp());
    close(&given(&Choice::of("fedavg"), two, &[0.0; 4], None).vector, &step(0.5 + second));
    close(&given(&Choice::of("fedsgd"), two, &[0.0; 4], None).vector, &step(0.5));
    let (_, plan) = runner(&Choice::of("fedsgd"), two);
    assert_eq!((plan.training.epochs, plan.training.batch_size), (1, 0), "all examples in one step");
}

#[test]
fn fedsgd_keeps_a_momentum_and_sends_it() {
    let choice = Choice::of("fedsgd").with("momentum", 0.75);
    // u = (½, −½, ½, −½). From nothing, m = u / 4; from m = (1, 0, 0, 2), ¾ of it is left besides.
    let first = given(&choice, |_| (), &[0.0; 4], None);
    close(&first.vector, &step(0.125));
    close(&first.memory.unwrap(), &step(0.125));
    let next = given(&choice, |_| (), &[0.0; 4], Some(&[1.0, 0.0, 0.0, 2.0]));
    close(&next.vector, &[0.875, -0.125, 0.125, 1.375]);
    assert_eq!(next.memory.as_ref(), Some(&next.vector));
    // What a client counts for multiplies what it sends, and not what it keeps.
    let weighed = given(&choice.clone().with("weights", "examples"), |_| (), &[0.0; 5], None);
    close(&weighed.vector, &[0.125, -0.125, 0.125, -0.125, 1.0]);
    close(&weighed.memory.unwrap(), &step(0.125));
    assert_eq!(given(&Choice::of("fedsgd"), |_| (), &[0.0; 4], None).memory, None, "without momentum");
}

#[test]
fn fedsgd_looks_at_a_batch_that_is_drawn_anew() {
    let (runner, plan) = runner(&Choice::of("fedsgd").with("batch_size", 2.0), |_| ());
    let file = runner.initial(&[0.0; 4]).unwrap();
    let data = Dataset::new(vec![1.0, 2.0, 4.0, 8.0], vec![0; 4], 1, 2).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let (found, _) = runner.contribute(&work(&plan, 1, &file, None), &data, seed).unwrap();
        let rows = runner.sample(4, seed).unwrap();
        // The gradient of w₀ at 0 is −x / 2.
        let mean = rows.iter().map(|&row| data.features()[row]).sum::<f32>() / 2.0;
        close(&found, &[0.5, -0.5, mean / 2.0, -mean / 2.0]);
        // The sample of the sample is itself.
        let sampled = data.subset(&rows).unwrap();
        assert_eq!(runner.contribute(&work(&plan, 1, &file, None), &sampled, seed).unwrap().0, found);
        seen.insert(rows);
    }
    assert_eq!(seen.len(), 6, "every pair of four rows");
    assert_eq!((runner.sample(2, 1), runner.sample(1, 1)), (None, None), "a client with fewer takes all");
}

#[test]
fn fedprox_pulls_back() {
    let two = |plan: &mut TaskPlan| plan.training.epochs = 2;
    // The second step is that of FedAvg, less μ times the first.
    let second = 1.0 / (1.0 + 2_f32.exp()) - 0.25 * 0.5;
    let found = given(&Choice::of("fedprox").with("mu", 0.25), two, &[0.0; 4], None);
    close(&found.vector, &step(0.5 + second));
}

#[test]
fn fednova_counts_planned_steps() {
    let two = |plan: &mut TaskPlan| plan.training.epochs = 2;
    let second = 1.0 / (1.0 + 2_f32.exp());
    let found = given(&Choice::of("fednova").with("steps", 6.0), two, &[0.0; 4], None);
    close(&found.vector, &step(6.0 * (0.5 + second) / 2.0));
}

#[test]
fn servers_of_fedavgm_and_the_adaptive_ones_are_in_the_plan() {
    let (_, momentum) = runner(&Choice::of("fedavgm").with("momentum", 0.5), |_| ());
    assert_eq!((momentum.server.momentum, momentum.server.learning_rate), (0.5, 1.0));
    for (name, rule) in [("fedadagrad", "adagrad"), ("fedadam", "adam"), ("fedyogi", "yogi")] {
        let choice = Choice::of(name).with("tau", 0.5).with("server_learning_rate", 0.25);
        let (runner, plan) = runner(&choice, |_| ());
        let optimizer = plan.server.optimizer.as_ref().unwrap();
        assert_eq!((optimizer.name.as_str(), optimizer.tau, plan.server.learning_rate), (rule, 0.5, 0.25));
        assert!(runner.server(&plan.check().unwrap()).is_none(), "the plan says all");
    }
}

#[test]
fn scaffold_corrects_its_steps_and_keeps_its_gradient() {
    let control = [0.1, 0.2, -0.1, 0.0];
    let own = [0.05, -0.1, 0.0, 0.2];
    let state: Vec<f32> = [0.0; 4].into_iter().chain(control).collect();
    let half = |plan: &mut TaskPlan| plan.training.learning_rate = 0.5;
    let choice = Choice::of("scaffold").with("global_learning_rate", 2.0);
    let found = given(&choice, half, &state, Some(&own));
    // One step of η = 1/2 along −(g + c − cᵢ), with g = (−1/2, 1/2, −1/2, 1/2); the server doubles it.
    let gradient = [-0.5, 0.5, -0.5, 0.5];
    let moved: Vec<f32> = (0..4).map(|i| -0.5 * (gradient[i] + control[i] - own[i])).collect();
    // cᵢ⁺ = cᵢ − c − (y − x) / (K η) is the gradient itself, and half of all clients are in the cohort.
    let change: Vec<f32> = (0..4).map(|i| 0.5 * (gradient[i] - own[i])).collect();
    let expected: Vec<f32> = moved.iter().map(|value| 2.0 * value).chain(change).collect();
    close(&found.vector, &expected);
    close(&found.memory.unwrap(), &gradient);
    // A newcomer starts from cᵢ = 0.
    let first = given(&choice, half, &[0.0; 8], None);
    close(&first.memory.unwrap(), &gradient);
    close(&first.vector, &[0.5, -0.5, 0.5, -0.5, -0.25, 0.25, -0.25, 0.25]);
}

#[test]
fn qfedavg_weighs_by_the_loss() {
    // F = 4, q = 1/2, L = 2: F^q L (3, 4) = (12, 16), and h = ½ · 4^−½ · 2² · 25 + 2 · 4^½ = 29.
    close(&fair(&[3.0, 4.0], 4.0, 0.5, 2.0), &[12.0, 16.0, 29.0]);
    // With q = 0 everyone counts L, and the step is the mean of the updates.
    close(&fair(&[3.0, 4.0], 4.0, 0.0, 2.0), &[6.0, 8.0, 2.0]);
    let found = given(&Choice::of("qfedavg").with("q", 1.0), |_| (), &[0.0; 5], None);
    let loss = 2_f32.ln();
    // L = 1, the update is (½, −½, ½, −½) of squared norm 1.
    close(&found.vector, &[0.5 * loss, -0.5 * loss, 0.5 * loss, -0.5 * loss, 1.0 + loss]);

    let (mut state, mut model) = (Vec::new(), [1.0, 1.0, 9.0]);
    Ratio(ServerOptimizer::default()).step(&mut state, &mut model, &[12.0, 16.0, 8.0]);
    assert_eq!(model, [2.5, 3.0, 9.0]);
    Ratio(ServerOptimizer::default()).step(&mut state, &mut model, &[12.0, 16.0, 0.0]);
    assert_eq!(model, [2.5, 3.0, 9.0], "nobody counts");
}

#[test]
fn fedbuff_counts_stale_updates_for_less() {
    // One step of 1/2 from 0, and of r = 1 / (1 + e^(1/5)) from the model of a client that started earlier; three models
    // are newer than that one, and s(3) = 1/2.
    let choice = Choice::of("fedbuff").with("server_learning_rate", 0.5);
    let fresh = given(&choice, |_| (), &[0.0; 4], None).vector;
    close(&fresh, &step(0.5));
    let old = [0.2, 0.0, 0.0, 0.0];
    let late = given_late(&choice, |_| (), &old, None, 3).vector;
    close(&late, &step(wrong(old) / 2.0));
    for (exponent, staleness, weight) in [(0.0, 9, 1.0), (1.0, 3, 0.25), (2.0, 1, 0.25)] {
        let choice = choice.clone().with("staleness_exponent", exponent);
        close(&given_late(&choice, |_| (), &[0.0; 4], None, staleness).vector, &step(0.5 * weight));
    }
    // The buffer of the two moves the model by half their mean.
    let (runner, plan) = runner(&choice, |plan| plan.cohort.minimum = 1);
    assert_eq!((plan.cohort.clients, plan.cohort.minimum), (2, 2), "a buffer is full or no round");
    let mean: Vec<f64> = fresh.iter().zip(&late).map(|(a, b)| f64::from(a + b) / 2.0).collect();
    let mut model = [0.0; 4];
    assert!(runner.server(&plan.check().unwrap()).is_none(), "the plan says all");
    plan.check().unwrap().optimizer.step(&mut Vec::new(), &mut model, &mean);
    close(&model, &step((0.5 + wrong(old) / 2.0) / 4.0));
    let buffered = Attendance::Buffered { concurrency: 100, max_staleness: 20 };
    assert_eq!(runner.attendance(), Some(buffered));
}

#[test]
fn fedbuff_refuses_amplification_by_sampling() {
    let mut plan = plan(2, "softmax:1x2");
    local_noise(&mut plan);
    plan.privacy.placement = "central".to_owned();
    plan.cohort.population = Some(100);
    plan.check().unwrap();
    let model = "softmax:1x2".parse().unwrap();
    let error = Runner::new(&Choice::of("fedbuff"), model, 100, &mut plan).unwrap_err().to_string();
    assert!(error.starts_with("algorithm fedbuff is not for a plan with cohort.population (100)"), "{error}");
}

#[test]
fn weights_by_examples_are_those_of_the_paper() {
    let choice = Choice::of("fedavg").with("weights", "examples");
    let (runner, plan) = runner(&choice, |_| ());
    let spec: ModelSpec = "softmax:1x2".parse().unwrap();
    let file = runner.initial(&spec.initial(0)).unwrap();
    let three = Dataset::new(vec![1.0; 3], vec![1; 3], 1, 2).unwrap();
    let mut sum = vec![0.0; 5];
    for data in [&one(), &three] {
        let (vector, memory) = runner.contribute(&work(&plan, 1, &file, None), data, 7).unwrap();
        assert_eq!(memory, None);
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(value) / 2.0);
    }
    let server = runner.server(&plan.check().unwrap()).unwrap();
    let mut model = vec![0.0; 5];
    server.step(&mut Vec::new(), &mut model, &sum);
    // A quarter of one gradient, three quarters of its negative.
    close(&model, &[-0.25, 0.25, -0.25, 0.25, 0.0]);
}

#[test]
fn ditto_trains_a_model_of_its_own_around_the_global_one() {
    let (global, own) = ([0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]);
    let choice = Choice::of("ditto").with("lambda", 0.5);
    let found = given(&choice, |_| (), &global, Some(&own));
    close(&found.vector, &step(wrong(global)));
    // v − η (∇F(v) + λ (v − w)), with η = 1.
    let r = wrong(own);
    let expected: Vec<f32> = (0..4).map(|i| own[i] + step(r)[i] - 0.5 * (own[i] - global[i])).collect();
    close(&found.memory.clone().unwrap(), &expected);
    let (runner, _) = runner(&choice, |_| ());
    let file = runner.initial(&global).unwrap();
    assert_eq!(runner.personal(&file, None).unwrap(), global, "before it has one");
    let bytes: Vec<u8> = expected.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(runner.personal(&file, Some(&bytes)).unwrap(), expected);
}

#[test]
fn fedper_and_fedbn_keep_their_tensors() {
    for (name, architecture, inputs, role) in
        [("fedper", "mlp:2x3x2", 2, Role::Head), ("fedbn", "cnn-norm:4x4x1x4x4x2", 16, Role::Norm)]
    {
        let spec: ModelSpec = architecture.parse().unwrap();
        let mut plan = plan(2, architecture);
        let runner = Runner::new(&Choice::of(name), spec.clone(), 4, &mut plan).unwrap();
        let data =
            Dataset::new((0..inputs).map(|i| 0.1 + i as f32 / 10.0).collect(), vec![0], inputs, 2).unwrap();
        let global = spec.initial(3);
        let file = runner.initial(&global).unwrap();
        let (vector, memory) = runner.contribute(&work(&plan, 1, &file, None), &data, 1).unwrap();
        let expected = crate::training::update(&spec, &global, &data, &plan, 1).unwrap();
        let memory = memory.unwrap();
        let personal = runner.personal(&file, Some(&memory)).unwrap();
        let mut kept = 0;
        for (tensor, range) in spec.tensors() {
            for at in range {
                if tensor.role == role {
                    kept += 1;
                    assert_eq!(vector[at], 0.0, "{name}: {} leaves the device", tensor.name);
                    assert!((personal[at] - global[at] - expected[at]).abs() < 1e-6, "{name}");
                } else {
                    assert_eq!((vector[at], personal[at]), (expected[at], global[at]), "{name}");
                }
            }
        }
        assert_eq!(memory.len(), 4 * kept);
        assert!(expected.iter().zip(&vector).any(|(all, sent)| all != sent), "{name}: something stays");
        // The next round starts from what was kept.
        let (_, next) = runner.contribute(&work(&plan, 2, &file, Some(&memory)), &data, 1).unwrap();
        assert_ne!(next.unwrap(), memory, "{name}");
        let error =
            runner.contribute(&work(&plan, 2, &file, Some(&memory[4..])), &data, 1).unwrap_err().to_string();
        assert!(error.starts_with("a client's memory has"), "{error}");
    }
}

#[test]
fn a_global_state_is_a_model_file_with_zeros_behind_the_parameters() {
    let (runner, plan) = runner(&Choice::of("scaffold"), |_| ());
    assert_eq!(plan.model.parameters, 8);
    let file = runner.initial(&[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(runner.parameters(&file).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert!(file.ends_with(&[0; 16]));
    let header = std::str::from_utf8(&file[8..file.len() - 32]).unwrap();
    assert!(header.contains(r#""control":{"data_offsets":[16,32],"dtype":"F32","shape":[4]}"#), "{header}");
    for (bytes, expected) in [
        (&file[..file.len() - 4], "the global state has 7 values, expected 8"),
        (&file[..20], "the global state ends inside its header"),
        (&[], "the global state ends inside its header"),
    ] {
        assert_eq!(runner.parameters(bytes).unwrap_err().to_string(), expected);
    }
}

/// Noise of the clients, in groups under masks.
fn in_groups(plan: &mut TaskPlan) {
    plan.mode = "secagg".to_owned();
    plan.cohort = Cohort { clients: 12, minimum: 12, assumed_malicious: 1, population: None };
    plan.privacy = Privacy {
        placement: "distributed".to_owned(),
        mechanism: "discrete-gaussian".to_owned(),
        clip_norm: 1.0,
        noise_multiplier: 1.5,
        resolution: 1024,
        epsilon: 1e3,
        ..Privacy::none(1.0)
    };
    plan.aggregation = Aggregation {
        protocol: "pairwise-mask".to_owned(),
        group_size: 9,
        degree: 64,
        threshold: 7,
        min_survivors: 8,
        max_missing_reveals: 0,
        masks: "chacha20".to_owned(),
        break_probability: 0.0,
    };
}

fn local_noise(plan: &mut TaskPlan) {
    plan.privacy = Privacy {
        placement: "local".to_owned(),
        mechanism: "discrete-gaussian".to_owned(),
        clip_norm: 1.0,
        noise_multiplier: 1.5,
        resolution: 1024,
        epsilon: 1e3,
        ..Privacy::none(1.0)
    };
}

fn examples(plan: &mut TaskPlan) {
    plan.training.example_privacy = Some(ExamplePrivacy {
        clip_norm: 1.0,
        noise_multiplier: 2.0,
        sampling_rate: 0.5,
        epsilon: 1e3,
        delta: 1e-5,
    });
}

/// A model with every kind of layer.
const NORMALISED: &str = "cnn-norm:4x4x1x4x4x2";

/// Every setting of an algorithm that changes what it is valid with.
fn choices() -> Vec<Choice> {
    let weighted = REGISTRY.iter().filter(|spec| spec.options.iter().any(|option| option.key == "weights"));
    let weighted = weighted.map(|spec| Choice::of(spec.name).with("weights", "examples"));
    REGISTRY.iter().map(|spec| Choice::of(spec.name)).chain(weighted).collect()
}

#[test]
fn every_combination_is_accepted_or_refused_with_its_reason() {
    type Change = fn(&mut TaskPlan);
    let combinations: [(Change, Mode, Unit); 4] = [
        (|_| (), Mode::InsecurePlain, Unit::None),
        (local_noise, Mode::InsecurePlain, Unit::User),
        (in_groups, Mode::Secagg, Unit::User),
        (examples, Mode::InsecurePlain, Unit::Example),
    ];
    let mut refused = 0;
    for choice in choices() {
        let about = choice.spec().unwrap();
        let needs = (about.needs)(&about.options(&choice).unwrap());
        for (change, mode, unit) in combinations {
            let mut plan = plan(12, NORMALISED);
            change(&mut plan);
            let outcome = Runner::new(&choice, NORMALISED.parse().unwrap(), 24, &mut plan);
            let expected = match needs {
                Needs::EveryUpdate(reason) if mode != Mode::InsecurePlain => {
                    Some(format!("algorithm {} is for mode insecure_plain, not secagg: {reason}", about.name))
                }
                Needs::EveryUpdate(_) if unit == Unit::User => {
                    Some(format!("algorithm {} is not for privacy unit user: noise is sized", about.name))
                }
                _ if !about.units.contains(&unit) => Some(about.why_not.to_owned()),
                _ => None,
            };
            match (outcome, expected) {
                (Ok(_), None) => {}
                // The plan refuses what noised steps cannot be, and says why itself.
                (Err(Refused::Plan(error)), Some(_)) if unit == Unit::Example => {
                    refused += 1;
                    assert!(error.to_string().contains("training."), "{error}");
                }
                (Err(error), Some(expected)) => {
                    refused += 1;
                    let error = error.to_string();
                    assert!(error.contains(&expected), "{error}, expected: {expected}");
                }
                (outcome, expected) => panic!("{choice:?} in {mode:?}, {unit:?}: {outcome:?}, {expected:?}"),
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn weights_want_no_clip_norm() {
    let mut plan = plan(2, "softmax:1x2");
    plan.privacy = Privacy::none(1.0);
    let choice = Choice::of("qfedavg");
    let error = Runner::new(&choice, "softmax:1x2".parse().unwrap(), 4, &mut plan).unwrap_err().to_string();
    assert!(error.starts_with("algorithm qfedavg wants an infinite privacy.clip_norm, not 1"), "{error}");
}

#[test]
fn names_options_and_models_are_refused_by_what_was_found() {
    let refusal = |choice: Choice, model: &str| {
        let mut plan = plan(2, model);
        Runner::new(&choice, model.parse().unwrap(), 4, &mut plan).unwrap_err().to_string()
    };
    let model = "softmax:1x2";
    for (choice, expected) in [
        (
            Choice::of("fedbest"),
            "unknown algorithm \"fedbest\"; accepted are fedsgd, fedavg, fedavgm, fedprox",
        ),
        (Choice::of("fedprox").with("nu", 1.0), "fedprox has no option \"nu\"; accepted are mu, weights"),
        (Choice::of("fedbn").with("nu", 1.0), "fedbn has no option \"nu\"; accepted are none"),
        (
            Choice::of("fedprox").with("mu", -1.0),
            "option mu of fedprox is -1, accepted is a number from 0 to 1000",
        ),
        (Choice::of("fedprox").with("mu", "high"), "option mu of fedprox is \"high\", accepted is a number"),
        (Choice::of("fedprox").with("mu", f64::NAN), "option mu of fedprox is NaN"),
        (
            Choice::of("fednova").with("steps", 1.5),
            "option steps of fednova is 1.5, accepted is a whole number",
        ),
        (
            Choice::of("fedavg").with("weights", "loss"),
            "option weights of fedavg is \"loss\", accepted is uniform or examples",
        ),
        (Choice::of("fedbn"), "algorithm fedbn: model softmax:1x2 has no normalisation layer"),
        (Choice::of("fedper"), "algorithm fedper: model softmax:1x2 has no last layer beside others"),
    ] {
        let found = refusal(choice, model);
        assert!(found.starts_with(expected), "{found}, expected: {expected}");
    }
}

#[test]
fn a_choice_reads_as_it_is_written() {
    let choice: Choice = serde_json::from_str(r#"{"name":"fedavg","weights":"examples"}"#).unwrap();
    assert_eq!(choice, Choice::of("fedavg").with("weights", "examples"));
    let choice: Choice = serde_json::from_str(r#"{"name":"fedprox","mu":1}"#).unwrap();
    assert_eq!(choice, Choice::of("fedprox").with("mu", 1.0));
    assert!(serde_json::from_str::<Choice>(r#"{"name":"fedprox","mu":[1]}"#).is_err());
    assert!(serde_json::from_str::<Choice>(r#"{"mu":1}"#).is_err());
}

/// Eight clients with two or three of the ten digits each, and the test set.
fn digits() -> (Vec<Dataset>, Dataset) {
    let (train, test) = datasets::split(&datasets::digits(), datasets::TEST_SHARE, 5).unwrap();
    let mut order: Vec<usize> = (0..train.len()).collect();
    order.sort_by_key(|&row| (train.labels()[row] + 10 * (row as u32 % 2) % 13, row));
    let shards = order.chunks(order.len().div_ceil(8));
    (shards.map(|rows| train.subset(rows).unwrap()).collect(), test)
}

/// Accuracy of the global model, and mean accuracy of personal ones on their client's own data, after these rounds of all
/// clients, as a loop without a federation makes them.
fn learn(choice: &Choice, model: &str, rounds: u32) -> (f64, f64) {
    let (clients, test) = digits();
    let mut plan = plan(8, model);
    plan.training = Training::sgd(2, 32, 0.1);
    let spec: ModelSpec = model.parse().unwrap();
    let runner = Runner::new(choice, spec.clone(), 8, &mut plan).unwrap();
    let terms = plan.check().unwrap();
    let server = runner.server(&terms).unwrap_or_else(|| Arc::new(terms.optimizer));
    let mut file = runner.initial(&spec.initial(1)).unwrap();
    let length = plan.model.parameters as usize;
    let data = file.len() - 4 * length;
    let mut memories: Vec<Option<Vec<u8>>> = vec![None; 8];
    let mut kept = Vec::new();
    for round in 1..=rounds {
        let mut mean = vec![0.0; length];
        for (client, memory) in memories.iter_mut().enumerate() {
            let seed = u64::from(round) * 8 + client as u64;
            let (vector, next) = runner
                .contribute(&work(&plan, round, &file, memory.as_deref()), &clients[client], seed)
                .unwrap();
            mean.iter_mut().zip(vector).for_each(|(mean, value)| *mean += f64::from(value) / 8.0);
            *memory = next.or(memory.take());
        }
        let (values, _) = file[data..].as_chunks::<4>();
        let mut state: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        server.step(&mut kept, &mut state, &mean);
        file.truncate(data);
        file.extend(state.iter().flat_map(|value| value.to_le_bytes()));
    }
    let global = evaluate(&spec, &runner.parameters(&file).unwrap(), &test).unwrap().accuracy;
    let personal = clients.iter().zip(&memories).map(|(data, memory)| {
        let parameters = runner.personal(&file, memory.as_deref()).unwrap();
        evaluate(&spec, &parameters, data).unwrap().accuracy
    });
    (global, personal.sum::<f64>() / 8.0)
}

#[test]
fn every_algorithm_learns_the_digits() {
    for (choice, model, rounds, least) in [
        (Choice::of("fedsgd"), "softmax:64x10", 40, 0.75),
        (Choice::of("fedavg"), "softmax:64x10", 10, 0.8),
        (Choice::of("fedavg").with("weights", "examples"), "softmax:64x10", 10, 0.8),
        (Choice::of("fedavgm").with("momentum", 0.5), "softmax:64x10", 10, 0.8),
        (Choice::of("fedprox").with("mu", 0.1), "softmax:64x10", 10, 0.8),
        (Choice::of("fednova"), "softmax:64x10", 10, 0.8),
        (Choice::of("scaffold"), "softmax:64x10", 10, 0.8),
        (Choice::of("fedadagrad").with("server_learning_rate", 0.1), "softmax:64x10", 10, 0.75),
        (Choice::of("fedadam").with("server_learning_rate", 0.05), "softmax:64x10", 10, 0.75),
        (Choice::of("fedyogi").with("server_learning_rate", 0.05), "softmax:64x10", 10, 0.75),
        (Choice::of("qfedavg"), "softmax:64x10", 10, 0.75),
        (Choice::of("fedbuff"), "softmax:64x10", 10, 0.8),
        (Choice::of("ditto"), "softmax:64x10", 10, 0.8),
    ] {
        let (global, personal) = learn(&choice, model, rounds);
        println!("{choice:?}: {global:.3}, personal {personal:.3}");
        assert!(global >= least, "{choice:?}: {global}");
        if choice.name == "ditto" {
            assert!(personal > global, "{personal} of its own, {global} of all");
        }
    }
    // A last layer of its own knows its own digits; there is no global one worth the name.
    let (_, personal) = learn(&Choice::of("fedper"), "mlp:64x16x10", 5);
    assert!(personal > 0.9, "{personal}");
}

#[test]
fn the_document_is_made_from_the_registry() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/algorithms.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- made from the registry -->\n\n", "\n<!-- end -->");
    let (head, rest) = text.split_once(begin).expect("the document has the mark");
    let (found, tail) = rest.split_once(end).expect("the document has the other mark");
    if std::env::var_os("FEDVEIL_REGENERATE").is_some() {
        std::fs::write(path, format!("{head}{begin}{}{end}{tail}", document())).unwrap();
        return;
    }
    assert!(
        found == document(),
        "docs/algorithms.md is not what the registry makes; FEDVEIL_REGENERATE=1 writes it"
    );
}
