//! The coordinate-wise median.

use crate::robust::registry::{About, Call, Needs, RuleSpec};
use crate::robust::{Aggregate, rows::Rows};

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
    run: |Call { rows, .. }| Aggregate::of_every_row(rows, median(rows)),
};

/// The median of each coordinate.
pub(super) fn median(rows: &Rows) -> Vec<f64> {
    let (low, high) = ((rows.count() - 1) / 2, rows.count() / 2);
    rows.per_column(low..=high, |columns, medians| {
        for ((median, low), high) in medians.iter_mut().zip(columns.at(low)).zip(columns.at(high)) {
            *median = low.midpoint(*high);
        }
    })
}
