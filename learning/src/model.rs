//! Which models there are, and how their tensors lie in the flat parameter vector.

use std::fmt;
use std::str::FromStr;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::LearningError;

/// Largest model accepted, in parameters (64 MiB of `f32`).
pub const MAX_PARAMETERS: usize = 1 << 24;

/// The shape of a classifier. Written `softmax:64x10` or `mlp:64x32x10`.
///
/// Parameters are flat in this order, each matrix row-major with one row per input of its layer:
///
/// | model | order |
/// |---|---|
/// | softmax | `output.bias` (classes), `output.weight` (inputs × classes) |
/// | mlp | `hidden.bias` (hidden), `hidden.weight` (inputs × hidden), `output.bias` (classes), `output.weight` (hidden × classes) |
///
/// This is the order of the tensors' names, in which a safetensors file holds them too: whoever has the file can
/// add an update to its data section without knowing the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelSpec {
    /// Multinomial logistic regression: one affine layer, then softmax.
    Softmax {
        /// Features per example.
        inputs: usize,
        /// Classes.
        classes: usize,
    },
    /// One hidden layer of rectified linear units, then softmax.
    Mlp {
        /// Features per example.
        inputs: usize,
        /// Hidden units.
        hidden: usize,
        /// Classes.
        classes: usize,
    },
}

impl ModelSpec {
    /// Length of the flat parameter vector.
    pub fn parameters(&self) -> usize {
        self.layers()
            .map(|layer| layer.inputs.saturating_add(1).saturating_mul(layer.outputs))
            .fold(0, usize::saturating_add)
    }

    /// Features per example.
    pub fn inputs(&self) -> usize {
        match *self {
            Self::Softmax { inputs, .. } | Self::Mlp { inputs, .. } => inputs,
        }
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        match *self {
            Self::Softmax { classes, .. } | Self::Mlp { classes, .. } => classes,
        }
    }

    /// Parameters to start training from.
    ///
    /// Biases are zero. A softmax model is convex and starts at zero altogether, whatever the seed. A multilayer
    /// perceptron needs its symmetry broken: weights are uniform with variance 2 / inputs of the layer (He et al.
    /// 2015, arXiv:1502.01852), drawn from ChaCha20 under `seed`.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut parameters = Vec::with_capacity(self.parameters());
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        for layer in self.layers() {
            let bound = match self {
                Self::Softmax { .. } => 0.0,
                Self::Mlp { .. } => (6.0 / layer.inputs as f32).sqrt(),
            };
            parameters.extend((0..layer.outputs).map(|_| 0.0));
            parameters.extend((0..layer.inputs * layer.outputs).map(|_| bound * symmetric_uniform(&mut rng)));
        }
        parameters
    }

    /// The affine layers, first to last: the order of the flat vector.
    pub(crate) fn layers(self) -> impl Iterator<Item = Layer> {
        let (first, second) = match self {
            Self::Softmax { inputs, classes } => (None, Layer { name: "output", inputs, outputs: classes }),
            Self::Mlp { inputs, hidden, classes } => (
                Some(Layer { name: "hidden", inputs, outputs: hidden }),
                Layer { name: "output", inputs: hidden, outputs: classes },
            ),
        };
        first.into_iter().chain([second])
    }

    /// Refuses a model whose size makes no sense.
    pub(crate) fn check(&self) -> Result<(), LearningError> {
        let sensible = self.layers().all(|layer| layer.inputs >= 1 && layer.outputs >= 1)
            && self.classes() >= 2
            && self.parameters() <= MAX_PARAMETERS;
        if sensible { Ok(()) } else { Err(LearningError::ModelOutOfBounds { spec: *self }) }
    }

    /// Refuses a parameter vector of the wrong length, or with a value that is not finite.
    pub(crate) fn check_parameters(&self, parameters: &[f32]) -> Result<(), LearningError> {
        self.check()?;
        let expected = self.parameters();
        if parameters.len() != expected {
            return Err(LearningError::ParameterCount { spec: *self, found: parameters.len(), expected });
        }
        match parameters.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(LearningError::NonFiniteParameter { index, value: parameters[index] }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Softmax { inputs, classes } => write!(f, "softmax:{inputs}x{classes}"),
            Self::Mlp { inputs, hidden, classes } => write!(f, "mlp:{inputs}x{hidden}x{classes}"),
        }
    }
}

impl FromStr for ModelSpec {
    type Err = LearningError;

    /// Accepts exactly what `Display` writes, for a model within bounds.
    fn from_str(text: &str) -> Result<Self, LearningError> {
        let unknown = || LearningError::UnknownModel { found: text.chars().take(64).collect() };
        let (kind, sizes) = text.split_once(':').ok_or_else(unknown)?;
        let sizes: Vec<usize> =
            sizes.split('x').map(str::parse).collect::<Result<_, _>>().map_err(|_| unknown())?;
        let spec = match (kind, sizes.as_slice()) {
            ("softmax", &[inputs, classes]) => Self::Softmax { inputs, classes },
            ("mlp", &[inputs, hidden, classes]) => Self::Mlp { inputs, hidden, classes },
            _ => return Err(unknown()),
        };
        // One text per model, because plans are signed: "softmax:064x10" and "softmax:+64x10" are no other names.
        if spec.to_string() != text {
            return Err(unknown());
        }
        spec.check()?;
        Ok(spec)
    }
}

/// One affine layer `x · weight + bias`; in the flat vector the bias comes before the weight (inputs × outputs).
#[derive(Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// Uniform in [−1, 1), on a grid of 2^-23.
fn symmetric_uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MLP: ModelSpec = ModelSpec::Mlp { inputs: 64, hidden: 32, classes: 10 };

    #[test]
    fn counts_parameters() {
        assert_eq!(ModelSpec::Softmax { inputs: 64, classes: 10 }.parameters(), 650);
        assert_eq!(MLP.parameters(), 65 * 32 + 33 * 10);
    }

    #[test]
    fn text_form_round_trips() {
        for text in ["softmax:64x10", "mlp:64x32x10"] {
            assert_eq!(text.parse::<ModelSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "softmax",
            "softmax:",
            "softmax:64",
            "softmax:64x10x2",
            "softmax:064x10",
            "softmax:+64x10",
            "Softmax:64x10",
            "mlp:64x10",
            "mlp:64x-1x10",
            "mlp:64x32x10 ",
            "cnn:64x10",
            "softmax:99999999999999999999x10",
        ] {
            let error = text.parse::<ModelSpec>().unwrap_err();
            assert_eq!(error, LearningError::UnknownModel { found: text.to_owned() });
        }
    }

    #[test]
    fn refuses_absurd_sizes() {
        for text in [
            "softmax:0x10",
            "softmax:64x1",
            "mlp:64x0x10",
            "softmax:16777216x10",
            "mlp:18446744073709551615x18446744073709551615x10",
        ] {
            let error = text.parse::<ModelSpec>().unwrap_err();
            assert!(matches!(error, LearningError::ModelOutOfBounds { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn softmax_starts_at_zero() {
        let spec = ModelSpec::Softmax { inputs: 3, classes: 2 };
        assert_eq!(spec.initial(7), vec![0.0; 8]);
    }

    #[test]
    fn mlp_starts_from_the_seed() {
        let initial = MLP.initial(1);
        assert_eq!(initial.len(), MLP.parameters());
        assert_eq!(initial, MLP.initial(1));
        assert_ne!(initial, MLP.initial(2));
        let (hidden_bias, rest) = initial.split_at(32);
        let (hidden, rest) = rest.split_at(64 * 32);
        let (output_bias, output) = rest.split_at(10);
        assert!(hidden_bias.iter().chain(output_bias).all(|bias| *bias == 0.0));
        for (weights, inputs) in [(hidden, 64.0), (output, 32.0)] {
            let variance = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
            let expected = 2.0 / inputs;
            assert!((variance / expected - 1.0).abs() < 0.15, "variance {variance}, expected {expected}");
        }
    }
}
