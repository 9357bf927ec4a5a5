//! SCAFFOLD: control variates against client drift.
//!
//! A client's step is y ← y − η (∇f(y) + c − cᵢ), K times from x. Then, by option II of the paper,
//! cᵢ⁺ = cᵢ − c + (x − y) / (K η), and the server moves x by η_g · mean(y − x) and c by |S| / N · mean(cᵢ⁺ − cᵢ). Here
//! both factors are planned, so that each client applies them: the vector is [η_g (y − x), |S| / N · (cᵢ⁺ − cᵢ)], and the
//! server adds the mean. |S| is the planned cohort. Under a clip norm both halves are clipped as one.

use super::options::{Kind, OptionSpec};
use super::registry::{AlgorithmSpec, Needs, Unit};
use super::{Algorithm, AlgorithmError, Given, Task, checked, difference};
use crate::training::local_training;
use fedveil_learning::{Guidance, train_with};
use fedveil_proto_plan::TaskPlan;
use std::sync::Arc;

pub(super) const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "scaffold",
    title: "SCAFFOLD",
    paper: "Karimireddy et al. 2020, arXiv:1910.06378, option II",
    summary: "control variates correct every local step for what clients differ in",
    needs: |_| Needs::Sums,
    units: &[Unit::None, Unit::User],
    why_not: "its control variates are made of gradients that example-level noise was not sized for",
    options: &[OptionSpec {
        key: "global_learning_rate",
        kind: Kind::Above { bound: 0.0, most: 100.0, default: 1.0 },
        meaning: "η_g, the server's step size",
    }],
    client_keeps: "cᵢ, as long as the model",
    server_keeps: "c, as long as the model, which is broadcast with it",
    build: |options| {
        Arc::new(Scaffold { global_learning_rate: options.number("global_learning_rate") as f32 })
    },
};

#[derive(Debug)]
struct Scaffold {
    global_learning_rate: f32,
}

impl Algorithm for Scaffold {
    fn control(&self, parameters: usize) -> usize {
        parameters
    }

    fn plan(&self, plan: &mut TaskPlan) {
        plan.training.momentum = None;
        plan.training.proximal = None;
    }

    fn client(&self, task: &Task<'_>, memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let own = match checked(memory, task.global.len())? {
            Some(memory) => memory.to_vec(),
            None => vec![0.0; task.global.len()],
        };
        let training = local_training(task.plan);
        let correction = difference(task.control, &own);
        let guidance = Guidance { correction: Some(&correction), ..Guidance::default() };
        let trained = train_with(task.spec, task.global, task.data, &training, task.seed, guidance)?;
        let moved = difference(&trained.parameters, task.global);
        let scale = 1.0 / (trained.steps as f32 * training.learning_rate);
        let change = task.control.iter().zip(&moved).map(|(control, moved)| -control - moved * scale);
        let change: Vec<f32> = change.collect();
        let kept = own.iter().zip(&change).map(|(own, change)| own + change).collect();
        let share = task.plan.cohort.clients as f32 / task.clients as f32;
        let moved = moved.iter().map(|value| self.global_learning_rate * value);
        let vector = moved.chain(change.iter().map(|value| share * value)).collect();
        Ok(Given { vector, memory: Some(kept) })
    }
}
