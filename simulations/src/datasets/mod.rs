//! Data to train on: what is inside the binary, and files of the usual formats.
//!
//! [`DataSpec`] is what a scenario says; [`DataSpec::load`] makes [`Data`] of it, a part for training and a part for
//! testing. A [`Part`] keeps pixels as bytes and characters as tokens, and makes an `f32` table of the rows that one
//! client trains on when it is asked for them.
//!
//! | format | files | natural clients |
//! |---|---|---|
//! | digits | inside the binary | no |
//! | IDX (MNIST and its kin) | `train-images-idx3-ubyte` …, plain or `.gz` | no |
//! | CIFAR-10, binary version | `data_batch_1.bin` … `test_batch.bin` | no |
//! | CSV | one, or one for training and one for testing | by a column |
//! | LEAF JSON | `train/*.json`, `test/*.json` | its users |
//! | text | one | the speakers of a play |
//!
//! Features are scaled by constants that a set brings ([`catalog`]), never by what clients hold, but where CSV is told
//! to standardise.
//!
//! Invariants: this module opens no file; [`Files`] does, and the caller gives it. A file that is broken, or was made
//! to do harm, earns an error that names it, the place, what was found and what is accepted; none takes more memory
//! than [`MAX_FILE_BYTES`] and a small factor.

pub mod catalog;
mod cifar;
mod csv;
mod digits;
mod idx;
mod leaf;
mod read;
mod spec;
mod table;
mod text;

use fedveil_learning::LearningError;

pub use digits::{TEST_SHARE, digits, digits_spectrum, spectrum_of, split};
pub use read::{Files, MAX_FILE_BYTES};
pub use spec::{DataSpec, EmnistSplit};
pub use table::{Part, Shape};

/// Why data was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A share that is no proper share.
    #[error("test share {found}: expected a number above 0 and below 1")]
    TestShare {
        /// The share asked for.
        found: f64,
    },
    /// Too few rows to train and to test.
    #[error("1 row cannot be split: expected at least 2, one to train and one to test")]
    SingleRow,
    /// A length of sequences that is no length.
    #[error("sequences of {found} tokens: expected 1 to {most}")]
    SequenceLength {
        /// What was asked for.
        found: usize,
        /// The longest.
        most: usize,
    },
    /// A file that is not there.
    #[error("there is no {file} in the folder of data: `fedveil data list` says where files are looked for")]
    Missing {
        /// The paths that were tried, below the folder of data.
        file: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {file}: {detail}")]
    Unreadable {
        /// Its path below the folder of data.
        file: String,
        /// The system's own words.
        detail: String,
    },
    /// A file that is not what it should be.
    #[error("{file}, {at}: found {found}, expected {expected}")]
    Malformed {
        /// Its path below the folder of data.
        file: String,
        /// The place: a byte of the unpacked file, a line, a user.
        at: String,
        /// What is there.
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// Rows were asked for, and none was named.
    #[error("no rows: expected at least one")]
    NoRows,
    /// A row that does not exist.
    #[error("row {row} does not exist: there are {rows} rows")]
    NoSuchRow {
        /// The row asked for.
        row: u32,
        /// How many there are.
        rows: usize,
    },
    /// Features were asked of a text.
    #[error("the rows are sequences of tokens and have no features that could be changed")]
    TextHasNoFeatures,
    /// A change of features that is out of range, or that the data do not bear.
    #[error("shift.{name} {found}: expected {expected}")]
    Shift {
        /// The setting.
        name: &'static str,
        /// What was found.
        found: f64,
        /// What is accepted.
        expected: &'static str,
    },
    /// The rows do not make a dataset.
    #[error(transparent)]
    Learning(#[from] LearningError),
}

/// A set in memory.
#[derive(Clone, Debug)]
pub struct Data {
    /// What reports call it.
    pub name: String,
    /// The rows that clients hold.
    pub train: Part,
    /// The rows that nobody holds, to measure with.
    pub test: Part,
    /// Names of the classes by label; empty where they have none.
    pub class_names: Vec<String>,
    /// Names of the natural clients, by the numbers of [`Part::owners`]; empty where there are none.
    pub clients: Vec<String>,
    /// Of a text, the character that each token stands for.
    pub characters: Vec<char>,
}

/// A name for each character.
fn names_of(characters: &str) -> Vec<String> {
    characters.chars().map(String::from).collect()
}
