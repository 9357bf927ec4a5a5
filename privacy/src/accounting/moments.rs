//! Rényi divergences of dominating pairs, at any order α > 1, by quadrature.
//!
//! With L = ln(P/Q) the divergence is ln(1 + X)/(α − 1), where X = E_Q[φ_α(e^L − 1)] and
//! φ_α(u) = (1 + u)^α − 1 − αu ≥ 0: subtracting the linear part, whose expectation is 0, leaves no cancellation when the
//! divergence is tiny.
//!
//! The trapezoidal rule on the real line converges geometrically for such integrands. If |f(y + ia)| ≤ C·f(y) in the
//! strip |Im y| ≤ a, its relative error with step h is at most 2C/(e^{2πa/h} − 1) (Trefethen, Weideman 2014, theorem 5.1).
//! In the strip |1 − q + q·e^{z + iθ}| ≤ 1 − q + q·e^z, and ≥ cos(θ/2)·(1 − q + q·e^z), which gives C below. No series is
//! truncated, so there is no order at which it fails to converge; where it would take too many nodes, the bound without
//! sampling, which always holds, is the answer.

use super::Release;
use std::f64::consts::{FRAC_PI_2, PI};

/// Divergences of one release, for many orders.
pub(super) struct Moments {
    release: Release,
    nodes: Vec<Node>,
    /// The step for which `nodes` were made, and the end of the interval that they cover.
    step: f64,
    end: f64,
}

/// A node of the quadrature.
#[derive(Clone, Copy)]
struct Node {
    y: f64,
    /// ln of step × density of Q.
    ln_weight: f64,
    /// e^loss − 1, capped at 1e300.
    excess: f64,
    loss: f64,
}

impl Moments {
    pub(super) fn new(release: Release) -> Self {
        Self { release, nodes: Vec::new(), step: f64::INFINITY, end: f64::NEG_INFINITY }
    }

    /// The Rényi divergence at an order above 1, rounded up.
    pub(super) fn divergence(&mut self, order: f64) -> f64 {
        let unsampled = unsampled(self.release, order);
        if matches!(self.release, Release::Gaussian { .. }) || unsampled > MAX_DIVERGENCE {
            return unsampled;
        }
        if !self.cover(order) {
            return unsampled;
        }
        let sampled = self.ln_moment(order) / (order - 1.0);
        (sampled * ROUND_UP).min(unsampled)
    }

    /// Makes the nodes fine and far enough for the order; false if they would be too many.
    fn cover(&mut self, order: f64) -> bool {
        // Steps for the next power of two, so that a rising sequence of orders rarely needs finer ones.
        let step = step(self.release, (order.log2().ceil()).exp2());
        let (start, end) = interval(self.release, order);
        if (end - start) / step >= MAX_NODES {
            return false;
        }
        if step < self.step {
            self.nodes.clear();
            self.step = step;
        }
        let first = (start / self.step).floor();
        while self.nodes.last().is_none_or(|last| last.y < end) {
            let y = (first + self.nodes.len() as f64) * self.step;
            self.nodes.push(node(self.release, y, self.step));
        }
        self.end = end;
        true
    }

    /// ln(1 + X).
    fn ln_moment(&self, order: f64) -> f64 {
        let nodes = &self.nodes[..self.nodes.partition_point(|node| node.y < self.end)];
        let largest = nodes.iter().map(|n| n.ln_weight + order * n.loss).fold(f64::NEG_INFINITY, f64::max);
        if largest > 600.0 {
            // The moment is so large that all but its leading power is lost in rounding.
            let scaled: f64 = nodes.iter().map(|n| (n.ln_weight + order * n.loss - largest).exp()).sum();
            return largest + scaled.ln();
        }
        let mut excess: f64 = nodes.iter().map(|n| n.term(order)).sum();
        if matches!(self.release, Release::FixedSize { .. }) {
            // Only losses above 0 are nodes; those below are the same ones of the reversed pair.
            excess += nodes.iter().map(|n| n.term(1.0 - order)).sum::<f64>();
        }
        excess.ln_1p()
    }
}

impl Node {
    /// weight × φ_power(excess). The power is above 1 or below 0.
    fn term(&self, power: f64) -> f64 {
        let Node { ln_weight, excess: u, loss, .. } = *self;
        let exponent = power * loss;
        if u.abs() * power.abs().max(2.0) < 0.05 {
            // Σ C(power, k)·u^k from k = 2; the terms fall by a factor of 20 or more.
            let ratio = |k: f64| (power - k) / (k + 1.0) * u;
            let series = (2..12).rev().fold(1.0, |sum, k| 1.0 + ratio(f64::from(k)) * sum);
            return ln_weight.exp() * (0.5 * power * (power - 1.0) * u * u * series);
        }
        if exponent > 30.0 {
            // The power may overflow, or the weight underflow, where their product does not.
            return (ln_weight + exponent).exp() - (ln_weight + (power * u).ln_1p()).exp();
        }
        ln_weight.exp() * (exponent.exp_m1() - power * u)
    }
}

/// The divergence if everyone took part, which bounds it for any sampling: outputs for neighbours are mixtures of
/// Gaussians that pair up, and the Rényi divergence of mixtures is at most the largest of their pairs' (quasi-convexity).
fn unsampled(release: Release, order: f64) -> f64 {
    match release {
        Release::Gaussian { sigma } | Release::AddRemove { sigma, .. } | Release::FixedSize { sigma, .. } => {
            order / (2.0 * sigma * sigma)
        }
        // N(1) against N(−1).
        Release::ReplaceOne { sigma, .. } => 2.0 * order / (sigma * sigma),
    }
}

/// A step for which the relative error of X is below 1e-10.
fn step(release: Release, order: f64) -> f64 {
    match release {
        Release::Gaussian { sigma } => sigma,
        Release::AddRemove { q, sigma } => {
            // The error is relative to the whole moment: X may be smaller by its leading factor.
            let digits = 30.0 - small_excess(q, sigma).ln();
            let variance = sigma * sigma;
            // a = 2πσ²/h is best for the Gaussian factor, a = πσ² is where the other one has a zero.
            let wide = PI * sigma * (2.0 / digits).sqrt();
            if wide >= 2.0 { wide } else { 2.0 * PI * PI * variance / (digits + PI * PI * variance / 2.0) }
        }
        Release::ReplaceOne { q, sigma } => {
            let digits = 30.0 - small_excess(q, sigma).ln();
            let variance = sigma * sigma;
            // An angle θ = a/σ² costs the factor e^{θ²σ²/2}·cos(θ/2)^{1−α}, and cos(θ/2) ≥ e^{−θ²/6} for θ ≤ π/2.
            let loss = |angle: f64| angle * angle * (variance / 2.0 + (order - 1.0) / 6.0);
            let angle = (digits / (variance / 2.0 + (order - 1.0) / 6.0)).sqrt().min(FRAC_PI_2);
            2.0 * PI * angle * variance / (digits + loss(angle))
        }
        // In units of the substituted variable. Measured: halving it changes no divergence by 1e-12 of itself.
        Release::FixedSize { .. } => 0.2,
    }
}

/// The order of magnitude of X/α(α − 1), if that is below 1: its first term is q²·(e^{1/σ²} − 1)/2.
fn small_excess(q: f64, sigma: f64) -> f64 {
    (q * q * (1.0 / (sigma * sigma)).exp_m1()).min(1.0)
}

/// What is left out on either side is less than 1e-30 of the moment. Nothing pulls the integrand's bulk further than to
/// α (2α − 1 for the pair of replace-one): its logarithmic derivative is at most (α − y)/σ².
fn interval(release: Release, order: f64) -> (f64, f64) {
    match release {
        Release::Gaussian { sigma } | Release::AddRemove { sigma, .. } => {
            (-TAIL * sigma, order + TAIL * sigma)
        }
        Release::ReplaceOne { sigma, .. } => (-TAIL * sigma - 1.0, 2.0 * order - 1.0 + TAIL * sigma),
        // The integrand falls like e^{3x} towards the left.
        Release::FixedSize { sigma, .. } => (-16.0, (order + TAIL * sigma) / substitution_scale(sigma)),
    }
}

fn node(release: Release, y: f64, step: f64) -> Node {
    match release {
        Release::Gaussian { sigma } => mixture_node(1.0, sigma, y, step),
        Release::AddRemove { q, sigma } => mixture_node(q, sigma, y, step),
        Release::ReplaceOne { q, sigma } => {
            let up = mixture_node(q, sigma, y, step);
            let down = mixture_node(q, sigma, -y, step);
            let loss = up.loss - down.loss;
            // (A − B)/B, where A − B = q·e^{−1/2σ²}·(e^{y/σ²} − e^{−y/σ²}).
            let variance = sigma * sigma;
            let excess = if loss.abs() < 1.0 {
                q * (-0.5 / variance).exp() * 2.0 * (y / variance).sinh() / (1.0 + down.excess)
            } else {
                loss.exp_m1()
            };
            Node { y, ln_weight: up.ln_weight + down.loss, excess: excess.min(MAX_EXCESS), loss }
        }
        Release::FixedSize { q, sigma } => {
            // y = 1/2 + s over s > 0, s = c·ln(1 + e^x): both ends of the half line go to infinity.
            let scale = substitution_scale(sigma);
            let softplus = if y > 0.0 { y + (-y).exp().ln_1p() } else { y.exp().ln_1p() };
            let ln_slope = scale.ln() - if y > 0.0 { (-y).exp().ln_1p() } else { y.exp().ln_1p() - y };
            let s = scale * softplus;
            let at = mixture_node(q, sigma, 0.5 + s, step);
            let excess = (q * (s / (sigma * sigma)).exp_m1()).min(MAX_EXCESS);
            let loss = if excess < 1.0 { excess.ln_1p() } else { at.loss };
            Node { y, ln_weight: at.ln_weight + ln_slope, excess, loss }
        }
    }
}

/// P = (1 − q)·N(0) + q·N(1), Q = N(0): e^L − 1 = q·(e^z − 1) with z = (2y − 1)/2σ².
fn mixture_node(q: f64, sigma: f64, y: f64, step: f64) -> Node {
    let z = (2.0 * y - 1.0) / (2.0 * sigma * sigma);
    let (excess, loss) = if z < 600.0 {
        let excess = q * z.exp_m1();
        (excess, excess.ln_1p())
    } else {
        (MAX_EXCESS, q.ln() + z)
    };
    let ln_weight = -y * y / (2.0 * sigma * sigma) + (step / (sigma * (2.0 * PI).sqrt())).ln();
    Node { y, ln_weight, excess, loss }
}

/// Smooth on the scale of the density and of the zero of 1 + u at Im s = πσ².
fn substitution_scale(sigma: f64) -> f64 {
    sigma.min(sigma * sigma)
}

/// Covers the error of quadrature, of summation and of the functions of the standard library.
const ROUND_UP: f64 = 1.0 + 1e-9;

/// Standard deviations that the quadrature reaches beyond the bulk: Φ(−12) < 2e-33.
const TAIL: f64 = 12.0;

/// Nats per round and order beyond which the gain from sampling is not computed.
const MAX_DIVERGENCE: f64 = 1e3;

const MAX_NODES: f64 = 65_536.0;

const MAX_EXCESS: f64 = 1e300;

#[cfg(test)]
mod tests {
    use super::*;

    /// Divergences computed with mpmath 1.3 (adaptive quadrature of the definition, 40 digits).
    const ADD_REMOVE: [(f64, f64, f64, f64); 9] = [
        (0.1, 0.6, 1.1, 0.037_564_441_638_5),
        (0.2, 0.5, 1.5, 0.436_161_075_560_5),
        (1e-4, 10.0, 1.01, 5.075_329_311_063e-11),
        (1e-4, 0.5, 1.5, 3.906_150_237_587e-7),
        (1e-3, 0.6, 4.8, 0.000_162_035_518_058_1),
        (0.01, 0.15, 3.3, 66.725_915_240_39),
        (0.5, 100.0, 40.0, 0.000_500_494_229_648),
        (0.03, 2.0, 63.0, 4.311_890_813_402),
        (1e-5, 1000.0, 2.0, 1.000_000_5e-16),
    ];
    const REPLACE_ONE: [(f64, f64, f64, f64); 5] = [
        (0.01, 2.0, 1.1, 5.539_805_395_338e-5),
        (0.01, 2.0, 26.0, 0.001_319_849_787_857),
        (0.3, 0.7, 2.5, 1.159_403_523_787),
        (0.9, 1.0, 8.0, 6.179_328_795_222),
        (0.001, 20.0, 200.0, 9.999_988_698_379e-7),
    ];
    const FIXED_SIZE: [(f64, f64, f64, f64); 7] = [
        (0.01, 2.0, 1.1, 2.149_276_657_525e-5),
        (0.01, 2.0, 13.0, 0.000_254_742_448_979_6),
        (0.3, 0.7, 2.5, 0.848_649_533_726_2),
        (0.9, 0.3, 1.5, 8.021_352_240_653),
        (0.001, 20.0, 200.0, 2.602_852_773_994e-7),
        (1e-5, 500.0, 1.5, 3.004_793_266_5e-16),
        (0.01, 1.0, 40.0, 15.276_748_527_19),
    ];

    #[test]
    fn divergences_are_the_exact_ones_rounded_up() {
        let cases = |release: fn(f64, f64) -> Release, rows: &[(f64, f64, f64, f64)]| {
            for &(q, sigma, order, exact) in rows {
                let release = release(q, sigma);
                let excess = Moments::new(release).divergence(order) / exact - 1.0;
                assert!(excess > 5e-10 && excess < 1.5e-9, "{release:?}, α = {order}: off by {excess:e}");
            }
        };
        cases(|q, sigma| Release::AddRemove { q, sigma }, &ADD_REMOVE);
        cases(|q, sigma| Release::ReplaceOne { q, sigma }, &REPLACE_ONE);
        cases(|q, sigma| Release::FixedSize { q, sigma }, &FIXED_SIZE);
    }

    #[test]
    fn whole_orders_agree_with_the_binomial_sum() {
        // Mironov, Talwar, Zhang 2019: the moment is Σ C(α, k)·(1 − q)^{α−k}·q^k·e^{k(k−1)/2σ²}.
        for (q, sigma) in [(0.001, 0.6), (0.01, 1.0), (0.1, 4.0), (0.5, 0.8), (0.9, 10.0)] {
            let mut moments = Moments::new(Release::AddRemove { q, sigma });
            // No term may overflow here.
            let orders = [2u32, 3, 5, 8, 20, 50];
            for order in orders.into_iter().filter(|&k| f64::from(k * k) < 1_000.0 * sigma * sigma) {
                let mut binomial = 1.0;
                let mut excess = 0.0;
                for k in 2..=order {
                    binomial = if k == 2 {
                        f64::from(order * (order - 1) / 2)
                    } else {
                        binomial * f64::from(order + 1 - k) / f64::from(k)
                    };
                    let weight = binomial * (1.0 - q).powi((order - k) as i32) * q.powi(k as i32);
                    excess += weight * (f64::from(k * (k - 1)) / (2.0 * sigma * sigma)).exp_m1();
                }
                let expected = excess.ln_1p() / f64::from(order - 1);
                let ours = moments.divergence(f64::from(order));
                assert!((ours / expected - 1.0).abs() < 2e-9, "q = {q}, σ = {sigma}, α = {order}: {ours}");
            }
        }
    }

    #[test]
    fn nodes_do_not_depend_on_what_was_asked_before() {
        for release in [
            Release::AddRemove { q: 0.02, sigma: 0.9 },
            Release::ReplaceOne { q: 0.02, sigma: 0.9 },
            Release::FixedSize { q: 0.02, sigma: 0.9 },
        ] {
            let mut shared = Moments::new(release);
            for order in [1.3, 64.0, 7.5, 2.0, 300.0, 1.01] {
                let alone = Moments::new(release).divergence(order);
                let after_others = shared.divergence(order);
                assert!((after_others / alone - 1.0).abs() < 1e-10, "{release:?}, α = {order}");
            }
        }
    }

    #[test]
    fn sampling_never_costs_and_where_it_is_not_computed_it_is_not_credited() {
        let orders = [1.01, 1.5, 4.0, 32.0, 1e3, 1e5];
        for sigma in [1e-3, 0.02, 0.4, 3.0, 1e3, 1e6] {
            for q in [1e-9, 1e-3, 0.3, 1.0 - 1e-9] {
                for release in [
                    Release::AddRemove { q, sigma },
                    Release::ReplaceOne { q, sigma },
                    Release::FixedSize { q, sigma },
                ] {
                    let mut moments = Moments::new(release);
                    let mut before = 0.0;
                    for order in orders {
                        let divergence = moments.divergence(order);
                        assert!(divergence > 0.0 && divergence <= unsampled(release, order), "{release:?}");
                        assert!(divergence >= before * (1.0 - 1e-8), "{release:?}: falls at α = {order}");
                        before = divergence;
                    }
                }
            }
        }
        let tiny_noise = Release::AddRemove { q: 0.5, sigma: 0.001 };
        assert_eq!(Moments::new(tiny_noise).divergence(2.0), 1e6);
    }
}
