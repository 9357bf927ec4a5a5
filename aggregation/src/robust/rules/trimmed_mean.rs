//! The coordinate-wise trimmed mean.

use crate::robust::Aggregate;
use crate::robust::registry::{About, Call, Needs, RuleSpec};

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
    run,
};

fn run(&Call { rows, f, .. }: &Call) -> Aggregate {
    let (first, last) = (f, rows.count() - f - 1);
    let vector = rows.per_column(first..=last, |columns, means| {
        means.fill(0.0);
        for position in first..=last {
            for (sum, value) in means.iter_mut().zip(columns.at(position)) {
                *sum += value;
            }
        }
        let count = (last - first + 1) as f64;
        for sum in means {
            *sum /= count;
        }
    });
    Aggregate::of_every_row(&rows, vector)
}
