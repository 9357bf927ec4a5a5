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
mod scenario;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Serialize, de::DeserializeOwned};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

pub(crate) use client::ClientConfig;
pub(crate) use coordinator::{CoordinatorConfig, HoldOutSection};

/// Most characters of a value that an error message repeats.
const EXCERPT: usize = 60;
/// The key that says which other keys a table has.
const KIND: &str = "kind";
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
    /// Whether it has no default, and means nothing where it is left out.
    is_optional: bool,
}

/// An entry of [`Config::KEYS`] for a key with a value.
const fn key(path: &'static str, meaning: &'static str, accepted: &'static str) -> Key {
    Key { path, meaning, accepted, is_optional: false }
}

/// An entry of [`Config::KEYS`] for a key without a default.
const fn optional(path: &'static str, meaning: &'static str, accepted: &'static str) -> Key {
    Key { path, meaning, accepted, is_optional: true }
}

/// An entry of [`Config::KEYS`] for a table of keys without defaults.
const fn optional_section(path: &'static str, meaning: &'static str) -> Key {
    Key { path, meaning, accepted: "", is_optional: true }
}

/// An entry of [`Config::KEYS`] for a table of keys.
const fn section(path: &'static str, meaning: &'static str) -> Key {
    Key { path, meaning, accepted: "", is_optional: false }
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

    /// A section does not do.
    fn of(key: &str, reason: impl fmt::Display) -> Self {
        Self { message: format!("{key}: {reason}"), key: Some(key.to_owned()) }
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
    #[error("{place}: unknown key {key}{}; accepted {accepted}", hint(*nearest))]
    UnknownKey {
        /// Where.
        place: Place,
        /// Dotted path of the key.
        key: String,
        /// The key that may have been meant.
        nearest: Option<&'static str>,
        /// The keys of its section, in words.
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
    Draft::load::<T>(path)?.finish()
}

/// A file with every key, its default, its meaning and what it accepts.
pub(crate) fn print_config<T: Config>() -> String {
    let defaults = defaults::<T>();
    let mut text = format!("# {}\n# A key that is left out has the value shown here.\n", T::TITLE);
    for key in T::KEYS {
        let (Key { path, meaning, accepted, is_optional }, (_, name)) = (key, key.split());
        let written = if key.is_section() {
            let mark = if *is_optional { "# " } else { "" };
            write!(text, "\n# {meaning}\n{mark}[{path}]\n")
        } else if *is_optional {
            write!(text, "\n# {meaning}\n# Accepted: {accepted}.\n# {name} =\n")
        } else {
            let value = lookup(&defaults, path).expect("a key of the list has a default, or is optional");
            write!(text, "\n# {meaning}\n# Accepted: {accepted}.\n{name} = {value}\n")
        };
        written.expect("a string can be written to");
    }
    text
}

/// A file whose keys are known, before its values are looked at: the place to set some of them from elsewhere.
#[derive(Clone)]
pub(crate) struct Draft {
    file: PathBuf,
    text: String,
    keys: &'static [Key],
    table: Table,
}

impl Draft {
    /// Reads a file of `T`.
    pub(crate) fn load<T: Config>(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
            _ => ConfigError::Read { path: path.to_owned(), error },
        })?;
        Self::parse::<T>(path, &text)
    }

    /// Reads the text of a file of `T`; `file` is for messages.
    pub(crate) fn parse<T: Config>(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source::parse(file, text)?;
        source.check_keys(T::KEYS, "", &source.document)?;
        let mut table = defaults::<T>();
        overlay(&mut table, text.parse().map_err(|error| syntax(file, text, &error))?);
        Ok(Self { file: file.to_owned(), text: text.to_owned(), keys: T::KEYS, table })
    }

    /// The value at a dotted path, a default where the file has none.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        lookup(&self.table, path)
    }

    /// Takes a top-level key out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.table.remove(name)
    }

    /// Sets a key, by its dotted path, as if the file had it.
    pub(crate) fn set(&mut self, path: &str, value: Value) -> Result<(), ConfigError> {
        // A key may hold a table whose names are its own business, as server.options does.
        let holder = self.keys.iter().find(|key| {
            !key.is_section() && path.strip_prefix(key.path).is_some_and(|rest| rest.starts_with('.'))
        });
        let known = self.keys.iter().find(|key| key.path == path);
        if holder.is_none() && known.is_none_or(Key::is_section) {
            let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
            let section = if self.keys.iter().any(|key| key.path == section) { section } else { "" };
            let (nearest, accepted) = neighbours(self.keys, section, name);
            let place = Place { file: "--set".into(), line: None };
            return Err(ConfigError::UnknownKey { place, key: path.to_owned(), nearest, accepted });
        }
        // What follows the key of such a table is one name, dots and all.
        let (path, value) = if let Some(key) = holder {
            (key.path, Value::Table(one(&path[key.path.len() + 1..], value)))
        } else {
            // What is set as a whole is replaced as a whole.
            remove(&mut self.table, path);
            (path, value)
        };
        let given = path.rsplit('.').fold(value, |value, name| Value::Table(one(name, value)));
        let Value::Table(given) = given else { unreachable!("a path has at least one name") };
        overlay(&mut self.table, given);
        Ok(())
    }

    /// The configuration, checked.
    pub(crate) fn finish<T: Config>(&self) -> Result<T, ConfigError> {
        let source = Source::parse(&self.file, &self.text)?;
        let config: T = serde_path_to_error::deserialize(self.table.clone())
            .map_err(|error| source.invalid(ill_typed(T::KEYS, &self.table, &error)))?;
        config.check().map_err(|invalid| source.invalid(invalid))?;
        Ok(config)
    }
}

fn defaults<T: Config>() -> Table {
    Table::try_from(T::default()).expect("a configuration is a table of tables and plain values")
}

fn one(name: &str, value: Value) -> Table {
    std::iter::once((name.to_owned(), value)).collect()
}

/// Replaces in `base` what `given` has. A table that says its kind is another kind's no more: it replaces the whole.
fn overlay(base: &mut Table, given: Table) {
    for (key, value) in given {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(given)) if !given.contains_key(KIND) => {
                overlay(base, given);
            }
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// Takes away the value at a dotted path.
fn remove(table: &mut Table, path: &str) {
    match path.split_once('.') {
        None => drop(table.remove(path)),
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
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
        (Some(key), Some(found)) if !key.is_section() => Invalid::value(path, excerpt(found), key.accepted),
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
        let (nearest, accepted) = neighbours(keys, section, name);
        ConfigError::UnknownKey { place: self.place(&path), key: path, nearest, accepted }
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
            let Some((key, value)) =
                table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name))
            else {
                break;
            };
            offset = Some(key.span().start);
            table = value.get_ref().as_table();
        }
        Place::new(self.file, self.text, offset)
    }
}

/// The key of a section that is most like an unknown one, if any is, and all of them in words.
fn neighbours(keys: &[Key], section: &str, name: &str) -> (Option<&'static str>, String) {
    let accepted: Vec<_> = keys.iter().map(Key::split).filter(|key| key.0 == section).collect();
    let similar = accepted.iter().map(|&(_, known)| (strsim::jaro_winkler(name, known), known));
    let nearest = similar.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
    let section = if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") };
    let names = accepted.iter().map(|(_, known)| *known).collect::<Vec<_>>().join(", ");
    (nearest.map(|(_, known)| known), format!("{section} are {names}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_simulations::scenario::Spec;

    const FILE: &str = "federation.toml";

    fn read<T: Config>(text: &str) -> Result<T, ConfigError> {
        Draft::parse::<T>(Path::new(FILE), text)?.finish()
    }

    /// The message for a coordinator's file.
    fn refusal(text: &str) -> String {
        read::<CoordinatorConfig>(text).unwrap_err().to_string()
    }

    /// Every path of a table, sections included.
    fn paths(table: &Table, prefix: &str) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        for (name, value) in table {
            let path = format!("{prefix}{name}");
            all.push((path.clone(), value.is_table()));
            if let Value::Table(inner) = value {
                all.extend(paths(inner, &format!("{path}.")));
            }
        }
        all
    }

    fn every_key_is_documented<T: Config>() {
        let with_default = T::KEYS.iter().filter(|key| !key.is_optional);
        let mut listed: Vec<_> = with_default.map(|key| (key.path.to_owned(), key.is_section())).collect();
        listed.sort();
        let mut fields = paths(&defaults::<T>(), "");
        fields.sort();
        assert_eq!(listed, fields, "the list of keys and the fields differ");

        let printed = print_config::<T>();
        let mut lines = printed.lines().skip(2);
        for key in T::KEYS {
            let name = key.split().1;
            assert_eq!(lines.next(), Some(""), "{}", key.path);
            let comment = lines.next().unwrap();
            assert!(comment.len() > 10 && comment.starts_with("# ") && comment.ends_with('.'), "{comment}");
            if key.is_section() {
                let mark = if key.is_optional { "# " } else { "" };
                assert_eq!(lines.next(), Some(format!("{mark}[{}]", key.path).as_str()));
            } else {
                assert!(lines.next().unwrap().starts_with("# Accepted: "), "{}", key.path);
                let begins = if key.is_optional { format!("# {name} =") } else { format!("{name} = ") };
                assert!(lines.next().unwrap().starts_with(&begins), "{}", key.path);
            }
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn every_key_of_every_file_is_documented() {
        every_key_is_documented::<CoordinatorConfig>();
        every_key_is_documented::<ClientConfig>();
        every_key_is_documented::<Spec>();
    }

    #[test]
    fn printed_file_gives_the_defaults() {
        let printed = print_config::<CoordinatorConfig>();
        assert_eq!(read::<CoordinatorConfig>(&printed).unwrap(), CoordinatorConfig::default());
        let printed = print_config::<ClientConfig>();
        assert_eq!(read::<ClientConfig>(&printed).unwrap(), ClientConfig::default());
        let printed = print_config::<Spec>();
        assert_eq!(read::<Spec>(&printed).unwrap(), Spec::default());
    }

    #[test]
    fn keys_are_set_from_elsewhere_as_if_the_file_had_them() {
        let mut draft = Draft::parse::<Spec>(Path::new(FILE), "rounds = 3\n").unwrap();
        draft.set("training.epochs", Value::Integer(7)).unwrap();
        draft.set("population.cohort", Value::Integer(60)).unwrap();
        draft.set("robustness.pre", Value::Array(vec![Value::String("clip".to_owned())])).unwrap();
        draft.set("robustness.options.c", Value::Integer(2)).unwrap();
        let spec: Spec = draft.finish().unwrap();
        assert_eq!((spec.rounds, spec.training.epochs, spec.cohort()), (3, 7, 60));
        assert_eq!(spec.robustness.options["c"].to_string(), "2");
        for (path, expected) in [
            (
                "training.epoch",
                "--set: unknown key training.epoch, did you mean epochs?; accepted in [training] are",
            ),
            ("trainin", "--set: unknown key trainin, did you mean training?; accepted at the top are name,"),
            ("training", "--set: unknown key training, did you mean training?"),
            ("a.b.c", "--set: unknown key a.b.c; accepted at the top are name,"),
        ] {
            let error = draft.set(path, Value::Integer(1)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        draft.set("robustness.options", Value::Table(Table::new())).unwrap();
        assert!(draft.finish::<Spec>().unwrap().robustness.options.is_empty(), "a whole table replaces");
        draft.set("training.epochs", Value::String("many".into())).unwrap();
        let error = draft.finish::<Spec>().unwrap_err().to_string();
        assert!(
            error.contains("training.epochs is \"many\" (string), accepted is a whole number"),
            "{error}"
        );
    }

    #[test]
    fn steps_of_the_rule_and_their_options_are_read() {
        let text = "[server]\nrule = \"trimmed-mean\"\npre = [\"clip\", \"nnm\"]\noptions = { c = 2 }\n";
        let server = read::<CoordinatorConfig>(text).unwrap().server;
        assert_eq!(server.steps(), "clip+nnm+trimmed-mean");
        assert_eq!(server.options["c"].to_string(), "2");
        for (options, expected) in [("{ seed = 1 }", "seed = 1"), ("{ c = [1] }", "server.options")] {
            let found = refusal(&format!("[server]\npre = [\"bucketing\"]\noptions = {options}\n"));
            assert!(found.contains("server.options") && found.contains(expected), "{found}");
        }
    }

    #[test]
    fn keys_left_out_have_their_defaults() {
        assert_eq!(read::<CoordinatorConfig>("").unwrap(), CoordinatorConfig::default());
        let config: CoordinatorConfig = read("training.epochs = 9\n[privacy]\nepsilon = 9\n").unwrap();
        let mut expected = CoordinatorConfig::default();
        expected.training.epochs = 9;
        expected.privacy.epsilon = 9.0;
        assert_eq!(config, expected);
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_known_one() {
        assert_eq!(
            refusal("\n[cohort]\nclients = 200\nminimun = 198\n"),
            "federation.toml:4: unknown key cohort.minimun, did you mean minimum?; \
             accepted in [cohort] are clients, minimum, assumed_malicious, population"
        );
        let error = refusal("[privcy]\nepsilon = 3.0\n");
        assert!(
            error.starts_with("federation.toml:1: unknown key privcy, did you mean privacy?; accepted at the top are listen,"),
            "{error}"
        );
        let error = refusal("[cohort]\nzzz = 1\n");
        assert!(error.starts_with("federation.toml:2: unknown key cohort.zzz; accepted in"), "{error}");
        assert!(refusal("[cohort.clients.more]\nx = 1").starts_with("federation.toml:1: cohort.clients is "));
        let error = read::<ClientConfig>("[policy]\nmax_epsilom = 3.0\n").unwrap_err().to_string();
        assert!(
            error.starts_with("federation.toml:2: unknown key policy.max_epsilom, did you mean max_epsilon?")
        );
    }

    #[test]
    fn ill_typed_values_say_what_was_found_and_what_is_accepted() {
        let cases = [
            (
                "[cohort]\nclients = \"many\"",
                "2: cohort.clients is \"many\" (string), accepted is a whole number, 2 to 20000",
            ),
            (
                "[cohort]\nclients = -1",
                "2: cohort.clients is -1 (integer), accepted is a whole number, 2 to 20000",
            ),
            ("task.rounds = 1.5", "1: task.rounds is 1.5 (float), accepted is a whole number, 1 to 100000"),
            (
                "\n\nlisten = \"localhost\"",
                "3: listen is \"localhost\" (string), accepted is an IP address and a port, as in",
            ),
            (
                "names = [\"a\", 3]",
                "1: names is [\"a\", 3] (array), accepted is a list of one or more DNS names",
            ),
            ("cohort = 3", "1: cohort is an integer, accepted is a section, [cohort]"),
            ("[[cohort]]\nclients = 3", "1: cohort is an array, accepted is a section, [cohort]"),
        ];
        for (text, expected) in cases {
            let error = refusal(text);
            assert!(error.starts_with(&format!("federation.toml:{expected}")), "{error}");
        }
        let error = refusal(&format!("listen = \"{}\"", "ä".repeat(1000)));
        assert!(error.len() < 300 && error.contains('…'), "{error}");
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        for text in [
            "a = 1\nlisten = \n",
            "listen = \"[::]:1\"\nlisten = \"[::]:2\"",
            "\ntokens = 99999999999999999999",
        ] {
            let error = refusal(text);
            assert!(error.starts_with("federation.toml:2: not TOML: "), "{error}");
        }
    }

    #[test]
    fn files_are_loaded() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("client.toml");
        let error = load::<ClientConfig>(&path).unwrap_err();
        assert!(matches!(&error, ConfigError::Missing(missing) if *missing == path), "{error}");
        let error = load::<ClientConfig>(folder.path()).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error}");
        fs::write(&path, "name = \"ward 7\"\n").unwrap();
        assert_eq!(load::<ClientConfig>(&path).unwrap().name, "ward 7");
    }
}
