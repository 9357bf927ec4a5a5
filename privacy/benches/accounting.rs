//! Milliseconds per ε query, and per calibration of noise.
//!
//! ```text
//! cargo bench -p fedveil-privacy --bench accounting -- [--dp-accounting PYTHON]
//! ```
//!
//! With PYTHON, an interpreter that has `dp-accounting` 0.6.0, the same queries are put to it in between, and the last
//! columns say what it took, over ours, and its answer. Every time is the least of some repetitions.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and has nobody to report to"
)]

use fedveil_privacy::{
    Accountant, Composition, Delta, Epsilon, Neighbours, NoiseMultiplier, Sampling, SamplingRate,
};
use serde_json::{Value, json};
use std::{
    hint::black_box,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

/// Sampling rate, noise multiplier, rounds, δ. Everyone takes part at rate 1.
const QUERIES: [(f64, f64, u32, f64); 8] = [
    (0.01, 1.0, 1_000, 1e-5),
    (0.01, 0.8, 10_000, 1e-6),
    (0.001, 1.0, 10_000, 1e-5),
    (256.0 / 60_000.0, 1.1, 14_062, 1e-5),
    (0.001, 0.6, 1_500, 1e-6),
    (0.1, 1.0, 100, 1e-5),
    (0.1, 2.0, 1_000, 1e-6),
    (1.0, 5.0, 100, 1e-5),
];

/// Sampling rate, ε, rounds, δ.
const CALIBRATIONS: [(f64, f64, u32, f64); 2] = [(0.01, 2.0, 1_000, 1e-5), (0.1, 4.0, 100, 1e-5)];

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut peer = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--dp-accounting", python] => Some(Peer::start(python)),
        _ => panic!("found {arguments:?}, accepted is --dp-accounting PYTHON"),
    };
    if let Some(peer) = &peer {
        println!("dp-accounting {}\n", peer.version);
    }
    println!("| query | accountant | ms | answer | dp-accounting ms | × | its answer |");
    println!("|---|---|---|---|---|---|---|");
    let add = Neighbours::AddRemove;
    for (q, sigma, rounds, delta) in QUERIES {
        let noise = NoiseMultiplier::new(sigma).unwrap();
        let at = Delta::new(delta).unwrap();
        let composition = || Composition::new(add).then(sampling(q), noise, rounds).unwrap();
        for (name, accountant, calls) in [("rdp", Accountant::Rdp, 21), ("pld", Accountant::Pld, 7)] {
            let ours = least(calls, || accountant.epsilon(&composition(), at));
            let case = json!({
                "accountant": name, "rate": q, "sigma": sigma, "rounds": rounds, "delta": delta, "repeats": 3,
            });
            row(
                &format!("ε of q = {q:.4}, σ = {sigma}, T = {rounds}, δ = {delta:e}"),
                name,
                ours,
                &mut peer,
                &case,
            );
        }
    }
    for (q, epsilon, rounds, delta) in CALIBRATIONS {
        let (target, at) = (Epsilon::new(epsilon).unwrap(), Delta::new(delta).unwrap());
        for (name, accountant) in [("rdp", Accountant::Rdp), ("pld", Accountant::Pld)] {
            let found = || accountant.noise_for(add, sampling(q), rounds, target, at).unwrap().unwrap().get();
            let ours = least(5, found);
            let case = json!({
                "accountant": name, "rate": q, "epsilon": epsilon, "rounds": rounds, "delta": delta, "repeats": 1,
            });
            row(
                &format!("σ of q = {q}, ε = {epsilon}, T = {rounds}, δ = {delta:e}"),
                name,
                ours,
                &mut peer,
                &case,
            );
        }
    }
    if let Some(peer) = peer {
        peer.stop();
    }
}

fn sampling(rate: f64) -> Sampling {
    if rate == 1.0 { Sampling::Full } else { Sampling::Poisson(SamplingRate::new(rate).unwrap()) }
}

fn row(query: &str, accountant: &str, (ms, answer): (f64, f64), peer: &mut Option<Peer>, case: &Value) {
    let theirs = peer.as_mut().map(|peer| peer.ask(case)).map_or("| | |".to_owned(), |theirs| {
        let their_ms = theirs["ms"].as_f64().unwrap();
        format!("| {their_ms:.1} | {:.0} | {:.6} |", their_ms / ms, theirs["found"].as_f64().unwrap())
    });
    println!("| {query} | {accountant} | {ms:.3} | {answer:.6} {theirs}");
}

/// The least time of some calls in milliseconds, and what the last one gave.
fn least<T>(calls: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut fastest = f64::INFINITY;
    for call in 1.. {
        let start = Instant::now();
        let found = black_box(work());
        fastest = fastest.min(start.elapsed().as_secs_f64() * 1e3);
        if call == calls {
            return (fastest, found);
        }
    }
    unreachable!("the loop has no end but the return")
}

/// `accounting_peer.py`, running.
struct Peer {
    version: String,
    process: Child,
    cases: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(python: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/accounting_peer.py");
        let mut process =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let cases = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        Self { version: first["version"].as_str().unwrap().to_owned(), process, cases, answers }
    }

    /// It ends where its input does.
    fn stop(mut self) {
        drop(self.cases);
        self.process.wait().unwrap();
    }

    fn ask(&mut self, case: &Value) -> Value {
        writeln!(self.cases, "{case}").unwrap();
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }
}
