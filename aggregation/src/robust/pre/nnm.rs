//! Nearest neighbour mixing (Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan: "Fixing by Mixing", AISTATS 2023):
//! each row becomes the mean of the `n − f` rows nearest to it, itself among them.

use crate::robust::registry::{About, Call, PreSpec, Prepared};

pub(in crate::robust) const SPEC: PreSpec = PreSpec {
    about: About {
        name: "nnm",
        summary: "each row replaced by the mean of the n-f rows nearest to it, itself among them",
        options: &[],
        cost: "n² d",
        source: "Allouah et al., AISTATS 2023",
    },
    merges: |_| 1,
    run,
};

fn run(&Call { rows, f, .. }: &Call) -> Prepared {
    let distances = rows.distances();
    let nearest: Vec<_> = (0..rows.count()).map(|row| distances.nearest(row, rows.count() - f)).collect();
    Prepared { rows: rows.means(&nearest), became: (0..rows.count()).collect() }
}
