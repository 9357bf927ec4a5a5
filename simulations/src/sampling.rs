//! Real-valued distributions that the partition and the attacks draw from.
//!
//! They rest on the platform's logarithm and cosine: the same seed gives the same draws on one platform, and draws
//! that may differ in the last bit on another. Nothing here protects privacy; that noise is `fedveil-privacy`'s.

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
}
