//! Which data a scenario asks for, and how the formats are read for it.

use serde::{Deserialize, Serialize};

use super::table::Part;
use super::{
    Data, DatasetError, Files, TEST_SHARE, catalog, cifar, csv, digits, idx, leaf, names_of,
    text as plain_text,
};

/// Which data, as a scenario says it: `{ kind = "fashion-mnist" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataSpec {
    /// The handwritten digits inside the binary, split under the run's seed.
    Digits {
        /// 25 low frequencies of each image in place of its 64 pixels: see [`digits_spectrum`].
        #[serde(default)]
        spectrum: bool,
        /// Share of the rows to test with.
        #[serde(default = "test_share")]
        test_share: f64,
    },
    /// MNIST: 70,000 digits of 28 × 28 pixels.
    Mnist {},
    /// Fashion-MNIST: 70,000 articles of clothing of 28 × 28 pixels.
    FashionMnist {},
    /// EMNIST: digits and letters of 28 × 28 pixels.
    Emnist {
        /// Which of its six parts.
        split: EmnistSplit,
    },
    /// CIFAR-10: 60,000 photographs of 32 × 32 pixels in colour.
    #[serde(rename = "cifar-10")]
    Cifar10 {},
    /// Tiny Shakespeare, its speakers the natural clients.
    Shakespeare {
        /// Characters of a sequence.
        #[serde(default = "sequence")]
        sequence: usize,
        /// Share of each speaker's sequences to test with.
        #[serde(default = "test_share")]
        test_share: f64,
    },
    /// Images in IDX files under their usual names.
    Idx {
        /// The folder that holds them.
        folder: String,
        /// Number of classes; labels are 0 to one less.
        classes: usize,
        /// Pixels become (byte / 255 − mean) / deviation.
        #[serde(default)]
        mean: f32,
        /// See `mean`.
        #[serde(default = "one")]
        deviation: f32,
    },
    /// A table of numbers with a label in each row.
    Csv {
        /// The file.
        path: String,
        /// A file of rows to test with; without it, `test_share` of the first one's rows are.
        #[serde(default)]
        test: Option<String>,
        /// Whether the first line names the columns.
        #[serde(default = "yes")]
        header: bool,
        /// The column of labels, by name (without a header, by number from 1); the last column by default.
        #[serde(default)]
        label: Option<String>,
        /// The column that says whose row it is.
        #[serde(default)]
        client: Option<String>,
        /// Bring every feature to mean 0 and variance 1. A simulation can: it sees all rows. A federation would first
        /// have to learn the means in private.
        #[serde(default)]
        standardise: bool,
        /// Share of the rows to test with.
        #[serde(default = "test_share")]
        test_share: f64,
    },
    /// LEAF JSON, its users the natural clients.
    Leaf {
        /// The folder with its `train` and `test`.
        folder: String,
    },
    /// A text.
    Text {
        /// The file.
        path: String,
        /// Characters of a sequence.
        #[serde(default = "sequence")]
        sequence: usize,
        /// Whether it is a play whose speakers are natural clients.
        #[serde(default)]
        speakers: bool,
        /// Share of the sequences to test with, each speaker's last ones.
        #[serde(default = "test_share")]
        test_share: f64,
    },
}

/// A part of EMNIST (Cohen et al., arXiv:1702.05373, table II).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmnistSplit {
    /// 62 classes, as they occur.
    ByClass,
    /// 47 classes, as they occur: letters that look alike in both cases are one.
    ByMerge,
    /// The 47 classes, equally often.
    Balanced,
    /// 26 letters, both cases together.
    Letters,
    /// 10 digits.
    Digits,
    /// As many digits as MNIST has.
    Mnist,
}

/// The longest sequence of tokens.
const MAX_SEQUENCE: usize = 4096;

/// Names that MNIST and its kin give their four files.
const IDX_FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

impl DataSpec {
    /// What `kind` says.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Digits { .. } => "digits",
            Self::Mnist {} => "mnist",
            Self::FashionMnist {} => "fashion-mnist",
            Self::Emnist { .. } => "emnist",
            Self::Cifar10 {} => "cifar-10",
            Self::Shakespeare { .. } => "shakespeare",
            Self::Idx { .. } => "idx",
            Self::Csv { .. } => "csv",
            Self::Leaf { .. } => "leaf",
            Self::Text { .. } => "text",
        }
    }

    /// What reports call the set.
    pub fn name(&self) -> String {
        match self {
            Self::Emnist { split } => format!("emnist-{}", split.name()),
            Self::Idx { folder, .. } | Self::Leaf { folder } => folder.clone(),
            Self::Csv { path, .. } | Self::Text { path, .. } => path.clone(),
            _ => self.kind().to_owned(),
        }
    }

    /// Whether it needs a folder of data.
    pub fn needs_files(&self) -> bool {
        !matches!(self, Self::Digits { .. })
    }

    /// Reads the set. `seed` splits rows into those for training and those for testing, where the set does not.
    pub fn load(&self, files: &dyn Files, seed: u64) -> Result<Data, DatasetError> {
        let mut data = match self {
            Self::Digits { spectrum, test_share } => digits::data(*spectrum, *test_share, seed)?,
            Self::Mnist {} => images(files, "mnist", 10, 0.1307, 0.3081, names_of("0123456789"))?,
            Self::FashionMnist {} => {
                let names = catalog::FASHION_CLASSES.map(str::to_owned).to_vec();
                images(files, "fashion-mnist", 10, 0.2860, 0.3530, names)?
            }
            Self::Emnist { split } => split.load(files)?,
            Self::Cifar10 {} => cifar10(files)?,
            Self::Shakespeare { sequence, test_share } => {
                text(files, "tinyshakespeare/input.txt", *sequence, true, *test_share)?
            }
            Self::Idx { folder, classes, mean, deviation } => {
                let most = 256;
                if !(2..=most).contains(classes) || !mean.is_finite() || !(1e-6..=1e6).contains(deviation) {
                    return Err(DatasetError::Malformed {
                        file: folder.clone(),
                        at: "idx".to_owned(),
                        found: format!("classes {classes}, mean {mean}, deviation {deviation}"),
                        expected: format!("2 to {most} classes, a finite mean, a deviation of 1e-6 to 1e6"),
                    });
                }
                images(files, folder, *classes, *mean, *deviation, Vec::new())?
            }
            Self::Csv { path, test, header, label, client, standardise, test_share } => {
                let reading = csv::Reading {
                    header: *header,
                    label: label.as_deref(),
                    client: client.as_deref(),
                    standardise: *standardise,
                };
                csv::data(files, path, test.as_deref(), &reading, |rows| {
                    let (_, test) = digits::split_rows(rows, *test_share, seed)?;
                    let mut is_test = vec![false; rows];
                    for row in test {
                        is_test[row] = true;
                    }
                    Ok(is_test)
                })?
            }
            Self::Leaf { folder } => leaf::data(files, folder)?,
            Self::Text { path, sequence, speakers, test_share } => {
                text(files, path, *sequence, *speakers, *test_share)?
            }
        };
        data.name = self.name();
        Ok(data)
    }
}

impl EmnistSplit {
    fn name(self) -> &'static str {
        match self {
            Self::ByClass => "byclass",
            Self::ByMerge => "bymerge",
            Self::Balanced => "balanced",
            Self::Letters => "letters",
            Self::Digits => "digits",
            Self::Mnist => "mnist",
        }
    }

    /// One character a class, in the order of labels.
    fn classes(self) -> &'static str {
        match self {
            Self::ByClass => "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            Self::ByMerge | Self::Balanced => "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt",
            Self::Letters => "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            Self::Digits | Self::Mnist => "0123456789",
        }
    }

    fn load(self, files: &dyn Files) -> Result<Data, DatasetError> {
        let names = names_of(self.classes());
        let reading = idx::Reading {
            classes: names.len(),
            first_label: u8::from(self == Self::Letters),
            transposed: true,
            mean: 0.0,
            deviation: 1.0,
        };
        let part = |part: &str| {
            let paths = |kind: &str| {
                ["emnist", "emnist/gzip"]
                    .map(|folder| format!("{folder}/emnist-{}-{part}-{kind}", self.name()))
            };
            let (images, labels) = (paths("images-idx3-ubyte"), paths("labels-idx1-ubyte"));
            idx::part(files, &[&images[0], &images[1]], &[&labels[0], &labels[1]], &reading)
        };
        set(part("train")?, part("test")?, names)
    }
}

/// The four IDX files of a folder.
fn images(
    files: &dyn Files,
    folder: &str,
    classes: usize,
    mean: f32,
    deviation: f32,
    names: Vec<String>,
) -> Result<Data, DatasetError> {
    let reading = idx::Reading { classes, first_label: 0, transposed: false, mean, deviation };
    let [train_images, train_labels, test_images, test_labels] =
        IDX_FILES.map(|name| format!("{folder}/{name}"));
    let train = idx::part(files, &[&train_images], &[&train_labels], &reading)?;
    let test = idx::part(files, &[&test_images], &[&test_labels], &reading)?;
    if train.shape() != test.shape() {
        return Err(DatasetError::Malformed {
            file: test_images,
            at: "byte 8".to_owned(),
            found: format!("images of {} pixels", test.inputs()),
            expected: format!("{} pixels, as for training", train.inputs()),
        });
    }
    set(train, test, names)
}

fn cifar10(files: &dyn Files) -> Result<Data, DatasetError> {
    let folders = ["cifar-10", "cifar-10/cifar-10-batches-bin", "cifar-10-batches-bin"];
    let batches = [1, 2, 3, 4, 5].map(|number| format!("data_batch_{number}.bin"));
    let train = cifar::part(files, &folders, &batches.each_ref().map(String::as_str))?;
    let test = cifar::part(files, &folders, &["test_batch.bin"])?;
    set(train, test, catalog::CIFAR_CLASSES.map(str::to_owned).to_vec())
}

fn text(
    files: &dyn Files,
    path: &str,
    sequence: usize,
    speakers: bool,
    test_share: f64,
) -> Result<Data, DatasetError> {
    if !(1..=MAX_SEQUENCE).contains(&sequence) {
        return Err(DatasetError::SequenceLength { found: sequence, most: MAX_SEQUENCE });
    }
    if !(test_share > 0.0 && test_share < 1.0) {
        return Err(DatasetError::TestShare { found: test_share });
    }
    plain_text::data(files, path, sequence, speakers, test_share)
}

#[expect(clippy::unnecessary_wraps, reason = "the last step of functions that can fail")]
fn set(train: Part, test: Part, class_names: Vec<String>) -> Result<Data, DatasetError> {
    Ok(Data { name: String::new(), train, test, class_names, clients: Vec::new(), characters: Vec::new() })
}

fn test_share() -> f64 {
    TEST_SHARE
}

fn sequence() -> usize {
    80
}

fn one() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{self, Read};
    use std::path::PathBuf;

    use super::*;

    /// The folder that FEDVEIL_DATA names.
    struct Folder(PathBuf);

    impl Files for Folder {
        fn open(&self, path: &str) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(io::BufReader::new(std::fs::File::open(self.0.join(path))?)))
        }

        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            let names = std::fs::read_dir(self.0.join(folder))?;
            names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        }
    }

    /// A set of the folder that FEDVEIL_DATA names; none, with a printed reason, where that is not set.
    fn real(spec: &str) -> Option<Data> {
        let Some(folder) = std::env::var_os("FEDVEIL_DATA") else {
            println!("skipped: FEDVEIL_DATA names no folder of data");
            return None;
        };
        let spec: DataSpec = serde_json::from_str(spec).unwrap();
        match spec.load(&Folder(folder.into()), 1) {
            Ok(data) => Some(data),
            Err(DatasetError::Missing { file }) => {
                println!("skipped: the folder that FEDVEIL_DATA names has no {file}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn moments(part: &Part) -> (f64, f64) {
        let rows: Vec<u32> = (0..part.rows() as u32).collect();
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for rows in rows.chunks(1000) {
            for value in part.dataset(rows).unwrap().features() {
                sum += f64::from(*value);
                squares += f64::from(*value).powi(2);
                count += 1.0;
            }
        }
        (sum / count, (squares / count - (sum / count).powi(2)).sqrt())
    }

    #[test]
    fn real_images_have_the_published_sizes_and_moments() {
        for (spec, first) in
            [(r#"{"kind": "mnist"}"#, [5, 0, 4, 1]), (r#"{"kind": "fashion-mnist"}"#, [9, 0, 0, 3])]
        {
            let Some(data) = real(spec) else { return };
            assert_eq!((data.train.rows(), data.test.rows(), data.train.inputs()), (60_000, 10_000, 784));
            assert_eq!(data.train.labels()[..4], first);
            let (mean, deviation) = moments(&data.train);
            assert!(mean.abs() < 1e-3 && (deviation - 1.0).abs() < 1e-3, "{spec}: {mean}, {deviation}");
            let counts =
                (0..10).map(|class| data.test.labels().iter().filter(|label| **label == class).count());
            assert!(counts.clone().all(|count| count > 890), "{spec}: {:?}", counts.collect::<Vec<_>>());
        }
    }

    #[test]
    fn real_plays_have_speakers() {
        let Some(data) = real(r#"{"kind": "shakespeare"}"#) else { return };
        assert_eq!(data.characters.len(), 65);
        assert!(data.clients.iter().any(|name| name == "JULIET"), "{:?}", data.clients);
        assert!(
            data.clients.len() > 200 && data.train.rows() > 9_000,
            "{} {}",
            data.clients.len(),
            data.train.rows()
        );
        let share = data.test.rows() as f64 / (data.train.rows() + data.test.rows()) as f64;
        assert!((0.17..0.2).contains(&share), "{share}");
    }

    #[test]
    fn specs_read_as_a_scenario_writes_them() {
        let read = |text: &str| serde_json::from_str::<DataSpec>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"kind": "cifar-10"}"#), Ok(DataSpec::Cifar10 {}));
        assert_eq!(
            read(r#"{"kind": "emnist", "split": "byclass"}"#),
            Ok(DataSpec::Emnist { split: EmnistSplit::ByClass })
        );
        assert_eq!(
            read(r#"{"kind": "shakespeare"}"#),
            Ok(DataSpec::Shakespeare { sequence: 80, test_share: TEST_SHARE })
        );
        let error = read(r#"{"kind": "mnist", "folder": "x"}"#).unwrap_err();
        assert!(error.contains("unknown field `folder`"), "{error}");
        let error = read(r#"{"kind": "mnits"}"#).unwrap_err();
        assert!(error.contains("`fashion-mnist`") && error.contains("mnits"), "{error}");
        for spec in [DataSpec::Digits { spectrum: true, test_share: 0.5 }, DataSpec::Mnist {}] {
            let text = serde_json::to_string(&spec).unwrap();
            assert!(text.contains(spec.kind()) && read(&text) == Ok(spec), "{text}");
        }
    }

    fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
        let magic = [0, 0, 8, sizes.len() as u8];
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        magic.into_iter().chain(sizes).chain(bytes.iter().copied()).collect()
    }

    fn idx_files(test_side: u32) -> BTreeMap<String, Vec<u8>> {
        let test = vec![0; (test_side * test_side) as usize];
        let contents = [
            idx(&[2, 2, 2], &[255; 8]),
            idx(&[2], &[0, 1]),
            idx(&[1, test_side, test_side], &test),
            idx(&[1], &[1]),
        ];
        IDX_FILES.iter().map(|name| format!("x/{name}")).zip(contents).collect()
    }

    #[test]
    fn folders_of_idx_files_need_no_entry_in_the_catalog() {
        let spec = DataSpec::Idx { folder: "x".to_owned(), classes: 2, mean: 0.5, deviation: 0.25 };
        let data = spec.load(&idx_files(2), 1).unwrap();
        assert_eq!((data.name.as_str(), data.train.rows(), data.test.rows()), ("x", 2, 1));
        assert_eq!(data.train.dataset(&[0]).unwrap().features(), [2.0; 4]);
        let error = spec.load(&idx_files(3), 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "x/t10k-images-idx3-ubyte, byte 8: found images of 9 pixels, expected 4 pixels, as for training"
        );
        let error = spec.load(&BTreeMap::new(), 1).unwrap_err().to_string();
        assert!(error.starts_with("there is no x/train-images-idx3-ubyte in the folder of data"), "{error}");
        let spec = DataSpec::Idx { folder: "x".to_owned(), classes: 2, mean: 0.5, deviation: 0.0 };
        assert!(spec.load(&idx_files(2), 1).is_err());
    }

    #[test]
    fn emnist_is_turned_and_its_letters_count_from_one() {
        let files: BTreeMap<String, Vec<u8>> = ["train", "test"]
            .iter()
            .flat_map(|part| {
                let name = |kind| format!("emnist/gzip/emnist-letters-{part}-{kind}-ubyte");
                [
                    (name("images-idx3"), idx(&[1, 2, 2], &[0, 255, 0, 0])),
                    (name("labels-idx1"), idx(&[1], &[26])),
                ]
            })
            .collect();
        let data = DataSpec::Emnist { split: EmnistSplit::Letters }.load(&files, 1).unwrap();
        assert_eq!(data.train.dataset(&[0]).unwrap().features(), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!((data.train.labels()[0], data.class_names[25].as_str()), (25, "Z"));
        assert_eq!(data.name, "emnist-letters");
    }

    #[test]
    fn rows_of_a_table_are_split_by_the_seed() {
        let text: Vec<String> = (0..10).map(|row| format!("{row},{}", row % 2)).collect();
        let files = BTreeMap::from([("t.csv".to_owned(), text.join("\n").into_bytes())]);
        let spec: DataSpec =
            serde_json::from_str(r#"{"kind": "csv", "path": "t.csv", "header": false}"#).unwrap();
        let rows = |seed| {
            let data = spec.load(&files, seed).unwrap();
            (data.train.dataset(&(0..8).collect::<Vec<_>>()).unwrap(), data.test.dataset(&[0, 1]).unwrap())
        };
        assert_eq!(rows(3), rows(3));
        assert!((4..9).any(|seed| rows(seed) != rows(3)));
        let (train, test) = rows(3);
        let mut all: Vec<f32> = [train.features(), test.features()].concat();
        all.sort_by(f32::total_cmp);
        assert_eq!(all, (0..10).map(|row| row as f32).collect::<Vec<_>>());
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let files = BTreeMap::from([("t.txt".to_owned(), vec![b'a'; 100])]);
        let text = |sequence, test_share| {
            DataSpec::Text { path: "t.txt".to_owned(), sequence, speakers: false, test_share }.load(&files, 1)
        };
        assert!(text(4, 0.5).is_ok());
        assert_eq!(text(0, 0.5).unwrap_err(), DatasetError::SequenceLength { found: 0, most: 4096 });
        assert_eq!(text(4, 1.0).unwrap_err(), DatasetError::TestShare { found: 1.0 });
        let share = DataSpec::Digits { spectrum: false, test_share: 0.0 }.load(&files, 1).unwrap_err();
        assert_eq!(share, DatasetError::TestShare { found: 0.0 });
    }
}
