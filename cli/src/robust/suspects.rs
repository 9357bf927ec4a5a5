//! `fedveil robust suspects`, `quarantine` and `release`: who is behind the groups that look poisoned, and what the
//! operator does about it. The test is that of `fedveil_aggregation::robust::suspects`.

use crate::exit::{Exit, Failure};
use crate::privacy::plan_of;
use clap::Args;
use fedveil_coordinator::store::{Order, SqliteStore};
use fedveil_coordinator_core::{
    Client, Evidence, MAX_REASON, Quarantine, QuarantineMode, Store, Suspicion, group_sizes,
};
use fedveil_proto_plan::{ACCEPTED_CHANCE, Mode, TaskPlan, Terms};
use fedveil_provenance::run;
use fedveil_simulations::record;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Clients that are listed without `--all`, where fewer are named.
const LISTED: usize = 10;

/// Arguments of `fedveil robust suspects`.
#[derive(Args)]
pub(crate) struct SuspectsArgs {
    /// The run folder, of a task that is over or goes on.
    run: PathBuf,
    /// Accepted probability that any honest client is ever named.
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    false_alarm: f64,
    /// Clients that false alarms are counted over. [default: the plan's cohort, or as many as took part]
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// List every client, not only the most suspicious.
    #[arg(long)]
    all: bool,
    /// Print one JSON object, with every client.
    #[arg(long)]
    json: bool,
}

/// Arguments of `fedveil robust quarantine` and `release`.
#[derive(Args)]
pub(crate) struct OrderArgs {
    /// The run folder of a task that goes on. Its coordinator obeys within seconds, or when it is started again.
    run: PathBuf,
    /// The client's identity, as `fedveil robust suspects` prints it.
    client: Client,
    /// Why: for the log and the client.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// How many attackers a plan bears, in one line.
pub(crate) fn bears(plan: &TaskPlan, terms: &Terms) -> String {
    let (rule, clients, f) = (plan.server.steps(), plan.cohort.clients, terms.borne);
    if f == 0 {
        return format!("{rule} bears no poisoned client");
    }
    let share = |count: u32| 100.0 * f64::from(count) / f64::from(clients);
    let always = format!("{f} attackers wherever they are ({:.1} % of {clients} clients)", share(f));
    if terms.mode == Mode::InsecurePlain {
        return format!("{rule} bears {always}");
    }
    let mostly = terms.borne_mostly;
    let malicious = plan.cohort.assumed_malicious;
    let clean = match terms.too_many_poisoned {
        // What is left of a sum of probabilities is no probability.
        rest if rest < 1e-12 => "never".to_owned(),
        more => format!("with probability {:.1e} at most", more.min(1.0)),
    };
    format!(
        "{rule} over {} group means, {} at least, bears {f} poisoned groups: {always}, {mostly} ({:.1} %) but for a chance of \
         {ACCEPTED_CHANCE} a round; the {malicious} assumed poison more {clean}",
        terms.groups,
        terms.minimum_rows,
        share(mostly)
    )
}

/// What is done about suspicious clients, and after how many rounds it can be, in one line.
pub(crate) fn naming(quarantine: &Quarantine, plan: &TaskPlan, terms: &Terms) -> Result<String, Failure> {
    let decoder = quarantine.decoder(plan, terms).map_err(|error| Failure::new(Exit::Usage, error))?;
    let Some(decoder) = decoder else {
        return Ok("suspicious clients are not named".to_owned());
    };
    let [by_chance, framed] = decoder.fewest_rounds(&group_sizes(plan.cohort.clients, terms.groups));
    let after = |rounds: Option<u32>| match rounds {
        None => "never".to_owned(),
        Some(rounds) if rounds > plan.rounds => {
            format!("after {rounds} rounds (this task has {} at most)", plan.rounds)
        }
        Some(rounds) => format!("after {rounds} rounds"),
    };
    let named = format!(
        "a client that is always in suspicious groups is named {} at the earliest, an honest one with probability {} at most",
        after(by_chance),
        quarantine.false_alarm
    );
    Ok(match quarantine.mode {
        QuarantineMode::Automatic => format!("{named}; it is put in quarantine {}", after(framed)),
        _ => named,
    })
}

/// What the rounds of a run say about its clients, for its summary. `poisoned` are the poisoned, where that is known.
pub(crate) fn suspicion(
    quarantine: &Quarantine,
    plan: &TaskPlan,
    store: &dyn Store,
    poisoned: Option<&BTreeSet<Client>>,
) -> Result<Option<record::Suspicion>, Failure> {
    let events = store.events().map_err(|error| Failure::new(Exit::Output, error))?;
    let found = Suspicion::of(quarantine, plan, &events).map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(summary(&found, plan, poisoned))
}

fn summary(
    found: &Suspicion,
    plan: &TaskPlan,
    poisoned: Option<&BTreeSet<Client>>,
) -> Option<record::Suspicion> {
    let decoder = found.decoder()?;
    let mut suspects: Vec<(Client, Option<Evidence>)> = decoder
        .ranking()
        .into_iter()
        .filter(|(_, evidence)| found.names(evidence))
        .map(|(client, evidence)| (client, Some(evidence.into())))
        .collect();
    let named: BTreeSet<Client> = suspects.iter().map(|(client, _)| *client).collect();
    // Those whom the operator put there, whatever the rounds say.
    for client in found.quarantined().keys().filter(|client| !named.contains(client)) {
        suspects.push((*client, decoder.evidence(client).map(Evidence::from)));
    }
    let share = |of: usize, number: usize| (of > 0).then(|| number as f64 / of as f64);
    let hits =
        poisoned.map(|poisoned| suspects.iter().filter(|(client, _)| poisoned.contains(client)).count());
    let groups = plan.cohort.clients / plan.aggregation.group_size.max(1);
    Some(record::Suspicion {
        false_alarm: decoder.design().false_alarm,
        clients: decoder.design().clients as u32,
        fewest_rounds: decoder.fewest_rounds(&group_sizes(plan.cohort.clients, groups))[0],
        precision: hits.and_then(|hits| share(suspects.len(), hits)),
        recall: hits.zip(poisoned).and_then(|(hits, poisoned)| share(poisoned.len(), hits)),
        suspects: suspects
            .into_iter()
            .map(|(client, evidence)| record::Suspect {
                client: client.to_string(),
                quarantined: found.is_quarantined(&client),
                evidence,
            })
            .collect(),
    })
}

/// Suspects of a run, in one line.
pub(crate) fn told(suspicion: &record::Suspicion) -> String {
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
    let record::Suspicion { suspects, false_alarm, fewest_rounds, precision, recall, .. } = suspicion;
    if suspects.is_empty() {
        let fewest = fewest_rounds.map_or("no number of".to_owned(), |rounds| format!("{rounds} or more"));
        return format!("none named at a false-alarm rate of {false_alarm}; that takes {fewest} rounds");
    }
    let named = format!("{} named at a false-alarm rate of {false_alarm}", suspects.len());
    match (precision, recall) {
        (None, None) => named,
        _ => format!(
            "{named}; {} of them were poisoned, {} of the poisoned",
            percent(*precision),
            percent(*recall)
        ),
    }
}

/// What `fedveil robust suspects` prints.
pub(super) fn text(args: &SuspectsArgs) -> Result<String, Failure> {
    let found = read(&args.run, args.false_alarm, args.clients)?;
    let Some(decoder) = found.decoder() else {
        let message = "in mode insecure_plain a row is one client and no random group, so that nothing is known of what \
                       scores are by chance; its rounds.jsonl says what became of every row";
        return Err(Failure::new(Exit::Usage, format!("{}: {message}", args.run.display())));
    };
    let ranking = decoder.ranking();
    if args.json {
        let clients: Vec<_> = ranking
            .iter()
            .map(|(client, evidence)| {
                json!({
                    "client": client,
                    "evidence": Evidence::from(*evidence),
                    "named": decoder.names(evidence),
                    "named_despite_framing": decoder.names_despite_framing(evidence),
                    "quarantined": found.is_quarantined(client),
                })
            })
            .collect();
        let object = json!({
            "false_alarm": decoder.design().false_alarm,
            "clients_counted": decoder.design().clients.max(ranking.len()),
            "attackers": decoder.design().attackers,
            "groups_bet_on": decoder.design().poisoned_groups.max(1),
            "clients": clients,
        });
        return Ok(format!("{object:#}\n"));
    }
    let named = ranking.iter().filter(|(_, evidence)| decoder.names(evidence)).count();
    let listed = if args.all { ranking.len() } else { named.max(LISTED) };
    let mut text = String::new();
    let mut line =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string can be written to");
    line(format_args!("{:<64}  rounds  suspicious  by chance        p   framed  status", "client"));
    for (client, evidence) in ranking.iter().take(listed) {
        let status = match (found.quarantined().get(client), decoder.names(evidence)) {
            (Some(_), _) => "in quarantine",
            (None, true) => "named",
            (None, false) => "",
        };
        line(format_args!(
            "{client}  {:>6}  {:>10.1}  {:>9.1}  {:>7}  {:>7}  {status}",
            evidence.rounds,
            evidence.suspicious,
            evidence.expected,
            probability(evidence.p_value),
            probability(evidence.p_framed)
        ));
    }
    line(format_args!(
        "\n{named} of {} clients are named at a false-alarm rate of {}.\n\
         suspicious  rounds in which its group was among the {} most suspicious; by chance, how many that would be\n\
         p           bound on the probability that any honest client ever looks like it, if attackers aim at nobody\n\
         framed      the same, if {} attackers aim at it\n\
         Data that is unlike all other data looks the same as an attack.",
        ranking.len(),
        decoder.design().false_alarm,
        decoder.design().poisoned_groups.max(1),
        decoder.design().attackers
    ));
    Ok(text)
}

/// Leaves an order for the coordinator; gives what is printed.
pub(super) fn order(args: &OrderArgs, release: bool) -> Result<String, Failure> {
    let OrderArgs { run: folder, client, reason } = args;
    let refused = |message: String| Failure::new(Exit::Usage, format!("{}: {message}", folder.display()));
    if reason.trim().is_empty()
        || reason.len() > MAX_REASON
        || !reason.bytes().all(|b| (32..127).contains(&b))
    {
        let message =
            format!("--reason is {reason:?}, accepted is a line of 1 to {MAX_REASON} ASCII characters");
        return Err(Failure::new(Exit::Usage, message));
    }
    if folder.join(run::INDEX_FILE).exists() {
        return Err(refused("its task is over and signed; accepted is one that goes on".to_owned()));
    }
    let found = read(folder, 0.01, None)?;
    match (release, found.is_quarantined(client)) {
        (true, false) => return Err(refused(format!("client {client} is not in quarantine"))),
        (false, true) => return Err(refused(format!("client {client} is in quarantine already"))),
        _ => {}
    }
    if !release && !found.has_seen(client) {
        return Err(refused(format!("no client {client} ever took part")));
    }
    let order = Order { client: *client, release, reason: reason.clone() };
    SqliteStore::leave_order(folder, &order).map_err(|error| Failure::new(Exit::Output, error))?;
    let what = if release {
        "its quarantine is lifted"
    } else {
        "it is put in quarantine, unless that leaves too few clients for a round, which the coordinator's log would say,"
    };
    Ok(format!("client {client}: {what} within seconds, or when the coordinator is started again\n"))
}

fn read(folder: &Path, false_alarm: f64, clients: Option<u32>) -> Result<Suspicion, Failure> {
    let failure = |error: String| Failure::new(Exit::Usage, format!("{}: {error}", folder.display()));
    let events = SqliteStore::read(folder).map_err(|error| Failure::new(Exit::Usage, error))?;
    let plan = plan_of(&events).map_err(failure)?;
    let settings = Quarantine {
        mode: QuarantineMode::Report,
        false_alarm,
        clients: clients.unwrap_or(plan.cohort.clients),
        minimum_rounds: 1,
        contact: String::new(),
    };
    Suspicion::of(&settings, &plan, &events).map_err(|error| failure(error.to_string()))
}

/// A probability, rounded up.
fn probability(value: f64) -> String {
    if value >= 0.001 {
        return format!("{:.3}", (1e3 * value).ceil() / 1e3);
    }
    format!("{value:.0e}")
}
