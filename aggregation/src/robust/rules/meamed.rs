//! The mean around the median (Xie, Koyejo, Gupta: "Generalized Byzantine-tolerant SGD", 2018).

use super::median::middle;
use crate::robust::Aggregate;
use crate::robust::lanes::{TILE, Tile};
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::rows::{Scalar, Statistic};
use std::ops::RangeInclusive;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "meamed",
        summary: "mean of the n-f values of each coordinate that are closest to its median",
        options: &[],
        cost: "n log² n · d",
        source: "Xie, Koyejo, Gupta 2018 (arXiv 1802.10116)",
    },
    breakdown: "f < n/2",
    needs: Needs::COMMON,
    run: |Call { rows, f, .. }| {
        Aggregate::of_columns(rows, &MeanAroundMedian { rows: rows.count(), keep: rows.count() - f })
    },
};

/// The mean of the `keep` values of each coordinate that are closest to its median; of two equally close ones the
/// lower is kept.
pub(super) struct MeanAroundMedian {
    pub(super) rows: usize,
    pub(super) keep: usize,
}

impl Statistic for MeanAroundMedian {
    fn needed(&self) -> RangeInclusive<usize> {
        0..=self.rows - 1
    }

    /// What is closest to a number is contiguous among sorted ones. It begins one position later for each value that is
    /// farther from the median than the one `keep` positions above it: when one of these is not, none after it is.
    #[inline]
    fn of<S: Scalar>(&self, sorted: &[Tile<S>]) -> [f64; TILE] {
        let Self { rows, keep } = *self;
        let median = middle(&sorted[(rows - 1) / 2], &sorted[rows / 2]);
        let mut first = [0.0; TILE];
        for (low, high) in sorted.iter().zip(&sorted[keep..]) {
            for lane in 0..TILE {
                let farther = median[lane] - low[lane].into() > high[lane].into() - median[lane];
                first[lane] += f64::from(u8::from(farther));
            }
        }
        let mut sums = [0.0; TILE];
        for (position, values) in sorted.iter().enumerate() {
            let position = position as f64;
            for lane in 0..TILE {
                let is_kept = position >= first[lane] && position < first[lane] + keep as f64;
                sums[lane] += if is_kept { values[lane].into() } else { 0.0 };
            }
        }
        sums.map(|sum| sum / keep as f64)
    }
}
