//! The built-in models, each a name with its sizes.

mod dense;

pub(crate) use dense::{Dense, Layer};

use crate::{LearningError, ModelSpec};

/// A family of built-in models, and how one of them is written.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What its name opens with, before the colon.
    pub name: &'static str,
    /// What follows the colon.
    pub sizes: &'static str,
    /// A whole name.
    pub example: &'static str,
    /// What the model is, for help and documents.
    pub about: &'static str,
    /// Makes the model from what follows the colon; `None` if that is not of the form `sizes`.
    build: fn(&str) -> Option<Result<ModelSpec, LearningError>>,
}

/// Every kind of built-in model.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "softmax",
        sizes: "INPUTSxCLASSES",
        example: "softmax:64x10",
        about: "multinomial logistic regression; starts at zero",
        build: |sizes| dense::softmax(sizes),
    },
    Kind {
        name: "mlp",
        sizes: "INPUTSxHIDDEN[xHIDDEN...]xCLASSES",
        example: "mlp:784x200x10",
        about: "one to eight hidden layers of rectified linear units",
        build: |sizes| dense::mlp(sizes),
    },
];

/// The models that a program knows: all built-in ones, and its own.
#[derive(Clone, Debug, Default)]
pub struct Models {
    own: Vec<ModelSpec>,
}

impl Models {
    /// The built-in models and these. Of two with one name the first counts.
    pub fn with(own: Vec<ModelSpec>) -> Self {
        Self { own }
    }

    /// The model of this name, which is what a plan's `model.architecture` says.
    pub fn find(&self, name: &str) -> Result<ModelSpec, LearningError> {
        match self.own.iter().find(|spec| spec.name() == name) {
            Some(spec) => Ok(spec.clone()),
            None => parse(name).map_err(|error| match error {
                LearningError::UnknownModel { found, expected } if !self.own.is_empty() => {
                    let own: Vec<&str> = self.own.iter().map(ModelSpec::name).collect();
                    let expected = format!("{}; {expected}", own.join("; "));
                    LearningError::UnknownModel { found, expected }
                }
                other => other,
            }),
        }
    }
}

/// A built-in model by its name.
pub(crate) fn parse(name: &str) -> Result<ModelSpec, LearningError> {
    let unknown = |expected| LearningError::UnknownModel { found: name.chars().take(64).collect(), expected };
    let Some((opening, sizes)) = name.split_once(':') else {
        return Err(unknown(forms(KINDS)));
    };
    let Some(kind) = KINDS.iter().find(|kind| kind.name == opening) else {
        return Err(unknown(forms(KINDS)));
    };
    let spec = (kind.build)(sizes).ok_or_else(|| unknown(forms(&[*kind])))??;
    // One text per model, because plans are signed: "softmax:064x10" and "softmax:+64x10" are no other names.
    if spec.name() != name {
        return Err(unknown(forms(&[*kind])));
    }
    Ok(spec)
}

/// How the models of these kinds are written.
fn forms(kinds: &[Kind]) -> String {
    let forms: Vec<String> =
        kinds.iter().map(|kind| format!("{}:{} such as {}", kind.name, kind.sizes, kind.example)).collect();
    forms.join("; ")
}

/// Numbers with an x between them.
fn numbers(text: &str) -> Option<Vec<usize>> {
    text.split('x').map(|number| number.parse().ok()).collect()
}

/// The name that [`numbers`] reads again.
fn named(kind: &str, sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    format!("{kind}:{}", sizes.join("x"))
}
