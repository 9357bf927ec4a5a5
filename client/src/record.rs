//! Where the client's memory is kept between rounds and restarts.

use fedveil_client_core::Record;
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
        serde_json::from_slice(&bytes).map_err(|error| failed(path, &error))
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

    #[test]
    fn survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::File(folder.path().join("record.json"));
        assert_eq!(file.load().unwrap(), Record::default());
        let mut record = Record::default();
        record.tasks.entry(Digest::of(b"plan")).or_default().last_round = 7;
        file.save(&record).unwrap();
        assert_eq!(file.load().unwrap(), record);
    }

    #[test]
    fn names_a_damaged_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(&path, "{\"version\": 1}").unwrap();
        let error = RecordFile::File(path.clone()).load().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("tasks"), "{error}");
    }
}
