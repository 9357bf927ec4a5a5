//! Files of data, read with a bound on every length and an account of where they are wrong.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::DatasetError;

/// The most bytes that one file may hold, once unpacked: 1 GiB. The largest file of the catalog has half of it.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// Bytes that memory is taken for at once: 8 MiB.
const STEP: u64 = 1 << 23;

/// The two bytes that a gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where files of data are. Paths have `/` between their parts and are relative to a folder that the
/// implementation knows.
pub trait Files {
    /// Opens a file; [`io::ErrorKind::NotFound`] where there is none.
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + '_>>;

    /// Names of the files in a folder, in any order; [`io::ErrorKind::NotFound`] where there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
}

/// Files in memory, by path.
impl Files for BTreeMap<String, Vec<u8>> {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + '_>> {
        let bytes = self.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(bytes.as_slice()))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inside = |path: &String| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
        let names: Vec<String> = self.keys().filter_map(inside).filter(|name| !name.contains('/')).collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
    }
}

/// One file while it is read. Packed and plain files look the same.
pub(super) struct Input<'a> {
    file: String,
    reader: Box<dyn Read + 'a>,
    /// Bytes read, after unpacking.
    at: u64,
}

impl<'a> Input<'a> {
    /// Opens the first of `paths` that is there, plain or with `.gz` after its name. What is packed is told by its
    /// first bytes, not by its name.
    pub(super) fn open(files: &'a dyn Files, paths: &[&str]) -> Result<Self, DatasetError> {
        for path in paths.iter().flat_map(|path| [(*path).to_owned(), format!("{path}.gz")]) {
            match files.open(&path) {
                Ok(reader) => return Self::unpacked(path, reader),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DatasetError::Unreadable { file: path, detail: error.to_string() }),
            }
        }
        Err(DatasetError::Missing { file: paths.join(" or ") })
    }

    fn unpacked(file: String, mut reader: Box<dyn Read + 'a>) -> Result<Self, DatasetError> {
        let mut first = Vec::new();
        reader
            .by_ref()
            .take(2)
            .read_to_end(&mut first)
            .map_err(|error| DatasetError::Unreadable { file: file.clone(), detail: error.to_string() })?;
        let packed = first == GZIP;
        let whole = Cursor::new(first).chain(reader);
        let reader: Box<dyn Read + 'a> =
            if packed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(Self { file, reader, at: 0 })
    }

    /// Exactly `count` bytes, which are `what`. Memory grows with what is there, not with what is asked for.
    pub(super) fn exactly(&mut self, count: u64, what: &str) -> Result<Vec<u8>, DatasetError> {
        let bytes = self.up_to(count)?;
        if bytes.len() as u64 == count {
            return Ok(bytes);
        }
        let found = format!("the end of the file after {} bytes", bytes.len());
        Err(self.malformed(self.at, found, format!("{count} bytes of {what}")))
    }

    /// All that is left, at most [`MAX_FILE_BYTES`].
    pub(super) fn rest(&mut self) -> Result<Vec<u8>, DatasetError> {
        let bytes = self.up_to(MAX_FILE_BYTES)?;
        if bytes.len() as u64 == MAX_FILE_BYTES {
            let found = "a longer file".to_owned();
            return Err(self.malformed(self.at, found, format!("less than {MAX_FILE_BYTES} bytes")));
        }
        Ok(bytes)
    }

    /// All that is left, as text.
    pub(super) fn text(&mut self) -> Result<String, DatasetError> {
        let start = self.at;
        String::from_utf8(self.rest()?).map_err(|error| {
            let at = start + error.utf8_error().valid_up_to() as u64;
            self.malformed(at, "bytes that are no UTF-8".to_owned(), "text in UTF-8".to_owned())
        })
    }

    /// Nothing may be left.
    pub(super) fn end(mut self) -> Result<(), DatasetError> {
        let at = self.at;
        if self.up_to(1)?.is_empty() {
            return Ok(());
        }
        Err(self.malformed(at, "more bytes".to_owned(), "the end of the file".to_owned()))
    }

    /// The name that errors give.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// An error about what is at byte `at`.
    pub(super) fn malformed(&self, at: u64, found: String, expected: String) -> DatasetError {
        malformed(&self.file, format!("byte {at}"), found, expected)
    }

    /// At most `count` bytes, less at the end of the file.
    fn up_to(&mut self, count: u64) -> Result<Vec<u8>, DatasetError> {
        let mut bytes = Vec::new();
        let outcome = loop {
            let step = (count - bytes.len() as u64).min(STEP);
            // Room for what comes next and no more: a vector that doubles would take twice the file.
            bytes.reserve_exact(step as usize);
            match self.reader.by_ref().take(step).read_to_end(&mut bytes) {
                Ok(read) if read as u64 == step && (bytes.len() as u64) < count => {}
                outcome => break outcome,
            }
        };
        self.at += bytes.len() as u64;
        match outcome {
            Ok(_) => Ok(bytes),
            // What a decoder says of a packed file that was cut short.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.malformed(
                self.at,
                "the end of the packed file".to_owned(),
                "the rest of its contents".to_owned(),
            )),
            Err(error) => {
                Err(DatasetError::Unreadable { file: self.file.clone(), detail: error.to_string() })
            }
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.at += count as u64;
        if self.at > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        Ok(count)
    }
}

/// An error about the place `at` of a file.
pub(super) fn malformed(file: &str, at: String, found: String, expected: String) -> DatasetError {
    DatasetError::Malformed { file: file.to_owned(), at, found, expected }
}
