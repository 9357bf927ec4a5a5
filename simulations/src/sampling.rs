//! Real-valued distributions that the partition and the attacks draw from.
//!
//! They rest on the platform's logarithm and cosine: the same seed gives the same draws on one platform, and draws
//! that may differ in the last bit on another. Nothing here protects privacy; that noise is `fedveil-privacy`'s.

use std::collections::BTreeSet;
use std::f64::consts::TAU;

use rand_core::Rng;

/// Uniform in (0, 1], on a grid of 2^-53: its logarithm is finite.
pub(crate) fn uniform(rng: &mut impl Rng) -> f64 {
    ((rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// Gaussian with mean 0 and variance 1 (Box and Muller 1958).
pub(crate) fn standard_normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * uniform(rng).ln()).sqrt();
    radius * (TAU * uniform(rng)).cos()
}

/// Natural logarithm of a Gamma(`shape`, 1) draw, `shape` > 0 (Marsaglia and Tsang 2000).
///
/// The logarithm, because a draw of small shape is often below the smallest `f64`.
pub(crate) fn ln_gamma_draw(shape: f64, rng: &mut impl Rng) -> f64 {
    if shape < 1.0 {
        // §6 of the paper: Gamma(a) is Gamma(a + 1) times a uniform to the power 1/a.
        return ln_gamma_draw(shape + 1.0, rng) + uniform(rng).ln() / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = standard_normal(rng);
        let root = 1.0 + c * x;
        if root <= 0.0 {
            continue;
        }
        let v = root.powi(3);
        if uniform(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d.ln() + v.ln();
        }
    }
}

/// A Dirichlet draw up to a factor: the largest weight is 1. A class of concentration 0 has weight 0.
pub(crate) fn class_mix(concentration: &[f64], rng: &mut impl Rng) -> Vec<f64> {
    let logs: Vec<f64> = concentration
        .iter()
        .map(|&shape| if shape > 0.0 { ln_gamma_draw(shape, rng) } else { f64::NEG_INFINITY })
        .collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logs.iter().map(|log| (log - largest).exp()).collect()
}

/// Uniform in `0..bound`, `bound` above 0 (Lemire 2019, arXiv:1805.10941).
pub(crate) fn below(bound: usize, rng: &mut impl Rng) -> usize {
    let bound = bound as u64;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        // Low words under 2^64 mod bound are thrown away, which leaves as many draws for each result.
        if product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as usize;
        }
    }
}

/// `count` different numbers of `0..of`, `count <= of`, every set equally likely; ascending (Floyd; Bentley 1987).
pub(crate) fn distinct(count: usize, of: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut drawn = BTreeSet::new();
    for last in of - count..of {
        let candidate = below(last + 1, rng);
        if !drawn.insert(candidate) {
            drawn.insert(last);
        }
    }
    drawn.into_iter().collect()
}

/// `count` draws of a place among `weights`, which are finite, not negative and not all 0: how often each was drawn.
pub(crate) fn multinomial(count: usize, weights: &[f64], rng: &mut impl Rng) -> Vec<usize> {
    let mut sums: Vec<f64> = weights.to_vec();
    for at in 1..sums.len() {
        sums[at] += sums[at - 1];
    }
    let total = sums.last().copied().unwrap_or_default();
    let last = weights.iter().rposition(|weight| *weight > 0.0).expect("some weight is above 0");
    let mut counts = vec![0; weights.len()];
    for _ in 0..count {
        // `uniform` is above 0, so that a place of weight 0 is never the first to reach it.
        let target = uniform(rng) * total;
        counts[sums.partition_point(|sum| *sum < target).min(last)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const DRAWS: usize = 200_000;

    /// Mean and variance of many draws.
    fn moments(mut draw: impl FnMut(&mut ChaCha20Rng) -> f64) -> (f64, f64) {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let draws: Vec<f64> = (0..DRAWS).map(|_| draw(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / DRAWS as f64;
        (mean, draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64)
    }

    #[test]
    fn uniform_has_its_moments() {
        let (mean, variance) = moments(uniform);
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
    }

    #[test]
    fn normal_has_its_moments() {
        let (mean, variance) = moments(standard_normal);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn gamma_has_its_moments() {
        // Mean and variance of Gamma(a, 1) are both a; the variance's own deviation is √((2a² + 6a)/n).
        for shape in [0.1, 0.5, 1.0, 3.5, 50.0] {
            let (mean, variance) = moments(|rng| ln_gamma_draw(shape, rng).exp());
            let spread = 5.0 * (shape / DRAWS as f64).sqrt();
            assert!((mean - shape).abs() < spread, "shape {shape}: mean {mean}");
            let spread = 5.0 * ((2.0 * shape * shape + 6.0 * shape) / DRAWS as f64).sqrt();
            assert!((variance - shape).abs() < spread, "shape {shape}: variance {variance}");
        }
    }

    #[test]
    fn gamma_of_tiny_shape_stays_a_number() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        assert!((0..1000).all(|_| ln_gamma_draw(1e-6, &mut rng).is_finite()));
    }

    #[test]
    fn mixes_follow_the_dirichlet() {
        // Variance of a component of Dir(a, …, a) over k classes: (k − 1) / (k² (k a + 1)).
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        for alpha in [0.2, 1.0, 5.0] {
            let draws = 20_000;
            let mut squares = 0.0;
            for _ in 0..draws {
                let mix = class_mix(&[alpha; 4], &mut rng);
                squares += (mix[1] / mix.iter().sum::<f64>() - 0.25).powi(2);
            }
            let (found, expected) = (squares / f64::from(draws), 3.0 / (16.0 * (4.0 * alpha + 1.0)));
            assert!((found / expected - 1.0).abs() < 0.05, "alpha {alpha}: {found}, expected {expected}");
        }
    }

    #[test]
    fn numbers_below_a_bound_are_uniform() {
        // Chi-square with 6 degrees of freedom: 39 has probability 7e-7.
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut seen = [0_u32; 7];
        (0..70_000).for_each(|_| seen[below(7, &mut rng)] += 1);
        let chi_square: f64 = seen.iter().map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi_square < 39.0, "{seen:?}");
    }

    #[test]
    fn sets_of_distinct_numbers_are_equally_likely() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            *seen.entry(distinct(2, 5, &mut rng)).or_insert(0_u32) += 1;
        }
        // Ten sets; chi-square with 9 degrees of freedom: 46 has probability 6e-7.
        assert_eq!(seen.len(), 10);
        let chi_square: f64 = seen.values().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_square < 46.0, "{seen:?}");
        assert_eq!(distinct(3, 3, &mut rng), [0, 1, 2]);
        assert!(distinct(0, 3, &mut rng).is_empty());
    }

    #[test]
    fn places_are_drawn_by_their_weight() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let counts = multinomial(40_000, &[0.0, 1.0, 0.0, 3.0, 0.0], &mut rng);
        assert_eq!((counts.iter().sum::<usize>(), counts[0], counts[2], counts[4]), (40_000, 0, 0, 0));
        // Deviation of a quarter of 40,000: 87.
        assert!(counts[1].abs_diff(10_000) < 450, "{counts:?}");
    }
}
