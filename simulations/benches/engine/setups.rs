//! The federations that are measured.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use fedveil_client_core::Policy;
use fedveil_learning::ModelSpec;
use fedveil_proto::Kind;
use fedveil_proto_plan::{Aggregation, Cohort, Mode, Model, Privacy, Server, TaskPlan, Training, VERSION};
use fedveil_provenance::Digest;
use fedveil_simulations::federation::{
    Attendance, Contribution, Keep, Part, Scenario, Setup, Trained, Work, fraction,
};

use crate::meter;

/// Source of all that is drawn.
const SEED: u64 = 1;

/// Clients that leave the model as it is: an update of zeros, of so many parameters. Some may vanish in place of sending it.
#[derive(Default)]
pub(crate) struct NoOp {
    pub(crate) parameters: usize,
    pub(crate) drop_outs: f64,
    /// CPU time of each part of the work, where it is asked for.
    pub(crate) parts: Option<Mutex<BTreeMap<String, Duration>>>,
}

impl Scenario for NoOp {
    fn contribute(&self, _work: &Work<'_>) -> Result<Trained, String> {
        Ok(Contribution::Update(vec![0.0; self.parameters]).into())
    }

    fn measured<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let Some(parts) = &self.parts else { return work() };
        let start = meter::thread_time();
        let result = work();
        let time = meter::thread_time().saturating_sub(start);
        *parts.lock().expect("nobody panics in between").entry(format!("{part:?}")).or_default() += time;
        result
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        [Kind::Input, Kind::PlainInput].contains(&before)
            && fraction(SEED, "drop-out", client, round) < self.drop_outs
    }
}

/// Who takes part, and on how many threads.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) architecture: &'static str,
    pub(crate) population: usize,
    pub(crate) cohort: u32,
    pub(crate) rounds: u32,
    pub(crate) threads: usize,
}

impl Size {
    pub(crate) fn parameters(&self) -> usize {
        self.architecture.parse::<ModelSpec>().expect("a built-in model").parameters()
    }
}

/// Updates in the clear, without noise: all that is left is what the framework itself does.
pub(crate) fn in_the_clear(size: Size, attendance: Attendance) -> Setup {
    let plan =
        plan(size, Mode::InsecurePlain, Aggregation::none(), Privacy::none(f64::INFINITY), Server::mean());
    let policy = Policy { allow_insecure_plain: true, allow_insecure_no_noise: true, ..Policy::default() };
    setup(size, plan, policy, attendance)
}

/// The groups, the noise and the rule of `fedveil init`, in mode `secagg` or without its masks.
pub(crate) fn in_groups(size: Size, mode: Mode, protocol: &str) -> Setup {
    let aggregation = Aggregation {
        protocol: protocol.to_owned(),
        group_size: 18,
        degree: 64,
        threshold: 13,
        min_survivors: 15,
        max_missing_reveals: 2,
        masks: "aes-256-ctr".to_owned(),
        break_probability: 0.0,
    };
    let privacy = Privacy {
        placement: "distributed".to_owned(),
        mechanism: "discrete-gaussian".to_owned(),
        clip_norm: 0.5,
        noise_multiplier: 1.12,
        resolution: 1024,
        epsilon: 1e3,
        delta: 1e-5,
        correlated_noise: None,
        adaptive_clip: None,
    };
    let server = Server { rule: "mda".to_owned(), assumed_byzantine: 4, ..Server::mean() };
    let plan = plan(size, mode, aggregation, privacy, server);
    let policy = Policy {
        allow_insecure_plain: mode == Mode::InsecureIdeal,
        max_epsilon: 1e3,
        max_total_epsilon: 1e3,
        ..Policy::default()
    };
    setup(size, plan, policy, Attendance::Connected)
}

fn setup(size: Size, plan: TaskPlan, policy: Policy, attendance: Attendance) -> Setup {
    let threads = NonZeroUsize::new(size.threads).unwrap_or(NonZeroUsize::MIN);
    Setup { threads, attendance, keep: Keep::Nothing, ..Setup::new(plan, size.population, policy, SEED) }
}

fn plan(size: Size, mode: Mode, aggregation: Aggregation, privacy: Privacy, server: Server) -> TaskPlan {
    TaskPlan {
        version: VERSION,
        task: "engine".to_owned(),
        id: Digest::of("engine"),
        mode: mode.name().to_owned(),
        rounds: size.rounds,
        phase_seconds: 60,
        model: Model { architecture: size.architecture.to_owned(), parameters: size.parameters() as u32 },
        cohort: Cohort {
            clients: size.cohort,
            minimum: size.cohort - size.cohort / 10,
            assumed_malicious: if mode.has_groups() { 4 } else { 0 },
            population: None,
        },
        training: Training::sgd(1, 32, 0.05),
        privacy,
        aggregation,
        server,
        simulated: false,
    }
}
