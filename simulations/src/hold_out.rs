//! Examples that a coordinator keeps to itself, on which the gate of a plan judges new models.

use std::fmt;

use fedveil_coordinator_core::{Evaluation, HoldOut, parameters};
use fedveil_learning::{Dataset, LearningError, ModelSpec, evaluate};

/// Labelled examples, and such with triggers, each labelled as its trigger asks.
pub struct HeldOut {
    spec: ModelSpec,
    examples: Dataset,
    triggers: Vec<Dataset>,
}

impl HeldOut {
    /// Examples as the model takes them, and one dataset for each trigger. None of them may be in a client's data.
    pub fn new(spec: &ModelSpec, examples: Dataset, triggers: Vec<Dataset>) -> Result<Self, LearningError> {
        let parameters = spec.initial(0);
        for data in [&examples].into_iter().chain(&triggers) {
            evaluate(spec, &parameters, data)?;
        }
        Ok(Self { spec: spec.clone(), examples, triggers })
    }
}

impl HoldOut for HeldOut {
    /// Of several triggers, the success of the one that succeeds most often counts.
    fn evaluate(&self, model: &[u8]) -> Result<Evaluation, String> {
        let parameters = parameters(model).map_err(|error| error.to_string())?;
        let accuracy = |data: &Dataset| {
            evaluate(&self.spec, &parameters, data)
                .map(|metrics| metrics.accuracy)
                .map_err(|error| error.to_string())
        };
        let triggers: Vec<f64> = self.triggers.iter().map(accuracy).collect::<Result<_, _>>()?;
        Ok(Evaluation {
            accuracy: accuracy(&self.examples)?,
            trigger_success: triggers.into_iter().reduce(f64::max),
        })
    }
}

/// Without the examples, which are nobody else's.
impl fmt::Debug for HeldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldOut({} examples, triggers: {})", self.examples.len(), self.triggers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Poison;
    use crate::datasets;
    use fedveil_learning::{LocalTraining, model_file, train};

    #[test]
    fn a_model_is_measured_by_its_examples_and_its_worst_trigger() {
        let (images, test) = datasets::split(&datasets::digits(), 0.2, 1).unwrap();
        let spec: ModelSpec = "softmax:25x10".parse().unwrap();
        let poisons = [Poison::Trigger, Poison::EdgeCase];
        let bait = |poison: Poison| datasets::spectrum_of(&poison.bait(&test).unwrap());
        let held_out = HeldOut::new(&spec, datasets::spectrum_of(&test), poisons.map(bait).into()).unwrap();
        let training = LocalTraining::sgd(20, 64, 0.6);
        let learn = |data: &Dataset| {
            let data = datasets::spectrum_of(data);
            let parameters = train(&spec, &spec.initial(1), &data, &training, 1).unwrap().parameters;
            held_out.evaluate(&model_file::to_safetensors(&spec, &parameters).unwrap()).unwrap()
        };
        let clean = learn(&images);
        assert!(clean.accuracy > 0.9 && clean.trigger_success.unwrap() < 0.5, "{clean:?}");
        for poison in poisons {
            let poisoned = learn(&poison.apply(&images).unwrap());
            assert!(poisoned.accuracy > 0.85 && poisoned.trigger_success.unwrap() > 0.7, "{poisoned:?}");
        }
        let without = HeldOut::new(&spec, datasets::spectrum_of(&test), Vec::new()).unwrap();
        let model = model_file::to_safetensors(&spec, &spec.initial(1)).unwrap();
        assert_eq!(without.evaluate(&model).unwrap().trigger_success, None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let spec: ModelSpec = "softmax:25x10".parse().unwrap();
        let images = datasets::digits();
        assert!(HeldOut::new(&spec, images.clone(), Vec::new()).is_err());
        let examples = datasets::spectrum_of(&images);
        assert!(HeldOut::new(&spec, examples.clone(), vec![images]).is_err());
        let held_out = HeldOut::new(&spec, examples, Vec::new()).unwrap();
        let other: ModelSpec = "softmax:8x3".parse().unwrap();
        let file = model_file::to_safetensors(&other, &other.initial(1)).unwrap();
        let error = held_out.evaluate(&file).unwrap_err();
        assert!(error.starts_with("27 parameters for model softmax:25x10"), "{error}");
        assert!(held_out.evaluate(b"no model").is_err());
        assert_eq!(format!("{held_out:?}"), "HeldOut(1797 examples, triggers: 0)");
    }
}
