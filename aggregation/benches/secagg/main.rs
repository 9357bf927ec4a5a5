//! What a session costs: CPU time of clients and coordinator, bytes, memory.
//!
//! ```text
//! cargo bench -p fedveil-aggregation --bench secagg -- [--quick] [--only TEXT] [--json FILE] [--flower PYTHON]
//! ```
//!
//! Real sessions, every client with every message, on one thread; ratios are against what was measured in the same run:
//! the same vectors packed, unpacked and added in the clear, the bare cipher, and with `--flower` Flower's SecAgg+
//! (PYTHON: an interpreter that has flwr). `--quick` takes short vectors and small groups, to see that all of it runs;
//! `--only` takes the sessions whose title has TEXT in it, and no curve over lengths.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports on its standard streams")]

mod clock;
mod floors;
mod report;
mod session;

use std::process::Command;
use std::{env, fs};

use fedveil_aggregation::secagg::{Prg, ProtocolKind};
use serde_json::Value;

use report::{CipherFloor, Report};
use session::{Measured, Scenario};

/// Flower's setting: clients, neighbours, threshold, drop-outs.
const FLOWER: [usize; 4] = [100, 20, 14, 10];

struct Options {
    quick: bool,
    only: Option<String>,
    json: Option<String>,
    flower: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { quick: false, only: None, json: None, flower: None };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--only" => options.only = Some(value()?),
                "--json" => options.json = Some(value()?),
                "--flower" => options.flower = Some(value()?),
                // What cargo itself passes on.
                "--bench" => {}
                _ => {
                    let accepted = "--quick, --only TEXT, --json FILE, --flower PYTHON";
                    return Err(format!("option {argument}, accepted are {accepted}"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse()?;
    let length = if options.quick { 1 << 12 } else { 1 << 20 };
    let ciphers = [Prg::Aes256Ctr, Prg::ChaCha20];

    let floor = |prg| CipherFloor { prg, length, time: floors::cipher_stream(prg, length) };
    let cipher_floors = ciphers.map(floor);
    let wanted =
        |scenario: &Scenario| options.only.as_ref().is_none_or(|text| report::title(scenario).contains(text));
    let sessions = scenarios(options.quick, length).into_iter().filter(wanted).map(measure).collect();
    let flower = options.flower.map(|python| flower(&python, length)).transpose()?;
    let curve = if options.only.is_none() {
        curve(options.quick).into_iter().map(measure).collect()
    } else {
        Vec::new()
    };

    let report = Report { cipher_floors, sessions, flower, curve };
    report.print();
    if let Some(path) = options.json {
        let text = format!("{:#}\n", report.to_json());
        fs::write(&path, text).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}

/// Sessions of the table. The cipher matters where whole vectors are masked.
fn scenarios(quick: bool, length: usize) -> Vec<Scenario> {
    use ProtocolKind::{PairwiseMask, RlweTwoLayer};
    let cohorts = if quick {
        vec![[20, 10, 8, 2], [30, 12, 9, 3]]
    } else {
        vec![FLOWER, [100, 32, 22, 10], [1000, 96, 67, 100]]
    };
    let variants =
        [(PairwiseMask, Prg::Aes256Ctr), (PairwiseMask, Prg::ChaCha20), (RlweTwoLayer, Prg::Aes256Ctr)];
    cohorts
        .into_iter()
        .flat_map(|[clients, neighbours, threshold, dropouts]| {
            variants.map(|(protocol, prg)| Scenario {
                protocol,
                prg,
                clients,
                neighbours,
                threshold,
                dropouts,
                length,
            })
        })
        .collect()
}

/// Both protocols over lengths, for members with few and with many neighbours: a group of 20, and one in which each has
/// as many as in a group of a thousand.
fn curve(quick: bool) -> Vec<Scenario> {
    let (groups, lengths): (&[_], &[_]) = if quick {
        (&[[10, 6, 1]], &[10, 12])
    } else {
        (&[[20, 13, 2], [97, 67, 9]], &[10, 12, 14, 15, 16, 17, 18, 20])
    };
    let mut scenarios = Vec::new();
    for &[clients, threshold, dropouts] in groups {
        for length in lengths.iter().map(|bits| 1 << bits) {
            scenarios.extend(ProtocolKind::ALL.map(|protocol| {
                let (prg, neighbours) = (Prg::Aes256Ctr, clients - 1);
                Scenario { protocol, prg, clients, neighbours, threshold, dropouts, length }
            }));
        }
    }
    scenarios
}

fn measure(scenario: Scenario) -> Measured {
    let measured = session::run(scenario);
    eprintln!("measured: {}", report::title(&scenario));
    measured
}

/// Runs Flower's session, and returns what it reports of itself.
fn flower(python: &str, length: usize) -> Result<Value, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/secagg/flower_secagg.py");
    let [clients, neighbours, threshold, dropouts] = FLOWER;
    let arguments = [
        ("--length", length),
        ("--clients", clients),
        ("--neighbours", neighbours),
        ("--threshold", threshold),
        ("--dropouts", dropouts),
    ];
    let mut command = Command::new(python);
    command.arg(script);
    for (name, value) in arguments {
        command.arg(name).arg(value.to_string());
    }
    let output = command.output().map_err(|error| format!("cannot run {python}: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{python} {script} failed: {}", reason.trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{script} printed no JSON: {error}"))
}
