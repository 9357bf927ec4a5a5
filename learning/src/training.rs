//! Local training and evaluation: minibatch SGD on the cross-entropy, with burn's tensors and gradients.
//!
//! burn's `Module` and `Optimizer` are not used: they name every parameter from a process-wide generator, and a
//! model of one or two affine layers with plain SGD needs neither names nor optimiser state.

use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData, TensorReadError, activation};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{Dataset, LearningError, ModelSpec, permutation};

/// How a client trains on its own data in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalTraining {
    /// Passes over the data, at least 1.
    pub epochs: u32,
    /// Examples per SGD step, at least 1; the last step of an epoch takes what is left.
    pub batch_size: u32,
    /// Step size on the mean loss of a batch, positive.
    pub learning_rate: f32,
}

/// How well a model classifies a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Share of rows whose likeliest class is the label, in `[0, 1]`.
    pub accuracy: f64,
    /// Mean cross-entropy per row, in nats.
    pub loss: f64,
}

/// Trains from `parameters` on `data` and returns the new parameters, in the order of [`ModelSpec`].
///
/// Each epoch visits every row once in a new order, drawn from ChaCha20 under `seed`.
pub fn train(
    spec: &ModelSpec,
    parameters: &[f32],
    data: &Dataset,
    training: &LocalTraining,
    seed: u64,
) -> Result<Vec<f32>, LearningError> {
    training.check()?;
    check_fit(spec, parameters, data)?;
    let mut network = Network::new(spec, parameters);
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    for _ in 0..training.epochs {
        for rows in permutation(data.len(), &mut rng).chunks(training.batch_size as usize) {
            network.step(data, rows, training.learning_rate);
        }
    }
    let trained = network.into_parameters()?;
    if trained.iter().any(|value| !value.is_finite()) {
        return Err(LearningError::Diverged { what: "a trained parameter" });
    }
    Ok(trained)
}

/// Accuracy and mean loss of a model on `data`. Of equally likely classes the lowest counts as the answer.
pub fn evaluate(spec: &ModelSpec, parameters: &[f32], data: &Dataset) -> Result<Metrics, LearningError> {
    check_fit(spec, parameters, data)?;
    let network = Network::new(spec, parameters);
    let rows: Vec<usize> = (0..data.len()).collect();
    let (mut correct, mut loss) = (0_usize, 0.0_f64);
    for chunk in rows.chunks(EVALUATION_ROWS) {
        let logits = network.logits(features(data, chunk, &network.device));
        let log_probabilities =
            activation::log_softmax(logits, 1).try_into_vec_as::<f32>().map_err(backend)?;
        for (&row, scores) in chunk.iter().zip(log_probabilities.chunks_exact(data.classes())) {
            if scores.iter().any(|score| score.is_nan()) {
                return Err(LearningError::Diverged { what: "a class score" });
            }
            let label = data.labels()[row] as usize;
            correct += usize::from(first_maximum(scores) == label);
            loss -= f64::from(scores[label]);
        }
    }
    let rows = data.len() as f64;
    Ok(Metrics { accuracy: correct as f64 / rows, loss: loss / rows })
}

/// Rows that are classified at once, which bounds the memory of an evaluation.
const EVALUATION_ROWS: usize = 1024;

/// The layers of a model as tensors, and the device they are on. Between steps no tensor is tracked by autodiff.
struct Network {
    layers: Vec<Affine>,
    device: Device,
}

/// `weight` is inputs × outputs, `bias` 1 × outputs.
struct Affine {
    weight: Tensor<2>,
    bias: Tensor<2>,
}

impl Network {
    /// Expects checked parameters.
    fn new(spec: &ModelSpec, parameters: &[f32]) -> Self {
        let device = Device::flex();
        let mut rest = parameters;
        let mut take = |rows: usize, columns: usize| {
            let (values, after) = rest.split_at(rows * columns);
            rest = after;
            matrix(values.to_vec(), rows, columns, &device)
        };
        let layers = spec
            .layers()
            .map(|layer| Affine { weight: take(layer.inputs, layer.outputs), bias: take(1, layer.outputs) })
            .collect();
        Self { layers, device }
    }

    fn into_parameters(self) -> Result<Vec<f32>, LearningError> {
        let mut parameters = Vec::new();
        for tensor in self.layers.into_iter().flat_map(|layer| [layer.weight, layer.bias]) {
            parameters.extend(tensor.try_into_vec_as::<f32>().map_err(backend)?);
        }
        Ok(parameters)
    }

    /// Class scores, rows × classes: affine layers with rectified linear units between them.
    fn logits(&self, features: Tensor<2>) -> Tensor<2> {
        let mut layers = self.layers.iter();
        let first = layers.next().expect("every model has an output layer");
        layers.fold(first.apply(features), |values, layer| layer.apply(activation::relu(values)))
    }

    /// One step of SGD on the mean cross-entropy of the named rows.
    fn step(&mut self, data: &Dataset, rows: &[usize], learning_rate: f32) {
        for layer in &mut self.layers {
            layer.weight.inplace(|weight| weight.autodiff().require_grad());
            layer.bias.inplace(|bias| bias.autodiff().require_grad());
        }
        let logits = self.logits(features(data, rows, &self.device));
        let mut gradients =
            cross_entropy_with_logits(logits, one_hot_labels(data, rows, &self.device)).backward();
        for layer in &mut self.layers {
            layer.weight.inplace(|weight| descend(weight, &mut gradients, learning_rate));
            layer.bias.inplace(|bias| descend(bias, &mut gradients, learning_rate));
        }
    }
}

impl Affine {
    fn apply(&self, values: Tensor<2>) -> Tensor<2> {
        values.matmul(self.weight.clone()) + self.bias.clone()
    }
}

impl LocalTraining {
    fn check(&self) -> Result<(), LearningError> {
        let refuse = |name, found: String, expected| Err(LearningError::Setting { name, found, expected });
        if self.epochs == 0 {
            return refuse("epochs", self.epochs.to_string(), "1 or more");
        }
        if self.batch_size == 0 {
            return refuse("batch_size", self.batch_size.to_string(), "1 or more");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse("learning_rate", self.learning_rate.to_string(), "a finite number above 0");
        }
        Ok(())
    }
}

/// The parameter without its graph, moved against its gradient.
fn descend(parameter: Tensor<2>, gradients: &mut Gradients, learning_rate: f32) -> Tensor<2> {
    let gradient = parameter.grad_remove(gradients).expect("the loss depends on every parameter");
    parameter.without_autodiff() - gradient * learning_rate
}

/// Features of the named rows, rows × inputs.
fn features(data: &Dataset, rows: &[usize], device: &Device) -> Tensor<2> {
    let values = rows.iter().flat_map(|&row| data.row(row)).copied().collect();
    matrix(values, rows.len(), data.inputs(), device)
}

/// Labels of the named rows, rows × classes, 1 at the label and 0 elsewhere.
fn one_hot_labels(data: &Dataset, rows: &[usize], device: &Device) -> Tensor<2> {
    let mut values = vec![0.0; rows.len() * data.classes()];
    for (target, &row) in values.chunks_exact_mut(data.classes()).zip(rows) {
        target[data.labels()[row] as usize] = 1.0;
    }
    matrix(values, rows.len(), data.classes(), device)
}

/// A row-major matrix. The element type is named, because burn's default for a device can be changed process-wide.
fn matrix(values: Vec<f32>, rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, columns]), (device, DType::F32))
}

fn first_maximum(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

fn check_fit(spec: &ModelSpec, parameters: &[f32], data: &Dataset) -> Result<(), LearningError> {
    spec.check_parameters(parameters)?;
    if (data.inputs(), data.classes()) != (spec.inputs(), spec.classes()) {
        return Err(LearningError::DataMismatch {
            spec: *spec,
            inputs: data.inputs(),
            classes: data.classes(),
        });
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn backend(error: TensorReadError) -> LearningError {
    LearningError::Backend { detail: error.to_string() }
}
