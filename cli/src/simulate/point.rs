//! One scenario, run into one folder.

use crate::coordinator::Run;
use crate::data::DataOption;
use crate::exit::{Exit, Failure};
use crate::folder::{RunFolder, unwritable};
use crate::progress::{Progress, Standing};
use crate::watch::{Watch, decided};
use ed25519_dalek::SigningKey;
use fedveil_coordinator_core::{Coordinator, Millis};
use fedveil_provenance::run::{INDEX_FILE, MANIFEST_FILE, checkpoint_path, manifest_path};
use fedveil_provenance::{Checkpoint, Digest, Log};
use fedveil_simulations::federation::{
    self, Events, Federation, Keep, Regions, RoundSummary, Scenario, Setup, Trace,
};
use fedveil_simulations::output::{csv, tensorboard};
use fedveil_simulations::record::{GroupStatus, RoundOutcome, RoundRecord};
use fedveil_simulations::scenario::{Fleet, Measure, Measured, Planned, Spec};
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;
use std::{fs, io};

/// The scenario with every key, as it was run.
const SCENARIO_FILE: &str = "scenario.json";
/// How long a run took, on the machine where it ran: the one file that does not follow from the scenario.
const TIMING_FILE: &str = "timing.json";
const METRICS_FILE: &str = "metrics.csv";
/// What happened, as the coordinator's events that say something after their round.
const EVENTS_FILE: &str = "events.jsonl";
/// While a run is under way: what it needs to go on after it was cut off.
const STATE: &str = "state";
/// TensorBoard looks for `tfevents` in names.
const TENSORBOARD_FILE: &str = "tensorboard/events.out.tfevents.0.fedveil";
/// Rows of single rounds that the report shows; `rounds.jsonl` has all. It keeps memory flat over rounds.
const MOST_ROWS: usize = 20_000;

/// What an earlier process left of a scenario in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// Nothing.
    Nothing,
    /// The whole run.
    Finished,
    /// A part of it.
    CutOff,
}

impl Earlier {
    /// Looks into `folder`. One that has something else in it is refused.
    pub(crate) fn of(spec: &Spec, folder: &Path) -> Result<Self, Failure> {
        let failure = |detail: &dyn Display| {
            Failure::new(Exit::Output, format!("output folder {}: {detail}", folder.display()))
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(|error| failure(&error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(error) => return Err(failure(&error)),
        };
        if entries.is_empty() {
            return Ok(Self::Nothing);
        }
        match fs::read(folder.join(SCENARIO_FILE)) {
            Ok(found) if found == scenario_json(spec)? && folder.join(INDEX_FILE).exists() => {
                Ok(Self::Finished)
            }
            Ok(found) if found == scenario_json(spec)? => Ok(Self::CutOff),
            // The scenario is the first thing that is written, after the probe of rounds.jsonl.
            Err(_)
                if entries
                    .iter()
                    .all(|entry| ["rounds.jsonl"].iter().any(|name| entry.file_name() == *name)) =>
            {
                Ok(Self::CutOff)
            }
            _ => Err(failure(
                &"it holds something else; accepted is a folder where this very scenario was cut off",
            )),
        }
    }
}

/// The file that says which scenario was run.
fn scenario_json(spec: &Spec) -> Result<Vec<u8>, Failure> {
    let json = serde_json::to_vec_pretty(spec).map_err(|error| Failure::new(Exit::General, error))?;
    Ok([&json[..], b"\n"].concat())
}

/// How a scenario is run; what comes of it does not depend on it.
pub(crate) struct Manner {
    pub(crate) threads: NonZeroUsize,
    /// Rounds from one place to go on from to the next; 0: none.
    pub(crate) checkpoint_every: u32,
    /// Whether nothing is said.
    pub(crate) silent: bool,
}

/// A scenario with its data, ready to run.
pub(crate) struct Ready<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) planned: Planned,
    pub(crate) fleet: Fleet,
}

impl<'a> Ready<'a> {
    /// Plans the scenario and reads its data. Nothing is written. Paths in the scenario are relative to `folder`.
    pub(crate) fn new(spec: &'a Spec, data: &DataOption, folder: &Path) -> Result<Self, Failure> {
        let usage = |error: &dyn Display| Failure::new(Exit::Usage, error.to_string());
        let planned = spec.plan().map_err(|error| usage(&error))?;
        let mut fleet =
            Fleet::new(spec, &planned, data.load(&spec.data, spec.seed)?).map_err(|error| usage(&error))?;
        if let Some(path) = &spec.availability.trace {
            let path = folder.join(path);
            let read = fs::read_to_string(&path).map_err(|error| error.to_string());
            let trace = read.and_then(|text| Trace::parse(&text).map_err(|error| error.to_string()));
            fleet.set_trace(
                trace.map_err(|error| usage(&format!("availability.trace: {}: {error}", path.display())))?,
            );
        }
        Ok(Self { spec, planned, fleet })
    }

    /// What training starts from, a safetensors file.
    pub(crate) fn initial_model(&self) -> Result<Vec<u8>, Failure> {
        let Planned { model, runner, .. } = &self.planned;
        runner.initial(&model.initial(self.spec.seed)).map_err(|error| Failure::new(Exit::General, error))
    }

    /// What models are measured on.
    pub(crate) fn measure(&self) -> Measure {
        let (clients, sample) = (self.spec.population.clients, self.spec.evaluation.clients);
        Measure::new(self.planned.model.clone(), &self.fleet, clients, sample, self.spec.seed)
    }

    /// Runs the scenario into `out`: a new or empty folder, or one where this run was cut off.
    pub(crate) fn run(&self, out: &Path, manner: &Manner, resume: bool) -> Result<(), Failure> {
        let (spec, fleet) = (self.spec, &self.fleet);
        let setup = spec.setup(&self.planned, manner.threads);
        let (Some(cloud), Some(hierarchy)) =
            (spec.cloud_setup(&self.planned, manner.threads), &spec.hierarchy)
        else {
            return self.drive(setup, fleet.clone(), out, manner, resume);
        };
        let regions = Regions::new(hierarchy, &cloud, setup, |_, _| fleet.clone());
        self.drive(cloud, regions.map_err(|error| Failure::new(Exit::Usage, error))?, out, manner, resume)
    }

    fn drive(
        &self,
        mut setup: Setup,
        scenario: impl Scenario,
        out: &Path,
        manner: &Manner,
        resume: bool,
    ) -> Result<(), Failure> {
        let general = |error: &dyn Display| Failure::new(Exit::General, error.to_string());
        let started = Instant::now();
        let Self { spec, planned, fleet } = self;
        let (measure, initial_model) = (self.measure(), self.initial_model()?);
        let initial = measure.of(fleet, &initial_model, |_| None).map_err(|error| general(&error))?;
        let state = out.join(STATE);
        let resumes = resume && state.join("checkpoint.json").exists();
        if resume && !resumes && out.exists() {
            // It was cut off before it had come anywhere.
            fs::remove_dir_all(out).map_err(|error| unwritable(out, &error))?;
        }
        let folder = RunFolder::create(out, resumes)?;
        folder.write(SCENARIO_FILE, &scenario_json(spec)?)?;
        folder.add_split(&fleet.holdings())?;
        setup.initial = Some(initial_model.into());
        let rounds = setup.plan.rounds;
        // A coordinator that crashes starts again from its events, in the middle of a round.
        let crashes = scenario.next_crash(Millis(0)).is_some();
        let every = Some(manner.checkpoint_every).filter(|&every| every > 0 && fleet.is_resumable());
        setup.keep = match every.or(crashes.then_some(u32::MAX)) {
            None => Keep::Nothing,
            Some(every) => {
                let events = if crashes { Events::All } else { Events::Lasting };
                Keep::Folder { path: state.clone(), events, every }
            }
        };
        let open = if resumes { Federation::resume } else { Federation::new };
        let mut federation = open(setup, scenario).map_err(|error| Failure::new(Exit::Usage, error))?;
        let plan = &planned.plan;
        let mut watch = Watch::new(Progress::Silent, rounds, plan.privacy.epsilon, None);
        watch.initial_accuracy = Some(initial.accuracy);
        let (last, untold) = (federation.coordinator().last_round(), federation.untold());
        let untold = untold.map(|summary| summary.round);
        watch.rounds = folder.keep_rounds(|record| record.round <= last && Some(record.round) != untold)?;
        let progress = Progress::paced(manner.silent, rounds, watch.rounds.len() as u32);
        progress.say(&opening(spec, planned));
        let mut history =
            History::new(&folder, federation.signing_key().clone(), federation.coordinator().plan().origin());
        let mut rows = 0;
        for record in &mut watch.rounds {
            rows = shorten(record, rows);
        }
        while let Some(round) = federation.run_round() {
            let model = federation.model().ok_or_else(|| general(&"the coordinator has no model"))?;
            history.follow(federation.coordinator(), &model)?;
            let is_due = round.round % spec.evaluation.every == 0
                || round.round == planned.terms.affordable_rounds.min(rounds)
                || federation.coordinator().closed().is_some();
            let mut measured = None;
            if is_due && matches!(round.outcome, federation::RoundOutcome::Published { .. }) {
                // What a region keeps is what all of its clients keep.
                let memory = |client| federation.memory_of(client).filter(|_| planned.cloud.is_none());
                let found = measure.of(fleet, &model, memory);
                measured = Some(found.map_err(|error| general(&error))?);
            }
            let mut record = record(&round, federation.coordinator(), &history, measured);
            if let Some(hierarchy) = &spec.hierarchy {
                // The cloud itself adds no noise.
                record.epsilon =
                    planned.terms.guarantee.epsilon(round.round.saturating_mul(hierarchy.rounds));
            }
            folder.append(&record)?;
            let standing = Standing { rounds, epsilon_budget: plan.privacy.epsilon, ..Standing::default() };
            progress.round(&record, &standing);
            rows = shorten(&mut record, rows);
            watch.rounds.push(record);
        }
        if let Some(error) = federation.failure() {
            return Err(Failure::new(Exit::Output, error));
        }
        if let Some(model) = federation.model() {
            history.follow(federation.coordinator(), &model)?;
        }
        watch.closed = federation.coordinator().closed().map(str::to_owned);
        let is_attacked = spec.attackers.clients > 0;
        let run = Run {
            privacy: planned.terms.privacy_claim(plan, 0.0),
            plan,
            clients: spec.population.clients,
            byzantine: spec.attackers.clients,
            dropout: spec.faults.client_crash,
            attack: if is_attacked { spec.attackers.attack.clone() } else { "none".to_owned() },
            dataset: fleet.data().name.clone(),
            seed: spec.seed,
            wall_seconds: federation.now().0 as f64 / 1000.0,
        };
        let mut summary = run.summary(&watch);
        summary.attack_success = watch.rounds.iter().rev().find_map(|record| record.attack_success);
        summary.private = false;
        folder.write(METRICS_FILE, csv(&watch.rounds).as_bytes())?;
        folder.write(TENSORBOARD_FILE, &tensorboard(&watch.rounds))?;
        let key = federation.signing_key().clone();
        drop(federation);
        if state.exists() {
            let (events, kept) = (state.join(EVENTS_FILE), out.join(EVENTS_FILE));
            fs::rename(&events, &kept).map_err(|error| unwritable(&kept, &error))?;
            fs::remove_dir_all(&state).map_err(|error| unwritable(&state, &error))?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let timing = serde_json::json!({
            "wall_seconds": seconds,
            "rounds_per_second": watch.rounds.len() as f64 / seconds,
            "threads": manner.threads,
            "peak_memory_bytes": peak_memory(),
            "resumed": resumes,
        });
        folder.write(TIMING_FILE, format!("{timing:#}\n").as_bytes())?;
        folder.seal(&summary, &watch.rounds, &notes(), &key)?;
        progress.finish();
        Ok(())
    }
}

/// Keeps what memory a record takes in bounds: the report shows so many rows of single rounds, `rounds.jsonl` has all.
/// Gives the rows so far.
fn shorten(record: &mut RoundRecord, rows: usize) -> usize {
    let rows = rows + record.groups.len();
    if rows > MOST_ROWS {
        record.groups = Vec::new();
    }
    rows
}

/// The log of a simulation, as files.
struct History<'a> {
    folder: &'a RunFolder,
    key: SigningKey,
    origin: String,
    log: Log,
    manifest: Vec<u8>,
}

impl<'a> History<'a> {
    fn new(folder: &'a RunFolder, key: SigningKey, origin: String) -> Self {
        Self { folder, key, origin, log: Log::new(), manifest: Vec::new() }
    }

    /// Writes what the coordinator has logged since it was looked at last, and its newest model. Checkpoints are signed
    /// again, which gives the same bytes: Ed25519 draws nothing.
    fn follow(&mut self, core: &Coordinator, model: &[u8]) -> Result<(), Failure> {
        let before = self.log.size();
        while let Ok(manifest) = core.log().leaf(self.log.size()).map(<[u8]>::to_vec) {
            let leaf = self.log.size();
            self.log.append(manifest.clone());
            let checkpoint = Checkpoint::sign(&self.origin, &self.log.head(), &self.key)
                .map_err(|error| Failure::new(Exit::General, error))?;
            self.folder.write(&manifest_path(leaf), &manifest)?;
            self.folder.write(&checkpoint_path(leaf), checkpoint.as_bytes())?;
            self.manifest = manifest;
        }
        if self.log.size() > before {
            self.folder.write(MANIFEST_FILE, &self.manifest)?;
            self.folder.write("model.safetensors", model)?;
        }
        Ok(())
    }
}

fn record(
    round: &RoundSummary,
    core: &Coordinator,
    history: &History<'_>,
    measured: Option<Measured>,
) -> RoundRecord {
    let (outcome, reason, model, groups) = match &round.outcome {
        federation::RoundOutcome::Published { model, groups } => {
            (RoundOutcome::Published, None, Some(*model), groups.iter().map(decided).collect())
        }
        federation::RoundOutcome::Aborted { reason } => {
            (RoundOutcome::Aborted, Some(reason.clone()), None, Vec::new())
        }
    };
    let groups: Vec<fedveil_simulations::record::GroupRecord> = groups;
    let count = |status| groups.iter().filter(|group| group.status == status).count() as u32;
    RoundRecord {
        round: round.round,
        outcome,
        reason,
        clients_joined: round.cohort as u32,
        clients_dropped: round.dropped as u32,
        groups_kept: count(GroupStatus::Kept),
        groups_dropped: count(GroupStatus::Dropped),
        groups_withheld: count(GroupStatus::Withheld),
        groups,
        measured: None,
        clients: Vec::new(),
        test_accuracy: measured.as_ref().map(|measured| measured.accuracy),
        test_loss: measured.as_ref().map(|measured| measured.loss),
        attack_success: measured.as_ref().and_then(|measured| measured.attack_success),
        client_accuracy: measured.and_then(|measured| measured.clients),
        epsilon: core.epsilon_spent(),
        bytes_up: round.bytes_up,
        bytes_down: round.bytes_down,
        seconds: round.ended.0.saturating_sub(round.opened.0) as f64 / 1000.0,
        model_digest: model.map_or_else(String::new, |model| model.to_string()),
        manifest_digest: if outcome == RoundOutcome::Published {
            Digest::of(&history.manifest).to_string()
        } else {
            String::new()
        },
        log_size: history.log.size(),
        private: false,
    }
}

/// What a person is told at the start.
pub(crate) fn opening(spec: &Spec, planned: &Planned) -> String {
    let poisoned = match spec.attackers.clients {
        0 => "none poisoned".to_owned(),
        poisoned => format!("{poisoned} poisoned ({})", spec.attackers.attack),
    };
    let plan = &planned.plan;
    let regions = spec.hierarchy.as_ref().map_or_else(String::new, |hierarchy| {
        format!(
            " in {} regions that run {} rounds for each of the cloud",
            hierarchy.regions, hierarchy.rounds
        )
    });
    format!(
        "{}: {} clients{regions}, {} in a round, {poisoned}; {} with {} parameters, mode {}, rule {}\n{}",
        spec.name,
        spec.population.clients,
        plan.cohort.clients,
        plan.model.architecture,
        plan.model.parameters,
        plan.mode,
        plan.server.steps(),
        crate::privacy::spends(plan, &planned.terms),
    )
}

/// The most memory that this process ever held, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// What a reader of the report must know.
fn notes() -> Vec<String> {
    vec![
        "A simulation: keys and noise follow from the seed, so that nothing here is private. Whoever has the scenario can \
         take the noise off. Epsilon is what the same plan would spend among real clients."
            .to_owned(),
        "Seconds are virtual. timing.json says how long the run took.".to_owned(),
    ]
}
