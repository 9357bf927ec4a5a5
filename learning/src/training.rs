//! Local training and evaluation: minibatch SGD on the cross-entropy, with burn's tensors and gradients.
//!
//! ```text
//! parameters ─► one Vec per tensor ─► tensors ─► scores ─► loss ─► gradients ─┐
//!                      ▲                                                      │ + proximal term, correction, momentum
//!                      └───────────── w − η · g, in place ◄───────────────────┘
//! ```
//!
//! Values move into tensors and out of them without a copy, so that the flat vector is put together once, at the end.
//!
//! burn's `Module` and `Optimizer` are not used: they name every parameter from a process-wide generator, and plain
//! SGD needs neither names nor optimiser state.

use std::mem;
use std::ops::Range;

use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::dataset::gather;
use crate::{Batch, Dataset, Input, LearningError, ModelSpec, Weights, permutation};

/// How a client trains on its own data in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalTraining {
    /// Passes over the data, at least 1.
    pub epochs: u32,
    /// Examples per SGD step; the last step of an epoch takes what is left. 0 takes all of them in one step.
    pub batch_size: u32,
    /// Step size on the mean loss of a batch, positive.
    pub learning_rate: f32,
    /// FedProx's μ (Li et al. 2020, arXiv:1812.06127), at least 0: μ · (w − anchor) is added to every gradient.
    pub proximal: f32,
    /// Heavy-ball momentum β, at least 0 and below 1: a step follows m ← β · m + gradient.
    pub momentum: f32,
}

impl LocalTraining {
    /// Plain SGD.
    pub const fn sgd(epochs: u32, batch_size: u32, learning_rate: f32) -> Self {
        Self { epochs, batch_size, learning_rate, proximal: 0.0, momentum: 0.0 }
    }
}

/// What an algorithm adds to a client's gradients, besides the settings. Every vector is as long as the parameters.
#[derive(Debug, Default)]
pub struct Guidance<'a> {
    /// What the proximal term pulls to; the parameters that training starts from if there is none.
    pub anchor: Option<&'a [f32]>,
    /// Added to every gradient: SCAFFOLD's c − cᵢ (Karimireddy et al. 2020, arXiv:1910.06378).
    pub correction: Option<&'a [f32]>,
    /// The momentum m, read at the start and written at the end; zero at the start and forgotten if there is none.
    pub momentum: Option<&'a mut [f32]>,
}

/// What training made.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The new parameters, in the order of [`ModelSpec`].
    pub parameters: Vec<f32>,
    /// SGD steps that were taken.
    pub steps: u64,
    /// Mean cross-entropy per label, in nats, each batch before its step.
    pub loss: f64,
}

/// How well a model classifies a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Share of labels that are the likeliest class, in `[0, 1]`.
    pub accuracy: f64,
    /// Mean cross-entropy per label, in nats.
    pub loss: f64,
}

/// Trains from `parameters` on `data`.
///
/// Each epoch visits every row once in a new order, drawn from ChaCha20 under `seed`.
pub fn train(
    spec: &ModelSpec,
    parameters: &[f32],
    data: &Dataset,
    training: &LocalTraining,
    seed: u64,
) -> Result<Trained, LearningError> {
    train_with(spec, parameters, data, training, seed, Guidance::default())
}

/// Trains like [`train`], with what an algorithm adds to the gradients.
pub fn train_with(
    spec: &ModelSpec,
    parameters: &[f32],
    data: &Dataset,
    training: &LocalTraining,
    seed: u64,
    guidance: Guidance<'_>,
) -> Result<Trained, LearningError> {
    training.check()?;
    guidance.check(training, parameters.len())?;
    check_fit(spec, parameters, data)?;
    let mut network = Network::empty(spec);
    network.load(parameters);
    let mut descent = Descent::new(training, guidance, parameters);
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let batch_size = if training.batch_size == 0 { data.len() } else { training.batch_size as usize };
    let (mut steps, mut loss) = (0, 0.0);
    for _ in 0..training.epochs {
        for rows in permutation(data.len(), &mut rng).chunks(batch_size) {
            let (batch_loss, gradients) = network.gradients(data, rows)?;
            for ((values, mut gradient), (_, range)) in
                network.values.iter_mut().zip(gradients.0).zip(spec.tensors())
            {
                descent.step(range, values, gradient.as_mut_slice().map_err(backend)?);
            }
            steps += 1;
            loss += batch_loss * rows.len() as f64;
        }
    }
    let trained = network.values.concat();
    if trained.iter().any(|value| !value.is_finite()) {
        return Err(LearningError::Diverged { what: "a trained parameter" });
    }
    descent.finish();
    let visits = data.len() as f64 * f64::from(training.epochs);
    Ok(Trained { parameters: trained, steps, loss: loss / visits })
}

/// Accuracy and mean loss of a model on `data`. Of equally likely classes the lowest counts as the answer.
pub fn evaluate(spec: &ModelSpec, parameters: &[f32], data: &Dataset) -> Result<Metrics, LearningError> {
    let (mut correct, mut loss) = (0_usize, 0.0_f64);
    for_each_score(spec, parameters, data, |label, scores| {
        correct += usize::from(first_maximum(scores) == label);
        loss -= f64::from(scores[label]);
    })?;
    let labels = data.labels().len() as f64;
    Ok(Metrics { accuracy: correct as f64 / labels, loss: loss / labels })
}

/// The log-probability of every class at each label of `data`, labels × classes, row-major.
pub fn predict(spec: &ModelSpec, parameters: &[f32], data: &Dataset) -> Result<Vec<f32>, LearningError> {
    let mut all = Vec::with_capacity(data.labels().len() * data.classes());
    for_each_score(spec, parameters, data, |_, scores| all.extend_from_slice(scores))?;
    Ok(all)
}

/// Calls `visit` with each label of `data` and the log-probabilities of the classes there, label by label.
fn for_each_score(
    spec: &ModelSpec,
    parameters: &[f32],
    data: &Dataset,
    mut visit: impl FnMut(usize, &[f32]),
) -> Result<(), LearningError> {
    check_fit(spec, parameters, data)?;
    let device = Device::flex();
    let tensors = spec.tensors().map(|(_, range)| vector(parameters[range].to_vec(), &device)).collect();
    let weights = Weights::new(spec.layout(), tensors);
    let rows: Vec<usize> = (0..data.len()).collect();
    for rows in rows.chunks(evaluation_rows(spec.input(), data)) {
        let scores = spec.model().scores(&weights, batch(data, rows, &device));
        let log_probabilities = read(activation::log_softmax(scores, 1))?;
        let labels = data.labels_of(rows);
        let log_probabilities = log_probabilities.as_slice::<f32>().map_err(backend)?;
        for (&label, scores) in labels.iter().zip(log_probabilities.chunks_exact(data.classes())) {
            if scores.iter().any(|score| score.is_nan()) {
                return Err(LearningError::Diverged { what: "a class score" });
            }
            visit(label as usize, scores);
        }
    }
    Ok(())
}

/// Rows that are classified at once, which bounds the memory of an evaluation: convolutions keep tens of values for
/// each one that comes in.
fn evaluation_rows(input: Input, data: &Dataset) -> usize {
    match input {
        Input::Features(_) => 1024,
        Input::Image { .. } => 64,
        Input::Tokens => (2048 / data.inputs()).max(1),
    }
}

/// The parameters of a model, tensor by tensor.
pub(crate) struct Network<'a> {
    spec: &'a ModelSpec,
    values: Vec<Vec<f32>>,
    device: Device,
}

impl<'a> Network<'a> {
    /// Without values, until they are loaded.
    pub(crate) fn empty(spec: &'a ModelSpec) -> Self {
        Self { spec, values: Vec::new(), device: Device::flex() }
    }

    /// Expects checked parameters.
    pub(crate) fn load(&mut self, parameters: &[f32]) {
        self.values = self.spec.tensors().map(|(_, range)| parameters[range].to_vec()).collect();
    }

    /// The mean cross-entropy of the named rows, and its gradient. The network is of no use after an error.
    pub(crate) fn gradients(
        &mut self,
        data: &Dataset,
        rows: &[usize],
    ) -> Result<(f64, Gradients), LearningError> {
        let leaves: Vec<Tensor<1>> = self
            .values
            .iter_mut()
            .map(|values| vector(mem::take(values), &self.device).autodiff().require_grad())
            .collect();
        let weights = Weights::new(self.spec.layout(), leaves.clone());
        let scores = self.spec.model().scores(&weights, batch(data, rows, &self.device));
        drop(weights);
        let loss = cross_entropy_with_logits(scores, one_hot_labels(data, rows, &self.device));
        let mut gradients = loss.backward();
        let loss = read(loss.without_autodiff())?;
        let mut found = Vec::with_capacity(leaves.len());
        for (leaf, values) in leaves.into_iter().zip(&mut self.values) {
            let gradient = leaf.grad_remove(&mut gradients).map(read).transpose()?;
            *values = read(leaf.without_autodiff())?.try_into_vec::<f32>().map_err(backend)?;
            found.push(gradient.unwrap_or_else(|| TensorData::zeros::<f32, _>([values.len()])));
        }
        Ok((f64::from(loss.as_slice::<f32>().map_err(backend)?[0]), Gradients(found)))
    }
}

/// The gradient of a loss, tensor by tensor; zero for a tensor that the loss does not depend on.
pub(crate) struct Gradients(Vec<TensorData>);

impl Gradients {
    /// Appends the flat gradient.
    pub(crate) fn write(&self, flat: &mut Vec<f32>) -> Result<(), LearningError> {
        for gradient in &self.0 {
            flat.extend_from_slice(gradient.as_slice::<f32>().map_err(backend)?);
        }
        Ok(())
    }
}

/// Turns gradients into steps.
struct Descent<'a> {
    training: &'a LocalTraining,
    anchor: &'a [f32],
    correction: Option<&'a [f32]>,
    momentum: Option<&'a mut [f32]>,
    /// The momentum during training; empty where there is none.
    velocity: Vec<f32>,
}

impl<'a> Descent<'a> {
    /// Expects a checked guidance.
    fn new(training: &'a LocalTraining, guidance: Guidance<'a>, start: &'a [f32]) -> Self {
        let Guidance { anchor, correction, momentum } = guidance;
        let velocity = match &momentum {
            Some(momentum) => momentum.to_vec(),
            None if training.momentum > 0.0 => vec![0.0; start.len()],
            None => Vec::new(),
        };
        Self { training, anchor: anchor.unwrap_or(start), correction, momentum, velocity }
    }

    /// One step of the tensor in this place of the flat vector.
    fn step(&mut self, range: Range<usize>, values: &mut [f32], gradient: &mut [f32]) {
        if self.training.proximal > 0.0 {
            for ((slope, value), anchor) in gradient.iter_mut().zip(&*values).zip(&self.anchor[range.clone()])
            {
                *slope += self.training.proximal * (value - anchor);
            }
        }
        if let Some(correction) = self.correction {
            for (slope, correction) in gradient.iter_mut().zip(&correction[range.clone()]) {
                *slope += correction;
            }
        }
        if self.training.momentum > 0.0 {
            for (slope, velocity) in gradient.iter_mut().zip(&mut self.velocity[range]) {
                *velocity = self.training.momentum * *velocity + *slope;
                *slope = *velocity;
            }
        }
        for (value, slope) in values.iter_mut().zip(gradient) {
            *value -= self.training.learning_rate * *slope;
        }
    }

    /// Hands the momentum back.
    fn finish(self) {
        if let Some(momentum) = self.momentum {
            momentum.copy_from_slice(&self.velocity);
        }
    }
}

impl LocalTraining {
    fn check(&self) -> Result<(), LearningError> {
        let refuse = |name, found: String, expected| Err(LearningError::Setting { name, found, expected });
        if self.epochs == 0 {
            return refuse("epochs", self.epochs.to_string(), "1 or more");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse("learning_rate", self.learning_rate.to_string(), "a finite number above 0");
        }
        if !(self.proximal.is_finite() && self.proximal >= 0.0) {
            return refuse("proximal", self.proximal.to_string(), "a finite number, 0 or more");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return refuse("momentum", self.momentum.to_string(), "0 or more, below 1");
        }
        Ok(())
    }
}

impl Guidance<'_> {
    fn check(&self, training: &LocalTraining, parameters: usize) -> Result<(), LearningError> {
        let refuse = |name, found: String, expected| Err(LearningError::Setting { name, found, expected });
        let vectors = [
            ("anchor", self.anchor),
            ("correction", self.correction),
            ("momentum", self.momentum.as_deref()),
        ];
        for (name, vector) in vectors.iter().filter_map(|(name, vector)| Some((*name, (*vector)?))) {
            if vector.len() != parameters {
                let found = format!("a vector of {}", vector.len());
                return refuse(name, found, "a vector as long as the parameters");
            }
            if vector.iter().any(|value| !value.is_finite()) {
                return refuse(name, "a vector with infinite or NaN values".to_owned(), "finite numbers");
            }
        }
        if self.momentum.is_some() && training.momentum == 0.0 {
            return refuse("momentum", "a vector".to_owned(), "none where the setting momentum is 0");
        }
        Ok(())
    }
}

/// Inputs of the named rows.
fn batch(data: &Dataset, rows: &[usize], device: &Device) -> Batch {
    let shape = [rows.len(), data.inputs()];
    if data.is_sequences() {
        let tokens = gather(data.tokens(), data.inputs(), rows);
        let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
        Batch::Tokens(Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), (device, DType::I64)))
    } else {
        let features = gather(data.features(), data.inputs(), rows);
        Batch::Features(Tensor::from_data(TensorData::new(features, shape), (device, DType::F32)))
    }
}

/// Labels of the named rows, labels × classes, 1 at the label and 0 elsewhere.
fn one_hot_labels(data: &Dataset, rows: &[usize], device: &Device) -> Tensor<2> {
    let labels = data.labels_of(rows);
    let mut values = vec![0.0; labels.len() * data.classes()];
    for (target, &label) in values.chunks_exact_mut(data.classes()).zip(&labels) {
        target[label as usize] = 1.0;
    }
    Tensor::from_data(TensorData::new(values, [labels.len(), data.classes()]), (device, DType::F32))
}

/// A vector. The element type is named, because burn's default for a device can be changed process-wide.
pub(crate) fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), (device, DType::F32))
}

/// The values of a tensor, without a copy where nobody else holds them.
fn read<const D: usize>(tensor: Tensor<D>) -> Result<TensorData, LearningError> {
    tensor.try_into_data().map_err(backend)
}

fn first_maximum(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

pub(crate) fn check_fit(spec: &ModelSpec, parameters: &[f32], data: &Dataset) -> Result<(), LearningError> {
    spec.check_parameters(parameters)?;
    spec.check_data(data)
}

fn backend(error: impl std::fmt::Display) -> LearningError {
    LearningError::Backend { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Dense;

    const ONE_STEP: LocalTraining = LocalTraining::sgd(1, 8, 0.5);

    fn spec(name: &str) -> ModelSpec {
        name.parse().unwrap()
    }

    fn softmax() -> ModelSpec {
        spec("softmax:2x3")
    }

    fn mlp() -> ModelSpec {
        spec("mlp:2x3x3")
    }

    /// Three noisy, overlapping clouds in the plane, one per class.
    fn clouds(rows: usize) -> Dataset {
        let centres = [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]];
        let labels: Vec<u32> = (0..rows).map(|row| (row % 3) as u32).collect();
        let features = labels
            .iter()
            .enumerate()
            .flat_map(|(row, &label)| {
                // An irrational rotation spreads the offsets evenly over the circle.
                let angle = row as f32 * 2.399_963;
                let [x, y] = centres[label as usize];
                [x + 0.6 * angle.cos(), y + 0.6 * angle.sin()]
            })
            .collect();
        Dataset::new(features, labels, 2, 3).unwrap()
    }

    fn ramp(length: usize) -> Vec<f32> {
        (0..length).map(|i| (i as f32 * 0.7).sin()).collect()
    }

    /// Mean cross-entropy in plain f64 arithmetic, written independently of burn.
    fn plain_loss(spec: &ModelSpec, parameters: &[f64], data: &Dataset) -> f64 {
        let total: f64 = (0..data.len())
            .map(|row| {
                let mut values: Vec<f64> = data.row(row).iter().map(|&x| f64::from(x)).collect();
                let mut rest = parameters;
                for (depth, layer) in Dense::layers_of(spec).unwrap().into_iter().enumerate() {
                    if depth > 0 {
                        values = values.iter().map(|value| value.max(0.0)).collect();
                    }
                    let (bias, after) = rest.split_at(layer.outputs);
                    let (weight, after) = after.split_at(layer.inputs * layer.outputs);
                    rest = after;
                    values = (0..layer.outputs)
                        .map(|o| {
                            let products =
                                values.iter().enumerate().map(|(i, v)| v * weight[i * layer.outputs + o]);
                            bias[o] + products.sum::<f64>()
                        })
                        .collect();
                }
                let normaliser: f64 = values.iter().map(|value| value.exp()).sum();
                normaliser.ln() - values[data.labels()[row] as usize]
            })
            .sum();
        total / data.len() as f64
    }

    #[test]
    fn one_softmax_step_by_hand() {
        // Zero parameters give each class 1/3. For one example the gradient of the logits is p − onehot(label),
        // that of the bias is the same, that of the weight is its outer product with the features.
        let data = Dataset::new(vec![2.0, -1.0], vec![1], 2, 3).unwrap();
        let trained = train(&softmax(), &softmax().initial(0), &data, &ONE_STEP, 0).unwrap().parameters;
        let (away, toward) = (-0.5 / 3.0, 0.5 * 2.0 / 3.0);
        let expected = [away, toward, away, 2.0 * away, 2.0 * toward, 2.0 * away, -away, -toward, -away];
        for (found, expected) in trained.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{trained:?}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let data = clouds(8);
        for spec in [softmax(), mlp()] {
            let start = ramp(spec.parameters());
            let trained = train(&spec, &start, &data, &ONE_STEP, 0).unwrap().parameters;
            let wide: Vec<f64> = start.iter().map(|&value| f64::from(value)).collect();
            for index in 0..start.len() {
                let loss_at = |shift: f64| {
                    let mut moved = wide.clone();
                    moved[index] += shift;
                    plain_loss(&spec, &moved, &data)
                };
                let numeric = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
                let found = f64::from(start[index] - trained[index]) / f64::from(ONE_STEP.learning_rate);
                assert!(
                    (found - numeric).abs() < 1e-5,
                    "{spec} parameter {index}: {found}, expected {numeric}"
                );
            }
        }
    }

    #[test]
    fn evaluation_agrees_with_plain_arithmetic() {
        // More rows than one chunk of the evaluation.
        let data = clouds(1324);
        for spec in [softmax(), mlp()] {
            let parameters = ramp(spec.parameters());
            let wide: Vec<f64> = parameters.iter().map(|&value| f64::from(value)).collect();
            let metrics = evaluate(&spec, &parameters, &data).unwrap();
            let expected = plain_loss(&spec, &wide, &data);
            assert!((metrics.loss - expected).abs() < 1e-5, "{spec}: {} and {expected}", metrics.loss);
        }
    }

    #[test]
    fn ties_go_to_the_lowest_class() {
        let metrics = evaluate(&softmax(), &softmax().initial(0), &clouds(9)).unwrap();
        assert!((metrics.accuracy - 1.0 / 3.0).abs() < 1e-12);
        assert!((metrics.loss - 3_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn training_learns() {
        let data = clouds(300);
        let training = LocalTraining::sgd(10, 16, 0.3);
        for spec in [softmax(), mlp()] {
            let trained = train(&spec, &spec.initial(3), &data, &training, 3).unwrap().parameters;
            let metrics = evaluate(&spec, &trained, &data).unwrap();
            assert!(metrics.accuracy > 0.9, "{spec}: {metrics:?}");
        }
    }

    #[test]
    fn same_seed_same_bits_from_every_thread() {
        let data = clouds(40);
        let training = LocalTraining::sgd(3, 7, 0.1);
        let start = mlp().initial(1);
        let run = |seed| train(&mlp(), &start, &data, &training, seed).unwrap().parameters;
        let alone: Vec<Vec<f32>> = (0..4).map(run).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|i| (i % 4, scope.spawn(move || run(i as u64 % 4)))).collect();
            for (seed, thread) in threads {
                assert_eq!(thread.join().unwrap(), alone[seed]);
            }
        });
        assert_ne!(alone[0], alone[1], "the seed orders the batches");
    }

    #[test]
    fn batch_order_does_not_matter_to_a_full_batch() {
        let data = clouds(12);
        let training = LocalTraining::sgd(1, 100, 0.1);
        let start = ramp(softmax().parameters());
        let [one, two] =
            [1, 2].map(|seed| train(&softmax(), &start, &data, &training, seed).unwrap().parameters);
        for (one, two) in one.iter().zip(two) {
            assert!((one - two).abs() < 1e-6);
        }
    }

    /// Start, gradient of the whole data there, and what training in one full batch an epoch makes of it.
    fn full_batch(
        training: &LocalTraining,
        guidance: Guidance<'_>,
    ) -> (Vec<f32>, Vec<f32>, Result<Trained, LearningError>) {
        let (data, spec) = (clouds(12), mlp());
        let start = ramp(spec.parameters());
        let moved = train(&spec, &start, &data, &LocalTraining::sgd(1, 0, 1.0), 0).unwrap().parameters;
        let gradient = start.iter().zip(&moved).map(|(before, after)| before - after).collect();
        (start.clone(), gradient, train_with(&spec, &start, &data, training, 0, guidance))
    }

    fn assert_close(found: &[f32], expected: impl Iterator<Item = f32>) {
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-6, "parameter {at}: {found}, expected {expected}");
        }
    }

    #[test]
    fn a_proximal_term_pulls_to_its_anchor() {
        let training = LocalTraining { proximal: 0.4, ..LocalTraining::sgd(1, 0, 0.5) };
        // At the start the pull is to where the parameters are.
        let (start, gradient, trained) = full_batch(&training, Guidance::default());
        let plain = start.iter().zip(&gradient).map(|(w, g)| w - 0.5 * g);
        assert_close(&trained.unwrap().parameters, plain);
        let anchor = vec![2.0; start.len()];
        let guidance = Guidance { anchor: Some(&anchor), ..Guidance::default() };
        let (_, _, trained) = full_batch(&training, guidance);
        let pulled = start.iter().zip(&gradient).map(|(w, g)| w - 0.5 * (g + 0.4 * (w - 2.0)));
        assert_close(&trained.unwrap().parameters, pulled);
        // Of two steps the second one feels the start.
        let free = full_batch(&LocalTraining::sgd(50, 0, 0.5), Guidance::default()).2.unwrap();
        let held = full_batch(&LocalTraining { epochs: 50, ..training }, Guidance::default()).2.unwrap();
        let distance = |parameters: &[f32]| -> f32 {
            parameters.iter().zip(&start).map(|(one, two)| (one - two).powi(2)).sum()
        };
        assert!(distance(&held.parameters) < 0.8 * distance(&free.parameters));
    }

    #[test]
    fn a_correction_is_added_to_every_gradient() {
        let training = LocalTraining::sgd(1, 0, 0.5);
        let correction = ramp(mlp().parameters());
        let guidance = Guidance { correction: Some(&correction), ..Guidance::default() };
        let (start, gradient, trained) = full_batch(&training, guidance);
        let expected = start.iter().zip(&gradient).zip(&correction).map(|((w, g), c)| w - 0.5 * (g + c));
        assert_close(&trained.unwrap().parameters, expected);
    }

    #[test]
    fn momentum_lasts_from_call_to_call() {
        let training = LocalTraining { momentum: 0.9, ..LocalTraining::sgd(1, 0, 0.5) };
        let before = ramp(mlp().parameters());
        let mut momentum = before.clone();
        let guidance = Guidance { momentum: Some(&mut momentum), ..Guidance::default() };
        let (start, gradient, trained) = full_batch(&training, guidance);
        let expected: Vec<f32> = before.iter().zip(&gradient).map(|(m, g)| 0.9 * m + g).collect();
        assert_close(&momentum, expected.iter().copied());
        let trained = trained.unwrap().parameters;
        assert_close(&trained, start.iter().zip(&expected).map(|(w, m)| w - 0.5 * m));

        // Two calls that hand it on are one call of two epochs.
        let data = clouds(12);
        let mut handed = vec![0.0; start.len()];
        let mut parameters = start.clone();
        for _ in 0..2 {
            let guidance = Guidance { momentum: Some(&mut handed), ..Guidance::default() };
            parameters = train_with(&mlp(), &parameters, &data, &training, 0, guidance).unwrap().parameters;
        }
        let two = LocalTraining { epochs: 2, ..training };
        let at_once = train(&mlp(), &start, &data, &two, 0).unwrap().parameters;
        assert_close(&parameters, at_once.into_iter());
    }

    #[test]
    fn steps_and_loss_are_reported() {
        let (data, spec) = (clouds(25), softmax());
        let trained = train(&spec, &spec.initial(0), &data, &LocalTraining::sgd(3, 8, 1e-6), 0).unwrap();
        // Zero parameters, which hardly move, give each class 1/3; 25 rows are four batches an epoch.
        assert_eq!(trained.steps, 12);
        assert!((trained.loss - 3_f64.ln()).abs() < 1e-4, "{}", trained.loss);
        let trained = train(&spec, &spec.initial(0), &data, &LocalTraining::sgd(3, 0, 1e-6), 0).unwrap();
        assert_eq!(trained.steps, 3);
    }

    /// What training in a full batch says to a guidance that it refuses.
    fn guidance_refusal(training: &LocalTraining, guidance: Guidance<'_>) -> String {
        full_batch(training, guidance).2.unwrap_err().to_string()
    }

    #[test]
    fn refuses_guidance_that_does_not_fit() {
        let plain = LocalTraining::sgd(1, 0, 0.5);
        let heavy = LocalTraining { momentum: 0.9, ..plain };
        let (short, mut long) = (vec![0.0; 3], vec![0.0; mlp().parameters()]);
        let mut odd = long.clone();
        odd[2] = f32::INFINITY;
        let length = "is a vector of 3: expected a vector as long as the parameters";
        assert_eq!(
            guidance_refusal(&plain, Guidance { anchor: Some(&short), ..Guidance::default() }),
            format!("training setting anchor {length}")
        );
        assert_eq!(
            guidance_refusal(&plain, Guidance { correction: Some(&short), ..Guidance::default() }),
            format!("training setting correction {length}")
        );
        assert_eq!(
            guidance_refusal(&heavy, Guidance { momentum: Some(&mut short.clone()), ..Guidance::default() }),
            format!("training setting momentum {length}")
        );
        assert_eq!(
            guidance_refusal(&plain, Guidance { correction: Some(&odd), ..Guidance::default() }),
            "training setting correction is a vector with infinite or NaN values: expected finite numbers"
        );
        assert_eq!(
            guidance_refusal(&plain, Guidance { momentum: Some(&mut long), ..Guidance::default() }),
            "training setting momentum is a vector: expected none where the setting momentum is 0"
        );
    }

    #[test]
    fn refuses_what_cannot_be_trained() {
        let data = clouds(6);
        let start = softmax().initial(0);
        let refusal = |spec: ModelSpec, parameters: &[f32], training: LocalTraining| {
            train(&spec, parameters, &data, &training, 0).unwrap_err().to_string()
        };
        let mut poisoned = start.clone();
        poisoned[4] = f32::NAN;
        let wide = spec("softmax:3x3");
        let cases = [
            (refusal(softmax(), &start[1..], ONE_STEP), "8 parameters for model softmax:2x3: expected 9"),
            (refusal(softmax(), &poisoned, ONE_STEP), "parameter 4 is NaN: expected a finite number"),
            (
                refusal(wide.clone(), &wide.initial(0), ONE_STEP),
                "data of 2 inputs and 3 classes does not fit model softmax:3x3",
            ),
            (
                refusal(softmax(), &start, LocalTraining { epochs: 0, ..ONE_STEP }),
                "training setting epochs is 0: expected 1 or more",
            ),
            (
                refusal(softmax(), &start, LocalTraining { learning_rate: -0.1, ..ONE_STEP }),
                "training setting learning_rate is -0.1: expected a finite number above 0",
            ),
            (
                refusal(softmax(), &start, LocalTraining { proximal: -1.0, ..ONE_STEP }),
                "training setting proximal is -1: expected a finite number, 0 or more",
            ),
            (
                refusal(softmax(), &start, LocalTraining { momentum: 1.0, ..ONE_STEP }),
                "training setting momentum is 1: expected 0 or more, below 1",
            ),
            (
                refusal(softmax(), &start, LocalTraining { learning_rate: f32::NAN, ..ONE_STEP }),
                "training setting learning_rate is NaN: expected a finite number above 0",
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn divergence_is_an_error() {
        let training = LocalTraining::sgd(20, 2, 1e38);
        let error = train(&mlp(), &mlp().initial(1), &clouds(12), &training, 0).unwrap_err();
        assert_eq!(error, LearningError::Diverged { what: "a trained parameter" });
        let error = evaluate(&mlp(), &vec![3e38; mlp().parameters()], &clouds(12)).unwrap_err();
        assert_eq!(error, LearningError::Diverged { what: "a class score" });
    }
}
