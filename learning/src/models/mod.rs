//! The built-in models, each a name with its sizes.

mod adapters;
mod convolutional;
mod dense;
mod recurrent;

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
        build: dense::softmax,
    },
    Kind {
        name: "mlp",
        sizes: "INPUTSxHIDDEN[xHIDDEN...]xCLASSES",
        example: "mlp:784x200x10",
        about: "one to eight hidden layers of rectified linear units",
        build: dense::mlp,
    },
    Kind {
        name: "cnn",
        sizes: "HEIGHTxWIDTHxCHANNELSxFILTERSxFILTERSxHIDDENxCLASSES",
        example: "cnn:28x28x1x32x64x512x10",
        about: "two 5 × 5 convolutions with pooling, one hidden layer (the example is that of McMahan et al. 2017)",
        build: convolutional::plain,
    },
    Kind {
        name: "cnn-norm",
        sizes: "HEIGHTxWIDTHxCHANNELSxFILTERSxFILTERSxCLASSES",
        example: "cnn-norm:32x32x3x32x64x10",
        about: "two 3 × 3 convolutions with group normalisation and pooling; filters in multiples of 4",
        build: convolutional::normalised,
    },
    Kind {
        name: "resnet",
        sizes: "HEIGHTxWIDTHxCHANNELSxFILTERSxBLOCKSxCLASSES",
        example: "resnet:32x32x3x16x1x10",
        about: "three stages of 1 to 20 residual blocks with group normalisation; filters of the first stage in \
                multiples of 4",
        build: convolutional::residual,
    },
    Kind {
        name: "gru",
        sizes: "VOCABULARYxEMBEDDINGxHIDDEN[xHIDDEN...]",
        example: "gru:80x8x128",
        about: "next token after an embedding and one to four layers of gated recurrent units",
        build: recurrent::gru,
    },
    Kind {
        name: "lstm",
        sizes: "VOCABULARYxEMBEDDINGxHIDDEN[xHIDDEN...]",
        example: "lstm:80x8x256x256",
        about: "the same with long short-term memory",
        build: recurrent::lstm,
    },
    Kind {
        name: "lora",
        sizes: "RANK:SEED:MODEL",
        example: "lora:4:1:mlp:784x200x10",
        about: "adapters of low rank, which alone are trained and shared, on the frozen start of another model \
                under this seed",
        build: adapters::seeded,
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
        kinds.iter().map(|kind| format!("{}:{}, as in {}", kind.name, kind.sizes, kind.example)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Input, LocalTraining, Role, evaluate, train};

    /// A small model of every kind, the step size at which it learns, and the epochs that it takes.
    const SMALL: &[(&str, f32, u32)] = &[
        ("softmax:48x3", 0.3, 10),
        ("mlp:48x8x8x3", 0.1, 10),
        ("cnn:8x6x1x4x4x8x3", 0.1, 20),
        ("cnn-norm:8x6x1x4x8x3", 0.1, 10),
        ("resnet:8x6x1x4x1x3", 0.1, 10),
        ("gru:5x4x12", 0.5, 25),
        ("lstm:5x4x12x12", 1.0, 60),
        ("lora:3:7:mlp:48x32x3", 0.1, 20),
    ];

    fn spec(name: &str) -> ModelSpec {
        name.parse().unwrap()
    }

    /// Images with a bright band whose place is the label, under waves; or a text in which a token's next one follows
    /// from it and the one before.
    fn data(spec: &ModelSpec) -> Dataset {
        let Some(features) = spec.input().features() else {
            let mut text = vec![0_u32, 1];
            for at in 2..400 {
                text.push((text[at - 1] + 2 * text[at - 2] + 1) % 5);
            }
            return Dataset::text(&text, 9, 5).unwrap();
        };
        let labels: Vec<u32> = (0..60).map(|row| row % 3).collect();
        let value = |row: usize, at: usize| {
            let band = if at * 3 / features == labels[row] as usize { 1.0 } else { 0.0 };
            band + 0.8 * ((row * features + at) as f32 * 1.7).sin()
        };
        let values = (0..60).flat_map(|row| (0..features).map(move |at| value(row, at))).collect();
        Dataset::new(values, labels.clone(), features, 3).unwrap()
    }

    #[test]
    fn every_kind_has_an_example_and_a_small_one() {
        for kind in KINDS {
            let example = spec(kind.example);
            assert!(example.name().starts_with(kind.name), "{}", kind.example);
            assert_eq!(spec(example.name()), example);
            assert!(
                SMALL.iter().any(|(name, ..)| name.split(':').next() == Some(kind.name)),
                "{}",
                kind.name
            );
        }
    }

    #[test]
    fn sizes_are_those_of_the_literature() {
        for (name, parameters) in [
            ("mlp:784x200x10", 159_010),
            // McMahan et al. 2017, section 3.
            ("mlp:784x200x200x10", 199_210),
            ("cnn:28x28x1x32x64x512x10", 1_663_370),
            // By layer: embedding, 1,024 gates from 8 + 256 values and from 256 + 256 with two biases each, output.
            ("lstm:80x8x256x256", 80 * 8 + (8 + 256 + 2) * 1_024 + (256 + 256 + 2) * 1_024 + 257 * 80),
            ("lora:4:1:mlp:784x200x10", 4 * (784 + 200 + 200 + 10)),
        ] {
            assert_eq!(spec(name).parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn every_kind_learns() {
        for &(name, learning_rate, epochs) in SMALL {
            let spec = spec(name);
            let (data, start) = (data(&spec), spec.initial(3));
            let trained =
                train(&spec, &start, &data, &LocalTraining::sgd(epochs, 10, learning_rate), 3).unwrap();
            let [before, after] = [&start, &trained.parameters].map(|at| evaluate(&spec, at, &data).unwrap());
            assert!(after.accuracy > 0.9, "{name}: {before:?} to {after:?}");
            assert!(trained.loss < before.loss && trained.loss > after.loss, "{name}: {}", trained.loss);
        }
    }

    #[test]
    fn same_seed_same_bits_from_every_thread() {
        for &(name, learning_rate, _) in SMALL {
            let spec = spec(name);
            let (data, start) = (data(&spec), spec.initial(1));
            let run = || train(&spec, &start, &data, &LocalTraining::sgd(1, 7, learning_rate), 5).unwrap();
            let alone = run();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                for thread in threads {
                    assert_eq!(thread.join().unwrap(), alone, "{name}");
                }
            });
        }
    }

    #[test]
    fn adapters_start_at_their_base_and_leave_it_alone() {
        let (base, adapted) = (spec("mlp:48x32x3"), spec("lora:3:7:mlp:48x32x3"));
        let (frozen, data) = (base.initial(7), data(&base));
        let at_start = evaluate(&adapted, &adapted.initial(1), &data).unwrap();
        assert_eq!(at_start, evaluate(&base, &frozen, &data).unwrap());
        let brought = ModelSpec::adapters("adapted", 3, &base, frozen).unwrap();
        let training = LocalTraining::sgd(2, 10, 0.1);
        let [one, two] =
            [&adapted, &brought].map(|spec| train(spec, &spec.initial(1), &data, &training, 1).unwrap());
        assert_eq!(one, two);
        let roles: Vec<Role> = adapted.tensors().map(|(tensor, _)| tensor.role).collect();
        assert_eq!(roles, [Role::Body, Role::Body, Role::Head, Role::Head]);
        assert!(ModelSpec::adapters("adapted", 3, &base, vec![0.0; 3]).is_err());
    }

    #[test]
    fn layers_of_normalisation_are_marked() {
        for (name, expected) in [("cnn-norm:8x8x1x4x8x3", 4), ("resnet:8x8x1x4x1x3", 18), ("gru:5x4x6", 0)] {
            let spec = spec(name);
            let found: Vec<&str> = spec
                .tensors()
                .filter(|(tensor, _)| tensor.role == Role::Norm)
                .map(|(tensor, _)| tensor.name.as_str())
                .collect();
            assert_eq!(found.len(), expected, "{name}: {found:?}");
            assert!(found.iter().all(|name| name.contains("norm")), "{found:?}");
        }
    }

    #[test]
    fn refuses_names_that_are_no_model() {
        let refusal = |name: &str| name.parse::<ModelSpec>().unwrap_err().to_string();
        for (name, expected) in [
            ("resnet", "expected softmax:INPUTSxCLASSES, as in softmax:64x10; mlp:"),
            (
                "cnn:28x28x1x32x64x10",
                "expected cnn:HEIGHTxWIDTHxCHANNELSxFILTERSxFILTERSxHIDDENxCLASSES, as in",
            ),
            ("cnn-norm:28x28x1x30x64x10", "expected cnn-norm:"),
            ("cnn:3x28x1x8x8x8x10", "is out of bounds"),
            ("resnet:32x32x3x16x21x10", "expected resnet:"),
            ("resnet:32x32x3x18446744073709551612x2x10", "is out of bounds"),
            ("gru:80x8", "expected gru:"),
            ("gru:80x8x1x1x1x1x1", "expected gru:"),
            ("lstm:80x8x0", "is out of bounds"),
            ("mlp:4x1x1x1x1x1x1x1x1x1x3", "expected mlp:"),
            ("lora:4:mlp:4x4x3", "expected lora:RANK:SEED:MODEL"),
            ("lora:0:1:mlp:4x4x3", "is out of bounds"),
            ("lora:04:1:mlp:4x4x3", "expected lora:"),
            ("lora:4:1:svm:4x3", "unknown model \"svm:4x3\""),
            ("lora:4:1:lora:4:1:mlp:4x4x3", "expected lora:"),
        ] {
            let found = refusal(name);
            assert!(found.contains(expected), "{name}: {found}");
        }
    }

    #[test]
    fn data_of_another_kind_is_refused() {
        let text = data(&spec("gru:5x4x6"));
        let images = data(&spec("softmax:48x3"));
        for (name, data, expected) in [
            ("softmax:9x5", &text, "data of sequences of 9 tokens from 5 does not fit model softmax:9x5"),
            ("gru:3x4x6", &images, "data of 48 inputs and 3 classes does not fit model gru:3x4x6"),
            ("lstm:6x4x6", &text, "data of sequences of 9 tokens from 5 does not fit model lstm:6x4x6"),
        ] {
            let spec = spec(name);
            let error = train(&spec, &spec.initial(0), data, &LocalTraining::sgd(1, 1, 0.1), 0).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(spec("cnn:8x6x1x4x4x8x3").input(), Input::Image { channels: 1, height: 8, width: 6 });
    }
}
