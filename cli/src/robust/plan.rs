//! `fedveil robust plan`: the group sizes that bear so many attackers, and what each costs in noise.
//!
//! The numbers are those of `grouping`; here are its arguments and the words in which the result is told.

use crate::exit::{Exit, Failure};
use clap::Args;
use fedveil_aggregation::robust::Rule;
use fedveil_aggregation::robust::grouping::{Choice, Situation, bounds, choices};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Lines of the table.
const MOST_LINES: usize = 24;
/// The rule that is suggested where its search is not too long, and the one that is otherwise.
const SUGGESTED: [&str; 2] = ["mda", "trimmed-mean"];

/// Requirements as typed.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Clients in a round.
    #[arg(long, value_name = "N")]
    clients: usize,
    /// Clients that send what they like: a number of them, or a share below 1.
    #[arg(long, value_name = "A")]
    malicious: f64,
    /// Clients that may drop out of a round: a number of them, or a share below 1.
    #[arg(long, default_value_t = 0.0, value_name = "D")]
    dropout: f64,
    /// Accepted chance, each round, that more groups are poisoned than the rule is set to bear.
    #[arg(long, default_value_t = 1e-3, value_name = "CHANCE")]
    chance: f64,
    /// Deviation of the noise in a group's sum, in clip norms; adds what is left of it in the aggregate.
    #[arg(long, value_name = "Z")]
    noise_multiplier: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is printed.
pub(crate) fn text(args: &PlanArgs) -> Result<String, Failure> {
    let situation = Situation {
        clients: args.clients,
        malicious: count("--malicious", args.malicious, args.clients)?,
        dropouts: count("--dropout", args.dropout, args.clients)?,
        accepted: args.chance,
    };
    if let Some(found) = args.noise_multiplier
        && !(found.is_finite() && found >= 0.0)
    {
        let message = format!("--noise-multiplier is {found}, accepted is a number, 0 or more");
        return Err(Failure::new(Exit::Usage, message));
    }
    let choices = choices(&situation).map_err(|error| Failure::new(Exit::Usage, error))?;
    if choices.is_empty() {
        return Err(Failure::new(Exit::Tolerance, none(&situation)));
    }
    if args.json {
        return Ok(format!("{:#}\n", as_json(&situation, &choices, args.noise_multiplier)));
    }
    Ok(as_text(&situation, &choices, args.noise_multiplier))
}

/// A number of clients, or a share of them rounded up.
fn count(option: &str, found: f64, clients: usize) -> Result<usize, Failure> {
    if (0.0..1.0).contains(&found) {
        // A share like 0.07 of 100 is a hair above 7 as a float.
        return Ok((found * clients as f64 - 1e-9).ceil().max(0.0) as usize);
    }
    if found.fract() == 0.0 && (1.0..=clients as f64).contains(&found) {
        return Ok(found as usize);
    }
    let accepted = "a share from 0 to below 1 or a whole number of clients";
    Err(Failure::new(Exit::Usage, format!("{option} is {found}, accepted is {accepted}")))
}

fn none(situation: &Situation) -> String {
    let Situation { clients, malicious, dropouts, accepted } = situation;
    format!(
        "no group size bears {malicious} malicious of {clients} clients with {dropouts} dropping out: groups of the \
         poisoned would be no minority, but with chance {accepted}"
    )
}

/// Of equal ones the choice with the largest groups.
fn least_noise(choices: &[Choice]) -> &Choice {
    let by_noise = |a: &&Choice, b: &&Choice| a.relative_noise.total_cmp(&b.relative_noise);
    choices.iter().min_by(by_noise).expect("there is a choice")
}

/// The rule to set for a choice.
fn suggested_rule(choice: &Choice) -> &'static str {
    let bears = |name: &&&str| {
        name.parse().is_ok_and(|rule: Rule| rule.check_counts(choice.left, choice.byzantine).is_ok())
    };
    SUGGESTED.iter().find(bears).unwrap_or(&SUGGESTED[1])
}

fn noise(choice: &Choice, situation: &Situation, multiplier: f64) -> f64 {
    multiplier * choice.relative_noise / situation.clients as f64
}

fn as_json(situation: &Situation, choices: &[Choice], multiplier: Option<f64>) -> Value {
    let one = |choice: &Choice| {
        let tolerances: Vec<Value> = choice
            .tolerances
            .iter()
            .zip(bounds())
            .map(|(tolerance, (_, rules))| {
                json!({
                    "rules": rules,
                    "rows_needed": tolerance.bound.to_string(),
                    "largest_f": tolerance.most,
                    "bears": tolerance.most >= Some(choice.byzantine),
                    "attackers_always": tolerance.most,
                    "attackers_with_chance": tolerance.attackers,
                    "attacker_share_with_chance": tolerance.attackers as f64 / situation.clients as f64,
                })
            })
            .collect();
        json!({
            "group_size": choice.group_size,
            "largest_group": choice.largest_group,
            "groups": choice.groups,
            "min_survivors": choice.min_survivors,
            "groups_left": choice.left,
            "assumed_byzantine": choice.byzantine,
            "chance_of_more": choice.chance,
            "chance_is_exact": choice.group_size == choice.largest_group,
            "tolerances": tolerances,
            "relative_noise": choice.relative_noise,
            "noise_in_clip_norms": multiplier.map(|multiplier| noise(choice, situation, multiplier)),
            "threshold": choice.threshold,
            "colluders_to_break": choice.colluders_to_break,
            "break_probability_log2":
                choice.break_probability_log2.is_finite().then_some(choice.break_probability_log2),
            "suggested_rule": suggested_rule(choice),
        })
    };
    json!({
        "clients": situation.clients,
        "malicious": situation.malicious,
        "dropouts": situation.dropouts,
        "accepted_chance": situation.accepted,
        "least_noise_group_size": least_noise(choices).group_size,
        "choices": choices.iter().map(one).collect::<Vec<_>>(),
    })
}

fn as_text(situation: &Situation, choices: &[Choice], multiplier: Option<f64>) -> String {
    let Situation { clients, malicious, dropouts, accepted } = situation;
    let mut text = String::new();
    let mut line =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string can be written to");
    line(format_args!("{clients} clients, {malicious} of them malicious, up to {dropouts} dropping out\n"));
    let bounds = bounds();
    let names: Vec<String> = bounds.iter().map(|(bound, _)| format!("{:>8}", bound.to_string())).collect();
    let names = names.concat();
    let added = if multiplier.is_some() { "  deviation" } else { "" };
    line(format_args!("group  groups  left     f    chance{names}  attackers  noise{added}  colluders"));
    for choice in choices.iter().take(MOST_LINES) {
        let most: String = choice
            .tolerances
            .iter()
            .map(|tolerance| match tolerance.most {
                Some(most) if most >= choice.byzantine => format!("{most:>8}"),
                _ => format!("{:>8}", "-"),
            })
            .collect();
        let attackers = choice.tolerances[0].attackers;
        let share = 100.0 * attackers as f64 / *clients as f64;
        let added = multiplier
            .map_or_else(String::new, |multiplier| format!("{:>11.4}", noise(choice, situation, multiplier)));
        line(format_args!(
            "{:>5}{:>8}{:>6}{:>6}{:>10}{most}{attackers:>4}{:>7}{:>7.2}{added}{:>11}",
            choice.group_size,
            choice.groups,
            choice.left,
            choice.byzantine,
            chance(choice.chance),
            format!("{share:.1}%"),
            choice.relative_noise,
            choice.colluders_to_break,
        ));
    }
    if choices.len() > MOST_LINES {
        line(format_args!(
            "and {} more with smaller groups, which --json prints",
            choices.len() - MOST_LINES
        ));
    }
    line(format_args!(
        "\ngroup      members of the smallest group; groups make a full cohort\n\
         left       groups that have a sum if the drop-outs fall as unluckily as they can\n\
         f          poisoned groups to set the rule to; chance is a bound on more of them, at most {accepted} a round"
    ));
    for (bound, rules) in &bounds {
        line(format_args!(
            "{:<10} most that is borne by {}; - is too few",
            bound.to_string(),
            rules.join(", ")
        ));
    }
    line(format_args!(
        "attackers  most that the first of these bear with the accepted chance, also as a share of the clients\n\
         noise      in the mean of all left but f groups, against one group of all clients"
    ));
    if multiplier.is_some() {
        line(format_args!("deviation  of that noise in a coordinate, in clip norms"));
    }
    line(format_args!(
        "colluders  in one group that expose a member to a malicious coordinator, if all of a group are neighbours"
    ));
    let best = least_noise(choices);
    line(format_args!(
        "\nThe least noise has aggregation.group_size = {}, min_survivors = {}, threshold = {}, server.rule = \"{}\", \
         assumed_byzantine = {}.",
        best.group_size,
        best.min_survivors,
        best.threshold,
        suggested_rule(best),
        best.byzantine
    ));
    text
}

/// A probability, rounded up.
fn chance(probability: f64) -> String {
    if probability == 0.0 {
        return "never".to_owned();
    }
    let exponent = probability.log10().floor();
    let digits = (probability / 10f64.powf(exponent - 1.0)).ceil();
    format!("{:.1e}", digits * 10f64.powf(exponent - 1.0))
}
