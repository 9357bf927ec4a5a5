//! LEAF's JSON: examples by user, in folders `train` and `test` of any number of files.
//!
//! ```text
//! { "users": ["f0001", …], "num_samples": [12, …],
//!   "user_data": { "f0001": { "x": [[0.0, …], …], "y": [3, …] }, … } }
//! ```
//!
//! Rows of numbers with whole numbers for labels (FEMNIST, synthetic), or texts of equal length with the character
//! that follows each (Shakespeare). Users are the natural clients. Source: Caldas et al., "LEAF: a benchmark for
//! federated settings" (arXiv:1812.01097), and the files that its scripts write.
//!
//! Absent: images by file name (CelebA), words (Reddit) and posts (Sent140), which need what LEAF's scripts do later.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};

use super::read::{Files, Input, MAX_FILE_BYTES, malformed};
use super::table::Part;
use super::text::Vocabulary;
use super::{Data, DatasetError};

/// More classes than this are no labels.
const MAX_CLASSES: u32 = 10_000;

/// Reads the files below `folder`.
pub(super) fn data(files: &dyn Files, folder: &str) -> Result<Data, DatasetError> {
    let train = read(files, &format!("{folder}/train"))?;
    let test = read(files, &format!("{folder}/test"))?;
    let clients: BTreeSet<&String> = train.owners.iter().chain(&test.owners).collect();
    let clients: Vec<String> = clients.into_iter().cloned().collect();
    let mut data = match (train.examples, test.examples) {
        (Examples::Numbers { .. }, Examples::Texts { .. })
        | (Examples::Texts { .. }, Examples::Numbers { .. }) => {
            let found = "rows of another kind than those for training".to_owned();
            return Err(malformed(&test.file, "x".to_owned(), found, "numbers in both, or texts".to_owned()));
        }
        (
            Examples::Numbers { floats, labels, width },
            Examples::Numbers { floats: test_floats, labels: test_labels, width: test_width },
        ) => {
            if test_width != width {
                let found = format!("rows of {test_width} numbers");
                return Err(malformed(
                    &test.file,
                    "x".to_owned(),
                    found,
                    format!("{width}, as for training"),
                ));
            }
            let largest = labels.iter().chain(&test_labels).max().copied().unwrap_or_default();
            let classes = (largest + 1).max(2) as usize;
            Data {
                name: String::new(),
                train: Part::floats(floats, labels, width, classes),
                test: Part::floats(test_floats, test_labels, width, classes),
                class_names: Vec::new(),
                clients: Vec::new(),
                characters: Vec::new(),
            }
        }
        (Examples::Texts { texts, length }, Examples::Texts { texts: test_texts, length: test_length }) => {
            if test_length != length {
                let found = format!("texts of {test_length} characters");
                return Err(malformed(
                    &test.file,
                    "x".to_owned(),
                    found,
                    format!("{length}, as for training"),
                ));
            }
            let vocabulary =
                Vocabulary::of(texts.iter().chain(&test_texts).flat_map(|text| text.chars()), folder)?;
            let part = |texts: &[String]| {
                let stream = vocabulary.tokens(texts.iter().flat_map(|text| text.chars()));
                let starts = (0..texts.len()).map(|text| (text * (length + 1)) as u32).collect();
                Part::tokens(stream, starts, length, vocabulary.len())
            };
            Data {
                name: String::new(),
                train: part(&texts),
                test: part(&test_texts),
                class_names: Vec::new(),
                clients: Vec::new(),
                characters: vocabulary.into_characters(),
            }
        }
    };
    let place: BTreeMap<&str, u32> = clients.iter().map(String::as_str).zip(0..).collect();
    let places = |owners: &[String]| owners.iter().map(|owner| place[owner.as_str()]).collect();
    data.train = data.train.owned_by(places(&train.owners));
    data.test = data.test.owned_by(places(&test.owners));
    data.clients = clients;
    Ok(data)
}

/// All the files of a folder together.
struct Gathered {
    /// The last file, for errors.
    file: String,
    examples: Examples,
    /// One a row.
    owners: Vec<String>,
}

enum Examples {
    Numbers {
        floats: Vec<f32>,
        labels: Vec<u32>,
        width: usize,
    },
    /// Each of `length` characters and the one that follows.
    Texts {
        texts: Vec<String>,
        length: usize,
    },
}

fn read(files: &dyn Files, folder: &str) -> Result<Gathered, DatasetError> {
    let unreadable = |detail: String| DatasetError::Unreadable { file: folder.to_owned(), detail };
    let mut names = files.list(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DatasetError::Missing { file: folder.to_owned() },
        _ => unreadable(error.to_string()),
    })?;
    names.retain(|name| ["json", "gz"].iter().any(|end| name.rsplit('.').next() == Some(end)));
    names.sort_unstable();
    let mut gathered: Option<Gathered> = None;
    for name in names {
        let path = format!("{folder}/{name}");
        let mut input = Input::open(files, &[&path])?;
        let bytes = input.rest()?;
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| {
            let message = error.to_string();
            let found = message.split(" at line ").next().unwrap_or_default().to_owned();
            let at = format!("line {}, column {}", error.line(), error.column());
            malformed(&path, at, found, "users and user_data with x and y, as LEAF writes them".to_owned())
        })?;
        contents.add_to(&mut gathered, &path)?;
    }
    gathered.ok_or_else(|| unreadable("it has no example in any file named *.json".to_owned()))
}

#[derive(Deserialize)]
struct Contents {
    users: Vec<String>,
    num_samples: Option<Vec<u64>>,
    user_data: BTreeMap<String, Samples>,
}

#[derive(Deserialize)]
struct Samples {
    x: Rows,
    y: Vec<Label>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Number(u32),
    Text(String),
}

/// The rows of a user, of numbers or of text.
#[derive(Default)]
struct Rows {
    floats: Vec<f32>,
    width: usize,
    texts: Vec<String>,
    count: usize,
}

impl Contents {
    fn add_to(mut self, gathered: &mut Option<Gathered>, file: &str) -> Result<(), DatasetError> {
        if self.num_samples.as_ref().is_some_and(|counts| counts.len() != self.users.len()) {
            let expected = format!("one for each of {} users", self.users.len());
            let found = "another number of entries".to_owned();
            return Err(malformed(file, "num_samples".to_owned(), found, expected));
        }
        for (at, user) in self.users.iter().enumerate() {
            let wrong = |found: String, expected: String| {
                malformed(
                    file,
                    format!("user {:?}", user.chars().take(40).collect::<String>()),
                    found,
                    expected,
                )
            };
            let samples = self.user_data.remove(user).ok_or_else(|| {
                wrong("no user_data".to_owned(), "an entry for every name, which is there once".to_owned())
            })?;
            let rows = samples.x.count;
            if samples.y.len() != rows {
                return Err(wrong(
                    format!("{rows} rows of x and {} of y", samples.y.len()),
                    "as many".to_owned(),
                ));
            }
            if let Some(counts) = &self.num_samples
                && counts[at] != rows as u64
            {
                return Err(wrong(format!("{rows} rows"), format!("{}, as num_samples has it", counts[at])));
            }
            if rows == 0 {
                continue;
            }
            let gathered = gathered.get_or_insert_with(|| Gathered {
                file: file.to_owned(),
                examples: samples.x.kind(),
                owners: Vec::new(),
            });
            file.clone_into(&mut gathered.file);
            gathered.examples.add(samples, &wrong)?;
            gathered.owners.extend(std::iter::repeat_n(user.clone(), rows));
        }
        Ok(())
    }
}

impl Rows {
    /// An empty collection of such rows.
    fn kind(&self) -> Examples {
        match self.texts.first() {
            Some(text) => Examples::Texts { texts: Vec::new(), length: text.chars().count() },
            None => Examples::Numbers { floats: Vec::new(), labels: Vec::new(), width: self.width },
        }
    }
}

impl Examples {
    fn add(
        &mut self,
        samples: Samples,
        wrong: &dyn Fn(String, String) -> DatasetError,
    ) -> Result<(), DatasetError> {
        let too_much = || wrong("more data".to_owned(), format!("{MAX_FILE_BYTES} bytes in all"));
        match self {
            Self::Numbers { floats, labels, width } => {
                if !samples.x.texts.is_empty() || samples.x.width != *width || *width == 0 {
                    let found = match samples.x.texts.first() {
                        Some(_) => "a text".to_owned(),
                        None => format!("rows of {} numbers", samples.x.width),
                    };
                    return Err(wrong(found, format!("rows of {} numbers, as before", (*width).max(1))));
                }
                if ((floats.len() + samples.x.floats.len()) * 4) as u64 > MAX_FILE_BYTES {
                    return Err(too_much());
                }
                floats.extend(samples.x.floats);
                for label in samples.y {
                    match label {
                        Label::Number(label) if label < MAX_CLASSES => labels.push(label),
                        Label::Number(label) => {
                            return Err(wrong(format!("label {label}"), format!("0 to {}", MAX_CLASSES - 1)));
                        }
                        Label::Text(text) => {
                            return Err(wrong(format!("label {text:?}"), "a whole number".to_owned()));
                        }
                    }
                }
            }
            Self::Texts { texts, length } => {
                if samples.x.texts.len() != samples.y.len() || *length == 0 {
                    return Err(wrong("rows that are no text".to_owned(), "texts, as before".to_owned()));
                }
                for (mut text, label) in samples.x.texts.into_iter().zip(samples.y) {
                    let found = text.chars().count();
                    if found != *length {
                        return Err(wrong(
                            format!("a text of {found} characters"),
                            format!("{length}, as before"),
                        ));
                    }
                    match label {
                        Label::Text(next) if next.chars().count() == 1 => text.push_str(&next),
                        Label::Text(_) | Label::Number(_) => {
                            return Err(wrong("another label".to_owned(), "one character".to_owned()));
                        }
                    }
                    texts.push(text);
                }
                if ((texts.len() + 1) * (*length + 1)) as u64 > MAX_FILE_BYTES / 4 {
                    return Err(too_much());
                }
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Rows;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array of rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Rows, A::Error> {
                let mut rows = Rows::default();
                while array.next_element_seed(One(&mut rows))?.is_some() {
                    rows.count += 1;
                }
                Ok(rows)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

/// One row, added to those before.
struct One<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a row: an array of numbers, or a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.0.texts.len() != self.0.count {
            return Err(E::custom("a text among rows of numbers"));
        }
        self.0.texts.push(text.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let before = self.0.floats.len();
        // JSON has no infinity, and its reader refuses numbers beyond the range.
        while let Some(value) = array.next_element::<f32>()? {
            self.0.floats.push(value);
        }
        let width = self.0.floats.len() - before;
        if !self.0.texts.is_empty() {
            return Err(A::Error::custom("an array among texts"));
        }
        if self.0.count > 0 && width != self.0.width {
            return Err(A::Error::custom(format!("a row of {width} numbers after rows of {}", self.0.width)));
        }
        self.0.width = width;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBERS: &str = r#"{"users": ["b", "a"], "num_samples": [2, 1], "hierarchies": ["w", "w"],
        "user_data": {"a": {"x": [[5, 6]], "y": [3]}, "b": {"x": [[1, 2.5], [3, 4e0]], "y": [0, 1]}}}"#;
    const TEXTS: &str =
        r#"{"users": ["HAMLET"], "user_data": {"HAMLET": {"x": ["to b", "o be"], "y": ["e", "?"]}}}"#;

    fn load(train: &str, test: &str) -> Result<Data, DatasetError> {
        let files = BTreeMap::from([
            ("set/train/one.json".to_owned(), train.as_bytes().to_vec()),
            ("set/train/notes.txt".to_owned(), b"not JSON".to_vec()),
            ("set/test/one.json".to_owned(), test.as_bytes().to_vec()),
        ]);
        data(&files, "set")
    }

    fn refusal(train: &str) -> String {
        load(train, NUMBERS).unwrap_err().to_string()
    }

    #[test]
    fn users_are_the_owners_of_their_rows() {
        let test = r#"{"users": ["c"], "user_data": {"c": {"x": [[7, 8]], "y": [2]}}}"#;
        let found = load(NUMBERS, test).unwrap();
        assert_eq!(found.clients, ["a", "b", "c"]);
        assert_eq!((found.train.owners(), found.test.owners()), (&[1, 1, 0][..], &[2][..]));
        assert_eq!((found.train.labels(), found.train.classes()), (&[0, 1, 3][..], 4));
        assert_eq!(found.train.dataset(&[1, 2]).unwrap().features(), [3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn files_of_a_folder_add_up() {
        let files = BTreeMap::from([
            ("set/train/one.json".to_owned(), NUMBERS.as_bytes().to_vec()),
            ("set/train/two.json".to_owned(), NUMBERS.as_bytes().to_vec()),
            ("set/test/one.json".to_owned(), NUMBERS.as_bytes().to_vec()),
        ]);
        let found = data(&files, "set").unwrap();
        assert_eq!((found.train.rows(), found.test.rows(), found.clients.len()), (6, 3, 2));
        assert_eq!(found.train.owners(), [1, 1, 0, 1, 1, 0]);
    }

    #[test]
    fn texts_become_sequences_with_what_follows() {
        let found = load(TEXTS, TEXTS).unwrap();
        assert_eq!(found.characters, [' ', '?', 'b', 'e', 'o', 't']);
        let sequences = found.train.dataset(&[1]).unwrap();
        assert_eq!((sequences.tokens(), sequences.labels()), (&[4, 0, 2, 3][..], &[0, 2, 3, 1][..]));
        assert_eq!((found.train.rows(), found.train.owners(), found.clients.len()), (2, &[0, 0][..], 1));
    }

    #[test]
    fn broken_files_are_told_by_place_and_reason() {
        let cases = [
            (refusal("{"), "set/train/one.json, line 1, column 1: found EOF while parsing an object"),
            (refusal(r#"{"users": []}"#), "line 1, column 13: found missing field `user_data`"),
            (
                refusal(r#"{"users": [], "user_data": {}}"#),
                "cannot read set/train: it has no example in any file named *.json",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {}}"#),
                "user \"a\": found no user_data, expected an entry for every name",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1]], "y": [0, 1]}}}"#),
                "set/train/one.json, user \"a\": found 1 rows of x and 2 of y, expected as many",
            ),
            (
                refusal(
                    r#"{"users": ["a"], "num_samples": [2], "user_data": {"a": {"x": [[1]], "y": [0]}}}"#,
                ),
                "user \"a\": found 1 rows, expected 2, as num_samples has it",
            ),
            (
                refusal(r#"{"users": ["a"], "num_samples": [], "user_data": {"a": {"x": [[1]], "y": [0]}}}"#),
                "num_samples: found another number of entries, expected one for each of 1 users",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1], [1, 2]], "y": [0, 1]}}}"#),
                "found a row of 2 numbers after rows of 1, expected users",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1e39]], "y": [0]}}}"#),
                "found number out of range",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [["x"]], "y": [0]}}}"#),
                "found invalid type: string \"x\", expected f32",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1], "b"], "y": [0]}}}"#),
                "found a text among rows of numbers",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1]], "y": [10000]}}}"#),
                "user \"a\": found label 10000, expected 0 to 9999",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1]], "y": ["b"]}}}"#),
                "user \"a\": found label \"b\", expected a whole number",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": ["bc"], "y": ["de"]}}}"#),
                "user \"a\": found another label, expected one character",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": ["bc", "b"], "y": ["d", "e"]}}}"#),
                "user \"a\": found a text of 1 characters, expected 2, as before",
            ),
            (
                refusal(TEXTS),
                "found rows of another kind than those for training, expected numbers in both, or texts",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[]], "y": [0]}}}"#),
                "user \"a\": found rows of 0 numbers, expected rows of 1 numbers, as before",
            ),
            (
                refusal(r#"{"users": ["a"], "user_data": {"a": {"x": [[1]], "y": [0]}}}"#),
                "set/test/one.json, x: found rows of 2 numbers, expected 1, as for training",
            ),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{found}\nwithout {expected}");
        }
        let nothing = data(&BTreeMap::new(), "set").unwrap_err();
        assert_eq!(nothing, DatasetError::Missing { file: "set/train".to_owned() });
    }

    proptest! {
        #[test]
        fn every_truncation_is_refused(share in 0.0_f64..1.0) {
            for text in [NUMBERS, TEXTS] {
                let length = (share * text.len() as f64) as usize;
                prop_assert!(load(&text[..length], text).is_err());
            }
        }

        #[test]
        fn no_change_makes_it_panic(share in 0.0_f64..1.0, value in 0x20_u8..0x7f) {
            for text in [NUMBERS, TEXTS] {
                let mut bytes = text.as_bytes().to_vec();
                let at = (share * bytes.len() as f64) as usize;
                bytes[at] = value;
                let changed = String::from_utf8(bytes).unwrap();
                if let Ok(found) = load(&changed, text) {
                    prop_assert!(found.train.rows() <= 3);
                }
            }
        }
    }
}
