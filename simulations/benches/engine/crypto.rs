//! A round with all of its cryptography, and what each part of it costs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use fedveil_proto_plan::Mode;
use fedveil_simulations::federation::{Federation, RoundOutcome};
use serde_json::json;

use crate::Options;
use crate::meter::{self, Cost, Meter};
use crate::setups::{NoOp, Size, in_groups};

/// Clients that vanish in place of sending their input, when everything else is paid for.
const DROP_OUTS: f64 = 0.05;

/// Parts of a round by the name that the engine gives them, and what is done in them, in the order of a round.
const PARTS: [(&str, &str); 21] = [
    ("Client(RoundOpen)", "client: keys, commitments, signature; without masks its noise"),
    ("Coordinator(Some(Advertise))", "coordinator: verify certificates and signatures of the cohort"),
    ("Client(Roster)", "client: find itself on the roster, which is parsed once for all"),
    ("Coordinator(Some(Reveal))", "coordinator: check revealed nonces, form groups"),
    (
        "Client(Reveals)",
        "client: agree with neighbours, split secrets, seal shares; groups are verified once each",
    ),
    ("Coordinator(Some(Shares))", "coordinator: forward shares"),
    ("Client(Delivery)", "client: open shares, draw noise"),
    ("Training", "client: train (zeros)"),
    ("Contribution", "client: clip, rotate, round, agree on masks, mask, pack"),
    ("Decoding", "coordinator: decode inputs"),
    ("Coordinator(Some(Input))", "coordinator: add inputs"),
    ("Client(Survivors)", "client: sign the survivors"),
    ("Coordinator(Some(Consistency))", "coordinator: check signatures"),
    ("Client(Signatures)", "client: check signatures, answer"),
    ("Coordinator(Some(Unmask))", "coordinator: parse shares"),
    ("Job(\"unmask\")", "coordinator: recover secrets, take masks off"),
    ("Job(\"sum\")", "coordinator: write sums"),
    ("Job(\"close\")", "coordinator: rotate back, robust rule, new model, signatures"),
    ("Client(Publication)", "client: verify the manifest, once for all"),
    ("Client(Model)", "client: digest of the model, once for all"),
    ("Coordinator(None)", "coordinator: drop-outs, rounds, results of jobs"),
];

pub(crate) fn measure(options: &Options) -> Result<String, String> {
    let (cohort, rounds) = if options.quick { (200, 2) } else { (1_000, 4) };
    let mut table = vec![
        "| mode | protocol | threads | rounds a minute | wall s a round | CPU s a round | inputs | peak MiB |\n\
         |---|---|---|---|---|---|---|---|"
            .to_owned(),
    ];
    let mut columns = Vec::new();
    for (mode, protocol) in [
        (Mode::Secagg, "pairwise-mask"),
        (Mode::Secagg, "rlwe-two-layer"),
        (Mode::InsecureIdeal, "pairwise-mask"),
    ] {
        for threads in [1, 2] {
            let size = Size {
                // 100,000 parameters.
                architecture: "softmax:9999x10",
                population: cohort as usize,
                cohort,
                rounds,
                threads,
            };
            let Measured { cost, inputs, peak, parts } = rounds_of(size, mode, protocol)?;
            println!(
                "{}",
                json!({
                    "bench": "crypto", "mode": mode.name(), "protocol": protocol, "parameters": size.parameters(),
                    "cohort": cohort, "threads": threads, "rounds": rounds, "wall_ms": cost.wall, "cpu_ms": cost.cpu,
                    "inputs": inputs, "peak_mib": peak, "parts_ms": parts, "load": meter::load(),
                })
            );
            table.push(format!(
                "| {} | {protocol} | {threads} | {:.1} | {:.2} | {:.2} | {inputs:.0} | {peak:.0} |",
                mode.name(),
                60e3 / cost.wall,
                cost.wall / 1e3,
                cost.cpu / 1e3,
            ));
            if threads == 1 {
                columns.push((mode, protocol, cost, parts));
            }
        }
    }
    let names: Vec<String> =
        columns.iter().map(|(mode, protocol, ..)| format!("{}, {protocol}", mode.name())).collect();
    table.push(format!("\nCPU ms a round, one thread:\n\n| part | {} |", names.join(" | ")));
    table.push(format!("|---|{}", "---|".repeat(columns.len())));
    let ms = |cell: f64| if cell < 0.5 { String::new() } else { format!("{cell:.0}") };
    let row = |about: &str, cells: Vec<f64>| {
        let cells: Vec<String> = cells.into_iter().map(ms).collect();
        format!("| {about} | {} |", cells.join(" | "))
    };
    let of = |parts: &BTreeMap<String, f64>, name: &str| parts.get(name).copied().unwrap_or(0.0);
    for (name, about) in PARTS {
        table.push(row(about, columns.iter().map(|(.., parts)| of(parts, name)).collect()));
    }
    let rest = columns
        .iter()
        .map(|(_, _, cost, parts)| cost.cpu - PARTS.iter().map(|(name, _)| of(parts, name)).sum::<f64>());
    table.push(row("the queue, and all else", rest.collect()));
    table.push(row("**all**", columns.iter().map(|(_, _, cost, _)| cost.cpu).collect()));
    Ok(table.join("\n"))
}

struct Measured {
    cost: Cost,
    /// Inputs of a round, on average.
    inputs: f64,
    /// MiB.
    peak: f64,
    /// CPU ms of a round, by part.
    parts: BTreeMap<String, f64>,
}

fn rounds_of(size: Size, mode: Mode, protocol: &str) -> Result<Measured, String> {
    meter::reset_peak();
    let clients = NoOp {
        parameters: size.parameters(),
        drop_outs: DROP_OUTS,
        parts: Some(Mutex::new(BTreeMap::new())),
    };
    let mut federation =
        Federation::new(in_groups(size, mode, protocol), clients).map_err(|error| error.to_string())?;
    // Devices are made and connect before the first round.
    federation.run_until(|federation| federation.coordinator().phase().is_some());
    take(federation.scenario());
    let meter = Meter::start();
    let (mut rounds, mut inputs) = (0, 0);
    while let Some(round) = federation.run_round() {
        if let RoundOutcome::Aborted { reason } = &round.outcome {
            return Err(format!("round {} of mode {}: {reason}", round.round, mode.name()));
        }
        (rounds, inputs) = (rounds + 1, inputs + round.inputs);
    }
    let cost = meter.per_round(rounds);
    let [_, peak] = meter::resident();
    let per_round = |time: Duration| 1e3 * time.as_secs_f64() / f64::from(rounds.max(1));
    let parts = take(federation.scenario());
    let parts = parts.into_iter().map(|(part, time)| (part, per_round(time))).collect();
    Ok(Measured { cost, inputs: inputs as f64 / f64::from(rounds.max(1)), peak, parts })
}

/// The times so far, which begin anew.
fn take(clients: &NoOp) -> BTreeMap<String, Duration> {
    let parts = clients.parts.as_ref().and_then(|parts| parts.lock().ok());
    parts.map(|mut parts| std::mem::take(&mut *parts)).unwrap_or_default()
}
