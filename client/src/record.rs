//! Where the client's memory is kept between rounds and restarts.

use fedveil_client_core::{RECORD_VERSION, Record};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Largest record file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The record's place.
#[derive(Debug, Clone)]
pub enum RecordFile {
    /// It ends with the process: for clients that are tasks of one.
    Memory,
    /// A JSON file, replaced as a whole.
    File(PathBuf),
}

/// Why the record cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("client record {path}: {reason}")]
pub struct RecordError {
    path: PathBuf,
    reason: String,
}

impl RecordFile {
    /// Reads the record; an absent file is an empty record.
    pub fn load(&self) -> Result<Record, RecordError> {
        let Self::File(path) = self else { return Ok(Record::default()) };
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(failed(path, &error)),
        };
        if length > MAX_BYTES {
            return Err(failed(path, &format!("{length} bytes, accepted are up to {MAX_BYTES}")));
        }
        let bytes = fs::read(path).map_err(|error| failed(path, &error))?;
        // The version first: another format would fail on whichever of its fields comes first.
        let record: Value = serde_json::from_slice(&bytes).map_err(|error| failed(path, &error))?;
        match record.get("version") {
            Some(version) if *version == RECORD_VERSION => {}
            Some(version) => {
                return Err(failed(path, &format!("format version {version}, accepted is {RECORD_VERSION}")));
            }
            None => return Err(failed(path, &"names no format version")),
        }
        serde_json::from_value(record).map_err(|error| failed(path, &error))
    }

    /// Keeps every other agent away from the record, until the value is dropped: two that wrote it would each forget what
    /// the other has spent.
    pub fn lock(&self) -> Result<Option<fs::File>, RecordError> {
        let Self::File(path) = self else { return Ok(None) };
        let file = fs::File::create(path.with_extension("lock")).map_err(|error| failed(path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => {
                Err(failed(path, &"in use by another client; accepted is one at a time"))
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(path, &error)),
        }
    }

    /// Makes the record durable.
    pub fn save(&self, record: &Record) -> Result<(), RecordError> {
        let Self::File(path) = self else { return Ok(()) };
        let temporary = path.with_extension("partial");
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| failed(path, &error))
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> RecordError {
    RecordError { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_provenance::Digest;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        (folder, path)
    }

    #[test]
    fn survives_a_restart() {
        let (_folder, path) = folder();
        let file = RecordFile::File(path);
        assert_eq!(file.load().unwrap(), Record::default());
        let record: Record = serde_json::from_str(&record_json(RECORD_VERSION)).unwrap();
        file.save(&record).unwrap();
        let read = file.load().unwrap();
        assert_eq!(read, record);
        assert_eq!(read.tasks.values().next().unwrap().last_round, 7);
    }

    fn record_json(version: u32) -> String {
        let task = Digest::of(b"plan");
        format!(
            r#"{{"version":{version},"tasks":{{"{task}":{{"name":"test","delta":1e-5,
            "loss":{{"participation":[[2.0,0.1]],"once":false,"failure":0.0}},"last_round":7,"participations":1,
            "contributions":[{{"round":6,"at":1000}}],"head":null,"model":null}}}}}}"#
        )
    }

    #[test]
    fn one_agent_at_a_time_has_the_record() {
        let (_folder, path) = folder();
        let file = RecordFile::File(path);
        let held = file.lock().unwrap();
        let error = file.lock().unwrap_err().to_string();
        assert!(error.contains("record.json: in use by another client"), "{error}");
        drop(held);
        assert!(file.lock().unwrap().is_some());
        assert!(RecordFile::Memory.lock().unwrap().is_none());
    }

    #[test]
    fn names_a_damaged_file() {
        let (_folder, path) = folder();
        for (content, expected) in [
            (r#"{"version": 2}"#.to_owned(), "missing field `tasks`"),
            (record_json(1), "format version 1, accepted is 2"),
            (record_json(3), "format version 3, accepted is 2"),
            ("{}".to_owned(), "names no format version"),
            ("[]".to_owned(), "names no format version"),
            ("not JSON".to_owned(), "expected"),
        ] {
            fs::write(&path, content).unwrap();
            let error = RecordFile::File(path.clone()).load().unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains(expected), "{error}");
        }
    }
}
