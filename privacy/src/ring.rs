//! The ring in which group sums live: as narrow as noise and rotation allow.
//!
//! A sum must not wrap, for a coordinate that does is off by 2^b. Its honest part is bounded by arithmetic: no coordinate
//! of a rounded update exceeds the resolution. For updates that were rotated at random there is a bound by chance as
//! well, which is far narrower in many dimensions: the sum of n rotated updates is a rotated vector of norm at most
//! n clip norms, no coordinate of which is large except with small probability, and rounding moves it by less than one
//! step for each client. Whichever needs fewer bits is taken. The seed of a rotation is public, so all this bounds
//! accuracy; privacy needs none of it.

use crate::{Grid, NoiseKind, Rotation, Variance};

/// A ring, and what it leaves to chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ring {
    /// Width b of Z_2^b.
    pub(crate) bits: u32,
    /// A bound on the probability that some coordinate of one sum of honest clients wraps.
    pub(crate) wrap_probability: f64,
}

impl Ring {
    /// The narrowest ring, be it too wide to use, for sums of `clients` rounded updates that each carry noise of
    /// parameter `share`.
    pub(crate) fn narrowest(grid: &Grid, clients: u32, noise: NoiseKind, share: Variance) -> Self {
        let hard = f64::from(clients) * f64::from(grid.coordinate_bound());
        let spread = Rotation::coordinate_bound(grid.dimension(), MAX_ROTATION_FAILURE);
        let rotated = hard * spread + f64::from(clients);
        let variance = f64::from(clients) * share.get() as f64;
        let wrap = |bits: u32| {
            let beyond = |signal: f64| {
                let room = 2f64.powi(bits as i32 - 1) - signal;
                2.0 * grid.dimension() as f64 * tail(noise, variance, room)
            };
            beyond(hard).min(MAX_ROTATION_FAILURE + beyond(rotated)).min(1.0)
        };
        let bits = (MIN_RING_BITS..64)
            .find(|&bits| wrap(bits) <= MAX_WRAP)
            .expect("at most 2^20 clients of at most 2^24 steps and as much noise stay below 2^48");
        Self { bits, wrap_probability: wrap(bits) }
    }

    /// The ring that holds what either does.
    pub(crate) fn or_wider(self, other: Self) -> Self {
        let wrap_probability = (self.wrap_probability + other.wrap_probability).min(1.0);
        Self { bits: self.bits.max(other.bits), wrap_probability }
    }
}

/// Width of the widest ring that secure aggregation has.
pub(crate) const MAX_RING_BITS: u32 = 32;

const MIN_RING_BITS: u32 = 8;

/// The accepted probability that a group sum wraps somewhere: 2^-40.
const MAX_WRAP: f64 = 1.0 / (1u64 << 40) as f64;

/// The part of it that is left to the rotation.
const MAX_ROTATION_FAILURE: f64 = MAX_WRAP / 2.0;

/// A bound on P[X ≥ x] for a sum X of noise with this variance; on all that is possible for x ≤ 0.
///
/// A sum of discrete Gaussians is subgaussian with the sum of their parameters (Canonne, Kamath, Steinke 2020). A Skellam
/// variable of variance μ has E[e^tX] = e^(μ(cosh t − 1)), and Chernoff's bound takes t = asinh(x/μ).
fn tail(noise: NoiseKind, variance: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return f64::INFINITY;
    }
    let exponent = match noise {
        NoiseKind::DiscreteGaussian => 0.5 * x * x / variance,
        NoiseKind::Skellam => x * (x / variance).asinh() - x * x / (x.hypot(variance) + variance),
    };
    (-exponent).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClipNorm;

    fn grid(resolution: u32, dimension: usize) -> Grid {
        Grid::new(ClipNorm::new(1.0).unwrap(), resolution, dimension).unwrap()
    }

    fn share(variance: u64) -> Variance {
        Variance::new(variance).unwrap()
    }

    #[test]
    fn the_ring_is_the_narrowest() {
        for noise in [NoiseKind::DiscreteGaussian, NoiseKind::Skellam] {
            for resolution in [1, 10, 100, 1_000, 100_000] {
                let share = share(u64::from(resolution).pow(2) / 8 + 1);
                let ring = Ring::narrowest(&grid(resolution, 650), 19, noise, share);
                assert!(ring.wrap_probability <= MAX_WRAP && ring.wrap_probability > 0.0);
                // Twenty standard deviations about the rotated sum are always enough, six about nothing never are.
                let sigma = (19.0 * share.get() as f64).sqrt();
                let half = 2f64.powi(ring.bits as i32 - 1);
                assert!(
                    half / 2.0 < 19.0 * f64::from(resolution) + 20.0 * sigma || ring.bits == 8,
                    "{ring:?}"
                );
                assert!(half > 6.0 * sigma, "{ring:?}");
            }
        }
    }

    #[test]
    fn rotation_saves_bits_in_many_dimensions() {
        let bits = |dimension, variance| {
            let share = share(variance);
            Ring::narrowest(&grid(1 << 14, dimension), 20, NoiseKind::DiscreteGaussian, share).bits
        };
        // Little noise in 20 updates: by arithmetic 20·2^14 is above 2^18. With 2^20 coordinates a rotation leaves 0.0091
        // of it, which with the rounding and the noise is 3401.
        assert_eq!((bits(1, 100), bits(1 << 20, 100)), (20, 13));
        // As much noise as 10 honest survivors need for 1.1 clip norms: √20·5700·9.3 = 236 thousand beside the same
        // signals, so that 2^18 does not hold 564 thousand and holds 239 thousand.
        let noise = 5_700 * 5_700;
        let hard = 20.0 * 16_384.0 + 9.27 * (20.0 * f64::from(noise)).sqrt();
        assert!(hard > 2f64.powi(19), "{hard}");
        assert_eq!(bits(1 << 20, u64::from(noise as u32)), 19);
    }

    #[test]
    fn tails_are_those_of_the_distributions() {
        // Where the variance is large both are Gaussian; Skellam is heavier where it is small.
        for x in [1.0, 5.0, 8.0f64] {
            let (gaussian, skellam) =
                (tail(NoiseKind::DiscreteGaussian, 1e10, x * 1e5), tail(NoiseKind::Skellam, 1e10, x * 1e5));
            assert!((gaussian - (-x * x / 2.0).exp()).abs() < 1e-12 * gaussian);
            assert!(skellam >= gaussian && skellam < gaussian * 1.001, "{skellam} {gaussian}");
        }
        // The difference of two Poisson variables of mean 1/2: P[X ≥ 3] is 0.00913 by summation.
        let poisson = |k: i32| (-0.5f64).exp() * (1..=k).fold(1.0, |p, i| p * 0.5 / f64::from(i));
        let exact: f64 = (0..40).map(|low| poisson(low) * (low + 3..60).map(poisson).sum::<f64>()).sum();
        assert!(tail(NoiseKind::Skellam, 1.0, 3.0) >= exact, "{exact}");
        assert!(tail(NoiseKind::Skellam, 1.0, 3.0) < 20.0 * exact, "{exact}");
        assert_eq!(tail(NoiseKind::Skellam, 1.0, 0.0), f64::INFINITY);
    }
}
