//! Sweeps: which scenarios a file and its `--set` options make.
//!
//! An axis is a key with values, or a name of its own with settings, each a table that has a `name` and sets any keys:
//!
//! ```text
//! [sweep]                                  [[sweep.rule]]
//! "privacy.epsilon" = [1, 2, 4]            name = "median"
//!                                          "robustness.rule" = "median"
//! ```

use crate::config::Draft;
use crate::exit::{Exit, Failure};
use crate::report::SweptPoint;
use fedveil_simulations::scenario::Spec;
use toml::Value;

/// Most points of a sweep.
const MAX_POINTS: usize = 10_000;

/// A scenario and the keys to go through, each with its values.
pub(crate) struct Sweep {
    draft: Draft,
    axes: Vec<(String, Vec<Value>)>,
}

/// In a setting, the key of its name.
const NAME: &str = "name";

impl Sweep {
    /// What the file's `[sweep]` says, and after it `sets`, each KEY=VALUE. A key that is set is no axis of the file, nor
    /// in the settings of one.
    pub(crate) fn new(mut draft: Draft, sets: &[String]) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let mut axes: Vec<(String, Vec<Value>)> = Vec::new();
        match draft.take("sweep") {
            None => {}
            Some(Value::Table(table)) => {
                for (key, values) in table {
                    let Value::Array(values) = values else {
                        let accepted =
                            "a list of values; keys are whole and in quotes, as in \"privacy.epsilon\"";
                        return Err(usage(format!("sweep.{key} is {values}, accepted is {accepted}")));
                    };
                    if values.iter().any(is_setting) {
                        check_settings(&key, &values).map_err(usage)?;
                    }
                    axes.push((key, values));
                }
            }
            Some(other) => {
                return Err(usage(format!(
                    "sweep is {other}, accepted is a table of keys and lists of values"
                )));
            }
        }
        for set in sets {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                usage(format!("--set is {set:?}, accepted is KEY=VALUE, as in training.learning_rate=0.1"))
            })?;
            let key = key.trim();
            if let Some((_, settings)) =
                axes.iter_mut().find(|(axis, values)| axis == key && values.iter().all(is_setting))
            {
                *settings = chosen(key, settings, parsed(value)).map_err(usage)?;
                continue;
            }
            axes.retain(|(axis, values)| axis != key && !values.iter().any(|value| touches(value, key)));
            match (parsed(value), draft.get(key)) {
                // A key that takes a list is set to it; a list of lists is an axis even there.
                (Value::Array(values), Some(Value::Array(_))) if !values.iter().all(Value::is_array) => {
                    draft.set(key, Value::Array(values)).map_err(|error| Failure::new(Exit::Usage, error))?;
                }
                (Value::Array(values), _) => axes.push((key.to_owned(), values)),
                (value, _) => draft.set(key, value).map_err(|error| Failure::new(Exit::Usage, error))?,
            }
        }
        let mut points = 1_usize;
        for (key, values) in &axes {
            if values.is_empty() {
                return Err(usage(format!("sweep.{key} is empty, accepted is a list of one or more values")));
            }
            points = points.saturating_mul(values.len());
        }
        if points > MAX_POINTS {
            return Err(usage(format!("the sweep has {points} points, accepted is up to {MAX_POINTS}")));
        }
        Ok(Self { draft, axes })
    }

    /// Every combination, checked; the last axis turns fastest.
    pub(crate) fn points(&self) -> Result<Vec<Point>, Failure> {
        let mut drafts = vec![(Vec::new(), self.draft.clone())];
        for (key, values) in &self.axes {
            let mut next = Vec::with_capacity(drafts.len() * values.len());
            for (chosen, draft) in &drafts {
                for value in values {
                    let mut draft = draft.clone();
                    let refused = |error| Failure::new(Exit::Usage, error);
                    match value {
                        Value::Table(setting) if is_setting(value) => {
                            for (key, value) in setting.iter().filter(|(key, _)| *key != NAME) {
                                draft.set(key, value.clone()).map_err(refused)?;
                            }
                        }
                        _ => draft.set(key, value.clone()).map_err(refused)?,
                    }
                    next.push(([&chosen[..], &[(key.clone(), text(value))]].concat(), draft));
                }
            }
            drafts = next;
        }
        let typed = |(values, draft): (Vec<(String, String)>, Draft)| {
            let parts: Vec<String> =
                values.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
            let name = parts.join(",");
            match draft.finish() {
                Ok(spec) => Ok(Point { name, values, spec }),
                Err(error) if name.is_empty() => Err(Failure::new(Exit::Usage, error)),
                Err(error) => Err(Failure::new(Exit::Usage, format!("{name}: {error}"))),
            }
        };
        drafts.into_iter().map(typed).collect()
    }
}

/// One scenario of a sweep.
#[derive(Debug)]
pub(crate) struct Point {
    /// Its name, which is a folder's; empty where nothing is swept.
    pub(crate) name: String,
    /// Each swept key and its value, in the order of the axes.
    pub(crate) values: Vec<(String, String)>,
    pub(crate) spec: Spec,
}

impl Point {
    /// As the sweep's folder lists it.
    pub(crate) fn swept(&self) -> SweptPoint {
        SweptPoint { folder: self.name.clone(), values: self.values.clone() }
    }
}

/// A value as TOML writes it; what is no TOML is text.
fn parsed(text: &str) -> Value {
    let line = format!("value = {text}");
    let value = line.parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.trim().to_owned()))
}

/// Whether a value is a table with a name.
fn is_setting(value: &Value) -> bool {
    name_of(value).is_some()
}

/// Whether a value is a setting that sets this key.
fn touches(value: &Value, key: &str) -> bool {
    is_setting(value) && value.get(key).is_some()
}

fn name_of(value: &Value) -> Option<&str> {
    value.as_table()?.get(NAME)?.as_str()
}

/// Settings have names, each its own.
fn check_settings(axis: &str, values: &[Value]) -> Result<(), String> {
    let mut names = Vec::with_capacity(values.len());
    for value in values {
        match name_of(value) {
            Some(name) if !names.contains(&name) => names.push(name),
            Some(name) => {
                return Err(format!(
                    "sweep.{axis} has {name:?} twice, accepted is a name of its own for each"
                ));
            }
            None => {
                return Err(format!("sweep.{axis} has {value}, accepted are tables, each with a name"));
            }
        }
    }
    Ok(())
}

/// Those of an axis's settings that `--set` names, one or a list.
fn chosen(axis: &str, settings: &[Value], named: Value) -> Result<Vec<Value>, String> {
    let names = match named {
        Value::Array(names) => names,
        name => vec![name],
    };
    let find = |name: &Value| {
        let setting = settings.iter().find(|setting| name_of(setting) == Some(&text(name)));
        setting.cloned().ok_or_else(|| {
            let accepted: Vec<&str> = settings.iter().filter_map(name_of).collect();
            format!("--set: {axis} is {}, accepted are {}", text(name), accepted.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// A value in words.
fn text(value: &Value) -> String {
    if let Some(name) = name_of(value) {
        return name.to_owned();
    }
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value as part of a folder's name: letters, digits and what is harmless on any system.
fn plain(text: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' };
    text.chars().map(harmless).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sweep(text: &str, sets: &[&str]) -> Result<Vec<Point>, String> {
        let draft = Draft::parse::<Spec>(Path::new("s.toml"), text).map_err(|error| error.to_string())?;
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Sweep::new(draft, &sets).and_then(|sweep| sweep.points()).map_err(|failure| failure.to_string())
    }

    fn names(text: &str, sets: &[&str]) -> Vec<String> {
        sweep(text, sets).unwrap().into_iter().map(|point| point.name).collect()
    }

    #[test]
    fn one_scenario_is_one_point_without_a_name() {
        let points = sweep("rounds = 3", &["training.epochs=2", "name=two words"]).unwrap();
        let [Point { name, values, spec }] = points.as_slice() else { panic!("one point") };
        assert_eq!((name.as_str(), values.len(), spec.rounds, spec.training.epochs), ("", 0, 3, 2));
        assert_eq!(spec.name, "two words");
    }

    #[test]
    fn lists_make_a_grid_and_what_is_set_is_no_axis() {
        let text = "[sweep]\n\"training.epochs\" = [1, 2]\n\"partition.alpha\" = [0.1, 1.0]\n";
        let expected = [
            "partition.alpha=0.1,training.epochs=1",
            "partition.alpha=0.1,training.epochs=2",
            "partition.alpha=1.0,training.epochs=1",
            "partition.alpha=1.0,training.epochs=2",
        ];
        assert_eq!(names(text, &[]), expected);
        let points = sweep(text, &["training.epochs=5", "robustness.rule=[\"mean\", \"median\"]"]).unwrap();
        assert_eq!(points.len(), 4);
        assert!(points.iter().all(|point| point.spec.training.epochs == 5));
        assert_eq!(points[1].name, "partition.alpha=0.1,robustness.rule=median");
        assert_eq!(points[1].values[1], ("robustness.rule".to_owned(), "median".to_owned()));
        assert_eq!(points[1].spec.robustness.rule, "median");
    }

    #[test]
    fn a_list_is_a_value_where_the_key_takes_lists() {
        let clear =
            ["aggregation.mode=insecure_plain", "privacy.placement=insecure_none", "robustness.rule=median"];
        let with = |set| sweep("", &[clear[0], clear[1], clear[2], set]).unwrap();
        let points = with("robustness.pre=[\"nnm\"]");
        assert_eq!(
            (points.len(), points[0].spec.robustness.pre.as_slice()),
            (1, ["nnm".to_owned()].as_slice())
        );
        let points = with("robustness.pre=[[], [\"nnm\"]]");
        assert_eq!(points.len(), 2);
        assert_eq!(points[1].name, "robustness.pre=__nnm__");
    }

    #[test]
    fn settings_set_any_keys_under_one_name() {
        let text = "[[sweep.size]]\nname = \"small\"\nrounds = 2\n\"training.epochs\" = 1\n\
                    [[sweep.size]]\nname = \"large\"\nrounds = 9\n";
        let points = sweep(text, &["seed=[1, 2]"]).unwrap();
        let found: Vec<(&str, u32, u32, u64)> = points
            .iter()
            .map(|Point { name, spec, .. }| (name.as_str(), spec.rounds, spec.training.epochs, spec.seed))
            .collect();
        let expected = [
            ("size=small,seed=1", 2, 1, 1),
            ("size=small,seed=2", 2, 1, 2),
            ("size=large,seed=1", 9, 5, 1),
            ("size=large,seed=2", 9, 5, 2),
        ];
        assert_eq!(found, expected);
        assert_eq!(points[0].values[0], ("size".to_owned(), "small".to_owned()));
        assert_eq!(names(text, &["size=large"]), ["size=large"]);
        assert_eq!(names(text, &["training.epochs=[3, 4]"]), ["training.epochs=3", "training.epochs=4"]);
        assert_eq!(names(text, &["size=[\"large\", \"small\"]"]), ["size=large", "size=small"]);
    }

    #[test]
    fn what_cannot_be_swept_is_refused_with_the_reason() {
        let cases: [(&str, &[&str], &str); 11] = [
            ("[[sweep.size]]\nname = \"s\"", &["size=m"], "--set: size is m, accepted are s"),
            ("[[sweep.size]]\nname = \"s\"\nround = 2", &[], "--set: unknown key round"),
            ("[sweep]\nsize = [{ name = \"s\" }, 3]", &[], "sweep.size has 3, accepted are tables"),
            ("[sweep]\nsize = [{ name = \"s\" }, { name = \"s\" }]", &[], "sweep.size has \"s\" twice"),
            (
                "[sweep]\n\"training.epochs\" = 3",
                &[],
                "sweep.training.epochs is 3, accepted is a list of values",
            ),
            ("sweep = 3", &[], "sweep is 3, accepted is a table"),
            ("[sweep]\nx = [1]", &[], "--set: unknown key x"),
            ("", &["training.epochs"], "--set is \"training.epochs\", accepted is KEY=VALUE"),
            ("", &["training.epochs=[]"], "sweep.training.epochs is empty"),
            ("", &["seed=[1,2]", "training.epochs=[1,\"two\"]"], "seed=1,training.epochs=two: "),
            ("", &["traning.epochs=1"], "--set: unknown key traning.epochs"),
        ];
        for (text, sets, expected) in cases {
            let found = sweep(text, sets).unwrap_err();
            assert!(found.starts_with(expected), "{found}, expected: {expected}");
        }
        let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
        let sets = ["seed", "rounds", "training.epochs"].map(|key| format!("{key}=[{}]", many.join(",")));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        assert!(sweep("", &sets).unwrap_err().contains("1030301 points, accepted is up to 10000"));
    }
}
