//! What a model is: its name, its tensors in the flat parameter vector, and its class scores.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::{Dataset, LearningError, models};

/// Largest model accepted, in parameters (64 MiB of `f32`).
pub const MAX_PARAMETERS: usize = 1 << 24;

/// Longest name of a model, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// How a model computes class scores from tensors that somebody else keeps.
///
/// Implement it for a model of your own, and make a [`ModelSpec`] of it with [`ModelSpec::custom`]. A model has no
/// state: what is trained comes in as [`Weights`]. It must not draw random numbers either, or training could not be
/// repeated.
pub trait Model: Send + Sync {
    /// What a row of data must be.
    fn input(&self) -> Input;

    /// Classes to choose from, at least 2; for [`Input::Tokens`] this is the vocabulary.
    fn classes(&self) -> usize;

    /// All trained tensors, in any order.
    fn tensors(&self) -> Vec<TensorSpec>;

    /// Unnormalised log-probabilities, one row of [`Model::classes`] for each label of the batch: a label for each row
    /// of features, and one for each token (rows one after the other) of sequences.
    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2>;
}

/// What a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// So many features per row.
    Features(usize),
    /// An image per row: a feature for each channel, row and column, in this order of strides.
    Image {
        /// Channels, such as 3 for colours.
        channels: usize,
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// A sequence of tokens per row, of any length, each below the model's number of classes. The labels are the same
    /// tokens one place later.
    Tokens,
}

impl Input {
    /// Features per row; none for tokens.
    pub fn features(self) -> Option<usize> {
        match self {
            Self::Features(features) => Some(features),
            Self::Image { channels, height, width } => {
                Some(channels.saturating_mul(height).saturating_mul(width))
            }
            Self::Tokens => None,
        }
    }
}

/// Rows of a dataset as a tensor.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Rows × features.
    Features(Tensor<2>),
    /// Rows × tokens.
    Tokens(Tensor<2, Int>),
}

impl Batch {
    /// Rows × features.
    ///
    /// # Panics
    /// For sequences, which a model gets only if it declares [`Input::Tokens`].
    pub fn features(self) -> Tensor<2> {
        match self {
            Self::Features(values) => values,
            Self::Tokens(_) => panic!("this model declares features and gets features"),
        }
    }

    /// Rows × tokens.
    ///
    /// # Panics
    /// For features, which a model gets only if it does not declare [`Input::Tokens`].
    pub fn tokens(self) -> Tensor<2, Int> {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Features(_) => panic!("this model declares tokens and gets tokens"),
        }
    }
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Unique in the model; PyTorch's name where there is one, such as `output.weight`.
    pub name: String,
    /// Sizes, slowest first. A matrix has a row for each input and a column for each output.
    pub shape: Vec<usize>,
    /// Values that training starts from.
    pub start: Start,
    /// The part of the model that it belongs to.
    pub role: Role,
}

/// The part of a model that a tensor belongs to, for algorithms that keep some of it on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Any layer that is none of the following.
    Body,
    /// A normalisation layer, which FedBN keeps (Li et al. 2021, arXiv:2102.07623).
    Norm,
    /// The last layer, which FedPer keeps (Arivazhagan et al. 2019, arXiv:1912.00818).
    Head,
}

/// Values that a tensor starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform between minus this and this.
    Uniform(f32),
}

impl Start {
    /// Uniform with variance 2 / inputs (He et al. 2015, arXiv:1502.01852).
    pub fn he(inputs: usize) -> Self {
        Self::Uniform((6.0 / inputs as f32).sqrt())
    }
}

impl TensorSpec {
    /// A tensor of the model's body.
    pub fn new(name: impl Into<String>, shape: &[usize], start: Start) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), start, role: Role::Body }
    }

    /// The same tensor in another part of the model.
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// Number of values.
    pub fn size(&self) -> usize {
        self.shape.iter().copied().fold(1, usize::saturating_mul)
    }
}

/// The tensors of a model for one computation.
pub struct Weights<'a> {
    specs: &'a [TensorSpec],
    /// Flat, in the order of `specs`.
    tensors: Vec<Tensor<1>>,
}

impl<'a> Weights<'a> {
    /// Expects as many tensors as there are specs, of the same sizes.
    pub(crate) fn new(specs: &'a [TensorSpec], tensors: Vec<Tensor<1>>) -> Self {
        Self { specs, tensors }
    }

    /// The tensor of this name in its shape, which has `D` sizes.
    ///
    /// # Panics
    /// If the model has not declared such a tensor.
    pub fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (spec, tensor) = self.find(name);
        let Ok(shape) = <[usize; D]>::try_from(spec.shape.as_slice()) else {
            panic!("tensor {name} has {} sizes, not {D}", spec.shape.len());
        };
        tensor.reshape(shape)
    }

    /// The values of this tensor as a matrix of one row.
    ///
    /// # Panics
    /// If the model has not declared such a tensor.
    pub fn row(&self, name: &str) -> Tensor<2> {
        let (spec, tensor) = self.find(name);
        tensor.reshape([1, spec.size()])
    }

    fn find(&self, name: &str) -> (&TensorSpec, Tensor<1>) {
        match self.specs.iter().zip(&self.tensors).find(|(spec, _)| spec.name == name) {
            Some((spec, tensor)) => (spec, tensor.clone()),
            None => panic!("tensor {name} is not among the model's"),
        }
    }
}

/// A model by its name, such as `softmax:64x10`, which is all that a plan says of it.
///
/// [`models::KINDS`] lists what names there are; [`ModelSpec::custom`] adds others. The parameters of a model are one
/// flat vector, in which tensors follow one another in the order of their names, each with its last index fastest.
/// A safetensors file holds them in this order too: whoever has the file can add an update to its data section
/// without knowing the model.
#[derive(Clone)]
pub struct ModelSpec(Arc<Parts>);

struct Parts {
    name: String,
    model: Box<dyn Model>,
    /// In the order of their names.
    tensors: Vec<TensorSpec>,
}

impl ModelSpec {
    /// A model of your own under a name of your own, which must not open like that of a built-in model.
    ///
    /// Whoever reads a plan with this name must have the same model under it: see [`crate::Models`].
    pub fn custom(name: impl Into<String>, model: impl Model + 'static) -> Result<Self, LearningError> {
        let name = name.into();
        if models::KINDS.iter().any(|kind| name.split(':').next() == Some(kind.name)) {
            return Err(LearningError::ModelName {
                found: name,
                expected: "a name that no built-in model has",
            });
        }
        Self::new(name, Box::new(model))
    }

    /// Checks what a model says of itself.
    pub(crate) fn new(name: String, model: Box<dyn Model>) -> Result<Self, LearningError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(LearningError::ModelName {
                found: name.chars().take(MAX_NAME_BYTES).collect(),
                expected: "1 to 200 printable ASCII characters without spaces",
            });
        }
        let mut tensors = model.tensors();
        tensors.sort_by(|one, two| one.name.cmp(&two.name));
        let total = tensors.iter().map(TensorSpec::size).fold(0, usize::saturating_add);
        let sensible = tensors.iter().all(|tensor| tensor.size() >= 1)
            && tensors.array_windows().all(|[one, two]| one.name != two.name)
            && model.input().features() != Some(0)
            && model.classes() >= 2
            && (1..=MAX_PARAMETERS).contains(&total);
        if !sensible {
            return Err(LearningError::ModelOutOfBounds { name });
        }
        Ok(Self(Arc::new(Parts { name, model, tensors })))
    }

    /// The name, from which [`crate::Models::find`] makes the model again.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Length of the flat parameter vector.
    pub fn parameters(&self) -> usize {
        self.0.tensors.iter().map(TensorSpec::size).sum()
    }

    /// The tensors in the order of the flat vector, each with its place there.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        self.0.tensors.iter().scan(0, |start, tensor| {
            let range = *start..*start + tensor.size();
            *start = range.end;
            Some((tensor, range))
        })
    }

    /// What the model reads.
    pub fn input(&self) -> Input {
        self.0.model.input()
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.0.model.classes()
    }

    /// Parameters to start training from, drawn from ChaCha20 under `seed`.
    ///
    /// Biases are zero. A softmax model is convex and starts at zero altogether, whatever the seed; the others need
    /// their symmetry broken.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut parameters = Vec::with_capacity(self.parameters());
        for tensor in &self.0.tensors {
            let size = tensor.size();
            match tensor.start {
                Start::Zeros => parameters.extend((0..size).map(|_| 0.0)),
                Start::Ones => parameters.extend((0..size).map(|_| 1.0)),
                Start::Uniform(bound) => {
                    parameters.extend((0..size).map(|_| bound * symmetric_uniform(&mut rng)));
                }
            }
        }
        parameters
    }

    /// Refuses data of another kind than the model reads.
    pub fn check_data(&self, data: &Dataset) -> Result<(), LearningError> {
        let fits = match self.input().features() {
            Some(features) => !data.is_sequences() && data.inputs() == features,
            None => data.is_sequences(),
        };
        if fits && data.classes() == self.classes() {
            return Ok(());
        }
        Err(LearningError::DataMismatch { spec: self.clone(), data: data.to_string() })
    }

    /// Refuses a parameter vector of the wrong length, or with a value that is not finite.
    pub(crate) fn check_parameters(&self, parameters: &[f32]) -> Result<(), LearningError> {
        let expected = self.parameters();
        if parameters.len() != expected {
            return Err(LearningError::ParameterCount {
                spec: self.clone(),
                found: parameters.len(),
                expected,
            });
        }
        match parameters.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(LearningError::NonFiniteParameter { index, value: parameters[index] }),
            None => Ok(()),
        }
    }

    pub(crate) fn model(&self) -> &dyn Model {
        self.0.model.as_ref()
    }

    /// The tensors in the order of the flat vector.
    pub(crate) fn layout(&self) -> &[TensorSpec] {
        &self.0.tensors
    }
}

impl PartialEq for ModelSpec {
    /// By name, which is all that a plan says.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for ModelSpec {}

impl fmt::Debug for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelSpec").field(&self.name()).finish()
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModelSpec {
    type Err = LearningError;

    /// A built-in model by its name.
    fn from_str(name: &str) -> Result<Self, LearningError> {
        models::parse(name)
    }
}

/// Uniform in [−1, 1), on a grid of 2^-23.
fn symmetric_uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Models;

    /// Scores that are the first features.
    struct Identity {
        tensors: Vec<TensorSpec>,
        classes: usize,
    }

    impl Model for Identity {
        fn input(&self) -> Input {
            Input::Features(3)
        }

        fn classes(&self) -> usize {
            self.classes
        }

        fn tensors(&self) -> Vec<TensorSpec> {
            self.tensors.clone()
        }

        fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
            batch.features() + weights.row("shift")
        }
    }

    fn identity() -> Identity {
        Identity { tensors: vec![TensorSpec::new("shift", &[3], Start::Ones)], classes: 3 }
    }

    #[test]
    fn counts_parameters() {
        for (name, expected) in [("softmax:64x10", 650), ("mlp:64x32x10", 65 * 32 + 33 * 10)] {
            assert_eq!(name.parse::<ModelSpec>().unwrap().parameters(), expected);
        }
    }

    #[test]
    fn tensors_tile_the_vector_in_the_order_of_their_names() {
        let spec: ModelSpec = "mlp:4x3x5x2".parse().unwrap();
        let found: Vec<(&str, Range<usize>, Role)> =
            spec.tensors().map(|(tensor, range)| (tensor.name.as_str(), range, tensor.role)).collect();
        let expected = [
            ("hidden.bias", 0..3, Role::Body),
            ("hidden.weight", 3..15, Role::Body),
            ("hidden2.bias", 15..20, Role::Body),
            ("hidden2.weight", 20..35, Role::Body),
            ("output.bias", 35..37, Role::Head),
            ("output.weight", 37..47, Role::Head),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn models_of_ones_own_are_found_by_their_name() {
        let spec = ModelSpec::custom("mine:3", identity()).unwrap();
        let models = Models::with(vec![spec.clone()]);
        assert_eq!(models.find("mine:3").unwrap(), spec);
        assert_eq!(models.find("softmax:4x2").unwrap().name(), "softmax:4x2");
        let error = models.find("mine:4").unwrap_err().to_string();
        assert!(
            error.starts_with("unknown model \"mine:4\": expected mine:3; softmax:INPUTSxCLASSES"),
            "{error}"
        );
        assert!("mine:3".parse::<ModelSpec>().is_err(), "a plan's reader has to bring the model");
        assert_eq!(spec.initial(1), [1.0; 3]);
    }

    #[test]
    fn refuses_models_that_make_no_sense() {
        for name in ["softmax:3x3", "mlp", "", "two words", &"x".repeat(201)] {
            let error = ModelSpec::custom(name, identity()).unwrap_err();
            assert!(matches!(error, LearningError::ModelName { .. }), "{name}: {error}");
        }
        let tensor = |name: &str, shape: &[usize]| TensorSpec::new(name, shape, Start::Zeros);
        for tensors in [
            vec![],
            vec![tensor("a", &[0])],
            vec![tensor("a", &[2]), tensor("a", &[3])],
            vec![tensor("a", &[usize::MAX, 2]), tensor("b", &[2])],
        ] {
            let error = ModelSpec::custom("mine", Identity { tensors, classes: 3 }).unwrap_err();
            assert_eq!(error, LearningError::ModelOutOfBounds { name: "mine".to_owned() });
        }
        assert!(ModelSpec::custom("mine", Identity { classes: 1, ..identity() }).is_err());
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
            "svm:64x10",
            "softmax:99999999999999999999x10",
        ] {
            let error = text.parse::<ModelSpec>().unwrap_err();
            let LearningError::UnknownModel { found, .. } = error else { panic!("{text:?}: {error}") };
            assert_eq!(found, text);
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
        let spec: ModelSpec = "softmax:3x2".parse().unwrap();
        assert_eq!(spec.initial(7), vec![0.0; 8]);
    }

    #[test]
    fn mlp_starts_from_the_seed() {
        let spec: ModelSpec = "mlp:64x32x10".parse().unwrap();
        let initial = spec.initial(1);
        assert_eq!(initial.len(), spec.parameters());
        assert_eq!(initial, spec.initial(1));
        assert_ne!(initial, spec.initial(2));
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
