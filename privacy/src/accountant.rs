//! Rényi differential privacy on a fixed grid of orders.
//!
//! A curve holds, for each order α, a bound on the Rényi divergence between the outputs for neighbouring inputs. Curves
//! add up under composition (adaptive too) and are turned into (ε, δ) once, at the end, by
//! ε = r + ln(1 − 1/α) − ln(δα)/(α − 1) (Canonne, Kamath, Steinke 2020), minimised over the orders.
//! Any single order is a valid bound, so the grid only costs tightness.
//!
//! Subsampling is absent: nothing in this crate claims amplification.

use crate::{Delta, NoiseMultiplier, Variance};

/// Bounds on the Rényi divergence, one per order.
#[derive(Clone, Debug, PartialEq)]
pub struct RdpCurve {
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    order: f64,
    divergence: f64,
}

/// A bound on ε, and the order that gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpsilonAtOrder {
    /// At least 0; infinite where no order bounds the loss.
    pub epsilon: f64,
    /// The Rényi order α.
    pub order: f64,
}

impl RdpCurve {
    /// The curve of a ρ-zCDP mechanism: divergence α·ρ at every order α (Bun, Steinke 2016, definition 1.1).
    ///
    /// A ρ that is negative or NaN bounds nothing and counts as infinite.
    pub fn from_zcdp(rho: f64) -> Self {
        let rho = if rho >= 0.0 { rho } else { f64::INFINITY };
        Self { points: orders().map(|order| Point { order, divergence: order * rho }).collect() }
    }

    /// The curve of one continuous Gaussian mechanism: zCDP with ρ = 1/2z².
    pub fn gaussian(noise_multiplier: NoiseMultiplier) -> Self {
        Self::from_zcdp(0.5 / noise_multiplier.get().powi(2))
    }

    /// The curve of `n` mechanisms with this curve, on the same data, one after the other.
    pub fn compose(&self, n: u32) -> Self {
        let times = |divergence| if n == 0 { 0.0 } else { divergence * f64::from(n) };
        Self { points: self.points.iter().map(|p| Point { divergence: times(p.divergence), ..*p }).collect() }
    }

    /// The least ε at this δ over all orders.
    pub fn epsilon(&self, delta: Delta) -> EpsilonAtOrder {
        self.points
            .iter()
            .map(|point| EpsilonAtOrder { epsilon: point.epsilon(delta.get()), order: point.order })
            .min_by(|a, b| a.epsilon.total_cmp(&b.epsilon))
            .expect("the grid of orders is not empty")
    }
}

impl Point {
    fn epsilon(self, delta: f64) -> f64 {
        // The divergence bounds the KL divergence, hence the total variation by √(1 − e^−r) (Bretagnolle, Huber 1979):
        // where that is at most δ, ε = 0 holds.
        if delta * delta + (-self.divergence).exp_m1() >= 0.0 {
            return 0.0;
        }
        let Point { order, divergence } = self;
        (divergence + (-1.0 / order).ln_1p() - (delta.ln() + order.ln()) / (order - 1.0)).max(0.0)
    }
}

/// The orders of Google's dp-accounting (1.1 to 10.9 by tenths, 11 to 63, 128, 256, 512, 1024), with finer ones near 1
/// for large losses and a geometric tail for small ones.
fn orders() -> impl Iterator<Item = f64> {
    let near_one = (1..10).map(|i| 1.0 + f64::from(i) / 100.0);
    let tenths = (1..100).map(|i| 1.0 + f64::from(i) / 10.0);
    let whole = (11..64).map(f64::from);
    let tail = (4..15).flat_map(|octave| (4..8).map(move |quarter| f64::from(quarter << octave)));
    near_one.chain(tenths).chain(whole).chain(tail)
}

/// zCDP bound ρ = ½ε² of a sum that carries `honest` independent discrete Gaussians of parameter `share`, in `dimension`
/// coordinates, for integer inputs of squared L2 sensitivity `norm_bound_squared` (steps²).
///
/// Kairouz, Liu, Steinke 2021, theorem 1. A sum of discrete Gaussians is not one; τ bounds how far, per coordinate. The
/// first term takes 2τd, which dominates what the paper and its reference accountant add. Infinite where `honest` is 0.
pub fn distributed_discrete_gaussian_rho(
    norm_bound_squared: u64,
    share: Variance,
    honest: u32,
    dimension: u32,
) -> f64 {
    if honest == 0 {
        return f64::INFINITY;
    }
    let (share, dimension) = (share.get() as f64, f64::from(dimension));
    let decay = -2.0 * std::f64::consts::PI.powi(2) * share;
    let tau = 10.0 * (1..honest).map(|k| (decay * f64::from(k) / f64::from(k + 1)).exp()).sum::<f64>();
    let signal_squared = norm_bound_squared as f64 / (f64::from(honest) * share);
    let split = signal_squared + 2.0 * tau * dimension;
    let triangle = (signal_squared.sqrt() + tau * dimension.sqrt()).powi(2);
    0.5 * split.min(triangle)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn delta(value: f64) -> Delta {
        Delta::new(value).unwrap()
    }

    fn gaussian(sigma: f64) -> RdpCurve {
        RdpCurve::gaussian(NoiseMultiplier::new(sigma).unwrap())
    }

    #[derive(Deserialize)]
    struct Vectors {
        composed_gaussian: Vec<ComposedGaussian>,
        gaussian_rdp: Vec<GaussianRdp>,
        analytic_gaussian: Vec<AnalyticGaussian>,
    }

    #[derive(Deserialize)]
    struct ComposedGaussian {
        sigma: f64,
        steps: u32,
        delta: f64,
        eps_rdp: f64,
        order: f64,
        eps_pld: Option<f64>,
    }

    #[derive(Deserialize)]
    struct GaussianRdp {
        sigma: f64,
        orders: Vec<f64>,
        rdp: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct AnalyticGaussian {
        eps: f64,
        delta: f64,
        sigma: f64,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../../tests/vectors/privacy/dp_accounting_gaussian.json")).unwrap()
    }

    #[test]
    fn composed_gaussians_agree_with_dp_accounting() {
        let rows = vectors().composed_gaussian;
        assert_eq!(rows.len(), 56);
        for row in rows {
            let ours = gaussian(row.sigma).compose(row.steps).epsilon(delta(row.delta));
            let at = format!("σ = {}, T = {}, δ = {}", row.sigma, row.steps, row.delta);
            assert!(ours.epsilon <= row.eps_rdp * (1.0 + 1e-6), "{at}: {ours:?} above {}", row.eps_rdp);
            if (ours.order - row.order).abs() < 1e-9 {
                assert!(
                    (ours.epsilon / row.eps_rdp - 1.0).abs() < 1e-6,
                    "{at}: {ours:?}, not {}",
                    row.eps_rdp
                );
            } else {
                // Its grid has nothing below 1.1 and between 63 and 128.
                assert!(ours.order < 1.1 || row.order <= 1.1 || ours.order > 63.0, "{at}: {ours:?}");
            }
            if let Some(tight) = row.eps_pld {
                assert!(ours.epsilon >= tight, "{at}: {ours:?} below the tight {tight}");
            }
        }
    }

    #[test]
    fn divergences_agree_with_dp_accounting() {
        for row in vectors().gaussian_rdp {
            let curve = gaussian(row.sigma);
            let mut compared = 0;
            for (order, expected) in row.orders.iter().zip(&row.rdp) {
                if let Some(point) = curve.points.iter().find(|point| (point.order - order).abs() < 1e-9) {
                    assert!((point.divergence / expected - 1.0).abs() < 1e-12, "{point:?}, not {expected}");
                    compared += 1;
                }
            }
            assert!(compared >= 8, "only {compared} orders in common");
        }
    }

    #[test]
    fn no_epsilon_is_below_the_exact_one() {
        for row in vectors().analytic_gaussian {
            let ours = gaussian(row.sigma).epsilon(delta(row.delta)).epsilon;
            assert!(ours >= row.eps, "σ = {}, δ = {}: {ours} below {}", row.sigma, row.delta, row.eps);
            assert!(
                ours <= row.eps * 1.2,
                "σ = {}, δ = {}: {ours} far above {}",
                row.sigma,
                row.delta,
                row.eps
            );
        }
    }

    #[test]
    fn published_number() {
        let ours = gaussian(10.0).compose(100).epsilon(delta(1e-5));
        assert!((ours.epsilon - 4.728_507).abs() < 1e-6 && ours.order == 5.4, "{ours:?}");
    }

    #[test]
    fn nothing_released_costs_nothing_and_no_noise_costs_everything() {
        assert_eq!(gaussian(1.0).compose(0).epsilon(delta(1e-9)).epsilon, 0.0);
        assert_eq!(RdpCurve::from_zcdp(0.0).epsilon(delta(1e-300)).epsilon, 0.0);
        for rho in [f64::INFINITY, f64::NAN, -1.0] {
            assert_eq!(RdpCurve::from_zcdp(rho).epsilon(delta(0.5)).epsilon, f64::INFINITY);
            assert_eq!(RdpCurve::from_zcdp(rho).compose(0).epsilon(delta(0.5)).epsilon, 0.0);
        }
        assert_eq!(RdpCurve::from_zcdp(1e308).compose(u32::MAX).epsilon(delta(0.5)).epsilon, f64::INFINITY);
    }

    #[test]
    fn epsilon_grows_with_the_loss_and_shrinks_with_delta() {
        let mut before = 0.0;
        for exponent in -120..40 {
            let epsilon =
                RdpCurve::from_zcdp(10f64.powf(f64::from(exponent) / 10.0)).epsilon(delta(1e-6)).epsilon;
            assert!(epsilon >= before);
            before = epsilon;
        }
        let curve = gaussian(2.0);
        assert!(curve.epsilon(delta(1e-9)).epsilon > curve.epsilon(delta(1e-3)).epsilon);
        assert_eq!(gaussian(1.0).compose(4), gaussian(0.5));
    }

    #[test]
    fn many_wide_shares_cost_what_one_gaussian_costs() {
        let share = Variance::new(1_000).unwrap();
        let rho = distributed_discrete_gaussian_rho(40_000, share, 10, 650);
        assert!((rho - 40_000.0 / (2.0 * 10_000.0)).abs() < 1e-12);
        assert_eq!(distributed_discrete_gaussian_rho(1, share, 0, 1), f64::INFINITY);
    }

    #[test]
    fn the_sum_of_narrow_shares_is_bounded() {
        // The Rényi divergence of the true convolution, which τ has to cover: the theorem, checked numerically.
        for (variance, honest, shift) in [(1, 2, 1), (1, 3, 2), (1, 8, 1), (2, 2, 3), (3, 4, 5)] {
            let sum = convolution(variance, honest);
            let at = |x: i64| usize::try_from(x).ok().and_then(|x| sum.get(x)).copied().unwrap_or(0.0);
            let share = Variance::new(variance).unwrap();
            let rho = distributed_discrete_gaussian_rho((shift * shift) as u64, share, honest, 1);
            for order in [1.01, 1.5, 2.0, 4.0, 8.0] {
                let moment: f64 = (0..sum.len() as i64)
                    .filter(|&x| at(x) > 1e-30 && at(x + shift) > 1e-30)
                    .map(|x| at(x).powf(order) * at(x + shift).powf(1.0 - order))
                    .sum();
                let divergence = moment.ln() / (order - 1.0);
                let bound = order * rho;
                assert!(
                    divergence <= bound + 1e-9,
                    "σ² = {variance}, h = {honest}, α = {order}: {divergence} > {bound}"
                );
                assert!(
                    divergence
                        > 0.8 * order * (shift * shift) as f64 / (2 * u64::from(honest) * variance) as f64
                );
            }
        }
    }

    /// Probabilities of the sum of `honest` discrete Gaussians, over a window that leaves out a negligible part.
    fn convolution(variance: u64, honest: u32) -> Vec<f64> {
        let reach = 40i64;
        let weights: Vec<f64> =
            (-reach..=reach).map(|x| (-((x * x) as f64) / (2 * variance) as f64).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..honest).fold(vec![1.0], |sum, _| {
            let mut next = vec![0.0; sum.len() + weights.len() - 1];
            for (i, p) in sum.iter().enumerate() {
                for (j, w) in weights.iter().enumerate() {
                    next[i + j] += p * w / total;
                }
            }
            next
        })
    }
}
