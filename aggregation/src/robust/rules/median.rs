//! The coordinate-wise median.

use crate::robust::Aggregate;
use crate::robust::lanes::{TILE, Tile};
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::rows::{Rows, Scalar, Statistic};
use std::ops::RangeInclusive;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "median",
        summary: "median of each coordinate; between the two middle values for an even number of rows",
        options: &[],
        cost: "n log² n · d",
        source: "Yin et al., ICML 2018",
    },
    breakdown: "f < n/2",
    needs: Needs::COMMON,
    run: |Call { rows, .. }| Aggregate::of_columns(rows, &Median::of_rows(rows)),
};

/// The median of each coordinate.
pub(super) fn median(rows: &Rows) -> Vec<f64> {
    rows.per_column(&Median::of_rows(rows))
}

/// Positions of the two middle values, which are one where the rows are odd in number.
struct Median {
    low: usize,
    high: usize,
}

impl Median {
    fn of_rows(rows: &Rows) -> Self {
        Self { low: (rows.count() - 1) / 2, high: rows.count() / 2 }
    }
}

impl Statistic for Median {
    fn needed(&self) -> RangeInclusive<usize> {
        self.low..=self.high
    }

    #[inline]
    fn of<S: Scalar>(&self, sorted: &[Tile<S>]) -> [f64; TILE] {
        middle(&sorted[self.low], &sorted[self.high])
    }
}

/// Half-way between two values, which are too small to overflow.
#[inline]
pub(super) fn middle<S: Scalar>(low: &Tile<S>, high: &Tile<S>) -> [f64; TILE] {
    let mut middle = [0.0; TILE];
    for lane in 0..TILE {
        middle[lane] = (low[lane].into() + high[lane].into()) * 0.5;
    }
    middle
}
