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
#[cfg(test)]
mod tests;

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
/// Making one fills a table, which takes up to a millisecond: make one for many samples.
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
