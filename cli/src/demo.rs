//! `fedveil demo`: the main job on one machine.
//!
//! A real coordinator on loopback, real clients that share nothing with it but the network, real data inside the binary,
//! poisoned clients among them. Nothing here has a shortcut into the coordinator: tokens are all that passes by hand.

use crate::audit::CANARIES_FILE;
use crate::config::CoordinatorConfig;
use crate::coordinator::{Run, follow, server_failure, task_id};
use crate::device::{Role, Staged, features, held_out_images, holdings, shares};
use crate::exit::{Exit, Failure};
use crate::folder::RunFolder;
use crate::hold_out;
use crate::privacy::spends;
use crate::progress::Progress;
use crate::robust::{bears, naming, suspicion, told};
use crate::verify::verify;
use crate::watch::{Evaluate, Watch};
use clap::builder::{PossibleValue, PossibleValuesParser};
use fedveil_aggregation::robust::{GROUP_RULE_NAMES, Rule};
use fedveil_client::agent::{self, AgentOptions};
use fedveil_client::enroll::enroll;
use fedveil_client::keystore::Keystore;
use fedveil_client::record::RecordFile;
use fedveil_client_core::Policy;
use fedveil_coordinator::server::{Keys, Running, ServerConfig, start};
use fedveil_coordinator::store::SqliteStore;
use fedveil_coordinator_core::{Client, Quarantine, QuarantineMode};
use fedveil_learning::{Dataset, ModelSpec, evaluate, model_file};
use fedveil_privacy::Placement;
use fedveil_proto::JoinToken;
use fedveil_proto_plan::{
    AdaptiveClipping, Cohort, FederatedEvaluation, Gate, Server, Setting, TaskPlan, Terms,
};
use fedveil_provenance::Digest;
use fedveil_simulations::attack::{ATTACKS, Attack};
use fedveil_simulations::canary::{Canaries, Canary, CanarySeed};
use fedveil_simulations::record::Summary;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a demo's client tries to reach the coordinator.
const PATIENCE: Duration = Duration::from_mins(1);
/// Enrolments and connections that start at the same time.
const STARTING_TOGETHER: usize = 16;

/// Options of the demo.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    /// Clients in the federation.
    #[arg(long, default_value_t = 200, value_name = "N")]
    clients: u32,
    /// Rounds at most; the privacy budget may end the task earlier.
    #[arg(long, default_value_t = 8, value_name = "N")]
    rounds: u32,
    /// Poisoned clients: they ignore the clip and send what they like.
    #[arg(long, default_value_t = 4, value_name = "N")]
    byzantine: u32,
    /// What poisoned clients send; `fedveil robust attacks` explains it.
    #[arg(long, default_value = "sign-flip", value_name = "NAME", value_parser = attack_names())]
    attack: String,
    /// How strong the attack is, in its own measure. [default: as published, or loud]
    #[arg(long, value_name = "NUMBER")]
    attack_strength: Option<f64>,
    /// Clients that audit: each flips a coin and submits a random direction at the clip norm in every round, or zeros.
    /// `fedveil privacy audit` reads the run afterwards.
    #[arg(long, default_value_t = 0, value_name = "N")]
    canaries: u32,
    /// Share of the clients that drop out in the middle of each round.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    dropout: f64,
    #[arg(long, default_value = "mda", value_name = "NAME", help = rule_help())]
    rule: String,
    /// Pre-aggregator before the rule, of `fedveil robust list`; repeat for more, in order.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pre: Vec<String>,
    /// Option of the rule or of a pre-aggregator, as in tau=10; NAME.key=value where several have the key.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Publish every model. Without this option a gate looks at the length of its step, at its accuracy, and at whether
    /// it answers to the triggers of known backdoors.
    #[arg(long)]
    no_gate: bool,
    /// Let the clients of a round judge its new model too, on their own examples, with this noise in each group's sum of
    /// answers, in clients. It is charged with the updates.
    #[arg(long, value_name = "Z", conflicts_with = "no_gate")]
    evaluation_noise: Option<f64>,
    /// Poisoned groups that the rule is set to bear.
    #[arg(long, default_value_t = 4, value_name = "F")]
    assumed_byzantine: u32,
    /// Smallest size of the random groups whose sums alone are seen.
    #[arg(long, default_value_t = 18, value_name = "N")]
    group_size: u32,
    /// Privacy budget: the task stops before a client would spend more.
    #[arg(long, default_value_t = 15.0, value_name = "EPSILON")]
    epsilon: f64,
    /// Noise guaranteed in a group's sum, as a multiple of the clip norm.
    #[arg(long, default_value_t = 1.12, value_name = "Z")]
    noise_multiplier: f64,
    /// Who adds the noise: the clients of a group together (distributed), or each all of it (local), which trusts nobody
    /// and leaves little to learn from.
    #[arg(long, default_value = "distributed", value_name = "NAME")]
    placement: String,
    /// Distribution of the noise: discrete-gaussian or skellam.
    #[arg(long, default_value = "discrete-gaussian", value_name = "NAME")]
    mechanism: String,
    /// Let the clip norm follow this quantile of the updates' norms; what tells whether they are
    /// within is charged too.
    #[arg(long, value_name = "QUANTILE")]
    adaptive_clip: Option<f64>,
    /// Fixes the data split, the poisoned and the drop-outs. Keys, masks and noise come from the operating system.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    seed: u64,
    /// Run folder; it must be new or empty. [default: runs/<time>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run every client as a process of its own.
    #[arg(long)]
    processes: bool,
    /// Print nothing but the summary, as JSON.
    #[arg(long)]
    json: bool,
}

/// The help text of `--rule`, from the registry.
fn rule_help() -> String {
    format!("Byzantine-robust rule over group means: {GROUP_RULE_NAMES}; `fedveil robust list` explains them")
}

/// The names that `--attack` takes with a line on each, from the registry.
fn attack_names() -> PossibleValuesParser {
    ATTACKS
        .iter()
        .map(|attack| PossibleValue::new(attack.name).help(attack.summary))
        .collect::<Vec<_>>()
        .into()
}

/// Concentration of the Dirichlet split over clients.
const ALPHA: f64 = 1.0;

/// Runs the demo.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let (plan, terms, spec) = args.plan()?;
    let attack = Attack::new(&args.attack, args.attack_strength)
        .map_err(|error| Failure::new(Exit::Usage, format!("--attack-strength: {error}")))?;
    let out = args.out.clone().unwrap_or_else(default_folder);
    let folder = RunFolder::create(&out, false)?;
    let split = holdings(args.clients, ALPHA, args.seed).map_err(|error| Failure::new(Exit::Usage, error))?;
    folder.add_split(&split)?;
    let (validation, images) =
        held_out_images(args.seed).map_err(|error| Failure::new(Exit::General, error))?;
    let hold_out =
        hold_out::of_images(&validation, &spec).map_err(|error| Failure::new(Exit::General, error))?;
    let bait = attack.success_set(&images).map_err(|error| Failure::new(Exit::General, error))?;
    let initial = model_file::to_safetensors(&spec, &spec.initial(args.seed))
        .map_err(|error| Failure::new(Exit::General, error))?;
    let keys = Keys::ephemeral().map_err(|error| server_failure(&error))?;
    let signing = keys.signing.clone();
    let quarantine = args.quarantine();
    let config = ServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        names: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        out: out.clone(),
        plan: plan.clone(),
        initial_model: initial,
        tokens: args.clients,
        // Its clients live as long as it does, for one task.
        population: CoordinatorConfig::default()
            .population()
            .map_err(|error| Failure::new(Exit::Usage, error))?,
        hold_out: Some(hold_out),
        quarantine: quarantine.clone(),
    };
    let started = Instant::now();
    let mut running = start(config, keys).await.map_err(|error| server_failure(&error))?;

    let progress = Progress::new(args.json, plan.rounds);
    progress.say(&args.opening(attack, &plan, &terms, &running, &out));
    progress.say(&naming(&quarantine, &plan, &terms)?);
    let accuracy = evaluator(out.clone(), spec.clone(), features(&images));
    let mut watch = Watch::new(progress, plan.rounds, plan.privacy.epsilon, Some(accuracy));
    let canary_seed = canary_seed()?;
    let secrets: Vec<[u8; 32]> = running.tokens.iter().map(JoinToken::secret_digest).collect();
    let mut clients = args.start_clients(attack, &mut running, canary_seed)?;
    let interrupted = follow(&mut running, &mut watch, &folder).await?;
    let store = running.finish().await.map_err(|error| server_failure(&error))?;
    let farewell = async { while clients.join_next().await.is_some() {} };
    // Clients have been told; one that does not listen is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(10), farewell).await;

    let run = Run {
        plan: &plan,
        privacy: terms.privacy_claim(&plan, 0.0),
        clients: args.clients,
        byzantine: args.byzantine,
        dropout: args.dropout,
        attack: attack.to_string(),
        dataset: "digits".to_owned(),
        seed: args.seed,
        wall_seconds: started.elapsed().as_secs_f64(),
    };
    let mut summary = run.summary(&watch);
    if let Some(bait) = bait {
        let success = evaluator(out.clone(), spec, features(&bait));
        let measured = watch.model.map(|model| success(&model)).transpose();
        let measured = measured.map_err(|error| Failure::new(Exit::General, error))?;
        summary.attack_success = measured.map(|(share, _)| share);
    }
    let poisoned = args.poisoned(canary_seed, &secrets, &store)?;
    summary.suspicion = suspicion(&quarantine, &plan, &*store, Some(&poisoned))?;
    let mut notes = privacy_notes(&plan, &terms, &watch);
    if args.canaries > 0 {
        let canaries = args.canaries(canary_seed, &secrets, &store)?;
        let json = serde_json::to_vec_pretty(&canaries).map_err(|error| Failure::new(Exit::Output, error))?;
        folder.add(CANARIES_FILE, &json)?;
        notes.push(args.canary_note());
    }
    folder.seal(&summary, &watch.rounds, &notes, &signing)?;
    watch.finish();
    args.print(&summary, &notes, &out)?;
    if interrupted {
        return Err(Failure::new(
            Exit::Interrupted,
            format!("interrupted; {} holds a complete, signed record of what was done", out.display()),
        ));
    }
    if summary.rounds == 0 {
        return Err(Failure::new(
            Exit::General,
            format!("no model was published: {}", summary.stopped_because),
        ));
    }
    Ok(())
}

impl Args {
    /// The plan that the options ask for, and what it means.
    fn plan(&self) -> Result<(TaskPlan, Terms, ModelSpec), Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        if !(0.0..0.5).contains(&self.dropout) {
            return Err(usage(format!("--dropout is {}, accepted is 0 up to 0.5", self.dropout)));
        }
        let size = self.group_size;
        if !(3..=self.clients).contains(&size) {
            return Err(usage(format!(
                "--group-size is {size}, accepted is 3 to --clients ({})",
                self.clients
            )));
        }
        let server = self.server()?;
        let settings: Vec<(&str, String)> =
            server.options.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
        let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let pre: Vec<&str> = self.pre.iter().map(String::as_str).collect();
        let rule =
            Rule::new(&self.rule, &pre, &settings).map_err(|error| usage(format!("--rule: {error}")))?;
        let needed = rule.minimum_rows(self.assumed_byzantine as usize) as u32;
        let groups = self.clients / size;
        if needed > groups {
            return Err(Failure::new(
                Exit::Tolerance,
                format!(
                    "--rule {rule} bears --assumed-byzantine {} only among {needed} groups or more, and --clients {} \
                     in groups of --group-size {size} make {groups}",
                    self.assumed_byzantine, self.clients
                ),
            ));
        }
        if self.canaries > self.clients.saturating_sub(self.byzantine) {
            return Err(usage(format!(
                "--canaries is {}, accepted is 0 to {} (--clients without --byzantine)",
                self.canaries,
                self.clients.saturating_sub(self.byzantine)
            )));
        }
        if self.byzantine > self.assumed_byzantine {
            return Err(Failure::new(
                Exit::Tolerance,
                format!(
                    "--byzantine {} is more than the groups tolerate: --assumed-byzantine is {}, and each poisoned \
                     client may spoil a group of its own",
                    self.byzantine, self.assumed_byzantine
                ),
            ));
        }
        let (plan, spec) = self.plan_for(needed, server)?;
        let terms = plan.check().map_err(|error| usage(error.to_string()))?;
        if terms.affordable_rounds == 0 {
            return Err(Failure::new(
                Exit::Tolerance,
                format!(
                    "--epsilon {} does not pay for one round, which costs {:.2}",
                    self.epsilon,
                    terms.guarantee.epsilon(1)
                ),
            ));
        }
        Ok((plan, terms, spec))
    }

    /// What becomes of the group sums.
    fn server(&self) -> Result<Server, Failure> {
        let mut server = CoordinatorConfig::default().server;
        server.rule.clone_from(&self.rule);
        server.pre.clone_from(&self.pre);
        server.assumed_byzantine = self.assumed_byzantine;
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| {
                let message = format!("--set is {setting:?}, accepted is KEY=VALUE, as in tau=10");
                Failure::new(Exit::Usage, message)
            })?;
            let value = value.parse().map_or_else(|_| Setting::Word(value.to_owned()), Setting::Number);
            server.options.insert(key.to_owned(), value);
        }
        Ok(server)
    }

    fn plan_for(&self, needed_groups: u32, server: Server) -> Result<(TaskPlan, ModelSpec), Failure> {
        let size = self.group_size;
        let max_missing_reveals = (self.clients - needed_groups * size).min(2).min(self.clients / 20);
        let minimum = (needed_groups * size + max_missing_reveals).max(self.clients * 9 / 10);
        let mut config = CoordinatorConfig::default();
        "digits demo".clone_into(&mut config.task.name);
        config.task.rounds = self.rounds;
        // Who vanishes is noticed at once; who is merely slow, on a machine that does all the work, is waited for.
        config.task.phase_seconds = 120;
        config.cohort = Cohort {
            clients: self.clients,
            minimum,
            assumed_malicious: self.assumed_byzantine,
            population: None,
        };
        config.privacy.epsilon = self.epsilon;
        config.privacy.noise_multiplier = self.noise_multiplier;
        config.privacy.placement.clone_from(&self.placement);
        config.privacy.mechanism.clone_from(&self.mechanism);
        config.privacy.adaptive_clip = self.adaptive_clip.map(|quantile| AdaptiveClipping {
            quantile,
            learning_rate: 0.2,
            noise_multiplier: 6.0,
            minimum: config.privacy.clip_norm / 100.0,
            maximum: config.privacy.clip_norm * 100.0,
        });
        config.aggregation.group_size = size;
        // No group reaches twice the smallest size, so that every group is a complete graph.
        config.aggregation.degree = 2 * size;
        config.aggregation.min_survivors = size - (size / 6).max(1);
        config.aggregation.threshold =
            (2 * size / 3 + 1).min(config.aggregation.min_survivors.saturating_sub(1));
        config.aggregation.max_missing_reveals = max_missing_reveals;
        config.server = server;
        config.server.gate = (!self.no_gate).then(|| gate(&config, needed_groups, self.evaluation_noise));
        let spec: ModelSpec = config
            .model
            .architecture
            .parse()
            .map_err(|error| Failure::new(Exit::Usage, format!("model.architecture: {error}")))?;
        Ok((config.plan(task_id()?, spec.parameters() as u32), spec))
    }

    fn opening(
        &self,
        attack: Attack,
        plan: &TaskPlan,
        terms: &Terms,
        running: &Running,
        out: &Path,
    ) -> String {
        format!(
            "coordinator on {} (mutual TLS), run folder {}\n\
             {} clients on UCI digits, {} poisoned ({}), {} drop out in each round\n\
             groups of {} to {}, sums of fewer than {} withheld\n{}\n{}",
            running.address,
            out.display(),
            self.clients,
            self.byzantine,
            attack,
            self.dropouts(),
            plan.aggregation.group_size,
            terms.largest_group,
            plan.aggregation.min_survivors,
            bears(plan, terms),
            spends(plan, terms),
        )
    }

    fn dropouts(&self) -> u32 {
        (self.dropout * f64::from(self.clients)).ceil() as u32
    }

    fn role(&self, index: u32, canary_seed: CanarySeed) -> Role {
        let Self { seed, clients, byzantine, canaries, .. } = *self;
        Role { seed, clients, index, byzantine, dropouts: self.dropouts(), canaries, canary_seed }
    }

    /// Suspects are named, and nothing is done about them.
    fn quarantine(&self) -> Quarantine {
        Quarantine {
            mode: QuarantineMode::Report,
            false_alarm: 0.01,
            clients: self.clients,
            minimum_rounds: 1,
            contact: String::new(),
        }
    }

    /// Who was poisoned; `secrets` are the digests of all clients' join tokens, in their order.
    fn poisoned(
        &self,
        seed: CanarySeed,
        secrets: &[[u8; 32]],
        store: &SqliteStore,
    ) -> Result<BTreeSet<Client>, Failure> {
        let poisoned = self.role(0, seed).poisoned();
        let mut clients = BTreeSet::new();
        for secret in poisoned.iter().filter_map(|&number| secrets.get(number)) {
            clients.extend(store.redeemer(*secret).map_err(|error| Failure::new(Exit::Output, error))?);
        }
        Ok(clients)
    }

    /// Who the canaries were; `secrets` are the digests of all clients' join tokens, in their order.
    fn canaries(
        &self,
        seed: CanarySeed,
        secrets: &[[u8; 32]],
        store: &SqliteStore,
    ) -> Result<Canaries, Failure> {
        let mut canaries = Vec::new();
        for (number, secret) in (0..).zip(secrets) {
            if !self.role(number, seed).is_canary() {
                continue;
            }
            let client = store.redeemer(*secret).map_err(|error| Failure::new(Exit::Output, error))?;
            // A client that never enrolled was in no sum.
            canaries.extend(client.map(|client| Canary { number, client }));
        }
        Ok(Canaries { seed, canaries })
    }

    fn canary_note(&self) -> String {
        format!(
            "{} clients were canaries: they submitted a random direction or nothing, and no training. {CANARIES_FILE} \
             says who they were and with which coins; it says nothing of the others. `fedveil privacy audit` holds \
             what the run tells about them against the epsilon above.",
            self.canaries
        )
    }

    /// Starts every client, as a task or as a process.
    fn start_clients(
        &self,
        attack: Attack,
        running: &mut Running,
        canary_seed: CanarySeed,
    ) -> Result<JoinSet<()>, Failure> {
        let url = format!("https://{}", running.address);
        let tokens = std::mem::take(&mut running.tokens);
        let starting = Arc::new(Semaphore::new(STARTING_TOGETHER));
        let mut clients = JoinSet::new();
        if self.processes {
            let program = std::env::current_exe()
                .map_err(|error| Failure::new(Exit::General, format!("cannot find this program: {error}")))?;
            for (index, token) in (0..).zip(tokens) {
                let order = Order {
                    url: url.clone(),
                    token: token.to_text().to_string(),
                    role: self.role(index, canary_seed),
                    attack: self.attack.clone(),
                    attack_strength: self.attack_strength,
                    max_epsilon: self.epsilon,
                };
                clients.spawn(report(index, supervise(program.clone(), order)));
            }
            return Ok(clients);
        }
        let data =
            shares(self.clients, ALPHA, self.seed).map_err(|error| Failure::new(Exit::Usage, error))?;
        let workers = workers();
        for (index, token) in (0..).zip(tokens) {
            let device = Staged::new(&data, self.role(index, canary_seed), attack);
            let client =
                participate(url.clone(), token, device, self.epsilon, workers.clone(), starting.clone());
            clients.spawn(report(index, client));
        }
        Ok(clients)
    }

    fn print(&self, summary: &Summary, notes: &[String], out: &Path) -> Result<(), Failure> {
        if self.json {
            let json =
                serde_json::to_string_pretty(summary).map_err(|error| Failure::new(Exit::General, error))?;
            println!("{json}");
            return Ok(());
        }
        println!("\n{}", table(summary));
        for note in notes {
            println!("- {note}");
        }
        let mut report = Vec::new();
        verify(out, None, false, &mut report)?;
        let parts = String::from_utf8_lossy(&report).lines().filter(|line| line.contains("ok")).count();
        println!(
            "\nverified: {parts} parts of {} are signed and consistent; check it yourself:",
            out.display()
        );
        println!("  fedveil verify {}", out.display());
        println!("  open {}", out.join("report.html").display());
        Ok(())
    }
}

/// A gate that honest rounds of the digits pass.
fn gate(config: &CoordinatorConfig, fewest_groups: u32, evaluation_noise: Option<f64>) -> Gate {
    let CoordinatorConfig { privacy, aggregation, server, .. } = config;
    // What the mean of clipped updates moves the model by at most, with all its momentum, and the noise beside it.
    let spec = config.model.architecture.parse::<ModelSpec>();
    let dimension = spec.map_or(0, |spec| spec.parameters()) as f64;
    let kept = f64::from(fewest_groups.saturating_sub(server.assumed_byzantine).max(1));
    let noise = privacy.noise_multiplier / f64::from(aggregation.group_size) * (dimension / kept).sqrt();
    let longest = privacy.clip_norm * (1.0 + noise) * server.learning_rate / (1.0 - server.momentum);
    Gate {
        max_step_norm: Some(longest),
        max_accuracy_drop: Some(0.15),
        max_trigger_success: Some(0.5),
        evaluation: evaluation_noise.map(|noise_multiplier| FederatedEvaluation {
            max_accuracy_drop: 0.15,
            noise_multiplier,
            confidence: 2.0,
        }),
        max_rejections: 3,
    }
}

/// What a client process is told on its standard input.
#[derive(Serialize, Deserialize)]
struct Order {
    url: String,
    token: String,
    role: Role,
    attack: String,
    attack_strength: Option<f64>,
    max_epsilon: f64,
}

/// `fedveil demo-client`.
pub(crate) async fn client_process() -> Result<(), Failure> {
    let failure = |error: String| Failure::new(Exit::General, error);
    let order: Order = serde_json::from_reader(std::io::stdin().lock())
        .map_err(|error| failure(format!("standard input: {error}")))?;
    let token: JoinToken = order.token.parse().map_err(|error| failure(format!("{error}")))?;
    let attack =
        Attack::new(&order.attack, order.attack_strength).map_err(|error| failure(error.to_string()))?;
    let Role { clients, seed, .. } = order.role;
    let data = shares(clients, ALPHA, seed).map_err(failure)?;
    let device = Staged::new(&data, order.role, attack);
    participate(order.url, token, device, order.max_epsilon, workers(), Arc::new(Semaphore::new(1)))
        .await
        .map_err(failure)
}

async fn supervise(program: PathBuf, order: Order) -> Result<(), String> {
    let mut child = tokio::process::Command::new(program)
        .arg("demo-client")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start a process: {error}"))?;
    let order = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&order).await.map_err(|error| format!("cannot instruct the process: {error}"))?;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the process ended with {status}")) }
}

/// One client, from its token to the end of the task.
async fn participate(
    url: String,
    token: JoinToken,
    device: Staged,
    max_epsilon: f64,
    workers: Arc<Semaphore>,
    starting: Arc<Semaphore>,
) -> Result<(), String> {
    let permit = starting.acquire().await;
    let name = format!("client-{:04}", device.index());
    let enrolled =
        enroll(&url, &token, &name, &Keystore::Memory).await.map_err(|error| crate::client::chain(&error))?;
    drop(permit);
    // A demo's client lives for one task.
    let policy = Policy {
        max_epsilon,
        max_total_epsilon: max_epsilon,
        min_survivors: 2,
        min_colluders_to_break: 1,
        ..Policy::default()
    };
    let options = AgentOptions { url, policy, record: RecordFile::Memory, workers, patience: PATIENCE };
    agent::run(&enrolled, Box::new(device), options).await.map_err(|error| crate::client::chain(&error))?;
    Ok(())
}

/// Coins come from the operating system: whoever chooses the demo's seed does not choose them.
fn canary_seed() -> Result<CanarySeed, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Failure::new(Exit::General, format!("no randomness from the operating system: {error}"))
    })?;
    Ok(CanarySeed(Digest(seed)))
}

async fn report(index: u32, client: impl Future<Output = Result<(), String>>) {
    if let Err(error) = client.await {
        tracing::error!(client = index, %error, "a client gave up");
    }
}

fn workers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)))
}

fn evaluator(out: PathBuf, spec: ModelSpec, test: Dataset) -> Evaluate {
    Box::new(move |model| {
        let path = out.join("blobs").join(model.to_string());
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (_, parameters) = model_file::from_safetensors(&bytes).map_err(|error| error.to_string())?;
        let metrics = evaluate(&spec, &parameters, &test).map_err(|error| error.to_string())?;
        Ok((metrics.accuracy, metrics.loss))
    })
}

fn default_folder() -> PathBuf {
    Path::new("runs").join(jiff::Zoned::now().strftime("%Y-%m-%d_%H-%M-%S").to_string())
}

pub(crate) fn table(summary: &Summary) -> String {
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let backdoor = summary
        .attack_success
        .map(|share| ("backdoor", format!("{} of its examples succeed", percent(Some(share)))));
    let rows = [
        (
            "rounds",
            format!(
                "{} published, {} aborted, {} with a model that the gate rejected",
                summary.rounds, summary.rounds_aborted, summary.rounds_rejected
            ),
        ),
        (
            "clients",
            format!("{}, {} of them poisoned ({})", summary.clients, summary.byzantine, summary.attack),
        ),
        ("dropped out", format!("{:.0} % in each round", 100.0 * summary.dropout)),
        (
            "test accuracy",
            format!("{} (before: {})", percent(summary.test_accuracy), percent(summary.initial_accuracy)),
        ),
        (
            "epsilon",
            format!(
                "{:.2} at delta {:e} (budget {})",
                summary.epsilon, summary.delta, summary.epsilon_budget
            ),
        ),
        ("rule", format!("{}, {} groups dropped by it", summary.rule, summary.groups_dropped)),
        (
            "bytes",
            format!(
                "{} up and {} down for a client and round",
                indicatif::HumanBytes(summary.bytes_up_per_client_round),
                indicatif::HumanBytes(summary.bytes_down_per_client_round)
            ),
        ),
        ("model", format!("{} parameters", summary.model_parameters)),
        ("time", format!("{:.1} s", summary.wall_seconds)),
        ("ended", summary.stopped_because.clone()),
    ];
    let suspects = summary.suspicion.as_ref().map(|suspicion| ("suspects", told(suspicion)));
    let lines =
        rows.into_iter().chain(backdoor).chain(suspects).map(|(name, value)| format!("  {name:<14} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What the number means, in words.
fn privacy_notes(plan: &TaskPlan, terms: &Terms, watch: &Watch) -> Vec<String> {
    let rounds = watch.rounds.len().max(1) as u32;
    let mut notes = vec![
        format!(
            "User-level privacy: whatever anyone sees of this run, it would have been almost as likely with one \
             client's updates replaced by zero: a factor of at most e^{:.2}, but for a probability of {:e}.",
            watch.rounds.last().map_or(0.0, |round| round.epsilon),
            plan.privacy.delta
        ),
        format!(
            "That is a weak promise. A cohort of {} is small: each group's sum carries the whole noise, and a model \
             that still learns leaves an epsilon of this size.",
            plan.cohort.clients
        ),
    ];
    let larger: Vec<String> = [5, 10, 50]
        .iter()
        .filter_map(|&factor| {
            let plan = scaled(plan, factor);
            let epsilon = plan.check().ok()?.guarantee.epsilon(rounds.min(plan.rounds));
            Some(format!("{} clients {epsilon:.2}", plan.cohort.clients))
        })
        .collect();
    if !larger.is_empty() {
        notes.push(format!(
            "With as many rounds, as many groups and as much noise in a group's mean, larger cohorts would spend: {}.",
            larger.join(", ")
        ));
    }
    notes.push(match terms.guarantee.placement {
        Placement::Distributed { .. } => format!(
            "The noise counts {} honest survivors in a group; up to {} colluders in it are assumed to add none.",
            terms.guarantee.honest, terms.guarantee.colluders
        ),
        _ => "Each client added all of the noise that is counted: the promise holds against any number of colluders. A \
              group's sum carries as many times that noise as clients are in it."
            .to_owned(),
    });
    notes.push(format!(
        "A coordinator needs more than {} colluders among a client's neighbours to see its update.",
        terms.colluders_to_break - 1
    ));
    notes.push("Accuracy is measured on test examples that no client holds; it costs no privacy.".to_owned());
    notes
}

/// The plan for a cohort that is `factor` times as large, in groups as much larger, with the same noise in a group's
/// mean and the same share of colluders.
fn scaled(plan: &TaskPlan, factor: u32) -> TaskPlan {
    let mut plan = plan.clone();
    for count in [
        &mut plan.cohort.clients,
        &mut plan.cohort.minimum,
        &mut plan.cohort.assumed_malicious,
        &mut plan.aggregation.group_size,
        &mut plan.aggregation.degree,
        &mut plan.aggregation.threshold,
        &mut plan.aggregation.min_survivors,
    ] {
        *count *= factor;
    }
    plan.privacy.noise_multiplier *= f64::from(factor);
    plan
}
