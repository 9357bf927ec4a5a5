//! What the framework itself costs: clients that give the weights back unchanged, in mode `insecure_plain` without noise.
//!
//! `cargo test --release -p fedveil-simulations --lib -- --ignored --nocapture --test-threads 1 overhead`

use super::*;
use std::num::NonZeroUsize;
use std::time::Instant;

struct NoOp(usize);

impl Scenario for NoOp {
    fn contribute(&self, _work: &Work<'_>) -> Result<Trained, String> {
        Ok(Contribution::Update(vec![0.0; self.0]).into())
    }
}

fn setup(architecture: &str, population: usize, cohort: u32, rounds: u32, threads: usize) -> (Setup, usize) {
    let parameters = architecture.parse::<ModelSpec>().unwrap().parameters();
    let mut setup = plain::in_the_clear("local");
    setup.plan.privacy = Privacy::none(f64::INFINITY);
    setup.policy = Policy { allow_insecure_plain: true, allow_insecure_no_noise: true, ..Policy::default() };
    setup.plan.model = Model { architecture: architecture.to_owned(), parameters: parameters as u32 };
    setup.plan.cohort = Cohort { clients: cohort, minimum: cohort, assumed_malicious: 0, population: None };
    setup.plan.rounds = rounds;
    (setup.clients, setup.keep) = (population, Keep::Nothing);
    setup.threads = NonZeroUsize::new(threads).unwrap();
    if population > cohort as usize {
        setup.attendance = Attendance::CheckIn { clients: cohort as usize };
    }
    (setup, parameters)
}

/// Megabytes of memory, the most so far and what is used.
fn memory() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["VmHWM:", "VmRSS:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
    })
}

#[test]
#[ignore = "a measurement"]
fn overhead_of_rounds() {
    for (architecture, population, rounds) in
        [("softmax:4x2", 1_000, 40), ("softmax:4x2", 1_000_000, 40), ("mlp:784x200x10", 1_000, 8)]
    {
        for threads in [1, 2] {
            let (setup, parameters) = setup(architecture, population, 1_000, rounds, threads);
            let mut federation = Federation::new(setup, NoOp(parameters)).unwrap();
            // The first round also connects everyone.
            federation.run_round().unwrap();
            let start = Instant::now();
            let mut count = 0;
            while let Some(round) = federation.run_round() {
                assert_eq!(round.inputs, 1_000);
                count += 1;
            }
            let [most, _] = memory();
            println!(
                "{parameters} parameters, population {population}, {threads} threads: {:.1} ms a round, {most} MiB so far",
                start.elapsed().as_secs_f64() * 1e3 / f64::from(count)
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn overhead_in_memory_over_rounds() {
    for (population, cohort) in [(100, 100), (1_000_000, 100)] {
        let (mut setup, parameters) = setup("softmax:4x2", population, cohort, 10_000, 2);
        setup.attendance = Attendance::CheckIn { clients: cohort as usize };
        let mut federation = Federation::new(setup, NoOp(parameters)).unwrap();
        while let Some(round) = federation.run_round() {
            if [100, 1_000, 4_000, 7_000, 10_000].contains(&round.round) {
                let (clients, _) = federation.remembered();
                println!(
                    "population {population}, round {}: {} MiB, {clients} clients remembered",
                    round.round,
                    memory()[1]
                );
            }
        }
    }
}
