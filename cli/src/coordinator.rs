//! `fedveil coordinator`, and what it shares with the demo: following a task to its end and summing it up.

use crate::config::{self, CoordinatorConfig};
use crate::exit::{Exit, Failure};
use crate::folder::RunFolder;
use crate::hold_out;
use crate::privacy::{pays_for_a_round, spends};
use crate::progress::Progress;
use crate::robust::{bears, naming, suspicion};
use crate::watch::Watch;
use fedveil_coordinator::keys::KeyError;
use fedveil_coordinator::server::{Keys, Running, ServerConfig, ServerError, start};
use fedveil_learning::{ModelSpec, model_file};
use fedveil_proto::JoinToken;
use fedveil_proto_plan::TaskPlan;
use fedveil_provenance::{Digest, PrivacyClaim};
use fedveil_simulations::record::{RoundOutcome, Summary};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Options of the coordinator.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", required_unless_present = "print_config")]
    config: Option<PathBuf>,
    /// Print every key with its default and its meaning, and end.
    #[arg(long)]
    print_config: bool,
}

/// Runs a coordinator.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.print_config {
        print!("{}", config::print_config::<CoordinatorConfig>());
        return Ok(());
    }
    let path = args.config.unwrap_or_default();
    let config: CoordinatorConfig =
        config::load(&path).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let spec: ModelSpec = config
        .model
        .architecture
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, format!("model.architecture: {error}")))?;
    let initial_model = model_file::to_safetensors(&spec, &spec.initial(0))
        .map_err(|error| Failure::new(Exit::Usage, format!("model.architecture: {error}")))?;
    let plan = config.plan(task_id()?, spec.parameters() as u32);
    let terms = plan.check().map_err(|error| Failure::new(Exit::Usage, error))?;
    pays_for_a_round(&plan, &terms)?;
    let hold_out = hold_out::load(config.hold_out.as_ref(), plan.server.gate.as_ref(), &spec)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let folder = RunFolder::create(&config.out, true)?;
    let keys = Keys::open(&config.keys, &config.out).map_err(|error| server_failure(&error))?;
    let signing = keys.signing.clone();
    let quarantine = config.quarantine().map_err(|error| Failure::new(Exit::Usage, error))?;
    let server = ServerConfig {
        listen: config.listen,
        names: config.names.clone(),
        out: config.out.clone(),
        plan,
        initial_model,
        tokens: config.tokens(),
        population: config.population().map_err(|error| Failure::new(Exit::Usage, error))?,
        hold_out,
        quarantine: quarantine.clone(),
    };
    let started = Instant::now();
    let mut running = start(server, keys).await.map_err(|error| server_failure(&error))?;
    write_tokens(&config.tokens_dir, &running.tokens)?;
    let plan = running.plan.plan().clone();
    let progress = Progress::new(false, plan.rounds);
    progress.say(&format!(
        "coordinator on {}, {} join tokens in {}, run folder {}\n{}",
        running.address,
        running.tokens.len(),
        config.tokens_dir.display(),
        config.out.display(),
        spends(&plan, &terms)
    ));
    let terms = plan.check().map_err(|error| Failure::new(Exit::Usage, error))?;
    progress.say(&bears(&plan, &terms));
    progress.say(&naming(&quarantine, &plan, &terms)?);
    let warning = terms.warning();
    if let Some(warning) = warning {
        progress.say(warning);
    }
    let mut watch = Watch::new(progress, plan.rounds, plan.privacy.epsilon, None);
    watch.resume(folder.rounds()?);
    let interrupted = follow(&mut running, &mut watch, &folder).await?;
    let store = running.finish().await.map_err(|error| server_failure(&error))?;
    watch.finish();
    let run = Run {
        plan: &plan,
        privacy: terms.privacy_claim(&plan, 0.0),
        clients: plan.cohort.clients,
        byzantine: 0,
        dropout: 0.0,
        attack: "none known".to_owned(),
        dataset: "the clients' own".to_owned(),
        seed: 0,
        wall_seconds: started.elapsed().as_secs_f64(),
    };
    let notes: Vec<String> = warning.map(str::to_owned).into_iter().collect();
    let mut summary = run.summary(&watch);
    summary.suspicion = suspicion(&quarantine, &plan, &*store, None)?;
    folder.seal(&summary, &watch.rounds, &notes, &signing)?;
    println!("{}: {}", config.out.display(), watch.closed.as_deref().unwrap_or("ended"));
    if interrupted {
        return Err(Failure::new(
            Exit::Interrupted,
            format!("interrupted; {} holds a complete, signed record of what was done", config.out.display()),
        ));
    }
    Ok(())
}

/// A fresh identity for a task.
pub(crate) fn task_id() -> Result<Digest, Failure> {
    let mut id = [0; 32];
    getrandom::fill(&mut id).map_err(|error| {
        Failure::new(Exit::General, format!("no randomness from the operating system: {error}"))
    })?;
    Ok(Digest(id))
}

/// Follows a task until it is over; Ctrl-C ends it cleanly. Gives whether that happened.
pub(crate) async fn follow(
    running: &mut Running,
    watch: &mut Watch,
    folder: &RunFolder,
) -> Result<bool, Failure> {
    let stopper = running.stopper();
    let mut interrupted = false;
    loop {
        let observed = tokio::select! {
            observed = running.events.recv() => observed,
            signal = interrupt(), if !interrupted => {
                signal?;
                interrupted = true;
                stopper.stop("interrupted").await;
                continue;
            }
        };
        let Some(observed) = observed else { return Ok(interrupted) };
        let record = watch.note(&observed).map_err(|error| Failure::new(Exit::General, error))?;
        if let Some(record) = record {
            folder.append(record)?;
            watch.show_round();
        }
        if watch.closed.is_some() {
            return Ok(interrupted);
        }
    }
}

/// Ctrl-C, or a request to terminate.
async fn interrupt() -> Result<(), Failure> {
    let failure =
        |error: std::io::Error| Failure::new(Exit::General, format!("cannot wait for signals: {error}"));
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failure)?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result.map_err(failure),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failure)
}

/// What is known of a run besides its events.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a TaskPlan,
    /// What the plan means for privacy, whatever was spent.
    pub(crate) privacy: PrivacyClaim,
    pub(crate) clients: u32,
    pub(crate) byzantine: u32,
    pub(crate) dropout: f64,
    pub(crate) attack: String,
    pub(crate) dataset: String,
    pub(crate) seed: u64,
    pub(crate) wall_seconds: f64,
}

impl Run<'_> {
    /// The summary of a run that was followed to its end.
    pub(crate) fn summary(&self, watch: &Watch) -> Summary {
        let rounds = &watch.rounds;
        let of = |outcome| rounds.iter().filter(move |round| round.outcome == outcome);
        let published = of(RoundOutcome::Published);
        let client_rounds = rounds.iter().map(|round| u64::from(round.clients_joined)).sum::<u64>().max(1);
        Summary {
            rounds: published.clone().count() as u32,
            clients: self.clients,
            byzantine: self.byzantine,
            dropout: self.dropout,
            attack: self.attack.clone(),
            dataset: self.dataset.clone(),
            rule: self.plan.server.steps(),
            aggregation_mode: self.plan.mode.clone(),
            // Of a simulation, not every round is measured.
            test_accuracy: published
                .clone()
                .rev()
                .find_map(|round| round.test_accuracy)
                .or(watch.initial_accuracy),
            initial_accuracy: watch.initial_accuracy,
            attack_success: None,
            epsilon: rounds.last().map_or(0.0, |round| round.epsilon),
            epsilon_budget: self.privacy.epsilon_budget,
            delta: self.privacy.delta,
            unit: self.privacy.unit.clone(),
            neighbours: self.privacy.neighbours.clone(),
            accountant: self.privacy.accountant.clone(),
            sampling: self.privacy.sampling.clone(),
            placement: self.privacy.placement.clone(),
            mechanism: self.privacy.mechanism.clone(),
            noise_multiplier: self.privacy.noise_multiplier,
            clip_norm: self.privacy.clip_norm,
            groups_dropped: published.map(|round| round.groups_dropped).sum(),
            groups_withheld: rounds.iter().map(|round| round.groups_withheld).sum(),
            suspicion: None,
            rounds_aborted: of(RoundOutcome::Aborted).count() as u32,
            rounds_rejected: of(RoundOutcome::Rejected).count() as u32,
            bytes_up_per_client_round: rounds.iter().map(|round| round.bytes_up).sum::<u64>() / client_rounds,
            bytes_down_per_client_round: rounds.iter().map(|round| round.bytes_down).sum::<u64>()
                / client_rounds,
            model_parameters: self.plan.model.parameters,
            wall_seconds: self.wall_seconds,
            seed: self.seed,
            stopped_because: watch.closed.clone().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            private: true,
        }
    }
}

/// A server's failure with its exit code.
pub(crate) fn server_failure(error: &ServerError) -> Failure {
    let exit = match error {
        ServerError::Listen { .. } => Exit::Listen,
        ServerError::Plan(_) | ServerError::Keys(KeyError::Published { .. }) => Exit::Usage,
        ServerError::Store(_) | ServerError::Keys(_) => Exit::Output,
        _ => Exit::General,
    };
    Failure::new(exit, crate::client::chain(error))
}

fn write_tokens(folder: &Path, tokens: &[JoinToken]) -> Result<(), Failure> {
    use std::io::Write;
    let failure = |path: &Path, error: std::io::Error| {
        Failure::new(Exit::Output, format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| failure(folder, error))?;
    for (number, token) in (1..).zip(tokens) {
        let path = folder.join(format!("{number}.token"));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(|error| failure(&path, error))?;
        file.write_all(token.to_text().as_bytes()).map_err(|error| failure(&path, error))?;
    }
    Ok(())
}
