//! The clients of a scenario: their data, who is poisoned, who vanishes when.

use std::sync::{Mutex, PoisonError};

use fedveil_coordinator_core::Millis;
use fedveil_learning::{Dataset, ModelSpec, permutation};
use fedveil_proto::Kind;
use rand_core::Rng;

use super::{AvailabilitySection, DevicesSection, NetworkSection, ScenarioError, Spec};
use crate::attack::{Attack, Conspiracy, Member};
use crate::datasets::{Data, Part};
use crate::federation::{Contribution, Direction, Message, Scenario, Trained, Work, fraction, stream};
use crate::partition::{Holdings, Shift, Split};
use crate::training::local_update;

/// Messages before which a client may vanish from a round of secure aggregation.
const MOMENTS: [Kind; 4] = [Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask];

/// Everyone who takes part.
pub struct Fleet {
    seed: u64,
    epochs: u32,
    availability: AvailabilitySection,
    devices: DevicesSection,
    network: NetworkSection,
    data: Data,
    split: Split,
    shift: Option<Shift>,
    /// On which a backdoor shows, if the attack is one.
    bait: Option<Dataset>,
    /// The poisoned by number, sorted, and what they share.
    poisoned: Vec<usize>,
    conspiracy: Option<Mutex<Conspiracy>>,
}

impl Fleet {
    /// Deals the data, which are those of the scenario, and appoints the poisoned. `model` must fit the data.
    pub fn new(spec: &Spec, data: Data, model: &ModelSpec) -> Result<Self, ScenarioError> {
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
        model.check_data(&share(0)?).map_err(|error| ScenarioError::section("model.architecture", error))?;
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
            conspiracy = Some(Mutex::new(Conspiracy::new(attack, members, Dataset::clone, seed)));
            if attack.spec().poison.is_some() {
                let test = all(&data.test)?;
                bait =
                    attack.success_set(&test).map_err(|error| ScenarioError::section("attackers", error))?;
            }
        }
        Ok(Self {
            seed: spec.seed,
            epochs: spec.training.epochs,
            availability: spec.availability.clone(),
            devices: spec.devices.clone(),
            network: spec.network.clone(),
            data,
            split,
            shift: spec.shift,
            bait,
            poisoned,
            conspiracy,
        })
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
        self.bait.as_ref()
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

    /// The message before which a client vanishes from a round, if it does. The poisoned stay.
    fn vanishes_before(&self, client: usize, round: u32, plain: bool) -> Option<Kind> {
        let dropout = self.availability.dropout;
        if dropout == 0.0 || round == 0 || self.poisoned.binary_search(&client).is_ok() {
            return None;
        }
        if fraction(self.seed, "drop out", client, round) >= dropout {
            return None;
        }
        let moment = stream(self.seed, "moment", client, round).next_u32() as usize % MOMENTS.len();
        Some(if plain { Kind::PlainInput } else { MOMENTS[moment] })
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
        let update = local_update(&data, model, plan, seed).map_err(|error| error.to_string())?;
        Ok(Contribution::Update(update).into())
    }

    fn training_time(&self, client: usize, _round: u32) -> u64 {
        let DevicesSection { milliseconds_per_example, straggler_share, straggler_factor } = self.devices;
        if milliseconds_per_example == 0.0 {
            return 0;
        }
        let is_straggler = fraction(self.seed, "straggler", client, 0) < straggler_share;
        let slower = if is_straggler { straggler_factor } else { 1.0 };
        let examples = self.split.size_of(client) as f64 * f64::from(self.epochs);
        (milliseconds_per_example * examples * slower).round() as u64
    }

    /// A client is there or not for ten minutes at a time; its day is that of its own time zone.
    fn available(&self, client: usize, now: Millis) -> bool {
        let AvailabilitySection { online, daily_swing, .. } = self.availability;
        if online >= 1.0 && daily_swing == 0.0 {
            return true;
        }
        let slot = (now.0 / 600_000) as u32;
        let zone = fraction(self.seed, "time zone", client, 0);
        let day = now.0 as f64 / 86_400_000.0 + zone;
        let share = online * (1.0 + daily_swing * (std::f64::consts::TAU * day).cos());
        fraction(self.seed, "online", client, slot) < share
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        self.vanishes_before(client, round, before == Kind::PlainInput) == Some(before)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        let NetworkSection { latency_ms, up_kbit_per_second, down_kbit_per_second, loss } = self.network;
        let Message { client, direction, kind, .. } = message;
        let draw = |purpose: &str| {
            let name = format!("{purpose} {direction:?} {kind:?} {}", now.0);
            fraction(self.seed, &name, client, 0)
        };
        if loss > 0.0 && draw("loss") < loss {
            return Vec::new();
        }
        let rate = if direction == Direction::Up { up_kbit_per_second } else { down_kbit_per_second };
        let mut delay = if rate > 0.0 { 8.0 * message.bytes.len() as f64 / rate } else { 0.0 };
        if latency_ms > 0.0 {
            delay += latency_ms * (0.5 + draw("latency"));
        }
        vec![(Millis(now.0 + delay.round() as u64), message)]
    }
}

/// All rows of a part.
fn all(part: &Part) -> Result<Dataset, ScenarioError> {
    let rows: Vec<u32> = (0..part.rows() as u32).collect();
    part.dataset(&rows).map_err(|error| ScenarioError::section("data", error))
}
