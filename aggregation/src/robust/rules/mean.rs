//! The mean, which withstands nothing and is what robust rules are compared with.

use crate::robust::Aggregate;
use crate::robust::registry::{About, Bound, Call, Needs, RuleSpec};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "mean",
        summary: "mean of all rows; one Byzantine row can move it anywhere",
        options: &[],
        cost: "n d",
        source: "McMahan et al., AISTATS 2017",
    },
    breakdown: "f = 0",
    needs: Needs { bound: |_| Bound { per_byzantine: 0, more: 1 }, ..Needs::COMMON },
    run,
};

fn run(Call { rows, .. }: &Call) -> Aggregate {
    let all: Vec<usize> = (0..rows.count()).collect();
    Aggregate::of_selected(rows, all)
}
