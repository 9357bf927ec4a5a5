//! The loss of one round, put on a grid from above and from below.

use super::{Release, pair::Pair};
use std::iter::once;

#[derive(Clone, Copy)]
pub(super) enum Direction {
    Remove,
    Add,
}

/// The loss of one round in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Of(Pair),
    /// Losses above 0 of one pair, those below 0 of the other, and the rest of the probability at 0.
    Joined {
        below: Pair,
        above: Pair,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    pub(super) loss: Loss,
    pub(super) count: u64,
}

impl Loss {
    pub(super) fn new(release: Release, direction: Direction) -> Self {
        match (release, direction) {
            (Release::Gaussian { sigma }, _) => Self::Of(Pair::Gaussian { sigma }),
            (Release::AddRemove { q, sigma }, Direction::Remove) => Self::Of(Pair::Remove { q, sigma }),
            (Release::AddRemove { q, sigma }, Direction::Add) => Self::Of(Pair::Add { q, sigma }),
            (Release::ReplaceOne { q, sigma }, _) => Self::Of(Pair::Replace { q, sigma }),
            (Release::FixedSize { q, sigma }, _) => {
                Self::Joined { below: Pair::Add { q, sigma }, above: Pair::Remove { q, sigma } }
            }
        }
    }

    /// The pair that determines δ at every ε ≥ 0.
    pub(super) fn above_zero(self) -> Pair {
        match self {
            Self::Of(pair) | Self::Joined { above: pair, .. } => pair,
        }
    }

    pub(super) fn extreme_losses(self, beyond: f64) -> (f64, f64) {
        match self {
            Self::Of(pair) => pair.extreme_losses(beyond),
            Self::Joined { below, above } => (below.extreme_losses(beyond).0, above.extreme_losses(beyond).1),
        }
    }
}

/// The loss of one round on the grid of multiples of `step`, repeated.
pub(super) struct Grid {
    pub(super) step: f64,
    /// The loss of the first point, in steps.
    pub(super) first: i64,
    /// Probabilities under P.
    pub(super) masses: Vec<f64>,
    pub(super) ln_masses: Vec<f64>,
    /// Probability of an infinite loss.
    pub(super) infinite: f64,
    pub(super) rounds: u64,
}

impl Grid {
    pub(super) fn all(
        rounds: &[Rounds],
        ranges: &[(f64, f64)],
        step: f64,
        put: fn(&Rounds, (f64, f64), f64) -> Self,
    ) -> Vec<Self> {
        rounds.iter().zip(ranges).map(|(rounds, range)| put(rounds, *range, step)).collect()
    }

    fn new(rounds: u64, (low, high): (f64, f64), step: f64) -> Self {
        let first = (low / step).floor() as i64;
        let last = (high / step).ceil() as i64;
        let masses = vec![0.0; (last - first + 1) as usize];
        Self { step, first, masses, ln_masses: Vec::new(), infinite: 0.0, rounds }
    }

    pub(super) fn last(&self) -> i64 {
        self.first + self.masses.len() as i64 - 1
    }

    fn add(&mut self, at: i64, mass: f64) {
        self.masses[(at - self.first) as usize] += mass;
    }

    fn finished(mut self) -> Self {
        self.ln_masses = self.masses.iter().map(|mass| mass.ln()).collect();
        self
    }

    /// A distribution that dominates the loss.
    pub(super) fn pessimistic(rounds: &Rounds, range: (f64, f64), step: f64) -> Self {
        let mut grid = Self::new(rounds.count, range, step);
        let (first, last) = (grid.first, grid.last());
        match rounds.loss {
            Loss::Of(pair) => {
                grid.add_below(pair, first);
                grid.split_cells(pair, first, last);
                grid.add_above(pair, last);
            }
            Loss::Joined { below, above } => {
                grid.add_below(below, first);
                grid.split_cells(below, first, 0);
                grid.split_cells(above, 0, last);
                grid.add_above(above, last);
                grid.add(0, mass_at_zero(below, above));
            }
        }
        grid.finished()
    }

    /// Rounds losses below the grid up to its first point.
    fn add_below(&mut self, pair: Pair, first: i64) {
        let ends = [f64::NEG_INFINITY, first as f64 * self.step];
        let mass: f64 = pair.masses(ends.into_iter()).map(|mass| mass.p).sum();
        self.add(first, mass);
    }

    /// Splits each cell over its ends: what goes to the upper one solves a + b = P, a + b·e^{−h} = e^{ε}·Q.
    fn split_cells(&mut self, pair: Pair, first: i64, last: i64) {
        let step = self.step;
        let losses = (first..=last).map(|k| k as f64 * step);
        for (k, mass) in (first..).zip(pair.masses(losses)) {
            let scaled = if mass.q > 0.0 { (k as f64 * step + mass.q.ln()).exp() } else { 0.0 };
            let up = ((mass.p - scaled) / -(-step).exp_m1()).clamp(0.0, mass.p);
            self.add(k, mass.p - up);
            self.add(k + 1, up);
        }
    }

    /// Losses above the grid: as much of them as Q allows stays at its last point, the rest is infinite.
    fn add_above(&mut self, pair: Pair, last: i64) {
        let start = last as f64 * self.step;
        for mass in pair.masses([start, f64::INFINITY].into_iter()) {
            let kept = if mass.q > 0.0 { (start + mass.q.ln()).exp().min(mass.p) } else { 0.0 };
            self.add(last, kept);
            self.infinite += mass.p - kept;
        }
    }

    /// A (deficient) distribution that the loss dominates.
    pub(super) fn optimistic(rounds: &Rounds, range: (f64, f64), step: f64) -> Self {
        let mut grid = Self::new(rounds.count, range, step);
        let (first, last) = (grid.first, grid.last());
        // Bins begin a little after the middle, so that their loss is a little above the grid point.
        let edges = |first: i64, last: i64| (first..=last).map(move |k| (k as f64 - 0.5 + BIN_SHIFT) * step);
        match rounds.loss {
            Loss::Of(pair) => {
                let edges = edges(first, last);
                grid.merge_bins(pair, once(f64::NEG_INFINITY).chain(edges).chain(once(f64::INFINITY)));
            }
            Loss::Joined { below, above } => {
                grid.merge_bins(below, once(f64::NEG_INFINITY).chain(edges(first, 0)).chain(once(0.0)));
                grid.merge_bins(above, once(0.0).chain(edges(1, last)).chain(once(f64::INFINITY)));
                grid.add(0, mass_at_zero(below, above));
            }
        }
        grid.finished()
    }

    /// Merges the outcomes of each bin and rounds its loss down; below the grid it is dropped.
    fn merge_bins(&mut self, pair: Pair, edges: impl Iterator<Item = f64>) {
        for mass in pair.masses(edges).filter(|mass| mass.p > 0.0) {
            let loss = ((mass.p / mass.q).ln() / self.step - 1e-6).floor();
            // Underflow of Q makes it infinite.
            let at = loss.min(self.last() as f64) as i64;
            if at >= self.first {
                self.add(at, mass.p);
            }
        }
    }
}

/// What a profile of two pairs has beside their losses above and below 0: the kink of its larger one at ε = 0.
fn mass_at_zero(below: Pair, above: Pair) -> f64 {
    let up: f64 = above.masses([0.0, f64::INFINITY].into_iter()).map(|mass| mass.p).sum();
    let down: f64 = below.masses([f64::NEG_INFINITY, 0.0].into_iter()).map(|mass| mass.p).sum();
    (1.0 - up - down).max(0.0)
}

/// How far bins begin after the middle between two grid points, in steps. A bin's loss differs from its middle by
/// h·(slope of the log-density)/12 steps, which is less for h a twentieth of a standard deviation or finer.
const BIN_SHIFT: f64 = 1.0 / 64.0;
