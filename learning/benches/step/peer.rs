//! A plain PyTorch loop in a process of its own, which does one round at a time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use fedveil_learning::Dataset;
use serde_json::{Value, json};

use crate::examples::Examples;
use crate::text;

pub(crate) struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What the two exchange in files.
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Hands over the examples, who has which, and the initial weights.
    pub(crate) fn start(
        python: &str,
        examples: &Examples,
        clients: &[&[usize]],
        model: &[f32],
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let path = folder.path();
        write(&path.join("model"), model.iter().flat_map(|value| value.to_le_bytes()))?;
        write_dataset(path, "train", &examples.train)?;
        if let Some(test) = &examples.test {
            write_dataset(path, "test", test)?;
        }
        fs::write(path.join("clients"), json!(clients).to_string()).map_err(text)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/step/peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(path)
            .env("OMP_NUM_THREADS", "1")
            .env("MKL_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{python}: {error}"))?;
        let requests = child.stdin.take().expect("asked for");
        let answers = BufReader::new(child.stdout.take().expect("asked for"));
        let mut peer = Self { child, requests, answers, _folder: folder };
        let versions = peer.ask(&json!("versions"))?;
        eprintln!("peer: {}", versions.as_str().unwrap_or("?"));
        Ok(peer)
    }

    /// Median CPU time of the five matrix products of a step, out of so many repetitions.
    pub(crate) fn products(&mut self, repetitions: usize) -> Result<Duration, String> {
        let answer = self.ask(&json!({ "products": repetitions }))?;
        answer.as_f64().map(Duration::from_secs_f64).ok_or_else(|| format!("the peer answers {answer}"))
    }

    /// CPU time of a round of these clients.
    pub(crate) fn round(&mut self, cohort: &[usize]) -> Result<Duration, String> {
        let answer = self.ask(&json!(cohort))?;
        answer.as_f64().map(Duration::from_secs_f64).ok_or_else(|| format!("the peer answers {answer}"))
    }

    /// The accuracy at the end, where there are test examples.
    pub(crate) fn accuracy(mut self) -> Result<Option<f64>, String> {
        let answer = self.ask(&json!("accuracy"))?;
        drop(self.requests);
        self.child.wait().map_err(text)?;
        Ok(answer.as_f64())
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        writeln!(self.requests, "{request}").map_err(|error| format!("the peer ended: {error}"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(text)?;
        serde_json::from_str(&answer).map_err(|error| format!("the peer answers {answer:?}: {error}"))
    }
}

fn write_dataset(folder: &Path, name: &str, data: &Dataset) -> Result<(), String> {
    let features = data.features().iter().flat_map(|value| value.to_le_bytes());
    write(&folder.join(format!("{name}-features")), features)?;
    let labels = data.labels().iter().flat_map(|label| label.to_le_bytes());
    write(&folder.join(format!("{name}-labels")), labels)
}

fn write(path: &Path, bytes: impl Iterator<Item = u8>) -> Result<(), String> {
    fs::write(path, bytes.collect::<Vec<u8>>()).map_err(|error| format!("{}: {error}", path.display()))
}
