//! Divide and conquer (Shejwalkar, Houmansadr: "Manipulating the Byzantine", NDSS 2021): drop the rows that stand out
//! most along the direction of largest variance, in several random subsets of the coordinates, and average those that
//! were never dropped.

use crate::robust::Aggregate;
use crate::robust::options::{OptionSpec, Options};
use crate::robust::registry::{About, Bound, Call, Needs, RuleSpec, value};
use crate::robust::rows::{Rows, least};
use crate::robust::sampling::draw;
use crate::robust::spectral::centred_gram;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

pub(in crate::robust) const SPEC: RuleSpec = RuleSpec {
    about: About {
        name: "dnc",
        summary: "mean of the rows that never are among the c f most extreme along the direction of largest variance",
        options: &[
            OptionSpec::count("iterations", 1, value("1"), "random subsets of the coordinates"),
            OptionSpec::count("b", 1, value("10000"), "coordinates in each; all, where there are not more"),
            OptionSpec::number("c", value("1"), "rows dropped by each subset, as a multiple of f"),
            OptionSpec::count("seed", 0, value("0"), "seed of the subsets"),
        ],
        cost: "n² b + n³ for each subset",
        source: "Shejwalkar, Houmansadr, NDSS 2021",
    },
    breakdown: "f < n/2",
    needs: Needs { bound, ..Needs::COMMON },
    run,
};

/// A majority, and so many that a row is left when every subset drops others.
fn bound(options: &Options) -> Bound {
    let dropped = (options.count("iterations") as f64 * options.number("c")).ceil() as usize;
    Bound { per_byzantine: dropped.max(2), more: 1 }
}

fn run(&Call { rows, f, options }: &Call) -> Aggregate {
    let n = rows.count();
    let dropped = (options.number("c") * f as f64) as usize;
    let mut rng = ChaCha20Rng::seed_from_u64(options.count("seed") as u64);
    let mut scores = vec![0.0; n];
    let mut kept: Vec<usize> = (0..n).collect();
    for _ in 0..options.count("iterations") {
        let extremes = if options.count("b") >= rows.dimension() {
            extremes(&rows)
        } else {
            let columns = draw(rows.dimension(), options.count("b"), &mut rng);
            extremes(&rows.made(&rows.project(&columns)))
        };
        let best = least(&extremes, n - dropped);
        kept.retain(|row| best.binary_search(row).is_ok());
        for (score, extreme) in scores.iter_mut().zip(extremes) {
            *score = extreme.max(*score);
        }
    }
    Aggregate { vector: rows.mean(&kept), kept, scores }
}

/// The square of each row's projection, from the mean, on the direction of largest variance.
fn extremes(rows: &Rows) -> Vec<f64> {
    let n = rows.count();
    let all: Vec<usize> = (0..n).collect();
    let gram = centred_gram(&rows.distances(), &all, &vec![1.0 / n as f64; n]);
    let top = gram.dominant();
    // The Gram matrix maps its eigenvector to a multiple of itself, which are the projections.
    top.vector.iter().map(|part| part * part * top.value.max(0.0)).collect()
}
