//! A round with all of its cryptography.

use fedveil_proto_plan::Mode;
use fedveil_simulations::federation::{Federation, RoundOutcome};
use serde_json::json;

use crate::Options;
use crate::meter::{self, Cost, Meter};
use crate::setups::{NoOp, Size, in_groups};

/// Clients that vanish in place of sending their input, when everything else is paid for.
const DROP_OUTS: f64 = 0.05;

pub(crate) fn measure(options: &Options) -> Result<String, String> {
    let (cohort, rounds) = if options.quick { (200, 2) } else { (1_000, 4) };
    let mut table = vec![
        "| mode | protocol | threads | rounds a minute | wall s a round | CPU s a round | inputs | peak MiB |\n\
         |---|---|---|---|---|---|---|---|"
            .to_owned(),
    ];
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
            let measured = rounds_of(size, mode, protocol)?;
            let Measured { cost, inputs, peak } = measured;
            println!(
                "{}",
                json!({
                    "bench": "crypto", "mode": mode.name(), "protocol": protocol, "parameters": size.parameters(),
                    "cohort": cohort, "threads": threads, "rounds": rounds, "wall_ms": cost.wall, "cpu_ms": cost.cpu,
                    "inputs": inputs, "peak_mib": peak, "load": meter::load(),
                })
            );
            table.push(format!(
                "| {} | {protocol} | {threads} | {:.1} | {:.2} | {:.2} | {inputs:.0} | {peak:.0} |",
                mode.name(),
                60e3 / cost.wall,
                cost.wall / 1e3,
                cost.cpu / 1e3,
            ));
        }
    }
    Ok(table.join("\n"))
}

struct Measured {
    cost: Cost,
    /// Inputs of a round, on average.
    inputs: f64,
    peak: f64,
}

fn rounds_of(size: Size, mode: Mode, protocol: &str) -> Result<Measured, String> {
    meter::reset_peak();
    let clients = NoOp { parameters: size.parameters(), drop_outs: DROP_OUTS };
    let mut federation =
        Federation::new(in_groups(size, mode, protocol), clients).map_err(|error| error.to_string())?;
    // Devices are made and connect before the first round.
    federation.run_until(|federation| federation.coordinator().phase().is_some());
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
    Ok(Measured { cost, inputs: inputs as f64 / f64::from(rounds.max(1)), peak })
}
