//! A system that trains a federation in a process of its own, a round when it is told to.
//!
//! ```text
//! ◄── {"ready": what it is}
//! ──► {"rounds": n}             ◄── {"wall_ms": …, "cpu_ms": …}       for all of the n
//! ◄── {"accuracy": …, "peak_mib": …}                                  after the last round, unasked
//! ```

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::meter::Cost;

pub(crate) struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    started: Instant,
    /// What it says that it is.
    pub(crate) version: String,
}

impl Peer {
    /// Starts it and waits until it could run a round.
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
        let requests = child.stdin.take().expect("asked for");
        let answers = BufReader::new(child.stdout.take().expect("asked for"));
        let mut peer = Self { child, requests, answers, started, version: String::new() };
        let ready = peer.answer()?;
        let version = ready["ready"].as_str().ok_or_else(|| format!("a peer that is not ready: {ready}"))?;
        version.clone_into(&mut peer.version);
        Ok(peer)
    }

    /// What so many rounds took, all together, and the answer that says so.
    pub(crate) fn rounds(&mut self, rounds: u32) -> Result<(Cost, Value), String> {
        writeln!(self.requests, "{}", json!({ "rounds": rounds }))
            .map_err(|error| format!("{} ended: {error}", self.version))?;
        let answer = self.answer()?;
        match (answer["wall_ms"].as_f64(), answer["cpu_ms"].as_f64()) {
            (Some(wall), Some(cpu)) => Ok((Cost { wall, cpu }, answer)),
            _ => Err(format!("{} answers {answer}", self.version)),
        }
    }

    /// What it says of the whole, and the wall time since it was started.
    pub(crate) fn finish(mut self) -> Result<(Value, Duration), String> {
        let answer = self.answer()?;
        let wall = self.started.elapsed();
        drop(self.requests);
        self.child.wait().map_err(|error| error.to_string())?;
        Ok((answer, wall))
    }

    /// The next line of JSON; what else libraries print is passed over.
    fn answer(&mut self) -> Result<Value, String> {
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err(format!("a peer ended without an answer: {}", self.version));
            }
            if line.starts_with('{') {
                return serde_json::from_str(&line)
                    .map_err(|error| format!("a peer answers {line}: {error}"));
            }
        }
    }
}
