//! Softmax regression and multilayer perceptrons: affine layers with rectified linear units between them.

use burn::tensor::{Tensor, activation};

use super::{named, numbers};
use crate::model::{Batch, Input, Model, Role, Start, TensorSpec, Weights};
use crate::{LearningError, ModelSpec};

/// Hidden layers at most: the names of more would no longer sort in the order of the layers.
const MAX_HIDDEN: usize = 8;

/// A chain of affine layers.
#[derive(Clone)]
pub(crate) struct Dense {
    layers: Vec<Layer>,
}

/// One affine layer `x · weight + bias`; in the flat vector the bias comes before the weight (inputs × outputs).
#[derive(Clone)]
pub(crate) struct Layer {
    name: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

pub(super) fn softmax(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let sizes = numbers(sizes).filter(|sizes| sizes.len() == 2)?;
    Some(Dense::spec("softmax", &sizes))
}

pub(super) fn mlp(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let sizes = numbers(sizes).filter(|sizes| (3..=MAX_HIDDEN + 2).contains(&sizes.len()))?;
    Some(Dense::spec("mlp", &sizes))
}

impl Dense {
    fn spec(kind: &str, sizes: &[usize]) -> Result<ModelSpec, LearningError> {
        let last = sizes.len() - 2;
        let layers = sizes.array_windows().enumerate().map(|(depth, &[inputs, outputs])| {
            let name = match depth {
                _ if depth == last => "output".to_owned(),
                0 => "hidden".to_owned(),
                _ => format!("hidden{}", depth + 1),
            };
            Layer { name, inputs, outputs }
        });
        ModelSpec::new(named(kind, sizes), Box::new(Self { layers: layers.collect() }))
    }

    /// The layers of a model that is one of these, first to last, which is also the order of its flat vector.
    pub(crate) fn layers_of(spec: &ModelSpec) -> Option<Vec<Layer>> {
        let (kind, sizes) = spec.name().split_once(':')?;
        if !["softmax", "mlp"].contains(&kind) {
            return None;
        }
        let sizes = numbers(sizes)?;
        let layer = |&[inputs, outputs]: &[usize; 2]| Layer { name: String::new(), inputs, outputs };
        Some(sizes.array_windows().map(layer).collect())
    }
}

impl Model for Dense {
    fn input(&self) -> Input {
        Input::Features(self.layers[0].inputs)
    }

    fn classes(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let convex = self.layers.len() == 1;
        let tensors = |Layer { name, inputs, outputs }: &Layer| {
            let role = if name == "output" { Role::Head } else { Role::Body };
            let tensors = affine_tensors(name, *inputs, *outputs, role);
            if convex { tensors.map(|tensor| TensorSpec { start: Start::Zeros, ..tensor }) } else { tensors }
        };
        self.layers.iter().flat_map(tensors).collect()
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let mut layers = self.layers.iter();
        let first = layers.next().expect("every model has an output layer");
        layers.fold(affine(weights, &first.name, batch.features()), |values, layer| {
            affine(weights, &layer.name, activation::relu(values))
        })
    }
}

/// Bias and weight of an affine layer.
pub(super) fn affine_tensors(name: &str, inputs: usize, outputs: usize, role: Role) -> [TensorSpec; 2] {
    let tensor = |part, shape: &[usize], start| {
        TensorSpec::new(format!("{name}.{part}"), shape, start).with_role(role)
    };
    [tensor("bias", &[outputs], Start::Zeros), tensor("weight", &[inputs, outputs], Start::he(inputs))]
}

/// `values · weight + bias` of the named layer.
pub(super) fn affine(weights: &Weights<'_>, name: &str, values: Tensor<2>) -> Tensor<2> {
    values.matmul(weights.get(&format!("{name}.weight"))) + weights.row(&format!("{name}.bias"))
}
