//! The robust learning rate (Ozdayi, Kantarcioglu, Gel: "Defending against Backdoors in Federated Learning with Robust
//! Learning Rate", AAAI 2021): where too few rows agree on the sign of a coordinate, its mean is taken negative, which
//! moves the model away from where a minority would have it.

use crate::robust::Aggregate;
use crate::robust::options::{Fallback, Kind, OptionSpec};
use crate::robust::registry::{About, Call, Needs, RuleSpec};

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "robust-learning-rate",
        summary: "mean, negated in coordinates where the signs of the rows add up to less than a threshold",
        options: &[OptionSpec {
            key: "threshold",
            kind: Kind::RowCount,
            default: Fallback::Computed("f + 1"),
            meaning: "least size of the sum of signs that counts as agreement",
        }],
        cost: "n d",
        source: "Ozdayi, Kantarcioglu, Gel, AAAI 2021",
    },
    breakdown: "against backdoors alone; a row's size is not bounded, so clip before it",
    needs: Needs::COMMON,
    run,
};

fn run(&Call { rows, f, options }: &Call) -> Aggregate {
    let threshold = options.count_if_set("threshold").unwrap_or(f + 1);
    let all: Vec<usize> = (0..rows.count()).collect();
    let mut vector = rows.mean(&all);
    for (value, agreement) in vector.iter_mut().zip(rows.sign_sums()) {
        if agreement.abs() < threshold as f64 {
            *value = -*value;
        }
    }
    Aggregate::of_every_row(&rows, vector)
}
