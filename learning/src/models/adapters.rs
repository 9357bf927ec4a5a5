//! Adapters of low rank on a frozen model (Hu et al. 2021, arXiv:2106.09685).
//!
//! Every matrix W of the base is used as W + A·B, where A has as many columns as the adapter's rank. A and B are the
//! model's tensors, and so all that is trained, shared and aggregated; the base is public, and everyone has it already.
//! B starts at zero, so that training starts from the base. There is no factor α/r: a learning rate does the same.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};

use crate::model::{Batch, Input, Model, Start, TensorSpec, Weights};
use crate::training::vector;
use crate::{LearningError, ModelSpec};

struct Adapters {
    rank: usize,
    base: ModelSpec,
    origin: Origin,
    /// The tensors of the base, from the first use on.
    frozen: OnceLock<Vec<Tensor<1>>>,
}

/// Where the base's parameters come from.
enum Origin {
    Seed(u64),
    Parameters(Vec<f32>),
}

/// `RANK:SEED:BASE`: the base is what its own start is under this seed.
pub(super) fn seeded(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let mut parts = sizes.splitn(3, ':');
    let rank = parts.next()?.parse().ok()?;
    let seed = parts.next()?.parse().ok()?;
    let base = parts.next()?;
    // Adapters on adapters would be adapters of a higher rank, and names without an end.
    if base.starts_with("lora:") {
        return None;
    }
    let base: ModelSpec = match base.parse() {
        Ok(base) => base,
        Err(error) => return Some(Err(error)),
    };
    let name = format!("lora:{rank}:{seed}:{base}");
    Some(ModelSpec::new(name, Box::new(Adapters::new(rank, base, Origin::Seed(seed)))))
}

impl ModelSpec {
    /// Adapters of this rank on a base that was trained before, under a name of your own, which should tell where the
    /// base's parameters are from.
    pub fn adapters(
        name: impl Into<String>,
        rank: usize,
        base: &ModelSpec,
        parameters: Vec<f32>,
    ) -> Result<Self, LearningError> {
        base.check_parameters(&parameters)?;
        Self::custom(name, Adapters::new(rank, base.clone(), Origin::Parameters(parameters)))
    }
}

impl Adapters {
    fn new(rank: usize, base: ModelSpec, origin: Origin) -> Self {
        Self { rank, base, origin, frozen: OnceLock::new() }
    }

    fn frozen(&self) -> &[Tensor<1>] {
        self.frozen.get_or_init(|| {
            let drawn;
            let parameters = match &self.origin {
                Origin::Seed(seed) => {
                    drawn = self.base.initial(*seed);
                    &drawn
                }
                Origin::Parameters(parameters) => parameters,
            };
            let device = Device::flex();
            self.base.tensors().map(|(_, range)| vector(parameters[range].to_vec(), &device)).collect()
        })
    }
}

impl Model for Adapters {
    fn input(&self) -> Input {
        self.base.input()
    }

    fn classes(&self) -> usize {
        self.base.classes()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let adapter = |tensor: &TensorSpec| {
            let &[inputs, outputs] = tensor.shape.as_slice() else { return None };
            let part = |part, shape: [usize; 2], start| {
                TensorSpec::new(format!("{}.{part}", tensor.name), &shape, start).with_role(tensor.role)
            };
            let start = Start::Uniform(1.0 / (inputs as f32).sqrt());
            Some([
                part("lora_a", [inputs, self.rank], start),
                part("lora_b", [self.rank, outputs], Start::Zeros),
            ])
        };
        self.base.layout().iter().filter_map(adapter).flatten().collect()
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let adapted = |(tensor, frozen): (&TensorSpec, &Tensor<1>)| {
            if tensor.shape.len() != 2 {
                return frozen.clone();
            }
            let [a, b] =
                ["lora_a", "lora_b"].map(|part| weights.get::<2>(&format!("{}.{part}", tensor.name)));
            a.matmul(b).reshape([tensor.size()]) + frozen.clone()
        };
        let tensors = self.base.layout().iter().zip(self.frozen()).map(adapted).collect();
        self.base.model().scores(&Weights::new(self.base.layout(), tensors), batch)
    }
}
