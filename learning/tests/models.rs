//! The built-in models against PyTorch, by numbers that it wrote once and by PyTorch itself where it is present; and
//! against docs/models.md.
//!
//! The second of these runs `$FEDVEIL_PYTHON`, or `python3`, and wants the packages `torch` and `safetensors` there.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fedveil_learning::{Dataset, LocalTraining, ModelSpec, Models, model_file, models, predict, train};
use serde::Deserialize;
use serde_json::json;

/// Numbers of one model at parameters 0.3 sin(0.7 i), which `tests/vectors/learning/reference.py` wrote.
#[derive(Deserialize)]
struct Case {
    model: String,
    labels: Vec<u32>,
    /// Sequences; features are waves.
    inputs: Option<Vec<Vec<u32>>>,
    loss: f64,
    log_probabilities: Vec<f64>,
    /// Which coordinates of the gradient there are: every so many.
    every: usize,
    gradient: Vec<f64>,
}

impl Case {
    fn spec(&self) -> ModelSpec {
        // PyTorch cannot draw the seeded base of the adapters.
        let Some(base) = self.model.strip_prefix("lora:2:0:") else {
            return self.model.parse().unwrap();
        };
        let base: ModelSpec = base.parse().unwrap();
        ModelSpec::adapters("adapters", 2, &base, wave(base.parameters())).unwrap()
    }

    fn data(&self) -> Dataset {
        let spec = self.spec();
        let Some(features) = spec.input().features() else {
            let inputs = self.inputs.as_ref().expect("sequences are in the vectors");
            let length = inputs[0].len();
            return Dataset::sequences(inputs.concat(), self.labels.clone(), length, spec.classes()).unwrap();
        };
        let values = (0..features * self.labels.len()).map(|at| (1.3 * at as f64).sin() as f32).collect();
        Dataset::new(values, self.labels.clone(), features, spec.classes()).unwrap()
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../tests/vectors/learning/models.json")).unwrap()
}

fn wave(length: usize) -> Vec<f32> {
    (0..length).map(|at| (0.3 * (0.7 * at as f64).sin()) as f32).collect()
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(difference < tolerance * (1.0 + expected.abs()), "{what} {at}: {found}, expected {expected}");
    }
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    for case in cases() {
        let (spec, data, name) = (case.spec(), case.data(), &case.model);
        let start = wave(spec.parameters());
        let found = predict(&spec, &start, &data).unwrap();
        assert_close(&found, &case.log_probabilities, 1e-5, &format!("{name}, log-probability"));

        // With a large step the difference of parameters has the gradient's digits.
        let trained = train(&spec, &start, &data, &LocalTraining::sgd(1, 0, 1024.0), 0).unwrap();
        assert!((trained.loss - case.loss).abs() < 1e-5, "{name}: {}", trained.loss);
        let moved = start.iter().zip(&trained.parameters).step_by(case.every);
        let gradient: Vec<f32> = moved.map(|(before, after)| (before - after) / 1024.0).collect();
        let largest = case.gradient.iter().fold(0_f64, |largest, slope| largest.max(slope.abs()));
        let scaled: Vec<f32> = gradient.iter().map(|slope| slope / largest as f32).collect();
        let expected: Vec<f64> = case.gradient.iter().map(|slope| slope / largest).collect();
        assert_close(&scaled, &expected, 2e-5, &format!("{name}, gradient over {largest:e} at"));
    }
}

#[test]
fn pytorch_loads_what_is_written_and_writes_what_is_loaded() {
    let python = std::env::var("FEDVEIL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imports = Command::new(&python).args(["-c", "import torch, safetensors.torch"]).output();
    match imports {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("").to_owned();
            return eprintln!("skipped: {python} ($FEDVEIL_PYTHON) has no torch and safetensors: {reason}");
        }
        Err(error) => return eprintln!("skipped: no {python} ($FEDVEIL_PYTHON): {error}"),
    }
    let folder = tempfile::tempdir().unwrap();

    // The adapters' base is drawn from a seed, which PyTorch does not know.
    let cases: Vec<Case> = cases().into_iter().filter(|case| !case.model.starts_with("lora")).collect();
    let mut files = Vec::new();
    let mut inputs = Vec::new();
    for case in &cases {
        let (spec, data) = (case.spec(), case.data());
        let file = folder.path().join(format!("{}.safetensors", files.len()));
        let bytes = model_file::to_safetensors(&spec, &wave(spec.parameters())).unwrap();
        std::fs::write(&file, bytes).unwrap();
        files.push(file);
        inputs.push(match &case.inputs {
            Some(tokens) => json!(tokens),
            None => json!(data.features().chunks(data.inputs()).collect::<Vec<_>>()),
        });
    }
    let arguments: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let answer = reference(&python, "evaluate", &arguments, &json!(inputs).to_string());
    let answers: Vec<Vec<f64>> = serde_json::from_str(&answer).unwrap();
    assert_eq!(answers.len(), cases.len());
    for (case, expected) in cases.iter().zip(&answers) {
        let spec = case.spec();
        let found = predict(&spec, &wave(spec.parameters()), &case.data()).unwrap();
        assert_close(&found, expected, 1e-5, &format!("{}, log-probability", case.model));
    }

    let spec: ModelSpec = "gru:7x3x4".parse().unwrap();
    let file = folder.path().join("written.safetensors");
    let parameters = json!([spec.name(), wave(spec.parameters())]).to_string();
    reference(&python, "write", &[&file], &parameters);
    let (found, parameters) = model_file::read(&std::fs::read(&file).unwrap(), &Models::default()).unwrap();
    assert_eq!((found, parameters), (spec.clone(), wave(spec.parameters())));
}

#[test]
fn the_document_lists_the_models() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (opening, rest) = text.split_once("--test models` -->\n").unwrap();
    let (found, closing) = rest.split_once("<!-- end of models -->").unwrap();
    let row = |kind: &models::Kind| {
        let example: ModelSpec = kind.example.parse().unwrap();
        let (name, parameters) = (format!("{}:{}", kind.name, kind.sizes), example.parameters());
        format!("| `{name}` | {} | `{example}` | {parameters} |\n", kind.about)
    };
    let rows: String = models::KINDS.iter().map(row).collect();
    let expected = format!("| name | what it is | example | parameters |\n|---|---|---|---|\n{rows}");
    if std::env::var_os("FEDVEIL_REGENERATE").is_some() {
        let text = format!("{opening}--test models` -->\n{expected}<!-- end of models -->{closing}");
        return std::fs::write(&path, text).unwrap();
    }
    assert_eq!(found, expected, "write it again with FEDVEIL_REGENERATE=1");
}

/// What the reference answers.
fn reference(python: &str, command: &str, files: &[&Path], input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/learning/reference.py");
    let mut child = Command::new(python)
        .arg(script)
        .arg(command)
        .args(files)
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().expect("asked for").write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).unwrap()
}
