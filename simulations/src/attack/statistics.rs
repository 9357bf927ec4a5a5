//! Means, deviations and the normal distribution.

use std::f64::consts::TAU;

/// Mean of the rows, of which there is one at least.
pub(super) fn mean(rows: &[&[f64]]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    for row in rows {
        sum.iter_mut().zip(*row).for_each(|(sum, value)| *sum += value);
    }
    sum.iter().map(|sum| sum / rows.len() as f64).collect()
}

/// Standard deviation of each coordinate, with n − 1 in the denominator; 0 for a single row.
pub(super) fn deviations(rows: &[&[f64]]) -> Vec<f64> {
    let centre = mean(rows);
    let mut squares = vec![0.0; centre.len()];
    for row in rows {
        for ((square, value), centre) in squares.iter_mut().zip(*row).zip(&centre) {
            *square += (value - centre).powi(2);
        }
    }
    let degrees = (rows.len() - 1).max(1) as f64;
    squares.iter().map(|square| (square / degrees).sqrt()).collect()
}

pub(super) fn dot(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| a * b).sum()
}

pub(super) fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

pub(super) fn squared_distance(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| (a - b).powi(2)).sum()
}

/// `base + factor · direction`.
pub(super) fn along(base: &[f64], factor: f64, direction: &[f64]) -> Vec<f64> {
    base.iter().zip(direction).map(|(base, direction)| base + factor * direction).collect()
}

/// `vector` at an L2 norm, if it has a direction.
pub(super) fn with_norm(vector: &[f64], wanted: f64) -> Option<Vec<f64>> {
    let length = norm(vector);
    (length.is_finite() && length > 0.0)
        .then(|| vector.iter().map(|value| value * (wanted / length)).collect())
}

/// The z below which a standard Gaussian falls with probability `p`, cut to −8..8.
pub(super) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Φ(z) = 1/2 + φ(z) (z + z³/3 + z⁵/(3·5) + …) (Marsaglia 2004).
fn normal_cdf(z: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (z, z, 1.0);
    // Terms grow up to odd = z² and then fall faster than geometrically.
    while f64::abs(term) > f64::abs(sum) * 1e-17 {
        odd += 2.0;
        term *= z * z / odd;
        sum += term;
    }
    0.5 + sum * (-z * z / 2.0).exp() / TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.6, 0.253_347_103_135_799_8),
            (0.75, 0.674_489_750_196_081_7),
            (0.975, 1.959_963_984_540_054),
            (0.025, -1.959_963_984_540_054),
            (0.999, 3.090_232_306_167_813_5),
        ] {
            assert!((normal_quantile(p) - z).abs() < 1e-13, "{p}: {}", normal_quantile(p));
        }
        assert!(normal_quantile(1.0) > 7.9 && normal_quantile(0.0) < -7.9);
    }

    #[test]
    fn deviations_are_of_a_sample() {
        let rows: [&[f64]; 3] = [&[1.0, 5.0], &[2.0, 5.0], &[3.0, 5.0]];
        assert_eq!((mean(&rows), deviations(&rows)), (vec![2.0, 5.0], vec![1.0, 0.0]));
        assert_eq!(deviations(&rows[..1]), [0.0, 0.0]);
    }
}
