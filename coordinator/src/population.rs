//! The population's ledger on disk: who has spent what, over all tasks of the coordinators that share a key folder.
//!
//! ```text
//! KEYS/population.sqlite   tasks            digest of the signed plan, name, loss of one participation
//!                          participations   client, task, round; reserved or charged
//!                          allowed          the limit that a coordinator enforced last, for whoever reads the file
//! ```
//!
//! One file, readable by its owner alone, beside the keys: it says who took part in what. Several coordinators may have it
//! open; each call is one transaction that excludes the others. Rows are idempotent by client, task and round.
//!
//! Absent: which clients one person has. Whoever gets another join token is another client.

use fedveil_coordinator_core::{Client, Population, StoreError};
use fedveil_privacy::{Delta, Limit, Overdrawn, Participations, TaskLoss};
use fedveil_provenance::Digest;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The file in the folder of keys.
pub const POPULATION_FILE: &str = "population.sqlite";

/// Format of the file.
const VERSION: i64 = 1;

/// Time that another coordinator may take for its transaction.
const BUSY: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
    CREATE TABLE tasks (task TEXT PRIMARY KEY, name TEXT NOT NULL, loss TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE participations (client TEXT NOT NULL, task TEXT NOT NULL REFERENCES tasks, round INTEGER NOT NULL,
        charged INTEGER NOT NULL, PRIMARY KEY (client, task, round)) STRICT, WITHOUT ROWID;
    CREATE INDEX reserved ON participations (task) WHERE charged = 0;
    CREATE TABLE allowed (epsilon REAL NOT NULL, delta REAL NOT NULL) STRICT;
";

/// The ledger of a population, as one task sees it.
#[derive(Debug)]
pub struct PopulationLedger {
    connection: Mutex<Connection>,
    path: PathBuf,
    limit: Limit,
    task: Digest,
}

/// What is in the ledger of a population.
#[derive(Debug, Clone, PartialEq)]
pub struct PopulationReport {
    /// The limit that was enforced last.
    pub limit: Limit,
    /// Tasks by the digest of their plan: name, loss.
    pub tasks: BTreeMap<Digest, (String, TaskLoss)>,
    /// Everyone who has something reserved or charged, by task.
    pub clients: BTreeMap<Client, BTreeMap<Digest, Participations>>,
}

impl PopulationLedger {
    /// Opens the ledger in this file, which exists (an empty one becomes a ledger), for a task.
    pub fn open(
        path: &Path,
        limit: Limit,
        task: Digest,
        name: &str,
        loss: &TaskLoss,
    ) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(|error| failed(path, &error))?;
        Self::start(connection, path, limit, task, name, loss)
    }

    /// A ledger that lives as long as the value.
    pub fn in_memory(limit: Limit, task: Digest, name: &str, loss: &TaskLoss) -> Result<Self, StoreError> {
        let path = Path::new(":memory:");
        let connection = Connection::open_in_memory().map_err(|error| failed(path, &error))?;
        Self::start(connection, path, limit, task, name, loss)
    }

    /// Reads a ledger, without changing it.
    pub fn report(path: &Path) -> Result<PopulationReport, StoreError> {
        let read = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY)?;
            let tx = connection.transaction()?;
            check_version(&tx)?;
            let limit = tx.query_row("SELECT epsilon, delta FROM allowed", [], |row| {
                let delta = Delta::new(row.get(1)?).map_err(|error| unreadable(1, error))?;
                Ok(Limit { epsilon: row.get(0)?, delta })
            })?;
            let mut clients: BTreeMap<Client, BTreeMap<Digest, Participations>> = BTreeMap::new();
            let mut select =
                tx.prepare("SELECT client, task, charged, COUNT(*) FROM participations GROUP BY 1, 2, 3")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let entry = clients.entry(digest(row, 0)?).or_default().entry(digest(row, 1)?).or_default();
                count(row, 2, entry)?;
            }
            Ok(PopulationReport { limit, tasks: tasks(&tx)?, clients })
        };
        read().map_err(|error: rusqlite::Error| failed(path, &error))
    }

    fn start(
        mut connection: Connection,
        path: &Path,
        limit: Limit,
        task: Digest,
        name: &str,
        loss: &TaskLoss,
    ) -> Result<Self, StoreError> {
        let loss = serde_json::to_string(loss).map_err(|error| failed(path, &error))?;
        let mut start = || {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let tables: i64 = tx.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                tx.execute_batch(SCHEMA)?;
                tx.pragma_update(None, "user_version", VERSION)?;
            }
            check_version(&tx)?;
            tx.execute("DELETE FROM allowed", [])?;
            tx.execute("INSERT INTO allowed VALUES (?1, ?2)", params![limit.epsilon, limit.delta.get()])?;
            tx.execute(
                "INSERT INTO tasks VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET loss = excluded.loss",
                params![task.to_string(), name, loss],
            )?;
            tx.commit()
        };
        start().map_err(|error| failed(path, &error))?;
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned(), limit, task })
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let result = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|tx| {
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        result.map_err(|error| failed(&self.path, &error))
    }

    /// Who of these clients cannot pay for one more round.
    fn overdrawn(
        &self,
        tx: &Transaction<'_>,
        round: u32,
        clients: &[Client],
    ) -> rusqlite::Result<BTreeMap<Client, Overdrawn>> {
        let mut overdrawn = BTreeMap::new();
        if self.limit.epsilon == f64::INFINITY {
            return Ok(overdrawn);
        }
        let losses = tasks(tx)?.into_iter().map(|(task, (_, loss))| (task, loss)).collect();
        let mut select = tx.prepare(
            "SELECT task, charged, COUNT(*) FROM participations
             WHERE client = ?1 AND NOT (task = ?2 AND round = ?3) GROUP BY 1, 2",
        )?;
        // Most clients of a population have the same past.
        let mut known = BTreeMap::new();
        for client in clients {
            let mut spent: BTreeMap<Digest, Participations> = BTreeMap::new();
            let mut rows = select.query(params![client.to_string(), self.task.to_string(), round])?;
            while let Some(row) = rows.next()? {
                count(row, 1, spent.entry(digest(row, 0)?).or_default())?;
            }
            let verdict =
                known.entry(spent).or_insert_with_key(|spent| self.limit.check(&losses, spent, &self.task));
            overdrawn.extend(verdict.err().map(|verdict| (*client, verdict)));
        }
        Ok(overdrawn)
    }
}

impl Population for PopulationLedger {
    fn reserve(&self, round: u32, clients: &[Client]) -> Result<BTreeMap<Client, Overdrawn>, StoreError> {
        self.transaction(|tx| {
            let overdrawn = self.overdrawn(tx, round, clients)?;
            if overdrawn.is_empty() {
                let mut insert = tx.prepare("INSERT OR IGNORE INTO participations VALUES (?1, ?2, ?3, 0)")?;
                for client in clients {
                    insert.execute(params![client.to_string(), self.task.to_string(), round])?;
                }
            }
            Ok(overdrawn)
        })
    }

    fn charge(&self, round: u32, clients: &[Client]) -> Result<(), StoreError> {
        self.transaction(|tx| {
            let mut insert = tx.prepare(
                "INSERT INTO participations VALUES (?1, ?2, ?3, 1) ON CONFLICT DO UPDATE SET charged = 1",
            )?;
            clients.iter().try_for_each(|client| {
                insert.execute(params![client.to_string(), self.task.to_string(), round]).map(drop)
            })
        })
    }

    fn release_others(&self, holding: &BTreeSet<Client>) -> Result<(), StoreError> {
        self.transaction(|tx| {
            let mut select =
                tx.prepare("SELECT DISTINCT client FROM participations WHERE task = ?1 AND charged = 0")?;
            let task = self.task.to_string();
            let clients = select.query_map([&task], |row| digest(row, 0))?;
            let clients: Vec<Client> = clients.collect::<rusqlite::Result<_>>()?;
            let mut delete =
                tx.prepare("DELETE FROM participations WHERE client = ?1 AND task = ?2 AND charged = 0")?;
            for client in clients.iter().filter(|client| !holding.contains(client)) {
                delete.execute([&client.to_string(), &task])?;
            }
            Ok(())
        })
    }
}

fn check_version(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == VERSION {
        return Ok(());
    }
    let error = StoreError(format!("format version {version}, accepted is {VERSION}"));
    Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn tasks(tx: &Transaction<'_>) -> rusqlite::Result<BTreeMap<Digest, (String, TaskLoss)>> {
    let mut select = tx.prepare("SELECT task, name, loss FROM tasks")?;
    let rows = select.query_map([], |row| {
        let loss: String = row.get(2)?;
        let loss = serde_json::from_str(&loss).map_err(|error| unreadable(2, error))?;
        Ok((digest(row, 0)?, (row.get(1)?, loss)))
    })?;
    rows.collect()
}

/// Adds a row of `charged, COUNT(*)` to what is known.
fn count(row: &rusqlite::Row<'_>, column: usize, entry: &mut Participations) -> rusqlite::Result<()> {
    let (is_charged, count): (bool, u32) = (row.get(column)?, row.get(column + 1)?);
    *(if is_charged { &mut entry.charged } else { &mut entry.reserved }) = count;
    Ok(())
}

fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError(format!("population ledger {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_privacy::{NoiseMultiplier, RdpCurve};

    fn loss() -> TaskLoss {
        let participation = RdpCurve::gaussian(NoiseMultiplier::new(2.0).unwrap());
        TaskLoss { participation, once: false, failure: 0.0 }
    }

    /// A limit that pays for so many participations.
    fn limit(participations: u32) -> Limit {
        let delta = Delta::new(1e-5).unwrap();
        Limit { epsilon: loss().participation.compose(participations).epsilon(delta).epsilon, delta }
    }

    fn clients(numbers: std::ops::Range<u8>) -> Vec<Client> {
        numbers.map(|number| Digest([number; 32])).collect()
    }

    fn task(name: &str) -> Digest {
        Digest::of(name)
    }

    fn open(path: &Path, limit: Limit, name: &str) -> PopulationLedger {
        PopulationLedger::open(path, limit, task(name), name, &loss()).unwrap()
    }

    fn entry(charged: u32, reserved: u32) -> Participations {
        Participations { charged, reserved }
    }

    #[test]
    fn tasks_at_the_same_time_never_overspend() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POPULATION_FILE);
        let (one, other) = (open(&path, limit(2), "one"), open(&path, limit(2), "other"));
        assert!(one.reserve(1, &clients(0..3)).unwrap().is_empty());
        assert!(one.reserve(1, &clients(0..3)).unwrap().is_empty(), "twice is once");
        assert!(other.reserve(1, &clients(2..4)).unwrap().is_empty());
        let refused = other.reserve(2, &clients(1..4)).unwrap();
        assert_eq!(refused.keys().copied().collect::<Vec<_>>(), clients(2..3), "only who has two under way");
        let overdrawn = refused[&clients(2..3)[0]];
        assert!(!overdrawn.for_good && overdrawn.spent == 0.0, "{overdrawn}");
        assert_eq!((overdrawn.allowed, overdrawn.reserved), (limit(2).epsilon, limit(2).epsilon));

        // One of them comes to nothing, the other to a charge.
        one.release_others(&BTreeSet::from_iter(clients(0..2))).unwrap();
        other.charge(1, &clients(2..4)).unwrap();
        other.charge(1, &clients(2..4)).unwrap();
        assert!(other.reserve(2, &clients(1..4)).unwrap().is_empty());
        let report = PopulationLedger::report(&path).unwrap();
        assert_eq!(report.limit, limit(2));
        assert_eq!(report.tasks[&task("one")], ("one".to_owned(), loss()));
        let of = |number: u8| &report.clients[&Digest([number; 32])];
        assert_eq!(of(0), &BTreeMap::from([(task("one"), entry(0, 1))]));
        assert_eq!(of(1), &BTreeMap::from([(task("one"), entry(0, 1)), (task("other"), entry(0, 1))]));
        assert_eq!(of(2), &BTreeMap::from([(task("other"), entry(1, 1))]));
    }

    #[test]
    fn what_was_charged_outlives_the_task_and_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POPULATION_FILE);
        let first = open(&path, limit(2), "first");
        for round in [1, 2, 3] {
            first.charge(round, &clients(0..1)).unwrap();
        }
        drop(first);
        let second = open(&path, limit(2), "second");
        second.release_others(&BTreeSet::new()).unwrap();
        let refused = second.reserve(1, &clients(0..2)).unwrap();
        let overdrawn = &refused[&clients(0..1)[0]];
        assert!(overdrawn.for_good && refused.len() == 1);
        assert!(
            (overdrawn.spent / limit(3).epsilon - 1.0).abs() < 1e-9,
            "a charge is a fact, allowed or not"
        );
        let report = PopulationLedger::report(&path).unwrap();
        assert_eq!(report.clients.len(), 1, "all or none: the other client has nothing reserved");

        drop(second);
        let unlimited = Limit { epsilon: f64::INFINITY, ..limit(2) };
        assert!(open(&path, unlimited, "third").reserve(1, &clients(0..2)).unwrap().is_empty());
        assert_eq!(PopulationLedger::report(&path).unwrap().limit, unlimited);
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POPULATION_FILE);
        drop(open(&path, limit(1), "first"));
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        for error in [
            PopulationLedger::open(&path, limit(1), task("first"), "first", &loss()).err().unwrap(),
            PopulationLedger::report(&path).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("format version 7, accepted is 1") && text.contains(POPULATION_FILE),
                "{text}"
            );
        }
        std::fs::write(&path, "no database".repeat(1_000)).unwrap();
        let error = PopulationLedger::report(&path).unwrap_err().to_string();
        assert!(error.contains("not a database"), "{error}");
    }
}
