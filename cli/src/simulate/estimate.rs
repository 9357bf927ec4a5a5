//! What a scenario will cost, from a short calibration: one client's training, and one round of a small cohort that
//! trains nothing, at two sizes. What a client does and sends grows with its cohort along a line, as everyone reads
//! everyone's keys; two sizes give the line.

use super::point::Ready;
use crate::exit::{Exit, Failure};
use fedveil_client_core::Policy;
use fedveil_proto_plan::TaskPlan;
use fedveil_simulations::federation::{Contribution, Federation, Scenario, Setup, Trained, Work};
use indicatif::{HumanBytes, HumanDuration};
use serde::Serialize;
use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Clients of the smaller cohort in mode `insecure_plain`.
const FEW: u32 = 8;
/// A calibration that took longer is not made at the larger size.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cost of a scenario on this machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Estimate {
    /// Rounds that will be run.
    rounds: u32,
    /// Bytes that a client sends in a round.
    bytes_up_per_client_round: u64,
    /// Bytes that a client receives in a round.
    bytes_down_per_client_round: u64,
    /// Seconds of one thread for one client's training.
    training_seconds_per_client_round: f64,
    /// Seconds of one thread for everything else, on both sides, for one client in one round.
    protocol_seconds_per_client_round: f64,
    /// Seconds of one measurement of the global model.
    evaluation_seconds: f64,
    /// Seconds of the whole run.
    seconds: f64,
    /// Bytes of memory, roughly.
    memory_bytes: u64,
}

impl Estimate {
    /// Calibrates on this machine, in some seconds.
    pub(crate) fn of(ready: &Ready<'_>, threads: NonZeroUsize) -> Result<Self, Failure> {
        let threads = threads.get();
        let (spec, plan, terms) = (ready.spec, &ready.planned.plan, &ready.planned.terms);
        let cohort = plan.cohort.clients;
        let general = |error: &dyn fmt::Display| Failure::new(Exit::General, error.to_string());
        let model = ready.initial_model()?;
        let started = Instant::now();
        let work = Work { client: 0, round: 1, model: &model, plan, memory: None, staleness: 0 };
        ready.fleet.contribute(&work).map_err(|error| general(&error))?;
        let training = started.elapsed().as_secs_f64();
        let started = Instant::now();
        ready.measure().of(&ready.fleet, &model, |_| None).map_err(|error| general(&error))?;
        let evaluation = started.elapsed().as_secs_f64();

        let small = if terms.mode.has_groups() { plan.aggregation.group_size } else { FEW }.min(cohort);
        let policy = || spec.setup(&ready.planned, NonZeroUsize::MIN).policy;
        let first = round_of(plan, policy(), &model, small)?;
        let large = (2 * small).min(cohort);
        let second = if large > small && first.elapsed < PATIENCE {
            Some(round_of(plan, policy(), &model, large)?)
        } else {
            None
        };
        let along = |of: fn(&Calibration) -> f64| match &second {
            None => of(&first),
            Some(second) => {
                let slope = (of(second) - of(&first)) / f64::from(large - small);
                (of(&first) + slope.max(0.0) * f64::from(cohort - small)).max(of(&first))
            }
        };
        let rounds = terms.affordable_rounds;
        let protocol = along(|calibration| calibration.seconds_per_client);
        let measurements = f64::from(rounds / spec.evaluation.every + 1);
        let regions = spec.hierarchy.as_ref().map_or(1, |hierarchy| hierarchy.regions);
        let clients = f64::from(cohort) * f64::from(regions);
        let seconds =
            f64::from(rounds) * clients * (training + protocol) / threads as f64 + measurements * evaluation;
        let parameters = u64::from(plan.model.parameters);
        let rows =
            if terms.mode.has_groups() { u64::from(terms.groups) } else { u64::from(cohort.min(2_000)) };
        Ok(Self {
            rounds,
            bytes_up_per_client_round: along(|calibration| calibration.up) as u64,
            bytes_down_per_client_round: along(|calibration| calibration.down) as u64,
            training_seconds_per_client_round: training,
            protocol_seconds_per_client_round: protocol,
            evaluation_seconds: evaluation,
            seconds,
            // The program itself, the data, a row of the rule each, and some copies of the model for each thread.
            memory_bytes: (40 << 20)
                + ready.fleet.data_bytes()
                + parameters * (8 * rows + 40 * threads as u64),
        })
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |seconds: f64| format!("{:.2} ms", 1000.0 * seconds);
        write!(
            f,
            "estimate: {} rounds in about {}, {} of memory; a client sends {} and receives {} in a round; it trains {} and \
             the protocol takes {}; one measurement takes {}",
            self.rounds,
            HumanDuration(Duration::from_secs_f64(self.seconds.min(1e9))),
            HumanBytes(self.memory_bytes),
            HumanBytes(self.bytes_up_per_client_round),
            HumanBytes(self.bytes_down_per_client_round),
            milliseconds(self.training_seconds_per_client_round),
            milliseconds(self.protocol_seconds_per_client_round),
            milliseconds(self.evaluation_seconds),
        )
    }
}

/// What one round of a small cohort took.
struct Calibration {
    up: f64,
    down: f64,
    seconds_per_client: f64,
    elapsed: Duration,
}

/// A round of `clients` that contribute nothing, on one thread.
fn round_of(plan: &TaskPlan, policy: Policy, model: &[u8], clients: u32) -> Result<Calibration, Failure> {
    let mut plan = plan.clone();
    let has_groups = plan.aggregation.group_size > 0;
    plan.rounds = 1;
    plan.cohort.clients = clients;
    plan.cohort.minimum = clients;
    plan.cohort.assumed_malicious = 0;
    plan.cohort.population = None;
    "mean".clone_into(&mut plan.server.rule);
    plan.server.pre.clear();
    plan.server.options.clear();
    plan.server.assumed_byzantine = 0;
    plan.aggregation.max_missing_reveals = 0;
    if has_groups {
        plan.aggregation.break_probability = 0.5;
    }
    plan.privacy.correlated_noise = None;
    if plan.privacy.epsilon.is_finite() {
        plan.privacy.epsilon = 1e9;
    }
    let failed = |error: &dyn fmt::Display| Failure::new(Exit::General, format!("calibration: {error}"));
    let started = Instant::now();
    let initial = Some(model.to_vec().into());
    let setup = Setup { initial, ..Setup::new(plan, clients as usize, policy, 1) };
    let mut federation = Federation::new(setup, Idle).map_err(|error| failed(&error))?;
    let round = federation.run_round().ok_or_else(|| failed(&"no round was run"))?;
    let elapsed = started.elapsed();
    let per_client = |total: u64| total as f64 / f64::from(clients);
    Ok(Calibration {
        up: per_client(round.bytes_up),
        down: per_client(round.bytes_down),
        seconds_per_client: elapsed.as_secs_f64() / f64::from(clients),
        elapsed,
    })
}

/// Clients that contribute zeros.
struct Idle;

impl Scenario for Idle {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        Ok(Contribution::Update(vec![0.0; work.plan.model.parameters as usize]).into())
    }
}
