//! Bulyan (El Mhamdi, Guerraoui, Rouault: "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018)
//! over Krum: select `n − 2f` rows, then take each coordinate's mean around its median.
//!
//! The paper selects one row at a time, by Krum among those that are left. Flower's newer code takes the `n − 2f` best
//! scores of one Krum, which is another rule, and named so.

use super::krum;
use super::meamed::MeanAroundMedian;
use crate::robust::Aggregate;
use crate::robust::options::OptionSpec;
use crate::robust::registry::{About, Bound, Call, Needs, RuleSpec};
use crate::robust::rows::least;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "bulyan",
        summary: "of n-2f rows selected by Krum, the mean of the n-4f values of each coordinate closest to its median",
        options: &[OptionSpec::word(
            "variant",
            &["paper", "flower"],
            "whether Krum selects one row at a time (paper) or all at once (flower)",
        )],
        cost: "n² d + n³ log n",
        source: "El Mhamdi, Guerraoui, Rouault, ICML 2018",
    },
    breakdown: "f < n/4 - 1/2",
    needs: Needs { bound: |_| Bound { per_byzantine: 4, more: 3 }, ..Needs::COMMON },
    run,
};

fn run(&Call { rows, f, options }: &Call) -> Aggregate {
    let n = rows.count();
    let distances = rows.distances();
    let score = |among: &[usize]| {
        // The last selections have fewer rows than the score was made for.
        krum::scores(&distances, among, among.len().saturating_sub(f + 2), |squared| squared)
    };
    let mut left: Vec<usize> = (0..n).collect();
    let scores = score(&left);
    let kept = if options.word("variant") == Some("flower") {
        least(&scores, n - 2 * f)
    } else {
        let mut kept = Vec::with_capacity(n - 2 * f);
        while kept.len() < n - 2 * f {
            let best = least(&score(&left), 1)[0];
            kept.push(left.remove(best));
        }
        kept.sort_unstable();
        kept
    };
    let selected = rows.select(&kept);
    let around = MeanAroundMedian { rows: kept.len(), keep: n - 4 * f };
    let vector = rows.made(&selected).per_column(&around);
    Aggregate { vector, kept, scores }
}
