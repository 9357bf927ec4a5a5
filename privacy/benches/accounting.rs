//! Milliseconds per ε query: `cargo bench -p fedveil-privacy --bench accounting`.
//!
//! Prints the median of some repetitions, and for the privacy loss distribution how wide its bracket is.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and has nobody to report to"
)]

use fedveil_privacy::{Composition, Delta, Neighbours, NoiseMultiplier, Sampling, SamplingRate};
use std::{hint::black_box, time::Instant};

fn main() {
    println!(
        "{:<46} {:>9} {:>11} {:>9} {:>11} {:>9}",
        "rounds", "RDP ms", "RDP ε", "PLD ms", "PLD ε", "bracket"
    );
    let poisson = |rate| Sampling::Poisson(SamplingRate::new(rate).unwrap());
    let fixed = Sampling::FixedSize { cohort: 10, population: 1_000 };
    let (add, replace) = (Neighbours::AddRemove, Neighbours::ReplaceOne);
    for (neighbours, sampling, sigma, rounds, delta) in [
        (add, poisson(0.01), 1.0, 1_000, 1e-5),
        (add, poisson(256.0 / 60_000.0), 1.1, 14_062, 1e-5),
        (add, poisson(0.001), 0.6, 1_500, 1e-6),
        (add, poisson(0.001), 0.8, 1_000, 1e-5),
        (add, poisson(0.03), 1.0, 1_500, 1e-4),
        (add, poisson(0.2), 0.5, 3, 1e-5),
        (add, Sampling::Full, 10.0, 100, 1e-5),
        (replace, poisson(0.01), 2.0, 1_000, 1e-5),
        (replace, fixed, 4.0, 1_000, 1e-5),
    ] {
        let (noise, delta) = (NoiseMultiplier::new(sigma).unwrap(), Delta::new(delta).unwrap());
        let composition = Composition::new(neighbours).then(sampling, noise, rounds).unwrap();
        let (rdp_ms, rdp) = median(21, || composition.rdp().epsilon(delta).epsilon);
        let (pld_ms, pld) = median(5, || composition.epsilon(delta));
        let name = match sampling {
            Sampling::Full => "full".to_owned(),
            Sampling::Poisson(rate) => format!("poisson {:.4}", rate.get()),
            Sampling::FixedSize { cohort, population } => format!("{cohort} of {population}"),
        };
        let name = format!("{neighbours:?}, {name}, σ = {sigma}, T = {rounds}");
        let width = 1.0 - pld.lower / pld.upper;
        println!("{name:<46} {rdp_ms:>9.3} {rdp:>11.6} {pld_ms:>9.2} {:>11.6} {width:>9.1e}", pld.upper);
    }
}

/// The median time of some calls, and what the last one gave.
fn median<T>(calls: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        let found = black_box(work());
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if times.len() == calls {
            times.sort_by(f64::total_cmp);
            return (times[calls / 2], found);
        }
    }
}
