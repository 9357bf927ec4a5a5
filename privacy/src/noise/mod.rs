//! Integer noise, sampled exactly: discrete Gaussian and Skellam.
//!
//! Every decision compares integers: no float is involved, and the only inexactness is that of the random bits.
//!
//! - Discrete Gaussian: P[x] ∝ exp(−x²/2σ²), by the rejection sampler of Canonne, Kamath and Steinke, "The Discrete
//!   Gaussian for Differential Privacy" (2020), algorithms 1 to 3.
//! - Skellam: the difference of two Poisson(μ/2).
//!
//! The time a sample takes depends on its value. Sample the noise before the data is touched, or at least not while
//! someone measures how long the data's processing takes.

use std::{fmt, num::NonZero, str::FromStr};

use rand_core::CryptoRng;

use crate::ParamError;

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
#[derive(Clone, Debug)]
pub struct Noise {
    kind: NoiseKind,
    variance: u64,
    /// ⌊σ⌋ + 1, the scale of the proposals.
    scale: u64,
}

impl Noise {
    /// A sampler with this parameter.
    pub fn new(kind: NoiseKind, variance: Variance) -> Self {
        let variance = variance.get();
        Self { kind, variance, scale: variance.isqrt() + 1 }
    }

    /// One sample, in steps.
    pub fn sample(&self, rng: &mut impl CryptoRng) -> i64 {
        match self.kind {
            NoiseKind::DiscreteGaussian => self.sample_gaussian(rng),
            NoiseKind::Skellam => {
                (0..self.variance).map(|_| sample_half_poisson(rng) - sample_half_poisson(rng)).sum()
            }
        }
    }

    fn sample_gaussian(&self, rng: &mut impl CryptoRng) -> i64 {
        // Accept y with probability exp(−(|y| − σ²/t)² / 2σ²) = exp(−(|y|·t − σ²)² / 2σ²t²).
        let (variance, scale) = (u128::from(self.variance), u128::from(self.scale));
        let denominator = 2 * variance * scale * scale;
        loop {
            let proposal = sample_laplace(self.scale, rng);
            let offset = (u128::from(proposal.unsigned_abs()) * scale).abs_diff(variance);
            // Beyond 2^64 the proposal lies 2^15 scales out, and would be accepted with probability below exp(−2^29).
            if let Some(numerator) = offset.checked_mul(offset)
                && bernoulli_exp(numerator, denominator, rng)
            {
                return proposal;
            }
        }
    }

    /// `n` samples modulo 2^32, for rings of at most 32 bits.
    ///
    /// Noise is added modulo 2^b, b ≤ 32, so the reduction changes nothing there; a sample that it would change lies
    /// 128 σ out or more.
    pub fn sample_vec(&self, n: usize, rng: &mut impl CryptoRng) -> Vec<i32> {
        (0..n).map(|_| self.sample(rng) as i32).collect()
    }
}

/// Poisson(½): k is proposed with probability 2^-(k+1) and accepted with probability 1/k!.
fn sample_half_poisson(rng: &mut impl CryptoRng) -> i64 {
    loop {
        let mut proposal = 0;
        while rng.next_u32() >> 31 == 1 {
            proposal += 1;
        }
        if (2..=proposal).all(|factor| uniform_below(factor as u128, rng) == 0) {
            return proposal;
        }
    }
}

/// Keeps σ ≤ 2^24 and every product of the sampler inside u128.
const MAX_VARIANCE: u64 = 1 << 48;

/// P[y] ∝ exp(−|y|/scale): algorithm 2 of the paper with s = 1.
fn sample_laplace(scale: u64, rng: &mut impl CryptoRng) -> i64 {
    loop {
        let remainder = uniform_below(u128::from(scale), rng);
        if !bernoulli_exp_at_most_one(remainder, u128::from(scale), rng) {
            continue;
        }
        let mut quotient = 0;
        while bernoulli_exp_at_most_one(1, 1, rng) {
            quotient += 1;
        }
        let magnitude = remainder as i64 + scale as i64 * quotient;
        let negative = rng.next_u32() >> 31 == 1;
        // Zero has one sign: without this it would be twice as likely.
        if !(negative && magnitude == 0) {
            return if negative { -magnitude } else { magnitude };
        }
    }
}

/// True with probability exp(−numerator/denominator).
fn bernoulli_exp(mut numerator: u128, denominator: u128, rng: &mut impl CryptoRng) -> bool {
    while numerator > denominator {
        if !bernoulli_exp_at_most_one(1, 1, rng) {
            return false;
        }
        numerator -= denominator;
    }
    bernoulli_exp_at_most_one(numerator, denominator, rng)
}

/// [`bernoulli_exp`] for a fraction γ ≤ 1: the first k at which a coin of γ/k fails is odd with probability exp(−γ).
fn bernoulli_exp_at_most_one(numerator: u128, denominator: u128, rng: &mut impl CryptoRng) -> bool {
    let mut k = 1;
    while uniform_below(denominator * k, rng) < numerator {
        k += 1;
    }
    k % 2 == 1
}

/// Uniform on 0..bound, by rejection on the shortest sufficient bit string.
fn uniform_below(bound: u128, rng: &mut impl CryptoRng) -> u128 {
    let bits = u128::BITS - (bound - 1).leading_zeros();
    if bits == 0 {
        return 0;
    }
    loop {
        let draw = if bits <= 64 {
            u128::from(rng.next_u64() >> (64 - bits))
        } else {
            ((u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())) >> (128 - bits)
        };
        if draw < bound {
            return draw;
        }
    }
}

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
    fn coins_of_exp_minus_gamma_are_fair() {
        let mut rng = ChaCha20Rng::seed_from_u64(11);
        let wide = 3 << 90;
        for (numerator, denominator) in [(0, 1), (1, 3), (1, 1), (7, 3), (wide / 2, wide), (2 * wide, wide)] {
            let n = 100_000;
            let heads = (0..n).filter(|_| bernoulli_exp(numerator, denominator, &mut rng)).count() as f64;
            let p = (-(numerator as f64) / denominator as f64).exp();
            let limit = 4.0 * (p * (1.0 - p) * f64::from(n)).sqrt();
            assert!(
                (heads - p * f64::from(n)).abs() <= limit,
                "γ = {numerator}/{denominator}: {heads} heads"
            );
        }
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
