//! Personal models: a part of the parameters stays on the device, or a whole model beside the global one.

use super::options::{Kind, OptionSpec};
use super::plain::NO_EXAMPLE_NOISE;
use super::registry::{AlgorithmSpec, Needs, Unit};
use super::{Algorithm, AlgorithmError, Given, Task, checked};
use crate::training::{local_training, update};
use fedveil_learning::{Guidance, LocalTraining, ModelSpec, Role, train_with};
use std::ops::Range;
use std::sync::Arc;

pub(super) const FEDBN: AlgorithmSpec = AlgorithmSpec {
    name: "fedbn",
    title: "FedBN",
    paper: "Li et al. 2021, arXiv:2102.07623",
    summary: "normalisation layers stay on the device",
    needs: |_| Needs::Sums,
    units: &[Unit::None, Unit::User],
    why_not: NO_EXAMPLE_NOISE,
    options: &[],
    client_keeps: "its own normalisation layers",
    server_keeps: "nothing",
    build: |_| Arc::new(Partly { stays: Role::Norm, name: "normalisation layer" }),
};

pub(super) const FEDPER: AlgorithmSpec = AlgorithmSpec {
    name: "fedper",
    title: "FedPer",
    paper: "Arivazhagan et al. 2019, arXiv:1912.00818",
    summary: "the last layer stays on the device",
    client_keeps: "its own last layer",
    build: |_| Arc::new(Partly { stays: Role::Head, name: "last layer beside others" }),
    ..FEDBN
};

pub(super) const DITTO: AlgorithmSpec = AlgorithmSpec {
    name: "ditto",
    title: "Ditto",
    paper: "Li et al. 2021, arXiv:2012.04221, algorithm 1",
    summary: "every client trains a model of its own too, which is pulled towards the global one",
    needs: |_| Needs::Sums,
    units: &[Unit::None, Unit::User],
    why_not: "a personal model is trained without noise, and whoever sees it sees the examples behind it",
    options: &[
        OptionSpec {
            key: "lambda",
            kind: Kind::Number { least: 0.0, most: 1_000.0, default: 0.1 },
            meaning: "λ, how strongly it is pulled",
        },
        OptionSpec {
            key: "personal_epochs",
            kind: Kind::Count { least: 1, most: 1_000, default: 1 },
            meaning: "epochs of its training in a round",
        },
    ],
    client_keeps: "its own model",
    server_keeps: "nothing",
    build: |options| {
        let (lambda, epochs) = (options.number("lambda") as f32, options.count("personal_epochs"));
        Arc::new(Ditto { lambda, epochs })
    },
};

/// Tensors of a role stay on the device: their share of an update is zero.
#[derive(Debug)]
struct Partly {
    stays: Role,
    name: &'static str,
}

impl Partly {
    fn ranges(&self, spec: &ModelSpec) -> Vec<Range<usize>> {
        let own = spec.tensors().filter(|(tensor, _)| tensor.role == self.stays);
        own.map(|(_, range)| range).collect()
    }
}

impl Algorithm for Partly {
    fn client(&self, task: &Task<'_>, memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let ranges = self.ranges(task.spec);
        let kept = ranges.iter().map(Range::len).sum();
        let start = self.personal(task.spec, task.global, checked(memory, kept)?);
        let mut vector = update(task.spec, &start, task.data, task.plan, task.seed)?;
        let mut memory = Vec::with_capacity(kept);
        for range in ranges {
            let own = start[range.clone()].iter().zip(&vector[range.clone()]);
            memory.extend(own.map(|(start, moved)| start + moved));
            vector[range].fill(0.0);
        }
        Ok(Given { vector, memory: Some(memory) })
    }

    fn personal(&self, spec: &ModelSpec, global: &[f32], memory: Option<&[f32]>) -> Vec<f32> {
        let mut parameters = global.to_vec();
        if let Some(mut rest) = memory {
            for range in self.ranges(spec) {
                let (own, after) = rest.split_at(range.len());
                parameters[range].copy_from_slice(own);
                rest = after;
            }
        }
        parameters
    }

    fn refuses(&self, spec: &ModelSpec) -> Option<String> {
        let own: usize = self.ranges(spec).iter().map(Range::len).sum();
        let whole = own == 0 || own == spec.parameters();
        whole.then(|| format!("model {} has no {}", spec.name(), self.name))
    }
}

#[derive(Debug)]
struct Ditto {
    lambda: f32,
    epochs: u32,
}

impl Algorithm for Ditto {
    fn client(&self, task: &Task<'_>, memory: Option<&[f32]>) -> Result<Given, AlgorithmError> {
        let own = checked(memory, task.global.len())?.unwrap_or(task.global);
        let training =
            LocalTraining { epochs: self.epochs, proximal: self.lambda, ..local_training(task.plan) };
        let guidance = Guidance { anchor: Some(task.global), ..Guidance::default() };
        // Another order of the examples than that of the global model's training.
        let seed = task.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let personal = train_with(task.spec, own, task.data, &training, seed, guidance)?;
        let vector = update(task.spec, task.global, task.data, task.plan, task.seed)?;
        Ok(Given { vector, memory: Some(personal.parameters) })
    }

    fn personal(&self, _spec: &ModelSpec, global: &[f32], memory: Option<&[f32]>) -> Vec<f32> {
        memory.unwrap_or(global).to_vec()
    }
}
