//! Rényi differential privacy on a fixed grid of orders.
//!
//! A curve holds, for each order α, a bound on the Rényi divergence between the outputs for neighbouring inputs. Curves
//! add up under composition (adaptive too) and are turned into (ε, δ) once, at the end, by
//! ε = r + ln(1 − 1/α) − ln(δα)/(α − 1) (Canonne, Kamath, Steinke 2020), minimised over the orders.
//! Any single order is a valid bound, so the grid only costs tightness.

use crate::{Delta, NoiseMultiplier};

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
        Self::on_default_orders(|order| order * rho)
    }

    /// The curve of one continuous Gaussian mechanism: zCDP with ρ = 1/2z².
    pub fn gaussian(noise_multiplier: NoiseMultiplier) -> Self {
        Self::from_zcdp(0.5 / noise_multiplier.get().powi(2))
    }

    /// The curve of `n` mechanisms with this curve, on the same data, one after the other.
    pub fn compose(&self, n: u32) -> Self {
        Self::from_zcdp(0.0).plus(self, u64::from(n))
    }

    /// This curve and, on the same data, `rounds` mechanisms with the other.
    pub fn plus(&self, other: &Self, rounds: u64) -> Self {
        let other = other.points.iter().map(|p| if rounds == 0 { 0.0 } else { p.divergence * rounds as f64 });
        let sum = |(p, more): (&Point, f64)| Point { divergence: p.divergence + more, ..*p };
        Self { points: self.points.iter().zip(other).map(sum).collect() }
    }

    /// The least ε at this δ over all orders.
    pub fn epsilon(&self, delta: Delta) -> EpsilonAtOrder {
        self.points
            .iter()
            .map(|point| EpsilonAtOrder { epsilon: point.epsilon(delta.get()), order: point.order })
            .min_by(|a, b| a.epsilon.total_cmp(&b.epsilon))
            .expect("the grid of orders is not empty")
    }

    /// The curve of a mechanism whose divergence is known at every order. Orders are asked for in rising sequence.
    pub(crate) fn on_default_orders(divergence: impl FnMut(f64) -> f64) -> Self {
        Self::on(orders(), divergence)
    }

    /// The curve with each divergence replaced, given its order and itself. Orders come in rising sequence.
    pub(super) fn map(&self, mut divergence: impl FnMut(f64, f64) -> f64) -> Self {
        let replaced = |p: &Point| Point { divergence: divergence(p.order, p.divergence), ..*p };
        Self { points: self.points.iter().map(replaced).collect() }
    }

    /// A bound at any order: (α − 1)·divergence is convex and 0 at α = 1, so it lies below the chord of its neighbours.
    pub(super) fn divergence_by_chord(&self, order: f64) -> f64 {
        let above = self.points.partition_point(|point| point.order < order - 1e-9);
        let Some(high) = self.points.get(above) else { return f64::INFINITY };
        if high.order < order + 1e-9 {
            return high.divergence;
        }
        let cumulant = |point: &Point| (point.order - 1.0) * point.divergence;
        let (low, low_cumulant) = if above == 0 {
            (1.0, 0.0)
        } else {
            (self.points[above - 1].order, cumulant(&self.points[above - 1]))
        };
        let share = (order - low) / (high.order - low);
        ((1.0 - share) * low_cumulant + share * cumulant(high)) / (order - 1.0)
    }

    /// The points: order and divergence, by rising order.
    pub(crate) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().map(|point| (point.order, point.divergence))
    }

    #[cfg(test)]
    pub(super) fn divergence_at(&self, order: f64) -> f64 {
        let at = self.points.iter().find(|point| (point.order - order).abs() < 1e-9);
        at.expect("the order is on the grid").divergence
    }

    fn on(orders: impl Iterator<Item = f64>, mut divergence: impl FnMut(f64) -> f64) -> Self {
        Self { points: orders.map(|order| Point { order, divergence: divergence(order) }).collect() }
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

/// A bound at an order from bounds on (α − 1)·divergence at whole orders from 2 on: it is convex in α and 0 at α = 1, so
/// that its chords are bounds.
pub(super) fn between_whole_orders(order: f64, cumulant: impl Fn(f64) -> f64) -> f64 {
    let above = order - order.floor();
    let chord = if order < 2.0 {
        above * cumulant(2.0)
    } else if above < 1e-9 {
        cumulant(order.floor())
    } else {
        (1.0 - above) * cumulant(order.floor()) + above * cumulant(order.ceil())
    };
    chord / (order - 1.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingRate;
    use crate::accounting::{Neighbours, Release, Sampling, moments::Moments, vectors::Vectors};

    fn delta(value: f64) -> Delta {
        Delta::new(value).unwrap()
    }

    fn gaussian(sigma: f64) -> RdpCurve {
        RdpCurve::gaussian(NoiseMultiplier::new(sigma).unwrap())
    }

    /// The orders on which dp-accounting looks for its ε.
    fn dp_accounting_orders() -> impl Iterator<Item = f64> {
        let tenths = (1..100).map(|i| 1.0 + f64::from(i) / 10.0);
        tenths.chain((11..64).map(f64::from)).chain([128.0, 256.0, 512.0, 1024.0])
    }

    fn poisson(q: f64, sigma: f64) -> Release {
        let sampling = Sampling::Poisson(SamplingRate::new(q).unwrap());
        Release::new(Neighbours::AddRemove, sampling, sigma).unwrap()
    }

    /// The series of Mironov, Talwar and Zhang 2019, section 3.3, for a fractional order: an alternating one. With
    /// `all_positive` its terms are added without their signs, which is what dp-accounting does: an upper bound.
    fn series(q: f64, sigma: f64, order: f64, all_positive: bool) -> Option<f64> {
        let variance = sigma * sigma;
        let middle = variance * (1.0 / q - 1.0).ln() + 0.5;
        // Φ(x), in logarithms.
        let ln_normal = |x: f64| {
            let tail = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
            if tail > 1e-290 {
                return tail.ln();
            }
            let z = 1.0 / (x * x);
            let series = 1.0 - z * (1.0 - z * (3.0 - z * (15.0 - z * 105.0)));
            -0.5 * x * x - 0.5 * (2.0 * std::f64::consts::PI / z).ln() + series.ln()
        };
        // About the logarithm of the largest term.
        let scale = (order * (order - 1.0) / (2.0 * variance) + order * q.ln()).max(0.0);
        let (mut total, mut before) = (0.0, f64::INFINITY);
        for k in 0..1_000 {
            let i = f64::from(k);
            let (ln_denominator, sign) = libm::lgamma_r(order - i + 1.0);
            let ln_binomial = libm::lgamma(order + 1.0) - libm::lgamma(i + 1.0) - ln_denominator;
            let half = |power: f64, ln_low: f64, ln_high: f64, edge: f64| {
                (ln_binomial
                    + power * ln_low
                    + (order - power) * ln_high
                    + power * (power - 1.0) / (2.0 * variance)
                    + ln_normal(edge / sigma)
                    - scale)
                    .exp()
            };
            let low = half(i, q.ln(), (-q).ln_1p(), middle - i);
            let high = half(order - i, q.ln(), (-q).ln_1p(), order - i - middle);
            let sign = if all_positive { 1.0 } else { f64::from(sign) };
            total += sign * (low + high);
            let largest = low.max(high);
            if largest < before && largest < total * (-30f64).exp() {
                return Some((scale + total.ln()) / (order - 1.0));
            }
            before = largest;
        }
        None
    }

    /// What dp-accounting computes at an order.
    fn dp_accounting_divergence(q: f64, sigma: f64, order: f64, moments: &mut Moments) -> f64 {
        let whole = (order - order.round()).abs() < 1e-9;
        if whole || q == 1.0 {
            moments.divergence(order)
        } else {
            series(q, sigma, order, true).unwrap_or(f64::INFINITY)
        }
    }

    #[test]
    fn divergences_agree_with_dp_accounting() {
        let (mut compared, mut refuted) = (0, 0);
        for row in Vectors::load().rdp_points {
            let mut moments = Moments::new(poisson(row.q, row.sigma));
            for (&order, expected) in row.orders.iter().zip(&row.rdp) {
                let ours = moments.divergence(order);
                let at = format!("q = {}, σ = {}, α = {order}: {ours}, not {expected:?}", row.q, row.sigma);
                let theirs = dp_accounting_divergence(row.q, row.sigma, order, &mut moments);
                // Their moment is 1 and something, summed with 52 bits.
                let close = |x: f64, y: f64| (x - y).abs() < 1e-6 * y + 2e-15 / (order - 1.0);
                match *expected {
                    Some(expected) => assert!(close(theirs, expected), "{at}"),
                    None => assert_eq!(theirs, f64::INFINITY, "{at}"),
                }
                assert!(ours <= theirs || close(ours, theirs), "{at}");
                compared += 1;
                if !close(ours, theirs) {
                    refuted += 1;
                    // Where the series converges, its terms with their signs give our number.
                    if let Some(signed) = series(row.q, row.sigma, order, false) {
                        assert!(close(ours, signed), "{at}, signed {signed}");
                    }
                }
            }
        }
        assert_eq!((compared, refuted), (180, 28));
    }

    #[test]
    fn epsilons_agree_with_dp_accounting_on_its_orders() {
        assert_eq!(dp_accounting_orders().count(), 156);
        let mut largest_gain = 0.0f64;
        for row in Vectors::load().gaussian_subsampled {
            let mut moments = Moments::new(poisson(row.q, row.sigma));
            let epsilon = |one: &RdpCurve| {
                let nothing = RdpCurve::on(dp_accounting_orders(), |_| 0.0);
                nothing.plus(one, u64::from(row.rounds)).epsilon(delta(row.delta))
            };
            let ours = epsilon(&RdpCurve::on(dp_accounting_orders(), |order| moments.divergence(order)));
            let theirs = epsilon(&RdpCurve::on(dp_accounting_orders(), |order| {
                dp_accounting_divergence(row.q, row.sigma, order, &mut moments)
            }));
            assert!((theirs.epsilon / row.eps_rdp - 1.0).abs() < 1e-6, "{}: {theirs:?}", row.name());
            assert!((theirs.order - row.order).abs() < 1e-9, "{}: {theirs:?}", row.name());
            assert!(ours.epsilon <= row.eps_rdp * (1.0 + 1e-6), "{}: {ours:?}", row.name());
            largest_gain = largest_gain.max(1.0 - ours.epsilon / row.eps_rdp);
        }
        // 43 % at q = 0.1, where half of all rounds' loss was the signs.
        assert!(largest_gain > 0.4 && largest_gain < 0.45, "{largest_gain}");
    }

    #[test]
    fn default_epsilons_are_between_the_tight_ones_and_those_of_dp_accounting() {
        for row in Vectors::load().gaussian_subsampled {
            let curve =
                RdpCurve::from_zcdp(0.0).plus(&poisson(row.q, row.sigma).rdp(), u64::from(row.rounds));
            let ours = curve.epsilon(delta(row.delta)).epsilon;
            assert!(ours <= row.eps_rdp * (1.0 + 1e-6), "{}: {ours} above {}", row.name(), row.eps_rdp);
            if let Some(tight) = row.eps_pld {
                assert!(ours >= tight * (1.0 - 1e-6), "{}: {ours} below the tight {tight}", row.name());
            }
        }
    }

    #[test]
    fn no_epsilon_is_below_the_exact_one() {
        for row in Vectors::load().analytic_gaussian {
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
}
