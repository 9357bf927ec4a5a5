//! The clients of a scenario: their data, what they compute, who is poisoned, and the world around them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedveil_coordinator_core::Millis;
use fedveil_learning::{Dataset, permutation};
use fedveil_proto::Kind;
use rand_core::Rng;

use super::sections::{ALL, SAMPLE};
use super::{Planned, ScenarioError, Spec};
use crate::algorithm::Runner;
use crate::attack::{Attack, Conspiracy, Member};
use crate::datasets::{Data, Part};
use crate::federation::{Contribution, Message, Scenario, Trace, Trained, Work, World, stream};
use crate::partition::{Holdings, Shift, Split};

/// Everyone who takes part. Copies share the data and the conspiracy, and have links of their own.
#[derive(Clone)]
pub struct Fleet {
    seed: u64,
    runner: Runner,
    world: World,
    data: Arc<Data>,
    split: Arc<Split>,
    shift: Option<Shift>,
    /// On which a backdoor shows, if the attack is one.
    bait: Option<Arc<Dataset>>,
    /// The poisoned by number, sorted, and what they share.
    poisoned: Vec<usize>,
    conspiracy: Option<Arc<Mutex<Conspiracy>>>,
    /// Whether they keep anything from round to round.
    remembers: bool,
    /// What honest clients of a round send, where the poisoned see that: they answer in the middle of the phase.
    seen: Option<Arc<Mutex<Seen>>>,
    half_a_phase: u64,
}

/// Updates of a round by client, clipped.
#[derive(Default)]
struct Seen {
    round: u32,
    updates: BTreeMap<usize, Vec<f32>>,
}

impl Fleet {
    /// Deals the data, which are those of the scenario, and appoints the poisoned. The model must fit the data.
    pub fn new(spec: &Spec, planned: &Planned, data: Data) -> Result<Self, ScenarioError> {
        let clients = spec.population.clients as usize;
        let mut poisoned = permutation(clients, &mut stream(spec.seed, "poisoned", 0, 0));
        poisoned.truncate(spec.attackers.clients as usize);
        poisoned.sort_unstable();
        let split = if spec.attackers.data == SAMPLE {
            Split::beside(&data.train, &spec.partition, clients, &poisoned, spec.seed)
        } else {
            Split::new(&data.train, &spec.partition, clients, spec.seed)
        };
        let split = split.map_err(|error| ScenarioError::section("partition", error))?;
        if let Some(shift) = &spec.shift {
            shift.check(&data.train).map_err(|error| ScenarioError::section("shift", error))?;
        }
        let share = |client| {
            split
                .dataset(&data.train, client, spec.shift.as_ref())
                .map_err(|error| ScenarioError::section("data", error))
        };
        planned
            .model
            .check_data(&share(0)?)
            .map_err(|error| ScenarioError::section("model.architecture", error))?;
        let attack = Attack::new(&spec.attackers.attack, spec.attackers.strength)
            .map_err(|error| ScenarioError::section("attackers", error))?;
        let (mut conspiracy, mut bait) = (None, None);
        let is_attacked = !poisoned.is_empty();
        if is_attacked {
            let member = |&client: &usize| {
                Ok(Member { data: share(client)?, seed: stream(spec.seed, "training", client, 0).next_u64() })
            };
            let members = poisoned.iter().map(member).collect::<Result<_, ScenarioError>>()?;
            let seed = stream(spec.seed, "attack", 0, 0).next_u64();
            let colluders = Conspiracy::new(attack, members, Dataset::clone, seed);
            conspiracy = Some(Arc::new(Mutex::new(colluders.training_by(planned.runner.clone()))));
            if attack.spec().poison.is_some() {
                let test = all(&data.test)?;
                bait =
                    attack.success_set(&test).map_err(|error| ScenarioError::section("attackers", error))?;
            }
        }
        let world = World::new(spec.conditions(), spec.seed)
            .map_err(|error| ScenarioError::Inconsistent(error.to_string()))?;
        Ok(Self {
            seed: spec.seed,
            runner: planned.runner.clone(),
            world,
            data: data.into(),
            split: split.into(),
            shift: spec.shift,
            bait: bait.map(Arc::new),
            poisoned,
            conspiracy,
            remembers: spec.attackers.attack == "lazy" || planned.runner.about().client_keeps != "nothing",
            seen: (is_attacked && spec.attackers.knowledge == ALL).then(Arc::default),
            half_a_phase: u64::from(spec.phase_seconds) * 500,
        })
    }

    /// Lets clients be there at the times of a trace alone.
    pub fn set_trace(&mut self, trace: Trace) {
        self.world.set_trace(trace);
    }

    /// Whether a run can go on in the middle: what clients do follows from the model, the round and what the engine keeps.
    /// Attackers keep what they keep to themselves: a lazy one the models that it has seen.
    pub fn is_resumable(&self) -> bool {
        self.poisoned.is_empty() || !self.remembers
    }

    /// The algorithm.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// What a client trains on.
    pub fn share(&self, client: usize) -> Result<Dataset, ScenarioError> {
        self.split
            .dataset(&self.data.train, client, self.shift.as_ref())
            .map_err(|error| ScenarioError::section("data", error))
    }

    /// The data.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Who holds what.
    pub fn holdings(&self) -> Holdings {
        Holdings::of(&self.split, &self.data.train, &self.data.class_names)
    }

    /// Rows labelled as a backdoor's attacker wants them; none where there is no backdoor.
    pub fn bait(&self) -> Option<&Dataset> {
        self.bait.as_deref()
    }

    /// The poisoned, by number.
    pub fn poisoned(&self) -> &[usize] {
        &self.poisoned
    }

    /// Bytes of memory that the data take, roughly: a byte for a pixel, four for another feature or a token.
    pub fn data_bytes(&self) -> u64 {
        let of = |part: &Part| {
            let size = if part.shape().is_some() { 1 } else { 4 };
            part.rows() as u64 * (size * part.inputs() as u64 + 8)
        };
        of(&self.data.train) + of(&self.data.test)
    }
}

impl Scenario for Fleet {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        let &Work { client, round, model, plan, .. } = work;
        if let (Ok(member), Some(conspiracy)) = (self.poisoned.binary_search(&client), &self.conspiracy) {
            let mut conspiracy = conspiracy.lock().unwrap_or_else(PoisonError::into_inner);
            let forged = match &self.seen {
                None => conspiracy.contribute(member, round, model, plan),
                Some(seen) => {
                    let honest = || reals(&locked(seen), round);
                    conspiracy.contribute_seeing(member, round, model, plan, honest)
                }
            };
            return forged
                .map(|forged| Contribution::DangerUnbounded(forged).into())
                .map_err(|error| error.to_string());
        }
        let seed = stream(self.seed, "training", client, round).next_u64();
        let sample = self.runner.sample(self.split.size_of(client), seed);
        let data = self
            .split
            .dataset_of(&self.data.train, client, sample.as_deref(), self.shift.as_ref())
            .map_err(|error| error.to_string())?;
        let (vector, memory) =
            self.runner.contribute(work, &data, seed).map_err(|error| error.to_string())?;
        if let Some(seen) = &self.seen {
            locked(seen).note(client, round, &vector, plan.privacy.clip_norm);
        }
        Ok(Trained { contribution: Contribution::Update(vector), memory: memory.map(Into::into) })
    }

    fn looks_at_others(&self, client: usize) -> bool {
        self.seen.is_some() && self.poisoned.binary_search(&client).is_ok()
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        if self.looks_at_others(client) { self.half_a_phase } else { self.world.training_time(client, round) }
    }

    fn available(&self, client: usize, now: Millis) -> bool {
        self.world.available(client, now)
    }

    fn sessions_over(&mut self) {
        self.world.sessions_over();
    }

    fn next_crash(&self, after: Millis) -> Option<Millis> {
        self.world.next_crash(after)
    }

    /// The poisoned stay.
    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        self.poisoned.binary_search(&client).is_err() && self.world.vanishes(client, round, before)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        self.world.route(now, message)
    }
}

impl Seen {
    fn note(&mut self, client: usize, round: u32, update: &[f32], clip_norm: f64) {
        if round > self.round {
            *self = Self { round, updates: BTreeMap::new() };
        }
        let mut update = update.to_vec();
        let norm = update.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if norm > clip_norm {
            let shrink = (clip_norm / norm) as f32;
            for value in &mut update {
                *value *= shrink;
            }
        }
        self.updates.insert(client, update);
    }
}

/// The updates of a round, in the order of the clients' numbers; none of another round.
fn reals(seen: &Seen, round: u32) -> Vec<Vec<f64>> {
    let updates = seen.updates.values().filter(|_| seen.round == round);
    updates.map(|update| update.iter().map(|&value| f64::from(value)).collect()).collect()
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All rows of a part.
fn all(part: &Part) -> Result<Dataset, ScenarioError> {
    let rows: Vec<u32> = (0..part.rows() as u32).collect();
    part.dataset(&rows).map_err(|error| ScenarioError::section("data", error))
}
