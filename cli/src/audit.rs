//! `fedveil privacy audit`: what a finished run tells about the canaries that took part in it.

use std::io::Write;
use std::path::PathBuf;

use fedveil_coordinator::store::SqliteStore;
use fedveil_coordinator_core::Event;
use fedveil_privacy::audit::{Audit, Guesses};
use fedveil_privacy::{Delta, Significance};
use fedveil_proto_plan::{SignedPlan, TaskPlan};
use fedveil_provenance::run::{KEY_FILE, parse_key};
use fedveil_provenance::{Digest, Files, verify_run};
use fedveil_simulations::canary::{Canaries, Scored, scores};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::verify::Folder;

/// The file of a run folder that names canaries and the source of their coins.
pub(crate) const CANARIES_FILE: &str = "canaries.json";

/// Help that stands below the options.
pub(crate) const HELP: &str = "\
Canaries are clients that flipped a coin before the run: under heads each submitted a random direction at the full clip
norm, under tails nothing. The audit guesses the coins from the noised group sums, and turns right guesses into the
least epsilon that allows so many. It ends with exit code 1 where that is more than the plan claims.

A bound below the claim is no proof of the claim: few canaries show little, and the report says how much at most.

Example:
  fedveil demo --canaries 60 --out run && fedveil privacy audit run";

/// What is audited.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder of a run with canaries, as `fedveil demo --canaries` leaves it.
    #[arg(value_name = "RUN")]
    path: PathBuf,
    /// Probability with which the bounds hold, all together.
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_hyphen_values = true)]
    confidence: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The audit and the claim that it is held against.
struct Report {
    plan: TaskPlan,
    scored: Scored,
    found: Audit,
    /// What error rates at the middle between heads and tails say, if scores were independent.
    independent: f64,
    claimed: f64,
}

impl Args {
    /// Audits, reports on `out`, and fails where the claim is refuted.
    pub(crate) fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        let significance = Significance::new(1.0 - self.confidence).map_err(|_| {
            let message = format!("--confidence is {}, accepted is more than 0.5, below 1", self.confidence);
            Failure::new(Exit::Usage, message)
        })?;
        let report = self.audit(significance)?;
        let text = if self.json {
            format!("{:#}\n", report.as_json(self.confidence))
        } else {
            report.as_text(self.confidence)
        };
        out.write_all(text.as_bytes()).map_err(|error| Failure::new(Exit::Output, error))?;
        if report.is_violated() {
            return Err(Failure::new(
                Exit::General,
                format!(
                    "the run spends an epsilon of at least {:.2}, its plan claims {:.2}",
                    report.found.epsilon(),
                    report.claimed
                ),
            ));
        }
        Ok(())
    }

    fn audit(&self, significance: Significance) -> Result<Report, Failure> {
        let failure = |exit, detail: &dyn std::fmt::Display| {
            Failure::new(exit, format!("{}: {detail}", self.path.display()))
        };
        let unusable = |detail: &dyn std::fmt::Display| failure(Exit::General, detail);
        let folder = Folder::open(&self.path)?;
        if !verify_run(&folder, None).ok() {
            return Err(unusable(&"it is not as it was signed; `fedveil verify` says where"));
        }
        let read = |name: &str| folder.read(name).map_err(|error| unusable(&format!("{name}: {error}")));
        let Some(canaries) = read(CANARIES_FILE)? else {
            let without = format!("{CANARIES_FILE} is missing, accepted is a run with canaries");
            return Err(failure(Exit::Usage, &without));
        };
        let canaries: Canaries = serde_json::from_slice(&canaries)
            .map_err(|error| unusable(&format!("{CANARIES_FILE}: {error}")))?;
        let key = parse_key(&read(KEY_FILE)?.unwrap_or_default()).map_err(|error| unusable(&error))?;
        let events = SqliteStore::read(&self.path).map_err(|error| unusable(&error))?;
        let plan = events
            .iter()
            .find_map(|event| match event {
                Event::TaskOpened { plan, .. } => Some(SignedPlan::verify(&plan.0, &key)),
                _ => None,
            })
            .ok_or_else(|| unusable(&"no task was opened in it"))?
            .map_err(|error| unusable(&error))?;
        let plan = plan.plan().clone();
        let terms = plan.check().map_err(|error| unusable(&error))?;
        let blob = |digest: &Digest| match folder.read(&format!("blobs/{digest}")) {
            Ok(Some(bytes)) if Digest::of(&bytes) == *digest => Ok(bytes),
            Ok(Some(_)) => Err("its content does not match its name".to_owned()),
            Ok(None) => Err("it is missing".to_owned()),
            Err(error) => Err(error),
        };
        let scored = scores(&canaries, &plan, &terms, &events, blob).map_err(|error| unusable(&error))?;
        let delta = Delta::new(plan.privacy.delta).map_err(|error| unusable(&error))?;
        let found = scored.scores.audit(significance, delta);
        let independent = scored.scores.detect(0.0).epsilon(significance, delta);
        let claimed = terms.guarantee.epsilon(scored.rounds);
        Ok(Report { plan, scored, found, independent, claimed })
    }
}

impl Report {
    fn is_violated(&self) -> bool {
        self.found.epsilon() > self.claimed
    }

    fn verdict(&self) -> &'static str {
        if self.is_violated() { "VIOLATED" } else { "consistent" }
    }

    fn as_json(&self, confidence: f64) -> serde_json::Value {
        let bound = |method: &str, (epsilon, guesses): (f64, Guesses)| {
            json!({
                "method": method,
                "epsilon": epsilon,
                "guesses": guesses.made(),
                "correct": guesses.correct(),
            })
        };
        json!({
            "canaries": self.scored.scores.canaries(),
            "canaries_unseen": self.scored.unseen,
            "included": self.scored.included,
            "rounds": self.scored.rounds,
            "confidence": confidence,
            "claimed": { "epsilon": self.claimed, "delta": self.plan.privacy.delta },
            "bounds": [
                bound("one-run", self.found.one_run),
                bound("one-run-gaussian", self.found.gaussian),
            ],
            "epsilon_if_independent": self.independent,
            "epsilon_within_reach": self.found.reach,
            "verdict": self.verdict(),
        })
    }

    fn as_text(&self, confidence: f64) -> String {
        let Self { plan, scored, found, independent, claimed } = self;
        let bound = |(epsilon, guesses): (f64, Guesses), hypothesis: &str| {
            format!(
                "at least {epsilon:.2}, from {} right of {} guesses ({hypothesis})",
                guesses.correct(),
                guesses.made()
            )
        };
        let rows = [
            (
                "canaries",
                format!(
                    "{} in sums of up to {} rounds, {} of them with an update; {} in no sum",
                    scored.scores.canaries(),
                    scored.rounds,
                    scored.included,
                    scored.unseen
                ),
            ),
            ("claimed", format!("epsilon {claimed:.2} at delta {:e}", plan.privacy.delta)),
            ("one run", bound(found.one_run, "of any mechanism")),
            ("Gaussian", bound(found.gaussian, "of one as good as a Gaussian")),
            (
                "independent",
                format!("about {independent:.2}, if scores were independent; not in the verdict"),
            ),
            ("reach", format!("so many canaries show {:.2} at most", found.reach)),
            ("verdict", format!("{} at confidence {confidence}", self.verdict())),
        ];
        rows.map(|(name, value)| format!("{name:<12} {value}\n")).concat()
    }
}
