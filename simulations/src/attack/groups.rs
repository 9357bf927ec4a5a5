//! Colluders inside group-wise secure aggregation.
//!
//! What they have: their own data and one another's, pooled before the task; the signed plan, hence group sizes,
//! noise, rule and f; the published models. What they never have: an honest client's update, any group's sum, or which
//! of them share a group.
//!
//! ```text
//!  fellows' honest updates, clipped ──► imagined rounds: honest groups drawn from them with replacement, noise of
//!                                       the plan's size ──► Scene, a row for each group
//! ```
//!
//! An attack crafts the row that it wants, a group's mean. A colluder is one addend of that row: it sends what moves
//! the mean there if the rest of its group is as its fellows' data let expect, and its imagined rows carry what it
//! cannot foresee of that rest. It counts on one colluder in a group.
//!
//! What is sent is rotated as honest updates are, or it would be noise, rounded to the grid and cut to the ring: infinity becomes the largest ring value,
//! 2^(b−1) − 1 steps, which the honest addends may turn into the smallest, as sums wrap.

use chacha20::ChaCha20Rng;
use fedveil_learning::{Dataset, model_file};
use fedveil_privacy::{Guarantee, Rotation};
use fedveil_proto_plan::{Mode, TaskPlan, Terms};
use fedveil_provenance::Digest;
use rand_core::{Rng, SeedableRng};

use super::knowledge::{Knowledge, Needs, Scene};
use super::registry::Sends;
use super::statistics::{mean, norm, with_norm};
use super::{Attack, AttackError};
use crate::sampling::{standard_normal, uniform};
use crate::training::local_update;

/// Rounds that colluders imagine before they settle on an update.
const SCENES: usize = 4;

/// A colluder's share of the data.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its examples, as images where the attack paints on them.
    pub data: Dataset,
    /// Seed of its training; the number of the round is added to it.
    pub seed: u64,
}

/// Colluders, with all that they know together. Each has a copy, and from equal copies they forge in concert.
#[derive(Clone, Debug)]
pub struct Conspiracy {
    attack: Attack,
    members: Vec<Member>,
    features: fn(&Dataset) -> Dataset,
    seed: u64,
    /// The last published model, and its difference to the one before.
    published: Option<(Vec<f32>, Option<Vec<f64>>)>,
}

impl Conspiracy {
    /// Colluders who run `attack`. `features` makes of data what the model takes. Randomness comes from `seed`.
    ///
    /// Panics without a member.
    pub fn new(attack: Attack, members: Vec<Member>, features: fn(&Dataset) -> Dataset, seed: u64) -> Self {
        assert!(!members.is_empty(), "a conspiracy has a member");
        Self { attack, members, features, seed, published: None }
    }

    /// What a member gives to a round in place of its update: steps of the grid, to enter the sum unclipped and
    /// without noise. `model` is the published one, a safetensors file; rounds come in their order.
    pub fn contribute(
        &mut self,
        member: usize,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<i64>, AttackError> {
        let terms = plan.check()?;
        let clip = plan.privacy.clip_norm;
        let last_step = self.note(model)?;
        let own = self.own_update(member, round, model, plan)?;
        let mut knowledge = Knowledge::alone(&own);
        if let Some(step) = &last_step {
            knowledge = knowledge.with_last_step(step);
        }
        let mut expected = Vec::new();
        if self.attack.spec.needs() != Needs::Nothing {
            let fellows = self.honest_updates(round, model, plan)?;
            expected = mean(&fellows.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let scenes = imagine(&fellows, &expected, plan, &terms, &mut self.rng(round, None));
            knowledge = knowledge
                .with_others(fellows, scenes)
                .with_rule(&terms.rule, plan.server.assumed_byzantine as usize);
        }
        let mut rng = self.rng(round, Some(member));
        let vector = self.attack.craft(&knowledge, &mut rng)?;
        let sent = match self.attack.spec.sends {
            Sends::AsItIs => vector,
            Sends::OfNorm(norm) => {
                let norm = clip * self.attack.strength.unwrap_or(norm);
                with_norm(&vector, norm).unwrap_or_else(|| any_direction(vector.len(), norm, &mut rng))
            }
            Sends::Replacing => {
                let share = f64::from(plan.cohort.clients) / self.members.len() as f64;
                let factor = if self.attack.strength.is_none() { share } else { 1.0 };
                vector.iter().map(|value| factor * value).collect()
            }
            Sends::GroupMean => {
                let (_, size, divisor) = rows(plan, &terms);
                let rest = (size - 1) as f64;
                vector
                    .iter()
                    .zip(&expected)
                    .map(|(wanted, rest_of)| divisor * wanted - rest * rest_of)
                    .collect()
            }
        };
        let seed = plan.rotation_seed(round, &Digest::of(model));
        Ok(on_the_grid(&sent, &Rotation::new(&seed, sent.len()), &terms.guarantee))
    }

    /// Remembers the published model; gives its difference to the one seen before.
    fn note(&mut self, model: &[u8]) -> Result<Option<Vec<f64>>, AttackError> {
        let (_, new) = model_file::from_safetensors(model)?;
        let step = match &self.published {
            // Asked again in the same round.
            Some((old, step)) if *old == new => step.clone(),
            Some((old, _)) => {
                Some(new.iter().zip(old).map(|(new, old)| f64::from(*new) - f64::from(*old)).collect())
            }
            None => None,
        };
        self.published = Some((new, step.clone()));
        Ok(step)
    }

    /// The update of a member's data, poisoned if the attack does that. Backdoors are trained on everybody's.
    fn own_update(
        &self,
        member: usize,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<f64>, AttackError> {
        let Member { data, seed } = &self.members[member];
        let data = match self.attack.spec.poison {
            None => data.clone(),
            Some(poison) if poison.is_backdoor() => poison.apply(&self.pooled()?)?,
            Some(poison) => poison.apply(data)?,
        };
        self.trained(&data, *seed, round, model, plan)
    }

    /// What every member would send if it were honest.
    fn honest_updates(
        &self,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<Vec<f64>>, AttackError> {
        let honest = |Member { data, seed }: &Member| {
            let update = self.trained(data, *seed, round, model, plan)?;
            let shrink = (plan.privacy.clip_norm / norm(&update)).min(1.0);
            Ok(update.iter().map(|value| shrink * value).collect())
        };
        self.members.iter().map(honest).collect()
    }

    fn trained(
        &self,
        data: &Dataset,
        seed: u64,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<f64>, AttackError> {
        let seed = seed.wrapping_add(u64::from(round));
        let update = local_update(&(self.features)(data), model, plan, seed)?;
        Ok(update.into_iter().map(f64::from).collect())
    }

    /// The data of all members.
    fn pooled(&self) -> Result<Dataset, AttackError> {
        let data = || self.members.iter().map(|member| &member.data);
        let first = &self.members[0].data;
        Ok(Dataset::new(
            data().flat_map(Dataset::features).copied().collect(),
            data().flat_map(Dataset::labels).copied().collect(),
            first.inputs(),
            first.classes(),
        )?)
    }

    /// The random stream of a round: a member's own, or the one that all have in common.
    fn rng(&self, round: u32, member: Option<usize>) -> ChaCha20Rng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&round.to_le_bytes());
        seed[12..20].copy_from_slice(&member.map_or(0, |member| member as u64 + 1).to_le_bytes());
        ChaCha20Rng::from_seed(seed)
    }
}

/// Steps of the grid, rotated as honest updates are and cut to the ring.
fn on_the_grid(sent: &[f64], rotation: &Rotation, guarantee: &Guarantee) -> Vec<i64> {
    let mut sent: Vec<f32> = sent.iter().map(|&value| value as f32).collect();
    // Infinity has no direction to turn: every coordinate of the ring takes it.
    if sent.iter().all(|value| value.is_finite()) {
        rotation.forward(&mut sent);
    }
    let largest = (1_i64 << (guarantee.ring_bits - 1)) - 1;
    let steps = |value: &f32| (f64::from(*value) * guarantee.grid.scale()).round() as i64;
    sent.iter().map(|value| steps(value).clamp(-largest, largest)).collect()
}

/// Rows that the rule is expected to see, clients in each, and what their sums are divided by.
fn rows(plan: &TaskPlan, terms: &Terms) -> (usize, usize, f64) {
    let clients = plan.cohort.clients;
    match terms.mode {
        Mode::InsecurePlain => (clients as usize, 1, 1.0),
        Mode::Secagg | Mode::InsecureIdeal => {
            let size = f64::from(clients) / f64::from(terms.groups);
            (terms.groups as usize, size.round() as usize, f64::from(plan.aggregation.group_size))
        }
    }
}

/// Rounds as they may come: groups drawn from the fellows' updates, under the plan's noise.
fn imagine(
    fellows: &[Vec<f64>],
    expected: &[f64],
    plan: &TaskPlan,
    terms: &Terms,
    rng: &mut impl Rng,
) -> Vec<Scene> {
    let (groups, size, divisor) = rows(plan, terms);
    // Without groups the coordinator adds the noise, after the rule.
    let share = match terms.mode {
        Mode::InsecurePlain => 0.0,
        Mode::Secagg | Mode::InsecureIdeal => {
            (terms.guarantee.share.get() as f64).sqrt() / terms.guarantee.grid.scale()
        }
    };
    let mut sum = |addends: usize| -> Vec<f64> {
        let noise = share * (addends as f64).sqrt();
        let mut sum: Vec<f64> = expected.iter().map(|_| noise * standard_normal(rng)).collect();
        for _ in 0..addends {
            let drawn = ((uniform(rng) * fellows.len() as f64).ceil() as usize - 1).min(fellows.len() - 1);
            sum.iter_mut().zip(&fellows[drawn]).for_each(|(sum, value)| *sum += value);
        }
        sum
    };
    let groups = groups.max(2);
    let byzantine = fellows.len().min(groups - 1);
    let mut scene = || Scene {
        honest: (byzantine..groups)
            .map(|_| sum(size).iter().map(|value| value / divisor).collect())
            .collect(),
        veils: (0..byzantine)
            .map(|_| {
                let rest = sum(size - 1);
                let foreseen = expected.iter().map(|value| value * (size - 1) as f64);
                rest.iter().zip(foreseen).map(|(sum, foreseen)| (sum - foreseen) / divisor).collect()
            })
            .collect(),
    };
    (0..SCENES).map(|_| scene()).collect()
}

/// A uniformly random direction: what a loud attack sends that has none of its own.
fn any_direction(length: usize, norm: f64, rng: &mut impl Rng) -> Vec<f64> {
    let direction: Vec<f64> = (0..length).map(|_| standard_normal(rng)).collect();
    with_norm(&direction, norm).unwrap_or(direction)
}
