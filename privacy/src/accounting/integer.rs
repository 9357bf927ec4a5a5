//! Sums of integer noise shares that the clients add themselves.

use super::rdp::between_whole_orders;
use crate::{RdpCurve, Variance};

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

/// Rényi bounds of a sum that carries `honest` independent Skellam shares of variance `share` each, in `dimension`
/// coordinates, for integer inputs of squared L2 sensitivity `norm_bound_squared` (steps²).
///
/// Agarwal, Kairouz, Liu 2021, theorem 3.5: at whole orders α, with μ the variance of the sum,
/// αΔ₂²/2μ + min{((2α − 1)Δ₂² + 6Δ₁)/4μ², 3Δ₁/2μ}. Between them (α − 1)·divergence is convex in α, and its chord is the
/// bound. Skellam variables are closed under sums: nothing is lost against one central sampler, and nothing depends on
/// the dimension but Δ₁ ≤ min(√d·Δ₂, Δ₂²). Infinite where `honest` is 0.
pub fn distributed_skellam(
    norm_bound_squared: u64,
    share: Variance,
    honest: u32,
    dimension: u32,
) -> RdpCurve {
    let variance = f64::from(honest) * share.get() as f64;
    let l2_squared = norm_bound_squared as f64;
    let l1 = l2_squared.min(f64::from(dimension).sqrt() * l2_squared.sqrt());
    // (α − 1)·divergence at a whole order.
    let cumulant = |order: f64| {
        let first = ((2.0 * order - 1.0) * l2_squared + 6.0 * l1) / (4.0 * variance * variance);
        let second = 1.5 * l1 / variance;
        (order - 1.0) * (order * l2_squared / (2.0 * variance) + first.min(second))
    };
    RdpCurve::on_default_orders(|order| {
        if honest == 0 {
            return f64::INFINITY;
        }
        between_whole_orders(order, cumulant)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_skellam_bound_covers_the_exact_divergence() {
        for (variance, honest, shift) in [(1u64, 1, 1i64), (2, 2, 1), (3, 4, 2), (10, 10, 5), (50, 8, 30)] {
            let total = variance * u64::from(honest);
            let pmf = skellam(total as f64);
            let middle = (pmf.len() / 2) as i64;
            let at = |x: i64| pmf.get((middle + x) as usize).copied().unwrap_or(0.0);
            let share = Variance::new(variance).unwrap();
            let curve = distributed_skellam((shift * shift) as u64, share, honest, 1);
            for order in [1.1, 1.5, 2.0, 3.5, 8.0] {
                let moment: f64 = (-middle..=middle)
                    .filter(|&x| at(x) > 1e-300 && at(x - shift) > 1e-300)
                    .map(|x| (order * at(x).ln() + (1.0 - order) * at(x - shift).ln()).exp())
                    .sum();
                let divergence = moment.ln() / (order - 1.0);
                let bound = curve.divergence_at(order);
                let name = format!("μ = {total}, Δ = {shift}, α = {order}: {divergence}, bound {bound}");
                assert!(divergence <= bound + 1e-9, "{name}");
                // Loose by what interpolates between orders 1 and 2, and by the terms that a small μ needs.
                assert!(total < 20 || bound < divergence * 2.5, "{name}");
            }
        }
    }

    #[test]
    fn wide_skellam_noise_costs_what_a_gaussian_costs() {
        let curve = distributed_skellam(10_000, Variance::new(1 << 30).unwrap(), 10, 1 << 20);
        let gaussian = 10_000.0 / (2.0 * 10.0 * (1u64 << 30) as f64);
        for order in [2.0, 8.0, 63.0] {
            let ratio = curve.divergence_at(order) / (order * gaussian);
            assert!((1.0..1.001).contains(&ratio), "{ratio}");
        }
        let none = distributed_skellam(1, Variance::new(1).unwrap(), 0, 1);
        assert_eq!(none.divergence_at(2.0), f64::INFINITY);
    }

    /// Probabilities of −reach..=reach for the difference of two Poisson variables of half the variance each.
    fn skellam(variance: f64) -> Vec<f64> {
        let reach = 40 + (12.0 * variance.sqrt()) as usize + variance as usize;
        let mut poisson = vec![(-variance / 2.0).exp()];
        for k in 1..=2 * reach {
            poisson.push(poisson[k - 1] * variance / 2.0 / k as f64);
        }
        (0..=2 * reach)
            .map(|at| {
                let shift = at.abs_diff(reach);
                poisson.iter().zip(&poisson[shift..]).map(|(p, q)| p * q).sum()
            })
            .collect()
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
