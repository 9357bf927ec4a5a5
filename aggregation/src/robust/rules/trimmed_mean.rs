//! The coordinate-wise trimmed mean.

use crate::robust::Aggregate;
use crate::robust::lanes::{TILE, Tile};
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::rows::{Scalar, Statistic};
use std::ops::RangeInclusive;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "trimmed-mean",
        summary: "mean of each coordinate without its f smallest and f largest values",
        options: &[],
        cost: "n log² n · d",
        source: "Yin et al., ICML 2018",
    },
    breakdown: "f < n/2",
    needs: Needs::COMMON,
    run: |Call { rows, f, .. }| {
        Aggregate::of_columns(rows, &TrimmedMean { first: *f, last: rows.count() - f - 1 })
    },
};

/// The mean of the values at these positions and all between them.
struct TrimmedMean {
    first: usize,
    last: usize,
}

impl Statistic for TrimmedMean {
    fn needed(&self) -> RangeInclusive<usize> {
        self.first..=self.last
    }

    #[inline]
    fn of<S: Scalar>(&self, sorted: &[Tile<S>]) -> [f64; TILE] {
        let kept = &sorted[self.first..=self.last];
        let mut means = [0.0; TILE];
        for values in kept {
            for lane in 0..TILE {
                means[lane] += values[lane].into();
            }
        }
        means.map(|sum| sum / kept.len() as f64)
    }
}
