//! What the simulation engine costs: clients that leave the model as it is, so that all time is the framework's.
//!
//! ```text
//! cargo bench -p fedveil-simulations --bench engine -- [overhead|memory|crypto]… [--quick] [--peers PYTHON]
//! ```
//!
//! - `overhead`: a round of 1,000 clients in mode `insecure_plain` without noise, with 10 and with 159,010 parameters. With
//!   `--peers` (an interpreter that has `flwr[simulation]`) the same rounds in Flower's simulator in the same run, and the
//!   ratio.
//! - `memory`: resident memory over 10,000 rounds of 1,000 clients, out of 1,000 and out of 1,000,000.
//! - `crypto`: a round of 1,000 clients and 100,000 parameters in mode `secagg`, 5 % of whom vanish in place of sending
//!   their input, beside the same without masks (`insecure_ideal`).
//!
//! Without a name all three. Every measurement is a line of JSON when it is there, and a row of a table at the end. CPU
//! time is that of the process, all threads together; `--quick` takes few rounds and clients, to see that all of it runs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports on its standard streams")]

mod crypto;
mod memory;
mod meter;
mod overhead;
mod setups;

use std::env;

/// As in the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A measurement by its name; its table, in Markdown.
type Measure = fn(&Options) -> Result<String, String>;

const MEASUREMENTS: [(&str, Measure); 3] =
    [("overhead", overhead::measure), ("memory", memory::measure), ("crypto", crypto::measure)];

#[derive(Default)]
struct Options {
    names: Vec<String>,
    quick: bool,
    peers: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--peers" => options.peers = Some(arguments.next().ok_or("--peers takes a value")?),
                // What cargo itself passes on.
                "--bench" => {}
                name if MEASUREMENTS.iter().any(|(known, _)| *known == name) => {
                    options.names.push(argument);
                }
                _ => {
                    let accepted = "overhead, memory, crypto, --quick, --peers PYTHON";
                    return Err(format!("argument {argument}, accepted are {accepted}"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse()?;
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
