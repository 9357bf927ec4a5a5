//! The integer grid: a clipped update becomes whole steps with a proven integer norm.
//!
//! One clip norm is `resolution` steps. Rounding is stochastic (unbiased per coordinate) and conditional: it is redrawn
//! until the integer norm is within a bound. The bound is the one of Kairouz, Liu and Steinke, "The Distributed Discrete
//! Gaussian Mechanism for Federated Learning with Secure Aggregation" (2021), theorem 1: with probability 1 − β a draw
//! for a vector of norm c (in steps) is within √(c² + d/4 + √(2 ln 1/β)·(c + √d/2)), and always within c + √d.
//!
//! Privacy rests on the exact integer check alone. A wrong float before it costs utility, never sensitivity.

use rand_core::CryptoRng;

use crate::{ClipNorm, ParamError};

/// The grid of one task: the same for all its clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    clip: ClipNorm,
    resolution: u32,
    dimension: usize,
    norm_bound_squared: u64,
}

impl Grid {
    /// `resolution`: integer steps per clip norm; `dimension`: coordinates of an update.
    pub fn new(clip: ClipNorm, resolution: u32, dimension: usize) -> Result<Grid, ParamError> {
        ParamError::check(
            "resolution",
            f64::from(resolution),
            "a number of steps per clip norm from 1 to 16777216",
            (1..=MAX_RESOLUTION).contains(&resolution),
        )?;
        ParamError::check(
            "dimension",
            dimension as f64,
            "a number of coordinates from 1 to 4294967295",
            dimension > 0 && u32::try_from(dimension).is_ok(),
        )?;
        let norm_bound_squared = norm_bound_squared(f64::from(resolution), dimension as f64);
        Ok(Grid { clip, resolution, dimension, norm_bound_squared })
    }

    /// The grid of plans without noise, on which nothing is rounded: updates travel as they are, and a step is 2^-24 of a
    /// model unit whatever the clip norm, so that an attack that was written in steps has a unit there too.
    pub(crate) fn without_rounding(clip: ClipNorm, dimension: usize) -> Grid {
        Grid { clip, resolution: 0, dimension, norm_bound_squared: u64::MAX }
    }

    /// The same steps at another clip norm: bounds in steps stay what they are.
    pub fn with_clip(&self, clip: ClipNorm) -> Grid {
        Grid { clip, ..self.clone() }
    }

    /// The clip norm, in model units.
    pub fn clip(&self) -> ClipNorm {
        self.clip
    }

    /// Steps per unit of a model parameter.
    pub fn scale(&self) -> f64 {
        match self.resolution {
            0 => UNROUNDED_SCALE,
            resolution => f64::from(resolution) / self.clip.get(),
        }
    }

    /// The largest squared L2 norm of a rounded update, in steps²: the squared sensitivity under zero-out adjacency.
    pub fn norm_bound_squared(&self) -> u64 {
        self.norm_bound_squared
    }

    /// The square root of [`Grid::norm_bound_squared`], in steps.
    pub fn norm_bound(&self) -> f64 {
        (self.norm_bound_squared as f64).sqrt()
    }

    /// The largest magnitude of one coordinate of a rounded update, in steps.
    pub fn coordinate_bound(&self) -> u32 {
        self.resolution
    }

    /// Coordinates of an update.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Rounds a clipped update to steps whose squared norm is at most [`Grid::norm_bound_squared`].
    ///
    /// Redraws at most 64 times, then gives the zero vector; for an update within the clip norm that has probability
    /// below 2^-46. An update that was not clipped, or holds a NaN, still meets the bound: it may come out as zero.
    ///
    /// # Panics
    /// If the update does not have the grid's dimension.
    pub fn round(&self, clipped: &[f32], rng: &mut impl CryptoRng) -> Vec<i32> {
        assert_eq!(clipped.len(), self.dimension, "the update has the grid's dimension");
        let (scale, limit) = (self.scale(), f64::from(self.resolution));
        let mut steps = vec![0; clipped.len()];
        let mut dice = [0; BATCH];
        for _ in 0..MAX_DRAWS {
            for (steps, clipped) in steps.chunks_mut(BATCH).zip(clipped.chunks(BATCH)) {
                let dice = &mut dice[..steps.len()];
                dice.fill_with(|| rng.next_u32());
                for ((step, &x), &die) in steps.iter_mut().zip(clipped).zip(&*dice) {
                    *step = round_stochastically((f64::from(x) * scale).clamp(-limit, limit), die);
                }
            }
            if norm_squared(&steps) <= u128::from(self.norm_bound_squared) {
                return steps;
            }
        }
        steps.fill(0);
        steps
    }

    /// Whether these steps are of the grid's dimension and of a squared norm of at most [`Grid::norm_bound_squared`]: all
    /// that a sum needs to know of an update, whoever rounded it.
    pub fn admits(&self, steps: &[i32]) -> bool {
        steps.len() == self.dimension && norm_squared(steps) <= u128::from(self.norm_bound_squared)
    }

    /// Steps (of one update, or of a sum) in the unit of the model's parameters.
    pub fn to_real(&self, steps: &[i64]) -> Vec<f64> {
        let unit = match self.resolution {
            0 => 1.0 / UNROUNDED_SCALE,
            resolution => self.clip.get() / f64::from(resolution),
        };
        steps.iter().map(|&step| step as f64 * unit).collect()
    }
}

/// Keeps squared norms far below 2^53, where f64 stops counting every integer.
const MAX_RESOLUTION: u32 = 1 << 24;

/// Steps per model unit where nothing is rounded; a power of two, so that whole steps are exact.
const UNROUNDED_SCALE: f64 = (1u64 << 24) as f64;

/// A draw fails with probability at most β = e^-1/2, so all of them do with at most e^-32.
const MAX_DRAWS: usize = 64;

/// Both bounds for a norm of `c` steps in `d` dimensions; β = e^-1/2 makes √(2 ln 1/β) equal to 1.
fn norm_bound_squared(c: f64, d: f64) -> u64 {
    let always = (c + d.sqrt()).powi(2);
    let likely = c * c + d / 4.0 + (c + d.sqrt() / 2.0);
    always.min(likely).floor() as u64
}

/// Coordinates whose random words are drawn together, so that the loop over them has no call in it.
const BATCH: usize = 256;

/// One of the two neighbouring integers, with expectation `x` up to 2^-32. A NaN gives 0.
///
/// In units of 2^-32: the fraction carries into the whole with the probability that it is. |x| ≤ 2^24, so that nothing
/// overflows, and the digits after the 32nd are what is lost.
fn round_stochastically(x: f64, die: u32) -> i32 {
    (((x * (1u64 << 32) as f64) as i64 + i64::from(die)) >> 32) as i32
}

fn norm_squared(steps: &[i32]) -> u128 {
    let square = |&step: &i32| u64::from(step.unsigned_abs()).pow(2);
    // A step is at most 2^24, so that 2^15 squares stay below 2^63.
    steps.chunks(1 << 15).map(|steps| u128::from(steps.iter().map(square).sum::<u64>())).sum()
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    use super::*;
    use crate::clip_l2;

    fn grid(clip: f64, resolution: u32, dimension: usize) -> Grid {
        Grid::new(ClipNorm::new(clip).unwrap(), resolution, dimension).unwrap()
    }

    #[test]
    fn the_bound_is_the_published_one() {
        // From `rounded_l2_norm_bound` of google-research/federated (distributed_dp), β = e^-1/2, before the floor.
        for (resolution, dimension, norm) in [(10, 1_000_000, 500.609_628f64), (1000, 1 << 20, 1_124.124_548)]
        {
            let bound = grid(1.0, resolution, dimension).norm_bound_squared() as f64;
            assert!(bound <= norm * norm + 1e-2 && bound > norm * norm - 1.01, "{bound} for {norm}");
        }
        // One coordinate: the deterministic bound (10 + 1)² loses to 100 + 1/4 + 10 + 1/2.
        assert_eq!(grid(1.0, 10, 1).norm_bound_squared(), 110);
        // Where steps are coarse the deterministic bound wins: (1 + 1)² against 1 + 1/4 + 3/2 keeps the latter.
        assert_eq!(grid(1.0, 1, 1).norm_bound_squared(), 2);
    }

    #[test]
    fn sizes_outside_the_range_are_refused() {
        let clip = ClipNorm::new(1.0).unwrap();
        assert_eq!(Grid::new(clip, 0, 10).unwrap_err().name, "resolution");
        assert_eq!(Grid::new(clip, MAX_RESOLUTION + 1, 10).unwrap_err().name, "resolution");
        assert_eq!(Grid::new(clip, 10, 0).unwrap_err().name, "dimension");
        assert!(Grid::new(clip, MAX_RESOLUTION, 10).is_ok());
    }

    #[test]
    fn rounding_is_unbiased() {
        let grid = grid(2.0, 64, 4);
        let update = [0.5, -0.013, 1.0 / 3.0, 0.0];
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut sum = vec![0i64; 4];
        let draws = 40_000;
        for _ in 0..draws {
            for (total, step) in sum.iter_mut().zip(grid.round(&update, &mut rng)) {
                *total += i64::from(step);
            }
        }
        for (mean, expected) in grid.to_real(&sum).into_iter().map(|x| x / f64::from(draws)).zip(update) {
            // A step is 1/32 and a draw varies by half of that at most: five standard errors.
            assert!(
                (mean - f64::from(expected)).abs() < 5.0 / 64.0 / f64::from(draws).sqrt(),
                "{mean} {expected}"
            );
        }
    }

    #[test]
    fn whole_steps_stay_as_they_are() {
        let grid = grid(4.0, 16, 3);
        let mut rng = ChaCha20Rng::seed_from_u64(0);
        assert_eq!(grid.round(&[0.25, -0.5, 1.0], &mut rng), [1, -2, 4]);
        assert_eq!(grid.to_real(&[1, -2, 4]), [0.25, -0.5, 1.0]);
    }

    #[test]
    fn an_update_of_full_norm_nearly_always_survives() {
        // Every coordinate half a step off the grid: the worst case for the norm.
        let dimension = 400;
        let grid = grid(1.0, 10, dimension);
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let update = vec![(1.0 / 20.0) as f32; dimension];
        for _ in 0..1_000 {
            assert!(grid.round(&update, &mut rng).iter().any(|&step| step != 0));
        }
    }

    #[test]
    fn what_a_sum_may_take_is_of_the_bound_and_the_dimension() {
        let grid = grid(1.0, 10, 2);
        // 10² + 2/4 + 10 + √2/2 = 111.2.
        assert_eq!(grid.norm_bound_squared(), 111);
        for steps in [[0, 0], [10, 3], [-3, 10], [7, -7]] {
            assert!(grid.admits(&steps), "{steps:?}");
        }
        for steps in [[10, 4], [-11, 0], [8, 7], [i32::MIN, i32::MIN], [i32::MAX, i32::MAX]] {
            assert!(!grid.admits(&steps), "{steps:?}");
        }
        assert!(!grid.admits(&[0]) && !grid.admits(&[0; 3]));
    }

    #[test]
    fn what_was_not_clipped_cannot_exceed_the_bound() {
        let grid = grid(1.0, 100, 3);
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        assert_eq!(grid.round(&[f32::MAX, f32::MIN, f32::NAN], &mut rng), [0, 0, 0]);
        assert_eq!(grid.round(&[f32::INFINITY, 0.0, 0.0], &mut rng), [100, 0, 0]);
    }

    proptest! {
        #[test]
        fn the_rounded_norm_never_exceeds_the_bound(
            mut update in prop::collection::vec(-1.0..1.0f32, 1..300),
            clip in 0.01..30.0f64,
            resolution in 1u32..5_000,
            clip_first in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let clip = ClipNorm::new(clip).unwrap();
            let grid = Grid::new(clip, resolution, update.len()).unwrap();
            if clip_first {
                clip_l2(&mut update, clip).unwrap();
            }
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let steps = grid.round(&update, &mut rng);
            let norm: i128 = steps.iter().map(|&step| i128::from(step) * i128::from(step)).sum();
            prop_assert!(norm <= i128::from(grid.norm_bound_squared()));
            prop_assert!(steps.iter().all(|step| step.unsigned_abs() <= grid.coordinate_bound()));
            if clip_first {
                for (&step, &x) in steps.iter().zip(&update) {
                    let exact = f64::from(x) * grid.scale();
                    let moved = (f64::from(step) - exact).abs() < 1.0 + 1e-9;
                    prop_assert!(moved || steps.iter().all(|&step| step == 0));
                }
            }
        }
    }
}
