//! Adaptive robust clipping (Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan: "The Vital Role of Gradient Clipping in
//! Byzantine-Resilient Distributed Learning", 2024): the `⌊2 f (n − f) / n⌋` longest rows are clipped to the length of
//! the longest other one.

use super::clip::clipped;
use crate::robust::registry::{About, Call, PreSpec, Prepared};

pub(in crate::robust) const SPEC: PreSpec = PreSpec {
    about: About {
        name: "arc",
        summary: "the 2 f (n - f) / n longest rows clipped to the norm of the longest other",
        options: &[],
        cost: "n d",
        source: "Allouah et al. 2024 (arXiv 2405.14432)",
    },
    merges: |_| 1,
    run,
};

fn run(&Call { rows, f, .. }: &Call) -> Prepared {
    let n = rows.count();
    let norms = rows.norms();
    let mut sorted = norms.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    // f (n − f) is at most n² / 4, so that at least half of the rows are left as they are.
    let bound = sorted[n - 2 * f * (n - f) / n - 1];
    clipped(&rows, &norms, bound)
}
