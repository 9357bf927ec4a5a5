//! Private keys of the coordinator on disk: one directory, outside of every run folder.
//!
//! A run folder is published, archived and sent to others; the directory of keys is not. [`KeyDirectory::open`] is
//! told both and refuses one inside the other. Files are created with mode 0600 in a directory of mode 0700 (on Unix),
//! written completely before they get their name, and refused when others can read them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use thiserror::Error;
use zeroize::Zeroizing;

/// A directory that holds private keys, one file each.
#[derive(Debug, Clone)]
pub struct KeyDirectory {
    path: PathBuf,
}

impl KeyDirectory {
    /// Opens the directory at `path`, creating it if needed; `published` is the folder that it must not be inside of
    /// (the run folder, which must exist).
    pub fn open(path: &Path, published: &Path) -> Result<Self, KeyError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyError::Io { path, source }
        };
        create_directory(path).map_err(at(path))?;
        let found = path.canonicalize().map_err(at(path))?;
        let published = published.canonicalize().map_err(at(published))?;
        if found.starts_with(&published) {
            return Err(KeyError::Published { keys: found, published });
        }
        Ok(Self { path: found })
    }

    /// The Ed25519 key called `name`: read from `NAME.key`, or drawn from the operating system and kept there.
    pub fn signing_key(&self, name: &str) -> Result<SigningKey, KeyError> {
        self.read_or_draw(name, "an Ed25519 seed").map(|seed| SigningKey::from_bytes(&seed))
    }

    /// The secret called `name`, 32 bytes: read from `NAME.key`, or drawn from the operating system and kept there.
    pub fn secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        self.read_or_draw(name, "a secret")
    }

    fn read_or_draw(&self, name: &str, what: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let bytes = self.read_or_create(&format!("{name}.key"), || {
            let mut seed = Zeroizing::new(vec![0; 32]);
            getrandom::fill(&mut seed)?;
            Ok(seed)
        })?;
        match bytes.as_slice().try_into() {
            Ok(seed) => Ok(Zeroizing::new(seed)),
            Err(_) => Err(KeyError::Damaged {
                path: self.path.join(format!("{name}.key")),
                reason: format!("holds {} bytes; {what} has 32", bytes.len()),
            }),
        }
    }

    /// Bytes of `file`, or what `create` makes, which is then kept there.
    pub(crate) fn read_or_create(
        &self,
        file: &str,
        create: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, KeyError>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        if let Some(bytes) = self.read(file)? {
            return Ok(bytes);
        }
        let bytes = create()?;
        self.write(file, &bytes)?;
        Ok(bytes)
    }

    /// Bytes of `file`; none if it does not exist.
    pub(crate) fn read(&self, file: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
        let path = self.path.join(file);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeyError::Io { path, source }),
        };
        if let Some(mode) = mode_open_to_others(&metadata) {
            return Err(KeyError::Exposed { path, mode });
        }
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(source) => Err(KeyError::Io { path, source }),
        }
    }

    /// Keeps `bytes` as `file`, readable by the owner alone.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.path.join(file);
        let partial = self.path.join(format!("{file}.partial"));
        let write = || {
            match fs::remove_file(&partial) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut out = create_private(&partial)?;
            out.write_all(bytes)?;
            out.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().map_err(|source| KeyError::Io { path: path.clone(), source })
    }

    /// The path of `file`, which is made empty if it is missing; refused where others than the owner can read it.
    pub(crate) fn private_file(&self, file: &str) -> Result<PathBuf, KeyError> {
        let path = self.path.join(file);
        match create_private(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(KeyError::Io { path, source }),
        }
        let metadata = fs::metadata(&path).map_err(|source| KeyError::Io { path: path.clone(), source })?;
        match mode_open_to_others(&metadata) {
            Some(mode) => Err(KeyError::Exposed { path, mode }),
            None => Ok(path),
        }
    }

    /// Where `file` is, for messages.
    pub(crate) fn path_of(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }
}

#[cfg(unix)]
fn create_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// The permission bits, if they let anyone but the owner at the file.
#[cfg(unix)]
fn mode_open_to_others(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn mode_open_to_others(_: &fs::Metadata) -> Option<u32> {
    None
}

/// Why a private key cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The directory is inside the published folder.
    #[error("key directory {keys} is inside of {published}, which is published; accepted is a directory outside of it", keys = keys.display(), published = published.display())]
    Published {
        /// The directory of keys.
        keys: PathBuf,
        /// The published folder.
        published: PathBuf,
    },
    /// Others than the owner have access to a key, or to who took part in what.
    #[error("{path} is private, its mode is {mode:04o}; accepted is 0600", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key's file does not hold such a key.
    #[error("{path} {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or directory cannot be read or written.
    #[error("failed to use {path}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A key cannot be made into a certificate's key.
    #[error("failed to make a key")]
    Generate(#[from] rcgen::Error),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random(#[from] getrandom::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir(&run).unwrap();
        let keys = root.path().join("keys");
        (root, run, keys)
    }

    #[test]
    fn a_key_is_drawn_once_and_kept() {
        let (_root, run, path) = folders();
        let directory = KeyDirectory::open(&path, &run).unwrap();
        let key = directory.signing_key("models").unwrap();
        assert_ne!(key.to_bytes(), directory.signing_key("enrollment").unwrap().to_bytes());
        let again = KeyDirectory::open(&path, &run).unwrap().signing_key("models").unwrap();
        assert_eq!(key.to_bytes(), again.to_bytes());
        let noise = directory.secret("noise").unwrap();
        assert_ne!(*noise, key.to_bytes(), "noise has a key of its own");
        assert_eq!(noise, directory.secret("noise").unwrap());
        assert!(!path.join("models.key.partial").exists());
    }

    #[test]
    fn a_key_directory_inside_the_run_folder_is_refused() {
        let (_root, run, _) = folders();
        for inside in [run.clone(), run.join("keys"), run.join("../run/a/b")] {
            assert!(matches!(KeyDirectory::open(&inside, &run), Err(KeyError::Published { .. })));
        }
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let (_root, run, path) = folders();
        let directory = KeyDirectory::open(&path, &run).unwrap();
        directory.write("models.key", b"short").unwrap();
        let error = directory.signing_key("models").unwrap_err();
        assert!(error.to_string().ends_with("models.key holds 5 bytes; an Ed25519 seed has 32"), "{error}");
        assert_eq!(fs::read(path.join("models.key")).unwrap(), b"short");
        directory.write("noise.key", b"short").unwrap();
        let error = directory.secret("noise").unwrap_err();
        assert!(error.to_string().ends_with("noise.key holds 5 bytes; a secret has 32"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_root, run, path) = folders();
        let directory = KeyDirectory::open(&path, &run).unwrap();
        let file = directory.private_file("population.sqlite").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, b"content").unwrap();
        directory.private_file("population.sqlite").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"content", "it is made once");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            directory.private_file("population.sqlite"),
            Err(KeyError::Exposed { mode: 0o644, .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_root, run, path) = folders();
        let directory = KeyDirectory::open(&path, &run).unwrap();
        directory.signing_key("models").unwrap();
        let file = path.join("models.key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(directory.signing_key("models"), Err(KeyError::Exposed { mode: 0o640, .. })));
        directory.secret("noise").unwrap();
        let file = path.join("noise.key");
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(directory.secret("noise"), Err(KeyError::Exposed { mode: 0o604, .. })));
    }
}
