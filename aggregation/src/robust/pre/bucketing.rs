//! Bucketing (Karimireddy, He, Jaggi: "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022):
//! random buckets of rows are averaged, so that honest rows differ less. At most `f` buckets hold a Byzantine row.
//!
//! The order is drawn from a seed, since a rule is a function of its arguments. Draw a new seed for each round.

use crate::robust::options::OptionSpec;
use crate::robust::registry::{About, Call, PreSpec, Prepared, value};
use crate::robust::sampling::draw;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

pub(in crate::robust) const SPEC: PreSpec = PreSpec {
    about: About {
        name: "bucketing",
        summary: "means of random buckets of rows; the last bucket may be smaller",
        options: &[
            OptionSpec::count("size", 1, value("2"), "rows in a bucket"),
            OptionSpec::count("seed", 0, value("0"), "seed of the order that buckets are filled in"),
        ],
        cost: "n d",
        source: "Karimireddy, He, Jaggi, ICLR 2022",
    },
    merges: |options| options.count("size"),
    run,
};

fn run(&Call { rows, options, .. }: &Call) -> Prepared {
    let mut rng = ChaCha20Rng::seed_from_u64(options.count("seed") as u64);
    let order = draw(rows.count(), rows.count(), &mut rng);
    let mut became = vec![0; rows.count()];
    let buckets: Vec<Vec<usize>> = order.chunks(options.count("size")).map(<[usize]>::to_vec).collect();
    for (bucket, members) in buckets.iter().enumerate() {
        for &row in members {
            became[row] = bucket;
        }
    }
    Prepared { rows: rows.means(&buckets), became }
}
