//! The folder of data, as the readers of formats see it.

use crate::exit::{Exit, Failure};
use fedveil_simulations::datasets::{DatasetError, Files};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// A folder with a folder for every set.
pub(crate) struct DataFolder(PathBuf);

impl DataFolder {
    /// The folder at `path`, which need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// A path below it. One that is absolute is itself: a scenario may name a file anywhere.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.join(Path::new(below))
    }

    /// What a person is told who asked for data that cannot be had.
    pub(crate) fn explain(&self, error: &DatasetError) -> Failure {
        match error {
            DatasetError::Missing { .. } => {
                Failure::new(Exit::Usage, format!("{error} (the folder is {})", self.0.display()))
            }
            _ => Failure::new(Exit::Usage, error),
        }
    }
}

impl Files for DataFolder {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(BufReader::new(File::open(self.path(path))?)))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.path(folder))?
            .map(|entry| {
                let name = entry?.file_name();
                name.into_string().map_err(|name| io::Error::other(format!("{} is no UTF-8", name.display())))
            })
            .collect()
    }
}
