//! Reading a state that someone else may have made: run folders are passed on, to be verified, audited and replayed.
//!
//! SQLite is given a regular file with nothing but regular files beside it, and trusts no schema in it. Before a row is
//! read, the table of events must be the very one that [`SCHEMA`](super::SCHEMA) makes: no view, no virtual table, no
//! column that is computed. Rows are numbered from 1 without a gap and are together no longer than their file, so that no
//! page of it counts twice and a small file makes no large state. Each is an [`Event`].
//!
//! Absent: what the events mean. The ledger, `replay` and the rest judge that.

use std::fs;
use std::path::{Path, PathBuf};

use fedveil_coordinator_core::{Event, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::failed;

/// The statement of the table, as SQLite keeps it.
const EVENTS_TABLE: &str = "CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT";

/// What SQLite keeps beside a database, by the end of its name.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Opens a database that is there already, of whatever origin.
pub(super) fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    if !is_regular(path)? {
        return Err(failed(path, &"there is no such file"));
    }
    for companion in COMPANIONS {
        is_regular(&beside(path, companion))?;
    }
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| failed(path, &error))
}

/// All events of the database at `path`, in order.
pub(super) fn events(connection: &Connection, path: &Path) -> Result<Vec<Event>, StoreError> {
    let unreadable = |error: rusqlite::Error| failed(path, &error);
    // One transaction: the definition is that of the rows.
    let snapshot = connection.unchecked_transaction().map_err(unreadable)?;
    let definition: Option<(String, String)> = snapshot
        .query_row("SELECT type, sql FROM sqlite_schema WHERE name = 'events'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(unreadable)?;
    match &definition {
        Some((kind, sql)) if kind == "table" && sql == EVENTS_TABLE => {}
        Some(_) => return Err(failed(path, &"its events are not the table that a coordinator makes")),
        None => return Err(failed(path, &"it has no table of events")),
    }
    let bound = length(path)?;
    let mut taken = 0;
    let mut events = Vec::new();
    let mut statement =
        snapshot.prepare("SELECT seq, body FROM events NOT INDEXED ORDER BY seq").map_err(unreadable)?;
    let mut rows = statement.query([]).map_err(unreadable)?;
    while let Some(row) = rows.next().map_err(unreadable)? {
        let expected = events.len() as i64 + 1;
        let number: i64 = row.get(0).map_err(unreadable)?;
        if number != expected {
            let detail = format!("event {expected} has the number {number}");
            return Err(failed(path, &detail));
        }
        let of_event = |error: &dyn std::fmt::Display| failed(path, &format!("event {number}: {error}"));
        let body = row.get_ref(1).map_err(unreadable)?.as_str().map_err(|error| of_event(&error))?;
        taken += body.len() as u64;
        if taken > bound {
            return Err(of_event(&format!("with it the events are longer than their file, {bound} bytes")));
        }
        events.push(serde_json::from_str(body).map_err(|error| of_event(&error))?);
    }
    Ok(events)
}

/// Bytes of the database and of what is not yet in its file.
fn length(path: &Path) -> Result<u64, StoreError> {
    let main = fs::metadata(path).map_err(|error| failed(path, &error))?;
    let ahead = fs::metadata(beside(path, COMPANIONS[0])).map_or(0, |found| found.len());
    Ok(main.len().saturating_add(ahead))
}

/// Whether there is a file at `path`; whatever else is there is refused: links lead elsewhere, and a pipe may never end.
fn is_regular(path: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(failed(path, &"not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, &error)),
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use fedveil_coordinator_core::Store;
    use tempfile::TempDir;

    use super::super::{STATE_FILE, SqliteStore};
    use super::*;

    /// An event whose body is of this many bytes.
    fn event(length: usize) -> Event {
        let empty = serde_json::to_string(&Event::TaskClosed { reason: String::new() }).unwrap();
        Event::TaskClosed { reason: "x".repeat(length - empty.len()) }
    }

    /// A run folder with events of these lengths, whose state is one file.
    fn run(lengths: &[usize]) -> TempDir {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let events: Vec<Event> = lengths.iter().map(|length| event(*length)).collect();
        store.append(&events, &[]).unwrap();
        store.seal().unwrap();
        folder
    }

    /// Why the state is refused; the message begins with the file.
    fn refusal(folder: &TempDir) -> String {
        let StoreError(message) = SqliteStore::read(folder.path()).unwrap_err();
        let path = folder.path().join(STATE_FILE).display().to_string();
        message.strip_prefix(&path).unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    /// Why the state is refused once its owner has changed it by these statements.
    fn refusal_after(statements: &str) -> String {
        let folder = run(&[50, 60, 70]);
        let connection = Connection::open(folder.path().join(STATE_FILE)).unwrap();
        connection.execute_batch(statements).unwrap();
        drop(connection);
        refusal(&folder)
    }

    #[test]
    fn what_a_coordinator_writes_is_read_while_it_runs_and_after() {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(SqliteStore::read(folder.path()).unwrap(), []);
        let events = [event(50), event(20_000)];
        store.append(&events, &[]).unwrap();
        assert_eq!(SqliteStore::read(folder.path()).unwrap(), events);
        assert_eq!(store.events().unwrap(), events);
        store.seal().unwrap();
        drop(store);
        assert_eq!(SqliteStore::read(folder.path()).unwrap(), events);
    }

    #[test]
    fn events_that_are_no_table_of_a_coordinator_are_refused() {
        let other = ": its events are not the table that a coordinator makes";
        // Rows without end, from a file of a few pages.
        let view = "DROP TABLE events; CREATE VIEW events AS WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 \
                    FROM n) SELECT seq, '' AS body FROM n;";
        let computed = "DROP TABLE events; CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT NOT NULL \
                        GENERATED ALWAYS AS (hex(zeroblob(1000000))) VIRTUAL) STRICT;";
        let lax = "DROP TABLE events; CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT NOT NULL);";
        for statements in [view, computed, lax] {
            let folder = run(&[]);
            let connection = Connection::open(folder.path().join(STATE_FILE)).unwrap();
            connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
            connection.execute_batch(statements).unwrap();
            drop(connection);
            assert_eq!(refusal(&folder), other, "{statements}");
        }
        assert_eq!(
            refusal_after("PRAGMA foreign_keys = OFF; DROP TABLE events"),
            ": it has no table of events"
        );
    }

    #[test]
    fn rows_that_are_no_events_are_refused_by_their_number() {
        let wrong = |body: &str| refusal_after(&format!("UPDATE events SET body = {body} WHERE seq = 2"));
        assert!(wrong("'{'").starts_with(": event 2: EOF"));
        assert!(wrong("'{\"event\":\"coup\"}'").starts_with(": event 2: unknown variant `coup`"));
        assert!(wrong("'{\"event\":\"task-closed\"}'").starts_with(": event 2: missing field `reason`"));
        assert!(wrong("replace(hex(zeroblob(500)), '00', '[')").starts_with(": event 2: "));
        let not_text = wrong("CAST(x'7bff' AS TEXT)");
        assert!(not_text.starts_with(": event 2: ") && not_text.contains("utf-8"), "{not_text}");
    }

    #[test]
    fn numbers_have_no_gap() {
        assert_eq!(refusal_after("DELETE FROM events WHERE seq = 2"), ": event 2 has the number 3");
        assert_eq!(refusal_after("UPDATE events SET seq = -5 WHERE seq = 2"), ": event 1 has the number -5");
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = run(&[50]);
        let path = folder.path().join(STATE_FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, b"no database, but longer than the header of one".repeat(10)).unwrap();
        assert_eq!(refusal(&folder), ": file is not a database");
        fs::write(&path, b"").unwrap();
        assert_eq!(refusal(&folder), ": it has no table of events");
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(refusal(&folder).starts_with(": "));
        fs::remove_file(&path).unwrap();
        assert_eq!(refusal(&folder), ": there is no such file");
    }

    /// Every byte, one after another: what is read is events, or refused.
    #[test]
    fn no_changed_byte_makes_it_panic() {
        let folder = run(&[50, 5_000]);
        let path = folder.path().join(STATE_FILE);
        let whole = fs::read(&path).unwrap();
        let mut refused = 0;
        // Most bytes are of pages with nothing in them, or of the long text.
        let header_and_ends =
            (0..whole.len()).filter(|at| at % 4096 < 120 || at % 4096 > 3_900 || at % 97 == 0);
        for at in header_and_ends {
            let mut changed = whole.clone();
            changed[at] ^= 0x81;
            fs::write(&path, &changed).unwrap();
            refused += u32::from(SqliteStore::read(folder.path()).is_err());
        }
        assert!(refused > 100, "{refused}");
    }

    /// Three hundred rows, each with a page of its own behind what stands in the row, are changed to share the two pages
    /// of the first one: SQLite reads them, and so little a file would be ever so many events.
    #[test]
    fn rows_that_share_pages_are_refused() {
        const SHORT: usize = 4_195;
        const LONG: usize = 8_180;
        // What SQLite keeps in the row of a text that long, before the number of the page that goes on with it.
        const LOCAL: usize = 489;
        let folder = run(&[&[LONG][..], &[SHORT; 300]].concat());
        let path = folder.path().join(STATE_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let size = bytes.len();
        let rows: Vec<usize> = (0..bytes.len() / 4096).flat_map(|page| cells(&bytes, page * 4096)).collect();
        let long =
            rows.iter().find(|&&row| two_bytes(&bytes, row) == LONG + 4).copied().expect("the first row");
        // Length of the row, number, then a header of 4 bytes that ends with the length of the text.
        let header = |bytes: &[u8], row: usize| row + 2 + if bytes[row + 2] < 0x80 { 1 } else { 2 };
        let behind = header(&bytes, long) + LOCAL;
        let (length, text, chain) = (
            bytes[long..long + 2].to_vec(),
            bytes[header(&bytes, long)..][..4].to_vec(),
            bytes[behind..behind + 4].to_vec(),
        );
        let mut changed = 0;
        for row in rows.into_iter().filter(|&row| row != long) {
            if two_bytes(&bytes, row) == SHORT + 4 {
                let start = header(&bytes, row);
                bytes[row..row + 2].copy_from_slice(&length);
                bytes[start..start + 4].copy_from_slice(&text);
                bytes[start + LOCAL..start + LOCAL + 4].copy_from_slice(&chain);
                changed += 1;
            }
        }
        assert_eq!(changed, 300);
        fs::write(&path, &bytes).unwrap();
        let found = refusal(&folder);
        assert!(
            found.ends_with(&format!(": with it the events are longer than their file, {size} bytes")),
            "{found}"
        );
    }

    /// Where the cells of a page begin, if it is a leaf of a table.
    fn cells(bytes: &[u8], page: usize) -> Vec<usize> {
        let start = page + if page == 0 { 100 } else { 0 };
        let pair = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        match bytes[start] {
            13 => (0..pair(start + 3)).map(|cell| page + pair(start + 8 + 2 * cell)).collect(),
            _ => Vec::new(),
        }
    }

    /// A number of 128 to 16383, as SQLite writes it.
    fn two_bytes(bytes: &[u8], at: usize) -> usize {
        match bytes[at..] {
            [high, low, ..] if high >= 0x80 && low < 0x80 => usize::from(high & 0x7f) << 7 | usize::from(low),
            _ => 0,
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_pipes_and_folders_are_not_opened() {
        let folder = run(&[50]);
        let path = folder.path().join(STATE_FILE);
        let elsewhere = folder.path().join("elsewhere");
        for companion in COMPANIONS {
            std::os::unix::fs::symlink(&elsewhere, beside(&path, companion)).unwrap();
            assert_eq!(refusal(&folder), format!("{companion}: not a regular file"));
            fs::remove_file(beside(&path, companion)).unwrap();
        }
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(refusal(&folder), ": not a regular file");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(refusal(&folder), ": not a regular file");
        fs::remove_dir(&path).unwrap();
        let listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(refusal(&folder), ": not a regular file");
        drop(listening);
    }
}
