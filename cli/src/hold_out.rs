//! The coordinator's own examples, for the gate of its plan.

use std::path::Path;
use std::sync::Arc;

use fedveil_coordinator_core::HoldOut;
use fedveil_learning::{Dataset, ModelSpec};
use fedveil_proto_plan::Gate;
use fedveil_simulations::attack::Poison;
use fedveil_simulations::hold_out::HeldOut;

use crate::config::HoldOutSection;
use crate::device::{features, held_out_images};
use crate::vectors::Table;

/// The examples that a coordinator's file names, where the gate of its plan looks at any.
pub(crate) fn load(
    section: Option<&HoldOutSection>,
    gate: Option<&Gate>,
    spec: &ModelSpec,
) -> Result<Option<Arc<dyn HoldOut>>, String> {
    let Some(section) = section.filter(|_| gate.is_some_and(Gate::needs_hold_out)) else { return Ok(None) };
    if section.is_digits() {
        return Ok(Some(of_images(&held_out_images(section.seed)?.0, spec)?));
    }
    let examples = read(&section.examples, spec)?;
    let triggers = section.triggers.iter().map(|path| read(path, spec)).collect::<Result<_, _>>()?;
    let held_out = HeldOut::new(spec, examples, triggers).map_err(|error| format!("hold_out: {error}"))?;
    Ok(Some(Arc::new(held_out)))
}

/// Digits, and the same with the pixel trigger of the registry's backdoor.
pub(crate) fn of_images(images: &Dataset, spec: &ModelSpec) -> Result<Arc<dyn HoldOut>, String> {
    let triggered = Poison::Trigger.bait(images).map_err(|error| error.to_string())?;
    let held_out = HeldOut::new(spec, features(images), vec![features(&triggered)])
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(held_out))
}

/// Rows of a model's inputs and, behind them, the label.
fn read(path: &Path, spec: &ModelSpec) -> Result<Dataset, String> {
    let rows = match Table::read(path).map_err(|error| format!("hold_out: {error}"))? {
        Table::Single(rows) => {
            rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect::<Vec<Vec<f64>>>()
        }
        Table::Double(rows) => rows,
    };
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    let (inputs, classes) = (spec.input().features(), spec.classes());
    let width = inputs
        .ok_or_else(|| format!("hold_out: the model {spec} reads sequences, which no file of rows holds"))?;
    for (number, row) in (1..).zip(rows) {
        let refused = |found: String, accepted: String| {
            format!("hold_out: {}: row {number} has {found}, accepted is {accepted}", path.display())
        };
        let Some((&label, inputs)) = row.split_last().filter(|(_, inputs)| inputs.len() == width) else {
            let accepted = format!("{width} inputs of the model {spec} and a label");
            return Err(refused(format!("{} values", row.len()), accepted));
        };
        if label.fract() != 0.0 || !(0.0..classes as f64).contains(&label) {
            return Err(refused(format!("label {label}"), format!("0 to {}", classes - 1)));
        }
        values.extend(inputs.iter().map(|&value| value as f32));
        labels.push(label as u32);
    }
    Dataset::new(values, labels, width, classes)
        .map_err(|error| format!("hold_out: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_learning::model_file;

    fn gate() -> Gate {
        Gate {
            max_step_norm: None,
            max_accuracy_drop: Some(0.1),
            max_trigger_success: Some(0.5),
            evaluation: None,
            max_rejections: 3,
        }
    }

    fn section(examples: &Path, triggers: Option<&Path>) -> HoldOutSection {
        HoldOutSection { examples: examples.to_owned(), triggers: triggers.map(Path::to_owned), seed: 1 }
    }

    #[test]
    fn examples_come_from_files_or_are_the_digits() {
        let folder = tempfile::TempDir::new().unwrap();
        let [examples, triggers] = ["examples.csv", "triggers.csv"].map(|name| folder.path().join(name));
        std::fs::write(&examples, "1,0,0\n0,1,1\n1,1,0\n0,0,0\n").unwrap();
        std::fs::write(&triggers, "1,0,0\n0,1,0\n0,2,0\n").unwrap();
        let spec: ModelSpec = "softmax:2x2".parse().unwrap();
        let both = section(&examples, Some(&triggers));
        let hold_out = load(Some(&both), Some(&gate()), &spec).unwrap().unwrap();
        // Class 1 where the second input is set and the first is not.
        let file = model_file::to_safetensors(&spec, &[0.5, 0.0, 2.0, 0.0, 0.0, 1.0]).unwrap();
        let evaluation = hold_out.evaluate(&file).unwrap();
        assert_eq!((evaluation.accuracy, evaluation.trigger_success), (1.0, Some(1.0 / 3.0)));
        let steps_alone = Gate { max_accuracy_drop: None, max_trigger_success: None, ..gate() };
        assert!(load(Some(&both), Some(&steps_alone), &spec).unwrap().is_none());
        assert!(load(None, Some(&gate()), &spec).unwrap().is_none());

        let spec: ModelSpec = "softmax:25x10".parse().unwrap();
        let digits = load(Some(&section(Path::new("digits"), None)), Some(&gate()), &spec).unwrap().unwrap();
        assert_eq!(format!("{digits:?}"), "HeldOut(120 examples, triggers: 1)");
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_row() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("examples.csv");
        let spec: ModelSpec = "softmax:2x2".parse().unwrap();
        for (text, expected) in [
            ("1,0,0\n0,1,2\n", "row 2 has label 2, accepted is 0 to 1"),
            ("1,0,0.5\n", "row 1 has label 0.5, accepted is 0 to 1"),
            ("1,0\n", "row 1 has 2 values, accepted is 2 inputs of the model softmax:2x2 and a label"),
            ("1,x,0\n", "value 2 is \"x\""),
            ("", "no rows"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load(Some(&section(&path, None)), Some(&gate()), &spec).unwrap_err();
            assert!(error.starts_with("hold_out: ") && error.contains(expected), "{error}");
        }
        let missing = folder.path().join("none.csv");
        let error = load(Some(&section(&missing, None)), Some(&gate()), &spec).unwrap_err();
        assert!(error.starts_with("hold_out: cannot read"), "{error}");
    }
}
