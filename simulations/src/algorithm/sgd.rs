//! FedSGD: one step in each round, on all of a client's data or on a batch of them, with a momentum that the client keeps.
//!
//! A momentum at the client, m ← β m + (1 − β) u, is what robust rules are proven for: it takes the variance out of what
//! each client sends over rounds, where a momentum at the server would only smooth what a poisoned aggregate has become
//! (Karimireddy, He, Jaggi, ICML 2021; Farhadkhani et al., ICML 2022). What is sent is m, clipped as one vector, so that the
//! momentum multiplies no noise.

use super::options::{Kind, OptionSpec, Options};
use super::plain::{FEDAVG, WEIGHTS};
use super::registry::{AlgorithmSpec, Unit};
use super::weighted::{Ratio, weighed};
use super::{Algorithm, AlgorithmError, Given, Task, checked};
use crate::training::update;
use fedveil_aggregation::optimizer::{ServerOptimizer, ServerStep};
use fedveil_proto_plan::TaskPlan;
use std::num::NonZeroUsize;
use std::sync::Arc;

pub(super) const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "fedsgd",
    title: "FedSGD",
    paper: "McMahan et al. 2017, arXiv:1602.05629; momentum: Karimireddy, He, Jaggi 2021, arXiv:2012.10333",
    summary: "one step in each round, on all of a client's data or on a batch",
    units: &[Unit::None, Unit::User],
    why_not: "example-level training draws the examples of a step; it has no step on all of them",
    options: &[
        OptionSpec {
            key: "batch_size",
            kind: Kind::Count { least: 0, most: 1_000_000, default: 0 },
            meaning: "examples of a step, drawn anew for each; 0 is all of them",
        },
        OptionSpec {
            key: "momentum",
            kind: Kind::Number { least: 0.0, most: 0.999, default: 0.0 },
            meaning: "β of the client's momentum m ← β m + (1 − β) u, which it sends",
        },
        WEIGHTS,
    ],
    client_keeps: "with momentum m, as long as the model",
    build,
    ..FEDAVG
};

fn build(options: &Options) -> Arc<dyn Algorithm> {
    Arc::new(FedSgd {
        batch: NonZeroUsize::new(options.count("batch_size") as usize),
        momentum: options.number("momentum"),
        weighted: options.word(WEIGHTS.key) == "examples",
    })
}

#[derive(Debug)]
struct FedSgd {
    batch: Option<NonZeroUsize>,
    momentum: f64,
    weighted: bool,
}

impl Algorithm for FedSgd {
    fn control(&self, _parameters: usize) -> usize {
        usize::from(self.weighted)
    }

    fn plan(&self, plan: &mut TaskPlan) {
        plan.training.epochs = 1;
        plan.training.batch_size = 0;
    }

    fn batch(&self) -> Option<NonZeroUsize> {
        self.batch
    }

    fn client(&self, task: &Task<'_>, memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let mut vector = update(task.spec, task.global, task.data, task.plan, task.seed)?;
        let mut kept = None;
        if self.momentum > 0.0 {
            let (old, new) = (self.momentum as f32, (1.0 - self.momentum) as f32);
            match checked(memory, vector.len())? {
                Some(memory) => {
                    vector
                        .iter_mut()
                        .zip(memory)
                        .for_each(|(value, kept)| *value = old * kept + new * *value);
                }
                None => vector.iter_mut().for_each(|value| *value *= new),
            }
            kept = Some(vector.clone());
        }
        if self.weighted {
            vector = weighed(vector, task.data.len());
        }
        Ok(Given { vector, memory: kept })
    }

    fn server(&self, planned: ServerOptimizer) -> Option<Arc<dyn ServerStep>> {
        self.weighted.then(|| Arc::new(Ratio(planned)) as Arc<dyn ServerStep>)
    }
}
