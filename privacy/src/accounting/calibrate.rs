//! The inverse questions: how much noise, and how many rounds, an ε pays for.

use super::{Composition, Neighbours, Sampling, SamplingError};
use crate::{Delta, Epsilon, NoiseMultiplier};

/// How ε is computed. Both are upper bounds; they differ in how tight and how fast they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accountant {
    /// Rényi divergences: well under a millisecond, some percent above.
    Rdp,
    /// Privacy loss distributions: some ten milliseconds, above by less than a thousandth as a rule.
    Pld,
}

impl Accountant {
    /// An ε that all rounds together keep at this δ. Infinite where no bound can be computed.
    pub fn epsilon(self, rounds: &Composition, delta: Delta) -> f64 {
        match self {
            Self::Rdp => rounds.rdp().epsilon(delta).epsilon,
            Self::Pld => rounds.epsilon_at_most(delta),
        }
    }

    /// The least noise multiplier, to a millionth of itself and rounded up, with which `rounds` alike rounds keep ε at
    /// most `target`; `None` if even the largest that [`NoiseMultiplier`] accepts is not enough.
    pub fn noise_for(
        self,
        neighbours: Neighbours,
        sampling: Sampling,
        rounds: u32,
        target: Epsilon,
        delta: Delta,
    ) -> Result<Option<NoiseMultiplier>, SamplingError> {
        let epsilon = |noise: NoiseMultiplier| {
            let rounds = Composition::new(neighbours).then(sampling, noise, rounds)?;
            Ok(self.epsilon(&rounds, delta))
        };
        let multiplier = |value: f64| NoiseMultiplier::new(value).expect("the search stays in the range");
        // The logarithm of ε over the target at a logarithm of the noise: falls through 0 where the answer is.
        let over = |ln_noise: f64| {
            let value = ln_noise.exp().clamp(LEAST_NOISE, MOST_NOISE);
            epsilon(multiplier(value)).map(|epsilon| (epsilon / target.get()).ln())
        };
        // Rényi divergences are fast and nearly right: the other accountant starts from what they find.
        let (start, stride) = match self {
            Self::Rdp => (0.0, 1.0),
            Self::Pld => {
                let found = Self::Rdp.noise_for(neighbours, sampling, rounds, target, delta)?;
                (found.map_or(MOST_NOISE, NoiseMultiplier::get).ln(), 0.1)
            }
        };
        let (mut enough, mut slack) = (start, over(start)?);
        let (mut little, mut excess) = (enough, slack);
        let mut step = stride;
        while slack > 0.0 {
            if enough >= MOST_NOISE.ln() {
                return Ok(None);
            }
            (little, excess) = (enough, slack);
            enough = (enough + step).min(MOST_NOISE.ln());
            slack = over(enough)?;
            step *= 2.0;
        }
        while excess <= 0.0 {
            if little <= LEAST_NOISE.ln() {
                return Ok(Some(multiplier(LEAST_NOISE)));
            }
            (enough, slack) = (little, excess);
            little = (little - step).max(LEAST_NOISE.ln());
            excess = over(little)?;
            step *= 2.0;
        }
        // ln ε is nearly linear in ln σ: the secant finds the crossing in a few steps. The end that stays is weighed
        // down (Illinois), and a point next to the crossing is tried on the side of enough.
        while enough - little > 1e-6 {
            let guess = if excess.is_finite() && slack.is_finite() {
                little + (enough - little) * excess / (excess - slack)
            } else {
                f64::midpoint(little, enough)
            };
            let margin = 0.25e-6;
            let middle = (guess + margin).clamp(little + margin, enough - margin);
            let found = over(middle)?;
            if found > 0.0 {
                (little, excess) = (middle, found);
                slack /= 2.0;
            } else {
                (enough, slack) = (middle, found);
                excess /= 2.0;
            }
        }
        Ok(Some(multiplier(enough.exp().clamp(LEAST_NOISE, MOST_NOISE))))
    }

    /// The most alike rounds that keep ε at most `budget`; 0 if one is too many.
    pub fn rounds_within(
        self,
        neighbours: Neighbours,
        sampling: Sampling,
        noise: NoiseMultiplier,
        budget: Epsilon,
        delta: Delta,
    ) -> Result<u32, SamplingError> {
        let within = |rounds: u32| {
            let rounds = Composition::new(neighbours).then(sampling, noise, rounds)?;
            Ok(self.epsilon(&rounds, delta) <= budget.get())
        };
        let found = match self {
            Self::Rdp => 0,
            Self::Pld => Self::Rdp.rounds_within(neighbours, sampling, noise, budget, delta)?,
        };
        let mut low = if found > 0 && within(found)? { found } else { 0 };
        let mut step = (low / 16).max(1);
        let mut high = low.saturating_add(step);
        while within(high)? {
            if high == u32::MAX {
                return Ok(high);
            }
            step = step.saturating_mul(2);
            (low, high) = (high, high.saturating_add(step));
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if within(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

const LEAST_NOISE: f64 = 1e-3;
const MOST_NOISE: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingRate;
    use crate::accounting::vectors::Vectors;

    fn poisson(rate: f64) -> Sampling {
        Sampling::Poisson(SamplingRate::new(rate).unwrap())
    }

    fn noise(accountant: Accountant, rate: f64, rounds: u32, epsilon: f64, delta: f64) -> f64 {
        let (epsilon, delta) = (Epsilon::new(epsilon).unwrap(), Delta::new(delta).unwrap());
        let found = accountant.noise_for(Neighbours::AddRemove, poisson(rate), rounds, epsilon, delta);
        found.unwrap().unwrap().get()
    }

    #[test]
    fn noise_is_that_of_the_analytic_gaussian_mechanism() {
        let rows = Vectors::load().analytic_gaussian;
        for row in rows {
            let ours = noise(Accountant::Pld, 1.0, 1, row.eps, row.delta);
            let ratio = ours / row.sigma;
            assert!(ratio > 1.0 - 1e-8 && ratio < 1.0 + 2e-6, "ε = {}, δ = {}: {ours}", row.eps, row.delta);
        }
    }

    #[test]
    fn published_noise() {
        // dp-accounting 0.6.0: `calibrate_dp_mechanism`, and Google's own test.
        for (accountant, rate, rounds, epsilon, delta, expected, tolerance) in [
            (Accountant::Rdp, 0.01, 1_000, 2.0, 1e-5, 1.022_289_8, 1e-4),
            (Accountant::Pld, 0.01, 1_000, 2.0, 1e-5, 0.959_102_9, 1e-4),
            (Accountant::Pld, 0.01, 1, 1.0, 1e-5, 0.673_792_946_82, 3e-6),
            (Accountant::Pld, 0.001, 25, 1.0, 1e-5, 3.209_565_025_98 / 6.0, 1e-4),
        ] {
            let ours = noise(accountant, rate, rounds, epsilon, delta);
            assert!(
                (ours / expected - 1.0).abs() < tolerance,
                "{accountant:?}, q = {rate}: {ours}, not {expected}"
            );
        }
    }

    #[test]
    fn noise_of_the_distributed_gaussian_paper_is_enough() {
        // google-research/federated has 0.84793 from whole orders alone; the best order is between 2 and 3.
        let ours = noise(Accountant::Rdp, 100.0 / 3_400.0, 1_500, 10.0, 1.0 / 3_400.0);
        let tight = noise(Accountant::Pld, 100.0 / 3_400.0, 1_500, 10.0, 1.0 / 3_400.0);
        assert!(ours < 0.847_93 && ours > tight && tight > 0.7, "{ours}, {tight}");
    }

    #[test]
    fn noise_is_enough_and_a_little_less_is_not() {
        let delta = Delta::new(1e-6).unwrap();
        for (rate, rounds, target) in [(0.02, 300, 0.7), (0.5, 10, 30.0), (1.0, 1_000, 0.01), (0.001, 1, 3.0)]
        {
            let found = noise(Accountant::Rdp, rate, rounds, target, 1e-6);
            let epsilon = |sigma: f64| {
                let sigma = NoiseMultiplier::new(sigma).unwrap();
                let all = Composition::new(Neighbours::AddRemove).then(poisson(rate), sigma, rounds).unwrap();
                Accountant::Rdp.epsilon(&all, delta)
            };
            assert!(epsilon(found) <= target && epsilon(found * (1.0 - 3e-6)) > target, "{rate}: {found}");
        }
    }

    #[test]
    fn what_no_noise_reaches_and_what_needs_none() {
        let (tiny, delta) = (Epsilon::new(1e-9).unwrap(), Delta::new(1e-12).unwrap());
        let none = Accountant::Rdp.noise_for(Neighbours::AddRemove, Sampling::Full, u32::MAX, tiny, delta);
        assert_eq!(none, Ok(None));
        let huge = Epsilon::new(1e9).unwrap();
        let least = Accountant::Rdp.noise_for(Neighbours::AddRemove, Sampling::Full, 1, huge, delta);
        assert_eq!(least.unwrap().unwrap().get(), LEAST_NOISE);
    }

    #[test]
    fn rounds_are_the_most_that_fit() {
        let (budget, delta) = (Epsilon::new(3.0).unwrap(), Delta::new(1e-5).unwrap());
        let sigma = NoiseMultiplier::new(1.5).unwrap();
        for accountant in [Accountant::Rdp, Accountant::Pld] {
            let most =
                accountant.rounds_within(Neighbours::AddRemove, poisson(0.1), sigma, budget, delta).unwrap();
            let epsilon = |rounds| {
                let all = Composition::new(Neighbours::AddRemove).then(poisson(0.1), sigma, rounds).unwrap();
                accountant.epsilon(&all, delta)
            };
            assert!(most > 10 && epsilon(most) <= 3.0 && epsilon(most + 1) > 3.0, "{accountant:?}: {most}");
        }
        let loud = NoiseMultiplier::new(0.1).unwrap();
        let none = Accountant::Rdp.rounds_within(Neighbours::ReplaceOne, Sampling::Full, loud, budget, delta);
        assert_eq!(none, Ok(0));
    }
}
