//! Models and local training with burn.
//!
//! A model is a [`ModelSpec`] and one flat `&[f32]`: the vector that clients clip, mask and submit, and that the
//! coordinator averages. This crate turns that vector into tensors, trains it on a [`Dataset`], and writes it
//! as a safetensors file, whose data section is the flat vector itself.
//!
//! ```text
//! ModelSpec::initial(seed) ──► parameters ──► train(spec, parameters, data, …) ──► Trained
//!                                  │  ▲
//!                                  ▼  │
//!                       model_file::{to,from}_safetensors        evaluate(spec, parameters, data) ──► Metrics
//! ```
//!
//! A spec is a name, such as `mlp:784x200x10`, and a [`Model`] behind it: one of the built-in [`models`], or one of a
//! program's own, which [`Models`] finds under its name.
//!
//! Invariants
//! - Every function is a pure function of its arguments: batches and initial weights come from the given seed or
//!   generator, burn's own (process-wide) generator is never touched.
//! - Results are bit-identical between runs on one kind of CPU. They may differ in the last bits between kinds,
//!   because the matrix product chooses its kernel by the CPU's vector instructions.
//! - The functions may be called from any number of threads at once and start none.
//! - No parameter that leaves this crate is NaN or infinite.
//!
//! Absent on purpose: clipping of updates, and noise (`fedveil-privacy`; [`train_private`] takes it as a
//! [`NoisedSum`]), files and networking (the shells), and state that outlives a call: what an algorithm keeps between
//! rounds goes in and out through [`Guidance`].

mod dataset;
mod model;
pub mod model_file;
pub mod models;
mod private;
mod training;

pub use dataset::{Dataset, permutation};
pub use model::{Batch, Input, MAX_PARAMETERS, Model, ModelSpec, Role, Start, TensorSpec, Weights};
pub use models::Models;
pub use private::{NoisedSum, PrivateTraining, train_private};
pub use training::{Guidance, LocalTraining, Metrics, Trained, evaluate, predict, train, train_with};

/// Why data, a model or a training run was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LearningError {
    /// A dataset without a row.
    #[error("no examples: a dataset needs at least one")]
    NoExamples,
    /// The feature table is not rows × inputs.
    #[error("{found} feature values for {rows} rows of {inputs} inputs: expected {rows} × {inputs}")]
    FeatureCount {
        /// Values in the table.
        found: usize,
        /// Labels, hence rows.
        rows: usize,
        /// Features per row.
        inputs: usize,
    },
    /// A feature that is NaN or infinite.
    #[error("feature {column} of row {row} is {value}: expected a finite number")]
    NonFiniteFeature {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// What was found.
        value: f32,
    },
    /// A label outside `0..classes`.
    #[error("label {label} of row {row} is out of range: expected 0 to {}", classes.saturating_sub(1))]
    LabelOutOfRange {
        /// Row, from 0.
        row: usize,
        /// What was found.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A row index beyond the dataset.
    #[error("row {row} does not exist: the dataset has {rows} rows")]
    NoSuchRow {
        /// The index asked for.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// Tables of tokens and labels that are not both rows × length.
    #[error(
        "{tokens} tokens and {labels} labels in sequences of {length}: expected as many of each, in whole rows"
    )]
    TokenCount {
        /// Tokens in the table.
        tokens: usize,
        /// Labels in the table.
        labels: usize,
        /// Tokens per row.
        length: usize,
    },
    /// A token outside the vocabulary.
    #[error("token {token} at place {place} of row {row} is out of range: expected 0 to {}", vocabulary.saturating_sub(1))]
    TokenOutOfRange {
        /// Row, from 0.
        row: usize,
        /// Place in the row, from 0.
        place: usize,
        /// What was found.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A name of no model that is known here.
    #[error("unknown model {found:?}: expected {expected}")]
    UnknownModel {
        /// The name, or what it opens with.
        found: String,
        /// The names that are accepted.
        expected: String,
    },
    /// A name that a model of one's own cannot have.
    #[error("model name {found:?}: expected {expected}")]
    ModelName {
        /// The name, or what it opens with.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A model with a size that makes no sense, or one that is too large.
    #[error(
        "model {name} is out of bounds: expected every size to be at least 1, at least 2 classes and at most {MAX_PARAMETERS} parameters"
    )]
    ModelOutOfBounds {
        /// The model's name.
        name: String,
    },
    /// A parameter vector of another length than the model has.
    #[error("{found} parameters for model {spec}: expected {expected}")]
    ParameterCount {
        /// The model.
        spec: ModelSpec,
        /// Length found.
        found: usize,
        /// Length the model has.
        expected: usize,
    },
    /// A parameter that is NaN or infinite.
    #[error("parameter {index} is {value}: expected a finite number")]
    NonFiniteParameter {
        /// Position in the flat vector.
        index: usize,
        /// What was found.
        value: f32,
    },
    /// Data of another kind, width or number of classes than the model's.
    #[error("data of {data} does not fit model {spec}")]
    DataMismatch {
        /// The model.
        spec: ModelSpec,
        /// What the data is.
        data: String,
    },
    /// A training setting outside its range.
    #[error("training setting {name} is {found}: expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// What was found.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The arithmetic left the range of `f32`.
    #[error("{what} became infinite or NaN: lower the learning rate, or check the model for huge values")]
    Diverged {
        /// What overflowed.
        what: &'static str,
    },
    /// A tensor library failure, which no valid input causes.
    #[error("burn could not compute: {detail}")]
    Backend {
        /// The library's own words.
        detail: String,
    },
    /// Bytes that are not a model file of this project.
    #[error("not a valid model file: {detail}")]
    ModelFile {
        /// What was found, and what is accepted.
        detail: String,
    },
}
