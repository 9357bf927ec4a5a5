//! What of an update leaves the client: clipped, rotated, rounded, with the client's part of the noise.

use super::{Participant, Refusal, unexpected};
use chacha20::ChaCha20Rng;
use fedveil_aggregation::plain::Values;
use fedveil_privacy::{
    AdaptiveClip, Guarantee, INDICATOR_BOUND, Noise, NonFinite, Placement, Rotation, clip_l2,
};
use fedveil_proto::Kind;
use rand_core::{CryptoRng, SeedableRng};
use zeroize::Zeroizing;

/// The client's part of all noise that a plan asks it for. To make a sampler takes longer than to draw for a small model,
/// so that it is made once for a plan.
pub(crate) struct Samplers {
    /// For each value of an update; none where the coordinator adds it, or nobody.
    update: Option<Noise>,
    indicator: Option<Noise>,
    answer: Option<Noise>,
}

impl Samplers {
    pub(crate) fn new(guarantee: &Guarantee) -> Self {
        let of = |share| Noise::new(guarantee.noise, share);
        let is_own = matches!(guarantee.placement, Placement::Distributed { .. } | Placement::Local { .. });
        Self {
            update: is_own.then(|| of(guarantee.share)),
            indicator: guarantee.indicator.as_ref().map(|indicator| of(indicator.share)),
            answer: guarantee.evaluation.as_ref().map(|evaluation| of(evaluation.share)),
        }
    }
}

impl Participant {
    /// The client's part of the noise: none where the coordinator adds it.
    pub(super) fn draw_noise(&self, rng: &mut impl CryptoRng) -> Result<Vec<i32>, Refusal> {
        let task = self.task.as_ref().ok_or(unexpected(Kind::Delivery, "before a plan"))?;
        let length = task.plan.plan().model.parameters as usize;
        let guarantee = &task.terms.guarantee;
        let mut noise = match &task.noise.update {
            Some(noise) => noise.sample_vec(length, &mut stream(rng)),
            None if guarantee.has_noise() => vec![0; length],
            None => Vec::new(),
        };
        if let Some(indicator) = &task.noise.indicator {
            noise.extend(indicator.sample_vec(1, &mut stream(rng)));
        }
        Ok(noise)
    }

    /// The client's part of the noise in a sum of answers.
    pub(super) fn draw_answer_noise(&self, rng: &mut impl CryptoRng) -> Result<i32, Refusal> {
        let noise = self.task.as_ref().and_then(|task| task.noise.answer.as_ref());
        let noise = noise.ok_or(unexpected(Kind::Delivery, "in a task whose plan asks for no answers"))?;
        let drawn = noise.sample_vec(1, &mut stream(rng));
        Ok(drawn.first().copied().expect("one was asked for"))
    }

    /// Clip, rotate, round, add noise: the only path from an honest update to the sum. Without noise, clipping is all.
    pub(super) fn contribution(
        &self,
        mut update: Vec<f32>,
        noise: &[i32],
        rng: &mut impl CryptoRng,
    ) -> Result<Values, Refusal> {
        let task = self.task.as_ref().ok_or(unexpected(Kind::Input, "before a plan"))?;
        let model = task.model.ok_or(unexpected(Kind::Input, "before a model"))?;
        let grid = task.terms.guarantee.grid.with_clip(task.clip.1);
        if update.len() != grid.dimension() {
            return Err(Refusal::Update(format!(
                "{} values, the model has {}",
                update.len(),
                grid.dimension()
            )));
        }
        let unusable = |error: NonFinite| Refusal::Update(error.to_string());
        let clipped = clip_l2(&mut update, grid.clip()).map_err(unusable)?;
        if !task.terms.guarantee.has_noise() {
            return Ok(Values::Reals(update));
        }
        // A rotation keeps a sum inside a narrow ring; an update in the clear is in none.
        if task.terms.mode.has_groups() {
            let round = self.record.tasks.get(&task.plan.digest()).map_or(0, |record| record.last_round);
            let seed = task.plan.plan().rotation_seed(round, &model);
            Rotation::new(&seed, update.len()).forward(&mut update);
            // What rounding in f32 may have added to the norm comes off again.
            clip_l2(&mut update, grid.clip()).map_err(unusable)?;
        }
        let mut steps = grid.round(&update, &mut stream(rng));
        if task.terms.guarantee.indicator.is_some() {
            steps.push(AdaptiveClip::indicator(clipped.norm_before, grid.clip()));
        }
        // Both are residues modulo 2^32, which every ring divides.
        Ok(Values::Steps(steps.iter().zip(noise).map(|(&step, &noise)| step.wrapping_add(noise)).collect()))
    }

    /// An attacker's steps as they travel.
    pub(super) fn unbounded(&self, steps: &[i64]) -> Values {
        if let Some(task) = self.task.as_ref().filter(|task| !task.terms.guarantee.has_noise()) {
            let real = task.terms.guarantee.grid.to_real(steps);
            return Values::Reals(real.into_iter().map(|value| value as f32).collect());
        }
        let mut steps: Vec<i32> = steps.iter().map(|&step| step as i32).collect();
        // Who attacks the sum of updates may leave the indicator alone.
        if steps.len() + 1 == self.input_length() {
            steps.push(INDICATOR_BOUND as i32);
        }
        Values::Steps(steps)
    }

    /// Values of an input, once there is a plan.
    fn input_length(&self) -> usize {
        self.task.as_ref().map_or(0, |task| task.terms.guarantee.input_length())
    }
}

/// A generator for one purpose in one round: its seed is of `rng`, and nothing else is drawn from it.
fn stream(rng: &mut impl CryptoRng) -> ChaCha20Rng {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut());
    ChaCha20Rng::from_seed(*seed)
}
