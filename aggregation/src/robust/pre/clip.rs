//! Static clipping: every row to a norm of at most `c`.

use crate::robust::options::OptionSpec;
use crate::robust::registry::{About, Call, PreSpec, Prepared, value};
use crate::robust::rows::Rows;
use crate::robust::rules::centered_clipping::clip_factor;

pub(in crate::robust) const SPEC: PreSpec = PreSpec {
    about: About {
        name: "clip",
        summary: "each row clipped to norm c",
        options: &[OptionSpec::number("c", value("2"), "clip norm, in the unit of the rows")],
        cost: "n d",
        source: "Sun, Kairouz, Suresh, McMahan 2019 (arXiv 1911.07963)",
    },
    merges: |_| 1,
    run: |Call { rows, options, .. }| clipped(rows, &rows.norms(), options.number("c")),
};

/// The rows, whose norms are `norms`, each clipped to norm `bound`.
pub(super) fn clipped(rows: &Rows, norms: &[f64], bound: f64) -> Prepared {
    let scaled =
        norms.iter().enumerate().map(|(row, &norm)| rows.combine(&[(row, clip_factor(norm, bound))]));
    Prepared { rows: scaled.collect(), became: (0..rows.count()).collect() }
}
