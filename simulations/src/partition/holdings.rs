//! Who holds what: rows of each class at each client, for reports.

use std::io;

use serde::{Deserialize, Serialize};

use super::Split;
use crate::datasets::Part;

/// Clients that are told one by one.
const SHOWN: usize = 100;

/// Clients that are looked at where rows are drawn when they are asked for. They are alike, so that the first ones speak
/// for all.
const EXAMINED: usize = 10_000;

/// What a split gives to its clients: all in numbers, the first in detail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holdings {
    /// Clients there are.
    pub clients: u64,
    /// Clients that the quantiles are of.
    pub examined: u64,
    /// Whether a row may be held by several clients.
    pub repeats: bool,
    /// Names of the classes; empty where rows have no labels.
    pub classes: Vec<String>,
    /// Rows of a client.
    pub sizes: Quantiles,
    /// Classes that a client has a row of; none where rows have no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes_held: Option<Quantiles>,
    /// The first clients.
    pub shown: Vec<ClientHoldings>,
}

/// How a number is distributed over clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The least.
    pub least: u64,
    /// Of one client in ten, this or less.
    pub tenth: u64,
    /// Of half of the clients, this or less.
    pub median: u64,
    /// Of nine clients in ten, this or less.
    pub nine_tenths: u64,
    /// The most.
    pub most: u64,
    /// The mean.
    pub mean: f64,
}

/// What one client holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHoldings {
    /// Which client, from 0.
    pub client: u64,
    /// Rows it holds.
    pub rows: u64,
    /// Rows of each class, in the order of labels; empty where rows have no labels.
    pub of_class: Vec<u64>,
}

impl Holdings {
    /// Looks at a split of `part`, whose classes have these names or, where there are none, their numbers.
    pub fn of(split: &Split, part: &Part, names: &[String]) -> Self {
        let examined = if split.repeats() { split.clients().min(EXAMINED) } else { split.clients() };
        let mut sizes = Vec::with_capacity(examined);
        let mut classes_held = Vec::new();
        let mut shown = Vec::new();
        for client in 0..examined {
            let held = ClientHoldings::of(split, part, client);
            sizes.push(held.rows);
            if !held.of_class.is_empty() {
                classes_held.push(held.of_class.iter().filter(|rows| **rows > 0).count() as u64);
            }
            if client < SHOWN {
                shown.push(held);
            }
        }
        Self {
            clients: split.clients() as u64,
            examined: examined as u64,
            repeats: split.repeats(),
            classes: class_names(part, names),
            sizes: Quantiles::of(sizes),
            classes_held: (!classes_held.is_empty()).then(|| Quantiles::of(classes_held)),
            shown,
        }
    }

    /// Writes a line for every client, however many: its number, its rows, and its rows of each class.
    pub fn csv(split: &Split, part: &Part, names: &[String], out: &mut dyn io::Write) -> io::Result<()> {
        let quoted =
            class_names(part, names).into_iter().map(|name| format!(",\"{}\"", name.replace('"', "\"\"")));
        writeln!(out, "client,rows{}", quoted.collect::<String>())?;
        for client in 0..split.clients() {
            let held = ClientHoldings::of(split, part, client);
            write!(out, "{client},{}", held.rows)?;
            held.of_class.iter().try_for_each(|rows| write!(out, ",{rows}"))?;
            writeln!(out)?;
        }
        Ok(())
    }
}

impl ClientHoldings {
    fn of(split: &Split, part: &Part, client: usize) -> Self {
        let rows = split.rows_of(client);
        let mut of_class = vec![0; if part.labels().is_empty() { 0 } else { part.classes() }];
        if !of_class.is_empty() {
            for &row in rows.iter() {
                of_class[part.labels()[row as usize] as usize] += 1;
            }
        }
        Self { client: client as u64, rows: rows.len() as u64, of_class }
    }
}

impl Quantiles {
    /// Of at least one number. A quantile is the least number that the share of them do not exceed.
    fn of(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        let at = |share: f64| numbers[((share * numbers.len() as f64).ceil() as usize).max(1) - 1];
        Self {
            least: at(0.0),
            tenth: at(0.1),
            median: at(0.5),
            nine_tenths: at(0.9),
            most: at(1.0),
            mean: numbers.iter().sum::<u64>() as f64 / numbers.len() as f64,
        }
    }
}

/// A name for every class; none where rows have no labels.
fn class_names(part: &Part, names: &[String]) -> Vec<String> {
    if part.labels().is_empty() {
        return Vec::new();
    }
    (0..part.classes()).map(|class| names.get(class).cloned().unwrap_or_else(|| class.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::datasets::{Data, DataSpec};
    use crate::partition::Partitioner;

    fn digits() -> Data {
        DataSpec::Digits { spectrum: false, test_share: 0.2 }.load(&BTreeMap::new(), 1).unwrap()
    }

    #[test]
    fn every_row_is_counted_once() {
        let data = digits();
        let split = Split::new(&data.train, &Partitioner::Pathological { classes: 2 }, 30, 1).unwrap();
        let held = Holdings::of(&split, &data.train, &data.class_names);
        assert_eq!((held.clients, held.examined, held.shown.len(), held.repeats), (30, 30, 30, false));
        for class in 0..10 {
            let rows: u64 = held.shown.iter().map(|client| client.of_class[class]).sum();
            let expected = data.train.labels().iter().filter(|label| **label as usize == class).count();
            assert_eq!(rows, expected as u64);
        }
        let two = held.classes_held.unwrap();
        assert_eq!((two.least, two.median, two.most, two.mean), (2, 2, 2, 2.0));
        let mut csv = Vec::new();
        Holdings::csv(&split, &data.train, &data.class_names, &mut csv).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        assert!(csv.starts_with("client,rows,\"0\",\"1\","), "{csv}");
        assert_eq!(csv.lines().count(), 31);
        let sum: u64 =
            csv.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(sum, data.train.rows() as u64);
    }

    #[test]
    fn of_a_large_population_the_first_are_examined() {
        let data = digits();
        let split =
            Split::new(&data.train, &Partitioner::Draw { rows: 5, alpha: Some(0.1) }, 1_000_000, 1).unwrap();
        let held = Holdings::of(&split, &data.train, &[]);
        assert_eq!(
            (held.clients, held.examined, held.shown.len(), held.repeats),
            (1_000_000, 10_000, 100, true)
        );
        assert_eq!((held.sizes.least, held.sizes.most, held.classes[9].as_str()), (5, 5, "9"));
        assert!(held.classes_held.unwrap().median < 3);
    }

    #[test]
    fn quantiles_are_numbers_that_occur() {
        let found = Quantiles::of(vec![7, 1, 3, 5]);
        let expected = Quantiles { least: 1, tenth: 1, median: 3, nine_tenths: 7, most: 7, mean: 4.0 };
        assert_eq!(found, expected);
    }
}
