//! A simulation on disk: enough of it to go on from the last round that was over.
//!
//! ```text
//! FOLDER/checkpoint.json   where the run stood, and how long the other files were then; replaced by renaming
//!        events.jsonl      events, one a line, appended
//!        devices.bin       what is left of devices that are gone, appended, the newest entry of a client counts
//!        blobs/            the newest model, those that clients train on and the optimiser's state, by digest
//!        memory/           what trainers keep, by client and round
//! ```
//!
//! A checkpoint is taken between two rounds, where no session is open: what it names is durable before it is. Bytes behind
//! the lengths that it states are of a round that was not over, and are cut off; that round is run again, with the same
//! draws. Files carry a digest of what they held, so that another run's, or damaged ones, are refused.

use super::attendance::Flight;
use super::device::Kept;
use super::progress::RoundSummary;
use fedveil_coordinator_core::{Event, Millis, StoreError};
use fedveil_provenance::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Format of the folder.
const VERSION: u32 = 2;
/// Bytes of an entry of devices.bin: client, last round, participations, and the round of its memory, 0 for none, as
/// little-endian u32.
const ENTRY: usize = 16;

/// Which events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Events {
    /// All of them.
    #[default]
    All,
    /// Those that say something after their round: sessions, and messages of rounds, are left out. For runs of many rounds
    /// or clients.
    Lasting,
}

/// What has to be said of a run between two rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    version: u32,
    /// Digest of what the run is made of.
    setup: Digest,
    /// The last round.
    round: u32,
    /// Virtual time.
    now: Millis,
    /// The round, if nobody has taken note of it.
    summary: Option<RoundSummary>,
    blobs: Vec<Digest>,
    /// Clients that train or have finished, and have not checked in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    flights: BTreeSet<Flight>,
    events: Extent,
    devices: Extent,
}

/// So much of a file, and its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extent {
    bytes: u64,
    sha256: Digest,
}

/// A run's folder, while it runs.
pub(super) struct Journal {
    folder: PathBuf,
    setup: Digest,
    which: Events,
    events: Appended,
    devices: Appended,
    /// Memory files that the newest checkpoint names, and the rounds in their names.
    memories: BTreeMap<u32, u32>,
}

/// What a run goes on with.
pub(super) struct Restored {
    pub(super) now: Millis,
    pub(super) summary: Option<RoundSummary>,
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) kept: BTreeMap<u32, Kept>,
    pub(super) memories: BTreeMap<u32, Vec<u8>>,
    pub(super) flights: BTreeSet<Flight>,
}

struct Appended {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    hash: Sha256,
}

impl Journal {
    /// Begins a run in a folder that holds none.
    pub(super) fn create(folder: &Path, setup: Digest, which: Events) -> Result<Self, StoreError> {
        if folder.join("checkpoint.json").exists() {
            return Err(StoreError(format!(
                "{} holds a run already: resume it, or choose another folder",
                folder.display()
            )));
        }
        for path in [folder.to_owned(), folder.join("blobs"), folder.join("memory")] {
            fs::create_dir_all(&path).map_err(|error| failed("create", &path, &error))?;
        }
        let events = Appended::create(folder.join("events.jsonl"))?;
        let devices = Appended::create(folder.join("devices.bin"))?;
        Ok(Self { folder: folder.to_owned(), setup, which, events, devices, memories: BTreeMap::new() })
    }

    /// Goes on with the run in a folder. One that holds nothing but the beginning of a first round begins again.
    pub(super) fn resume(
        folder: &Path,
        setup: Digest,
        which: Events,
    ) -> Result<(Self, Option<Restored>), StoreError> {
        let path = folder.join("checkpoint.json");
        if !path.exists() {
            return Ok((Self::create(folder, setup, which)?, None));
        }
        let checkpoint: Checkpoint = serde_json::from_slice(&read(&path)?)
            .map_err(|error| StoreError(format!("{}: {error}", path.display())))?;
        if (checkpoint.version, checkpoint.setup) != (VERSION, setup) {
            return Err(StoreError(format!(
                "{}: the run has another plan, policy, seed or population, or was written by another version",
                path.display()
            )));
        }
        let (events, _) = Appended::resume(folder.join("events.jsonl"), checkpoint.events)?;
        let (devices, entries) = Appended::resume(folder.join("devices.bin"), checkpoint.devices)?;
        let mut restored = Restored {
            now: checkpoint.now,
            summary: checkpoint.summary,
            blobs: Vec::new(),
            kept: BTreeMap::new(),
            memories: BTreeMap::new(),
            flights: checkpoint.flights,
        };
        let mut journal =
            Self { folder: folder.to_owned(), setup, which, events, devices, memories: BTreeMap::new() };
        for entry in entries.as_chunks::<ENTRY>().0 {
            let [client, last_round, participations, memory] = std::array::from_fn(|word| {
                u32::from_le_bytes(std::array::from_fn(|at| entry[4 * word + at]))
            });
            restored.kept.insert(client, Kept { last_round, participations });
            if memory > 0 {
                journal.memories.insert(client, memory);
            }
        }
        for (&client, &round) in &journal.memories {
            restored.memories.insert(client, read(&journal.memory(client, round))?);
        }
        for digest in &checkpoint.blobs {
            let path = journal.blob(digest);
            let blob = read(&path)?;
            if Digest::of(&blob) != *digest {
                return Err(StoreError(format!("{}: its content has another digest", path.display())));
            }
            restored.blobs.push(blob);
        }
        Ok((journal, Some(restored)))
    }

    /// Writes events, to be durable with the next checkpoint.
    pub(super) fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            if self.which == Events::All || is_lasting(event) {
                let mut line = serde_json::to_vec(event).map_err(|error| StoreError(error.to_string()))?;
                line.push(b'\n');
                self.events.append(&line)?;
            }
        }
        Ok(())
    }

    /// All events that were written.
    pub(super) fn events(&mut self) -> Result<Vec<Event>, StoreError> {
        self.events.file.flush().map_err(|error| failed("write", &self.events.path, &error))?;
        let text = read(&self.events.path)?;
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let parse = |line| {
            serde_json::from_slice(line)
                .map_err(|error| StoreError(format!("{}: {error}", self.events.path.display())))
        };
        lines.map(parse).collect()
    }

    /// SHA-256 of all events that were written, and how many bytes that is.
    pub(super) fn digest(&self) -> Digest {
        Digest(self.events.hash.clone().finalize().into())
    }

    /// Makes durable where the run stands. `gone` are devices that have left since the last checkpoint, with what their
    /// trainers keep; `blobs` are those that the next round reads.
    pub(super) fn checkpoint<'a>(
        &mut self,
        round: u32,
        now: Millis,
        summary: Option<&RoundSummary>,
        flights: &BTreeSet<Flight>,
        blobs: &BTreeMap<Digest, std::sync::Arc<[u8]>>,
        gone: impl Iterator<Item = (u32, Kept, Option<&'a [u8]>)>,
    ) -> Result<(), StoreError> {
        let mut outdated = Vec::new();
        for (client, kept, memory) in gone {
            let known = self.memories.get(&client).copied();
            let of = match memory {
                Some(memory) => {
                    let of = known.map_or(round.max(1), |known| round.max(known + 1));
                    write(&self.memory(client, of), memory)?;
                    outdated.extend(known.map(|known| self.memory(client, known)));
                    self.memories.insert(client, of);
                    of
                }
                None => known.unwrap_or(0),
            };
            let words = [client, kept.last_round, kept.participations, of];
            let entry: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.devices.append(&entry)?;
        }
        for (digest, blob) in blobs {
            let path = self.blob(digest);
            if !path.exists() {
                write(&path, blob)?;
            }
        }
        let checkpoint = Checkpoint {
            version: VERSION,
            setup: self.setup,
            round,
            now,
            summary: summary.cloned(),
            blobs: blobs.keys().copied().collect(),
            flights: flights.clone(),
            events: self.events.sync()?,
            devices: self.devices.sync()?,
        };
        let json = serde_json::to_vec_pretty(&checkpoint).map_err(|error| StoreError(error.to_string()))?;
        let (path, new) = (self.folder.join("checkpoint.json"), self.folder.join("checkpoint.json.new"));
        write(&new, &json)?;
        for folder in ["blobs", "memory"].map(|name| self.folder.join(name)) {
            sync_folder(&folder)?;
        }
        fs::rename(&new, &path).map_err(|error| failed("rename", &new, &error))?;
        sync_folder(&self.folder)?;
        // Nothing names them any more; a crash in between leaves files that nobody reads.
        for path in outdated {
            let _ = fs::remove_file(path);
        }
        for entry in fs::read_dir(self.folder.join("blobs")).into_iter().flatten().flatten() {
            if !blobs.keys().any(|digest| entry.file_name() == digest.to_string().as_str()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.to_string())
    }

    fn memory(&self, client: u32, round: u32) -> PathBuf {
        self.folder.join("memory").join(format!("{client}-{round}"))
    }
}

/// Whether an event says anything once its round is over. It must not name what only an event that is left out explains.
fn is_lasting(event: &Event) -> bool {
    !matches!(
        event,
        Event::ClientConnected { .. }
            | Event::ClientJoined { .. }
            | Event::ClientLeft { .. }
            | Event::Advertised { .. }
            | Event::RosterSealed { .. }
            | Event::Revealed { .. }
            | Event::GroupsFormed { .. }
            | Event::Shared { .. }
            | Event::InputAccepted { .. }
            | Event::Signed { .. }
            | Event::Unmasked { .. }
            | Event::GroupAdvanced { .. }
            | Event::UnmaskStarted { .. }
            | Event::AggregationStarted
    )
}

impl Appended {
    fn create(path: PathBuf) -> Result<Self, StoreError> {
        let file = File::create(&path).map_err(|error| failed("create", &path, &error))?;
        Ok(Self { path, file: BufWriter::new(file), bytes: 0, hash: Sha256::new() })
    }

    /// Opens a file and cuts off what is behind this extent, which it gives.
    fn resume(path: PathBuf, extent: Extent) -> Result<(Self, Vec<u8>), StoreError> {
        let mut content = read(&path)?;
        content.truncate(usize::try_from(extent.bytes).unwrap_or(usize::MAX));
        let mut hash = Sha256::new();
        hash.update(&content);
        if content.len() as u64 != extent.bytes || Digest(hash.clone().finalize().into()) != extent.sha256 {
            return Err(StoreError(format!("{}: not what the checkpoint says it held", path.display())));
        }
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(extent.bytes)?;
            Ok(file)
        };
        let file = open().map_err(|error| failed("open", &path, &error))?;
        Ok((Self { path, file: BufWriter::new(file), bytes: extent.bytes, hash }, content))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| failed("write", &self.path, &error))
    }

    fn sync(&mut self) -> Result<Extent, StoreError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(|error| failed("write", &self.path, &error))?;
        Ok(Extent { bytes: self.bytes, sha256: Digest(self.hash.clone().finalize().into()) })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|error| failed("read", path, &error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()
    });
    written.map_err(|error| failed("write", path, &error))
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync", path, &error))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError(format!("failed to {what} {}: {error}", path.display()))
}
