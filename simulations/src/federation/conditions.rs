//! The world around a federation: links, the speed of devices, who is there when, and what breaks.
//!
//! Every answer is a function of the seed, the client and the time or the round, drawn by name, but for the order of
//! messages on a link. A scenario asks a [`World`]; what it is made of is [`Conditions`], which a scenario file can carry.
//!
//! Absent: links that clients share, and a coordinator that is slow.

use super::draws::{below, stream, unit};
use super::{Direction, Message};
use fedveil_coordinator_core::Millis;
use fedveil_proto::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// Conditions under which a federation works; by default perfect ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Links between clients and the coordinator.
    pub network: Network,
    /// The speed of clients.
    pub compute: Compute,
    /// Who is there when.
    pub availability: Availability,
    /// What breaks.
    pub faults: Faults,
}

/// Links between clients and the coordinator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Milliseconds that a message is under way, beside the time that its bytes take.
    pub latency_ms: Spread,
    /// Kilobits per second from a client; 0 is no limit.
    pub up_kbit_per_second: Spread,
    /// Kilobits per second to a client; 0 is no limit.
    pub down_kbit_per_second: Spread,
    /// Probability with which a message never arrives.
    pub loss: f64,
}

/// The speed of clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compute {
    /// Milliseconds that a client trains in a round.
    pub training_ms: Spread,
    /// How much one client's time varies between rounds: the standard deviation of its logarithm.
    pub variation: f64,
    /// Fraction of the clients that are stragglers.
    pub stragglers: f64,
    /// How many times longer stragglers take.
    pub slowdown: f64,
}

impl Default for Compute {
    fn default() -> Self {
        Self { training_ms: Spread::default(), variation: 0.0, stragglers: 0.0, slowdown: 10.0 }
    }
}

/// Who is there when. A client is there if each of these says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Availability {
    /// Probability with which a client is there, drawn anew for each client and slot of time.
    pub probability: f64,
    /// Minutes of a slot.
    pub slot_minutes: u32,
    /// How that probability follows the day.
    pub diurnal: Option<Diurnal>,
    /// File of the times at which clients are there. Whoever reads files gives it to [`World::set_trace`].
    pub trace: Option<String>,
}

impl Default for Availability {
    fn default() -> Self {
        Self { probability: 1.0, slot_minutes: 10, diurnal: None, trace: None }
    }
}

/// A day of 24 hours: the probability is multiplied by 1 at the peak, by `1 − amplitude` twelve hours from it, and by a
/// cosine between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// How much of the probability is gone twelve hours from the peak.
    pub amplitude: f64,
    /// Hour of the peak, in the middle of the clients' zones.
    pub peak_hour: f64,
    /// Hours over which the clients' zones are spread.
    #[serde(default)]
    pub zones_hours: f64,
}

/// What breaks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Probability with which a client that takes part in a round crashes in it, before a message drawn at random.
    pub client_crash: f64,
    /// Seconds at which the coordinator crashes and starts again.
    pub coordinator_crashes: Vec<f64>,
}

/// A number for each client: log-normal, with this median. A bare number is the same for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Spread {
    /// Half of the clients have less.
    pub median: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Same(f64),
    Spread(Lognormal),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lognormal {
    median: f64,
    sigma: f64,
}

impl From<Written> for Spread {
    fn from(written: Written) -> Self {
        match written {
            Written::Same(median) => Self { median, sigma: 0.0 },
            Written::Spread(Lognormal { median, sigma }) => Self { median, sigma },
        }
    }
}

impl From<Spread> for Written {
    fn from(Spread { median, sigma }: Spread) -> Self {
        if sigma == 0.0 { Self::Same(median) } else { Self::Spread(Lognormal { median, sigma }) }
    }
}

impl Spread {
    fn of(self, seed: u64, purpose: &str, client: usize) -> f64 {
        if self.sigma == 0.0 || self.median == 0.0 {
            return self.median;
        }
        self.median * (self.sigma * normal(seed, purpose, client, 0)).exp()
    }
}

/// A standard normal draw of that name (Box and Muller 1958).
fn normal(seed: u64, purpose: &str, client: usize, round: u32) -> f64 {
    let mut rng = stream(seed, purpose, client, round);
    let (radius, angle) = (1.0 - unit(&mut rng), unit(&mut rng));
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

/// A condition that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} is {found}, accepted is {accepted}")]
pub struct ConditionError {
    /// Path of the key, from `network`, `compute`, `availability` or `faults`.
    pub key: &'static str,
    /// What was found.
    pub found: String,
    /// What is accepted.
    pub accepted: &'static str,
}

impl Conditions {
    /// Checks every number.
    pub fn check(&self) -> Result<(), ConditionError> {
        let Self { network, compute, availability, faults } = self;
        let number = |key, found: f64, accepted, is_one: bool| {
            if is_one { Ok(()) } else { Err(ConditionError { key, found: found.to_string(), accepted }) }
        };
        let probability =
            |key, found: f64| number(key, found, "a probability, 0 to 1", (0.0..=1.0).contains(&found));
        let spread = |key, Spread { median, sigma }| {
            let fits = |value: f64, most: f64| (0.0..=most).contains(&value);
            number(key, median, "a median from 0 to 1e9", fits(median, 1e9))?;
            number(key, sigma, "a sigma from 0 to 10", fits(sigma, 10.0))
        };
        spread("network.latency_ms", network.latency_ms)?;
        spread("network.up_kbit_per_second", network.up_kbit_per_second)?;
        spread("network.down_kbit_per_second", network.down_kbit_per_second)?;
        probability("network.loss", network.loss)?;
        spread("compute.training_ms", compute.training_ms)?;
        let variation = compute.variation;
        number("compute.variation", variation, "0 to 10", (0.0..=10.0).contains(&variation))?;
        probability("compute.stragglers", compute.stragglers)?;
        let slowdown = compute.slowdown;
        number("compute.slowdown", slowdown, "1 to 1e6", (1.0..=1e6).contains(&slowdown))?;
        probability("availability.probability", availability.probability)?;
        let slot = availability.slot_minutes;
        number("availability.slot_minutes", slot.into(), "1 to 1440", (1..=1440).contains(&slot))?;
        if let Some(Diurnal { amplitude, peak_hour, zones_hours }) = availability.diurnal {
            probability("availability.diurnal.amplitude", amplitude)?;
            let hour = |hour: f64| (0.0..=24.0).contains(&hour);
            number("availability.diurnal.peak_hour", peak_hour, "an hour, 0 to 24", hour(peak_hour))?;
            number("availability.diurnal.zones_hours", zones_hours, "0 to 24", hour(zones_hours))?;
        }
        probability("faults.client_crash", faults.client_crash)?;
        let wrong = faults.coordinator_crashes.iter().find(|at| !(0.0..=1e12).contains(*at));
        wrong.map_or(Ok(()), |&at| {
            number("faults.coordinator_crashes", at, "seconds from the start, 0 or more", false)
        })
    }
}

/// Times at which clients are there. Client i follows line i of the trace, modulo their number.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Sorted intervals for each line, in milliseconds, the end not included.
    clients: Vec<Vec<(u64, u64)>>,
    /// The trace begins again after that.
    period: u64,
}

impl Trace {
    /// Reads a trace: one line for each client, of intervals `from-to` in seconds with spaces between, in rising order. An
    /// empty line is a client that is never there. Where the last interval of all ends, the trace begins again. Lines that
    /// begin with `#` are comments.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut clients = Vec::new();
        for (line, content) in (1..).zip(text.lines()).filter(|(_, content)| !content.starts_with('#')) {
            let mut intervals: Vec<(u64, u64)> = Vec::new();
            for word in content.split_whitespace() {
                let wrong = || TraceError::Interval { line, found: word.chars().take(40).collect() };
                let (from, to) = word.split_once('-').ok_or_else(wrong)?;
                let millis = |text: &str| {
                    let seconds: f64 = text.parse().ok()?;
                    (0.0..=1e12).contains(&seconds).then_some((seconds * 1e3) as u64)
                };
                let (from, to) = (millis(from).ok_or_else(wrong)?, millis(to).ok_or_else(wrong)?);
                if from >= to || intervals.last().is_some_and(|&(_, last)| from < last) {
                    return Err(wrong());
                }
                intervals.push((from, to));
            }
            clients.push(intervals);
        }
        let period = clients.iter().flatten().map(|&(_, to)| to).max().ok_or(TraceError::Empty)?;
        Ok(Self { clients, period })
    }

    fn is_there(&self, client: usize, now: Millis) -> bool {
        let at = now.0 % self.period;
        let intervals = &self.clients[client % self.clients.len()];
        let next = intervals.partition_point(|&(from, _)| from <= at);
        next > 0 && at < intervals[next - 1].1
    }
}

/// Text that is no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A word that is no interval, or one that does not follow the one before.
    #[error(
        "availability trace, line {line}: \"{found}\", accepted are intervals `from-to` in seconds, in rising order"
    )]
    Interval {
        /// Line of the text, from 1.
        line: usize,
        /// The word.
        found: String,
    },
    /// Nobody is ever there.
    #[error("availability trace: there is no interval in it")]
    Empty,
}

/// Conditions at work, for a scenario to ask.
#[derive(Debug, Clone)]
pub struct World {
    conditions: Conditions,
    trace: Option<Trace>,
    seed: u64,
    /// When the newest message of a link arrives: what is sent later on it does not overtake.
    links: BTreeMap<(usize, bool), Millis>,
}

/// What a client says in a round, in its order.
const SAID: [Kind; 6] =
    [Kind::Advertise, Kind::Reveal, Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask];

impl World {
    /// All draws are of this seed.
    pub fn new(conditions: Conditions, seed: u64) -> Result<Self, ConditionError> {
        conditions.check()?;
        Ok(Self { conditions, trace: None, seed, links: BTreeMap::new() })
    }

    /// Lets clients be there at the times of a trace alone.
    pub fn set_trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// The conditions.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// For [`Scenario::route`](super::Scenario::route): when a message arrives, if it does.
    pub fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        let Network { latency_ms, up_kbit_per_second, down_kbit_per_second, loss } = self.conditions.network;
        let (client, seed) = (message.client, self.seed);
        let is_up = message.direction == Direction::Up;
        if loss > 0.0 {
            let name = format!("loss {is_up} {:?} {}", message.kind, now.0);
            if unit(&mut stream(seed, &name, client, 0)) < loss {
                return Vec::new();
            }
        }
        let (rate, name) = if is_up { (up_kbit_per_second, "up") } else { (down_kbit_per_second, "down") };
        let rate = rate.of(seed, name, client);
        // A kilobit per second is a bit per millisecond.
        let transfer = if rate > 0.0 { message.bytes.len() as f64 * 8.0 / rate } else { 0.0 };
        let sent = self.links.get(&(client, is_up)).map_or(now, |&last| last.max(now));
        let arrival =
            Millis((now.0 as f64 + latency_ms.of(seed, "latency", client) + transfer) as u64).max(sent);
        self.links.insert((client, is_up), arrival);
        vec![(arrival, message)]
    }

    /// For [`Scenario::sessions_over`](super::Scenario::sessions_over): links are free.
    pub fn sessions_over(&mut self) {
        self.links.clear();
    }

    /// For [`Scenario::training_time`](super::Scenario::training_time), in milliseconds.
    pub fn training_time(&self, client: usize, round: u32) -> u64 {
        let Compute { training_ms, variation, stragglers, slowdown } = self.conditions.compute;
        let mut time = training_ms.of(self.seed, "training", client);
        if variation > 0.0 {
            time *= (variation * normal(self.seed, "training of the round", client, round)).exp();
        }
        if stragglers > 0.0 && unit(&mut stream(self.seed, "straggler", client, 0)) < stragglers {
            time *= slowdown;
        }
        time as u64
    }

    /// For [`Scenario::available`](super::Scenario::available).
    pub fn available(&self, client: usize, now: Millis) -> bool {
        let Availability { probability, slot_minutes, diurnal, .. } = &self.conditions.availability;
        if self.trace.as_ref().is_some_and(|trace| !trace.is_there(client, now)) {
            return false;
        }
        let mut probability = *probability;
        if let Some(Diurnal { amplitude, peak_hour, zones_hours }) = diurnal {
            let zone = (unit(&mut stream(self.seed, "zone", client, 0)) - 0.5) * zones_hours;
            let hour = now.0 as f64 / 3.6e6 + zone - peak_hour;
            probability *= 1.0 - amplitude * (1.0 - (TAU * hour / 24.0).cos()) / 2.0;
        }
        let slot = (now.0 / (u64::from(*slot_minutes) * 60_000)) as u32;
        probability >= 1.0 || unit(&mut stream(self.seed, "available", client, slot)) < probability
    }

    /// For [`Scenario::vanishes`](super::Scenario::vanishes).
    pub fn vanishes(&self, client: usize, round: u32, before: Kind) -> bool {
        let probability = self.conditions.faults.client_crash;
        if probability == 0.0 {
            return false;
        }
        let mut rng = stream(self.seed, "crash", client, round);
        if unit(&mut rng) >= probability {
            return false;
        }
        // In the clear, a client says one thing.
        before == Kind::PlainInput || before == SAID[below(&mut rng, SAID.len())]
    }

    /// For [`Scenario::next_crash`](super::Scenario::next_crash).
    pub fn next_crash(&self, after: Millis) -> Option<Millis> {
        let crashes = self.conditions.faults.coordinator_crashes.iter();
        crashes.map(|seconds| Millis((seconds * 1e3) as u64)).filter(|&at| at > after).min()
    }
}
