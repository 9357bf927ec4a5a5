//! FedBuff: clients that need not wait for each other.
//!
//! Clients train from whichever model is the newest when they start, and the server moves the model when as many have
//! finished as its buffer takes, by x ← x + η_g · mean(s(τ) Δ). τ is how many newer models there are by then, and
//! s(τ) = (1 + τ)^−a; the paper takes a = 1/2. Whoever hands out models knows τ, so that nobody reports anything: the client
//! multiplies its update before it is clipped, and the server adds the mean.
//!
//! Who trains when is the engine's: [`Attendance::Buffered`].

use super::options::{Kind, OptionSpec};
use super::plain::{NO_EXAMPLE_NOISE, SERVER_RATE};
use super::registry::{AlgorithmSpec, Needs, Unit};
use super::{Algorithm, AlgorithmError, Given, Task};
use crate::federation::Attendance;
use crate::training::update;
use fedveil_proto_plan::TaskPlan;
use std::sync::Arc;

pub(super) const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "fedbuff",
    title: "FedBuff",
    paper: "Nguyen et al. 2022, arXiv:2106.06639, algorithm 1",
    summary: "clients train at their own pace, and those that finish first make a round; stale updates count for less",
    needs: |_| Needs::Sums,
    units: &[Unit::None, Unit::User],
    why_not: NO_EXAMPLE_NOISE,
    options: &[
        OptionSpec {
            key: "concurrency",
            kind: Kind::Count { least: 1, most: 10_000_000, default: 100 },
            meaning: "clients that train at a time, at least as many as a cohort, which is the buffer",
        },
        OptionSpec {
            key: "staleness_exponent",
            kind: Kind::Number { least: 0.0, most: 10.0, default: 0.5 },
            meaning: "a: an update whose model has τ newer ones counts (1 + τ)^−a",
        },
        OptionSpec {
            key: "max_staleness",
            kind: Kind::Count { least: 0, most: 1_000_000, default: 20 },
            meaning: "the greatest τ; a client that is slower is given up",
        },
        SERVER_RATE,
    ],
    client_keeps: "nothing",
    server_keeps: "the models that clients train on",
    build: |options| {
        Arc::new(FedBuff {
            concurrency: options.count("concurrency"),
            exponent: options.number("staleness_exponent"),
            max_staleness: options.count("max_staleness"),
            server_learning_rate: options.number(SERVER_RATE.key),
        })
    },
};

#[derive(Debug)]
struct FedBuff {
    concurrency: u32,
    exponent: f64,
    max_staleness: u32,
    server_learning_rate: f64,
}

impl Algorithm for FedBuff {
    fn plan(&self, plan: &mut TaskPlan) {
        plan.server.learning_rate = self.server_learning_rate;
        plan.cohort.minimum = plan.cohort.clients;
    }

    fn attendance(&self) -> Option<Attendance> {
        let Self { concurrency, max_staleness, .. } = *self;
        Some(Attendance::Buffered { concurrency: concurrency as usize, max_staleness })
    }

    fn client(&self, task: &Task<'_>, _memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let mut vector = update(task.spec, task.global, task.data, task.plan, task.seed)?;
        let weight = (1.0 + f64::from(task.staleness)).powf(-self.exponent) as f32;
        for value in &mut vector {
            *value *= weight;
        }
        Ok(vector.into())
    }
}
