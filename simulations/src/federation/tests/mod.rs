//! The two cores against each other, against drop-outs and crashes, against hostile coordinators and clients.

mod adaptive_clip;
mod attacks;
mod buffered;
mod canaries;
mod conditions;
mod engine;
mod evaluation;
mod gate;
mod hostile_clients;
mod hostile_coordinator;
mod ideal;
mod no_noise;
mod plain;
mod population;
mod recovery;
mod regions;
mod replay;
mod resume;
mod rounds;
mod suspects;

use super::*;
use fedveil_learning::{ModelSpec, model_file};
use fedveil_privacy::Rotation;
use fedveil_proto_plan::{
    Aggregation, Cohort, Model, PlanError, Privacy, Server, Setting, TaskPlan, Training, VERSION,
};
use fedveil_provenance::Manifest;
use std::collections::BTreeSet;

/// The federation of the tests.
type Scripted = Federation<Script>;

/// Parameters of the tests' model, one for each client of the largest federation.
const PARAMETERS: usize = 27;

/// What becomes of a message, as [`Scenario::route`].
type Route = dyn FnMut(Millis, Message) -> Vec<(Millis, Message)> + Send + Sync;

/// A scenario made of closures, which writes down what was sent.
struct Script {
    contribute: Box<dyn Fn(usize, u32) -> Result<Contribution, String> + Send + Sync>,
    vanishes: Box<dyn FnMut(usize, u32, Kind) -> bool + Send + Sync>,
    judge: Box<dyn Fn(usize, u32) -> Result<f64, String> + Send + Sync>,
    route: Box<Route>,
    /// Every message as its sender sent it.
    sent: Vec<Message>,
}

impl Default for Script {
    /// Everyone contributes, nobody vanishes, everything arrives.
    fn default() -> Self {
        Self {
            contribute: Box::new(|_, _| Ok(Contribution::Update(vec![0.01; PARAMETERS]))),
            vanishes: Box::new(|_, _, _| false),
            judge: Box::new(|_, _| Ok(0.0)),
            route: Box::new(|now, message| vec![(now, message)]),
            sent: Vec::new(),
        }
    }
}

impl Script {
    /// Client i contributes 1 in coordinate i: a sum names everyone who is in it, and how often.
    fn unit_vectors() -> Self {
        let unit = |client: usize, _| {
            let mut values = vec![0; PARAMETERS];
            values[client] = 1;
            Ok(Contribution::DangerUnbounded(values))
        };
        Self { contribute: Box::new(unit), ..Self::default() }
    }

    fn vanishing(mut self, vanishes: impl FnMut(usize, u32, Kind) -> bool + Send + Sync + 'static) -> Self {
        self.vanishes = Box::new(vanishes);
        self
    }

    fn contributing(
        mut self,
        contribute: impl Fn(usize, u32) -> Result<Contribution, String> + Send + Sync + 'static,
    ) -> Self {
        self.contribute = Box::new(contribute);
        self
    }

    fn judging(mut self, judge: impl Fn(usize, u32) -> Result<f64, String> + Send + Sync + 'static) -> Self {
        self.judge = Box::new(judge);
        self
    }

    fn routing(
        mut self,
        route: impl FnMut(Millis, Message) -> Vec<(Millis, Message)> + Send + Sync + 'static,
    ) -> Self {
        self.route = Box::new(route);
        self
    }

    /// Alters the bytes of the messages of this kind to this client.
    fn altering(
        self,
        client: usize,
        kind: Kind,
        alter: impl Fn(&mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        self.routing(move |now, mut message| {
            if (message.client, message.kind) == (client, kind) {
                let mut bytes = message.bytes.to_vec();
                alter(&mut bytes);
                message.bytes = bytes.into();
            }
            vec![(now, message)]
        })
    }
}

impl Scenario for Script {
    fn contribute(&self, work: &Work<'_>) -> Result<Trained, String> {
        (self.contribute)(work.client, work.round).map(Trained::from)
    }

    fn vanishes(&mut self, client: usize, round: u32, before: Kind) -> bool {
        (self.vanishes)(client, round, before)
    }

    fn judge(&self, work: &Work<'_>, _new: &[u8]) -> Result<f64, String> {
        (self.judge)(work.client, work.round)
    }

    fn route(&mut self, now: Millis, message: Message) -> Vec<(Millis, Message)> {
        self.sent.push(message.clone());
        (self.route)(now, message)
    }
}

/// 12 clients in one group: t = 8, no fewer than 8 survivors, one reveal may be missing. ε pays for every round.
fn one_group() -> Setup {
    let plan = TaskPlan {
        version: VERSION,
        task: "test".to_owned(),
        id: Digest::of("test"),
        mode: "secagg".to_owned(),
        rounds: 2,
        phase_seconds: 60,
        model: Model { architecture: "softmax:8x3".to_owned(), parameters: PARAMETERS as u32 },
        cohort: Cohort { clients: 12, minimum: 10, assumed_malicious: 1, population: None },
        training: Training::sgd(1, 8, 0.1),
        privacy: Privacy {
            placement: "distributed".to_owned(),
            mechanism: "discrete-gaussian".to_owned(),
            clip_norm: 1.0,
            noise_multiplier: 1.5,
            resolution: 1024,
            epsilon: 15.0,
            delta: 1e-5,
            correlated_noise: None,
            adaptive_clip: None,
        },
        aggregation: Aggregation {
            protocol: "pairwise-mask".to_owned(),
            group_size: 9,
            degree: 64,
            threshold: 7,
            min_survivors: 8,
            max_missing_reveals: 1,
            masks: "chacha20".to_owned(),
            break_probability: 0.0,
        },
        server: Server::mean(),
        simulated: false,
    };
    Setup::new(plan.clone(), plan.cohort.clients as usize, Policy::default(), 1)
}

/// The same, and one round only.
fn one_round() -> Setup {
    let mut setup = one_group();
    setup.plan.rounds = 1;
    setup
}

/// Groups of 9, all of whose members must reveal: t = 7, no fewer than 8 survivors.
fn groups_of_nine(groups: u32) -> Setup {
    let mut setup = one_group();
    let clients = 9 * groups;
    setup.plan.cohort = Cohort { clients, minimum: clients, assumed_malicious: 1, population: None };
    setup.plan.aggregation.max_missing_reveals = 0;
    setup.clients = clients as usize;
    setup
}

fn federation(setup: Setup, script: Script) -> Scripted {
    Federation::new(setup, script).expect("the setups of the tests hold")
}

fn finished(setup: Setup, script: Script) -> Scripted {
    let mut federation = federation(setup, script);
    federation.run();
    federation
}

/// The events with the round in which they happened; 0 before the first.
fn by_round(events: &[Event]) -> Vec<(u32, &Event)> {
    let mut current = 0;
    let mut numbered = Vec::new();
    for event in events {
        if let Event::RoundOpened { round, .. } = event {
            current = *round;
        }
        numbered.push((current, event));
    }
    numbered
}

/// Every signed manifest, in order.
fn manifests(federation: &Scripted) -> Vec<Manifest> {
    let log = federation.coordinator().log();
    let signer = federation.secrets.signing.verifying_key();
    (0..log.size()).map(|leaf| Manifest::verify(log.leaf(leaf).unwrap(), &[signer], 1).unwrap()).collect()
}

/// Rounds that yielded a model, the initial one included.
fn published(events: &[Event]) -> Vec<u32> {
    let round = |event: &Event| match event {
        Event::Published { round, .. } => Some(*round),
        _ => None,
    };
    events.iter().filter_map(round).collect()
}

fn aborted(events: &[Event]) -> Vec<(u32, &str)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::RoundAborted { round, reason, .. } => Some((*round, reason.as_str())),
            _ => None,
        })
        .collect()
}

fn end(events: &[Event]) -> &str {
    events
        .iter()
        .find_map(|event| match event {
            Event::TaskClosed { reason } => Some(reason.as_str()),
            _ => None,
        })
        .expect("the task is closed")
}

/// Who was charged, by round and group.
fn charges(events: &[Event]) -> BTreeMap<(u32, u32), BTreeSet<Client>> {
    let charge = |(round, event)| match event {
        &Event::PrivacyCharged { group, ref clients } => {
            Some(((round, group), clients.iter().copied().collect()))
        }
        _ => None,
    };
    by_round(events).into_iter().filter_map(charge).collect()
}

/// The sums that became known, by round and group. Panics where one became known twice.
fn sums(federation: &Scripted) -> BTreeMap<(u32, u32), Vec<i64>> {
    let mut sums = BTreeMap::new();
    for (round, event) in by_round(&federation.events()) {
        if let Event::GroupSummed { group, sum } = event {
            let blob = federation.store().blob(sum).unwrap();
            let (words, rest) = blob.as_chunks::<8>();
            assert!(rest.is_empty());
            let values = words.iter().map(|word| i64::from_le_bytes(*word)).collect();
            assert!(
                sums.insert((round, *group), values).is_none(),
                "group {group} of round {round} was summed twice"
            );
        }
    }
    sums
}

/// The model that a round started from, by round.
fn models(events: &[Event]) -> BTreeMap<u32, Digest> {
    let model = |event: &Event| match event {
        Event::TaskOpened { model, .. } => Some((1, *model)),
        Event::Published { round, model, .. } => Some((round + 1, *model)),
        _ => None,
    };
    events.iter().filter_map(model).collect()
}

/// Grid values in a round's rotated coordinates, in the coordinates and the unit of the model.
fn rotated_back(federation: &Scripted, round: u32, values: &[i64]) -> Vec<f64> {
    let core = federation.coordinator();
    let seed = core.plan().plan().rotation_seed(round, &models(&federation.events())[&round]);
    let mut values = core.terms().guarantee.grid.to_real(values);
    Rotation::new(&seed, values.len()).inverse(&mut values);
    values
}

/// Messages of a kind that a client sent, as often as it sent them.
fn sent_by(federation: &mut Scripted, client: usize, kind: Kind) -> usize {
    let is_it = |message: &&Message| {
        (message.client, message.direction, message.kind) == (client, Direction::Up, kind)
    };
    federation.scenario().sent.iter().filter(is_it).count()
}

/// What a client wrote when it declined.
fn declines(federation: &mut Scripted, client: usize) -> Vec<String> {
    let is_it = |message: &&Message| (message.client, message.kind) == (client, Kind::Decline);
    let text = |message: &Message| String::from_utf8(message.bytes.to_vec()).unwrap();
    federation.scenario().sent.iter().filter(is_it).map(text).collect()
}
