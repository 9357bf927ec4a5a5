//! The mean around the median (Xie, Koyejo, Gupta: "Generalized Byzantine-tolerant SGD", 2018).

use crate::robust::Aggregate;
use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::rows::Rows;

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
    run: |&Call { rows, f, .. }| Aggregate::of_every_row(&rows, mean_around_median(&rows, rows.count() - f)),
};

/// The mean of the `keep` values of each coordinate that are closest to its median; of two equally close ones the
/// lower is kept.
pub(super) fn mean_around_median(rows: &Rows, keep: usize) -> Vec<f64> {
    let mut column = Vec::with_capacity(rows.count());
    rows.per_column(0..=rows.count() - 1, |columns, means| {
        for (at, mean) in means.iter_mut().enumerate() {
            columns.column(at, &mut column);
            let median = column[(column.len() - 1) / 2].midpoint(column[column.len() / 2]);
            // What is closest to a number is contiguous among sorted ones: drop the farther end until enough are left.
            let mut closest = &column[..];
            while let [low, .., high] = closest
                && closest.len() > keep
            {
                closest =
                    if median - low > high - median { &closest[1..] } else { &closest[..closest.len() - 1] };
            }
            *mean = closest.iter().sum::<f64>() / keep as f64;
        }
    })
}
