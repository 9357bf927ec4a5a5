//! What clients say of a new model, without anyone's answer being seen.
//!
//! Each client compares two models on examples of its own and answers with the difference of their accuracies, a number
//! from −1 to 1, in ±[`ANSWER_BOUND`] steps around 0. The answers of a group are summed like updates are, with noise
//! shares of their own: zero-out moves a sum by [`ANSWER_BOUND`] at most.
//!
//! - **Cost.** One answer for each update at most, from clients that the round has charged: a participation costs what
//!   both releases cost, and their Rényi curves add up.
//! - **Hostile clients.** A sum does not show who sent what. A group's mean is clamped to −1…1, and the estimate is the
//!   median over groups: f poisoned groups of 2f + 1 or more leave it among what honest groups say.
//! - **Noise.** The estimate comes with the standard deviation of what noise adds to it, so that a judgement can ask for
//!   more than chance. What differs between clients' examples is not in that.
//! - **Drop-outs.** Division is by the planned size of a group. Who does not answer counts as no difference.

use crate::{NoiseKind, NoiseMultiplier, ParamError, RdpCurve, Variance};
use crate::{distributed_discrete_gaussian_rho, distributed_skellam};

/// Steps of an answer on either side of 0.
pub const ANSWER_BOUND: u32 = 256;

/// How answers are noised, summed and read.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The parameter of the noise that each client adds to its answer.
    pub share: Variance,
    /// Sums of answers live in Z_2^b.
    pub ring_bits: u32,
    /// Clients in the largest group.
    largest_group: u32,
    /// What an answer costs.
    pub(crate) curve: RdpCurve,
}

/// What groups say of a new model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Accuracy of the new model less that of the old.
    pub difference: f64,
    /// At least the standard deviation of what noise adds to it.
    pub deviation: f64,
}

impl Evaluation {
    /// `noise_multiplier`: standard deviation of the noise in one group's sum over [`ANSWER_BOUND`], of which `honest`
    /// clients carry all together.
    pub(crate) fn new(
        noise_multiplier: NoiseMultiplier,
        noise: NoiseKind,
        honest: u32,
        largest_group: u32,
        ring_bits: impl FnOnce(Variance) -> u32,
    ) -> Result<Self, ParamError> {
        let share = share(noise_multiplier, honest)?;
        let bound_squared = u64::from(ANSWER_BOUND).pow(2);
        let curve = match noise {
            NoiseKind::DiscreteGaussian => {
                RdpCurve::from_zcdp(distributed_discrete_gaussian_rho(bound_squared, share, honest, 1))
            }
            NoiseKind::Skellam => distributed_skellam(bound_squared, share, honest, 1),
        };
        Ok(Self { share, ring_bits: ring_bits(share), largest_group, curve })
    }

    /// What a client adds to the sum, before noise, for a difference of accuracies.
    pub fn answer(difference: f64) -> i32 {
        let difference = if difference.is_nan() { 0.0 } else { difference.clamp(-1.0, 1.0) };
        (difference * f64::from(ANSWER_BOUND)).round() as i32
    }

    /// Reads one noised sum of answers for each group. `None` where there is none.
    pub fn estimate(&self, sums: &[i64], planned_group_size: u32) -> Option<Estimate> {
        let full = f64::from(ANSWER_BOUND) * f64::from(planned_group_size);
        let mut means: Vec<f64> = sums.iter().map(|&sum| (sum as f64 / full).clamp(-1.0, 1.0)).collect();
        means.sort_unstable_by(f64::total_cmp);
        let (low, high) = (means.len().checked_sub(1)? / 2, means.len() / 2);
        let difference = means[low].midpoint(means[high]);
        // A sum has at most the noise of a whole group. The median of n normal values has at most π/2 of the variance
        // of their mean.
        let variance = self.share.get() as f64 * f64::from(self.largest_group);
        let deviation = (variance * std::f64::consts::FRAC_PI_2 / means.len() as f64).sqrt() / full;
        Some(Estimate { difference, deviation })
    }
}

fn share(noise_multiplier: NoiseMultiplier, honest: u32) -> Result<Variance, ParamError> {
    let total = (noise_multiplier.get() * f64::from(ANSWER_BOUND)).powi(2);
    Variance::new((total / f64::from(honest.max(1))).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::{Delta, Noise};

    fn evaluation(noise_multiplier: f64, honest: u32, largest_group: u32) -> Evaluation {
        let noise_multiplier = NoiseMultiplier::new(noise_multiplier).unwrap();
        let noise = NoiseKind::DiscreteGaussian;
        Evaluation::new(noise_multiplier, noise, honest, largest_group, |_| 16).unwrap()
    }

    #[test]
    fn an_answer_is_within_its_bound() {
        for (difference, expected) in
            [(0.0, 0), (-0.5, -128), (1.0, 256), (7.0, 256), (f64::NEG_INFINITY, -256), (f64::NAN, 0)]
        {
            assert_eq!(Evaluation::answer(difference), expected, "{difference}");
        }
    }

    #[test]
    fn the_charge_is_that_of_one_gaussian_of_its_multiplier() {
        let delta = Delta::new(1e-5).unwrap();
        let gaussian = RdpCurve::gaussian(NoiseMultiplier::new(2.0).unwrap());
        let ideal = gaussian.compose(8).epsilon(delta).epsilon;
        for noise in [NoiseKind::DiscreteGaussian, NoiseKind::Skellam] {
            let multiplier = NoiseMultiplier::new(2.0).unwrap();
            let evaluation = Evaluation::new(multiplier, noise, 11, 20, |_| 16).unwrap();
            let ours = evaluation.curve.compose(8).epsilon(delta).epsilon;
            assert!(ours >= ideal * 0.999 && ours < ideal * 1.02, "{noise}: {ours}, ideal {ideal}");
        }
    }

    #[test]
    fn estimates_are_as_far_off_as_they_say() {
        // 11 groups of 18 who all see a loss of a quarter; 2000 rounds.
        let evaluation = evaluation(2.0, 11, 18);
        let noise = Noise::new(NoiseKind::DiscreteGaussian, evaluation.share);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut off = Vec::new();
        for _ in 0..2_000 {
            let sums: Vec<i64> = (0..11)
                .map(|_| (0..18).map(|_| i64::from(Evaluation::answer(-0.25)) + noise.sample(&mut rng)).sum())
                .collect();
            let Estimate { difference, deviation } = evaluation.estimate(&sums, 18).unwrap();
            off.push((difference + 0.25) / deviation);
        }
        let mean = off.iter().sum::<f64>() / 2e3;
        let spread = (off.iter().map(|off| off * off).sum::<f64>() / 2e3).sqrt();
        assert!(mean.abs() < 0.1, "{mean}");
        // The bound on the median of 11 is a few per cent above what it is.
        assert!((0.88..=1.02).contains(&spread), "{spread}");
    }

    #[test]
    fn poisoned_groups_move_an_estimate_no_further_than_honest_ones_are() {
        let evaluation = evaluation(2.0, 11, 18);
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let honest: Vec<i64> = (0..7).map(|_| i64::from(rng.next_u32() % 2_000) - 1_500).collect();
        let mean = |sum: i64| sum as f64 / (256.0 * 18.0);
        let (least, most) = (mean(*honest.iter().min().unwrap()), mean(*honest.iter().max().unwrap()));
        for poison in [i64::MIN, -1 << 31, 0, 1 << 31, i64::MAX] {
            let sums: Vec<i64> = honest.iter().copied().chain([poison; 4]).collect();
            let found = evaluation.estimate(&sums, 18).unwrap().difference;
            assert!((least..=most).contains(&found), "{poison}: {found}");
        }
        assert_eq!(evaluation.estimate(&[], 18), None);
        assert_eq!(evaluation.estimate(&[i64::MIN], 18).unwrap().difference, -1.0);
        assert_eq!(evaluation.estimate(&[-4608, 0], 18).unwrap().difference, -0.5);
    }
}
