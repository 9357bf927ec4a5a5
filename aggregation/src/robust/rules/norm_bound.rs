//! Norm bounding (Sun, Kairouz, Suresh, McMahan: "Can You Really Backdoor Federated Learning?", 2019): no row moves the
//! mean by more than `c / n`.

use super::centered_clipping::clip_factor;
use crate::robust::Aggregate;
use crate::robust::options::OptionSpec;
use crate::robust::registry::{About, Call, Needs, RuleSpec, value};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "norm-bound",
        summary: "mean of the rows, each clipped to norm c",
        options: &[OptionSpec::number("c", value("2"), "clip norm, in the unit of the rows")],
        cost: "n d",
        source: "Sun, Kairouz, Suresh, McMahan 2019 (arXiv 1911.07963)",
    },
    breakdown: "f rows move it by at most 2 f c / n",
    needs: Needs::COMMON,
    run,
};

fn run(&Call { rows, options, .. }: &Call) -> Aggregate {
    let share = |norm| clip_factor(norm, options.number("c")) / rows.count() as f64;
    let weights: Vec<_> = rows.norms().into_iter().map(share).enumerate().collect();
    Aggregate::of_every_row(&rows, rows.combine(&weights))
}
