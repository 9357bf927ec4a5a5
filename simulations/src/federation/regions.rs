//! Client, region and cloud: a federation whose clients are federations (HierFAVG; Liu et al. 2020, arXiv:1905.06641).
//!
//! ```text
//!  cloud ──model──► region ──model──► clients      `rounds` times in a region: cohort, masks, noise, rule
//!        ◄─update── region ◄─updates─ clients      an update of a region: what its rounds have moved the model by
//! ```
//!
//! [`Regions`] is the [`Scenario`] of the cloud. What region i contributes to a round of the cloud is computed by a
//! [`Federation`] of its own, of the same two cores, under a plan of its own: it starts from the cloud's model and runs for the
//! plan's regional rounds. Each level has its mode: regions may aggregate securely and the cloud in the clear, or the other
//! way round. A region counts for as many clients as are in it, or as any other; both are public numbers, which nobody
//! reports.
//!
//! Privacy. Noise is added in the regions, and what the cloud sees is made of regional models that carry it. A region's plan
//! is signed for all the rounds that a region ever runs, those of one round of the cloud times those of the cloud: noise and
//! colluders are sized for as many, and [`Regions::new`] refuses a budget that does not pay for them before anything runs.
//! A client is in one region, so that its guarantee is that of the region's plan, whatever the others do. Noise that the
//! cloud's plan adds protects regions as a whole, and is counted for no client.
//!
//! Invariants
//! - What a region contributes is a function of the cloud's model, the seed, the region, the round of the cloud and what its
//!   clients keep. Keys, cohorts and noise of no two such rounds have a draw in common.
//! - Clients have one number in all of it, and so have the rounds of their region: the nth that it ever runs is round n.
//!
//! Absent: what a region's coordinator would keep from one round of the cloud to the next (momentum, clip norm, the memory of
//! a rule); it begins anew. One clock: that of a region starts at 0 in each round of the cloud, and what it shows at the end
//! the cloud waits for. Coordinators of regions that crash.

use super::draws::bytes;
use super::{
    Attendance, ConditionError, Conditions, Contribution, Federation, Keep, Message, RoundOutcome,
    RoundSummary, Scenario, Setup, SetupError, Trained, Work, World,
};
use bytes::Bytes;
use fedveil_coordinator_core::{Millis, parameters};
use fedveil_proto::Kind;
use fedveil_proto_plan::TaskPlan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// How a population is cut into regions; a section of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hierarchy {
    /// Regions: the clients of the cloud.
    pub regions: u32,
    /// Rounds of a region in one round of the cloud.
    pub rounds: u32,
    /// What a region counts for.
    #[serde(default)]
    pub weights: Weights,
    /// The world between the regions and the cloud. Its `compute` is what a region takes besides its rounds.
    #[serde(default)]
    pub conditions: Conditions,
}

/// What a region counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// As much as any other.
    #[default]
    Uniform,
    /// As many clients as are in it.
    Clients,
}

/// The clients of the cloud: federations, whose scenarios `make` makes by region and round of the cloud.
pub struct Regions<F> {
    /// A region, but for its clients, its seed and what it starts from.
    region: Setup,
    /// Rounds of a region in one round of the cloud.
    rounds: u32,
    /// Number of a region's first client, and behind the last region that of all.
    firsts: Vec<usize>,
    /// Factors of the regions' updates, of mean 1.
    weights: Vec<f32>,
    make: F,
    world: World,
    /// The newest round of the cloud, and what became of regions in it.
    newest: Mutex<(u32, BTreeMap<usize, Vec<RoundSummary>>)>,
}

/// Why there are no such regions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HierarchyError {
    /// Not that many regions.
    #[error("hierarchy.regions is {found}, accepted is 1 to {clients}, the clients there are")]
    Regions {
        /// Regions asked for.
        found: u32,
        /// All clients.
        clients: usize,
    },
    /// The cloud has other clients.
    #[error("the cloud has {found} clients, accepted is {regions}, its regions")]
    Cloud {
        /// Clients of the cloud's federation.
        found: usize,
        /// Regions.
        regions: u32,
    },
    /// Rounds that are none, or that cannot be counted.
    #[error(
        "hierarchy.rounds is {found}, accepted is a number from 1 of which {cloud} times as many can be counted"
    )]
    Rounds {
        /// Rounds of a region asked for.
        found: u32,
        /// Rounds of the cloud.
        cloud: u32,
    },
    /// The levels train different models.
    #[error("the regions' model is {found}, the cloud's is {expected}")]
    Model {
        /// Architecture and parameters of the regions' plan.
        found: String,
        /// Those of the cloud's.
        expected: String,
    },
    /// Noise that would have to go on where a region's coordinator begins anew.
    #[error(
        "privacy.correlated_noise is not for regions: each round of the cloud begins a region's noise anew"
    )]
    CorrelatedNoise,
    /// The budget does not pay for all rounds.
    #[error(
        "a client's region runs {rounds} rounds, which cost epsilon {cost:.2}; privacy.epsilon is {budget}, which pays for \
         {affordable}"
    )]
    Budget {
        /// Rounds of a region in all rounds of the cloud.
        rounds: u32,
        /// What they cost.
        cost: f64,
        /// The regional plan's ε.
        budget: f64,
        /// Rounds that it pays for.
        affordable: u32,
    },
    /// The world cannot be.
    #[error("hierarchy.conditions: {0}")]
    Conditions(#[from] ConditionError),
    /// A region is no federation.
    #[error("region {region}: {error}")]
    Region {
        /// Its number.
        region: usize,
        /// Why.
        error: SetupError,
    },
}

impl<F, S> Regions<F>
where
    F: Fn(usize, u32) -> S + Sync,
    S: Scenario,
{
    /// `region` is the federation of every region: its plan without its number of rounds, its policy, its attendance;
    /// `clients` are those of all regions together, of which region i has those from i·n/r up to (i+1)·n/r. `cloud` is the
    /// federation that this is the scenario of.
    ///
    /// `make` gives the scenario of a region in a round of the cloud. It is asked by the numbers that clients have among all,
    /// and the numbers that rounds have among all that the region runs.
    pub fn new(
        hierarchy: &Hierarchy,
        cloud: &Setup,
        mut region: Setup,
        make: F,
    ) -> Result<Self, HierarchyError> {
        let &Hierarchy { regions, rounds, weights, ref conditions } = hierarchy;
        let population = region.clients;
        if regions == 0 || regions as usize > population {
            return Err(HierarchyError::Regions { found: regions, clients: population });
        }
        if cloud.clients != regions as usize {
            return Err(HierarchyError::Cloud { found: cloud.clients, regions });
        }
        let model = |plan: &TaskPlan| format!("{} of {}", plan.model.architecture, plan.model.parameters);
        if region.plan.model != cloud.plan.model {
            let (found, expected) = (model(&region.plan), model(&cloud.plan));
            return Err(HierarchyError::Model { found, expected });
        }
        let all = rounds.checked_mul(cloud.plan.rounds).filter(|&all| all > 0);
        region.plan.rounds = all.ok_or(HierarchyError::Rounds { found: rounds, cloud: cloud.plan.rounds })?;
        if region.plan.privacy.correlated_noise.is_some() {
            return Err(HierarchyError::CorrelatedNoise);
        }
        let wrong = |region, error| HierarchyError::Region { region, error };
        let terms = region.plan.check().map_err(|error| wrong(0, error.into()))?;
        if terms.affordable_rounds < region.plan.rounds {
            return Err(HierarchyError::Budget {
                rounds: region.plan.rounds,
                cost: terms.guarantee.epsilon(region.plan.rounds),
                budget: region.plan.privacy.epsilon,
                affordable: terms.affordable_rounds,
            });
        }
        region.seed = cloud.seed;
        (region.threads, region.keep) = (NonZeroUsize::MIN, Keep::Nothing);
        let firsts: Vec<usize> =
            (0..=regions as usize).map(|region| region * population / regions as usize).collect();
        let sizes = firsts.windows(2).map(|pair| pair[1] - pair[0]);
        let factors = sizes.map(|size| match weights {
            Weights::Uniform => 1.0,
            Weights::Clients => (size as f64 * f64::from(regions) / population as f64) as f32,
        });
        let regions = Self {
            rounds,
            weights: factors.collect(),
            firsts,
            make,
            world: World::new(conditions.clone(), cloud.seed)?,
            newest: Mutex::default(),
            region,
        };
        for region in 0..regions.weights.len() {
            regions.setup(region, 1, Bytes::new()).check().map_err(|error| wrong(region, error))?;
        }
        Ok(regions)
    }

    /// The plan of the regions, for all rounds that one of them runs: what a client is guaranteed is of this plan.
    pub fn plan(&self) -> &TaskPlan {
        &self.region.plan
    }

    /// What became of the rounds of each region in the newest round of the cloud that it has computed for, and that round;
    /// 0 before the first.
    pub fn newest(&self) -> (u32, BTreeMap<usize, Vec<RoundSummary>>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The federation of a region in a round of the cloud.
    fn setup(&self, region: usize, round: u32, model: Bytes) -> Setup {
        let clients = self.firsts[region + 1] - self.firsts[region];
        let seed = bytes(self.region.seed, "region", region, round);
        let seed = u64::from_le_bytes(std::array::from_fn(|at| seed[at]));
        let attendance = match self.region.attendance {
            // As they come back from one round of the cloud to the next, clients may between two rounds of the region.
            Attendance::Connected => Attendance::CheckIn { clients },
            attendance => attendance,
        };
        Setup { clients, seed, attendance, initial: Some(model), ..self.region.clone() }
    }

    /// Runs the rounds of a region, and gives what they have moved the model by and what its clients keep.
    fn run(&self, work: &Work<'_>) -> Result<(Vec<f32>, Bytes), String> {
        let region = work.client;
        let before = (work.round - 1) * self.rounds;
        let (first, clients) = (self.firsts[region], self.firsts[region + 1] - self.firsts[region]);
        let scenario = Regional { scenario: (self.make)(region, work.round), first, clients, before };
        let setup = self.setup(region, work.round, Bytes::copy_from_slice(work.model));
        let mut federation = Federation::new(setup, scenario).map_err(|error| error.to_string())?;
        federation.memories = unpacked(work.memory.unwrap_or_default())?;
        let mut told = Vec::new();
        while told.len() < self.rounds as usize
            && let Some(mut summary) = federation.run_round()
        {
            summary.round += before;
            told.push(summary);
        }
        if let Some(error) = federation.failure() {
            return Err(error.to_string());
        }
        let made = told.iter().any(|summary| matches!(summary.outcome, RoundOutcome::Published { .. }));
        let end = federation.coordinator().closed().map(str::to_owned);
        self.note(region, work.round, told.clone());
        let model = federation.model().filter(|_| made).ok_or_else(|| {
            let aborted = told.into_iter().find_map(|summary| match summary.outcome {
                RoundOutcome::Aborted { reason } => Some(reason),
                RoundOutcome::Published { .. } => None,
            });
            let reason = aborted.or(end).unwrap_or_else(|| "it had no round".to_owned());
            format!("region {region} has made no model: {reason}")
        })?;
        let read = |file: &[u8]| parameters(file).map_err(|error| error.to_string());
        let (new, old) = (read(&model)?, read(work.model)?);
        let weight = self.weights[region];
        let update = new.into_iter().zip(old).map(|(new, old)| weight * (new - old)).collect();
        Ok((update, packed(&federation.memories)))
    }

    fn note(&self, region: usize, round: u32, told: Vec<RoundSummary>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.0 != round {
            *newest = (round, BTreeMap::new());
        }
        newest.1.insert(region, told);
    }
}

impl<F, S> Scenario for Regions<F>
where
    F: Fn(usize, u32) -> S + Sync,
    S: Scenario,
{
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        let (update, memory) = self.run(work)?;
        let memory = (!memory.is_empty()).then_some(memory);
        Ok(Trained { contribution: Contribution::Update(update), memory })
    }

    fn training_time(&self, region: usize, round: u32) -> u64 {
        self.world.training_time(region, round)
    }

    fn took(&self, region: usize, round: u32) -> u64 {
        let (newest, told) = &*self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.get(&region).filter(|_| *newest == round).and_then(|told| told.last());
        last.map_or(0, |summary| summary.ended.0)
    }

    fn available(&self, region: usize, now: Millis) -> bool {
        self.world.available(region, now)
    }

    fn sessions_over(&mut self) {
        self.world.sessions_over();
    }

    fn next_crash(&self, after: Millis) -> Option<Millis> {
        self.world.next_crash(after)
    }

    fn vanishes(&mut self, region: usize, round: u32, before: Kind) -> bool {
        self.world.vanishes(region, round, before)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        self.world.route(now, message)
    }
}

/// A scenario, asked by the numbers that clients and rounds have among all.
struct Regional<S> {
    scenario: S,
    first: usize,
    clients: usize,
    /// Rounds that the region ran in earlier rounds of the cloud.
    before: u32,
}

impl<S: Scenario> Regional<S> {
    fn work<'a>(&self, work: &Work<'a>) -> Work<'a> {
        Work { client: self.first + work.client, round: self.before + work.round, ..*work }
    }
}

impl<S: Scenario> Scenario for Regional<S> {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        self.scenario.contribute(&self.work(work))
    }

    fn judge(&self, work: &Work<'_>, new: &[u8]) -> Result<f64, String> {
        self.scenario.judge(&self.work(work), new)
    }

    fn looks_at_others(&self, client: usize) -> bool {
        self.scenario.looks_at_others(self.first + client)
    }

    fn training_time(&self, client: usize, round: u32) -> u64 {
        self.scenario.training_time(self.first + client, self.before + round)
    }

    fn available(&self, client: usize, now: Millis) -> bool {
        self.scenario.available(self.first + client, now)
    }

    fn sessions_over(&mut self) {
        self.scenario.sessions_over();
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        self.scenario.vanishes(self.first + client, self.before + round, before)
    }

    fn route(&mut self, now: Millis, mut message: Message) -> Vec<(Millis, Message)> {
        message.client += self.first;
        let mut routed = self.scenario.route(now, message);
        // Nobody's messages leave the region.
        routed.retain_mut(|(_, message)| match message.client.checked_sub(self.first) {
            Some(client) if client < self.clients => {
                message.client = client;
                true
            }
            _ => false,
        });
        routed
    }
}

/// What clients keep, as the memory of their region: number, length and bytes of each.
pub(super) fn packed(memories: &BTreeMap<u32, Bytes>) -> Bytes {
    let mut packed = Vec::new();
    for (client, memory) in memories {
        packed.extend(client.to_le_bytes());
        packed.extend((memory.len() as u32).to_le_bytes());
        packed.extend_from_slice(memory);
    }
    packed.into()
}

pub(super) fn unpacked(mut packed: &[u8]) -> Result<BTreeMap<u32, Bytes>, String> {
    let mut memories = BTreeMap::new();
    while !packed.is_empty() {
        let cut = || "a region's memory ends inside an entry".to_owned();
        let (client, rest) = packed.split_first_chunk().ok_or_else(cut)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (memory, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
        memories.insert(u32::from_le_bytes(*client), Bytes::copy_from_slice(memory));
        packed = rest;
    }
    Ok(memories)
}
