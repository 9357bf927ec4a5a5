//! Configuration files: one list of keys for each kind of file, from which everything else follows.
//!
//! A [`Config`] is a plain serde structure whose `Default` is complete, beside a list that says of every key what it
//! means and what it accepts. The list is the authority: a key that it lacks is refused in files, so that no key can
//! be used without being documented; [`print_config`] writes it out with the defaults; error messages quote it.
//!
//! ```text
//! file ─► keys checked against the list ─► laid over the defaults ─► typed ─► Config::check ─► configuration
//! ```
//!
//! Absent: environment variables, includes, and several files laid over one another.

mod client;
mod coordinator;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Serialize, de::DeserializeOwned};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

pub(crate) use client::{ClientConfig, DataSection};
pub(crate) use coordinator::{CoordinatorConfig, ModelSection, TaskSection};

/// Most characters of a value that an error message repeats.
const EXCERPT: usize = 60;
/// Least similarity (Jaro-Winkler) for a key to be proposed in place of an unknown one.
const SIMILAR: f64 = 0.75;

/// A kind of configuration file.
pub(crate) trait Config: Default + Serialize + DeserializeOwned {
    /// First line of the printed file.
    const TITLE: &'static str;
    /// Every section and key, in printed order: those outside of sections first, each section before its keys.
    const KEYS: &'static [Key];

    /// Checks the values by themselves and against one another.
    ///
    /// [`load`] does; whoever changes a loaded configuration, as command-line options do, calls it again.
    fn check(&self) -> Result<(), Invalid>;

    /// A refusal of what was found at a key of the list, which says what the key accepts.
    fn refused(path: &str, found: impl fmt::Display) -> Invalid {
        let key = Self::KEYS.iter().find(|key| key.path == path).expect("only keys of the list are checked");
        Invalid::value(path, found, key.accepted)
    }
}

/// One key of a configuration file, or one section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Dotted path, such as `cohort.clients`.
    path: &'static str,
    meaning: &'static str,
    /// Accepted values and their unit; empty for a section.
    accepted: &'static str,
}

/// An entry of [`Config::KEYS`] for a key with a value.
const fn key(path: &'static str, meaning: &'static str, accepted: &'static str) -> Key {
    Key { path, meaning, accepted }
}

/// An entry of [`Config::KEYS`] for a table of keys.
const fn section(path: &'static str, meaning: &'static str) -> Key {
    Key { path, meaning, accepted: "" }
}

impl Key {
    fn is_section(&self) -> bool {
        self.accepted.is_empty()
    }

    /// The dotted path of the section that the key is in, empty at the top, and its name there.
    fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// A value that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Invalid {
    /// Dotted path of the key, where one key is to blame.
    key: Option<String>,
    message: String,
}

impl Invalid {
    /// One key has a value that it does not accept.
    fn value(key: impl Into<String>, found: impl fmt::Display, accepted: impl fmt::Display) -> Self {
        let key = key.into();
        Self { message: format!("{key} is {found}, accepted is {accepted}"), key: Some(key) }
    }

    /// Values do not fit one another.
    fn inconsistent(message: impl fmt::Display) -> Self {
        Self { key: None, message: message.to_string() }
    }
}

/// Why a configuration was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration file {}; --print-config prints one to start from", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: not TOML: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that this kind of file does not have.
    #[error("{place}: unknown key {key}{}; accepted {section} are {accepted}", hint(*nearest))]
    UnknownKey {
        /// Where.
        place: Place,
        /// Dotted path of the key.
        key: String,
        /// The key that may have been meant.
        nearest: Option<&'static str>,
        /// The section, in words.
        section: String,
        /// The keys of that section.
        accepted: String,
    },
    /// A value of the wrong type, out of range, or at odds with another one.
    #[error("{place}: {invalid}")]
    Value {
        /// Where.
        place: Place,
        /// What is wrong.
        invalid: Invalid,
    },
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file.
    pub(crate) file: PathBuf,
    /// Line, from 1, where one line can be named.
    pub(crate) line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

/// Reads and checks a configuration file. Keys that it leaves out have their defaults.
pub(crate) fn load<T: Config>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        _ => ConfigError::Read { path: path.to_owned(), error },
    })?;
    parse(path, &text)
}

/// A file with every key, its default, its meaning and what it accepts.
pub(crate) fn print_config<T: Config>() -> String {
    let defaults = defaults::<T>();
    let mut text = format!("# {}\n# A key that is left out has the value shown here.\n", T::TITLE);
    for key in T::KEYS {
        let (Key { path, meaning, accepted }, (_, name)) = (key, key.split());
        let written = if key.is_section() {
            write!(text, "\n# {meaning}\n[{path}]\n")
        } else {
            let value = lookup(&defaults, path).expect("a key of the list has a default");
            write!(text, "\n# {meaning}\n# Accepted: {accepted}.\n{name} = {value}\n")
        };
        written.expect("a string can be written to");
    }
    text
}

fn parse<T: Config>(file: &Path, text: &str) -> Result<T, ConfigError> {
    let source = Source::parse(file, text)?;
    source.check_keys(T::KEYS, "", &source.document)?;
    let mut table = defaults::<T>();
    overlay(&mut table, text.parse().map_err(|error| syntax(file, text, &error))?);
    let config: T = serde_path_to_error::deserialize(table.clone())
        .map_err(|error| source.invalid(ill_typed(T::KEYS, &table, &error)))?;
    config.check().map_err(|invalid| source.invalid(invalid))?;
    Ok(config)
}

fn defaults<T: Config>() -> Table {
    Table::try_from(T::default()).expect("a configuration is a table of tables and plain values")
}

/// Replaces in `base` what `given` has.
fn overlay(base: &mut Table, given: Table) {
    for (key, value) in given {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(given)) => overlay(base, given),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// The value at a dotted path.
fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let value = table.get(first)?;
    rest.map_or(Some(value), |rest| lookup(value.as_table()?, rest))
}

/// What is wrong with a value that its field cannot hold.
fn ill_typed(keys: &[Key], table: &Table, error: &serde_path_to_error::Error<toml::de::Error>) -> Invalid {
    // The path may go on inside of a value, as in names[1].
    let names = error.path().iter().map_while(|segment| match segment {
        serde_path_to_error::Segment::Map { key } => Some(key.as_str()),
        _ => None,
    });
    let path = names.collect::<Vec<_>>().join(".");
    match (keys.iter().find(|key| key.path == path), lookup(table, &path)) {
        (Some(key), Some(found)) => Invalid::value(path, excerpt(found), key.accepted),
        _ => Invalid { key: Some(path), message: error.to_string() },
    }
}

/// A value as TOML, cut where it is long, with its type.
fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}… ({})", &text[..end], value.type_str()),
        None => format!("{text} ({})", value.type_str()),
    }
}

/// A parsed file that knows where its keys stand.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    document: DeTable<'a>,
}

impl<'a> Source<'a> {
    fn parse(file: &'a Path, text: &'a str) -> Result<Self, ConfigError> {
        let document = DeTable::parse(text).map_err(|error| syntax(file, text, &error))?;
        Ok(Self { file, text, document: document.into_inner() })
    }

    /// Refuses keys that are not in the list, and plain values in the place of sections.
    fn check_keys(&self, keys: &[Key], section: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
            let Some(known) = keys.iter().find(|key| key.path == path) else {
                return Err(self.unknown(keys, section, name.get_ref(), path));
            };
            match value.get_ref() {
                DeValue::Table(inner) if known.is_section() => self.check_keys(keys, &path, inner)?,
                other if known.is_section() => {
                    let accepted = format!("a section, [{path}]");
                    return Err(self.invalid(Invalid::value(path, article(other.type_str()), accepted)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unknown(&self, keys: &[Key], section: &str, name: &str, path: String) -> ConfigError {
        let accepted: Vec<_> = keys.iter().map(Key::split).filter(|key| key.0 == section).collect();
        let similar = accepted.iter().map(|&(_, known)| (strsim::jaro_winkler(name, known), known));
        let nearest = similar.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
        ConfigError::UnknownKey {
            place: self.place(&path),
            key: path,
            nearest: nearest.map(|(_, known)| known),
            section: if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") },
            accepted: accepted.iter().map(|(_, known)| *known).collect::<Vec<_>>().join(", "),
        }
    }

    fn invalid(&self, invalid: Invalid) -> ConfigError {
        let place = self.place(invalid.key.as_deref().unwrap_or_default());
        ConfigError::Value { place, invalid }
    }

    /// The place of a dotted path, or of the last part of it that the file has.
    fn place(&self, path: &str) -> Place {
        let mut table = Some(&self.document);
        let mut offset = None;
        for name in path.split('.') {
            let Some((key, value)) = table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name))
            else {
                break;
            };
            offset = Some(key.span().start);
            table = value.get_ref().as_table();
        }
        Place::new(self.file, self.text, offset)
    }
}

impl Place {
    fn new(file: &Path, text: &str, offset: Option<usize>) -> Self {
        let line = |offset| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        Self { file: file.to_owned(), line: offset.map(line) }
    }
}

fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let place = Place::new(file, text, error.span().map(|span| span.start));
    ConfigError::Syntax { place, message: error.message().to_owned() }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
