//! The clients of a scenario: their data, what they compute, who is poisoned, and the world around them.

use std::sync::{Arc, Mutex, PoisonError};

use fedveil_coordinator_core::Millis;
use fedveil_learning::{Dataset, permutation};
use fedveil_proto::Kind;
use rand_core::Rng;

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
}

impl Fleet {
    /// Deals the data, which are those of the scenario, and appoints the poisoned. The model must fit the data.
    pub fn new(spec: &Spec, planned: &Planned, data: Data) -> Result<Self, ScenarioError> {
        let clients = spec.population.clients as usize;
        let split = Split::new(&data.train, &spec.partition, clients, spec.seed)
            .map_err(|error| ScenarioError::section("partition", error))?;
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
        let mut poisoned = permutation(clients, &mut stream(spec.seed, "poisoned", 0, 0));
        poisoned.truncate(spec.attackers.clients as usize);
        poisoned.sort_unstable();
        let (mut conspiracy, mut bait) = (None, None);
        if !poisoned.is_empty() {
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
            let forged = conspiracy.contribute(member, round, model, plan);
            return forged
                .map(|forged| Contribution::DangerUnbounded(forged).into())
                .map_err(|error| error.to_string());
        }
        let data = self.share(client).map_err(|error| error.to_string())?;
        let seed = stream(self.seed, "training", client, round).next_u64();
        let (vector, memory) =
            self.runner.contribute(work, &data, seed).map_err(|error| error.to_string())?;
        Ok(Trained { contribution: Contribution::Update(vector), memory: memory.map(Into::into) })
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        self.world.training_time(client, round)
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

/// All rows of a part.
fn all(part: &Part) -> Result<Dataset, ScenarioError> {
    let rows: Vec<u32> = (0..part.rows() as u32).collect();
    part.dataset(&rows).map_err(|error| ScenarioError::section("data", error))
}
