//! A clip norm that follows a quantile of the updates' norms (Andrew, Thakkar, McMahan, Ramaswamy 2021, algorithm 1).
//!
//! Beside its update each client sends one more number into the same secure sum: whether the update was within the clip
//! norm. It is coded as ±[`INDICATOR_BOUND`] steps around 0, so that zero-out moves it by half of what a bit would be, is
//! neither rotated nor rounded, and carries noise shares of its own. The sum says which fraction b̃ of the cohort was
//! within; the next clip norm is C·exp(−η(b̃ − γ)), and settles where a fraction γ of the norms is below it.
//!
//! - **Cost.** Vector and indicator are two releases of independent noise: their Rényi curves add up
//!   ([`AdaptiveClip::curve`]).
//! - **ε does not depend on the clip norm.** Steps are fractions of whatever the clip norm is: sensitivity and noise are
//!   the same integers in every round, so that a changing norm changes neither noise, nor ring, nor charge.
//! - **Drop-outs.** Division is by the planned size. Who does not answer counts as one half.
//! - **Hostile clients.** The secure sum does not show who sent what, and a hostile client may send any number. A group's
//!   fraction is therefore clamped to 0…1 before the mean over groups: f poisoned groups among G move b̃ by at most f/G,
//!   and the clip norm by a factor of at most exp(ηf/G).
//! - **Hostile coordinators.** As |b̃ − γ| ≤ max(γ, 1 − γ), a client that knows the last clip norm refuses one further away
//!   than an honest step reaches ([`AdaptiveClip::check_step`]). No step costs privacy; it could cost accuracy.
//!
//! Absent: clipping by coordinate or layer.

use crate::{
    ClipNorm, Grid, NoiseKind, NoiseMultiplier, ParamError, RdpCurve, Variance,
    distributed_discrete_gaussian_rho, distributed_skellam,
};

/// Steps of an indicator on either side of 0. Enough for its noise to be cheap; few, because the ring must hold a sum.
pub const INDICATOR_BOUND: u32 = 16;

/// How the clip norm of a task follows its updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveClip {
    quantile: f64,
    learning_rate: f64,
    noise_multiplier: NoiseMultiplier,
    minimum: ClipNorm,
    maximum: ClipNorm,
}

/// A clip norm that no honest coordinator can have come to.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("clip norm is {found}, accepted after {before} is {least} to {most}")]
pub struct ClipStep {
    /// The clip norm before.
    pub before: f64,
    /// The one that was refused.
    pub found: f64,
    /// The least that one step reaches.
    pub least: f64,
    /// The most that one step reaches.
    pub most: f64,
}

impl AdaptiveClip {
    /// `quantile`: the fraction γ of updates that should stay unclipped. `learning_rate`: η, by which the logarithm of the
    /// clip norm moves for a fraction that is off by 1. `noise_multiplier`: standard deviation of the noise in one group's
    /// sum of indicators over [`INDICATOR_BOUND`], which is half a client. The clip norm stays within `minimum` and
    /// `maximum`.
    pub fn new(
        quantile: f64,
        learning_rate: f64,
        noise_multiplier: NoiseMultiplier,
        minimum: ClipNorm,
        maximum: ClipNorm,
    ) -> Result<Self, ParamError> {
        ParamError::check(
            "quantile",
            quantile,
            "a number above 0 and below 1",
            quantile > 0.0 && quantile < 1.0,
        )?;
        ParamError::check(
            "learning rate of the clip norm",
            learning_rate,
            "a number above 0, at most 2",
            learning_rate > 0.0 && learning_rate <= 2.0,
        )?;
        ParamError::check(
            "maximum clip norm",
            maximum.get(),
            "a number that is not below the minimum clip norm",
            maximum >= minimum,
        )?;
        Ok(Self { quantile, learning_rate, noise_multiplier, minimum, maximum })
    }

    /// What a client adds to its input, before noise: was the update within the clip norm?
    pub fn indicator(norm_before: f64, clip: ClipNorm) -> i32 {
        let bound = INDICATOR_BOUND as i32;
        if norm_before <= clip.get() { bound } else { -bound }
    }

    /// Indicators as a grid of one coordinate, for the ring that their sum needs.
    pub(crate) fn grid() -> Grid {
        let one = ClipNorm::new(1.0).expect("1 is a clip norm");
        Grid::new(one, INDICATOR_BOUND, 1).expect("a few steps in one coordinate are a grid")
    }

    /// The noise that each of `honest` clients adds to its indicator, so that they carry all of it together.
    pub fn share(&self, honest: u32) -> Result<Variance, ParamError> {
        let total = (self.noise_multiplier.get() * f64::from(INDICATOR_BOUND)).powi(2);
        Variance::new((total / f64::from(honest.max(1))).ceil() as u64)
    }

    /// What one participation of the indicator costs: to be added to what the vector costs.
    pub fn curve(&self, noise: NoiseKind, share: Variance, honest: u32) -> RdpCurve {
        let bound_squared = u64::from(INDICATOR_BOUND).pow(2);
        match noise {
            NoiseKind::DiscreteGaussian => {
                RdpCurve::from_zcdp(distributed_discrete_gaussian_rho(bound_squared, share, honest, 1))
            }
            NoiseKind::Skellam => distributed_skellam(bound_squared, share, honest, 1),
        }
    }

    /// The fraction of updates within the clip norm, from one noised sum of indicators for each group that was kept, and
    /// the planned size of a group. Without groups nothing was learnt, and it is the quantile that is aimed at.
    pub fn fraction(&self, sums: &[i64], planned_group_size: u32) -> f64 {
        if sums.is_empty() {
            return self.quantile;
        }
        let full = 2.0 * f64::from(INDICATOR_BOUND) * f64::from(planned_group_size);
        let group = |&sum: &i64| (0.5 + sum as f64 / full).clamp(0.0, 1.0);
        sums.iter().map(group).sum::<f64>() / sums.len() as f64
    }

    /// The clip norm after one at which this fraction of updates was within it.
    pub fn next(&self, clip: ClipNorm, fraction: f64) -> ClipNorm {
        // libm's, so that everyone who replays the step gets the same bits.
        let moved = clip.get() * libm::exp(-self.learning_rate * (fraction.clamp(0.0, 1.0) - self.quantile));
        ClipNorm::new(moved.clamp(self.minimum.get(), self.maximum.get()))
            .expect("it lies between two clip norms")
    }

    /// The clip norm of the first round: what the plan says, if it is within the limits.
    pub fn check_first(&self, clip: ClipNorm) -> Result<(), ParamError> {
        ParamError::check(
            "clip norm",
            clip.get(),
            "a number from the minimum to the maximum of adaptive clipping",
            clip >= self.minimum && clip <= self.maximum,
        )
    }

    /// Refuses a clip norm that `rounds` steps of an honest coordinator do not reach from the one before.
    pub fn check_step(&self, before: ClipNorm, found: f64, rounds: u32) -> Result<ClipNorm, ClipStep> {
        let rounds = f64::from(rounds);
        let down = libm::exp(-self.learning_rate * (1.0 - self.quantile) * rounds);
        let up = libm::exp(self.learning_rate * self.quantile * rounds);
        let least = (before.get() * down).clamp(self.minimum.get(), self.maximum.get());
        let most = (before.get() * up).clamp(self.minimum.get(), self.maximum.get());
        let within = found >= least * (1.0 - STEP_SLACK) && found <= most * (1.0 + STEP_SLACK);
        let limited = found >= self.minimum.get() && found <= self.maximum.get();
        ClipNorm::new(found).ok().filter(|_| within && limited).ok_or(ClipStep {
            before: before.get(),
            found,
            least,
            most,
        })
    }
}

/// What rounding may add up to over rounds.
const STEP_SLACK: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::{Delta, Noise};

    fn clip(value: f64) -> ClipNorm {
        ClipNorm::new(value).unwrap()
    }

    fn adaptive(quantile: f64, learning_rate: f64) -> AdaptiveClip {
        let noise = NoiseMultiplier::new(4.0).unwrap();
        AdaptiveClip::new(quantile, learning_rate, noise, clip(1e-3), clip(1e3)).unwrap()
    }

    #[test]
    fn the_clip_norm_settles_at_the_quantile() {
        // Norms are e^u, u uniform on −2..2: the γ-quantile is e^{4γ − 2}. 10 groups of 20, noise from 14 in each.
        for (seed, quantile) in [(1, 0.5), (2, 0.8), (3, 0.2)] {
            let adaptive = adaptive(quantile, 0.2);
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let noise = Noise::new(NoiseKind::DiscreteGaussian, adaptive.share(14).unwrap());
            let mut current = clip(50.0);
            let mut settled = Vec::new();
            for round in 0..200 {
                let sums: Vec<i64> = (0..10)
                    .map(|_| {
                        let client = |_| {
                            let u = f64::from(rng.next_u32()) / 2f64.powi(32) * 4.0 - 2.0;
                            i64::from(AdaptiveClip::indicator(u.exp(), current)) + noise.sample(&mut rng)
                        };
                        (0..20).map(client).sum()
                    })
                    .collect();
                current = adaptive.next(current, adaptive.fraction(&sums, 20));
                if round >= 100 {
                    settled.push(current.get().ln());
                }
            }
            let mean = settled.iter().sum::<f64>() / settled.len() as f64;
            // One step moves ln C by 0.2 · 0.04 standard deviations of b̃; the mean of a hundred by less.
            assert!((mean - (4.0 * quantile - 2.0)).abs() < 0.1, "seed {seed}, γ = {quantile}: {mean}");
        }
    }

    #[test]
    fn the_charge_is_that_of_one_gaussian_of_its_multiplier() {
        let adaptive = adaptive(0.5, 0.2);
        for noise in [NoiseKind::DiscreteGaussian, NoiseKind::Skellam] {
            let share = adaptive.share(10).unwrap();
            assert_eq!(share.get(), 410);
            let ours =
                adaptive.curve(noise, share, 10).compose(50).epsilon(Delta::new(1e-5).unwrap()).epsilon;
            let gaussian = RdpCurve::gaussian(NoiseMultiplier::new(4.0).unwrap());
            let ideal = gaussian.compose(50).epsilon(Delta::new(1e-5).unwrap()).epsilon;
            assert!((ours / ideal - 1.0).abs() < 0.02, "{noise}: {ours}, ideal {ideal}");
        }
    }

    #[test]
    fn the_charge_does_not_depend_on_the_clip_norm() {
        for norm in [1e-9, 1.0, 1e9] {
            assert_eq!(AdaptiveClip::indicator(norm, clip(norm)), 16);
            assert_eq!(AdaptiveClip::indicator(norm * 1.001, clip(norm)), -16);
        }
        assert_eq!(AdaptiveClip::indicator(f64::INFINITY, clip(1.0)), -16);
    }

    #[test]
    fn poisoned_groups_move_the_clip_norm_by_their_share_at_most() {
        let adaptive = adaptive(0.5, 0.2);
        let honest = [40i64, -80, 0, 160, -20, 64, 100, -5, 12, -64];
        let ours = adaptive.next(clip(1.0), adaptive.fraction(&honest, 20)).get();
        for poison in [i64::MIN, -1 << 31, -1, 1 << 31, i64::MAX] {
            for poisoned in 1..=3usize {
                let mut sums = honest;
                sums[..poisoned].fill(poison);
                let theirs = adaptive.next(clip(1.0), adaptive.fraction(&sums, 20)).get();
                let moved = (theirs / ours).ln().abs();
                assert!(moved <= 0.2 * poisoned as f64 / 10.0 + 1e-12, "{poison} in {poisoned}: {moved}");
            }
        }
        assert_eq!(adaptive.fraction(&[], 20), 0.5);
        assert_eq!(adaptive.fraction(&[320, 320], 20), 1.0);
        // Nobody answered: one half.
        assert_eq!(adaptive.fraction(&[0], 20), 0.5);
    }

    #[test]
    fn a_jump_is_refused_and_an_honest_step_never_is() {
        let adaptive = adaptive(0.8, 0.2);
        let mut current = clip(10.0);
        for round in 0..200 {
            let fraction = if round < 100 { 1.0 } else { 0.0 };
            let next = adaptive.next(current, fraction);
            assert_eq!(adaptive.check_step(current, next.get(), 1), Ok(next));
            current = next;
        }
        assert_eq!(current, clip(1e3), "the maximum");
        for (found, rounds) in
            [(11.8, 1), (9.5, 1), (f64::NAN, 1), (-1.0, 1), (14.0, 2), (0.0, 9), (1e4, 1_000)]
        {
            let refused = adaptive.check_step(clip(10.0), found, rounds);
            assert!(refused.is_err(), "{found} after {rounds}");
        }
        assert!(adaptive.check_step(clip(10.0), 11.8, 2).is_ok());
        let refusal = adaptive.check_step(clip(1e3), 2e3, 1).unwrap_err().to_string();
        assert!(refusal.starts_with("clip norm is 2000, accepted after 1000 is 960.7"), "{refusal}");
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let noise = NoiseMultiplier::new(1.0).unwrap();
        let refusal = |quantile, rate, minimum, maximum| {
            let made = AdaptiveClip::new(quantile, rate, noise, clip(minimum), clip(maximum));
            made.unwrap_err().to_string()
        };
        for quantile in [0.0, 1.0, f64::NAN] {
            assert!(refusal(quantile, 0.2, 1.0, 2.0).starts_with("quantile is "));
        }
        for rate in [0.0, 2.1, f64::NAN] {
            assert!(refusal(0.5, rate, 1.0, 2.0).starts_with("learning rate of the clip norm is "));
        }
        assert!(refusal(0.5, 0.2, 2.0, 1.0).starts_with("maximum clip norm is 1, "));
        assert!(adaptive(0.5, 0.2).check_first(clip(1e4)).is_err());
        assert!(adaptive(0.5, 0.2).check_first(clip(1.0)).is_ok());
    }
}
