//! `fedveil privacy ledger`: what was spent, by whom, and what is left.
//!
//! Three parties keep a ledger, each by itself: a device of what left it, a task's run of its clients, and a
//! population's coordinator of its clients over all tasks. One command reads them all, by what a folder holds.

use crate::exit::{Exit, Failure};
use fedveil_client::record::RecordFile;
use fedveil_client_core::Record;
use fedveil_coordinator::population::{POPULATION_FILE, PopulationLedger, PopulationReport};
use fedveil_coordinator::store::{STATE_FILE, SqliteStore};
use fedveil_coordinator_core::{Event, ledger_of};
use fedveil_privacy::{Delta, Ledger};
use fedveil_proto_plan::TaskPlan;
use fedveil_provenance::{Digest, Envelope};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The file that a client remembers in, where its configuration names no other.
const RECORD_FILE: &str = "record.json";

/// What is accepted in place of a path that holds no ledger.
const ACCEPTED: &str = "accepted are a client's record file or the folder that holds record.json, a coordinator's \
                        folder of keys, and a run folder";

/// A ledger that was found.
enum Found {
    Device(PathBuf),
    Population(PathBuf),
    Run(PathBuf),
}

/// The ledger at `path`, as text and as JSON. `delta` is that of a device's total.
pub(super) fn read(path: &Path, delta: Delta) -> Result<(Value, String), Failure> {
    let output = |error: &dyn std::fmt::Display| Failure::new(Exit::Output, error);
    match find(path)? {
        Found::Device(file) => {
            let record = RecordFile::File(file.clone()).load().map_err(|error| output(&error))?;
            Ok(device(&file, &record, delta))
        }
        Found::Population(file) => {
            let report = PopulationLedger::report(&file).map_err(|error| output(&error))?;
            Ok(population(&file, &report))
        }
        Found::Run(folder) => {
            let events = SqliteStore::read(&folder).map_err(|error| output(&error))?;
            let plan = plan_of(&events).map_err(|error| output(&error))?;
            let ledger = ledger_of(&plan, &events).map_err(|error| output(&error))?;
            Ok(run(&folder, &plan, &ledger))
        }
    }
}

fn find(path: &Path) -> Result<Found, Failure> {
    let failure =
        |detail: &str| Failure::new(Exit::Usage, format!("{}: {detail}; {ACCEPTED}", path.display()));
    if path.is_file() {
        return Ok(Found::Device(path.to_owned()));
    }
    if !path.is_dir() {
        return Err(failure("there is no such file or folder"));
    }
    let file = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
    file(POPULATION_FILE)
        .map(Found::Population)
        .or_else(|| file(STATE_FILE).map(|_| Found::Run(path.to_owned())))
        .or_else(|| file(RECORD_FILE).map(Found::Device))
        .ok_or_else(|| failure("it holds no ledger"))
}

/// The plan that the run was opened with. Who signed it is not looked at: the ledger is for its owner to read, and
/// `fedveil verify` for everyone else.
pub(crate) fn plan_of(events: &[Event]) -> Result<TaskPlan, String> {
    let Some(Event::TaskOpened { plan, .. }) = events.first() else {
        return Err("the run has no task".to_owned());
    };
    let envelope = Envelope::parse(&plan.0).map_err(|error| error.to_string())?;
    serde_json::from_slice(envelope.danger_unverified_payload()).map_err(|error| error.to_string())
}

fn device(file: &Path, record: &Record, delta: Delta) -> (Value, String) {
    let mut text = format!("what has left this device, by its own record {}\n", file.display());
    let mut tasks = Vec::new();
    let mut updates = 0;
    for (digest, task) in &record.tasks {
        let epsilon = task.epsilon();
        line(
            &mut text,
            format_args!(
                "task {:?} ({}): {}, epsilon {} at delta {}",
                task.name,
                short(&digest.to_string()),
                count(task.participations, "update"),
                up(epsilon),
                task.delta
            ),
        );
        for contribution in &task.contributions {
            let what = if contribution.judged { "  what it says of the new model" } else { "" };
            line(
                &mut text,
                format_args!("  round {:>5}  {}{what}", contribution.round, time(contribution.at)),
            );
        }
        updates += task.participations;
        tasks.push(json!({
            "task": digest,
            "name": task.name,
            "participations": task.participations,
            "contributions": task.contributions,
            "epsilon": number(epsilon),
            "delta": task.delta,
        }));
    }
    let total = record.epsilon(delta);
    line(
        &mut text,
        format_args!(
            "in all: {} in {}, epsilon {} at delta {delta}",
            count(updates, "update"),
            count(record.tasks.len() as u32, "task"),
            up(total)
        ),
    );
    text.push_str(
        "Each was an update of a model, clipped and with noise, never the data itself. Whatever anyone concludes from \
         all of them\ntogether, they would have concluded almost as likely had this device sent zeros: by a factor of \
         at most e to the epsilon,\nbut for a probability of delta.",
    );
    let report = json!({
        "ledger": "device",
        "tasks": tasks,
        "participations": updates,
        "epsilon": number(total),
        "delta": delta.get(),
    });
    (report, text)
}

fn population(file: &Path, report: &PopulationReport) -> (Value, String) {
    let PopulationReport { limit, tasks, clients } = report;
    let losses = tasks.iter().map(|(task, (_, loss))| (*task, loss.clone())).collect();
    let limited = |epsilon: f64| (limit.epsilon - epsilon).max(0.0);
    let mut text = format!(
        "population of {}, over {}; {} at delta {}\n",
        file.display(),
        count(tasks.len() as u32, "task"),
        if limit.epsilon.is_finite() {
            format!("a client may spend epsilon {}", limit.epsilon)
        } else {
            "not limited".to_owned()
        },
        limit.delta
    );
    for (task, (name, _)) in tasks {
        let of_task = clients.values().filter_map(|entries| entries.get(task));
        let (charged, reserved) = of_task
            .fold((0, 0), |(charged, reserved), entry| (charged + entry.charged, reserved + entry.reserved));
        line(
            &mut text,
            format_args!(
                "task {name:?} ({}): {} charged, {reserved} reserved",
                short(&task.to_string()),
                count(charged, "participation")
            ),
        );
    }
    heading(&mut text);
    let mut rows = Vec::new();
    let mut most = (0.0f64, 0.0f64);
    for (client, entries) in clients {
        let (spent, with_reserved) = limit.standing(&losses, entries);
        most = (most.0.max(spent), most.1.max(with_reserved));
        let charged = entries.values().map(|entry| entry.charged).sum();
        let reserved = entries.values().map(|entry| entry.reserved).sum();
        row(&mut text, &client.to_string(), charged, reserved, spent, limited(with_reserved));
        let of_tasks: Vec<Value> = entries
            .iter()
            .map(
                |(task, entry)| json!({ "task": task, "charged": entry.charged, "reserved": entry.reserved }),
            )
            .collect();
        rows.push(json!({
            "client": client,
            "tasks": of_tasks,
            "epsilon_spent": number(spent),
            "epsilon_with_reserved": number(with_reserved),
            "epsilon_left": number(limited(with_reserved)),
        }));
    }
    write!(
        text,
        "in all: {}; the most that one has spent is epsilon {}, {} with what is reserved",
        count(clients.len() as u32, "client"),
        up(most.0),
        up(most.1)
    )
    .expect("a string can be written to");
    let names: Vec<Value> =
        tasks.iter().map(|(task, (name, _))| json!({ "task": task, "name": name })).collect();
    let report = json!({
        "ledger": "population",
        "epsilon_limit": number(limit.epsilon),
        "delta": limit.delta.get(),
        "tasks": names,
        "clients": rows,
        "epsilon_spent": number(most.0),
        "epsilon_with_reserved": number(most.1),
    });
    (report, text)
}

fn run(folder: &Path, plan: &TaskPlan, ledger: &Ledger) -> (Value, String) {
    let (budget, delta) = (ledger.budget().get(), plan.privacy.delta);
    let mut text = format!(
        "task {:?} of run {}; a client may spend epsilon {budget} at delta {delta}, {} at most\n",
        plan.task,
        folder.display(),
        count(ledger.cap(), "participation")
    );
    heading(&mut text);
    let mut rows = Vec::new();
    let mut most = 0.0f64;
    for client in ledger.clients() {
        let (charged, reserved) = (ledger.participations(client), ledger.reserved(client));
        let with_reserved = ledger.guarantee().epsilon(charged.saturating_add(reserved));
        most = most.max(with_reserved);
        let left = (budget - with_reserved).max(0.0);
        row(&mut text, &Digest(*client).to_string(), charged, reserved, ledger.spent(client), left);
        rows.push(json!({
            "client": Digest(*client).to_string(),
            "charged": charged,
            "reserved": reserved,
            "epsilon_spent": number(ledger.spent(client)),
            "epsilon_with_reserved": number(with_reserved),
            "epsilon_left": number(left),
        }));
    }
    write!(
        text,
        "in all: {}; the most that one has spent is epsilon {}, {} with what is reserved",
        count(rows.len() as u32, "client"),
        up(ledger.max_spent()),
        up(most)
    )
    .expect("a string can be written to");
    let report = json!({
        "ledger": "run",
        "task": plan.task,
        "epsilon_limit": budget,
        "delta": delta,
        "participations_limit": ledger.cap(),
        "clients": rows,
        "epsilon_spent": number(ledger.max_spent()),
        "epsilon_with_reserved": number(most),
    });
    (report, text)
}

fn heading(text: &mut String) {
    line(text, format_args!("{:<64}  charged  reserved      spent       left", "client"));
}

fn row(text: &mut String, client: &str, charged: u32, reserved: u32, spent: f64, left: f64) {
    let left = if left.is_finite() { format!("{left:.4}") } else { "any".to_owned() };
    line(text, format_args!("{client:<64}  {charged:>7}  {reserved:>8}  {:>9}  {left:>9}", up(spent)));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string can be written to");
}

/// JSON has no infinity: what is not limited is null.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

/// Four digits, rounded up.
fn up(value: f64) -> String {
    if value.is_finite() { format!("{:.4}", (value * 1e4).ceil() / 1e4) } else { "without bound".to_owned() }
}

fn short(digest: &str) -> &str {
    &digest[..12]
}

fn count(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn time(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("at {unix_seconds} seconds"), |time| time.to_string())
}
