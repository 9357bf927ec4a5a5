//! What the simulation engine costs: with clients that leave the model as it is, so that all time is the framework's, and
//! with clients that train.
//!
//! ```text
//! cargo bench -p fedveil-simulations --bench engine -- [overhead|memory|crypto|training]… [--quick] [--data DIR]
//!     [--peers PYTHON] [--pfl PYTHON]
//! ```
//!
//! - `overhead`: a round of 1,000 clients in mode `insecure_plain` without noise, with 10 and with 159,010 parameters. With
//!   `--peers` (an interpreter that has `flwr[simulation]`) the same rounds in Flower's simulator in the same run, and the
//!   ratio.
//! - `memory`: resident memory over 10,000 rounds of 1,000 clients, out of 1,000 and out of 1,000,000.
//! - `crypto`: a round of 1,000 clients and 100,000 parameters in mode `secagg`, 5 % of whom vanish in place of sending
//!   their input, beside the same without masks (`insecure_ideal`).
//! - `training`: Fashion-MNIST and MNIST, from `--data`, a folder with the folders `fashion-mnist` and `mnist`: CPU time of
//!   a round, memory and accuracy. With `--peers` (which then also has `torch`) and `--pfl` (an interpreter that has `pfl`
//!   and `torch`) beside a plain PyTorch loop, Flower's simulator and pfl-research's, by turns.
//!
//! Without a name all four. Every measurement is a line of JSON when it is there, and a row of a table at the end. CPU
//! time is that of the process, all threads together; `--quick` takes few rounds and clients, to see that all of it runs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports on its standard streams")]

mod crypto;
mod memory;
mod meter;
mod overhead;
mod peer;
mod setups;
mod training;

use std::env;

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A measurement by its name; its table, in Markdown.
type Measure = fn(&Options) -> Result<String, String>;

const MEASUREMENTS: [(&str, Measure); 4] = [
    ("overhead", overhead::measure),
    ("memory", memory::measure),
    ("crypto", crypto::measure),
    ("training", training::measure),
];

#[derive(Default)]
struct Options {
    names: Vec<String>,
    quick: bool,
    peers: Option<String>,
    pfl: Option<String>,
    data: Option<String>,
    /// Set where this process is one of those that `training` compares.
    worker: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--peers" => options.peers = Some(value()?),
                "--pfl" => options.pfl = Some(value()?),
                "--data" => options.data = Some(value()?),
                "--worker" => options.worker = Some(value()?),
                // What cargo itself passes on.
                "--bench" => {}
                name if MEASUREMENTS.iter().any(|(known, _)| *known == name) => {
                    options.names.push(argument);
                }
                _ => {
                    let accepted = "overhead, memory, crypto, training, --quick, --data DIR, --peers PYTHON, --pfl PYTHON";
                    return Err(format!("argument {argument}, accepted are {accepted}"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse()?;
    if let Some(worker) = &options.worker {
        return training::work(worker, &options);
    }
    println!("{}", meter::machine());
    let mut tables = Vec::new();
    for (name, measure) in MEASUREMENTS {
        if options.names.is_empty() || options.names.iter().any(|wanted| wanted == name) {
            tables.push(format!("\n### {name}\n\n{}", measure(&options)?));
        }
    }
    for table in tables {
        println!("{table}");
    }
    Ok(())
}
