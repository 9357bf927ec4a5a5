//! Probabilities to some 2^-43, in integers that fit a register: the same on every machine.
//!
//! A law's *ratio* at x is P[x]/P[0]. Numbers are in units of 2^-60, and every error below is absolute.
//!
//! Discrete Gaussian: exp(−y) for y = x²/2σ² taken to 2^-57, as 2^-n·exp(−r) with r < ln 2, by Taylor's polynomial of
//! degree 18 (remainder 2^-66; roundings add up to 7 units). Together below 2^-55.
//!
//! Skellam: the characteristic function is exp(−μ(1 − cos θ)), and its mean over the N points θⱼ = 2πj/N, weighted with
//! cos jφ for φ = 2πx/N, is Σₘ P[x + mN] exactly. So with wⱼ = exp(−μ(1 − cos θⱼ)), taken twice for 0 < j < N/2,
//!
//! ```text
//! P[x]/P[0] = Σⱼ wⱼ·cos jφ / Σⱼ wⱼ  + error,      j = 0..N/2 with wⱼ above 2^-60
//! ```
//!
//! for any μ with at most 129 points that count. The errors, for x ≤ 8.01σ + 24, σ rounded up, and N ≥ 18σ + 128 a power
//! of two:
//! - Wrapping: P[k]/P[0] for k ≥ 9.99σ + 104. I_{ν+1}(μ)/I_ν(μ) ≤ exp(−asinh((ν + ½)/μ)) (Amos 1974) and
//!   asinh a ≥ 0.88·min(a, 1) make it at most exp(−0.44·min(k, k²/μ)) < 2^-63.
//! - Points left out: those after the first J with wⱼ below 2^-60. Up to 2J none is larger, and from there on
//!   sin h ≥ 2h/π makes them smaller than e^-67 and falling: below 2^-52 in all.
//! - Weights: wⱼ = exp(−y) for y = 2μh²·(sin h/h)², h = πj/N; y comes out within 2^-57·(1 + y), so wⱼ within 2^-55, and
//!   Σwⱼ > 7: below 2^-50 in all.
//! - Cosines: cos φ within 2^-57.5 by Taylor's polynomial on the first quadrant. cos jφ = 2·cos φ·cos (j−1)φ −
//!   cos (j−2)φ multiplies that by at most j², and the units that its steps lose by j(j + 1)/2: with j ≤ 128 below
//!   2^-43.4.

use super::NoiseKind;

/// Binary digits after the point.
pub(super) const POINT: u32 = 60;

/// Bounds the error of [`Ratio::approximate`].
pub(super) const ERROR: u64 = 1 << (POINT - 42);

const ONE: i64 = 1 << POINT;

/// π in units of 2^-64.
const PI: u128 = 0x3_243F_6A88_85A3_08D3;

/// π² in units of 2^-60.
const PI_SQUARED: u128 = (PI * (PI >> 4)) >> 64;

/// ln 2 in units of 2^-[`EXPONENT_POINT`].
const LN_2: u64 = 0xB172_17F7_D1CF_79AB >> (64 - EXPONENT_POINT);

/// Binary digits after the point of what goes into [`exp_minus`].
const EXPONENT_POINT: u32 = 57;

/// Ratios of one law.
#[derive(Clone, Debug)]
pub(super) enum Ratio {
    Gaussian { variance: u64 },
    Skellam { log2_period: u32, weights: Vec<i64> },
}

impl Ratio {
    pub(super) fn new(kind: NoiseKind, variance: u64) -> Self {
        match kind {
            NoiseKind::DiscreteGaussian => Self::Gaussian { variance },
            NoiseKind::Skellam => Self::skellam(variance),
        }
    }

    fn skellam(variance: u64) -> Self {
        let log2_period = (18 * (variance.isqrt() + 1) + 128).next_power_of_two().ilog2();
        let half = 1u64 << (log2_period - 1);
        let mut weights = vec![ONE];
        for j in 1..=half {
            let weight = characteristic(variance, j, log2_period);
            if weight == 0 {
                break;
            }
            weights.push(if j < half { 2 * weight } else { weight });
        }
        let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
        for weight in &mut weights {
            *weight = ((i128::from(*weight) << POINT) / total) as i64;
        }
        Self::Skellam { log2_period, weights }
    }

    /// The ratio at x within [`ERROR`], for x up to 8.01σ + 24, σ rounded up.
    pub(super) fn approximate(&self, x: u64) -> u64 {
        let ratio = match self {
            Self::Gaussian { variance } => {
                let squared = u128::from(x) * u128::from(x);
                exp_minus((squared << EXPONENT_POINT) / (2 * u128::from(*variance)))
            }
            Self::Skellam { log2_period, weights } => {
                let cosine = cosine(x, *log2_period);
                let (mut before, mut now) = (cosine, ONE);
                let mut sum = 0i128;
                for &weight in weights {
                    sum += i128::from(weight) * i128::from(now);
                    let after = ((i128::from(cosine) * i128::from(now)) >> (POINT - 1)) as i64 - before;
                    (before, now) = (now, after);
                }
                (sum >> POINT) as i64
            }
        };
        ratio.max(0) as u64
    }
}

/// exp(−μ(1 − cos 2πj/N)), for μ ≤ 2^48, j ≤ 2^7 or N below 2^9, N = 2^`log2_period`, j ≤ N/2.
fn characteristic(mu: u64, j: u64, log2_period: u32) -> i64 {
    let j_squared = u128::from(j) * u128::from(j);
    // h² ≤ π²/4, and 2μh².
    let h_squared = ((PI_SQUARED * j_squared) >> (2 * log2_period)) as i64;
    let square = (PI_SQUARED * u128::from(mu) * j_squared) >> (2 * log2_period + POINT - EXPONENT_POINT - 1);
    let mut sinc = ONE;
    for k in (1..=12).rev() {
        sinc = ONE - multiply(h_squared, sinc) / (2 * k * (2 * k + 1));
    }
    // Where 2μh² is above 128 the exponent is above 51.
    let square = square.min(128 << EXPONENT_POINT);
    exp_minus((square * multiply(sinc, sinc) as u128) >> POINT)
}

/// exp(−y) for y in units of 2^-[`EXPONENT_POINT`].
fn exp_minus(y: u128) -> i64 {
    if y >= 42 << EXPONENT_POINT {
        return 0;
    }
    let y = y as u64;
    let halvings = y / LN_2;
    let rest = ((y - halvings * LN_2) << (POINT - EXPONENT_POINT)) as i64;
    let mut sum = ONE;
    for k in (1..=18).rev() {
        sum = ONE - multiply(rest, sum) / k;
    }
    sum >> halvings
}

/// cos 2πx/N for x ≤ N/2, N = 2^`log2_period`.
fn cosine(x: u64, log2_period: u32) -> i64 {
    let half = 1u64 << (log2_period - 1);
    let obtuse = x > half / 2;
    let x = if obtuse { half - x } else { x };
    let angle = ((PI * u128::from(x)) >> (64 - POINT + log2_period - 1)) as i64;
    let squared = multiply(angle, angle);
    let mut cosine = ONE;
    for k in (1..=13).rev() {
        cosine = ONE - multiply(squared, cosine) / (2 * k * (2 * k - 1));
    }
    if obtuse { -cosine } else { cosine }
}

fn multiply(a: i64, b: i64) -> i64 {
    ((i128::from(a) * i128::from(b)) >> POINT) as i64
}
