//! Dominating pairs as mixtures of Gaussians on a line, along which the privacy loss ln(P/Q) rises.
//!
//! The line is scaled to standard deviation 1. A set of losses above a threshold is a half line of outcomes, so all
//! probabilities that accounting needs are those of intervals under the components.

use std::f64::consts::{LN_2, PI, SQRT_2};

/// A pair P, Q.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pair {
    /// N(μ) and N(0), μ = 1/σ.
    Gaussian { sigma: f64 },
    /// (1 − q)·N(0) + q·N(μ) and N(0).
    Remove { q: f64, sigma: f64 },
    /// N(0) and (1 − q)·N(0) + q·N(−μ): the pair above, reversed and reflected.
    Add { q: f64, sigma: f64 },
    /// (1 − q)·N(0) + q·N(μ) and (1 − q)·N(0) + q·N(−μ).
    Replace { q: f64, sigma: f64 },
}

/// Probabilities of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mass {
    pub(super) p: f64,
    pub(super) q: f64,
}

/// A component: its mean, and its weight in P and in Q.
type Component = (f64, f64, f64);

impl Pair {
    /// The outcome above which the loss is above `loss`; infinite where that is always or never so.
    pub(super) fn threshold(&self, loss: f64) -> f64 {
        match *self {
            Self::Gaussian { sigma } => loss * sigma + 0.5 / sigma,
            Self::Remove { q, sigma } => mixture_threshold(q, sigma, loss),
            Self::Add { q, sigma } => -mixture_threshold(q, sigma, -loss),
            Self::Replace { q, sigma } => {
                // With w = e^{ε/2}·ω the equation P = e^ε·Q is ω² − 2βω − 1 = 0, β = (1 − q)·sinh(ε/2)·e^{μ²/2}/q.
                let half = loss.abs() / 2.0;
                let ln_sinh = if half > 20.0 { half - LN_2 } else { half.sinh().ln() };
                let ln_beta = ln_sinh + (-q).ln_1p() - q.ln() + 0.5 / (sigma * sigma);
                let asinh = if ln_beta > 300.0 { LN_2 + ln_beta } else { ln_beta.exp().asinh() };
                sigma * (half + asinh) * loss.signum()
            }
        }
    }

    /// The loss of the outcome that is `beyond` standard deviations outside of all of P's components, on either side.
    pub(super) fn extreme_losses(&self, beyond: f64) -> (f64, f64) {
        let means = self.components().into_iter().filter(|(_, p, _)| *p > 0.0).map(|(mean, ..)| mean);
        let (low, high) = means.fold((0.0f64, 0.0f64), |(low, high), mean| (low.min(mean), high.max(mean)));
        (self.loss(low - beyond), self.loss(high + beyond))
    }

    /// Probabilities of the intervals between consecutive losses, which rise.
    pub(super) fn masses(&self, losses: impl Iterator<Item = f64>) -> impl Iterator<Item = Mass> {
        let components = self.components();
        let mut before: Option<[Edge; 3]> = None;
        let edges = losses.map(move |loss| {
            let outcome = self.threshold(loss);
            components.map(|(mean, p, q)| if p + q > 0.0 { Edge::at(outcome - mean) } else { Edge::at(0.0) })
        });
        edges.filter_map(move |now| {
            let last = before.replace(now)?;
            let mut mass = Mass::default();
            for ((low, high), (_, p, q)) in last.iter().zip(&now).zip(components) {
                let component = low.until(high);
                mass.p += p * component;
                mass.q += q * component;
            }
            Some(mass)
        })
    }

    /// P[L > loss] − e^loss·Q[L > loss]: the smallest δ at this ε, and a bound on its rounding error.
    pub(super) fn delta(&self, loss: f64) -> (f64, f64) {
        let outcome = self.threshold(loss);
        let (mut p, mut largest) = (0.0, f64::NEG_INFINITY);
        let components = self.components();
        let ln_q = components
            .map(|(mean, _, q)| if q > 0.0 { q.ln() + ln_tail(outcome - mean) } else { f64::NEG_INFINITY });
        for ((mean, weight, _), ln_q) in components.into_iter().zip(ln_q) {
            if weight > 0.0 {
                p += weight * ln_tail(outcome - mean).exp();
            }
            largest = largest.max(ln_q);
        }
        if p == 0.0 {
            return (0.0, 0.0);
        }
        if largest == f64::NEG_INFINITY {
            return (p, p * 1e-14);
        }
        let ln_q = largest + ln_q.map(|ln| (ln - largest).exp()).iter().sum::<f64>().ln();
        let exponent = (loss + ln_q - p.ln()).min(0.0);
        // Each of these numbers is within a few units in its last place, and so is the outcome's square in `ln_q`.
        let error = p * 1e-15 * (10.0 + loss.abs() + ln_q.abs() + p.ln().abs());
        (p * -exponent.exp_m1(), error)
    }

    fn components(&self) -> [Component; 3] {
        let none = (0.0, 0.0, 0.0);
        match *self {
            Self::Gaussian { sigma } => [(0.0, 0.0, 1.0), (1.0 / sigma, 1.0, 0.0), none],
            Self::Remove { q, sigma } => [(0.0, 1.0 - q, 1.0), (1.0 / sigma, q, 0.0), none],
            Self::Add { q, sigma } => [(0.0, 1.0, 1.0 - q), (-1.0 / sigma, 0.0, q), none],
            Self::Replace { q, sigma } => {
                [(0.0, 1.0 - q, 1.0 - q), (1.0 / sigma, q, 0.0), (-1.0 / sigma, 0.0, q)]
            }
        }
    }

    fn loss(&self, outcome: f64) -> f64 {
        match *self {
            Self::Gaussian { sigma } => (outcome - 0.5 / sigma) / sigma,
            Self::Remove { q, sigma } => mixture_loss(q, sigma, outcome),
            Self::Add { q, sigma } => -mixture_loss(q, sigma, -outcome),
            Self::Replace { q, sigma } => mixture_loss(q, sigma, outcome) - mixture_loss(q, sigma, -outcome),
        }
    }
}

/// A point of the line, and the probability of N(0) beyond it on the side away from 0.
#[derive(Clone, Copy)]
struct Edge {
    at: f64,
    tail: f64,
}

impl Edge {
    fn at(at: f64) -> Self {
        Self { at, tail: 0.5 * libm::erfc(at.abs() / SQRT_2) }
    }

    /// The probability between two points: no cancellation in either tail.
    fn until(&self, end: &Self) -> f64 {
        let mass = if self.at >= 0.0 {
            self.tail - end.tail
        } else if end.at <= 0.0 {
            end.tail - self.tail
        } else {
            1.0 - self.tail - end.tail
        };
        mass.max(0.0)
    }
}

/// ln(1 − q + q·e^{μy − μ²/2}).
fn mixture_loss(q: f64, sigma: f64, outcome: f64) -> f64 {
    let exponent = (outcome - 0.5 / sigma) / sigma;
    if exponent < 600.0 { (q * exponent.exp_m1()).ln_1p() } else { q.ln() + exponent }
}

/// The inverse of [`mixture_loss`].
fn mixture_threshold(q: f64, sigma: f64, loss: f64) -> f64 {
    let ln_ratio = if loss > 30.0 {
        loss + (-(1.0 - q) * (-loss).exp()).ln_1p() - q.ln()
    } else {
        let excess = loss.exp_m1() / q;
        if excess <= -1.0 {
            return f64::NEG_INFINITY;
        }
        excess.ln_1p()
    };
    sigma * ln_ratio + 0.5 / sigma
}

/// ln of N(0)'s probability above `x`.
fn ln_tail(x: f64) -> f64 {
    if x < 30.0 {
        return (0.5 * libm::erfc(x / SQRT_2)).ln();
    }
    // The asymptotic series; its next term is below 1e-13 from here on.
    let z = 1.0 / (x * x);
    let terms = [11.0, 9.0, 7.0, 5.0, 3.0, 1.0];
    let series = terms.into_iter().fold(1.0, |sum, odd| 1.0 - odd * z * sum);
    -0.5 * x * x - x.ln() - 0.5 * (2.0 * PI).ln() + series.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [Pair; 8] = [
        Pair::Gaussian { sigma: 1.3 },
        Pair::Remove { q: 0.01, sigma: 0.8 },
        Pair::Remove { q: 0.9, sigma: 5.0 },
        Pair::Add { q: 0.01, sigma: 0.8 },
        Pair::Add { q: 0.5, sigma: 0.3 },
        Pair::Replace { q: 0.01, sigma: 2.0 },
        Pair::Replace { q: 0.7, sigma: 0.6 },
        Pair::Replace { q: 1e-6, sigma: 50.0 },
    ];

    #[test]
    fn threshold_inverts_loss() {
        for pair in PAIRS {
            for outcome in [-6.0, -1.5, -0.1, 0.0, 0.4, 2.0, 7.5] {
                let loss = pair.loss(outcome);
                // Where the loss is flat, as ln(1 − q) is on one side, outcomes cannot be told from it.
                let slope = (pair.loss(outcome + 1e-3) - pair.loss(outcome - 1e-3)) / 2e-3;
                let error = (pair.threshold(loss) - outcome).abs();
                assert!(error < 1e-9 || error * slope < 1e-14, "{pair:?} at {outcome}: {error}");
            }
        }
        assert_eq!(Pair::Remove { q: 0.1, sigma: 1.0 }.threshold(0.9f64.ln() - 1e-12), f64::NEG_INFINITY);
        assert_eq!(Pair::Add { q: 0.1, sigma: 1.0 }.threshold(1.0), f64::INFINITY);
        let large = Pair::Replace { q: 0.1, sigma: 0.01 };
        assert!((large.threshold(large.loss(120.0)) - 120.0).abs() < 1e-9);
    }

    #[test]
    fn masses_are_probabilities_and_agree_with_the_loss() {
        for pair in PAIRS {
            let (low, high) = pair.extreme_losses(7.0);
            let losses: Vec<f64> = (0..=500).map(|k| low + (high - low) * f64::from(k) / 500.0).collect();
            let masses: Vec<Mass> = pair.masses(losses.iter().copied()).collect();
            assert_eq!(masses.len(), 500);
            let total: f64 = masses.iter().map(|mass| mass.p).sum();
            assert!(total <= 1.0 + 1e-12 && total > 1.0 - 1e-10, "{pair:?}: {total}");
            for (mass, ends) in masses.iter().zip(losses.windows(2)) {
                if mass.p > 1e-200 && mass.q > 1e-200 {
                    let loss = (mass.p / mass.q).ln();
                    assert!(loss > ends[0] - 1e-9 && loss < ends[1] + 1e-9, "{pair:?}: {loss} in {ends:?}");
                }
            }
        }
    }

    #[test]
    fn deltas_are_those_of_the_masses() {
        for pair in PAIRS {
            for epsilon in [0.0, 0.003, 0.5, 2.0] {
                let above: Vec<Mass> = pair.masses([epsilon, f64::INFINITY].into_iter()).collect();
                let expected = above[0].p - f64::exp(epsilon) * above[0].q;
                let (delta, error) = pair.delta(epsilon);
                assert!((delta - expected).abs() < 1e-14, "{pair:?} at {epsilon}: {delta}, not {expected}");
                assert!(error < 1e-13);
            }
        }
        // Losses in the thousands, where every probability of Q underflows.
        let (delta, error) = Pair::Gaussian { sigma: 0.01 }.delta(5_000.0);
        assert!((delta - 0.5).abs() < 0.01 && error < 1e-10, "{delta}");
    }

    #[test]
    fn tails_are_continuous_where_the_formula_changes() {
        for (x, exact) in
            [(30.0, -454.321_243_956_343), (29.999_999, -454.321_213_923_084), (40.0, -804.608_442_013_754)]
        {
            assert!((ln_tail(x) - exact).abs() < 1e-11, "{x}: {}", ln_tail(x));
        }
    }
}
