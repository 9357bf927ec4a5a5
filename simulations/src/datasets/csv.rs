//! Comma-separated values (RFC 4180): a row of numbers and a label in each line.
//!
//! Columns are features but for two, the label and, where one is named, the natural client. Labels and clients may
//! be any text; classes are in the order of their numbers where all labels are whole numbers, in the order of their
//! bytes otherwise.
//!
//! Absent: other separators than the comma, missing values, categories among the features. Who has them prepares the
//! file first.

use std::collections::BTreeMap;

use super::read::{Files, Input, malformed};
use super::table::Part;
use super::{Data, DatasetError};

/// More classes than this are a column of measurements that was taken for the label.
const MAX_CLASSES: usize = 10_000;

/// How a file is to be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading<'a> {
    /// Whether the first line names the columns.
    pub(super) header: bool,
    /// The column of labels, by name or by its number from 1; the last one where it is not said.
    pub(super) label: Option<&'a str>,
    /// The column that says whose row it is.
    pub(super) client: Option<&'a str>,
    /// Whether every feature is brought to mean 0 and variance 1, by the rows for training.
    pub(super) standardise: bool,
}

/// A file as it was read, with labels and owners still words.
struct Table {
    columns: Vec<String>,
    features: Vec<f32>,
    labels: Vec<String>,
    clients: Vec<String>,
}

/// Reads the rows for training and, from a file of its own, those for testing; `split` makes the latter of the former
/// where there is no such file: it is given the number of rows and says which are for testing.
pub(super) fn data(
    files: &dyn Files,
    train: &str,
    test: Option<&str>,
    reading: &Reading<'_>,
    split: impl FnOnce(usize) -> Result<Vec<bool>, DatasetError>,
) -> Result<Data, DatasetError> {
    let table = read(files, train, reading)?;
    let second = test.map(|path| read(files, path, reading)).transpose()?;
    if let (Some(path), Some(second)) = (test, &second)
        && second.columns != table.columns
    {
        let found = format!("columns {}", second.columns.join(", "));
        return Err(malformed(
            path,
            "line 1".to_owned(),
            found,
            format!("those of {train}: {}", table.columns.join(", ")),
        ));
    }
    let inputs = table.columns.len();
    let mut labels: Vec<&String> =
        table.labels.iter().chain(second.iter().flat_map(|table| &table.labels)).collect();
    let classes = names(&mut labels);
    if classes.len() > MAX_CLASSES {
        let found = format!("{} different labels", classes.len());
        let expected = format!("at most {MAX_CLASSES}: is another column the label?");
        return Err(malformed(train, "label column".to_owned(), found, expected));
    }
    let mut owners: Vec<&String> =
        table.clients.iter().chain(second.iter().flat_map(|table| &table.clients)).collect();
    let clients = names(&mut owners);
    let (train, test) = if let Some(test) = second {
        (table, test)
    } else {
        let is_test = split(table.labels.len())?;
        table.divide(inputs, &is_test)
    };
    let scale = reading.standardise.then(|| moments(&train.features, inputs));
    let part = |table: Table| table.part(inputs, &classes, &clients, scale.as_deref());
    Ok(Data {
        name: String::new(),
        train: part(train),
        test: part(test),
        class_names: classes.clone(),
        clients: clients.clone(),
        characters: Vec::new(),
    })
}

impl Table {
    fn part(
        mut self,
        inputs: usize,
        classes: &[String],
        clients: &[String],
        scale: Option<&[(f32, f32)]>,
    ) -> Part {
        if let Some(scale) = scale {
            for row in self.features.chunks_exact_mut(inputs) {
                for (value, (mean, deviation)) in row.iter_mut().zip(scale) {
                    *value = (*value - mean) / deviation;
                }
            }
        }
        let places = |names: &[String], words: &[String]| {
            let place: BTreeMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
            words.iter().map(|word| place[word.as_str()]).collect::<Vec<u32>>()
        };
        let labels = places(classes, &self.labels);
        let part = Part::floats(self.features, labels, inputs, classes.len());
        if self.clients.is_empty() { part } else { part.owned_by(places(clients, &self.clients)) }
    }

    /// The rows that are not for testing, and those that are.
    fn divide(self, inputs: usize, is_test: &[bool]) -> (Self, Self) {
        let pick = |wanted: bool| {
            let rows = || (0..is_test.len()).filter(move |row| is_test[*row] == wanted);
            let words = |words: &[String]| match words {
                [] => Vec::new(),
                words => rows().map(|row| words[row].clone()).collect(),
            };
            Self {
                columns: self.columns.clone(),
                features: rows().flat_map(|row| &self.features[row * inputs..][..inputs]).copied().collect(),
                labels: words(&self.labels),
                clients: words(&self.clients),
            }
        };
        (pick(false), pick(true))
    }
}

fn read(files: &dyn Files, path: &str, reading: &Reading<'_>) -> Result<Table, DatasetError> {
    let mut input = Input::open(files, &[path])?;
    let text = input.text()?;
    let file = input.file();
    let mut records = Records { text: text.trim_start_matches('\u{feff}'), line: 1, file };
    let Some((line, first)) = records.next().transpose()? else {
        return Err(malformed(
            file,
            "line 1".to_owned(),
            "the end of the file".to_owned(),
            "a row".to_owned(),
        ));
    };
    let width = first.len();
    if width < 2 {
        let expected = "at least a feature and a label, with commas between them".to_owned();
        return Err(malformed(file, format!("line {line}"), format!("{width} column"), expected));
    }
    let (names, mut pending) = if reading.header {
        (first.into_iter().map(|name| name.trim().to_owned()).collect(), None)
    } else {
        ((1..=width).map(|number| number.to_string()).collect::<Vec<_>>(), Some((line, first)))
    };
    let column = |wanted: Option<&str>, what: &str| {
        let Some(wanted) = wanted else { return Ok(None) };
        names.iter().position(|name| name == wanted).map(Some).ok_or_else(|| {
            let found = format!("no column {wanted:?} for the {what}");
            malformed(file, format!("line {line}"), found, format!("one of {}", names.join(", ")))
        })
    };
    let client = column(reading.client, "client")?;
    let label = column(reading.label, "label")?.unwrap_or(width - 1);
    if client == Some(label) || width == 1 + client.iter().count() {
        let found = "no column left for the features".to_owned();
        let expected = "different columns for label, client and features".to_owned();
        return Err(malformed(file, format!("line {line}"), found, expected));
    }
    let is_feature = |column: usize| column != label && Some(column) != client;
    let mut table = Table {
        columns: (0..width)
            .filter(|column| is_feature(*column))
            .map(|column| names[column].clone())
            .collect(),
        features: Vec::new(),
        labels: Vec::new(),
        clients: Vec::new(),
    };
    while let Some((line, record)) = pending.take().map(Ok).or_else(|| records.next()).transpose()? {
        if record.len() != width {
            let found = format!("{} columns", record.len());
            return Err(malformed(file, format!("line {line}"), found, format!("{width}, as before")));
        }
        for (column, value) in record.into_iter().enumerate() {
            if is_feature(column) {
                let number: Option<f32> = value.trim().parse().ok().filter(|number: &f32| number.is_finite());
                let number = number.ok_or_else(|| {
                    let at = format!("line {line}, column {}", names[column]);
                    malformed(file, at, format!("{:?}", brief(&value)), "a finite number".to_owned())
                })?;
                table.features.push(number);
            } else if column == label {
                table.labels.push(value.trim().to_owned());
            } else {
                table.clients.push(value.trim().to_owned());
            }
        }
    }
    if table.labels.is_empty() {
        let found = "the end of the file".to_owned();
        return Err(malformed(file, "line 2".to_owned(), found, "a row below the names".to_owned()));
    }
    Ok(table)
}

/// Records of a text, with the line that each begins in. Empty lines are left out.
struct Records<'a> {
    text: &'a str,
    line: usize,
    file: &'a str,
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.text.strip_prefix("\r\n").or_else(|| self.text.strip_prefix('\n')) {
            self.text = rest;
            self.line += 1;
        }
        if self.text.is_empty() {
            return None;
        }
        let line = self.line;
        let mut record = Vec::new();
        loop {
            match self.field() {
                Ok((field, ended)) => {
                    record.push(field);
                    if ended {
                        return Some(Ok((line, record)));
                    }
                }
                Err(error) => {
                    self.text = "";
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Records<'_> {
    /// The next field, and whether it is the last of its record.
    fn field(&mut self) -> Result<(String, bool), DatasetError> {
        let mut field = String::new();
        let quoted = self.text.strip_prefix('"');
        if let Some(mut rest) = quoted {
            let start = self.line;
            loop {
                let Some((inside, after)) = rest.split_once('"') else {
                    let found = "a quote that is never closed".to_owned();
                    return Err(malformed(
                        self.file,
                        format!("line {start}"),
                        found,
                        "a closing quote".to_owned(),
                    ));
                };
                field.push_str(inside);
                self.line += inside.matches('\n').count();
                let Some(doubled) = after.strip_prefix('"') else {
                    self.text = after;
                    break;
                };
                field.push('"');
                rest = doubled;
            }
        }
        let end = self.text.find([',', '\n']).unwrap_or(self.text.len());
        let (plain, after) = self.text.split_at(end);
        if quoted.is_some() && !plain.trim().is_empty() {
            let found = format!("{:?} after a closing quote", brief(plain));
            return Err(malformed(self.file, format!("line {}", self.line), found, "a comma".to_owned()));
        }
        if quoted.is_none() {
            field.push_str(plain.trim_end_matches('\r'));
        }
        if let Some(rest) = after.strip_prefix(',') {
            self.text = rest;
            return Ok((field, false));
        }
        self.text = after.strip_prefix('\n').unwrap_or_default();
        self.line += 1;
        Ok((field, true))
    }
}

/// Different words, in the order of their numbers where all are whole numbers, of their bytes otherwise.
fn names(words: &mut Vec<&String>) -> Vec<String> {
    words.sort_unstable();
    words.dedup();
    let numbers: Option<Vec<i64>> = words.iter().map(|word| word.parse().ok()).collect();
    if numbers.is_some() {
        words.sort_by_key(|word| word.parse::<i64>().unwrap_or_default());
    }
    words.iter().map(|word| (*word).clone()).collect()
}

/// Mean and deviation of every column; a column that is the same everywhere has deviation 1.
fn moments(features: &[f32], inputs: usize) -> Vec<(f32, f32)> {
    let rows = (features.len() / inputs) as f64;
    let column = |column: usize| features.iter().skip(column).step_by(inputs).map(|&value| f64::from(value));
    (0..inputs)
        .map(|at| {
            let mean = column(at).sum::<f64>() / rows;
            let variance = column(at).map(|value| (value - mean).powi(2)).sum::<f64>() / rows;
            let deviation = variance.sqrt() as f32;
            (mean as f32, if deviation > 0.0 { deviation } else { 1.0 })
        })
        .collect()
}

/// The beginning of a field that may be long.
fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Reading<'_> = Reading { header: true, label: None, client: None, standardise: false };

    fn load(text: &str, reading: &Reading<'_>) -> Result<Data, DatasetError> {
        let files = BTreeMap::from([("a.csv".to_owned(), text.as_bytes().to_vec())]);
        // The last row is for testing.
        data(&files, "a.csv", None, reading, |rows| Ok((1..=rows).map(|row| row == rows).collect()))
    }

    fn refusal(text: &str, reading: &Reading<'_>) -> String {
        load(text, reading).unwrap_err().to_string()
    }

    #[test]
    fn rows_have_features_and_a_label() {
        let text = "\u{feff}width, height,kind\r\n1,2.5,\"no, \"\"thanks\"\"\"\r\n\r\n-3e1,4,yes\n5,6,yes";
        let found = load(text, &HEADER).unwrap();
        assert_eq!(found.class_names, ["no, \"thanks\"", "yes"]);
        let train = found.train.dataset(&[0, 1]).unwrap();
        assert_eq!((train.features(), train.labels()), (&[1.0, 2.5, -30.0, 4.0][..], &[0, 1][..]));
        assert_eq!(found.test.dataset(&[0]).unwrap().features(), [5.0, 6.0]);
    }

    #[test]
    fn columns_are_found_by_name_and_by_number() {
        let named = Reading { label: Some("y"), client: Some("who"), ..HEADER };
        let found = load("y,a,who,b\n10,1,eve,2\n9,3,bob,4\n10,5,eve,6\n", &named).unwrap();
        assert_eq!(
            (found.class_names.as_slice(), found.clients.as_slice()),
            (&["9", "10"].map(String::from)[..], &["bob", "eve"].map(String::from)[..])
        );
        assert_eq!((found.train.labels(), found.train.owners()), (&[1, 0][..], &[1, 0][..]));
        assert_eq!(found.test.owners(), [1]);
        assert_eq!(found.train.dataset(&[1]).unwrap().features(), [3.0, 4.0]);

        let numbered = Reading { header: false, label: Some("1"), ..Reading::default() };
        let found = load("b,1\na,2\na,3\n", &numbered).unwrap();
        assert_eq!(found.train.labels(), [1, 0]);
        assert_eq!(found.train.dataset(&[0]).unwrap().features(), [1.0]);
    }

    #[test]
    fn standardised_features_have_mean_0_and_variance_1_in_training() {
        let reading = Reading { standardise: true, ..HEADER };
        let found = load("a,b,y\n1,7,0\n3,7,1\n5,8,1\n", &reading).unwrap();
        assert_eq!(found.train.dataset(&[0, 1]).unwrap().features(), [-1.0, 0.0, 1.0, 0.0]);
        assert_eq!(found.test.dataset(&[0]).unwrap().features(), [3.0, 1.0]);
    }

    #[test]
    fn a_test_file_has_the_same_columns() {
        let files = BTreeMap::from([
            ("a.csv".to_owned(), b"a,y\n1,p\n2,q\n".to_vec()),
            ("b.csv".to_owned(), b"a,y\n3,r\n".to_vec()),
            ("c.csv".to_owned(), b"b,y\n3,r\n".to_vec()),
        ]);
        let read = |test| data(&files, "a.csv", Some(test), &HEADER, |_| unreachable!());
        let found = read("b.csv").unwrap();
        assert_eq!((found.train.rows(), found.test.rows(), found.train.classes()), (2, 1, 3));
        assert_eq!(found.test.labels(), [2]);
        assert_eq!(
            read("c.csv").unwrap_err().to_string(),
            "c.csv, line 1: found columns b, expected those of a.csv: a"
        );
    }

    #[test]
    fn broken_files_are_told_by_place_and_reason() {
        let plain = Reading::default();
        let many_labels = (0..10_001).fold(String::new(), |text, row| text + "1," + &row.to_string() + "\n");
        let cases = [
            (refusal("", &plain), "a.csv, line 1: found the end of the file, expected a row"),
            (
                refusal("a,y\n", &HEADER),
                "a.csv, line 2: found the end of the file, expected a row below the names",
            ),
            (
                refusal("1;2\n", &plain),
                "a.csv, line 1: found 1 column, expected at least a feature and a label, with commas between them",
            ),
            (
                refusal("a,y\n1,2\n\n1,2,3\n", &HEADER),
                "a.csv, line 4: found 3 columns, expected 2, as before",
            ),
            (
                refusal("a,y\n1,2\n,3\n", &HEADER),
                "a.csv, line 3, column a: found \"\", expected a finite number",
            ),
            (
                refusal("1,x\nNaN,x\n", &plain),
                "a.csv, line 2, column 1: found \"NaN\", expected a finite number",
            ),
            (
                refusal("1,x\n\"1\n2\",x\n", &plain),
                "a.csv, line 2, column 1: found \"1\\n2\", expected a finite number",
            ),
            (
                refusal("1,\"x\n1,y\n", &plain),
                "a.csv, line 1: found a quote that is never closed, expected a closing quote",
            ),
            (
                refusal("1,\"x\"z\n", &plain),
                "a.csv, line 1: found \"z\" after a closing quote, expected a comma",
            ),
            (
                refusal("a,b,y\n1,2,3\n", &Reading { label: Some("label"), ..HEADER }),
                "a.csv, line 1: found no column \"label\" for the label, expected one of a, b, y",
            ),
            (
                refusal("a,y\n1,2\n", &Reading { client: Some("a"), ..HEADER }),
                "a.csv, line 1: found no column left for the features, expected different columns for label, client and features",
            ),
            (
                refusal(&many_labels, &plain),
                "a.csv, label column: found 10001 different labels, expected at most 10000: is another column the label?",
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
        let files = BTreeMap::from([("a.csv".to_owned(), b"1,x\n2,\xff\n".to_vec())]);
        let error = data(&files, "a.csv", None, &plain, |_| unreachable!()).unwrap_err().to_string();
        assert_eq!(error, "a.csv, byte 6: found bytes that are no UTF-8, expected text in UTF-8");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a1,\"\\n\\r. -]{0,60}", header: bool) {
            let reading = Reading { header, ..Reading::default() };
            if let Ok(found) = load(&text, &reading) {
                let rows = found.train.rows() as u32;
                prop_assert!(rows == 0 || found.train.dataset(&(0..rows).collect::<Vec<_>>()).is_ok());
            }
        }

        #[test]
        fn quoted_fields_come_back(words in prop::collection::vec("[a-c,\"\\n ]{1,8}", 2..6)) {
            let quote = |word: &String| format!("\"{}\"", word.replace('"', "\"\""));
            let lines: Vec<String> = words.iter().map(|word| format!("1,{}", quote(word))).collect();
            let text = lines.join("\n");
            let mut records = Records { text: &text, line: 1, file: "" };
            for word in &words {
                let (_, record) = records.next().unwrap().unwrap();
                prop_assert_eq!(&record[1], word);
            }
            prop_assert!(records.next().is_none());
        }
    }
}
