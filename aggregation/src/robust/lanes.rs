//! Loops over numbers side by side, in a form that the compiler makes vector instructions of: lengths that it knows,
//! no branch inside, and a fixed number of partial sums, so that any processor gives the same bits.

use super::rows::Scalar;

/// Partial sums of a sum, and numbers in one unit of a padded row.
pub(super) const LANES: usize = 8;
/// Columns that are sorted side by side.
pub(super) const TILE: usize = 32;

/// Whether no value is larger than `bound`, whatever its sign, and none NaN, which no comparison holds for.
pub(super) fn all_within<S: Scalar>(values: &[S], bound: f64) -> bool {
    values.iter().fold(true, |all, &value| all & (value.into().abs() <= bound))
}

/// `to = from`; `to` may be longer.
pub(super) fn widen(from: &[f32], to: &mut [f64]) {
    each(to, from, |to, from| *to = f64::from(from));
}

/// `to += from`
pub(super) fn add(to: &mut [f64], from: &[f64]) {
    each(to, from, |to, from| *to += from);
}

/// `to += weight · from`
pub(super) fn add_scaled(to: &mut [f64], from: &[f64], weight: f64) {
    each(to, from, |to, from| *to += weight * from);
}

/// `to += sign(from)`, the sign of zero being zero.
pub(super) fn add_signs(to: &mut [f64], from: &[f64]) {
    let one_if = |holds| f64::from(u8::from(holds));
    each(to, from, |to, from| *to += one_if(from > 0.0) - one_if(from < 0.0));
}

/// `to += weight · (from − point)`
pub(super) fn add_scaled_difference(to: &mut [f64], from: &[f64], point: &[f64], weight: f64) {
    for ((to, &from), &point) in to.iter_mut().zip(from).zip(point) {
        *to += weight * (from - point);
    }
}

/// `to /= divisor`
pub(super) fn divide(to: &mut [f64], divisor: f64) {
    for to in to {
        *to /= divisor;
    }
}

fn each<S: Copy>(to: &mut [f64], from: &[S], step: impl Fn(&mut f64, S)) {
    for (to, &from) in to.iter_mut().zip(from) {
        step(to, from);
    }
}

/// `Σ term(a, b)`; `b` may be longer.
pub(super) fn sum_of(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut partial = [0.0; LANES];
    let b = &b[..a.len()];
    let (a_units, a_rest) = a.as_chunks::<LANES>();
    let (b_units, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_units.iter().zip(b_units) {
        for lane in 0..LANES {
            partial[lane] += term(a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        partial[lane] += term(a, b);
    }
    partial.iter().sum()
}

/// The mean of the rows of `units` at the indices of `set`, added in their order; a row has `stride` units.
pub(super) fn mean_of(units: &[[f64; LANES]], stride: usize, set: &[usize], mean: &mut [f64]) {
    /// Units that are added side by side.
    const WIDE: usize = 4;

    let (&first, others) = set.split_first().expect("a mean is of some rows");
    let count = set.len() as f64;
    for (at, mean) in mean.chunks_mut(WIDE * LANES).enumerate() {
        let wide = WIDE.min(stride - at * WIDE);
        let row = |row: usize| &units[row * stride + at * WIDE..][..wide];
        let mut sums = [[0.0; LANES]; WIDE];
        sums[..wide].copy_from_slice(row(first));
        for &other in others {
            for (sum, values) in sums.iter_mut().zip(row(other)) {
                for lane in 0..LANES {
                    sum[lane] += values[lane];
                }
            }
        }
        for (mean, sum) in mean.iter_mut().zip(sums.as_flattened()) {
            *mean = sum / count;
        }
    }
}

/// Adds `Σ term(a, b)` of every pair of rows of `units` to the square matrix `sums`, on and above the diagonal. There
/// are an even number of rows of `stride` units each.
pub(super) fn add_pairs(
    units: &[[f64; LANES]],
    stride: usize,
    sums: &mut [f64],
    term: impl Fn(f64, f64) -> f64,
) {
    let n = units.len() / stride;
    let row = |row: usize| &units[row * stride..][..stride];
    for i in (0..n).step_by(2) {
        for j in (i..n).step_by(2) {
            let [aa, ab, ba, bb] = tile([row(i), row(i + 1)], [row(j), row(j + 1)], &term);
            sums[i * n + j] += aa;
            sums[i * n + j + 1] += ab;
            sums[(i + 1) * n + j] += ba;
            sums[(i + 1) * n + j + 1] += bb;
        }
    }
}

/// The sums of two rows with two others, which are read once.
fn tile(a: [&[[f64; LANES]]; 2], b: [&[[f64; LANES]]; 2], term: &impl Fn(f64, f64) -> f64) -> [f64; 4] {
    let mut sums = [[0.0; LANES]; 4];
    let (rows, others) = (a[0].iter().zip(a[1]), b[0].iter().zip(b[1]));
    for ((a0, a1), (b0, b1)) in rows.zip(others) {
        // A loop for each sum, which the compiler makes one vector operation of.
        let add = |sum: &mut [f64; LANES], a: &[f64; LANES], b: &[f64; LANES]| {
            for lane in 0..LANES {
                sum[lane] += term(a[lane], b[lane]);
            }
        };
        add(&mut sums[0], a0, b0);
        add(&mut sums[1], a0, b1);
        add(&mut sums[2], a1, b0);
        add(&mut sums[3], a1, b1);
    }
    sums.map(|partial| partial.iter().sum())
}
