//! Privacy of a client's single examples: what the steps of its training spend.

use fedveil_privacy::{
    ClipNorm, Delta, Epsilon, ExampleGuarantee, ExampleLevel, NoiseMultiplier, ParamError, SamplingRate,
};

use crate::error::{at_least, field};
use crate::{PlanError, TaskPlan};

/// Most steps of example-level training in one round.
const MAX_STEPS: f64 = 1e6;

/// What a plan means for a single example of a client.
#[derive(Debug, Clone)]
pub struct ExampleTerms {
    /// Noise of one step, and what steps cost.
    pub guarantee: ExampleGuarantee,
    /// Steps that a client takes in one round.
    pub steps_per_round: u32,
    /// ε of an example, at the section's δ, after all affordable rounds.
    pub epsilon: f64,
}

impl TaskPlan {
    pub(crate) fn example_terms(&self, rounds: u32) -> Result<Option<ExampleTerms>, PlanError> {
        let Some(section) = &self.training.example_privacy else { return Ok(None) };
        at_least("training.batch_size", self.training.batch_size, 1, 65_536)?;
        for (name, is_set) in [
            ("momentum", self.training.momentum.is_some()),
            ("proximal", self.training.proximal.is_some()),
            ("planned_steps", self.training.planned_steps.is_some()),
        ] {
            if is_set {
                return Err(PlanError::Inconsistent(format!(
                    "training.{name} is for training without training.example_privacy, whose steps are noised as they are"
                )));
            }
        }
        let out_of_range = |name| move |error: ParamError| field(name, error.found, error.accepted);
        let sampling_rate = SamplingRate::new(section.sampling_rate)
            .map_err(out_of_range("training.example_privacy.sampling_rate"))?;
        let steps_per_round = (f64::from(self.training.epochs) / sampling_rate.get()).ceil();
        if steps_per_round > MAX_STEPS {
            return Err(field(
                "training.example_privacy.sampling_rate",
                section.sampling_rate,
                format!(
                    "at least {}, which makes {MAX_STEPS} steps a round",
                    f64::from(self.training.epochs) / MAX_STEPS
                ),
            ));
        }
        let budget =
            Epsilon::new(section.epsilon).map_err(out_of_range("training.example_privacy.epsilon"))?;
        let noise = "training.example_privacy.noise_multiplier";
        let guarantee = ExampleLevel {
            clip: ClipNorm::new(section.clip_norm)
                .map_err(out_of_range("training.example_privacy.clip_norm"))?,
            dimension: self.model.parameters,
            noise_multiplier: NoiseMultiplier::new(section.noise_multiplier).map_err(out_of_range(noise))?,
            sampling_rate,
            delta: Delta::new(section.delta).map_err(out_of_range("training.example_privacy.delta"))?,
        }
        .guarantee()
        .map_err(|_| field(noise, section.noise_multiplier, "a number from 0.001 to 250"))?;
        let epsilon = guarantee.epsilon(steps_per_round as u64 * u64::from(rounds));
        if epsilon > budget.get() {
            return Err(PlanError::Inconsistent(format!(
                "training.example_privacy: {rounds} rounds of {steps_per_round} steps spend epsilon {epsilon:.4} on an \
                 example, and its epsilon accepts {budget}"
            )));
        }
        Ok(Some(ExampleTerms { guarantee, steps_per_round: steps_per_round as u32, epsilon }))
    }
}
