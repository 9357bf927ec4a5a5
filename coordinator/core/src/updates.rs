//! Updates in the clear, while they come in.
//!
//! Where a rule asks for nothing but sums, updates are summed as they come, and the memory of a round is that of the sums.
//! Other rules want every row, and the memory is clients × model. Steps are integers, whose order leaves no trace; what was
//! never rounded is added in f64, in the order in which it came.

use crate::event::Client;
use fedveil_aggregation::plain::Values;
use std::collections::BTreeMap;

/// The updates of a round in progress.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// Who sent one, and what it is, unless it is in a sum.
    clients: BTreeMap<Client, Option<Values>>,
    sums: BTreeMap<u32, Total>,
}

/// A sum of updates.
#[derive(Debug)]
pub(crate) enum Total {
    /// In steps of the grid.
    Steps(Vec<i64>),
    /// In model units, in plans without noise.
    Reals(Vec<f64>),
}

impl Updates {
    /// Takes a client's accepted update, into this sum or as a row of its own.
    pub(crate) fn add(&mut self, client: Client, values: Values, sum: Option<u32>) {
        let row = match sum.map(|sum| self.sums.entry(sum)) {
            None => Some(values),
            Some(sum) => {
                sum.and_modify(|total| total.add(&values)).or_insert_with(|| Total::of(&values));
                None
            }
        };
        self.clients.insert(client, row);
    }

    /// Takes a sum out.
    pub(crate) fn take(&mut self, sum: u32) -> Option<Total> {
        self.sums.remove(&sum)
    }

    /// Who sent one, in the order of their identities.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.keys()
    }

    /// The sums by number, and the rows that are in none, in the order of their clients' identities.
    pub(crate) fn into_parts(self) -> (BTreeMap<u32, Total>, Vec<Values>) {
        (self.sums, self.clients.into_values().flatten().collect())
    }
}

impl Total {
    /// Of one update.
    pub(crate) fn of(values: &Values) -> Self {
        match values {
            Values::Steps(steps) => Self::Steps(steps.iter().map(|&step| i64::from(step)).collect()),
            Values::Reals(reals) => Self::Reals(reals.iter().map(|&real| f64::from(real)).collect()),
        }
    }

    /// A plan has updates of one kind.
    fn add(&mut self, values: &Values) {
        match (self, values) {
            (Self::Steps(total), Values::Steps(steps)) => {
                total.iter_mut().zip(steps).for_each(|(total, &step)| *total += i64::from(step));
            }
            (Self::Reals(total), Values::Reals(reals)) => {
                total.iter_mut().zip(reals).for_each(|(total, &real)| *total += f64::from(real));
            }
            _ => {}
        }
    }
}
