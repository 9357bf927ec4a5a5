//! `fedveil robust`: a robust rule on a file of vectors, the choice of a group size, and the list of rules.

use crate::exit::{Exit, Failure};
use crate::vectors::{Table, TableError};
use clap::{Args, Subcommand};
use fedveil_aggregation::robust::{About, OptionSpec, PRE_AGGREGATORS, RULES, Rule, RuleError};
use fedveil_simulations::attack::{ATTACKS, Strength};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

mod plan;
mod suspects;

pub(crate) use suspects::{bears, naming, suspicion, told};

/// What to do with robust rules.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Aggregate the vectors of a file by a robust rule.
    ///
    /// Prints the aggregate as a line of CSV; which rows were dropped goes to standard error.
    Aggregate(AggregateArgs),
    /// Find the group sizes that bear so many malicious clients, and what each costs in noise.
    ///
    /// The coordinator sees sums of groups, and a rule sets aside groups that look poisoned. Small groups bear more
    /// malicious clients, but every group's sum carries the whole noise, so that the mean of G groups is √G noisier than
    /// one group of all.
    Plan(plan::PlanArgs),
    /// Name the clients that were in suspicious groups too often to be there by chance.
    ///
    /// Groups are drawn anew in every round. Reads the run folder's state, which tells who was in which, and writes nothing.
    Suspects(suspects::SuspectsArgs),
    /// Put a client in quarantine: its coordinator draws it into no round any more.
    Quarantine(suspects::OrderArgs),
    /// Lift a client's quarantine, on its appeal; evidence about it begins anew.
    Release(suspects::OrderArgs),
    /// Print every rule and pre-aggregator with its options, bound, cost and source.
    List,
    /// Print every attack that `fedveil demo --attack` knows with its formula, knowledge, strength and source.
    Attacks,
}

/// Arguments of `fedveil robust aggregate`.
#[derive(Args)]
pub(crate) struct AggregateArgs {
    #[arg(long, value_name = "NAME", help = names("Rule", RULES.iter().map(|rule| rule.about)))]
    rule: String,
    /// Byzantine rows f that the rule is set to bear.
    #[arg(long, value_name = "F")]
    byzantine: usize,
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help = names("Pre-aggregator, applied before the rule; repeat for more, in order", PRE_AGGREGATORS.iter().map(|pre| pre.about))
    )]
    pre: Vec<String>,
    /// Option of the rule or of a pre-aggregator, as in tau=10; NAME.key=value where several have the key, key=@FILE
    /// for vectors in a file. Repeat for more.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print aggregate, kept rows and scores as one JSON object.
    #[arg(long)]
    json: bool,
    /// CSV with a row on each line, or .npy with a matrix of float32 or float64.
    file: PathBuf,
}

/// Runs the command and writes to `out` what it prints.
pub(crate) fn run(command: Command, out: &mut impl Write) -> Result<(), Failure> {
    let text = match command {
        Command::Aggregate(args) => aggregate(&args)?,
        Command::Plan(args) => plan::text(&args)?,
        Command::Suspects(args) => suspects::text(&args)?,
        Command::Quarantine(args) => suspects::order(&args, false)?,
        Command::Release(args) => suspects::order(&args, true)?,
        Command::List => list(),
        Command::Attacks => attacks(),
    };
    out.write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::General, format!("cannot print the result: {error}")))
}

fn aggregate(args: &AggregateArgs) -> Result<String, Failure> {
    let rule = rule(args)?;
    let table = Table::read(&args.file).map_err(unreadable)?;
    let aggregate = table.aggregate(&rule, args.byzantine).map_err(|error| refused(&args.file, &error))?;
    if args.json {
        let object =
            json!({ "aggregate": aggregate.vector, "kept": aggregate.kept, "scores": aggregate.scores });
        return Ok(format!("{object}\n"));
    }
    let rows = aggregate.scores.len();
    eprintln!("{rule} kept {} of {rows} rows", aggregate.kept.len());
    for row in (0..rows).filter(|row| aggregate.kept.binary_search(row).is_err()) {
        eprintln!("dropped row {row}, score {}", aggregate.scores[row]);
    }
    Ok(Table::Double(vec![aggregate.vector]).to_setting() + "\n")
}

/// The rule that the arguments ask for.
fn rule(args: &AggregateArgs) -> Result<Rule, Failure> {
    let mut settings = Vec::with_capacity(args.set.len());
    for setting in &args.set {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            Failure::new(Exit::Usage, format!("--set is {setting:?}, accepted is KEY=VALUE, as in tau=10"))
        })?;
        let value = match value.strip_prefix('@') {
            Some(path) => Table::read(Path::new(path)).map_err(unreadable)?.to_setting(),
            None => value.to_owned(),
        };
        settings.push((key, value));
    }
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let pre: Vec<&str> = args.pre.iter().map(String::as_str).collect();
    Rule::new(&args.rule, &pre, &settings).map_err(|error| Failure::new(Exit::Usage, error))
}

fn unreadable(error: TableError) -> Failure {
    Failure::new(Exit::Usage, error)
}

fn refused(file: &Path, error: &RuleError) -> Failure {
    let exit = match error {
        RuleError::TooFewRows { .. } | RuleError::SearchTooLarge { .. } => Exit::Tolerance,
        _ => Exit::Usage,
    };
    Failure::new(exit, format!("{}: {error}", file.display()))
}

/// A help text with names after it.
fn names(help: &str, steps: impl Iterator<Item = About>) -> String {
    format!("{help}: {}", steps.map(|step| step.name).collect::<Vec<_>>().join(", "))
}

/// Every rule and pre-aggregator, for reading.
fn list() -> String {
    let mut text = "Rules: n rows of dimension d, at most f of them Byzantine, become one\n".to_owned();
    for rule in &RULES {
        begin(&mut text, &rule.about);
        let rows = rule.bound().map_or_else(String::new, |bound| format!("{bound} or more rows; "));
        line(&mut text, "withstands", &format!("{rows}{}", rule.breakdown));
        let takes =
            if rule.takes_group_means() { "means of groups, single clients" } else { "single clients alone" };
        line(&mut text, "rows are", takes);
        end(&mut text, &rule.about);
    }
    text.push_str("\nPre-aggregators: rows become rows, before a rule\n");
    for pre in &PRE_AGGREGATORS {
        begin(&mut text, &pre.about);
        end(&mut text, &pre.about);
    }
    text
}

/// Every attack, for reading.
fn attacks() -> String {
    let mut text =
        "Attacks: what poisoned clients send. u is the client's own update, x are the honest rows, \
                    w the published models\n"
            .to_owned();
    for attack in &ATTACKS {
        writeln!(text, "\n{}: {}", attack.name, attack.summary).expect("a string can be written to");
        line(&mut text, "formula", attack.formula);
        line(&mut text, "knows", &attack.needs().to_string());
        line(&mut text, "sends", &attack.sends.to_string());
        if let Some(Strength { default, meaning }) = attack.strength {
            line(&mut text, "strength", &format!("{default}: {meaning}"));
        }
        line(&mut text, "source", attack.source);
    }
    text
}

fn begin(text: &mut String, about: &About) {
    writeln!(text, "\n{}: {}", about.name, about.summary).expect("a string can be written to");
}

fn end(text: &mut String, about: &About) {
    line(text, "cost", about.cost);
    line(text, "source", about.source);
    for OptionSpec { key, kind, default, meaning } in about.options {
        line(text, "option", &format!("{key} = {default}: {meaning}; accepted is {kind}"));
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    writeln!(text, "  {name:<10}  {value}").expect("a string can be written to");
}
