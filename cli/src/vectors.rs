//! Files of vectors: CSV with a row on each line, or NumPy's `.npy`.
//!
//! A file is `.npy` if it begins as one; anything else is CSV. Of `.npy`, what `numpy.save` writes for a matrix of
//! `float32` or `float64` is read: little-endian, in C order.

use fedveil_aggregation::robust::{Aggregate, MAX_MAGNITUDE, Rule, RuleError};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Most characters of a value that an error message repeats.
const EXCERPT: usize = 40;

const NPY_MAGIC: &[u8] = b"\x93NUMPY";

/// Rows of equal length, as they were stored.
#[derive(Debug, PartialEq)]
pub(crate) enum Table {
    Single(Vec<Vec<f32>>),
    Double(Vec<Vec<f64>>),
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TableError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} is neither text nor .npy; accepted are CSV, a row on each line, and .npy", .0.display())]
    NotText(PathBuf),
    #[error("{}: no rows; accepted are CSV, a row on each line, and .npy", .0.display())]
    Empty(PathBuf),
    #[error("{}:{line}: value {column} is {found:?}, accepted is a finite number of magnitude at most {MAX_MAGNITUDE:e}", path.display())]
    Value { path: PathBuf, line: usize, column: usize, found: String },
    #[error("{}:{line}: {found} values, line 1 has {expected}", path.display())]
    Ragged { path: PathBuf, line: usize, found: usize, expected: usize },
    #[error("{}: .npy {what} is {found}, accepted is {accepted}", path.display())]
    Npy { path: PathBuf, what: &'static str, found: String, accepted: String },
}

impl Table {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, TableError> {
        let bytes = fs::read(path).map_err(|error| TableError::Read { path: path.to_owned(), error })?;
        if bytes.starts_with(NPY_MAGIC) {
            return npy(&bytes).map_err(|(what, found, accepted)| TableError::Npy {
                path: path.to_owned(),
                what,
                found,
                accepted,
            });
        }
        let text = String::from_utf8(bytes).map_err(|_| TableError::NotText(path.to_owned()))?;
        csv(path, &text)
    }

    /// Applies a rule to the rows.
    pub(crate) fn aggregate(&self, rule: &Rule, f: usize) -> Result<Aggregate, RuleError> {
        match self {
            Self::Single(rows) => rule.aggregate(rows, f),
            Self::Double(rows) => rule.aggregate(rows, f),
        }
    }

    /// The rows as an option's value is written: commas inside rows, semicolons between them.
    pub(crate) fn to_setting(&self) -> String {
        fn join<T: ToString>(rows: &[Vec<T>]) -> String {
            let row = |row: &Vec<T>| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            rows.iter().map(row).collect::<Vec<_>>().join(";")
        }
        match self {
            Self::Single(rows) => join(rows),
            Self::Double(rows) => join(rows),
        }
    }
}

fn csv(path: &Path, text: &str) -> Result<Table, TableError> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for (line, values) in (1..).zip(text.trim_end().lines()) {
        let number = |(column, found): (usize, &str)| {
            found.trim().parse().ok().filter(|value: &f64| value.abs() <= MAX_MAGNITUDE).ok_or_else(|| {
                let found = found.trim().chars().take(EXCERPT).collect();
                TableError::Value { path: path.to_owned(), line, column, found }
            })
        };
        let row = (1..).zip(values.split(',')).map(number).collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = rows.first()
            && row.len() != first.len()
        {
            let (found, expected) = (row.len(), first.len());
            return Err(TableError::Ragged { path: path.to_owned(), line, found, expected });
        }
        rows.push(row);
    }
    if rows.is_empty() { Err(TableError::Empty(path.to_owned())) } else { Ok(Table::Double(rows)) }
}

/// What of a file is wrong, what was found, what is accepted.
type NpyFault = (&'static str, String, String);

/// Reads the format of NumPy's NEP 1, versions 1 to 3.
fn npy(bytes: &[u8]) -> Result<Table, NpyFault> {
    let cut = || ("header", "cut off".to_owned(), "a whole file".to_owned());
    let after_magic = &bytes[NPY_MAGIC.len()..];
    let (&[major, minor], rest) = after_magic.split_first_chunk().ok_or_else(cut)?;
    let (length, rest) = match (major, minor) {
        (1, 0) => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        (2 | 3, 0) => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => return Err(("version", format!("{major}.{minor}"), "1.0, 2.0 or 3.0".to_owned())),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header);
    let field = |name: &'static str| {
        entry(&header, name).ok_or_else(|| (name, "missing".to_owned(), "what numpy.save writes".to_owned()))
    };
    let order = field("fortran_order")?;
    if order != "False" {
        return Err((
            "fortran_order",
            excerpt(order),
            "False; numpy.ascontiguousarray makes it so".to_owned(),
        ));
    }
    let shape = field("shape")?;
    let (rows, columns) = matrix_shape(shape)
        .ok_or_else(|| ("shape", excerpt(shape), "(rows, coordinates), neither of them 0".to_owned()))?;
    let descr = field("descr")?;
    match descr {
        "'<f4'" => Ok(Table::Single(matrix(data, rows, columns, f32::from_le_bytes)?)),
        "'<f8'" => Ok(Table::Double(matrix(data, rows, columns, f64::from_le_bytes)?)),
        _ => Err(("descr", excerpt(descr), "'<f4' (float32) or '<f8' (float64)".to_owned())),
    }
}

/// The value of a key in the header, which is a Python dictionary as `numpy.save` writes it.
fn entry<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}': "))?;
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(&rest[..end])
}

fn matrix_shape(shape: &str) -> Option<(usize, usize)> {
    let (rows, columns) = shape.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let number = |text: &str| text.trim().parse().ok().filter(|number| *number > 0);
    Some((number(rows)?, number(columns)?))
}

fn matrix<T, const N: usize>(
    data: &[u8],
    rows: usize,
    columns: usize,
    number: fn([u8; N]) -> T,
) -> Result<Vec<Vec<T>>, NpyFault> {
    let expected = rows.checked_mul(columns).and_then(|numbers| numbers.checked_mul(N));
    if expected != Some(data.len()) {
        let accepted = format!("{rows} x {columns} x {N} bytes, as its header says");
        return Err(("data", format!("{} bytes", data.len()), accepted));
    }
    let (numbers, _) = data.as_chunks();
    Ok(numbers.chunks(columns).map(|row| row.iter().map(|bytes| number(*bytes)).collect()).collect())
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        csv(Path::new("rows.csv"), text).unwrap_err().to_string()
    }

    /// A `.npy` file of version 1.0 with this header.
    fn npy_file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = NPY_MAGIC.to_vec();
        file.extend([1, 0]);
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn csv_is_read_with_blanks_and_any_line_ends() {
        let expected = Table::Double(vec![vec![1.0, -2.5], vec![3e-7, 4.0]]);
        for text in ["1,-2.5\n3e-7,4\n", "1, -2.5\r\n 3e-7 ,4", "1,-2.5\n3e-7,4\n\n"] {
            assert_eq!(csv(Path::new("rows.csv"), text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn csv_faults_name_their_line() {
        let number = "accepted is a finite number of magnitude at most 1e100";
        assert_eq!(refusal("1,2\n3,x\n"), format!("rows.csv:2: value 2 is \"x\", {number}"));
        assert_eq!(refusal("1,2\n\n3,4\n"), format!("rows.csv:2: value 1 is \"\", {number}"));
        for found in ["NaN", "inf", "-inf", "1e101"] {
            assert_eq!(refusal(&format!("{found},1")), format!("rows.csv:1: value 1 is {found:?}, {number}"));
        }
        assert_eq!(refusal("1,2\n3,4\n5\n"), "rows.csv:3: 1 values, line 1 has 2");
        assert_eq!(refusal(" \n"), "rows.csv: no rows; accepted are CSV, a row on each line, and .npy");
    }

    #[test]
    fn npy_is_read_in_both_precisions() {
        let header = |descr: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 1), }}          \n")
        };
        let single: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(npy(&npy_file(&header("<f4"), &single)), Ok(Table::Single(vec![vec![1.5], vec![-2.0]])));
        let double: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let file = npy_file(&header("<f8"), &double);
        assert_eq!(npy(&file), Ok(Table::Double(vec![vec![1.5], vec![-2.0]])));
        for length in NPY_MAGIC.len()..file.len() {
            assert!(npy(&file[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn npy_faults_name_what_is_wrong() {
        let sound = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }";
        let data = [0; 8];
        for (from, to, what, found) in [
            ("'<f8'", "'>f8'", "descr", "'>f8'"),
            ("'<f8'", "'<i8'", "descr", "'<i8'"),
            ("False", "True", "fortran_order", "True"),
            ("(1, 1)", "(1,)", "shape", "(1,)"),
            ("(1, 1)", "(1, 1, 1)", "shape", "(1, 1, 1)"),
            ("(1, 1)", "(0, 1)", "shape", "(0, 1)"),
            ("(1, 1)", "(2, 1)", "data", "8 bytes"),
            ("(1, 1)", "(18446744073709551615, 9)", "data", "8 bytes"),
            ("'shape'", "'form'", "shape", "missing"),
        ] {
            let fault = npy(&npy_file(&sound.replace(from, to), &data)).unwrap_err();
            assert_eq!((fault.0, fault.1.as_str()), (what, found));
        }
        assert!(npy(&npy_file(sound, &data)).is_ok());
        let mut newer = npy_file(sound, &data);
        newer[6] = 9;
        assert_eq!(npy(&newer).unwrap_err().0, "version");
    }

    #[test]
    fn settings_keep_every_digit() {
        let table = Table::Double(vec![vec![0.1, 1e-300], vec![-2.0, 1.0 / 3.0]]);
        let rows = table.to_setting().replace(';', "\n");
        assert_eq!(csv(Path::new("rows.csv"), &rows).unwrap(), table);
    }
}
