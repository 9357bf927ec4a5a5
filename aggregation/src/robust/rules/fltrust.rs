//! FLTrust (Cao, Fang, Liu, Gong, NDSS 2021): a row counts as much as it agrees with an update that the server made
//! from data of its own, and is scaled to that update's length.

use crate::robust::Aggregate;
use crate::robust::options::{Fallback, Kind, OptionSpec};
use crate::robust::registry::{About, Bound, Call, Needs, RuleSpec};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "fltrust",
        summary: "mean weighted with the cosine to a trusted update, every row scaled to its length",
        options: &[OptionSpec {
            key: "reference",
            kind: Kind::Vector(&[]),
            default: Fallback::Required,
            meaning: "the server's own update, of the rows' dimension",
        }],
        cost: "n d",
        source: "Cao, Fang, Liu, Gong, NDSS 2021",
    },
    breakdown: "f < n, as far as the reference is right",
    needs: Needs {
        group_means: false,
        rows_alone: false,
        bound: |_| Bound { per_byzantine: 1, more: 1 },
        ..Needs::COMMON
    },
    run,
};

/// Rows that point away from the reference have no part; if all do, the result is zero and no row is kept. Scores are
/// one minus the cosine.
fn run(&Call { rows, options, .. }: &Call) -> Aggregate {
    let reference = &options.rows("reference").expect("the option must be set")[0];
    let length = reference.iter().map(|value| value * value).sum::<f64>().sqrt();
    let norms = rows.norms();
    let cosines: Vec<f64> = rows
        .products_with(reference)
        .into_iter()
        .zip(&norms)
        .map(|(product, norm)| if norm * length > 0.0 { product / (norm * length) } else { 0.0 })
        .collect();
    let trust: f64 = cosines.iter().map(|cosine| cosine.max(0.0)).sum();
    let kept: Vec<usize> = (0..rows.count()).filter(|&row| cosines[row] > 0.0).collect();
    let weights: Vec<_> = kept.iter().map(|&row| (row, cosines[row] / trust * length / norms[row])).collect();
    Aggregate {
        vector: rows.combine(&weights),
        kept,
        scores: cosines.iter().map(|cosine| 1.0 - cosine).collect(),
    }
}
