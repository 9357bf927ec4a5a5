//! Integer noise, sampled exactly: discrete Gaussian and Skellam.
//!
//! - Discrete Gaussian: P[x] ∝ exp(−x²/2σ²) (Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential
//!   Privacy", 2020).
//! - Skellam: the difference of two Poisson(μ/2), P[x] = exp(−μ)·I_|x|(μ) (Agarwal, Kairouz and Liu, "The Skellam
//!   Mechanism for Differentially Private Federated Learning", 2021).
//!
//! No float is involved and nothing is truncated: samples follow these laws as far as the random bits are random. A seed
//! gives the same samples on every machine.
//!
//! ```text
//! table   a sample is one look at a table, in all but a per cent of cases
//! fixed   the rest is decided by 2^-42-close probabilities in registers,
//! exact   and by integers of any size where those cannot
//! ```
//!
//! The time a sample takes hardly depends on its value (what does is in `table`). Still, sample the noise before the data
//! is touched, or at least not while someone measures how long the data's processing takes.

mod exact;
mod fixed;
mod table;

use std::{fmt, num::NonZero, str::FromStr};

use rand_core::CryptoRng;

use crate::ParamError;
use table::Table;

/// A distribution on the integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoiseKind {
    /// P[x] ∝ exp(−x²/2σ²). A sum of these is not quite one of them.
    DiscreteGaussian,
    /// The difference of two Poisson(μ/2). A sum of these is one of them.
    Skellam,
}

/// A name that no [`NoiseKind`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("noise is `{found}`, accepted is discrete-gaussian or skellam")]
pub struct UnknownNoise {
    /// The name that was found.
    pub found: String,
}

impl fmt::Display for NoiseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DiscreteGaussian => "discrete-gaussian",
            Self::Skellam => "skellam",
        })
    }
}

impl FromStr for NoiseKind {
    type Err = UnknownNoise;

    fn from_str(name: &str) -> Result<Self, UnknownNoise> {
        [Self::DiscreteGaussian, Self::Skellam]
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| UnknownNoise { found: name.to_owned() })
    }
}

/// The parameter of noise, in steps²: σ² of a discrete Gaussian or μ of a Skellam distribution, at most 2^48.
///
/// It is the variance of a Skellam distribution. That of a discrete Gaussian is slightly below it for σ² under about 1,
/// and equal for any practical purpose above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variance(NonZero<u64>);

impl Variance {
    /// Accepts 1 to 2^48 steps².
    pub fn new(steps_squared: u64) -> Result<Self, ParamError> {
        match NonZero::new(steps_squared) {
            Some(value) if steps_squared <= MAX_VARIANCE => Ok(Self(value)),
            _ => Err(ParamError {
                name: "noise variance",
                found: steps_squared as f64,
                accepted: "a number of squared steps from 1 to 2^48",
            }),
        }
    }

    /// The value, in steps².
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A sampler for one distribution.
///
/// Making one fills a table, which takes about as long as some ten thousand samples.
#[derive(Clone, Debug)]
pub struct Noise {
    table: Table,
}

impl Noise {
    /// A sampler for noise of this kind and parameter.
    pub fn new(kind: NoiseKind, variance: Variance) -> Self {
        Self { table: Table::new(kind, variance.get(), table::FINE) }
    }

    /// One sample, in steps.
    pub fn sample(&self, rng: &mut impl CryptoRng) -> i64 {
        self.table.sample(rng)
    }

    /// `n` samples modulo 2^32, for rings of at most 32 bits.
    ///
    /// Noise is added modulo 2^b, b ≤ 32, so the reduction changes nothing there; a sample that it would change lies
    /// 128 σ out or more.
    pub fn sample_vec(&self, n: usize, rng: &mut impl CryptoRng) -> Vec<i32> {
        (0..n).map(|_| self.sample(rng) as i32).collect()
    }
}

/// Keeps σ ≤ 2^24 and every product of the sampler inside u128.
const MAX_VARIANCE: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn sampler(variance: u64) -> Noise {
        Noise::new(NoiseKind::DiscreteGaussian, Variance::new(variance).unwrap())
    }

    /// Exact probabilities of −reach..=reach, where reach leaves out less than e^-72.
    fn pmf(variance: u64) -> BTreeMap<i64, f64> {
        let reach = 12 * (variance as f64).sqrt().ceil() as i64;
        let weight = |x: i64| (-((x * x) as f64) / (2.0 * variance as f64)).exp();
        let total: f64 = (-reach..=reach).map(weight).sum();
        (-reach..=reach).map(|x| (x, weight(x) / total)).collect()
    }

    /// χ² and its degrees of freedom, over cells with at least ten expected samples (tails are merged).
    fn chi_squared(variance: u64, samples: &[i64]) -> (f64, f64) {
        let mut seen = BTreeMap::<i64, f64>::new();
        for &sample in samples {
            *seen.entry(sample).or_default() += 1.0;
        }
        let (mut statistic, mut cells) = (0.0, 0.0);
        let (mut expected, mut observed) = (0.0, 0.0);
        let pmf = pmf(variance);
        assert!(seen.keys().all(|sample| pmf.contains_key(sample)), "a sample lies beyond 12 σ");
        for (value, probability) in pmf {
            expected += probability * samples.len() as f64;
            observed += seen.get(&value).copied().unwrap_or(0.0);
            if expected >= 10.0 {
                statistic += (observed - expected).powi(2) / expected;
                cells += 1.0;
                (expected, observed) = (0.0, 0.0);
            }
        }
        (statistic, cells - 1.0)
    }

    #[test]
    fn samples_follow_the_exact_distribution() {
        for (seed, variance) in [1, 2, 3, 10, 64, 1_000, 12_345].into_iter().enumerate() {
            let mut rng = ChaCha20Rng::seed_from_u64(seed as u64);
            let sampler = sampler(variance);
            let samples: Vec<i64> = (0..200_000).map(|_| sampler.sample(&mut rng)).collect();
            let (statistic, freedom) = chi_squared(variance, &samples);
            // Mean and standard deviation of χ² are `freedom` and √(2·freedom).
            let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
            assert!(statistic < limit, "σ² = {variance}, seed {seed}: χ² = {statistic} of {freedom}");
        }
    }

    #[test]
    fn the_test_above_notices_a_wrong_variance() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let sampler = sampler(1_000);
        let samples: Vec<i64> = (0..200_000).map(|_| sampler.sample(&mut rng)).collect();
        let (statistic, freedom) = chi_squared(1_040, &samples);
        assert!(statistic > freedom + 4.0 * (2.0 * freedom).sqrt(), "{statistic} of {freedom}");
    }

    #[test]
    fn moments_hold_for_large_variances() {
        for (seed, variance) in [1 << 20, 1 << 33, (1 << 40) + 12_345, MAX_VARIANCE].into_iter().enumerate() {
            let mut rng = ChaCha20Rng::seed_from_u64(seed as u64);
            let sampler = sampler(variance);
            let n = 100_000;
            let sigma = (variance as f64).sqrt();
            let standard: Vec<f64> = (0..n).map(|_| sampler.sample(&mut rng) as f64 / sigma).collect();
            let moment = |power: i32| standard.iter().map(|x| x.powi(power)).sum::<f64>() / f64::from(n);
            // Normal moments and their standard errors: 0 ± 1, 1 ± √2, 0 ± √15, 3 ± √96, each over √n.
            for (power, expected, spread) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0f64)]
            {
                let error = (moment(power) - expected).abs();
                let limit = 4.0 * (spread / f64::from(n)).sqrt();
                assert!(error < limit, "σ² = {variance}, seed {seed}: moment {power} is off by {error}");
            }
        }
    }

    #[test]
    fn one_seed_gives_one_vector() {
        let draw = |seed| sampler(500).sample_vec(64, &mut ChaCha20Rng::seed_from_u64(seed));
        assert_eq!(draw(9), draw(9));
        assert_ne!(draw(9), draw(10));
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let one_by_one: Vec<i32> = (0..64).map(|_| sampler(500).sample(&mut rng) as i32).collect();
        assert_eq!(draw(9), one_by_one);
    }

    #[test]
    fn skellam_moments_are_those_of_the_difference() {
        for (seed, variance) in [1u64, 7, 300].into_iter().enumerate() {
            let mut rng = ChaCha20Rng::seed_from_u64(seed as u64);
            let sampler = Noise::new(NoiseKind::Skellam, Variance::new(variance).unwrap());
            let n = 50_000;
            let samples: Vec<f64> = (0..n).map(|_| sampler.sample(&mut rng) as f64).collect();
            let moment = |power: i32| samples.iter().map(|x| x.powi(power)).sum::<f64>() / f64::from(n);
            // Cumulants of even order are μ, so the moments are 0, μ and 3μ² + μ.
            let mu = variance as f64;
            let fourth = 3.0 * mu * mu + mu;
            assert!(moment(1).abs() < 4.0 * (mu / f64::from(n)).sqrt());
            let spread = ((fourth - mu * mu) / f64::from(n)).sqrt();
            assert!((moment(2) - mu).abs() < 4.0 * spread, "{mu}: {}", moment(2));
        }
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for kind in [NoiseKind::DiscreteGaussian, NoiseKind::Skellam] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let refused = "gaussian".parse::<NoiseKind>().unwrap_err();
        assert_eq!(refused.to_string(), "noise is `gaussian`, accepted is discrete-gaussian or skellam");
    }

    #[test]
    fn variances_outside_the_range_are_refused() {
        assert_eq!(Variance::new(0).unwrap_err().name, "noise variance");
        assert!(Variance::new(MAX_VARIANCE + 1).is_err());
        assert_eq!(Variance::new(MAX_VARIANCE).unwrap().get(), MAX_VARIANCE);
    }
}
