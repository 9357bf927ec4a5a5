//! Privacy loss distributions, composed by Fourier transform: a bracket that the exact ε lies in.
//!
//! One round's loss L = ln(P/Q) under P is put on a grid of step h twice. *Pessimistic*: the mass of each cell is split
//! over both its ends so that its probability under P and under Q is kept ("connect the dots", Doroshenko, Ghazi, Kamath,
//! Kumar, Manurangsi 2022); the result dominates the round. *Optimistic*: outcomes are merged into bins around the grid
//! points, which only loses information, and each bin's loss is rounded down. The sum of
//! losses over all rounds is composed for each. The upper end is second order in h, and h is refined until it stays.
//!
//! Composition is done on the tilted distribution ∝ e^{λL}, with λ the saddle point of the tail in question. Tilting
//! makes δ a sum of typical terms, however small it is, so neither the transform's rounding nor its wrapping around
//! drown it: an error η of the tilted distribution is an error of at most η·E[e^{λL}]ⁿ·e^{−λε} of δ, and this is added
//! (or taken away) where δ is read. η is the sum of
//! - what lies outside of the transform's window, by Chernoff's bound on either side, and
//! - rounding in the transform and the power, by the usual bound: units in the last place × rounds × √length × log length.
//!
//! A single round, and Gaussian rounds without sampling (which make one), need no grid: their δ is a closed form.

use super::{
    Part, Release,
    grid::{Direction, Grid, Loss, Rounds},
    pair::Pair,
};
use realfft::{RealFftPlanner, num_complex::Complex64};

/// An interval that holds the exact value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket {
    /// No more than the exact value.
    pub lower: f64,
    /// No less than the exact value: the bound to rely on. May be infinite.
    pub upper: f64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Query {
    /// The least ε at this δ.
    EpsilonAt { delta: f64 },
    /// The least δ at this ε.
    DeltaAt { epsilon: f64 },
}

/// Which ends of the bracket are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Both,
    /// The lower end is 0.
    Upper,
}

/// The answer for all rounds together.
pub(super) fn solve(parts: &[Part], query: Query, ends: Ends) -> Bracket {
    let parts = merge_gaussians(parts);
    if parts.is_empty() {
        return Bracket { lower: 0.0, upper: 0.0 };
    }
    // Under add-remove the client is either there or not, for all rounds alike.
    let both = parts.iter().any(|part| matches!(part.release, Release::AddRemove { .. }));
    let directions = if both { vec![Direction::Remove, Direction::Add] } else { vec![Direction::Remove] };
    directions.into_iter().fold(Bracket { lower: 0.0, upper: 0.0 }, |worst, direction| {
        let rounds: Vec<Rounds> = parts
            .iter()
            .map(|part| Rounds { loss: Loss::new(part.release, direction), count: part.rounds })
            .collect();
        let found = match rounds[..] {
            [Rounds { loss, count: 1 }] => exact(loss.above_zero(), query),
            _ => compose(&rounds, query, ends, worst.upper),
        };
        Bracket { lower: worst.lower.max(found.lower), upper: worst.upper.max(found.upper) }
    })
}

/// Gaussians compose to one whose inverse variance is the sum of theirs.
fn merge_gaussians(parts: &[Part]) -> Vec<Part> {
    let (mut merged, mut precision) = (Vec::new(), 0.0);
    for part in parts {
        match part.release {
            Release::Gaussian { sigma } => precision += part.rounds as f64 / (sigma * sigma),
            _ => merged.push(*part),
        }
    }
    if precision > 0.0 {
        // The error of the sum is far below that of the slack in `exact`.
        merged.push(Part { release: Release::Gaussian { sigma: 1.0 / f64::sqrt(precision) }, rounds: 1 });
    }
    merged
}

/// The answer for one round.
fn exact(pair: Pair, query: Query) -> Bracket {
    match query {
        Query::DeltaAt { epsilon } => {
            let (delta, error) = pair.delta(epsilon);
            Bracket { lower: (delta - error).max(0.0), upper: (delta + error).min(1.0) }
        }
        Query::EpsilonAt { delta } => {
            let upper = least(|epsilon| {
                let (at, error) = pair.delta(epsilon);
                at + error <= delta
            });
            let lower = least(|epsilon| {
                let (at, error) = pair.delta(epsilon);
                at - error <= delta
            });
            Bracket { lower: lower * (1.0 - 1e-12), upper }
        }
    }
}

/// The least number from 0 on for which `holds`, a condition that goes on to hold, rounded up; infinite if there is none.
fn least(holds: impl Fn(f64) -> bool) -> f64 {
    if holds(0.0) {
        return 0.0;
    }
    let Some(mut high) = (-60..64).map(|power| 2f64.powi(power)).find(|&x| holds(x)) else {
        return f64::INFINITY;
    };
    let mut low = 0.0;
    while high - low > high * 1e-13 {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// The answer for many rounds. An upper end at or below `known` is not worth refining.
fn compose(rounds: &[Rounds], query: Query, ends: Ends, known: f64) -> Bracket {
    if let Query::EpsilonAt { delta } = query {
        // Total variation adds up: where all of it is within δ there is nothing to compose.
        let variation = rounds.iter().map(|r| {
            let (delta, error) = r.loss.above_zero().delta(0.0);
            (delta + error) * r.count as f64
        });
        if variation.sum::<f64>() <= delta {
            return Bracket { lower: 0.0, upper: 0.0 };
        }
    }
    let total: f64 = rounds.iter().map(|r| r.count as f64).sum();
    let smallest = match query {
        Query::EpsilonAt { delta } => delta * 1e-12,
        Query::DeltaAt { .. } => 1e-40,
    };
    // N(0) is further out than this with probability below `smallest`, in all rounds together.
    let beyond = (2.0 * (total / smallest).ln()).sqrt();
    let ranges: Vec<(f64, f64)> = rounds.iter().map(|r| r.loss.extreme_losses(beyond)).collect();
    let width: f64 = ranges.iter().map(|(low, high)| high - low).sum();
    let mut planner = RealFftPlanner::new();
    let mut step = width / FIRST_CELLS;
    let finest = width / MAX_CELLS;
    let mut upper = match query {
        // Beyond the sum of the ranges there is less than a millionth of δ.
        Query::EpsilonAt { .. } => {
            rounds.iter().zip(&ranges).map(|(r, range)| r.count as f64 * range.1).sum()
        }
        Query::DeltaAt { .. } => 1.0,
    };
    let mut tilted = None;
    for _ in 0..MAX_REFINEMENTS {
        if upper <= known {
            break;
        }
        let pessimistic = Grid::all(rounds, &ranges, step, Grid::pessimistic);
        let tilt = if let Some(tilt) = tilted {
            tilt
        } else {
            let tilt = tilt(&pessimistic, query);
            let spread = (Cumulants::of(&pessimistic, tilt).variance / total).sqrt();
            let wanted = (FIRST_STEP * spread).max(finest);
            if step > 1.5 * wanted {
                step = wanted;
                continue;
            }
            *tilted.insert(tilt)
        };
        let before = upper;
        upper = upper.min(Composed::new(&pessimistic, tilt, &mut planner).at_most(query));
        // The error falls with the square of the step: halving it moved the bound by three times what is left.
        if before - upper <= TOLERANCE * upper || step <= finest {
            if ends == Ends::Upper {
                return Bracket { lower: 0.0, upper };
            }
            // Rounding down is of first order in the step where one step holds much of a round.
            let step = (step / 4.0).max(finest);
            let optimistic = Grid::all(rounds, &ranges, step, Grid::optimistic);
            let lower = Composed::new(&optimistic, tilt, &mut planner).at_least(query);
            return Bracket { lower: lower.min(upper), upper };
        }
        step = (step / 2.0).max(finest);
    }
    Bracket { lower: 0.0, upper }
}

/// Λ(λ) = ln E[e^{λL}; L < ∞] of all rounds' sum, and its first two derivatives.
#[derive(Clone, Copy, Default)]
struct Cumulants {
    ln_moment: f64,
    mean: f64,
    variance: f64,
}

impl Cumulants {
    fn of(grids: &[Grid], tilt: f64) -> Self {
        let mut sum = Self::default();
        for grid in grids {
            let rounds = grid.rounds as f64;
            let one = Self::of_one(grid, tilt);
            sum.ln_moment += rounds * one.ln_moment;
            sum.mean += rounds * one.mean;
            sum.variance += rounds * one.variance;
        }
        sum
    }

    fn of_one(grid: &Grid, tilt: f64) -> Self {
        let rate = tilt * grid.step;
        let exponent = |(k, ln_mass): (i64, &f64)| ln_mass + rate * k as f64;
        let points = || (grid.first..).zip(&grid.ln_masses);
        let largest = points().map(exponent).fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for point in points() {
            let weight = (exponent(point) - largest).exp();
            let loss = point.0 as f64 * grid.step;
            sum += weight;
            first += weight * loss;
            second += weight * loss * loss;
        }
        let mean = first / sum;
        Self { ln_moment: largest + sum.ln(), mean, variance: (second / sum - mean * mean).max(0.0) }
    }
}

/// The tilt at which the sum is composed: below the saddle point, where tails that are heavy beyond it are still light.
/// What that costs in the error of δ is a factor of about e³.
fn tilt(grids: &[Grid], query: Query) -> f64 {
    let saddle = saddle_point(grids, query);
    let at = Cumulants::of(grids, saddle);
    let ln_delta = (at.ln_moment - saddle * at.mean).min(-12.0);
    saddle * (1.0 - (3.0 / -ln_delta).sqrt())
}

/// The tilt that centres the sum of losses where the answer is, to a tenth.
fn saddle_point(grids: &[Grid], query: Query) -> f64 {
    let too_small = |tilt: f64| {
        let at = Cumulants::of(grids, tilt);
        match query {
            // The best Chernoff bound on δ at ε = Λ′ is e^{Λ − λΛ′}.
            Query::EpsilonAt { delta } => at.ln_moment - tilt * at.mean > delta.ln(),
            Query::DeltaAt { epsilon } => at.mean < epsilon,
        }
    };
    let mut tilt = 1.0;
    if too_small(tilt) {
        while tilt < 1e9 && too_small(2.0 * tilt) {
            tilt *= 2.0;
        }
    } else {
        while tilt > 1e-9 && !too_small(tilt) {
            tilt /= 2.0;
        }
    }
    // It is between `tilt` and twice that.
    for factor in [1.41, 1.19, 1.09] {
        if too_small(tilt * factor) {
            tilt *= factor;
        }
    }
    tilt
}

/// The sum of all rounds' losses, tilted.
struct Composed {
    step: f64,
    /// Loss of the first point.
    start: f64,
    /// Tilted probabilities.
    masses: Vec<f64>,
    tilt: f64,
    ln_moment: f64,
    /// Probability that some round's loss is infinite.
    infinite: f64,
    /// A bound on the error of all tilted probabilities together.
    error: f64,
    /// A bound on the relative error of every probability of the grids, over all rounds.
    relative: f64,
}

impl Composed {
    fn new(grids: &[Grid], tilt: f64, planner: &mut RealFftPlanner<f64>) -> Self {
        let step = grids[0].step;
        let at = Cumulants::of(grids, tilt);
        let rounds: f64 = grids.iter().map(|grid| grid.rounds as f64).sum();
        let (start, end) = window(grids, tilt, &at);
        let start = (start / step).floor();
        let needed = (end / step).ceil() - start + 1.0;
        let length = transform_length(needed.min(MAX_LENGTH) as usize);
        let covered = length as f64 >= needed;

        let forward = planner.plan_fft_forward(length);
        let inverse = planner.plan_fft_inverse(length);
        let mut product = vec![Complex64::new(1.0, 0.0); length / 2 + 1];
        let mut wrapped = forward.make_input_vec();
        let mut spectrum = forward.make_output_vec();
        // Grid points modulo the length; the sum then comes out modulo the length too.
        for grid in grids {
            let one = Cumulants::of_one(grid, tilt);
            wrapped.fill(0.0);
            for (k, ln_mass) in (grid.first..).zip(&grid.ln_masses) {
                let at = k.rem_euclid(length as i64) as usize;
                wrapped[at] += (ln_mass + tilt * step * k as f64 - one.ln_moment).exp();
            }
            forward.process(&mut wrapped, &mut spectrum).expect("the lengths are those of the plan");
            for (product, factor) in product.iter_mut().zip(&spectrum) {
                *product *= power(*factor, grid.rounds);
            }
        }
        // Both are sums of real numbers.
        product[0].im = 0.0;
        product[length / 2].im = 0.0;
        let mut sum = inverse.make_output_vec();
        inverse.process(&mut product, &mut sum).expect("the lengths are those of the plan");
        sum.rotate_left((start as i64).rem_euclid(length as i64) as usize);
        let scale = 1.0 / length as f64;
        let masses = sum.into_iter().map(|mass| (mass * scale).max(0.0)).collect();

        let unit = f64::EPSILON * (8.0 * (length as f64).log2()) * (length as f64).sqrt();
        let infinite = grids.iter().map(|grid| grid.infinite * grid.rounds as f64).sum();
        Self {
            step,
            start: start * step,
            masses,
            tilt,
            ln_moment: at.ln_moment,
            infinite,
            error: unit * rounds + if covered { 2.0 * OUTSIDE } else { 1.0 },
            relative: (1e-11 * rounds).min(0.5),
        }
    }

    /// How far `delta` may be from the δ of the grids.
    fn slack(&self, epsilon: f64) -> f64 {
        (self.ln_moment - self.tilt * epsilon).exp() * self.error + self.delta(epsilon) * self.relative
    }

    /// E[(1 − e^{ε − L})⁺], finite losses only.
    fn delta(&self, epsilon: f64) -> f64 {
        let points = self.masses.iter().enumerate().rev();
        let loss = |k: usize| self.start + self.step * k as f64;
        points
            .take_while(|&(k, _)| loss(k) > epsilon)
            .map(|(k, mass)| {
                mass * (self.ln_moment - self.tilt * loss(k)).exp() * -(epsilon - loss(k)).exp_m1()
            })
            .sum()
    }

    /// The answer with every error against us.
    fn at_most(&self, query: Query) -> f64 {
        match query {
            Query::EpsilonAt { delta } => self.epsilon_at_most(delta),
            Query::DeltaAt { epsilon } => {
                (self.delta(epsilon) + self.infinite + self.slack(epsilon)).min(1.0)
            }
        }
    }

    /// The answer with every error in our favour.
    fn at_least(&self, query: Query) -> f64 {
        match query {
            // An ε whose δ is at least this one; 0 if there is none.
            Query::EpsilonAt { delta } => self.crossing(delta * (1.0 + self.relative), 1.0),
            Query::DeltaAt { epsilon } => (self.delta(epsilon) - self.slack(epsilon)).max(0.0),
        }
    }

    fn epsilon_at_most(&self, delta: f64) -> f64 {
        let target = delta * (1.0 - self.relative) - self.infinite;
        if target <= 0.0 {
            return f64::INFINITY;
        }
        self.crossing(target, -1.0)
    }

    /// Where δ(ε) crosses `target` ± the transform's error, coming from large ε.
    fn crossing(&self, target: f64, sign: f64) -> f64 {
        let aim = |epsilon: f64| target + sign * self.error * (self.ln_moment - self.tilt * epsilon).exp();
        let top = self.start + self.step * (self.masses.len() - 1) as f64;
        if aim(top) <= 0.0 {
            // The error alone is above the target as far as the masses reach, and falls at the rate of the tilt.
            return ((self.ln_moment + (self.error / target).ln()) / self.tilt).max(0.0);
        }
        let decay = (-self.step).exp();
        // At the loss of point k: δ there, and Σ aⱼ·e^{−(j − k)h} over the points above it.
        let (mut delta, mut discounted) = (0.0, 0.0);
        for (k, mass) in self.masses.iter().enumerate().rev() {
            let loss = self.start + self.step * k as f64;
            if loss <= 0.0 {
                break;
            }
            discounted += mass * (self.ln_moment - self.tilt * loss).exp();
            // One point further down it is δ + (1 − e^{−h})·Σ, and in between δ + (1 − e^{−x})·Σ.
            let goal = aim(loss - self.step);
            if delta + (1.0 - decay) * discounted > goal {
                let x = -(-((goal - delta) / discounted).max(0.0)).ln_1p();
                return (loss - x.min(self.step)).max(0.0);
            }
            delta += (1.0 - decay) * discounted;
            discounted *= decay;
        }
        // The last points are below 0, or the window is all above it.
        let loss = self.start;
        if loss > 0.0 && delta + -(-loss).exp_m1() * discounted > aim(0.0) { loss } else { 0.0 }
    }
}

/// Losses outside of which the tilted sum lies with probability at most 2·OUTSIDE, by Chernoff's bound.
fn window(grids: &[Grid], tilt: f64, at: &Cumulants) -> (f64, f64) {
    let rounds = |grid: &Grid| grid.rounds as f64 * grid.step;
    let lowest: f64 = grids.iter().map(|grid| rounds(grid) * grid.first as f64).sum();
    let highest: f64 = grids.iter().map(|grid| rounds(grid) * grid.last() as f64).sum();
    let surprise = -OUTSIDE.ln();
    let natural = (2.0 * surprise / at.variance.max(1e-300)).sqrt();
    let (mut start, mut end) = (lowest, highest);
    let shifts = [0.25, 0.5, 1.0].map(|factor| factor * natural);
    // Up to the saddle point moments are moderate whatever the tail.
    for shift in shifts.into_iter().chain([0.25, 0.5, 1.0].map(|factor| factor * tilt)) {
        let growth = |tilt: f64| Cumulants::of(grids, tilt).ln_moment - at.ln_moment;
        end = end.min((growth(tilt + shift) + surprise) / shift);
        start = start.max(-(growth(tilt - shift) + surprise) / shift);
    }
    (start, end.max(start))
}

/// The least even number from `needed` on that has no prime factor above 5.
fn transform_length(needed: usize) -> usize {
    let smooth = |n: usize| {
        let rest = [2, 3, 5].into_iter().fold(n, |mut rest, prime| {
            while rest.is_multiple_of(prime) {
                rest /= prime;
            }
            rest
        });
        rest == 1
    };
    let half = needed.max(16).div_ceil(2);
    // A power of two is among them.
    2 * (half..=half.next_power_of_two()).find(|&n| smooth(n)).expect("powers of two are smooth")
}

fn power(mut base: Complex64, mut exponent: u64) -> Complex64 {
    let mut product = Complex64::new(1.0, 0.0);
    while exponent > 0 {
        if exponent % 2 == 1 {
            product *= base;
        }
        base *= base;
        exponent /= 2;
    }
    product
}

/// The relative change of the upper bound at which refinement ends.
const TOLERANCE: f64 = 3e-4;

/// Cells of the grid from which the saddle point is estimated first.
const FIRST_CELLS: f64 = 1_024.0;

/// The step of the first grid that is composed, over one round's tilted standard deviation.
const FIRST_STEP: f64 = 0.05;

/// Bound memory and time; a bracket that needs more stays wide.
const MAX_CELLS: f64 = (1u64 << 20) as f64;
const MAX_LENGTH: f64 = (1u64 << 21) as f64;
const MAX_REFINEMENTS: usize = 12;

/// The tilted probability that may lie outside of the window, on either side.
const OUTSIDE: f64 = 1e-11;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::{Composition, Neighbours, Sampling, vectors::Vectors};
    use crate::{Delta, Epsilon, NoiseMultiplier, SamplingRate};

    fn rounds(neighbours: Neighbours, rate: f64, sigma: f64, count: u32) -> Composition {
        let sampling = Sampling::Poisson(SamplingRate::new(rate).unwrap());
        Composition::new(neighbours).then(sampling, NoiseMultiplier::new(sigma).unwrap(), count).unwrap()
    }

    fn epsilon(rounds: &Composition, delta: f64) -> Bracket {
        rounds.epsilon(Delta::new(delta).unwrap())
    }

    #[test]
    fn epsilons_agree_with_dp_accounting() {
        let (mut compared, mut widest) = (0, 0.0f64);
        for row in Vectors::load().gaussian_subsampled {
            let Some(expected) = row.eps_pld else { continue };
            let ours = epsilon(&rounds(Neighbours::AddRemove, row.q, row.sigma, row.rounds), row.delta);
            let name = format!("{}: {ours:?}, not {expected}", row.name());
            assert!(ours.lower <= ours.upper && ours.lower <= expected, "{name}");
            assert!(ours.upper <= expected * (1.0 + 1e-3), "{name}");
            assert!(ours.upper <= row.eps_rdp, "{name}: above RDP's {}", row.eps_rdp);
            widest = widest.max(1.0 - ours.lower / ours.upper);
            compared += 1;
        }
        assert_eq!(compared, 84);
        // The optimistic end is the wide one: where one step holds much of a round, its losses are all rounded down.
        assert!(widest < 0.04, "{widest}");
    }

    #[test]
    fn published_numbers() {
        // dp-accounting 0.6.0, and the interval of prv-accountant 0.2.0 where there is one.
        for (rate, sigma, count, delta, expected, prv) in [
            (256.0 / 60_000.0, 1.1, 14_062, 1e-5, 2.381_686, Some((2.371_46, 2.391_74))),
            (0.01, 0.8, 1_000, 1e-5, 3.141_018, Some((3.130_77, 3.151_26))),
            (0.004, 1.0, 10_000, 1e-5, 2.182_259, Some((2.172_06, 2.192_33))),
            (100.0 / 3_400.0, 1.0, 1_500, 1.0 / 3_400.0, 5.968_428, Some((5.957_95, 5.978_91))),
            (1e-3, 0.6, 1_500, 1e-6, 2.248_561, Some((2.238_26, 2.258_86))),
            (0.01, 4.0, 10_000, 1e-5, 0.946_999, Some((0.936_81, 0.956_94))),
            (1.0, 10.0, 100, 1e-5, 4.377_179, None),
            (1.0, 4.0, 1, 1e-5, 0.926_342, None),
        ] {
            let ours = epsilon(&rounds(Neighbours::AddRemove, rate, sigma, count), delta);
            assert!((ours.upper / expected - 1.0).abs() < 2e-4, "{ours:?}, not {expected}");
            if let Some((low, high)) = prv {
                assert!(low <= ours.upper && ours.upper <= high && ours.lower <= high, "{ours:?}");
            }
        }
        for (sigma, count, expected) in [(2.0, 1_000, 1.205_210), (4.0, 10_000, 1.993_120)] {
            // The second is that of DPBayes' Fourier accountant, for substitution.
            let ours = epsilon(&rounds(Neighbours::ReplaceOne, 0.01, sigma, count), 1e-5);
            assert!((ours.upper / expected - 1.0).abs() < 1e-4, "{ours:?}, not {expected}");
        }
    }

    #[test]
    fn published_deltas() {
        // DPBayes' accountant, and Google's own test (to five digits).
        for (rate, sigma, count, expected, tolerance) in
            [(0.01, 4.0, 10_000, 4.243_484e-6, 1e-3), (0.2, 0.5, 3, 0.155_94, 1e-3)]
        {
            let ours = rounds(Neighbours::AddRemove, rate, sigma, count).delta(Epsilon::new(1.0).unwrap());
            assert!((ours.upper / expected - 1.0).abs() < tolerance, "{ours:?}, not {expected}");
            assert!(ours.lower <= ours.upper && ours.lower > 0.8 * expected, "{ours:?}");
        }
    }

    #[test]
    fn many_gaussians_on_the_grid_are_one_gaussian() {
        // Compose what has a closed form, without using it.
        for (sigma, count, delta) in [(2.0, 3, 1e-5), (20.0, 400, 1e-9), (0.5, 10, 1e-3), (1e3, 7, 1e-4)] {
            let loss = Loss::Of(Pair::Gaussian { sigma });
            let exact = epsilon(&rounds(Neighbours::AddRemove, 1.0, sigma, count), delta);
            let grid = compose(
                &[Rounds { loss, count: u64::from(count) }],
                Query::EpsilonAt { delta },
                Ends::Both,
                0.0,
            );
            assert!(grid.lower <= exact.upper && exact.lower <= grid.upper, "{grid:?}, {exact:?}");
            assert!(grid.upper <= exact.upper * 1.000_3 + 1e-12, "{grid:?}, {exact:?}");
            let epsilon = exact.upper;
            let back = compose(
                &[Rounds { loss, count: u64::from(count) }],
                Query::DeltaAt { epsilon },
                Ends::Both,
                0.0,
            );
            assert!(back.lower <= delta && back.upper >= delta * (1.0 - 1e-9), "{back:?}, {delta}");
        }
    }

    #[test]
    fn small_deltas_keep_their_digits() {
        for delta in [1e-12, 1e-30, 1e-100] {
            let loss = Loss::Of(Pair::Gaussian { sigma: 3.0 });
            let exact = epsilon(&rounds(Neighbours::AddRemove, 1.0, 3.0, 20), delta);
            let grid = compose(&[Rounds { loss, count: 20 }], Query::EpsilonAt { delta }, Ends::Both, 0.0);
            assert!(grid.lower <= exact.upper && exact.lower <= grid.upper, "{grid:?}, {exact:?}");
            assert!(grid.upper <= exact.upper * 1.001, "{grid:?}, {exact:?}");
        }
    }

    #[test]
    fn unlike_rounds_and_fixed_sizes_stay_below_their_rdp() {
        let fixed = |cohort| Sampling::FixedSize { cohort, population: 1_000 };
        let noise = |sigma| NoiseMultiplier::new(sigma).unwrap();
        let delta = Delta::new(1e-5).unwrap();
        let mixed = Composition::new(Neighbours::ReplaceOne)
            .then(fixed(10), noise(4.0), 500)
            .and_then(|sum| sum.then(fixed(50), noise(6.0), 100))
            .and_then(|sum| sum.then(Sampling::Full, noise(40.0), 10))
            .and_then(|sum| sum.then(Sampling::Poisson(SamplingRate::new(0.02).unwrap()), noise(3.0), 50))
            .unwrap();
        let fixed_alone =
            Composition::new(Neighbours::ReplaceOne).then(fixed(10), noise(4.0), 1_000).unwrap();
        for rounds in [mixed, fixed_alone] {
            let (pld, rdp) = (rounds.epsilon(delta), rounds.rdp().epsilon(delta).epsilon);
            assert!(pld.lower <= pld.upper && pld.upper < rdp && pld.upper > 0.7 * rdp, "{pld:?}, {rdp}");
        }
    }

    #[test]
    fn the_joined_profile_is_the_larger_one() {
        // Composed twice by hand: δ(ε) = Σ P{i}·P{j}·(1 − e^{ε − i − j})⁺ on a fine grid.
        let release = Release::FixedSize { q: 0.3, sigma: 0.9 };
        let loss = Loss::new(release, Direction::Remove);
        let range = loss.extreme_losses(9.0);
        let grid = Grid::pessimistic(&Rounds { loss, count: 1 }, range, 0.01);
        let total: f64 = grid.masses.iter().sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");
        let delta = |epsilon: f64| -> f64 {
            let points = || (grid.first..).map(|k| k as f64 * 0.01).zip(&grid.masses);
            let pairs = points().flat_map(|(a, p)| points().map(move |(b, q)| (a + b, p * q)));
            pairs.filter(|(sum, _)| *sum > epsilon).map(|(sum, mass)| -mass * (epsilon - sum).exp_m1()).sum()
        };
        for epsilon in [0.0, 0.5, 2.0] {
            let ours = compose(&[Rounds { loss, count: 2 }], Query::DeltaAt { epsilon }, Ends::Both, 0.0);
            assert!(ours.upper <= delta(epsilon) * 1.001 && ours.upper > delta(epsilon) * 0.995, "{ours:?}");
        }
    }

    #[test]
    fn extremes_have_an_answer() {
        let nothing = Composition::new(Neighbours::AddRemove);
        assert_eq!(epsilon(&nothing, 1e-6), Bracket { lower: 0.0, upper: 0.0 });
        // δ covers all that sampling lets through.
        assert_eq!(epsilon(&rounds(Neighbours::AddRemove, 1e-7, 1.0, 3), 1e-5).upper, 0.0);
        for (rate, sigma, count, delta) in
            [(1.0, 1e-3, 1, 1e-6), (0.5, 0.05, 10, 1e-6), (1e-4, 1e3, 1_000_000, 1e-9), (0.01, 1.0, 2, 0.9)]
        {
            let ours = epsilon(&rounds(Neighbours::AddRemove, rate, sigma, count), delta);
            assert!(ours.lower >= 0.0 && ours.lower <= ours.upper && ours.upper.is_finite(), "{ours:?}");
            let rdp = rounds(Neighbours::AddRemove, rate, sigma, count).rdp();
            assert!(ours.lower <= rdp.epsilon(Delta::new(delta).unwrap()).epsilon, "{ours:?}");
        }
    }

    #[test]
    fn transform_lengths_are_smooth() {
        for (needed, length) in [(1, 16), (17, 18), (101, 108), (65_537, 65_610), (1 << 21, 1 << 21)] {
            assert_eq!(transform_length(needed), length);
        }
    }
}
