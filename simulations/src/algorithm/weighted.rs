//! Weights that clients report: their examples, or what their loss makes of them in q-FedAvg.
//!
//! A client sends [w · u, w], and the server moves the model by the ratio of the two means. Nobody can check a weight, and
//! no noise is sized for it, so that this is for mode `insecure_plain` without noise, where updates are trusted anyway.

use super::options::{Kind, OptionSpec};
use super::registry::{AlgorithmSpec, Needs, Unit};
use super::{Algorithm, AlgorithmError, Given, Task};
use crate::training::update;
use fedveil_aggregation::optimizer::{ServerOptimizer, ServerStep};
use fedveil_learning::evaluate;
use std::sync::Arc;

/// Why the modes that hide updates refuse weights.
pub(super) const REPORTED_WEIGHTS: &str =
    "its clients report their own weights, which nobody can check in a sum: one client could be all of it";

pub(super) const QFEDAVG: AlgorithmSpec = AlgorithmSpec {
    name: "qfedavg",
    title: "q-FedAvg",
    paper: "Li et al. 2020, arXiv:1905.10497, algorithm 2",
    summary: "clients that the model serves badly count for more",
    needs: |_| Needs::EveryUpdate(REPORTED_WEIGHTS),
    units: &[Unit::None],
    why_not: "its step is a ratio of two sums, and noise in the lower one has no bound in the model",
    options: &[OptionSpec {
        key: "q",
        kind: Kind::Number { least: 0.0, most: 100.0, default: 0.2 },
        meaning: "how much fairness; 0 counts all alike",
    }],
    client_keeps: "nothing",
    server_keeps: "nothing",
    build: |options| Arc::new(QFedAvg { q: options.number("q") }),
};

/// With L = 1 / η: Δw = L (w − w̄), Δ = F(w)^q Δw, h = q F(w)^(q−1) ‖Δw‖² + L F(w)^q, and w ← w − Σ Δ / Σ h.
#[derive(Debug)]
struct QFedAvg {
    q: f64,
}

/// What stands for a loss of 0, which has no negative power; the authors' code adds as much.
const LEAST_LOSS: f64 = 1e-10;

impl Algorithm for QFedAvg {
    fn control(&self, _parameters: usize) -> usize {
        1
    }

    fn client(&self, task: &Task<'_>, _memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let loss = evaluate(task.spec, task.global, task.data)?.loss;
        let update = update(task.spec, task.global, task.data, task.plan, task.seed)?;
        Ok(fair(&update, loss, self.q, 1.0 / task.plan.training.learning_rate).into())
    }

    fn server(&self, planned: ServerOptimizer) -> Option<Arc<dyn ServerStep>> {
        Some(Arc::new(Ratio(planned)))
    }
}

/// [−Δ, h] of an update w̄ − w.
pub(super) fn fair(update: &[f32], loss: f64, q: f64, lipschitz: f64) -> Vec<f32> {
    let loss = loss.max(LEAST_LOSS);
    let factor = loss.powf(q) * lipschitz;
    let squared: f64 = update.iter().map(|&value| (lipschitz * f64::from(value)).powi(2)).sum();
    let weight = q * loss.powf(q - 1.0) * squared + lipschitz * loss.powf(q);
    update.iter().map(|&value| (factor * f64::from(value)) as f32).chain([weight as f32]).collect()
}

/// [w · u, w], with w the client's examples.
pub(super) fn weighed(mut update: Vec<f32>, examples: usize) -> Vec<f32> {
    let weight = examples as f32;
    for value in &mut update {
        *value *= weight;
    }
    update.push(weight);
    update
}

/// Moves all but the last value by their aggregate over that of the last, with the plan's optimiser.
#[derive(Debug)]
pub(super) struct Ratio(pub(super) ServerOptimizer);

impl ServerStep for Ratio {
    fn slots(&self) -> usize {
        self.0.slots()
    }

    fn step(&self, state: &mut Vec<f64>, model: &mut [f32], update: &[f64]) {
        let Some((&weight, update)) = update.split_last() else { return };
        // The last value stays what it is: it is broadcast, and nobody reads it.
        let ratio: Vec<f64> = match weight {
            weight if weight > 0.0 => update.iter().map(|value| value / weight).chain([0.0]).collect(),
            _ => vec![0.0; model.len()],
        };
        self.0.step(state, model, &ratio);
    }
}
