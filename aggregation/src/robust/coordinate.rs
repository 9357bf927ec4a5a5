//! Rules that treat every coordinate alone: mean, median, trimmed mean.

/// Mean of all rows.
pub(super) fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    mean_of(rows, 0..rows.len())
}

/// Mean of the rows at `indices`, which must not be empty.
pub(super) fn mean_of(rows: &[Vec<f64>], indices: impl ExactSizeIterator<Item = usize>) -> Vec<f64> {
    let count = indices.len() as f64;
    let mut sum = vec![0.0; rows[0].len()];
    for index in indices {
        for (total, value) in sum.iter_mut().zip(&rows[index]) {
            *total += value;
        }
    }
    for total in &mut sum {
        *total /= count;
    }
    sum
}

/// Coordinate-wise median, between the two middle values for an even number of rows.
pub(super) fn median(rows: &[Vec<f64>]) -> Vec<f64> {
    per_coordinate(rows, median_of_sorted)
}

/// Coordinate-wise mean of the values left without the `f` smallest and the `f` largest; `2f < rows.len()`.
pub(super) fn trimmed_mean(rows: &[Vec<f64>], f: usize) -> Vec<f64> {
    per_coordinate(rows, |sorted| {
        let middle = &sorted[f..sorted.len() - f];
        middle.iter().sum::<f64>() / middle.len() as f64
    })
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    low.midpoint(high)
}

/// Applies `statistic` to the ascending values of each coordinate.
fn per_coordinate(rows: &[Vec<f64>], statistic: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut column = Vec::with_capacity(rows.len());
    (0..rows[0].len())
        .map(|coordinate| {
            column.clear();
            column.extend(rows.iter().map(|row| row[coordinate]));
            column.sort_unstable_by(f64::total_cmp);
            statistic(&column)
        })
        .collect()
}
