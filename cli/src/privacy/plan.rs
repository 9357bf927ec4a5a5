//! `fedveil privacy plan`: what a task will spend, told before anything starts.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use fedveil_privacy::{Placement, Sampling};
use fedveil_proto_plan::{ExamplePrivacy, ExampleTerms, Mode, TaskPlan, Terms};
use fedveil_simulations::report::{PlannedLoss, epsilon_svg};
use serde_json::{Value, json};

use super::{down, up};
use crate::config::{CoordinatorConfig, load};
use crate::exit::{Exit, Failure};
use crate::robust::bears;

/// Rows of the table up to which every number of participations has one.
const MOST_ROWS: u32 = 40;

const STRING: &str = "a string can be written to";

pub(super) const HELP: &str = "\
Examples:
  fedveil coordinator --print-config > task.toml
  fedveil privacy plan task.toml --svg epsilon.svg";

/// A plan in a file, and how to tell what it spends.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file of the coordinator that will run the task.
    #[arg(value_name = "TASK.toml")]
    file: PathBuf,
    /// Also draw ε against participations, with the budget, as an SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Answers on `out`. A task whose budget pays for no round is described, and refused.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Failure> {
        let config: CoordinatorConfig = load(&self.file).map_err(|error| Failure::new(Exit::Usage, error))?;
        let plan = config.announced().map_err(|error| Failure::new(Exit::Usage, error))?;
        let terms = plan.check().map_err(|error| Failure::new(Exit::Usage, error))?;
        let planned = Planned { plan: &plan, terms: &terms };
        let text = if self.json { format!("{:#}\n", planned.as_json()) } else { planned.as_text() };
        out.write_all(text.as_bytes()).map_err(|error| Failure::new(Exit::Output, error))?;
        if let Some(path) = &self.svg {
            std::fs::write(path, planned.drawing())
                .map_err(|error| Failure::new(Exit::Output, format!("{}: {error}", path.display())))?;
        }
        pays_for_a_round(&plan, &terms)
    }
}

/// What a task will spend, in one line.
pub(crate) fn spends(plan: &TaskPlan, terms: &Terms) -> String {
    format!(
        "this plan spends epsilon {:.2} at delta {:e} over {} rounds (budget {})",
        terms.guarantee.epsilon(terms.affordable_rounds),
        plan.privacy.delta,
        terms.affordable_rounds,
        plan.privacy.epsilon
    )
}

/// Refuses a task whose budget pays for no round.
pub(crate) fn pays_for_a_round(plan: &TaskPlan, terms: &Terms) -> Result<(), Failure> {
    if terms.affordable_rounds > 0 {
        return Ok(());
    }
    let message = format!(
        "privacy.epsilon is {}, and one round spends {}",
        plan.privacy.epsilon,
        up(terms.guarantee.epsilon(1))
    );
    Err(Failure::new(Exit::Tolerance, message))
}

struct Planned<'a> {
    plan: &'a TaskPlan,
    terms: &'a Terms,
}

impl Planned<'_> {
    /// The numbers of participations that are told: all of them, or of many 1, 2, 5, 10, … and those about the last that
    /// the budget pays for.
    fn participations(&self) -> Vec<u32> {
        let (rounds, affordable) = (self.plan.rounds, self.terms.affordable_rounds);
        if rounds <= MOST_ROWS {
            return (1..=rounds).collect();
        }
        let decades = (0..6).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10u32.pow(zeros)));
        let mut told: Vec<u32> = decades.chain([affordable, affordable + 1, rounds]).collect();
        told.retain(|count| (1..=rounds).contains(count));
        told.sort_unstable();
        told.dedup();
        told
    }

    fn as_json(&self) -> Value {
        let Self { plan, terms } = self;
        let guarantee = &terms.guarantee;
        let epsilons: Vec<Value> = self
            .participations()
            .into_iter()
            .map(|count| {
                json!({
                    "participations": count,
                    "epsilon": guarantee.epsilon(count),
                    "affordable": count <= terms.affordable_rounds,
                })
            })
            .collect();
        let mut report = json!({
            "task": plan.task,
            "mode": plan.mode,
            "warning": terms.warning(),
            "rounds": plan.rounds,
            "clients": plan.cohort.clients,
            "minimum_clients": plan.cohort.minimum,
            "parameters": plan.model.parameters,
            "unit": guarantee.claim.unit.to_string(),
            "neighbours": guarantee.claim.adjacency.to_string(),
            "accountant": guarantee.claim.accounting.to_string(),
            "sampling": guarantee.claim.sampling.to_string(),
            "placement": guarantee.placement.to_string(),
            "mechanism": guarantee.mechanism(),
            "noise_multiplier": plan.privacy.noise_multiplier,
            "noise_variance_of_one": guarantee.share.get(),
            "clip_norm": plan.privacy.clip_norm,
            "adaptive_clip": plan.privacy.adaptive_clip,
            "epsilon_of_updates_alone": self.apart().map(|(updates, _)| updates),
            "epsilon_of_indicators_alone": self.apart().map(|(_, indicators)| indicators),
            "evaluation": plan.evaluation(),
            "epsilon_of_evaluation_alone": guarantee.epsilon_of_evaluation(terms.affordable_rounds),
            "resolution": plan.privacy.resolution,
            "groups": terms.groups,
            "minimum_rows": terms.minimum_rows,
            "group_size": plan.aggregation.group_size,
            "largest_group": terms.largest_group,
            "min_survivors": plan.aggregation.min_survivors,
            "may_drop_out_of_a_group": self.may_drop(),
            "assumed_malicious": plan.cohort.assumed_malicious,
            "colluders_in_a_group": guarantee.colluders,
            "shares_counted": guarantee.honest,
            "delta": plan.privacy.delta,
            "delta_of_colluders": guarantee.collusion_failure,
            "ring_bits": guarantee.ring_bits,
            "wrap_probability": guarantee.wrap_probability,
            "epsilon_budget": plan.privacy.epsilon,
            "affordable_rounds": terms.affordable_rounds,
            "epsilon_of_one_round": guarantee.epsilon(1),
            "epsilon_in_all": guarantee.epsilon(terms.affordable_rounds),
            "epsilon_in_all_by_opendp": guarantee.epsilon_by_opendp(terms.affordable_rounds),
            "epsilon": epsilons,
        });
        report["attackers"] = json!({
            "borne": terms.borne,
            "share_borne": f64::from(terms.borne) / f64::from(plan.cohort.clients),
            "borne_with_chance": terms.borne_mostly,
            "chance_of_too_many_poisoned_groups": terms.too_many_poisoned,
        });
        report["example"] = self.example().map_or(Value::Null, |(section, example)| {
            json!({
                "steps_per_round": example.steps_per_round,
                "sampling_rate": section.sampling_rate,
                "noise_multiplier": section.noise_multiplier,
                "clip_norm": section.clip_norm,
                "epsilon_in_all": example.epsilon,
                "epsilon_budget": section.epsilon,
                "delta": section.delta,
            })
        });
        report
    }

    /// What updates and indicators would spend each by themselves, in all, where the clip norm is adaptive.
    fn apart(&self) -> Option<(f64, f64)> {
        self.terms.guarantee.epsilon_apart(self.terms.affordable_rounds)
    }

    /// The clip norm and what finding it costs.
    fn clipping(&self) -> String {
        let privacy = &self.plan.privacy;
        match (&privacy.adaptive_clip, self.apart()) {
            (Some(adaptive), Some((updates, indicators))) => format!(
                "{} at first, then towards quantile {} within {} to {}; ε in all of the updates alone {}, of the \
                 indicators alone {}",
                privacy.clip_norm,
                adaptive.quantile,
                adaptive.minimum,
                adaptive.maximum,
                up(updates),
                up(indicators)
            ),
            _ => format!("{} in every round", privacy.clip_norm),
        }
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.facts() {
            writeln!(text, "{name:<12} {value}").expect(STRING);
        }
        text += "\nparticipations      epsilon         more\n";
        let mut before = 0.0;
        for count in self.participations() {
            let spent = self.terms.guarantee.epsilon(count);
            let refused =
                if count > self.terms.affordable_rounds { "  refused: beyond the budget" } else { "" };
            writeln!(text, "{count:>14} {:>12} {:>12}{refused}", up(spent), down(spent - before))
                .expect(STRING);
            before = spent;
        }
        text
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Self { plan, terms } = self;
        let guarantee = &terms.guarantee;
        let claim = &guarantee.claim;
        let credited = match claim.sampling {
            Sampling::Full => "no sampling credited".to_owned(),
            sampling => format!("sampling {sampling} credited"),
        };
        let counted = match guarantee.placement {
            Placement::Distributed { .. } => format!(
                "the shares of {} honest among {} survivors",
                guarantee.honest, plan.aggregation.min_survivors
            ),
            Placement::Local { .. } => "what each client adds by itself, who trusts nobody".to_owned(),
            Placement::Central { .. } => "what the coordinator adds once, who is trusted".to_owned(),
            Placement::InsecureNone => "nothing: nobody adds noise".to_owned(),
            Placement::Correlated { participation, .. } => format!(
                "what the coordinator adds, who is trusted, correlated over all rounds; a client takes part {} times at \
                 most, {} rounds apart, and spends all of it the first time",
                participation.max_participations, participation.min_separation
            ),
        };
        let mut facts = vec![
            (
                "task",
                format!(
                    "{}: {} rounds of {} clients ({} at least), {} parameters",
                    plan.task, plan.rounds, plan.cohort.clients, plan.cohort.minimum, plan.model.parameters
                ),
            ),
            (
                "claim",
                format!(
                    "unit {}, neighbours {}, accountant {}, {credited}",
                    claim.unit, claim.adjacency, claim.accounting
                ),
            ),
            (
                "noise",
                format!(
                    "{}, placement {}: {} clip norms in each {}",
                    guarantee.mechanism(),
                    guarantee.placement,
                    plan.privacy.noise_multiplier,
                    self.noised()
                ),
            ),
            ("clip norm", self.clipping()),
            (
                "counted",
                format!(
                    "{counted}; whoever adds noise adds a variance of {} squared steps",
                    guarantee.share.get()
                ),
            ),
            (
                "delta",
                format!(
                    "{:e}, of which {:e} is for a group that holds more colluders",
                    plan.privacy.delta, guarantee.collusion_failure
                ),
            ),
            (
                "budget",
                format!(
                    "epsilon {}: pays for {} of {} rounds, which spend {}; one round spends {}",
                    plan.privacy.epsilon,
                    terms.affordable_rounds,
                    plan.rounds,
                    up(guarantee.epsilon(terms.affordable_rounds)),
                    up(guarantee.epsilon(1))
                ),
            ),
        ];
        if let Some(epsilon) = guarantee.epsilon_by_opendp(terms.affordable_rounds) {
            facts.push(("opendp", format!("converts the same loss to epsilon {}", up(epsilon))));
        }
        facts.extend(self.fact_of_examples());
        facts.extend(self.fact_of_evaluation());
        match terms.mode {
            Mode::Secagg | Mode::InsecureIdeal => drop(facts.splice(4..4, self.facts_of_groups())),
            Mode::InsecurePlain => {}
        }
        facts.extend(terms.warning().map(|warning| ("warning", warning.to_owned())));
        facts
    }

    /// What clients say of each new model, how exact that is, and what it costs.
    fn fact_of_evaluation(&self) -> Option<(&'static str, String)> {
        let Self { plan, terms } = self;
        let section = plan.evaluation()?;
        let sums = vec![0; terms.groups as usize];
        let evaluation = terms.guarantee.evaluation.as_ref()?;
        let deviation = evaluation.estimate(&sums, plan.aggregation.group_size)?.deviation;
        let alone = terms.guarantee.epsilon_of_evaluation(terms.affordable_rounds)?;
        let text = format!(
            "clients judge each new model: {} clients of noise in each group's sum, of deviation {deviation:.3} in the \
             estimate; rejected is what loses more than {:.3}; ε in all of the answers alone {}",
            section.noise_multiplier,
            section.max_accuracy_drop + section.confidence * deviation,
            up(alone)
        );
        Some(("evaluation", text))
    }

    fn facts_of_groups(&self) -> Vec<(&'static str, String)> {
        let Self { plan, terms } = self;
        let guarantee = &terms.guarantee;
        vec![
            (
                "groups",
                format!(
                    "{} of {} to {} clients; the round is aborted with fewer than {} sums",
                    terms.groups, plan.aggregation.group_size, terms.largest_group, terms.minimum_rows
                ),
            ),
            (
                "drop-outs",
                format!(
                    "{} may leave a group of {}; the sum of fewer than {} is withheld",
                    self.may_drop(),
                    plan.aggregation.group_size,
                    plan.aggregation.min_survivors
                ),
            ),
            (
                "colluders",
                format!(
                    "{} assumed among {} or more clients; {} of them counted in a group",
                    plan.cohort.assumed_malicious, plan.cohort.minimum, guarantee.colluders
                ),
            ),
            ("attackers", bears(plan, terms)),
            (
                "ring",
                format!(
                    "{} bits; some coordinate of a sum of honest clients wraps with probability {:.1e} at most",
                    guarantee.ring_bits, guarantee.wrap_probability
                ),
            ),
        ]
    }

    fn fact_of_examples(&self) -> Option<(&'static str, String)> {
        let (section, example) = self.example()?;
        let fact = format!(
            "{} steps a round on one in {:.1} by chance, {} clip norms of noise in each; they spend {} at delta {:e} \
                 (budget {})",
            example.steps_per_round,
            1.0 / section.sampling_rate,
            section.noise_multiplier,
            up(example.epsilon),
            section.delta,
            section.epsilon
        );
        Some(("examples", fact))
    }

    /// What the plan says about single examples, and what it means.
    fn example(&self) -> Option<(&ExamplePrivacy, &ExampleTerms)> {
        self.plan.training.example_privacy.as_ref().zip(self.terms.example.as_ref())
    }

    /// What carries the noise that is counted.
    fn noised(&self) -> &'static str {
        match (self.terms.mode, self.terms.guarantee.placement) {
            (Mode::Secagg | Mode::InsecureIdeal, _) => "group sum",
            (Mode::InsecurePlain, Placement::Local { .. }) => "update",
            (Mode::InsecurePlain, _) => "sum",
        }
    }

    /// Clients that may leave the smallest group before its sum is withheld.
    fn may_drop(&self) -> u32 {
        self.plan.aggregation.group_size - self.plan.aggregation.min_survivors
    }

    fn drawing(&self) -> String {
        let Self { plan, terms } = self;
        let affordable = terms.affordable_rounds;
        // Enough beyond the budget to see where it ends, and no more points than a drawing has room for.
        let last = plan.rounds.min(affordable + (affordable / 4).max(3));
        let stride = last.div_ceil(400).max(1);
        let counts = (1..=last).filter(|&count| count % stride == 0 || count == affordable || count == last);
        epsilon_svg(&PlannedLoss {
            spent: counts.map(|count| (count, terms.guarantee.epsilon(count))).collect(),
            affordable,
            budget: plan.privacy.epsilon,
            delta: plan.privacy.delta,
        })
    }
}
