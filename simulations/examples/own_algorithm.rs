//! An algorithm of one's own, in one file: FedAvg in which a client sends the largest tenth of its update alone, and keeps
//! the rest for its next round (error feedback; Stich, Cordonnier, Jaggi 2018, arXiv:1809.07599).
//!
//! ```text
//! cargo run --release -p fedveil-simulations --example own_algorithm
//! ```

use fedveil_aggregation::optimizer::ServerStep;
use fedveil_learning::{Dataset, ModelSpec, evaluate};
use fedveil_proto_plan::{Aggregation, Cohort, Model, Privacy, Server, TaskPlan, Training, VERSION};
use fedveil_provenance::Digest;
use fedveil_simulations::algorithm::{
    Algorithm, AlgorithmError, AlgorithmSpec, Choice, Given, Kind, Needs, OptionSpec, Runner, Task, Unit,
};
use fedveil_simulations::federation::Work;
use fedveil_simulations::{datasets, training};
use std::error::Error;
use std::sync::Arc;

/// What the registry would say of it.
const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "top-tenth",
    title: "Sparse FedAvg",
    paper: "Stich et al. 2018, arXiv:1809.07599",
    summary: "clients send their largest values and keep the rest for later",
    // The server needs the mean alone, so that every mode will do.
    needs: |_| Needs::Sums,
    units: &[Unit::None, Unit::User],
    why_not: "what is kept for later is not noised with the round that it is of",
    options: &[OptionSpec {
        key: "share",
        kind: Kind::Above { bound: 0.0, most: 1.0, default: 0.1 },
        meaning: "the part of the values that is sent",
    }],
    client_keeps: "what it has not sent, as long as the model",
    server_keeps: "nothing",
    build: |options| Arc::new(Sparse { share: options.number("share") }),
};

#[derive(Debug)]
struct Sparse {
    share: f64,
}

impl Algorithm for Sparse {
    fn client(&self, task: &Task<'_>, memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let mut rest = training::update(task.spec, task.global, task.data, task.plan, task.seed)?;
        for (value, left) in rest.iter_mut().zip(memory.unwrap_or_default()) {
            *value += left;
        }
        let mut sizes: Vec<f32> = rest.iter().map(|value| value.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        let least = sizes[((self.share * sizes.len() as f64).ceil() as usize - 1).min(sizes.len() - 1)];
        let mut vector = vec![0.0; rest.len()];
        for (sent, value) in vector.iter_mut().zip(&mut rest) {
            if value.abs() >= least {
                *sent = std::mem::take(value);
            }
        }
        Ok(Given { vector, memory: Some(rest) })
    }
}

const CLIENTS: u32 = 10;
const ROUNDS: u32 = 20;
const MODEL: &str = "softmax:64x10";

fn main() -> Result<(), Box<dyn Error>> {
    let spec: ModelSpec = MODEL.parse()?;
    let mut plan = research_plan(&spec);
    let runner = Runner::of(&SPEC, &Choice::of(SPEC.name), spec.clone(), CLIENTS, &mut plan)?;
    let (train, test) = datasets::split(&datasets::digits(), datasets::TEST_SHARE, 1)?;
    let rows: Vec<usize> = (0..train.len()).collect();
    let clients: Vec<Dataset> = rows
        .chunks(rows.len().div_ceil(CLIENTS as usize))
        .map(|rows| train.subset(rows))
        .collect::<Result<_, _>>()?;

    // What a federation does, without messages: everyone contributes, the mean moves the model.
    let server = plan.check()?.optimizer;
    let (mut parameters, mut state) = (spec.initial(1), Vec::new());
    let mut memories: Vec<Option<Vec<u8>>> = vec![None; clients.len()];
    for round in 1..=ROUNDS {
        let model = runner.initial(&parameters)?;
        let mut mean = vec![0.0; parameters.len()];
        for ((client, data), memory) in (0..).zip(&clients).zip(&mut memories) {
            let seed = u64::from(round) << 32 | client as u64;
            let work =
                Work { client, round, model: &model, staleness: 0, plan: &plan, memory: memory.as_deref() };
            let (vector, kept) = runner.contribute(&work, data, seed)?;
            mean.iter_mut()
                .zip(vector)
                .for_each(|(mean, value)| *mean += f64::from(value) / f64::from(CLIENTS));
            *memory = kept;
        }
        server.step(&mut state, &mut parameters, &mean);
    }
    let accuracy = evaluate(&spec, &parameters, &test)?.accuracy;
    assert!(accuracy > 0.8, "accuracy {accuracy} after {ROUNDS} rounds");
    Ok(())
}

/// Everyone in every round, updates in the clear, no noise: nothing of it is private.
fn research_plan(spec: &ModelSpec) -> TaskPlan {
    TaskPlan {
        version: VERSION,
        task: "own algorithm".to_owned(),
        id: Digest::of("own algorithm"),
        mode: "insecure_plain".to_owned(),
        rounds: ROUNDS,
        phase_seconds: 60,
        model: Model { architecture: spec.name().to_owned(), parameters: spec.parameters() as u32 },
        cohort: Cohort { clients: CLIENTS, minimum: CLIENTS, assumed_malicious: 0, population: None },
        training: Training::sgd(2, 32, 0.1),
        privacy: Privacy::none(f64::INFINITY),
        aggregation: Aggregation::none(),
        server: Server::mean(),
        simulated: false,
    }
}
