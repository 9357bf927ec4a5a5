//! Who checks in when: clients for a round, or clients that have finished.
//!
//! ```text
//!  CheckIn    available, drawn at random ──────────────────────────────► devices ──► round
//!  Buffered   available, drawn at random ──► flights ──as many as a cohort have finished──► devices ──► round
//! ```
//!
//! A flight is a client, a model and the time at which it has finished with it. What it contributes is computed when it
//! checks in, from that model; until then nothing is, so that a run goes on from a list of flights. Models are kept while
//! a flight names them.
//!
//! Absent: clients that leave while they train, and what it costs to send a model to one that is given up. The model that
//! a client fetches is counted when it checks in.

use super::draws::{below, stream};
use super::queue::Pending;
use super::{Attendance, Device, Federation, Scenario};
use bytes::Bytes;
use fedveil_coordinator_core::{Command, Millis, Store as _};
use fedveil_provenance::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Time after which more clients connect where those that did are too few for a round.
const CHECK_IN_SECONDS: u32 = 60;
/// How often that is tried for one round, a week of virtual time.
const MOST_CHECK_INS: u32 = 7 * 24 * 60;

/// A client that trains, or has finished and waits. In the order in which they check in: of those that finish together,
/// first who started first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flight {
    /// When it has finished.
    ends: Millis,
    /// Models that there were when it started.
    version: u64,
    client: u32,
    /// The newest of them.
    model: Digest,
}

impl Flight {
    pub(super) fn model(&self) -> Digest {
        self.model
    }

    #[cfg(test)]
    pub(super) fn client(&self) -> u32 {
        self.client
    }
}

impl<S: Scenario> Federation<S> {
    /// Lets those check in whose turn it is, unless there is nothing to check in for.
    pub(super) fn check_in(&mut self) {
        if self.coordinator().closed().is_some() {
            return;
        }
        if self.check_ins >= MOST_CHECK_INS {
            let minimum = self.settings.plan.plan().cohort.minimum;
            let there = self.devices.len();
            let mut reason = format!(
                "no round could open for a week: cohort.minimum is {minimum}, {there} clients are there"
            );
            if let Some(refusal) = self.devices.values().find_map(|device| device.finished()) {
                reason = format!("{reason}, and one has left: {refusal}");
            }
            return self.command(Command::Stop { reason });
        }
        if self.check_ins > 0 {
            self.replace_absent();
        }
        match self.attendance {
            Attendance::Connected => {}
            Attendance::CheckIn { clients } => {
                let wanted = clients.saturating_sub(self.devices.len());
                let there = self.devices.keys().copied().collect();
                let drawn = self.draw(wanted, &there, |_| true);
                self.queue.push(self.now.plus_seconds(CHECK_IN_SECONDS), Pending::CheckIn);
                self.connect_all(drawn);
            }
            Attendance::Buffered { concurrency, max_staleness } => {
                self.start_flights(concurrency, max_staleness);
                self.check_in_finished(concurrency);
            }
        }
    }

    /// So many clients at most that are available, drawn at random among those that are not busy.
    fn draw(&mut self, wanted: usize, busy: &BTreeSet<usize>, may: impl Fn(u32) -> bool) -> Vec<usize> {
        let round = self.coordinator().last_round() + 1;
        let mut rng = stream(self.seed, "check-in", self.check_ins as usize, round);
        self.check_ins += 1;
        let mut order = Shuffle::new(self.population_size);
        let mut drawn = Vec::new();
        while drawn.len() < wanted
            && let Some(client) = order.next(&mut rng)
        {
            if !busy.contains(&client) && may(client as u32) && self.scenario.available(client, self.now) {
                drawn.push(client);
            }
        }
        drawn
    }

    /// Lets go of those who have checked in and will not be ready: their sessions are gone, or what they were sent is lost.
    fn replace_absent(&mut self) {
        let corresponding = self.queue.corresponding();
        let is_absent = |index: &usize, device: &Device| {
            device.session.is_none() || device.model().is_none() && !corresponding.contains(index)
        };
        let absent = self.devices.iter().filter(|(index, device)| is_absent(index, device));
        let absent: Vec<usize> = absent.map(|(index, _)| *index).collect();
        let mut commands = Vec::new();
        for index in absent {
            let Some(mut device) = self.devices.remove(&index) else { continue };
            self.index_of.remove(&device.id());
            self.keep(index as u32, &mut device);
            commands.push(Command::Disconnect { client: device.id() });
        }
        self.commands(commands);
    }

    /// Gives up flights that are too stale, and lets others start until there are so many.
    fn start_flights(&mut self, concurrency: usize, max_staleness: u32) {
        let (version, model) = (self.coordinator().log().size(), self.coordinator().model());
        let Some(model) = model else { return };
        self.flights.retain(|flight| version - flight.version <= u64::from(max_staleness));
        let free = concurrency.saturating_sub(self.flights.len());
        let flying = self.flights.iter().map(|flight| flight.client as usize);
        let busy = flying.chain(self.devices.keys().copied()).collect();
        let paid_for = self.coordinator().terms().affordable_rounds;
        let kept = std::mem::take(&mut self.kept);
        let can_pay = |client| kept.get(&client).is_none_or(|kept| kept.participations < paid_for);
        let drawn = self.draw(free, &busy, can_pay);
        self.kept = kept;
        let round = self.coordinator().last_round() + 1;
        for client in drawn {
            let ends = Millis(self.now.0.saturating_add(self.scenario.training_time(client, round)));
            self.flights.insert(Flight { ends, version, client: client as u32, model });
        }
    }

    /// Lets those check in who have finished, if they fill the buffer, and says when that is asked again.
    fn check_in_finished(&mut self, concurrency: usize) {
        let buffer = self.settings.plan.plan().cohort.clients as usize;
        // Where a whole buffer is ready and no round has opened, one of them cannot take part.
        let are_ready = !self.devices.is_empty() && self.devices.values().all(|it| it.model().is_some());
        let wanted = buffer.saturating_sub(self.devices.len()).max(usize::from(are_ready));
        let full = wanted.checked_sub(1).and_then(|last| self.flights.iter().nth(last)).map(|it| it.ends);
        let retry = self.now.plus_seconds(CHECK_IN_SECONDS);
        let has_finished = |flight: &&Flight| flight.ends <= self.now;
        let back: Vec<Flight> = self.flights.iter().take(wanted).take_while(has_finished).copied().collect();
        if self.devices.is_empty() && back.len() < buffer {
            if self.flights.len() < buffer && self.too_few_can_pay(buffer) {
                return;
            }
            let more = (self.flights.len() < concurrency).then_some(retry);
            let next = full.into_iter().chain(more).min().unwrap_or(retry);
            return self.queue.push(next, Pending::CheckIn);
        }
        self.queue.push(retry, Pending::CheckIn);
        for flight in &back {
            self.flights.remove(flight);
        }
        self.connect_all(back.iter().map(|flight| flight.client as usize).collect());
        let version = self.coordinator().log().size();
        self.progress.stale(back.iter().map(|flight| version - flight.version));
        for Flight { client, version: started, model, .. } in back {
            let model = match self.store.blob(&model) {
                Ok(model) => Bytes::from_owner(model),
                Err(error) => return self.failed(Err(error)),
            };
            if let Some(device) = self.devices.get_mut(&(client as usize)) {
                device.start_from(model, (version - started) as u32);
            }
        }
    }

    /// Ends the task where no buffer will be full again, and says whether it has.
    fn too_few_can_pay(&mut self, buffer: usize) -> bool {
        let paid_for = self.coordinator().terms().affordable_rounds;
        let spent = self.kept.values().filter(|kept| kept.participations >= paid_for).count();
        let left = self.population_size - spent;
        if left >= buffer {
            return false;
        }
        let reason = format!(
            "{left} of {} clients can pay for one more round, and the buffer (cohort.clients) is {buffer}",
            self.population_size
        );
        self.command(Command::Stop { reason });
        true
    }
}

/// The numbers `0..count` in random order, of which only those that are asked for take memory (Fisher and Yates).
pub(super) struct Shuffle {
    count: usize,
    given: usize,
    moved: BTreeMap<usize, usize>,
}

impl Shuffle {
    pub(super) fn new(count: usize) -> Self {
        Self { count, given: 0, moved: BTreeMap::new() }
    }

    pub(super) fn next(&mut self, rng: &mut impl rand_core::Rng) -> Option<usize> {
        let left = self.count.checked_sub(self.given).filter(|&left| left > 0)?;
        let place = self.given + below(rng, left);
        let drawn = self.moved.remove(&place).unwrap_or(place);
        let first = self.moved.remove(&self.given).unwrap_or(self.given);
        if place != self.given {
            self.moved.insert(place, first);
        }
        self.given += 1;
        Some(drawn)
    }
}
