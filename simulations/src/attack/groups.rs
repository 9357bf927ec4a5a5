//! Colluders in a round: inside group-wise secure aggregation, or one row each in mode `insecure_plain`.
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
//! What is sent is rotated as honest updates are, or it would be noise, rounded to the grid and cut to the ring: infinity
//! becomes the largest ring value, 2^(b−1) − 1 steps, which the honest addends may turn into the smallest, as sums wrap.
//!
//! In mode `insecure_plain` a colluder is a row of its own, nothing is rotated, and a coordinator that refuses updates
//! beyond the clip norm gets none. There colluders may also be given what the honest clients of the round send
//! ([`Conspiracy::contribute_seeing`]): the omniscient attackers of the papers, for comparisons with their tables. Then
//! every attack is the one that was published, and a loud one is no louder than its formula unless it is told to be.

use std::collections::BTreeMap;

use chacha20::ChaCha20Rng;
use fedveil_learning::{Dataset, model_file};
use fedveil_privacy::{Guarantee, Rotation};
use fedveil_proto_plan::{Mode, TaskPlan, Terms};
use fedveil_provenance::Digest;
use rand_core::{Rng, SeedableRng};

use super::knowledge::{Knowledge, Needs, Scene};
use super::registry::Sends;
use super::statistics::{mean, norm, with_norm};
use super::{Attack, AttackError, Poison};
use crate::algorithm::Runner;
use crate::federation::Work;
use crate::sampling::{standard_normal, uniform};
use crate::training::local_update;

/// Rounds that colluders imagine before they settle on an update.
const SCENES: usize = 4;
/// How much of the clip norm a row has that must not be refused for being longer, whatever rounding adds.
const BELOW_THE_CLIP_NORM: f64 = 1.0 - 1e-4;

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
    /// The algorithm that honest clients run, where it is more than the plan's training.
    algorithm: Option<Runner>,
    /// The last published model, and its difference to the one before.
    published: Option<(Vec<f32>, Option<Vec<f64>>)>,
    /// What all of them aim at in a round, which takes the same from each.
    target: Option<(u32, Target)>,
    /// What the algorithm keeps of its last step, by member and whether its data were poisoned.
    kept: BTreeMap<(usize, bool), Kept>,
}

/// A vector that does not depend on who sends it.
#[derive(Clone, Debug)]
struct Target {
    vector: Vec<f64>,
    /// The mean of the fellows' honest updates.
    expected: Vec<f64>,
}

/// Memory of an algorithm, before and after a round.
#[derive(Clone, Debug)]
struct Kept {
    round: u32,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

impl Conspiracy {
    /// Colluders who run `attack`. `features` makes of data what the model takes. Randomness comes from `seed`.
    ///
    /// Panics without a member.
    pub fn new(attack: Attack, members: Vec<Member>, features: fn(&Dataset) -> Dataset, seed: u64) -> Self {
        assert!(!members.is_empty(), "a conspiracy has a member");
        let (published, target, kept) = (None, None, BTreeMap::new());
        Self { attack, members, features, seed, algorithm: None, published, target, kept }
    }

    /// Colluders whose honest updates are those of an algorithm, as everybody's are, and not of the plan's training alone.
    #[must_use]
    pub fn training_by(self, algorithm: Runner) -> Self {
        Self { algorithm: Some(algorithm), ..self }
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
        self.forge(member, round, model, plan, None)
    }

    /// The same, of colluders who see what the honest clients of the round send, in model units: `honest` gives it, and is
    /// asked once a round at most. Nobody sees that in a mode with groups.
    pub fn contribute_seeing(
        &mut self,
        member: usize,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
        honest: impl FnOnce() -> Vec<Vec<f64>>,
    ) -> Result<Vec<i64>, AttackError> {
        self.forge(member, round, model, plan, Some(Box::new(honest)))
    }

    fn forge(
        &mut self,
        member: usize,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
        honest: Option<Box<dyn FnOnce() -> Vec<Vec<f64>> + '_>>,
    ) -> Result<Vec<i64>, AttackError> {
        let terms = plan.check()?;
        if honest.is_some() && terms.mode.has_groups() {
            return Err(AttackError::Hidden { mode: terms.mode.name() });
        }
        let last_step = self.note(model)?;
        let (is_omniscient, mut rng) = (honest.is_some(), self.rng(round, Some(member)));
        let (vector, expected) = if self.attack.spec.needs() == Needs::Nothing {
            let own = self.own_update(member, round, model, plan)?;
            let knowledge = Knowledge::alone(&own);
            let knowledge = match &last_step {
                Some(step) => knowledge.with_last_step(step),
                None => knowledge,
            };
            (self.attack.craft(&knowledge, &mut rng)?, Vec::new())
        } else {
            if self.target.as_ref().is_none_or(|(of, _)| *of != round) {
                let target = self.aim(round, model, plan, &terms, honest)?;
                self.target = Some((round, target));
            }
            let Some((_, Target { vector, expected })) = &self.target else {
                unreachable!("they have just aimed")
            };
            (vector.clone(), expected.clone())
        };
        let mut sent = self.as_sent(vector, &expected, plan, &terms, is_omniscient, &mut rng);
        if terms.mode == Mode::InsecurePlain && plan.privacy.clip_norm.is_finite() {
            let longest = plan.privacy.clip_norm * BELOW_THE_CLIP_NORM;
            sent = with_norm(&sent, norm(&sent).min(longest)).unwrap_or(sent);
        }
        let seed = terms.mode.has_groups().then(|| plan.rotation_seed(round, &Digest::of(model)));
        let rotation = seed.map(|seed| Rotation::new(&seed, sent.len()));
        Ok(on_the_grid(&sent, rotation.as_ref(), &terms.guarantee))
    }

    /// The vector of an attack that knows of others, which is the same whoever sends it.
    fn aim(
        &mut self,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
        terms: &Terms,
        honest: Option<Box<dyn FnOnce() -> Vec<Vec<f64>> + '_>>,
    ) -> Result<Target, AttackError> {
        let byzantine = plan.server.assumed_byzantine as usize;
        let mut rng = self.rng(round, None);
        if let Some(honest) = honest {
            let honest = honest();
            if honest.is_empty() {
                return Err(AttackError::NobodySeen);
            }
            // Of the round's clients, those who were not seen.
            let unseen = (plan.cohort.clients as usize).saturating_sub(honest.len());
            let forged = unseen.clamp(1, self.members.len());
            let knowledge = Knowledge::of_honest(&honest, forged).with_rule(&terms.rule, byzantine);
            let vector = self.attack.craft(&knowledge, &mut rng)?;
            return Ok(Target { vector, expected: Vec::new() });
        }
        let fellows = self.honest_updates(round, model, plan)?;
        let expected = mean(&fellows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let scenes = imagine(&fellows, &expected, plan, terms, &mut rng);
        let first = &fellows[0];
        let knowledge =
            Knowledge::alone(first).with_others(first.clone(), scenes).with_rule(&terms.rule, byzantine);
        let vector = self.attack.craft(&knowledge, &mut rng)?;
        Ok(Target { vector, expected })
    }

    /// The vector as one client's input.
    fn as_sent(
        &self,
        vector: Vec<f64>,
        expected: &[f64],
        plan: &TaskPlan,
        terms: &Terms,
        is_omniscient: bool,
        rng: &mut ChaCha20Rng,
    ) -> Vec<f64> {
        let strength = self.attack.strength;
        match self.attack.spec.sends {
            Sends::AsItIs => vector,
            Sends::OfNorm(_) if is_omniscient && strength.is_none() => vector,
            Sends::OfNorm(default) => {
                // Where nothing is clipped there is no other measure than the vector's own norm.
                let clip = plan.privacy.clip_norm;
                let unit = if clip.is_finite() { clip } else { norm(&vector) };
                let wanted = unit * strength.unwrap_or(default);
                with_norm(&vector, wanted).unwrap_or_else(|| any_direction(vector.len(), wanted, rng))
            }
            Sends::Replacing => {
                let share = f64::from(plan.cohort.clients) / self.members.len() as f64;
                let factor = if strength.is_none() { share } else { 1.0 };
                vector.iter().map(|value| factor * value).collect()
            }
            Sends::GroupMean if terms.mode == Mode::InsecurePlain => vector,
            Sends::GroupMean => {
                let (_, size, divisor) = rows(plan, terms);
                let rest = (size - 1) as f64;
                let addend = |(wanted, rest_of): (&f64, &f64)| divisor * wanted - rest * rest_of;
                vector.iter().zip(expected).map(addend).collect()
            }
        }
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
        &mut self,
        member: usize,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<f64>, AttackError> {
        let poison = self.attack.spec.poison;
        let pooled = poison.is_some_and(Poison::is_backdoor).then(|| self.pooled()).transpose()?;
        self.trained(member, pooled.as_ref(), poison, round, model, plan)
    }

    /// What every member would send if it were honest.
    fn honest_updates(
        &mut self,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<Vec<f64>>, AttackError> {
        let mut honest = Vec::with_capacity(self.members.len());
        for member in 0..self.members.len() {
            let update = self.trained(member, None, None, round, model, plan)?;
            let shrink = (plan.privacy.clip_norm / norm(&update)).min(1.0);
            honest.push(update.iter().map(|value| shrink * value).collect());
        }
        Ok(honest)
    }

    /// A member's update from `data`, or its own where there are none, poisoned where there is a poison.
    fn trained(
        &mut self,
        member: usize,
        data: Option<&Dataset>,
        poison: Option<Poison>,
        round: u32,
        model: &[u8],
        plan: &TaskPlan,
    ) -> Result<Vec<f64>, AttackError> {
        let Member { data: own, seed } = &self.members[member];
        let data = data.unwrap_or(own);
        let seed = seed.wrapping_add(u64::from(round));
        // A batch is drawn before anything is done to the rows, which are many.
        let sample = self.algorithm.as_ref().and_then(|algorithm| algorithm.sample(data.len(), seed));
        let drawn = sample.map(|rows| data.subset(&rows)).transpose()?;
        let data = drawn.as_ref().unwrap_or(data);
        let poisoned = poison.map(|poison| poison.apply(data)).transpose()?;
        let data = (self.features)(poisoned.as_ref().unwrap_or(data));
        let Some(algorithm) = &self.algorithm else {
            return Ok(local_update(&data, model, plan, seed)?.into_iter().map(f64::from).collect());
        };
        let key = (member, poison.is_some());
        let before = match self.kept.get(&key) {
            Some(kept) if kept.round == round => kept.before.clone(),
            Some(kept) => kept.after.clone(),
            None => None,
        };
        let work = Work { client: member, round, model, staleness: 0, plan, memory: before.as_deref() };
        let (update, after) = algorithm.contribute(&work, &data, seed)?;
        let after = after.or_else(|| before.clone());
        self.kept.insert(key, Kept { round, before, after });
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

/// Steps of the grid, rotated where honest updates are, and cut to the ring.
fn on_the_grid(sent: &[f64], rotation: Option<&Rotation>, guarantee: &Guarantee) -> Vec<i64> {
    let mut sent: Vec<f32> = sent.iter().map(|&value| value as f32).collect();
    // Infinity has no direction to turn: every coordinate of the ring takes it.
    if let Some(rotation) = rotation
        && sent.iter().all(|value| value.is_finite())
    {
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
