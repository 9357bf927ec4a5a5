//! MoNNA (Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan: "Robust Collaborative Learning with Linear Gradient
//! Overhead", ICML 2023): the mean of the rows nearest to one that is trusted, which in the paper is a node's own.

use crate::robust::Aggregate;
use crate::robust::options::{Kind, OptionSpec};
use crate::robust::registry::{About, Call, Needs, RuleSpec, value};
use crate::robust::rows::least;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "monna",
        summary: "mean of the n-f rows nearest to one trusted row, which it is among",
        options: &[OptionSpec {
            key: "index",
            kind: Kind::Index,
            default: value("0"),
            meaning: "the trusted row",
        }],
        cost: "n d",
        source: "Farhadkhani et al., ICML 2023",
    },
    breakdown: "f < n/2, as far as the trusted row is honest",
    needs: Needs { group_means: false, rows_alone: false, ..Needs::COMMON },
    run,
};

fn run(&Call { rows, f, options }: &Call) -> Aggregate {
    let index = options.count("index");
    let trusted = rows.combine(&[(index, 1.0)]);
    let mut scores = rows.distances_to(&trusted);
    // Before the rows that equal it.
    scores[index] = -1.0;
    let kept = least(&scores, rows.count() - f);
    scores[index] = 0.0;
    Aggregate { vector: rows.mean(&kept), kept, scores }
}
