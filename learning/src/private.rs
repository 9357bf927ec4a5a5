//! Training that bounds what one example can do: DP-SGD (Abadi et al. 2016, arXiv:1607.00133).
//!
//! ```text
//! each step: rows by independent coins ─► gradient of each row, clipped ─► NoisedSum ─► parameters
//! ```
//!
//! The gradient of a row with respect to an affine layer is the outer product of the layer's inputs a and the gradient
//! δ of its outputs, and δ itself for the bias. Its squared norm is therefore (‖a‖² + 1)·‖δ‖², summed over the layers
//! (Goodfellow 2015, arXiv:1510.01799): clipping is known before the gradient is written down, once. That is how softmax
//! and multilayer perceptrons are trained; the gradients of other models are those of batches of one row, which takes
//! longer.
//!
//! Invariants
//! - A clipped gradient has an L2 norm of at most the clip norm, as a vector of f32.
//! - Gradients reach the parameters through [`NoisedSum::release`] alone, in a step without a row too.
//! - Nothing that scales the release depends on the data: not the rows that there are, nor those that were drawn.
//!
//! Absent on purpose: the noise, its exact arithmetic and its accounting, which the caller brings as a [`NoisedSum`].

use rand_core::CryptoRng;

use crate::models::{Dense, Layer};
use crate::training::{Network, check_fit};
use crate::{Dataset, LearningError, ModelSpec};

/// A sum that can be read after noise was added to it, and not before.
pub trait NoisedSum {
    /// Adds a clipped gradient, in the order of [`ModelSpec`].
    fn add(&mut self, clipped: &[f32]);

    /// The noised sum, with as many coordinates as the model has parameters, and an empty sum in its place.
    fn release(&mut self) -> Vec<f64>;
}

/// How a client trains on its own data in one round, with noise for each of its examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrivateTraining {
    /// SGD steps, at least 1.
    pub steps: u32,
    /// Probability with which each row takes part in a step, above 0 and at most 1.
    pub sampling_rate: f64,
    /// Rows that a step counts on, at least 1: the noised sum is divided by it.
    pub batch_size: u32,
    /// Largest L2 norm of one row's gradient, positive.
    pub clip_norm: f64,
    /// Step size, positive.
    pub learning_rate: f32,
}

/// Trains from `parameters` on `data` and returns the new parameters, in the order of [`ModelSpec`].
///
/// `rng` draws the rows of each step, which must stay as secret as the noise.
pub fn train_private(
    spec: &ModelSpec,
    parameters: &[f32],
    data: &Dataset,
    training: &PrivateTraining,
    rng: &mut impl CryptoRng,
    sum: &mut impl NoisedSum,
) -> Result<Vec<f32>, LearningError> {
    training.check()?;
    check_fit(spec, parameters, data)?;
    let mut parameters = parameters.to_vec();
    let mut gradient = Gradient::new(spec);
    for _ in 0..training.steps {
        gradient.start(&parameters);
        for row in poisson_batch(data.len(), training.sampling_rate, rng) {
            sum.add(gradient.clipped(&parameters, data, row, training.clip_norm)?);
        }
        let released = sum.release();
        if released.len() != parameters.len() {
            return Err(LearningError::ParameterCount {
                spec: spec.clone(),
                found: released.len(),
                expected: parameters.len(),
            });
        }
        let rate = f64::from(training.learning_rate) / f64::from(training.batch_size);
        for (parameter, slope) in parameters.iter_mut().zip(released) {
            *parameter = (f64::from(*parameter) - rate * slope) as f32;
        }
        if parameters.iter().any(|value| !value.is_finite()) {
            return Err(LearningError::Diverged { what: "a trained parameter" });
        }
    }
    Ok(parameters)
}

impl PrivateTraining {
    fn check(&self) -> Result<(), LearningError> {
        let refuse = |name, found: String, expected| Err(LearningError::Setting { name, found, expected });
        if self.steps == 0 {
            return refuse("steps", self.steps.to_string(), "1 or more");
        }
        if !(self.sampling_rate > 0.0 && self.sampling_rate <= 1.0) {
            return refuse("sampling_rate", self.sampling_rate.to_string(), "more than 0, up to 1");
        }
        if self.batch_size == 0 {
            return refuse("batch_size", self.batch_size.to_string(), "1 or more");
        }
        if !(self.clip_norm.is_finite() && self.clip_norm > 0.0) {
            return refuse("clip_norm", self.clip_norm.to_string(), "a finite number above 0");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse("learning_rate", self.learning_rate.to_string(), "a finite number above 0");
        }
        Ok(())
    }
}

/// Each row with probability `rate`, rounded down to a multiple of 2^-64: never more than is accounted for.
fn poisson_batch(rows: usize, rate: f64, rng: &mut impl CryptoRng) -> Vec<usize> {
    let limit = (rate * 2f64.powi(64)) as u128;
    (0..rows).filter(|_| u128::from(rng.next_u64()) < limit).collect()
}

/// Rounding to f32 can lengthen each coordinate by 2^-24 of itself: a limit below the clip norm by more than that keeps
/// the rounded gradient inside.
const ROUNDING_MARGIN: f64 = 1.0 - 1.0 / (1u64 << 22) as f64;

/// The gradient of the cross-entropy of one row, and the room that computing it takes.
struct Gradient<'a> {
    source: Source<'a>,
    flat: Vec<f32>,
}

enum Source<'a> {
    /// Affine layers, whose norm is known before the gradient is written down.
    Dense(Chain),
    /// Any other model: a batch of one row.
    Any(Network<'a>),
}

impl<'a> Gradient<'a> {
    fn new(spec: &'a ModelSpec) -> Self {
        let source = match Dense::layers_of(spec) {
            Some(layers) => Source::Dense(Chain::new(layers)),
            None => Source::Any(Network::empty(spec)),
        };
        Self { source, flat: Vec::with_capacity(spec.parameters()) }
    }

    /// Before the rows of a step.
    fn start(&mut self, parameters: &[f32]) {
        if let Source::Any(network) = &mut self.source {
            network.load(parameters);
        }
    }

    /// The gradient at checked parameters, scaled down to `clip` where it is longer.
    fn clipped(
        &mut self,
        parameters: &[f32],
        data: &Dataset,
        row: usize,
        clip: f64,
    ) -> Result<&[f32], LearningError> {
        self.flat.clear();
        match &mut self.source {
            Source::Dense(chain) => {
                let label = data.labels()[row] as usize;
                chain.clipped(parameters, data.row(row), label, clip, &mut self.flat);
            }
            Source::Any(network) => {
                network.gradients(data, &[row])?.1.write(&mut self.flat)?;
                let norm = self.flat.iter().map(|slope| f64::from(*slope).powi(2)).sum::<f64>().sqrt();
                // A gradient out of range says nothing about a direction; to fail would tell that there was one.
                let factor = if norm.is_finite() { (clip * ROUNDING_MARGIN / norm).min(1.0) } else { 0.0 };
                for slope in &mut self.flat {
                    *slope = if factor == 0.0 { 0.0 } else { (f64::from(*slope) * factor) as f32 };
                }
            }
        }
        Ok(&self.flat)
    }
}

/// The gradient of a chain of affine layers.
struct Chain {
    layers: Vec<Layer>,
    /// Inputs of each layer: the features, then rectified outputs.
    inputs: Vec<Vec<f64>>,
    /// Gradients of the outputs of each layer.
    deltas: Vec<Vec<f64>>,
}

impl Chain {
    fn new(layers: Vec<Layer>) -> Self {
        Self {
            inputs: layers.iter().map(|layer| vec![0.0; layer.inputs]).collect(),
            deltas: layers.iter().map(|layer| vec![0.0; layer.outputs]).collect(),
            layers,
        }
    }

    /// Appends the gradient at checked parameters, scaled down to `clip` where it is longer.
    fn clipped(
        &mut self,
        parameters: &[f32],
        features: &[f32],
        label: usize,
        clip: f64,
        flat: &mut Vec<f32>,
    ) {
        let tensors = self.tensors(parameters);
        self.forward(&tensors, features);
        self.backward(&tensors, label);
        let squared = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        let per_layer = self
            .inputs
            .iter()
            .zip(&self.deltas)
            .map(|(input, delta)| (squared(input) + 1.0) * squared(delta));
        let norm = per_layer.sum::<f64>().sqrt();
        let factor = (clip * ROUNDING_MARGIN / norm).min(1.0);
        for (input, delta) in self.inputs.iter().zip(&self.deltas) {
            flat.extend(delta.iter().map(|slope| (slope * factor) as f32));
            for value in input {
                let scaled = value * factor;
                flat.extend(delta.iter().map(|slope| (slope * scaled) as f32));
            }
        }
    }

    /// Bias and weight of each layer.
    fn tensors<'a>(&self, parameters: &'a [f32]) -> Vec<(&'a [f32], &'a [f32])> {
        let mut rest = parameters;
        let mut take = |count: usize| {
            let (values, after) = rest.split_at(count);
            rest = after;
            values
        };
        self.layers.iter().map(|layer| (take(layer.outputs), take(layer.inputs * layer.outputs))).collect()
    }

    /// Fills the inputs of all layers, and the last deltas with the class scores.
    fn forward(&mut self, tensors: &[(&[f32], &[f32])], features: &[f32]) {
        for (value, &feature) in self.inputs[0].iter_mut().zip(features) {
            *value = f64::from(feature);
        }
        for (depth, (bias, weight)) in tensors.iter().enumerate() {
            let outputs = &mut self.deltas[depth];
            for (output, &bias) in outputs.iter_mut().zip(*bias) {
                *output = f64::from(bias);
            }
            for (value, row) in self.inputs[depth].iter().zip(weight.chunks_exact(outputs.len())) {
                for (output, &weight) in outputs.iter_mut().zip(row) {
                    *output += value * f64::from(weight);
                }
            }
            if let Some(next) = self.inputs.get_mut(depth + 1) {
                for (value, output) in next.iter_mut().zip(outputs) {
                    *value = output.max(0.0);
                }
            }
        }
    }

    /// Turns class scores into their gradient, softmax minus one at the label, and passes it down.
    fn backward(&mut self, tensors: &[(&[f32], &[f32])], label: usize) {
        let scores = self.deltas.last_mut().expect("every model has an output layer");
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for score in scores.iter_mut() {
            *score = (*score - highest).exp();
        }
        let total: f64 = scores.iter().sum();
        for score in scores.iter_mut() {
            *score /= total;
        }
        scores[label] -= 1.0;
        for depth in (1..tensors.len()).rev() {
            let (below, above) = self.deltas.split_at_mut(depth);
            let (outputs, slopes) = (&mut below[depth - 1], &above[0]);
            let rows = tensors[depth].1.chunks_exact(slopes.len());
            for ((output, row), value) in outputs.iter_mut().zip(rows).zip(&self.inputs[depth]) {
                *output = if *value > 0.0 {
                    row.iter().zip(slopes).map(|(&weight, slope)| f64::from(weight) * slope).sum()
                } else {
                    0.0
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{LocalTraining, train};

    const TRAINING: PrivateTraining =
        PrivateTraining { steps: 1, sampling_rate: 1.0, batch_size: 1, clip_norm: 1.0, learning_rate: 1.0 };

    /// Keeps what it is given, and adds the same constant to every coordinate.
    #[derive(Default)]
    struct Recorder {
        length: usize,
        noise: f64,
        batch: Vec<Vec<f32>>,
        batches: Vec<Vec<Vec<f32>>>,
    }

    impl NoisedSum for Recorder {
        fn add(&mut self, clipped: &[f32]) {
            self.batch.push(clipped.to_vec());
        }

        fn release(&mut self) -> Vec<f64> {
            let batch = std::mem::take(&mut self.batch);
            let sum = |i: usize| batch.iter().map(|gradient| f64::from(gradient[i])).sum::<f64>();
            let released = (0..self.length).map(|i| sum(i) + self.noise).collect();
            self.batches.push(batch);
            released
        }
    }

    fn softmax() -> ModelSpec {
        "softmax:3x4".parse().unwrap()
    }

    fn mlp() -> ModelSpec {
        "mlp:3x5x4".parse().unwrap()
    }

    /// Affine layers, and models whose gradients are burn's.
    fn all() -> [ModelSpec; 4] {
        ["softmax:3x4", "mlp:3x5x4", "mlp:3x5x6x4", "lora:2:1:mlp:3x5x4"].map(|name| name.parse().unwrap())
    }

    fn recorder(spec: &ModelSpec) -> Recorder {
        Recorder { length: spec.parameters(), ..Recorder::default() }
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(5)
    }

    fn wave(length: usize, pace: f32) -> Vec<f32> {
        (0..length).map(|i| (i as f32 * pace).sin()).collect()
    }

    fn data(rows: usize) -> Dataset {
        let labels = (0..rows).map(|row| (row % 4) as u32).collect();
        Dataset::new(wave(3 * rows, 1.3), labels, 3, 4).unwrap()
    }

    fn norm(vector: &[f32]) -> f64 {
        vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    }

    /// The gradient of one row as burn's autodiff has it: one step of rate 1 on that row alone.
    fn reference(spec: &ModelSpec, parameters: &[f32], data: &Dataset, row: usize) -> Vec<f32> {
        let one = data.subset(&[row]).unwrap();
        let step = LocalTraining::sgd(1, 1, 1.0);
        let moved = train(spec, parameters, &one, &step, 0).unwrap().parameters;
        parameters.iter().zip(moved).map(|(before, after)| before - after).collect()
    }

    #[test]
    fn clipped_gradients_are_those_of_one_example_at_a_time() {
        let data = data(24);
        for spec in all() {
            let start = wave(spec.parameters(), 0.7);
            for clip_norm in [0.05, 0.6, 1.0, 100.0] {
                let mut sum = recorder(&spec);
                let training = PrivateTraining { clip_norm, ..TRAINING };
                train_private(&spec, &start, &data, &training, &mut rng(), &mut sum).unwrap();
                let [batch] = sum.batches.as_slice() else { panic!("one step, one release") };
                assert_eq!(batch.len(), 24);
                let mut clipped = 0;
                for (row, found) in batch.iter().enumerate() {
                    let whole = reference(&spec, &start, &data, row);
                    let factor = (clip_norm / norm(&whole)).min(1.0);
                    clipped += usize::from(factor < 1.0);
                    for (found, whole) in found.iter().zip(&whole) {
                        let expected = f64::from(*whole) * factor;
                        assert!((f64::from(*found) - expected).abs() < 1e-6, "{spec}, row {row}");
                    }
                    assert!(norm(found) <= clip_norm, "{spec}, row {row}: {}", norm(found));
                }
                match clip_norm {
                    0.05 => assert_eq!(clipped, 24),
                    100.0 => assert_eq!(clipped, 0),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_analytic_norm_is_that_of_the_gradient() {
        for spec in [softmax(), mlp()] {
            let (start, data) = (wave(spec.parameters(), 0.9), data(8));
            for row in 0..8 {
                let mut gradient = Gradient::new(&spec);
                let whole = norm(gradient.clipped(&start, &data, row, 1e9).unwrap());
                // Half of it as the clip norm scales every coordinate by a half; twice changes nothing.
                let half = norm(gradient.clipped(&start, &data, row, whole / 2.0).unwrap());
                assert!((half / whole - 0.5).abs() < 1e-6, "{spec}, row {row}");
                let double = norm(gradient.clipped(&start, &data, row, whole * 2.0).unwrap());
                assert_eq!(double, whole, "{spec}, row {row}");
                // At its own norm, and next to it, the gradient keeps its length but for rounding and stays inside.
                for clip in [whole, whole * (1.0 + 1e-7), whole * (1.0 - 1e-7)] {
                    let edge = norm(gradient.clipped(&start, &data, row, clip).unwrap());
                    assert!(
                        edge <= clip && edge > whole * (1.0 - 1e-6),
                        "{spec}, row {row}: {edge} at {clip}"
                    );
                }
            }
        }
    }

    #[test]
    fn huge_values_are_clipped_like_others() {
        for spec in [softmax(), mlp()] {
            let data = Dataset::new(vec![3e38; 3], vec![1], 3, 4).unwrap();
            let start: Vec<f32> = wave(spec.parameters(), 0.7).iter().map(|value| value * 1e38).collect();
            let found = norm(Gradient::new(&spec).clipped(&start, &data, 0, 0.25).unwrap());
            assert!(found <= 0.25, "{spec}: {found}");
        }
        // The gradient that vanishes has no direction to scale.
        let sure = [0.0, 1e9, 0.0, 0.0].into_iter().chain([0.0; 12]).collect::<Vec<f32>>();
        let data = Dataset::new(vec![1.0; 3], vec![1], 3, 4).unwrap();
        assert_eq!(norm(Gradient::new(&softmax()).clipped(&sure, &data, 0, 0.25).unwrap()), 0.0);
    }

    #[test]
    fn the_step_is_the_noised_sum_over_the_planned_batch() {
        let data = data(6);
        let start = wave(mlp().parameters(), 0.7);
        let training = PrivateTraining { batch_size: 3, learning_rate: 0.5, clip_norm: 0.3, ..TRAINING };
        let mut sum = Recorder { noise: 0.25, ..recorder(&mlp()) };
        let trained = train_private(&mlp(), &start, &data, &training, &mut rng(), &mut sum).unwrap();
        for (i, (after, before)) in trained.iter().zip(&start).enumerate() {
            let total: f64 = sum.batches[0].iter().map(|gradient| f64::from(gradient[i])).sum();
            let expected = f64::from(*before) - 0.5 * (total + 0.25) / 3.0;
            assert!((f64::from(*after) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_step_without_rows_is_released_and_moves_by_its_noise() {
        let start = vec![0.0; softmax().parameters()];
        let training = PrivateTraining { steps: 3, sampling_rate: 1e-18, batch_size: 2, ..TRAINING };
        let mut sum = Recorder { noise: -1.0, ..recorder(&softmax()) };
        let trained = train_private(&softmax(), &start, &data(5), &training, &mut rng(), &mut sum).unwrap();
        assert_eq!(sum.batches, vec![Vec::<Vec<f32>>::new(); 3]);
        assert_eq!(trained, vec![1.5; softmax().parameters()]);
    }

    #[test]
    fn rows_are_drawn_by_independent_coins() {
        let training = PrivateTraining { steps: 400, sampling_rate: 0.3, learning_rate: 1e-6, ..TRAINING };
        let mut sum = recorder(&softmax());
        let start = vec![0.0; softmax().parameters()];
        train_private(&softmax(), &start, &data(50), &training, &mut rng(), &mut sum).unwrap();
        let sizes: Vec<f64> = sum.batches.iter().map(|batch| batch.len() as f64).collect();
        let mean = sizes.iter().sum::<f64>() / 400.0;
        let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / 400.0;
        // Binomial of 50 and 0.3: mean 15 ± 0.16, variance 10.5 ± 0.74.
        assert!((mean - 15.0).abs() < 0.8 && (variance - 10.5).abs() < 3.7, "{mean}, {variance}");
        let all = PrivateTraining { sampling_rate: 1.0, ..training };
        train_private(&softmax(), &start, &data(50), &all, &mut rng(), &mut sum).unwrap();
        assert!(sum.batches[400..].iter().all(|batch| batch.len() == 50));
    }

    #[test]
    fn without_noise_it_learns() {
        let features = wave(120, 1.3);
        let quadrant = |row: &[f32]| u32::from(row[0] > 0.0) + 2 * u32::from(row[1] > 0.0);
        let labels = features.chunks_exact(3).map(quadrant).collect();
        let data = Dataset::new(features, labels, 3, 4).unwrap();
        let training = PrivateTraining {
            steps: 300,
            sampling_rate: 0.25,
            batch_size: 10,
            clip_norm: 5.0,
            learning_rate: 0.5,
        };
        for spec in all() {
            let start = spec.initial(1);
            let mut sum = recorder(&spec);
            let trained = train_private(&spec, &start, &data, &training, &mut rng(), &mut sum).unwrap();
            let [before, after] =
                [&start, &trained].map(|at| crate::evaluate(&spec, at, &data).unwrap().loss);
            assert!(after < 0.8 * before, "{spec}: {before} to {after}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_trained() {
        let refusal = |training: PrivateTraining, length: usize| {
            let mut sum = Recorder { length, ..Recorder::default() };
            let start = vec![0.0; softmax().parameters()];
            train_private(&softmax(), &start, &data(4), &training, &mut rng(), &mut sum)
                .unwrap_err()
                .to_string()
        };
        let whole = softmax().parameters();
        for (training, expected) in [
            (PrivateTraining { steps: 0, ..TRAINING }, "training setting steps is 0: expected 1 or more"),
            (
                PrivateTraining { sampling_rate: 1.5, ..TRAINING },
                "training setting sampling_rate is 1.5: expected more than 0, up to 1",
            ),
            (
                PrivateTraining { sampling_rate: f64::NAN, ..TRAINING },
                "training setting sampling_rate is NaN: expected more than 0, up to 1",
            ),
            (
                PrivateTraining { batch_size: 0, ..TRAINING },
                "training setting batch_size is 0: expected 1 or more",
            ),
            (
                PrivateTraining { clip_norm: 0.0, ..TRAINING },
                "training setting clip_norm is 0: expected a finite number above 0",
            ),
            (
                PrivateTraining { learning_rate: f32::INFINITY, ..TRAINING },
                "training setting learning_rate is inf: expected a finite number above 0",
            ),
        ] {
            assert_eq!(refusal(training, whole), expected);
        }
        assert_eq!(refusal(TRAINING, whole - 1), "15 parameters for model softmax:3x4: expected 16");
        let mut sum = Recorder { noise: f64::INFINITY, ..recorder(&softmax()) };
        let start = vec![0.0; whole];
        let error = train_private(&softmax(), &start, &data(4), &TRAINING, &mut rng(), &mut sum).unwrap_err();
        assert_eq!(error, LearningError::Diverged { what: "a trained parameter" });
    }
}
