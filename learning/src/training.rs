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

/// `bias` is 1 × outputs, `weight` inputs × outputs.
struct Affine {
    bias: Tensor<2>,
    weight: Tensor<2>,
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
            .map(|layer| Affine { bias: take(1, layer.outputs), weight: take(layer.inputs, layer.outputs) })
            .collect();
        Self { layers, device }
    }

    fn into_parameters(self) -> Result<Vec<f32>, LearningError> {
        let mut parameters = Vec::new();
        for tensor in self.layers.into_iter().flat_map(|layer| [layer.bias, layer.weight]) {
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

pub(crate) fn check_fit(spec: &ModelSpec, parameters: &[f32], data: &Dataset) -> Result<(), LearningError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTMAX: ModelSpec = ModelSpec::Softmax { inputs: 2, classes: 3 };
    const MLP: ModelSpec = ModelSpec::Mlp { inputs: 2, hidden: 3, classes: 3 };
    const ONE_STEP: LocalTraining = LocalTraining { epochs: 1, batch_size: 8, learning_rate: 0.5 };

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
    fn plain_loss(spec: ModelSpec, parameters: &[f64], data: &Dataset) -> f64 {
        let total: f64 = (0..data.len())
            .map(|row| {
                let mut values: Vec<f64> = data.row(row).iter().map(|&x| f64::from(x)).collect();
                let mut rest = parameters;
                for (depth, layer) in spec.layers().enumerate() {
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
        let trained = train(&SOFTMAX, &SOFTMAX.initial(0), &data, &ONE_STEP, 0).unwrap();
        let (away, toward) = (-0.5 / 3.0, 0.5 * 2.0 / 3.0);
        let expected = [away, toward, away, 2.0 * away, 2.0 * toward, 2.0 * away, -away, -toward, -away];
        for (found, expected) in trained.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{trained:?}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let data = clouds(8);
        for spec in [SOFTMAX, MLP] {
            let start = ramp(spec.parameters());
            let trained = train(&spec, &start, &data, &ONE_STEP, 0).unwrap();
            let wide: Vec<f64> = start.iter().map(|&value| f64::from(value)).collect();
            for index in 0..start.len() {
                let loss_at = |shift: f64| {
                    let mut moved = wide.clone();
                    moved[index] += shift;
                    plain_loss(spec, &moved, &data)
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
        let data = clouds(EVALUATION_ROWS + 300);
        for spec in [SOFTMAX, MLP] {
            let parameters = ramp(spec.parameters());
            let wide: Vec<f64> = parameters.iter().map(|&value| f64::from(value)).collect();
            let metrics = evaluate(&spec, &parameters, &data).unwrap();
            let expected = plain_loss(spec, &wide, &data);
            assert!((metrics.loss - expected).abs() < 1e-5, "{spec}: {} and {expected}", metrics.loss);
        }
    }

    #[test]
    fn ties_go_to_the_lowest_class() {
        let metrics = evaluate(&SOFTMAX, &SOFTMAX.initial(0), &clouds(9)).unwrap();
        assert!((metrics.accuracy - 1.0 / 3.0).abs() < 1e-12);
        assert!((metrics.loss - 3_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn training_learns() {
        let data = clouds(300);
        let training = LocalTraining { epochs: 10, batch_size: 16, learning_rate: 0.3 };
        for spec in [SOFTMAX, MLP] {
            let trained = train(&spec, &spec.initial(3), &data, &training, 3).unwrap();
            let metrics = evaluate(&spec, &trained, &data).unwrap();
            assert!(metrics.accuracy > 0.9, "{spec}: {metrics:?}");
        }
    }

    #[test]
    fn same_seed_same_bits_from_every_thread() {
        let data = clouds(40);
        let training = LocalTraining { epochs: 3, batch_size: 7, learning_rate: 0.1 };
        let start = MLP.initial(1);
        let run = |seed| train(&MLP, &start, &data, &training, seed).unwrap();
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
        let training = LocalTraining { epochs: 1, batch_size: 100, learning_rate: 0.1 };
        let start = ramp(SOFTMAX.parameters());
        let [one, two] = [1, 2].map(|seed| train(&SOFTMAX, &start, &data, &training, seed).unwrap());
        for (one, two) in one.iter().zip(two) {
            assert!((one - two).abs() < 1e-6);
        }
    }

    #[test]
    fn refuses_what_cannot_be_trained() {
        let data = clouds(6);
        let start = SOFTMAX.initial(0);
        let refusal = |spec: ModelSpec, parameters: &[f32], training: LocalTraining| {
            train(&spec, parameters, &data, &training, 0).unwrap_err().to_string()
        };
        let mut poisoned = start.clone();
        poisoned[4] = f32::NAN;
        let wide = ModelSpec::Softmax { inputs: 3, classes: 3 };
        let cases = [
            (refusal(SOFTMAX, &start[1..], ONE_STEP), "8 parameters for model softmax:2x3: expected 9"),
            (refusal(SOFTMAX, &poisoned, ONE_STEP), "parameter 4 is NaN: expected a finite number"),
            (
                refusal(wide, &wide.initial(0), ONE_STEP),
                "data of 2 inputs and 3 classes does not fit model softmax:3x3",
            ),
            (
                refusal(ModelSpec::Mlp { inputs: 2, hidden: 0, classes: 3 }, &[0.0; 3], ONE_STEP),
                "model mlp:2x0x3 is out of bounds: expected at least 1 input, 1 hidden unit, 2 classes and at \
                 most 16777216 parameters",
            ),
            (
                refusal(SOFTMAX, &start, LocalTraining { epochs: 0, ..ONE_STEP }),
                "training setting epochs is 0: expected 1 or more",
            ),
            (
                refusal(SOFTMAX, &start, LocalTraining { batch_size: 0, ..ONE_STEP }),
                "training setting batch_size is 0: expected 1 or more",
            ),
            (
                refusal(SOFTMAX, &start, LocalTraining { learning_rate: -0.1, ..ONE_STEP }),
                "training setting learning_rate is -0.1: expected a finite number above 0",
            ),
            (
                refusal(SOFTMAX, &start, LocalTraining { learning_rate: f32::NAN, ..ONE_STEP }),
                "training setting learning_rate is NaN: expected a finite number above 0",
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn divergence_is_an_error() {
        let training = LocalTraining { epochs: 20, batch_size: 2, learning_rate: 1e38 };
        let error = train(&MLP, &MLP.initial(1), &clouds(12), &training, 0).unwrap_err();
        assert_eq!(error, LearningError::Diverged { what: "a trained parameter" });
        let error = evaluate(&MLP, &vec![3e38; MLP.parameters()], &clouds(12)).unwrap_err();
        assert_eq!(error, LearningError::Diverged { what: "a class score" });
    }
}
