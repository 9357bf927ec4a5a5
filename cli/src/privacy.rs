//! `fedveil privacy`: what rounds cost, and what a budget buys.

mod ledger;
mod plan;

pub(crate) use ledger::plan_of;
pub(crate) use plan::{pays_for_a_round, spends};

use crate::audit;
use crate::exit::{Exit, Failure};
use clap::{Args, Subcommand, ValueEnum};
use fedveil_privacy::{
    Accountant, Composition, Delta, Epsilon, Neighbours, NoiseMultiplier, ParamError, Sampling,
    SamplingError, SamplingRate,
};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

const EPSILON_HELP: &str = "\
Example: 1000 rounds, each client drawn into one of a hundred by chance, noise of 1.1 clip norms:
  fedveil privacy epsilon --sampling-rate 0.01 --noise-multiplier 1.1 --rounds 1000 --delta 1e-5

Sampling lowers ε only against readers who cannot know who was drawn. Against a coordinator that sees who takes part,
as in secure aggregation, leave --sampling-rate out: everyone takes part, and --rounds counts one client's rounds.";

const LEDGER_HELP: &str = "\
PATH is one of
  a client's record file, or its folder if that holds record.json: what ever left this device, and when;
  a coordinator's folder of keys: what each client has spent over all tasks, and what is set aside for rounds under way;
  a run folder: the same for one task.";

const CALIBRATE_HELP: &str = "\
With --rounds it finds the least noise multiplier; with --noise-multiplier the most rounds.

Examples:
  fedveil privacy calibrate --epsilon 2 --delta 1e-5 --sampling-rate 0.01 --rounds 1000
  fedveil privacy calibrate --epsilon 2 --delta 1e-5 --sampling-rate 0.01 --noise-multiplier 1.1";

/// What `fedveil privacy` is asked.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// The ε that rounds of noisy sums spend.
    ///
    /// Each round releases a sum of clipped updates with Gaussian noise. ε bounds what all rounds together tell about
    /// one client, except with probability δ. The number printed is rounded up.
    #[command(after_help = EPSILON_HELP)]
    Epsilon {
        /// Standard deviation of the noise in one round's sum, over the clip norm.
        #[arg(long, value_name = "S", allow_hyphen_values = true)]
        noise_multiplier: f64,
        /// Number of rounds.
        #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        common: Common,
    },
    /// The noise that keeps rounds within an ε, or the rounds that noise pays for.
    #[command(after_help = CALIBRATE_HELP)]
    Calibrate {
        /// The ε that all rounds together may spend.
        #[arg(long, value_name = "E", allow_hyphen_values = true)]
        epsilon: f64,
        /// Number of rounds; the answer is the noise multiplier.
        #[arg(
            long,
            value_name = "T",
            value_parser = clap::value_parser!(u32).range(1..),
            required_unless_present = "noise_multiplier",
            conflicts_with = "noise_multiplier"
        )]
        rounds: Option<u32>,
        /// Noise of one round, over the clip norm; the answer is the number of rounds.
        #[arg(long, value_name = "S", allow_hyphen_values = true)]
        noise_multiplier: Option<f64>,
        #[command(flatten)]
        common: Common,
    },
    /// What a task will spend, before anything starts: ε after each number of participations, and what it rests on.
    #[command(after_help = plan::HELP)]
    Plan(plan::Args),
    /// What was spent, by whom, what is reserved and what is left, from the ledger of a device, a run or a population.
    #[command(after_help = LEDGER_HELP)]
    Ledger {
        /// Where the ledger is.
        path: PathBuf,
        /// The delta of a device's total; policy.max_total_delta is the one that it is held to.
        #[arg(long, value_name = "D", default_value_t = 1e-5, allow_hyphen_values = true)]
        delta: f64,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Hold a finished run against its claim: guess from its sums who of the canaries took part.
    #[command(after_help = audit::HELP)]
    Audit(audit::Args),
}

/// What every question has.
#[derive(Args)]
pub(crate) struct Common {
    /// Probability with which ε may fail to hold: well below one in the number of clients.
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    delta: f64,
    /// Probability with which each client takes part in a round. Without it everyone does.
    #[arg(long, value_name = "Q", allow_hyphen_values = true, conflicts_with_all = ["cohort", "population"])]
    sampling_rate: Option<f64>,
    /// How cohorts are drawn. Fixed-size needs --cohort and --population.
    #[arg(long, value_enum, default_value_t)]
    sampling: Scheme,
    /// Clients in each round of fixed-size sampling.
    #[arg(long, value_name = "N", requires = "population")]
    cohort: Option<u32>,
    /// Clients from whom fixed-size sampling draws.
    #[arg(long, value_name = "N", requires = "cohort")]
    population: Option<u32>,
    /// What is hard to tell: whether a client was there, or which of two updates it sent.
    #[arg(long, value_enum, default_value_t)]
    neighbours: Relation,
    /// How ε is computed. Both are upper bounds: pld is the tighter one, rdp takes less than a millisecond.
    #[arg(long, value_enum, default_value_t)]
    accountant: Method,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum Scheme {
    /// Each client independently, with the sampling rate.
    #[default]
    Poisson,
    /// Exactly --cohort of --population clients.
    FixedSize,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Relation {
    /// One client more or less.
    #[default]
    AddRemove,
    /// One client's update exchanged for another.
    ReplaceOne,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Method {
    /// Rényi divergences.
    Rdp,
    /// Privacy loss distributions.
    #[default]
    Pld,
}

impl Command {
    /// Answers on `out`.
    pub(crate) fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        let (report, text, json) = match self {
            Self::Plan(plan) => return plan.run(out),
            Self::Audit(args) => return args.run(out),
            Self::Epsilon { noise_multiplier, rounds, common } => {
                let question = common.checked()?;
                let noise = noise(*noise_multiplier)?;
                let (report, text) = question.epsilon(noise, *rounds)?;
                (report, text, common.json)
            }
            Self::Calibrate { epsilon, rounds, noise_multiplier, common } => {
                let question = common.checked()?;
                let target = Epsilon::new(*epsilon).map_err(|error| refused("--epsilon", &error))?;
                let (report, text) = match (rounds, noise_multiplier) {
                    (_, Some(multiplier)) => question.rounds_within(target, noise(*multiplier)?)?,
                    (rounds, None) => question.noise_for(target, rounds.unwrap_or(1))?,
                };
                (report, text, common.json)
            }
            Self::Ledger { path, delta, json } => {
                let delta = Delta::new(*delta).map_err(|error| refused("--delta", &error))?;
                let (report, text) = ledger::read(path, delta)?;
                (report, text, *json)
            }
        };
        let text = if json { report.to_string() } else { text };
        writeln!(out, "{text}").map_err(|error| Failure::new(Exit::Output, error))
    }
}

/// A question whose options are all inside of their ranges.
struct Question<'a> {
    common: &'a Common,
    delta: Delta,
    sampling: Sampling,
    neighbours: Neighbours,
    accountant: Accountant,
}

impl Common {
    fn checked(&self) -> Result<Question<'_>, Failure> {
        let usage = |message: &str| Failure::new(Exit::Usage, message);
        let delta = Delta::new(self.delta).map_err(|error| refused("--delta", &error))?;
        let sampling = match (self.sampling, self.sampling_rate, self.cohort.zip(self.population)) {
            (Scheme::Poisson, None, None) => Sampling::Full,
            (Scheme::Poisson, Some(rate), None) => Sampling::Poisson(
                SamplingRate::new(rate).map_err(|error| refused("--sampling-rate", &error))?,
            ),
            (Scheme::FixedSize, None, Some((cohort, population))) => {
                Sampling::FixedSize { cohort, population }
            }
            (Scheme::FixedSize, ..) => {
                return Err(usage(
                    "--sampling is fixed-size, accepted with --cohort and --population, without --sampling-rate",
                ));
            }
            (Scheme::Poisson, ..) => {
                return Err(usage("--sampling is poisson, accepted without --cohort and --population"));
            }
        };
        if let Some(population) = self.population
            && delta.get() * f64::from(population) > 1.0
        {
            return Err(usage(&format!(
                "--delta is {delta}, accepted is a number above 0, at most 1/{population} (one in --population)"
            )));
        }
        let neighbours = match self.neighbours {
            Relation::AddRemove => Neighbours::AddRemove,
            Relation::ReplaceOne => Neighbours::ReplaceOne,
        };
        let accountant = match self.accountant {
            Method::Rdp => Accountant::Rdp,
            Method::Pld => Accountant::Pld,
        };
        Ok(Question { common: self, delta, sampling, neighbours, accountant })
    }
}

impl Question<'_> {
    fn epsilon(&self, noise: NoiseMultiplier, rounds: u32) -> Result<(serde_json::Value, String), Failure> {
        let all =
            Composition::new(self.neighbours).then(self.sampling, noise, rounds).map_err(unaccountable)?;
        let (epsilon, mut report, how) = match self.accountant {
            Accountant::Rdp => {
                let found = all.rdp().epsilon(self.delta);
                let how = format!("Rényi divergence of order {}", found.order);
                (found.epsilon, json!({ "order": found.order }), how)
            }
            Accountant::Pld => {
                let found = all.epsilon(self.delta);
                let how =
                    format!("privacy loss distribution; the exact value is at least {}", down(found.lower));
                (found.upper, json!({ "epsilon_at_least": found.lower }), how)
            }
        };
        if !epsilon.is_finite() {
            let message =
                format!("no finite epsilon can be shown: --noise-multiplier is {noise}, more is needed");
            return Err(Failure::new(Exit::Tolerance, message));
        }
        self.describe(&mut report);
        report["epsilon"] = json!(epsilon);
        report["noise_multiplier"] = json!(noise.get());
        report["rounds"] = json!(rounds);
        let text =
            format!("epsilon {} at delta {} over {rounds} rounds ({how})", up(epsilon), self.common.delta);
        Ok((report, text))
    }

    fn noise_for(&self, target: Epsilon, rounds: u32) -> Result<(serde_json::Value, String), Failure> {
        let noise = self
            .accountant
            .noise_for(self.neighbours, self.sampling, rounds, target, self.delta)
            .map_err(unaccountable)?
            .ok_or_else(|| {
                let message = format!(
                    "--epsilon is {target}, accepted is what a noise multiplier of at most 1e6 reaches"
                );
                Failure::new(Exit::Tolerance, message)
            })?;
        self.calibrated(target, noise, rounds, &format!("noise multiplier {}", up(noise.get())))
    }

    fn rounds_within(
        &self,
        target: Epsilon,
        noise: NoiseMultiplier,
    ) -> Result<(serde_json::Value, String), Failure> {
        let rounds = self
            .accountant
            .rounds_within(self.neighbours, self.sampling, noise, target, self.delta)
            .map_err(unaccountable)?;
        if rounds == 0 {
            let message =
                format!("--epsilon is {target}, and one round with --noise-multiplier {noise} spends more");
            return Err(Failure::new(Exit::Tolerance, message));
        }
        self.calibrated(target, noise, rounds, &format!("{rounds} rounds"))
    }

    fn calibrated(
        &self,
        target: Epsilon,
        noise: NoiseMultiplier,
        rounds: u32,
        answer: &str,
    ) -> Result<(serde_json::Value, String), Failure> {
        let (mut report, spent) = self.epsilon(noise, rounds)?;
        report["epsilon_target"] = json!(target.get());
        Ok((report, format!("{answer} for epsilon {target}; spent is {spent}")))
    }

    /// What the answer holds for.
    fn describe(&self, report: &mut serde_json::Value) {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned())
        };
        report["delta"] = json!(self.delta.get());
        report["accountant"] = json!(name(&|| self.common.accountant.to_possible_value()));
        report["neighbours"] = json!(name(&|| self.common.neighbours.to_possible_value()));
        report["sampling"] = match self.sampling {
            Sampling::Full => json!({ "scheme": "full" }),
            Sampling::Poisson(rate) => json!({ "scheme": "poisson", "rate": rate.get() }),
            Sampling::FixedSize { cohort, population } => {
                json!({ "scheme": "fixed-size", "cohort": cohort, "population": population })
            }
        };
    }
}

fn noise(multiplier: f64) -> Result<NoiseMultiplier, Failure> {
    NoiseMultiplier::new(multiplier).map_err(|error| refused("--noise-multiplier", &error))
}

/// A value outside of its range, under the option's name.
fn refused(option: &str, error: &ParamError) -> Failure {
    Failure::new(Exit::Usage, format!("{option} is {}, accepted is {}", error.found, error.accepted))
}

fn unaccountable(error: SamplingError) -> Failure {
    let message = match error {
        SamplingError::Cohort { cohort, population } => {
            format!("--cohort is {cohort}, accepted is 1 to {population} (--population)")
        }
        SamplingError::FixedSizeAddRemove => {
            "--neighbours is add-remove, accepted with --sampling fixed-size is replace-one".to_owned()
        }
        other => other.to_string(),
    };
    Failure::new(Exit::Usage, message)
}

/// Six digits, rounded up.
fn up(value: f64) -> String {
    format!("{:.6}", (value * 1e6).ceil() / 1e6)
}

/// Six digits, rounded down.
fn down(value: f64) -> String {
    format!("{:.6}", (value * 1e6).floor() / 1e6)
}
