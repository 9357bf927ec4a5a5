//! The run folder: made before the run, signed after it.

use crate::exit::{Exit, Failure};
use ed25519_dalek::SigningKey;
use fedveil_coordinator::store::write_durably;
use fedveil_provenance::{Digest, build_index, run};
use fedveil_simulations::partition::Holdings;
use fedveil_simulations::record::{RoundRecord, Summary};
use fedveil_simulations::report;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Who holds what, where the run knows it.
const SPLIT_FILE: &str = "split.json";

/// A folder for the run of one task.
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the folder. One that has something in it is taken only if `resume` allows it and its run was cut off: what
    /// is signed as a whole is not touched again.
    pub(crate) fn create(path: &Path, resume: bool) -> Result<Self, Failure> {
        let failure = |detail: &dyn std::fmt::Display| {
            Failure::new(Exit::Output, format!("output folder {}: {detail}", path.display()))
        };
        fs::create_dir_all(path).map_err(|error| failure(&error))?;
        let mut entries = fs::read_dir(path).map_err(|error| failure(&error))?;
        if !resume && entries.next().is_some() {
            return Err(failure(&"it is not empty; accepted is a new or an empty folder"));
        }
        if path.join(run::INDEX_FILE).exists() {
            return Err(failure(
                &"its run is over and signed; accepted is a new folder, or one whose run was cut off",
            ));
        }
        let probe = path.join("rounds.jsonl");
        fs::OpenOptions::new().create(true).append(true).open(&probe).map_err(|error| failure(&error))?;
        Ok(Self(path.to_owned()))
    }

    /// The rounds that an earlier process wrote to `rounds.jsonl`.
    pub(crate) fn rounds(&self) -> Result<Vec<RoundRecord>, Failure> {
        let path = self.0.join("rounds.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| unwritable(&path, &error))?;
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|error| unwritable(&path, &format!("line {}: {error}", number + 1)))
        };
        text.lines().enumerate().map(parse).collect()
    }

    /// Adds a file to the folder, or to one inside it.
    pub(crate) fn add(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
        }
        write_durably(&path, bytes).map_err(|error| unwritable(&path, &error))
    }

    /// Keeps of `rounds.jsonl` the records that `is_kept` names, up to where an earlier process was cut off in writing.
    pub(crate) fn keep_rounds(
        &self,
        is_kept: impl Fn(&RoundRecord) -> bool,
    ) -> Result<Vec<RoundRecord>, Failure> {
        let path = self.0.join("rounds.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| unwritable(&path, &error))?;
        let (mut lines, mut rounds) = (String::new(), Vec::new());
        for line in text.split_inclusive('\n') {
            let Ok(record) = serde_json::from_str(line) else { break };
            if is_kept(&record) {
                lines.push_str(line);
                rounds.push(record);
            }
        }
        self.write("rounds.jsonl", lines.as_bytes())?;
        Ok(rounds)
    }

    /// Adds a file that a run can make again.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
        }
        fs::write(&path, bytes).map_err(|error| unwritable(&path, &error))
    }

    /// Adds who holds what, for the report.
    pub(crate) fn add_split(&self, split: &Holdings) -> Result<(), Failure> {
        let path = self.0.join(SPLIT_FILE);
        let json = serde_json::to_vec(split).map_err(|error| unwritable(&path, &error))?;
        self.add(SPLIT_FILE, &json)
    }

    /// Who holds what, where that was added, perhaps by an earlier process.
    fn split(&self) -> Result<Option<Holdings>, Failure> {
        let path = self.0.join(SPLIT_FILE);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| unwritable(&path, &error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unwritable(&path, &error)),
        }
    }

    /// Adds a round to `rounds.jsonl`.
    pub(crate) fn append(&self, record: &RoundRecord) -> Result<(), Failure> {
        let path = self.0.join("rounds.jsonl");
        let mut line = serde_json::to_vec(record).map_err(|error| unwritable(&path, &error))?;
        line.push(b'\n');
        let append = || fs::OpenOptions::new().append(true).open(&path)?.write_all(&line);
        append().map_err(|error: std::io::Error| unwritable(&path, &error))
    }

    /// Writes summary and report, and signs the index of every file in the folder.
    pub(crate) fn seal(
        &self,
        summary: &Summary,
        rounds: &[RoundRecord],
        notes: &[String],
        key: &SigningKey,
    ) -> Result<(), Failure> {
        let mut json = serde_json::to_vec_pretty(summary).map_err(|error| unwritable(&self.0, &error))?;
        json.push(b'\n');
        self.add("summary.json", &json)?;
        let page = report::html(summary, rounds, notes, self.split()?.as_ref());
        self.add("report.html", page.as_bytes())?;
        self.add(run::KEY_FILE, run::encode_key(&key.verifying_key()).as_bytes())?;
        let mut files = Vec::new();
        self.digests(Path::new(""), &mut files)?;
        let index =
            build_index(&files, key).map_err(|error| unwritable(&self.0.join(run::INDEX_FILE), &error))?;
        self.add(run::INDEX_FILE, &index)
    }

    fn digests(&self, below: &Path, files: &mut Vec<(String, Digest)>) -> Result<(), Failure> {
        let folder = self.0.join(below);
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = entries.map_err(|error| unwritable(&folder, &error))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = below.join(entry.file_name());
            if entry.path().is_dir() {
                self.digests(&path, files)?;
            } else if path != Path::new(run::INDEX_FILE) {
                let bytes = fs::read(entry.path()).map_err(|error| unwritable(&entry.path(), &error))?;
                let name: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
                files.push((name.join("/"), Digest::of(&bytes)));
            }
        }
        Ok(())
    }
}

pub(crate) fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Output, format!("{}: {error}", path.display()))
}
