//! A round of clients that do nothing, here and in Flower's simulator.

use std::process::Command;

use fedveil_simulations::federation::{Attendance, Federation};
use serde_json::{Value, json};

use crate::Options;
use crate::meter::{self, Cost, Meter};
use crate::setups::{NoOp, Size, in_the_clear};

const SMALL: &str = "softmax:4x2";
const LARGE: &str = "mlp:784x200x10";

pub(crate) fn measure(options: &Options) -> Result<String, String> {
    let cohort = if options.quick { 100 } else { 1_000 };
    let large = if options.quick { 10_000 } else { 1_000_000 };
    let cases = [(SMALL, cohort as usize, 100), (SMALL, large, 100), (LARGE, cohort as usize, 10)];
    let mut table = vec![
        "| parameters | population | threads | wall ms a round | CPU ms a round | peak MiB | Flower wall ms | ratio \
         | Flower CPU ms | ratio |\n|---|---|---|---|---|---|---|---|---|---|"
            .to_owned(),
    ];
    for (architecture, population, rounds) in cases {
        let rounds = if options.quick { 3 } else { rounds };
        for threads in [1, 2] {
            let size = Size { architecture, population, cohort, rounds: rounds + 1, threads };
            let (ours, peak) = rounds_of(size)?;
            let parameters = size.parameters();
            println!(
                "{}",
                json!({
                    "bench": "overhead", "parameters": parameters, "population": population, "cohort": cohort,
                    "threads": threads, "rounds": rounds, "wall_ms": ours.wall, "cpu_ms": ours.cpu, "peak_mib": peak,
                    "load": meter::load(),
                })
            );
            // Flower runs two clients at a time, and holds every client of its population.
            let beside = match &options.peers {
                Some(python) if threads == 2 && population == cohort as usize => {
                    let rounds = if options.quick { 2 } else { 3 };
                    let theirs = flower(python, parameters, cohort, rounds)?;
                    format!(
                        "{:.0} | {:.0} | {:.0} | {:.0}",
                        theirs.wall,
                        theirs.wall / ours.wall,
                        theirs.cpu,
                        theirs.cpu / ours.cpu
                    )
                }
                _ => " | | |".to_owned(),
            };
            table.push(format!(
                "| {parameters} | {population} | {threads} | {:.1} | {:.1} | {peak:.0} | {beside} |",
                ours.wall, ours.cpu
            ));
        }
    }
    Ok(table.join("\n"))
}

/// What a round takes once everyone is there, and the most memory in MiB.
fn rounds_of(size: Size) -> Result<(Cost, f64), String> {
    let attendance = if size.population > size.cohort as usize {
        Attendance::CheckIn { clients: size.cohort as usize }
    } else {
        Attendance::Connected
    };
    meter::reset_peak();
    let clients = NoOp { parameters: size.parameters(), ..NoOp::default() };
    let mut federation =
        Federation::new(in_the_clear(size, attendance), clients).map_err(|error| error.to_string())?;
    // The first round also connects everyone.
    federation.run_round().ok_or("the first round did not end")?;
    let meter = Meter::start();
    let mut rounds = 0;
    while let Some(round) = federation.run_round() {
        if round.inputs != size.cohort as usize {
            return Err(format!("round {} has {} inputs of {}", round.round, round.inputs, size.cohort));
        }
        rounds += 1;
    }
    let [_, peak] = meter::resident();
    Ok((meter.per_round(rounds), peak))
}

/// The median round of Flower's simulator, with clients that send back what they were sent.
fn flower(python: &str, parameters: usize, clients: u32, rounds: u32) -> Result<Cost, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/engine/flower.py");
    eprintln!("Flower: {parameters} parameters, {clients} clients");
    let numbers = [parameters.to_string(), clients.to_string(), rounds.to_string()];
    let output = Command::new(python)
        .arg(script)
        .args(numbers)
        .output()
        .map_err(|error| format!("cannot run {python}: {error}"))?;
    let found: Value = match output.stdout.split(|&byte| byte == b'\n').rfind(|line| line.starts_with(b"{")) {
        Some(line) if output.status.success() => {
            serde_json::from_slice(line).map_err(|error| format!("{script}: {error}"))?
        }
        _ => return Err(format!("{python} {script} failed: {}", String::from_utf8_lossy(&output.stderr))),
    };
    println!("{found}");
    let median = |name: &str| {
        let mut times: Vec<f64> = found[name].as_array()?.iter().filter_map(Value::as_f64).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    };
    match (median("wall_ms"), median("cpu_ms")) {
        (Some(wall), Some(cpu)) => Ok(Cost { wall, cpu }),
        _ => Err(format!("{script} gave no times: {found}")),
    }
}
