//! Poisson sampling in front of any mechanism that has a Rényi curve: sums of discrete Gaussian or Skellam shares.
//!
//! Let P and Q be the outputs without and with one client, ℓ = Q/P, and let each whole order's ε(k) bound the
//! divergence in both directions: Mₖ = e^{(k−1)ε(k)} ≥ max{E_P[ℓᵏ], E_P[ℓ^{1−k}]}. With sampling rate q the outputs are P and
//! R = (1 − q)P + qQ (other clients' coins mix such pairs, under which moments are convex). At every whole order α ≥ 2
//!
//! e^{(α−1)D} ≤ S = (1 − q)^{α−1}(1 + (α − 1)q) + Σ_{k=2}^{α} C(α, k)·(1 − q)^{α−k}·qᵏ·Mₖ, in both directions:
//!
//! - D(R‖P): E_P[(1 − q + qℓ)^α] is the binomial sum with the moments themselves.
//! - D(P‖R): E_P[b^{1−α}] with b = 1 − q + qℓ. Let a = 1 − q + q/ℓ. Both E_P[b^α] and E_P[ℓ·a^α] = E_Q[a^α] are such sums, so
//!   each is at most S. It is enough that some θ in (0, 1) makes φ(ℓ) = θ·ℓ·a^α + (1 − θ)·b^α − b^{1−α} at least its
//!   tangent at ℓ = 1, because φ(1) = 0 and E_P[ℓ − 1] = 0. With θ = (2α − 1)q/((2α − 1)q + 3(1 − q)) it is convex:
//!   φ″ ≥ 0 reads θ·a^{α−2}·b^{α+1}/ℓ³ + (1 − θ)·b^{2α−1} ≥ 1, and by ab ≥ 1, the inequality of the means, and b ≥ ℓ^q the left
//!   side is at least b^{3θ + (2α−1)(1−θ)}·ℓ^{−3θ} ≥ ℓ^{q(3θ + (2α−1)(1−θ)) − 3θ} = ℓ⁰.
//!
//! Zhu and Wang 2019, theorem 5, has the terms from k = 3 on three times; theorem 6 drops the factor under a condition on
//! P and Q. Knowing both directions, none is needed. For the Gaussian S is exact (Mironov, Talwar, Zhang 2019).

use super::rdp::between_whole_orders;
use crate::{RdpCurve, SamplingRate};

impl RdpCurve {
    /// The curve of this mechanism where each client takes part with probability `rate`, independently of all others,
    /// and who took part is hidden from whom the claim is made against.
    ///
    /// The curve has to bound the divergence in both directions between outputs with and without one client, as those of
    /// this crate do. Never above the curve itself; orders beyond 4096 gain nothing.
    pub fn poisson_sampled(&self, rate: SamplingRate) -> RdpCurve {
        let q = rate.get();
        if q == 1.0 {
            return self.clone();
        }
        // (k − 1)·ε(k) from order 2 on, by chords where the grid has no such order.
        let cumulants: Vec<f64> =
            (2..=MAX_ORDER + 1).map(|k| f64::from(k - 1) * self.divergence_by_chord(f64::from(k))).collect();
        let sampled = |order: f64| ln_moment(order, q, &cumulants);
        self.map(|order, unsampled| {
            if order > f64::from(MAX_ORDER) {
                return unsampled;
            }
            unsampled.min(between_whole_orders(order, sampled) * ROUND_UP)
        })
    }
}

/// Bounds the length of the sum.
const MAX_ORDER: u32 = 4_096;

/// Covers rounding, above all in the logarithms of binomial coefficients.
const ROUND_UP: f64 = 1.0 + 1e-9;

/// ln S. The binomial weights sum to 1, so S − 1 is a sum of positive terms with Mₖ − 1 in the place of Mₖ.
fn ln_moment(order: f64, q: f64, cumulants: &[f64]) -> f64 {
    let (ln_q, ln_rest) = (q.ln(), (-q).ln_1p());
    let mut ln_weight = order * ln_rest + order.ln() + ln_q - ln_rest;
    let mut terms = Vec::with_capacity(order as usize);
    for (k, &cumulant) in (2..=order as u32).map(f64::from).zip(cumulants) {
        ln_weight += ((order - k + 1.0) / k).ln() + ln_q - ln_rest;
        let ln_excess = if cumulant > 30.0 { cumulant } else { cumulant.exp_m1().ln() };
        terms.push(ln_weight + ln_excess);
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        // No loss at all, or one that nothing bounds.
        return if largest < 0.0 { 0.0 } else { f64::INFINITY };
    }
    let ln_excess = largest + terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln();
    if ln_excess > 30.0 { ln_excess + (-ln_excess).exp() } else { ln_excess.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::{Neighbours, Release, Sampling};
    use crate::{Delta, NoiseMultiplier, Variance, distributed_discrete_gaussian_rho, distributed_skellam};

    fn rate(q: f64) -> SamplingRate {
        SamplingRate::new(q).unwrap()
    }

    #[test]
    fn a_sampled_gaussian_is_the_exact_one_at_whole_orders() {
        for (q, sigma) in [(0.01, 1.0), (1e-4, 0.6), (0.3, 2.0), (1e-6, 100.0)] {
            let sigma = NoiseMultiplier::new(sigma).unwrap();
            let generic = RdpCurve::gaussian(sigma).poisson_sampled(rate(q));
            let exact =
                Release::new(Neighbours::AddRemove, Sampling::Poisson(rate(q)), sigma.get()).unwrap().rdp();
            for order in [2.0, 3.0, 8.0, 40.0, 63.0] {
                let ratio = generic.divergence_at(order) / exact.divergence_at(order);
                assert!((ratio - 1.0).abs() < 1e-8, "q = {q}, σ = {sigma}, α = {order}: {ratio}");
            }
            for order in [1.1, 2.5, 5.7] {
                assert!(generic.divergence_at(order) >= exact.divergence_at(order));
            }
        }
    }

    #[test]
    fn the_bound_holds_in_both_directions_for_any_pair() {
        // Pairs of distributions on a few points, skewed one way and the other.
        let mut state = 9u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for case in 0..400 {
            let spread = 4.0 * uniform();
            let draw = |uniform: &mut dyn FnMut() -> f64| {
                let weights: Vec<f64> = (0..4).map(|_| (spread * (uniform() - 0.5)).exp()).collect();
                let total: f64 = weights.iter().sum();
                weights.into_iter().map(|w| w / total).collect::<Vec<_>>()
            };
            let (p, with) = (draw(&mut uniform), draw(&mut uniform));
            let divergence = |p: &[f64], r: &[f64], order: f64| {
                let moment: f64 = p.iter().zip(r).map(|(p, r)| p.powf(order) * r.powf(1.0 - order)).sum();
                moment.ln() / (order - 1.0)
            };
            let curve = RdpCurve::from_zcdp(0.0)
                .map(|order, _| divergence(&p, &with, order).max(divergence(&with, &p, order)));
            let q = uniform().max(1e-3);
            let mixed: Vec<f64> = p.iter().zip(&with).map(|(p, w)| (1.0 - q) * p + q * w).collect();
            let sampled = curve.poisson_sampled(rate(q));
            for order in [1.05, 1.5, 2.0, 3.0, 3.5, 7.0, 20.0] {
                let truth = divergence(&p, &mixed, order).max(divergence(&mixed, &p, order));
                let bound = sampled.divergence_at(order);
                assert!(
                    bound >= truth * (1.0 - 1e-12) - 1e-15,
                    "{case}: α = {order}, q = {q}: {bound} < {truth}"
                );
                assert!(bound <= curve.divergence_at(order));
            }
        }
    }

    #[test]
    fn the_ends() {
        let curve = RdpCurve::from_zcdp(0.3);
        assert_eq!(curve.poisson_sampled(rate(1.0)), curve);
        assert_eq!(RdpCurve::from_zcdp(0.0).poisson_sampled(rate(0.5)), RdpCurve::from_zcdp(0.0));
        let unbounded = RdpCurve::from_zcdp(f64::INFINITY).poisson_sampled(rate(1e-9));
        assert_eq!(unbounded.divergence_at(2.0), f64::INFINITY);
    }

    /// The EMNIST setting of google-research/federated (`distributed_dp`): 100 of 3400 clients, 1500 rounds, 2^20
    /// coordinates, clip norm 1, ε = 10, δ = 1/3400.
    const COHORT: u32 = 100;
    const CLIENTS: f64 = 3_400.0;
    const ROUNDS: u32 = 1_500;
    const DIMENSION: u32 = 1 << 20;

    /// The orders there: 2 to 128 and 256, and the sum of theorem 5 of Zhu and Wang, with its factor of three.
    fn reference_epsilon(divergence: impl Fn(f64) -> f64) -> f64 {
        let q = f64::from(COHORT) / CLIENTS;
        let cumulants: Vec<f64> = (2..=256).map(|k| f64::from(k - 1) * divergence(f64::from(k))).collect();
        let epsilon = |order: u32| {
            let order = f64::from(order);
            let mut ln_weight = order * (-q).ln_1p() + (order * q / (1.0 - q)).ln();
            let mut sum = (order * (-q).ln_1p()).exp() + ln_weight.exp();
            for (k, cumulant) in (2..=order as u32).zip(&cumulants) {
                let k = f64::from(k);
                ln_weight += ((order - k + 1.0) / k * q / (1.0 - q)).ln();
                sum += if k > 2.0 { 3.0 } else { 1.0 } * (ln_weight + cumulant).exp();
            }
            let sampled = sum.ln() / (order - 1.0);
            let total = f64::from(ROUNDS) * sampled.min(divergence(order));
            total + (-1.0 / order).ln_1p() - (order / CLIENTS).ln() / (order - 1.0)
        };
        (2..=128).chain([256]).map(epsilon).fold(f64::INFINITY, f64::min)
    }

    /// The step, in clip norms, with which `reach` standard deviations of the sum fill a ring of `bits`.
    fn step(share: f64, bits: i32, reach: f64) -> f64 {
        let n = f64::from(COHORT);
        let signal = n * n / f64::from(DIMENSION) + share * share * n;
        (signal / (4f64.powi(bits) / (4.0 * reach * reach) - n / 4.0)).sqrt()
    }

    /// Theorem 1 of Kairouz, Liu, Steinke 2021 with β = e^-1/2: squared steps.
    fn rounded_l2_squared(c: f64) -> f64 {
        let d = f64::from(DIMENSION);
        (c + d.sqrt()).powi(2).min(c * c + d / 4.0 + c + d.sqrt() / 2.0)
    }

    #[test]
    fn published_noise_of_distributed_mechanisms() {
        assert!((rounded_l2_squared(1_000.0).sqrt() - 1_124.124_548).abs() < 1e-6);
        let (n, d) = (f64::from(COHORT), f64::from(DIMENSION));
        // Noise of the sum in clip norms, the ring, and the standard deviations that it has to hold.
        for (skellam, noise, bits, reach) in
            [(false, 1.998_015, 12, 4.0), (false, 0.915_911, 14, 4.0), (true, 1.206_159, 12, 3.0)]
        {
            let share = noise / n.sqrt();
            let step = step(share, bits, reach);
            let (l2, variance) = (rounded_l2_squared(1.0 / step), (share / step).powi(2));
            let l1 = l2.min(l2.sqrt() * d.sqrt());
            let total = n * variance;
            let tau: f64 = (1..COHORT)
                .map(|k| {
                    (-2.0 * std::f64::consts::PI.powi(2) * variance * f64::from(k) / f64::from(k + 1)).exp()
                })
                .sum::<f64>()
                * 10.0;
            let reference = reference_epsilon(|order| {
                if skellam {
                    let small = ((2.0 * order - 1.0) * l2 + 6.0 * l1) / (4.0 * total * total);
                    return order * l2 / (2.0 * total) + small.min(1.5 * l1 / total);
                }
                let signal = l2 / total;
                let split = order / 2.0 * signal + tau * d;
                let cross = order / 2.0 * (signal + 2.0 * l1 / total.sqrt() * tau + tau * tau * d);
                split.min(cross).min(order / 2.0 * (signal.sqrt() + d.sqrt() * tau).powi(2))
            });
            assert!((reference - 10.0).abs() < 1e-3, "{noise}: {reference}");

            let (l2, share) = (l2.ceil() as u64, Variance::new(variance.floor() as u64).unwrap());
            let round = if skellam {
                distributed_skellam(l2, share, COHORT, DIMENSION)
            } else {
                RdpCurve::from_zcdp(distributed_discrete_gaussian_rho(l2, share, COHORT, DIMENSION))
            };
            let all = round.poisson_sampled(rate(n / CLIENTS)).compose(ROUNDS);
            let epsilon = all.epsilon(Delta::new(1.0 / CLIENTS).unwrap()).epsilon;
            // Without the factor of three, and with orders between whole ones.
            assert!(epsilon > 8.0 && epsilon < 8.65, "{noise}: {epsilon}");
        }
    }

    #[test]
    fn published_noise_of_the_central_gaussian_on_whole_orders() {
        let q = rate(f64::from(COHORT) / CLIENTS);
        let curve = RdpCurve::gaussian(NoiseMultiplier::new(0.847_93).unwrap()).poisson_sampled(q);
        let all = curve.compose(ROUNDS);
        let whole = (2..=63).map(f64::from).map(|order| {
            all.divergence_at(order) + (-1.0 / order).ln_1p() - (order / CLIENTS).ln() / (order - 1.0)
        });
        let epsilon = whole.fold(f64::INFINITY, f64::min);
        assert!((epsilon - 10.0).abs() < 1e-3, "{epsilon}");
    }
}
