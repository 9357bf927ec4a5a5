//! Durable state of one task: SQLite for events, ledger, log and tokens, files for blobs.
//!
//! ```text
//! OUT/state.sqlite        events, ledger (one row per charge), log (manifest and checkpoint), tokens (hash, redeemer),
//!                         orders of the operator that are not carried out yet
//! OUT/blobs/<sha256>      models, optimiser states, group sums
//! OUT/manifests/, OUT/checkpoints/   the log again, as files that `fedveil verify` reads
//! ```
//!
//! Events and the rows that mirror them are one transaction, so no model is published without its ledger entries and no
//! charge is lost. Blobs are written and synced before the transaction that names them. `events` is the authority; the
//! other tables are there to be read by people and tools. A state is read as if someone else had made it: see `reading`.

mod reading;

use fedveil_coordinator_core::{Event, Store, StoreError};
use fedveil_provenance::Digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The database in a run folder.
pub const STATE_FILE: &str = "state.sqlite";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS ledger (seq INTEGER NOT NULL REFERENCES events, client TEXT NOT NULL,
        PRIMARY KEY (seq, client)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS log (leaf_index INTEGER PRIMARY KEY, round INTEGER NOT NULL, model TEXT NOT NULL,
        manifest BLOB NOT NULL, checkpoint TEXT NOT NULL, seq INTEGER NOT NULL REFERENCES events) STRICT;
    CREATE TABLE IF NOT EXISTS tokens (secret_sha256 TEXT PRIMARY KEY, client TEXT) STRICT;
    CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, client TEXT NOT NULL, release INTEGER NOT NULL,
        reason TEXT NOT NULL) STRICT;
";

/// What the operator wants done about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whom it is about.
    pub client: Digest,
    /// Whether its quarantine is to be lifted; otherwise it is put there.
    pub release: bool,
    /// Why, for the log and the client.
    pub reason: String,
}

/// The store of one run folder.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Mutex<Connection>,
    folder: PathBuf,
}

impl SqliteStore {
    /// Opens or creates the state in `folder`, which exists.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        for name in ["blobs", "manifests", "checkpoints"] {
            fs::create_dir_all(folder.join(name)).map_err(|error| failed(&folder.join(name), &error))?;
        }
        let path = folder.join(STATE_FILE);
        let connection = Connection::open(&path).map_err(|error| failed(&path, &error))?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
            .and_then(|()| connection.execute_batch(SCHEMA))
            .map_err(|error| failed(&path, &error))?;
        Ok(Self { connection: Mutex::new(connection), folder: folder.to_owned() })
    }

    /// The events of the run in `folder`, which is not changed, and which anyone may have made: what no coordinator writes
    /// is refused.
    pub fn read(folder: &Path) -> Result<Vec<Event>, StoreError> {
        let path = folder.join(STATE_FILE);
        reading::events(&reading::open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?, &path)
    }

    /// Leaves an order for the coordinator of the run in `folder`, which takes it within seconds, or when it is started
    /// again. The task is not over.
    pub fn leave_order(folder: &Path, order: &Order) -> Result<(), StoreError> {
        let path = folder.join(STATE_FILE);
        let connection = reading::open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let Order { client, release, reason } = order;
        connection
            .execute_batch(SCHEMA)
            .and_then(|()| {
                connection.execute(
                    "INSERT INTO orders (client, release, reason) VALUES (?1, ?2, ?3)",
                    params![client.to_string(), release, reason],
                )
            })
            .map(drop)
            .map_err(|error| failed(&path, &error))
    }

    /// Orders that are not carried out, with their numbers, in order.
    pub fn orders(&self) -> Result<Vec<(i64, Order)>, StoreError> {
        let rows: Vec<(i64, String, bool, String)> = self.transaction(|tx| {
            tx.prepare("SELECT number, client, release, reason FROM orders ORDER BY number")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })?;
        let parse = |(number, client, release, reason): (i64, String, bool, String)| {
            let client = client.parse().map_err(|error| StoreError(format!("table orders: {error}")))?;
            Ok((number, Order { client, release, reason }))
        };
        rows.into_iter().map(parse).collect()
    }

    /// Forgets the orders up to this number.
    pub fn forget_orders(&self, last: i64) -> Result<(), StoreError> {
        self.transaction(|tx| tx.execute("DELETE FROM orders WHERE number <= ?1", [last]).map(drop))
    }

    /// Ends write-ahead logging, so that `state.sqlite` alone is the state and can be indexed.
    pub fn seal(&self) -> Result<(), StoreError> {
        self.lock()
            .pragma_update(None, "journal_mode", "DELETE")
            .map_err(|error| StoreError(error.to_string()))
    }

    /// Where the state lives.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Registers one-time join tokens by the hash of their secret.
    pub fn add_tokens(&self, hashes: &[[u8; 32]]) -> Result<(), StoreError> {
        self.transaction(|tx| {
            let mut statement = tx.prepare("INSERT OR IGNORE INTO tokens (secret_sha256) VALUES (?1)")?;
            hashes.iter().try_for_each(|hash| statement.execute([hex::encode(hash)]).map(drop))
        })
    }

    /// Marks a token as redeemed. `None`: no such token; `Some(false)`: it was redeemed before.
    pub fn redeem_token(&self, hash: [u8; 32], client: [u8; 32]) -> Result<Option<bool>, StoreError> {
        let (hash, client) = (hex::encode(hash), hex::encode(client));
        self.transaction(|tx| {
            let taken = tx.execute(
                "UPDATE tokens SET client = ?2 WHERE secret_sha256 = ?1 AND client IS NULL",
                [&hash, &client],
            )?;
            let known: bool = tx.query_row(
                "SELECT EXISTS (SELECT 1 FROM tokens WHERE secret_sha256 = ?1)",
                [&hash],
                |row| row.get(0),
            )?;
            Ok(known.then_some(taken == 1))
        })
    }

    /// The client that redeemed a token, by the hash of its secret.
    pub fn redeemer(&self, hash: [u8; 32]) -> Result<Option<Digest>, StoreError> {
        let client: Option<String> = self.transaction(|tx| {
            tx.query_row("SELECT client FROM tokens WHERE secret_sha256 = ?1", [hex::encode(hash)], |row| {
                row.get(0)
            })
            .optional()
            .map(Option::flatten)
        })?;
        client
            .map(|client| client.parse().map_err(|error| StoreError(format!("table tokens: {error}"))))
            .transpose()
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let result = connection.transaction().and_then(|tx| {
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        result.map_err(|error| failed(&self.folder.join(STATE_FILE), &error))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log's files follow its rows; they can be written again from them at any time.
    fn write_log_files(&self, leaf: usize, manifest: &[u8], checkpoint: &str) -> Result<(), StoreError> {
        write_durably(&self.folder.join(format!("manifests/{leaf:05}.dsse.json")), manifest)?;
        write_durably(&self.folder.join(format!("checkpoints/{leaf:05}.checkpoint")), checkpoint.as_bytes())?;
        write_durably(&self.folder.join("manifest.dsse.json"), manifest)
    }
}

impl Store for SqliteStore {
    fn append(&self, events: &[Event], blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        for blob in blobs {
            write_durably(&self.blob_path(&Digest::of(blob)), blob)?;
        }
        self.transaction(|tx| events.iter().try_for_each(|event| append_event(tx, event)))?;
        for event in events {
            if let Event::Published { model, manifest, checkpoint, .. } = event {
                let leaves: usize = self
                    .transaction(|tx| {
                        tx.query_row("SELECT COUNT(*) FROM log", [], |row| row.get::<_, i64>(0))
                    })?
                    .try_into()
                    .map_err(|_| StoreError("log size is negative".into()))?;
                self.write_log_files(leaves - 1, &manifest.0, checkpoint)?;
                write_durably(&self.folder.join("model.safetensors"), &self.blob(model)?)?;
            }
        }
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
        if Digest::of(&bytes) != *digest {
            return Err(StoreError(format!("{}: content does not match its name", path.display())));
        }
        Ok(bytes.into())
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        reading::events(&self.lock(), &self.folder.join(STATE_FILE))
    }
}

impl SqliteStore {
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.to_string())
    }
}

/// One event and the rows that mirror it.
fn append_event(tx: &rusqlite::Transaction<'_>, event: &Event) -> rusqlite::Result<()> {
    let body = serde_json::to_string(event)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    tx.prepare("INSERT INTO events (body) VALUES (?1)")?.execute([body])?;
    let seq = tx.last_insert_rowid();
    match event {
        Event::PrivacyCharged { clients, .. } => {
            let mut insert = tx.prepare("INSERT INTO ledger (seq, client) VALUES (?1, ?2)")?;
            for client in clients {
                insert.execute(params![seq, client.to_string()])?;
            }
        }
        Event::Published { round, model, manifest, checkpoint, .. } => {
            tx.execute(
                "INSERT INTO log (leaf_index, round, model, manifest, checkpoint, seq)
                 VALUES ((SELECT COUNT(*) FROM log), ?1, ?2, ?3, ?4, ?5)",
                params![round, model.to_string(), manifest.0, checkpoint, seq],
            )?;
        }
        _ => {}
    }
    Ok(())
}

/// Writes a file so that after a crash either the old or the new content is there.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("partial");
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError(format!("{}: {error}", path.display()))
}
