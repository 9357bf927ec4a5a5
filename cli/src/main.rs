//! `fedveil`: the whole framework in one command.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

mod audit;
mod client;
mod config;
mod coordinator;
mod data;
mod demo;
mod device;
mod exit;
mod folder;
mod hold_out;
mod privacy;
mod progress;
mod report;
mod robust;
mod secagg;
mod simulate;
mod vectors;
mod verify;
mod watch;

use clap::{Parser, Subcommand};
use exit::{Exit, Failure};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// A step of training takes and frees megabytes, and the system's allocator may hand them back to the kernel each time,
/// which doubles the time of the step (docs/performance.md, "A training step").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOG_HELP: &str = "\nFEDVEIL_LOG sets what is logged on standard error: error, warn, info or debug.";

/// Privacy-preserving federated learning: secure aggregation, differential privacy, Byzantine robustness and signed
/// models in the same round.
#[derive(Parser)]
#[command(version, after_help = Exit::help() + LOG_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole federation on this machine: a coordinator, its clients over TLS, poisoned ones among them.
    ///
    /// Clients train on UCI optical digits, which are inside the binary. At the end the run folder holds a signed
    /// model, its lineage and a report; `fedveil verify` checks it.
    Demo(demo::Args),
    /// Run a federation of a scenario file in virtual time: the same coordinator and clients, no network, seeded.
    ///
    /// A scenario says who there is, what they hold, train, send and withhold; every key has a default, and
    /// `--print-scenario` lists them all. The run folder is that of `fedveil demo`, and `fedveil verify` checks it.
    Simulate(simulate::Args),
    /// Run a coordinator until its task is over.
    Coordinator(coordinator::Args),
    /// Take part in a coordinator's task.
    Client(client::Args),
    /// What privacy costs: the ε that rounds spend, and the noise or the rounds that an ε buys.
    #[command(subcommand)]
    Privacy(privacy::Command),
    /// Check a run folder offline: signatures, every file's digest, the chain of models, the log.
    Verify {
        /// The run folder.
        path: PathBuf,
        /// File with the signer's public key, obtained by a way that you trust. Without it the folder is checked
        /// against the key that it brings itself.
        #[arg(long, value_name = "FILE")]
        trusted_key: Option<PathBuf>,
        /// Print the report as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Apply a Byzantine-robust rule to vectors in a file, or list the rules.
    #[command(subcommand)]
    Robust(robust::Command),
    /// Sets to train on: which there are, their download, and how they fall to clients.
    #[command(subcommand)]
    Data(data::Command),
    /// Compare runs: a table of how they ended, and with `--out` a page with their curves over one another.
    Report(report::Args),
    /// Choose the parameters of secure aggregation.
    #[command(subcommand)]
    Secagg(secagg::Command),
    /// One client of a demo, told what to do on standard input.
    #[command(hide = true)]
    DemoClient,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("FEDVEIL_LOG")
                .unwrap_or_else(|_| cli.command.log_level().into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let outcome = match cli.command {
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Simulate(args) => simulate::run(&args),
        Command::Coordinator(args) => block_on(coordinator::run(args)),
        Command::Client(args) => block_on(client::run(args)),
        Command::Verify { path, trusted_key, json } => {
            verify::verify(&path, trusted_key.as_deref(), json, &mut std::io::stdout().lock())
        }
        Command::Robust(command) => robust::run(command, &mut std::io::stdout().lock()),
        Command::Data(command) => data::run(&command, &mut std::io::stdout().lock()),
        Command::Report(args) => report::run(&args, &mut std::io::stdout().lock()),
        Command::Secagg(command) => secagg::run(&command, &mut std::io::stdout().lock()),
        Command::Privacy(command) => command.run(&mut std::io::stdout().lock()),
        Command::DemoClient => block_on(demo::client_process()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

impl Command {
    /// What is logged without `FEDVEIL_LOG`: long-running commands tell what they do, the others only what is wrong.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Coordinator(_) | Self::Client(_) => "info",
            _ => "error",
        }
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::General, format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // Blocking threads that still train for a task that is over must not hold the command up.
    runtime.shutdown_background();
    outcome
}
