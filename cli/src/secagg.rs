//! `fedveil secagg`: choosing the parameters of secure aggregation.
//!
//! The finding is [`find`]'s; here are its arguments and the words in which the result is told.

use std::fmt::Write as _;
use std::io::Write;

use clap::{Subcommand, ValueEnum};
use fedveil_aggregation::secagg::parameters::{
    GraphParameters, GraphRequirements, Population, ServerModel, find,
};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};

/// What can be asked of secure aggregation.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Find how many neighbours a client masks with and how many shares recover its secrets, and how safe that is.
    ///
    /// A client's update is hidden by masks that it shares with its neighbours, who also hold shares of its secrets.
    /// More neighbours and a higher threshold are harder to break; a lower threshold bears more drop-outs; fewer
    /// neighbours are less work. This finds the fewest neighbours, and the lowest threshold for them, that keep the
    /// chance of a break below 2^-SECURITY and that of a lost sum below 2^-CORRECTNESS.
    ///
    /// A coordinator alone breaks nothing. It needs colluding clients, enough of them among the neighbours of one
    /// client, and nobody chooses neighbours: what is stated is the chance that this happens by itself, somewhere. In
    /// small groups the required security is out of reach; then the safest parameters that bear the drop-outs are
    /// given, with the bound that they do reach. Whether that is enough is for you to decide.
    #[command(after_help = EXAMPLES)]
    Parameters(Parameters),
}

const EXAMPLES: &str = "Examples:
  fedveil secagg parameters --clients 1000 --malicious 0.1 --dropout 0.1
  fedveil secagg parameters --clients 1000 --malicious 0.02 --dropout 0.05 \\
      --group-size 100 --rounds 50
  fedveil secagg parameters --clients 200 --malicious 0.05 --dropout 0.05 \\
      --group-size 20 --correctness 10";

/// Requirements as typed.
#[derive(clap::Args)]
pub(crate) struct Parameters {
    /// Clients in a round.
    #[arg(long, value_name = "N")]
    clients: usize,
    /// Smallest size of the random groups that the clients are split into. [default: one group of all]
    #[arg(long, value_name = "N")]
    group_size: Option<usize>,
    /// Share of the clients that may collude, from 0 to below 1.
    #[arg(long, value_name = "SHARE")]
    malicious: f64,
    /// Share of the clients that may drop out of a round, from 0 to below 1.
    #[arg(long, value_name = "SHARE")]
    dropout: f64,
    /// What the coordinator may do: anything, or only look.
    #[arg(long, value_enum, default_value_t = Server::Malicious, value_name = "MODEL")]
    server: Server,
    /// Chance of a break over all rounds: at most 2^-BITS.
    #[arg(long, default_value_t = 40, value_name = "BITS")]
    security: u32,
    /// Chance that some group's sum of one round is lost to drop-outs: at most 2^-BITS.
    #[arg(long, default_value_t = 20, value_name = "BITS")]
    correctness: u32,
    /// Rounds that the same colluders take part in. Each is another chance.
    #[arg(long, default_value_t = 1, value_name = "N")]
    rounds: u64,
    /// Reveals that the coordinator may withhold, to choose among the groups that each choice leads to.
    #[arg(long, default_value_t = 0, value_name = "N")]
    withheld_reveals: usize,
    /// Print one JSON object. A probability of 0 has null for its logarithm.
    #[arg(long)]
    json: bool,
}

/// What the coordinator may do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    /// Anything, together with the malicious clients.
    Malicious,
    /// It keeps to the protocol, and pools what it sees with the malicious clients.
    SemiHonest,
}

/// Answers on `out`.
pub(crate) fn run(command: &Command, out: &mut impl Write) -> Result<(), Failure> {
    let Command::Parameters(typed) = command;
    let requirements = typed.requirements();
    let found = find(&requirements).map_err(|error| Failure::new(Exit::Usage, error))?;
    let population = requirements.population();
    let text = if typed.json {
        format!("{:#}\n", as_json(&requirements, &population, &found))
    } else {
        as_text(&requirements, &population, &found)
    };
    out.write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::General, format!("cannot print the parameters: {error}")))
}

impl Parameters {
    fn requirements(&self) -> GraphRequirements {
        GraphRequirements {
            clients: self.clients,
            group_size: self.group_size,
            malicious: self.malicious,
            dropout: self.dropout,
            server: match self.server {
                Server::Malicious => ServerModel::Malicious,
                Server::SemiHonest => ServerModel::SemiHonest,
            },
            security: self.security,
            correctness: self.correctness,
            rounds: self.rounds,
            withheld_reveals: self.withheld_reveals,
        }
    }
}

fn as_json(requirements: &GraphRequirements, population: &Population, found: &GraphParameters) -> Value {
    let logarithm = |log2: f64| log2.is_finite().then_some(log2);
    json!({
        "clients": population.clients,
        "malicious": requirements.malicious,
        "colluders": population.colluders,
        "dropout": requirements.dropout,
        "dropouts": population.dropouts,
        "server": server_name(population.server),
        "security": requirements.security,
        "correctness": requirements.correctness,
        "rounds": population.rounds,
        "withheld_reveals": population.withheld_reveals,
        "groups": population.groups(),
        "smallest_group": population.group_size,
        "largest_group": population.largest_group(),
        "degree": found.degree,
        "threshold": found.threshold,
        "colluders_to_break": found.colluders_to_break,
        "break_probability": found.break_probability_log2.exp2(),
        "break_probability_log2": logarithm(found.break_probability_log2),
        "split_probability": found.split_probability_log2.exp2(),
        "split_probability_log2": logarithm(found.split_probability_log2),
        "failure_probability": found.failure_probability_log2.exp2(),
        "failure_probability_log2": logarithm(found.failure_probability_log2),
        "secure_as_required": is_secure(requirements, found),
    })
}

fn as_text(requirements: &GraphRequirements, population: &Population, found: &GraphParameters) -> String {
    let Population { clients, colluders, dropouts, group_size, server, rounds, .. } = *population;
    let mut text = String::new();
    let mut line =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string can be written to");
    let largest = population.largest_group();
    let groups = match population.groups() {
        1 => "one group".to_owned(),
        groups if group_size == largest => format!("{groups} groups of {largest}"),
        groups => format!("up to {groups} groups of {group_size} to {largest}"),
    };
    line(format_args!(
        "{clients} clients in {groups}, up to {colluders} of them malicious, up to {dropouts} dropping out; {} \
         coordinator\n",
        server_name(server)
    ));
    let graph = if found.degree + 1 >= largest { "everyone else in the group" } else { "a ring" };
    line(format_args!("degree     {:>5}  neighbours that a client masks with: {graph}", found.degree));
    line(format_args!("threshold  {:>5}  of them recover its secrets", found.threshold));
    line(format_args!("colluders  {:>5}  of them expose it", found.colluders_to_break));
    let over = if rounds == 1 { "one round".to_owned() } else { format!("{rounds} rounds") };
    line(format_args!("\nA client is exposed      {}, over {over}", bound(found.break_probability_log2)));
    line(format_args!("A group is cut in two    {}, over {over}", bound(found.split_probability_log2)));
    line(format_args!("A group's sum is lost    {}, each round\n", bound(found.failure_probability_log2)));
    line(format_args!("{}", meaning(requirements, population, found)));
    if 2 * found.threshold <= found.degree {
        line(format_args!(
            "Sessions refuse these parameters: they hold a coordinator for malicious, and it would break them alone."
        ));
    }
    text
}

/// What the bound on a break comes to.
fn meaning(requirements: &GraphRequirements, population: &Population, found: &GraphParameters) -> String {
    let Population { clients, colluders, .. } = *population;
    let GraphParameters { break_probability_log2: log2, colluders_to_break, .. } = *found;
    let security = requirements.security;
    let who = match population.server {
        ServerModel::Malicious => "a coordinator that does anything it likes",
        ServerModel::SemiHonest => "a coordinator that keeps to the protocol",
    };
    if log2 == f64::NEG_INFINITY {
        return format!(
            "It takes {colluders_to_break} colluders in one neighbourhood, and there are no more than {colluders}: \
             {who} learns sums of groups and nothing below, however unlucky the draw."
        );
    }
    let chance = if log2 < 0.0 {
        format!("less than once in {:.1e} tries", (-log2).exp2())
    } else {
        "as often as not, for all that can be said".to_owned()
    };
    let told = format!(
        "Together with {colluders} of {clients} clients, {who} gets below the sums of groups {chance}"
    );
    if is_secure(requirements, found) {
        format!("{told}, as required (2^-{security}).")
    } else {
        format!(
            "{told}. That is NOT the 2^-{security} required, which no parameters reach here: chance puts too many \
             colluders in one group. Larger groups, fewer drop-outs or a lower --correctness bring it down."
        )
    }
}

fn is_secure(requirements: &GraphRequirements, found: &GraphParameters) -> bool {
    found.break_probability_log2 <= -f64::from(requirements.security)
}

fn server_name(server: ServerModel) -> &'static str {
    match server {
        ServerModel::Malicious => "malicious",
        ServerModel::SemiHonest => "semi-honest",
    }
}

/// A bound on a probability, rounded up.
fn bound(log2: f64) -> String {
    if log2 == f64::NEG_INFINITY {
        return "never".to_owned();
    }
    let bits = (-log2 * 10.0).floor() / 10.0;
    format!("with probability at most 2^-{bits:.1} ({:.1e})", (-bits).exp2())
}
