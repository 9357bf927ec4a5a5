//! Memory over many rounds, of a small and of a large population.

use fedveil_simulations::federation::{Attendance, Federation};
use serde_json::json;

use crate::Options;
use crate::meter::{self, Meter};
use crate::setups::{NoOp, Size, in_the_clear};

pub(crate) fn measure(options: &Options) -> Result<String, String> {
    let (cohort, rounds) = if options.quick { (100, 400) } else { (1_000, 10_000) };
    let mut table = vec![
        "| population | round | resident MiB | clients remembered | wall ms a round | CPU ms a round |\n\
         |---|---|---|---|---|---|"
            .to_owned(),
    ];
    for population in [1, 1_000].map(|factor| factor * cohort as usize) {
        let size = Size { architecture: "softmax:4x2", population, cohort, rounds, threads: 2 };
        let attendance = Attendance::CheckIn { clients: cohort as usize };
        let clients = NoOp { parameters: size.parameters(), ..NoOp::default() };
        let mut federation =
            Federation::new(in_the_clear(size, attendance), clients).map_err(|error| error.to_string())?;
        let (mut meter, mut since) = (Meter::start(), 0);
        while let Some(round) = federation.run_round() {
            if ![100, 40, 10, 4, 2, 1].iter().any(|part| round.round == rounds / part) {
                continue;
            }
            let ([resident, _], (remembered, _)) = (meter::resident(), federation.remembered());
            let cost = meter.per_round(round.round - since);
            println!(
                "{}",
                json!({
                    "bench": "memory", "population": population, "cohort": cohort, "round": round.round,
                    "resident_mib": resident, "remembered": remembered, "wall_ms": cost.wall, "cpu_ms": cost.cpu,
                    "load": meter::load(),
                })
            );
            table.push(format!(
                "| {population} | {} | {resident:.0} | {remembered} | {:.1} | {:.1} |",
                round.round, cost.wall, cost.cpu
            ));
            (meter, since) = (Meter::start(), round.round);
        }
    }
    Ok(table.join("\n"))
}
