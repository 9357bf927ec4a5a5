//! Noise that is correlated over rounds: matrix mechanisms for running sums (DP-FTRL), realised on integers.
//!
//! A model after t rounds is a running sum of what the rounds release. Independent noise adds up in it, to √n standard
//! deviations after n rounds. A matrix mechanism factors the running sums A (all ones on and below the diagonal) as
//! A = B·C, protects Cx + z instead of x + z, and releases C⁻¹(Cx + z) = x + C⁻¹z: what a round adds is partly taken back
//! by later ones. C is a lower triangular Toeplitz matrix here, given by its first column:
//!
//! | kind | first column of C | noise of the worst running sum, n = 1000, each client once |
//! |---|---|---|
//! | independent (one band) | 1 | 31.6 |
//! | square root of A | c₀ = 1, cₖ = cₖ₋₁·(2k − 1)/2k | 3.27 |
//! | the same in b bands | c₀ … c_{b−1} | between them |
//!
//! The square root is the Toeplitz matrix with the least noise in the worst running sum (Fichtenberger, Henzinger,
//! Upadhyay 2023; Dvijotham, McMahan, Pillutla, Steinke, Thakurta 2024), where each client takes part once. Bands suit
//! clients that come back after b rounds or more, and b − 1 rounds are all that has to be remembered.
//!
//! # Sensitivity
//! A client that takes part k times, b rounds apart or more, with vectors of norm at most 1, moves Cx by at most
//! ‖Σⱼ C·e_{jb}‖, j < min(k, ⌈n/b⌉): columns 0, b, 2b, … of C, where its entries fall and none is negative (Kalinin,
//! Lampert 2024, arXiv 2405.13763, theorem 2). It is the norm of one column where k = 1, and at most √k times that where
//! there are at most b bands. The coordinator must enforce k and b.
//!
//! # Why integers, and why this is private
//! Rounds release integers (steps of a [`Grid`](crate::Grid)). It would be wrong to draw whole numbers for z and to
//! release x + C⁻¹z: Cx is not whole, and its fractions would show through whole noise. Nor may z be a float, whose gaps
//! show what it was added to. [`MatrixNoise`] does this:
//!
//! 1. C̃ is C with its entries rounded to multiples of 2⁻ᵐ. It still factors A (its diagonal is 1), its entries still fall,
//!    and the sensitivity that counts is C̃'s.
//! 2. z is a discrete Gaussian on the multiples of 2⁻ᵐ, so y = C̃x + z, for whole x, is the discrete Gaussian mechanism on
//!    that lattice: with parameter σ and sensitivity Δ it costs ρ = Δ²/2σ² of zCDP (Canonne, Kamath, Steinke 2020,
//!    theorem 4), for the whole run. That holds too where xₜ, and who takes part, depend on what was released
//!    before: given that, yₜ costs ‖(C̃u)ₜ‖²/2σ², and these sum to at most Δ²/2σ² along every path, which is all that a
//!    Rényi filter needs (Feldman, Zrnic 2021, theorem 3.1).
//! 3. The noise of round t is vₜ = ⌊zₜ − Σ_{j≥1} c̃ⱼ·vₜ₋ⱼ⌉, computed exactly. The release rₜ = xₜ + vₜ is whole, and because
//!    xₜ is whole it moves through the rounding: rₜ = ⌊yₜ − Σ_{j≥1} c̃ⱼ·rₜ₋ⱼ⌉. So r is a function of y alone, which is
//!    post-processing, with no assumption on the size of anything. (v = C̃⁻¹(z + e), where e is what rounding moved:
//!    at most half a step, so that the noise is C⁻¹z but for a variance of 1/12 steps² beside σ².)
//!
//! Adjacency is zero-out: one client's vectors replaced by zero, in every round it takes part in. Every round releases,
//! also an empty one. Whoever holds vₜ of a round can subtract it: a [`MatrixNoise`] is as secret as the updates.
//!
//! Absent: amplification by sampling, buffered (BLT) factors, and noise that clients share, because a client that is gone
//! in the next round cannot take back its noise.

use std::collections::VecDeque;

use rand_core::CryptoRng;

use crate::{Noise, NoiseKind, NoiseMultiplier, ParamError, RdpCurve, Variance};

/// The factor C, by its first column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixKind {
    /// The square root of the matrix of running sums.
    SquareRoot,
    /// Its first so many diagonals. One band is independent noise.
    Banded {
        /// From 1 to the number of rounds.
        bands: u32,
    },
}

/// How often one client takes part at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participation {
    /// The least difference between the numbers of two rounds that a client takes part in.
    pub min_separation: u32,
    /// The most rounds that a client takes part in.
    pub max_participations: u32,
}

/// A factorisation of the running sums of a number of rounds, before any noise is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixMechanism {
    rounds: usize,
    participation: Participation,
    /// The first column of C, as far as it is not 0.
    coefficients: Vec<f64>,
    noising: Vec<f64>,
}

/// The noise of one run, round by round.
pub struct MatrixNoise {
    rounds: usize,
    /// The first column of C̃ in multiples of 2^-fraction_bits, from its second entry on.
    coefficients: Vec<i64>,
    fraction_bits: u32,
    variance: Variance,
    rho: f64,
    dimension: usize,
    released: usize,
    /// The noise of earlier rounds in steps, the last one first.
    earlier: VecDeque<Vec<i64>>,
}

impl Participation {
    /// Each client at most once.
    pub const ONCE: Participation = Participation { min_separation: 1, max_participations: 1 };
}

impl MatrixMechanism {
    /// `rounds`: from 1 to 16384, each of which releases.
    pub fn new(kind: MatrixKind, rounds: u32, participation: Participation) -> Result<Self, ParamError> {
        let within = |name, found: u32, accepted, most| {
            ParamError::check(name, f64::from(found), accepted, (1..=most).contains(&found))
        };
        within("rounds of a matrix mechanism", rounds, "a number from 1 to 16384", MAX_ROUNDS)?;
        within("minimum separation", participation.min_separation, "a number of rounds above 0", u32::MAX)?;
        within("maximum participations", participation.max_participations, "a number above 0", u32::MAX)?;
        let bands = match kind {
            MatrixKind::SquareRoot => rounds,
            MatrixKind::Banded { bands } => {
                within("bands", bands, "a number from 1 to the number of rounds", rounds)?;
                bands
            }
        };
        let coefficients = square_root(bands as usize);
        let noising = inverse(&coefficients, rounds as usize);
        Ok(Self { rounds: rounds as usize, participation, coefficients, noising })
    }

    /// The L2 norm by which one client moves Cx at most, where each of its vectors has norm 1.
    pub fn sensitivity(&self) -> f64 {
        sensitivity_squared(&self.coefficients, self.rounds, self.participation).sqrt()
    }

    /// The first column of C, without the zeros that end it.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The first column of C⁻¹, one entry for each round: the noise of round t is Σⱼ of the j-th times z of round t − j.
    pub fn noising_coefficients(&self) -> &[f64] {
        &self.noising
    }

    /// Standard deviation of the noise in the worst running sum, over the norm of one client's vector, at noise
    /// multiplier 1: what to compare kinds by.
    pub fn max_error(&self) -> f64 {
        // B is Toeplitz, so its last row is the longest: the running sums of the noising coefficients.
        let mut sum = 0.0;
        let row = self.noising.iter().map(|coefficient| {
            sum += coefficient;
            sum * sum
        });
        row.sum::<f64>().sqrt() * self.sensitivity()
    }

    /// Noise for vectors of `dimension` whole steps, where a client's have a squared norm of at most
    /// `norm_bound_squared` (steps²) in each round.
    ///
    /// `noise` is the standard deviation of z over the sensitivity: the whole run costs what one Gaussian of this
    /// multiplier costs. It may not exceed 65536 steps.
    pub fn noise(
        &self,
        noise: NoiseMultiplier,
        norm_bound_squared: u64,
        dimension: usize,
    ) -> Result<MatrixNoise, ParamError> {
        let steps = noise.get() * self.sensitivity() * (norm_bound_squared as f64).sqrt();
        ParamError::check(
            "standard deviation of a matrix mechanism",
            steps,
            "at most 65536 steps (noise multiplier × sensitivity × norm bound)",
            steps <= MAX_STEPS,
        )?;
        // As fine as the sampler can go; half the room is left for what rounding does to the sensitivity.
        let fraction_bits = (0.5 * MAX_FINE_STEPS / steps).log2().floor().clamp(MIN_FRACTION, MAX_FRACTION);
        let unit = fraction_bits.exp2();
        let coefficients: Vec<f64> = self.coefficients.iter().map(|c| (c * unit).round()).collect();
        let signal = sensitivity_squared(&coefficients, self.rounds, self.participation)
            * norm_bound_squared as f64
            * ROUND_UP;
        let variance = Variance::new((noise.get().powi(2) * signal * ROUND_UP).ceil() as u64)?;
        Ok(MatrixNoise {
            rounds: self.rounds,
            coefficients: coefficients[1..].iter().map(|&c| c as i64).collect(),
            fraction_bits: fraction_bits as u32,
            variance,
            rho: signal / (2.0 * variance.get() as f64) * ROUND_UP,
            dimension,
            released: 0,
            earlier: VecDeque::new(),
        })
    }
}

impl MatrixNoise {
    /// The zCDP loss ρ of the whole run, to every client that keeps to its [`Participation`].
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// What the whole run costs.
    pub fn rdp(&self) -> RdpCurve {
        RdpCurve::from_zcdp(self.rho)
    }

    /// Rounds whose noise was taken.
    pub fn released(&self) -> usize {
        self.released
    }

    /// The noise of the next round in steps, to be added to its sum of updates; `None` after the last round.
    ///
    /// Takes what was drawn by earlier calls back, so it must be asked for once in every round, in order, also where
    /// nobody took part. Draw it before the data is touched.
    pub fn next_round(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<i64>> {
        if self.released == self.rounds {
            return None;
        }
        let fresh = Noise::new(NoiseKind::DiscreteGaussian, self.variance).sample_vec(self.dimension, rng);
        Some(self.correlate(fresh.into_iter().map(i64::from).collect()))
    }

    /// From zₜ, in multiples of 2^-fraction_bits, to vₜ in steps.
    fn correlate(&mut self, mut fresh: Vec<i64>) -> Vec<i64> {
        for (coefficient, noise) in self.coefficients.iter().zip(&self.earlier) {
            for (fresh, noise) in fresh.iter_mut().zip(noise) {
                *fresh -= coefficient * noise;
            }
        }
        let half = 1i64 << (self.fraction_bits - 1);
        for value in &mut fresh {
            // The shift rounds towards −∞, so that a whole number added before is the same one added after.
            *value = (*value + half) >> self.fraction_bits;
        }
        if !self.coefficients.is_empty() {
            self.earlier.truncate(self.coefficients.len() - 1);
            self.earlier.push_front(fresh.clone());
        }
        self.released += 1;
        fresh
    }
}

/// Bounds the work of a factorisation, which grows with its square.
const MAX_ROUNDS: u32 = 1 << 14;

/// The largest σ of the sampler.
const MAX_FINE_STEPS: f64 = (1u64 << 24) as f64;

/// Fraction bits of C̃: enough of them that its error is that of C, and no more than help.
const MIN_FRACTION: f64 = 7.0;
const MAX_FRACTION: f64 = 16.0;

/// Leaves [`MIN_FRACTION`] bits, and one for the rounded sensitivity.
const MAX_STEPS: f64 = (1u64 << 16) as f64;

/// Covers the rounding of sums of at most 2^14 squares.
const ROUND_UP: f64 = 1.0 + 1e-10;

/// The first entries of the square root's first column: the power series of (1 − x)^(-1/2).
fn square_root(entries: usize) -> Vec<f64> {
    let mut last = 1.0;
    let rest = (1..entries).map(|k| {
        last *= (2.0 * k as f64 - 1.0) / (2.0 * k as f64);
        last
    });
    std::iter::once(1.0).chain(rest).collect()
}

/// The first `entries` of the power series whose product with `series` is 1. `series` begins with 1.
fn inverse(series: &[f64], entries: usize) -> Vec<f64> {
    let mut inverse = vec![1.0];
    while inverse.len() < entries {
        let products = series.iter().skip(1).zip(inverse.iter().rev());
        inverse.push(-products.map(|(c, i)| c * i).sum::<f64>());
    }
    inverse
}

/// ‖Σⱼ C·e_{jb}‖² for falling, non-negative `coefficients`.
fn sensitivity_squared(coefficients: &[f64], rounds: usize, participation: Participation) -> f64 {
    let apart = participation.min_separation as usize;
    let times = participation.max_participations as usize;
    let row = |t: usize| {
        // Columns that reach row t, the last one first.
        let last = (t / apart).min(times - 1);
        (0..=last).rev().map_while(|j| coefficients.get(t - j * apart)).sum::<f64>()
    };
    (0..rounds).map(|t| row(t).powi(2)).sum()
}

#[cfg(test)]
mod tests;
