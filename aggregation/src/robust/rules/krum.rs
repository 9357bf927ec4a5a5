//! Krum and Multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer: "Machine Learning with Adversaries", NeurIPS
//! 2017): keep rows by how close they are to their nearest others.
//!
//! Published programs disagree on the score, and so often on the row. Each has its name as a variant:
//!
//! | variant | nearest others | summed | Multi-Krum keeps |
//! |---|---|---|---|
//! | `paper`, `flower` | n − f − 2 | squared distances | n − f |
//! | `byzfl` | n − f − 1 | squared distances | n − f |
//! | `garfield` | n − f − 1 | distances | n − f − 2 |
//! | `epfml` | n − f − 2 | fourth powers of distances | n − f |

use crate::robust::Aggregate;
use crate::robust::options::{OptionSpec, Options};
use crate::robust::registry::{About, Bound, Call, Needs, RuleSpec};
use crate::robust::rows::{Distances, least};

const VARIANT: OptionSpec = OptionSpec::word(
    "variant",
    &["paper", "byzfl", "flower", "garfield", "epfml"],
    "whose number of neighbours, n-f-2 (paper, flower, epfml) or n-f-1 (byzfl, garfield), and power of distances",
);

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "krum",
        summary: "the one row that is closest to its n-f-2 nearest others",
        options: &[VARIANT],
        cost: "n² d",
        source: "Blanchard et al., NeurIPS 2017",
    },
    breakdown: "f < n/2 - 1",
    needs: Needs { bound, ..Needs::COMMON },
    run: |call| select(call, 1),
};

pub(in crate::robust) const MULTI: RuleSpec = RuleSpec {
    about: About {
        name: "multi-krum",
        summary: "mean of the n-f rows that are closest to their n-f-2 nearest others",
        ..SPEC.about
    },
    run: |call| {
        let spared = if call.options.word("variant") == Some("garfield") { 2 } else { 0 };
        select(call, call.rows.count() - call.f - spared)
    },
    ..SPEC
};

/// Where fourth powers end, so that no sum of them overflows. Only rows beyond 10^70 come near it.
const LARGEST_POWER: f64 = 1e290;

/// The paper's `2f + 3`; byzfl asks for a majority.
fn bound(options: &Options) -> Bound {
    match options.word("variant") {
        Some("byzfl") => Bound { per_byzantine: 2, more: 1 },
        _ => Bound { per_byzantine: 2, more: 3 },
    }
}

fn select(call: &Call, keep: usize) -> Aggregate {
    let Call { rows, f, options } = call;
    let (neighbours, power): (usize, fn(f64) -> f64) = match options.word("variant") {
        Some("byzfl") => (rows.count() - f - 1, |squared| squared),
        Some("garfield") => (rows.count() - f - 1, f64::sqrt),
        Some("epfml") => (rows.count() - f - 2, |squared| (squared * squared).min(LARGEST_POWER)),
        _ => (rows.count() - f - 2, |squared| squared),
    };
    let all: Vec<usize> = (0..rows.count()).collect();
    let scores = scores(&rows.distances(), &all, neighbours, power);
    let kept = least(&scores, keep);
    Aggregate { vector: rows.mean(&kept), kept, scores }
}

/// For each row of `among`, the sum over its `neighbours` nearest others there of `power` of the squared distance.
pub(super) fn scores(
    distances: &Distances,
    among: &[usize],
    neighbours: usize,
    power: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let score = |&row: &usize| {
        let others = among.iter().filter(|&&other| other != row);
        let mut to_others: Vec<f64> = others.map(|&other| distances.squared(row, other)).collect();
        to_others.sort_unstable_by(f64::total_cmp);
        to_others[..neighbours].iter().map(|&squared| power(squared)).sum()
    };
    among.iter().map(score).collect()
}
