//! A whole session with every client and every message, each step's CPU time by the clock of the one thread that plays
//! all roles.
//!
//! Clients and coordinator see only each other's bytes. A client's state is kept from one step to the next as it would
//! be, but for the roster: between its nonce and the others' a client is set back to the start by its random seed, so
//! that a thousand parsed rosters need not be held at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chacha20::ChaCha20Rng;
use ed25519_dalek::SigningKey;
use fedveil_aggregation::secagg::client::{AwaitReveals, advertise};
use fedveil_aggregation::secagg::protocol::Layers;
use fedveil_aggregation::secagg::{
    ClientId, Cohort, GroupServer, IdentityCertificate, Prg, ProtocolKind, SessionConfig, SessionParameters,
};
use rand_core::SeedableRng;

use crate::clock::{median, reset_peak, resident, timed};
use crate::floors::PlainSum;

const NOW: u64 = 1_000;

/// Bytes that arrive at once, as from a stream.
const CHUNK: usize = 1 << 20;

/// One group of all `clients`, of which `dropouts` share their secrets and are not heard of again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) protocol: ProtocolKind,
    pub(crate) prg: Prg,
    pub(crate) clients: usize,
    pub(crate) neighbours: usize,
    pub(crate) threshold: usize,
    pub(crate) dropouts: usize,
    /// Signed values of 16 bits.
    pub(crate) length: usize,
}

/// What a client does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClientStep {
    Advertise,
    Roster,
    VerifyAndShare,
    Delivery,
    Submit,
    Consistency,
    Unmask,
}

impl ClientStep {
    pub(crate) const ALL: [Self; 7] = [
        Self::Advertise,
        Self::Roster,
        Self::VerifyAndShare,
        Self::Delivery,
        Self::Submit,
        Self::Consistency,
        Self::Unmask,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Advertise => "advertise",
            Self::Roster => "parse the roster",
            Self::VerifyAndShare => "verify the group, seal shares",
            Self::Delivery => "open shares",
            Self::Submit => "encode and mask",
            Self::Consistency => "sign the survivors",
            Self::Unmask => "check signatures, answer",
        }
    }
}

/// What the coordinator does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerStep {
    Roster,
    Shares,
    Collect,
    Consistency,
    Answers,
    Sum,
}

impl ServerStep {
    pub(crate) const ALL: [Self; 6] =
        [Self::Roster, Self::Shares, Self::Collect, Self::Consistency, Self::Answers, Self::Sum];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Roster => "verify advertisements, form the group",
            Self::Shares => "forward shares",
            Self::Collect => "decode and add inputs",
            Self::Consistency => "check and forward signatures",
            Self::Answers => "parse answers",
            Self::Sum => "recover secrets, take masks off, decode",
        }
    }
}

/// CPU times and sizes of one session.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    pub(crate) ring_bits: u32,
    /// Median over the surviving clients.
    pub(crate) client: BTreeMap<ClientStep, Duration>,
    /// Median of whole clients.
    pub(crate) client_total: Duration,
    pub(crate) server: BTreeMap<ServerStep, Duration>,
    /// The part of [`ServerStep::Sum`] that decodes the vector once the masks are off.
    pub(crate) decode: Duration,
    /// Of one surviving client: its upload of the vector, all that it sends, all that it receives.
    pub(crate) input_bytes: usize,
    pub(crate) bytes_up: usize,
    pub(crate) bytes_down: usize,
    /// The same vectors in the clear: median per client (pack) and sum over clients (unpack, add).
    pub(crate) plain_client: Duration,
    pub(crate) plain_server: Duration,
    /// Memory of one sum of layers.
    pub(crate) accumulator_bytes: usize,
    /// Growth of resident memory from before the first input to after the sum; where the system tells.
    pub(crate) memory_growth: Option<u64>,
}

impl Measured {
    pub(crate) fn server_total(&self) -> Duration {
        self.server.values().sum()
    }
}

/// A client outside of its protocol states.
struct Person {
    key: SigningKey,
    certificate: Vec<u8>,
    id: ClientId,
    seed: u64,
    times: BTreeMap<ClientStep, Duration>,
    up: usize,
    down: usize,
}

impl Person {
    fn time<T>(&mut self, step: ClientStep, work: impl FnOnce(&Self) -> T) -> T {
        let (time, result) = timed(|| work(self));
        self.times.insert(step, time);
        result
    }

    /// Advertises and reads the roster, from the beginning.
    fn reveal(&mut self, config: &SessionConfig, roster: &[u8]) -> (AwaitReveals, Vec<u8>, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let (state, _) = self.time(ClientStep::Advertise, |person| {
            advertise(config.clone(), &person.key, &person.certificate, NOW, &mut rng).expect("own identity")
        });
        let (state, nonce) =
            self.time(ClientStep::Roster, |_| state.on_roster(roster).expect("an honest roster"));
        (state, nonce, rng)
    }
}

pub(crate) fn ring_bits(clients: usize) -> u32 {
    16 + clients.next_power_of_two().ilog2()
}

fn parameters(scenario: &Scenario, authority: &SigningKey) -> SessionParameters {
    SessionParameters {
        context: [1; 32],
        authority: authority.verifying_key().to_bytes(),
        protocol: scenario.protocol,
        prg: scenario.prg,
        ring_bits: ring_bits(scenario.clients),
        length: scenario.length,
        group_size: scenario.clients,
        degree: scenario.neighbours,
        threshold: scenario.threshold,
        min_survivors: scenario.clients - scenario.dropouts,
        min_cohort: scenario.clients,
        max_cohort: scenario.clients,
        max_missing_reveals: 0,
    }
}

/// Runs the session and compares its sum with the plain one.
pub(crate) fn run(scenario: Scenario) -> Measured {
    let authority = SigningKey::from_bytes(&[7; 32]);
    let bits = ring_bits(scenario.clients);
    let config = SessionConfig::new(parameters(&scenario, &authority)).expect("the scenario is a session");
    let mut people: Vec<Person> = (0..scenario.clients).map(|seed| person(&authority, seed as u64)).collect();
    let mut server = BTreeMap::new();

    // Advertisements, roster, nonces.
    let mut cohort = Cohort::new(config.clone());
    let (mut verifying, mut nonces) = (Duration::ZERO, BTreeMap::new());
    for person in &mut people {
        let mut rng = ChaCha20Rng::seed_from_u64(person.seed);
        let (_, message) =
            advertise(config.clone(), &person.key, &person.certificate, NOW, &mut rng).expect("own identity");
        person.up += message.len();
        let (time, ()) = timed(|| {
            let advertisement = cohort.check_advertise(&message, NOW).expect("an honest client");
            cohort.apply_advertise(advertisement);
        });
        verifying += time;
    }
    let (time, roster) = timed(|| cohort.seal().expect("all advertised"));
    verifying += time;
    for person in &mut people {
        let (_, message, _) = person.reveal(&config, roster.message());
        (person.up, person.down) = (person.up + message.len(), person.down + roster.message().len());
        let (time, nonce) = timed(|| roster.check_reveal(&config, person.id, &message).expect("its nonce"));
        verifying += time;
        nonces.insert(person.id, nonce);
    }
    let (time, (reveals, mut group)) = timed(|| {
        let (reveals, groups) = roster.form_groups(&config, &nonces).expect("all revealed");
        let group = GroupServer::new(&config, &roster, &groups[0]);
        (reveals, group)
    });
    server.insert(ServerStep::Roster, verifying + time);

    // Shares.
    let mut forwarding = Duration::ZERO;
    let mut states = BTreeMap::new();
    for (index, person) in people.iter_mut().enumerate() {
        let (state, _, mut rng) = person.reveal(&config, roster.message());
        let (state, message) = person.time(ClientStep::VerifyAndShare, |_| {
            state.on_reveals(&reveals, NOW, &mut rng).expect("honest reveals")
        });
        (person.up, person.down) = (person.up + message.len(), person.down + reveals.len());
        let (time, ()) = timed(|| {
            let shares = group.check_shares(person.id, &message).expect("an honest client");
            group.apply_shares(person.id, shares);
        });
        forwarding += time;
        states.insert(index, (state, rng));
    }
    let (time, deliveries) = timed(|| group.close_sharing().expect("all shared"));
    server.insert(ServerStep::Shares, forwarding + time);

    // Inputs, of all but every so many clients.
    let dropped: BTreeSet<usize> =
        (0..scenario.dropouts).map(|nth| nth * scenario.clients / scenario.dropouts).collect();
    let mut collecting = Duration::ZERO;
    let mut plain = PlainSum::new(scenario.length);
    let mut input_bytes = 0;
    reset_peak();
    let before = resident();
    let mut parts = [group.accumulator(), group.accumulator()];
    let mut submitted = BTreeMap::new();
    for (index, (state, mut rng)) in states {
        let person = &mut people[index];
        let delivery = &deliveries[&person.id];
        let state =
            person.time(ClientStep::Delivery, |_| state.on_delivery(delivery).expect("honest shares"));
        if dropped.contains(&index) {
            continue;
        }
        let values = plain.add_client(person.seed);
        let residue = |value: i16| i32::from(value) as u32 & (u32::MAX >> (32 - bits));
        let residues: Vec<u32> = values.into_iter().map(residue).collect();
        let (state, message) = person
            .time(ClientStep::Submit, |_| state.submit(&residues, &mut rng).expect("values are in the ring"));
        drop(residues);
        input_bytes = message.len();
        (person.up, person.down) = (person.up + message.len(), person.down + delivery.len());
        let (time, ()) = timed(|| {
            let mut upload = config.upload();
            message.chunks(CHUNK).for_each(|chunk| upload.push(chunk).expect("an honest input"));
            let input = upload.finish().expect("an honest input");
            group.check_masked_input(person.id, &input).expect("an honest input");
            parts[index % 2].add(person.id, &input).expect("each adds once");
            group.apply_masked_input(person.id, *input.digest());
        });
        collecting += time;
        submitted.insert(index, state);
    }
    drop(deliveries);
    let (time, sum) = timed(|| {
        let [mut sum, other] = parts;
        sum.merge(&other).expect("parts of one sum");
        sum
    });
    server.insert(ServerStep::Collect, collecting + time);

    // Signatures on the survivors.
    let (mut checking, survivors) = timed(|| group.close_collecting().expect("enough submitted"));
    let mut signed = BTreeMap::new();
    for (index, state) in submitted {
        let person = &mut people[index];
        let (state, message) =
            person.time(ClientStep::Consistency, |_| state.on_survivors(&survivors).expect("survivors"));
        (person.up, person.down) = (person.up + message.len(), person.down + survivors.len());
        let (time, ()) = timed(|| {
            let signature = group.check_consistency(person.id, &message).expect("an honest client");
            group.apply_consistency(person.id, signature);
        });
        checking += time;
        signed.insert(index, state);
    }
    let (time, signatures) = timed(|| group.close_consistency().expect("enough signed"));
    server.insert(ServerStep::Consistency, checking + time);

    // Answers and the sum.
    let mut answering = Duration::ZERO;
    for (index, state) in signed {
        let person = &mut people[index];
        let signatures = &signatures[&person.id];
        let message =
            person.time(ClientStep::Unmask, |_| state.on_signatures(signatures).expect("honest signatures"));
        (person.up, person.down) = (person.up + message.len(), person.down + signatures.len());
        let (time, ()) = timed(|| {
            let answer = group.check_unmask(person.id, &message).expect("an honest client");
            group.apply_unmask(person.id, answer);
        });
        answering += time;
    }
    let (time, unmasking) = timed(|| group.close_unmasking().expect("enough answered"));
    server.insert(ServerStep::Answers, answering + time);
    let (time, sum) = timed(|| unmasking.sum(&sum).expect("honest shares"));
    server.insert(ServerStep::Sum, time);
    let memory_growth = before.zip(resident()).map(|((before, _), (_, peak))| peak.saturating_sub(before));
    plain.compare(&sum.values, bits);

    people.retain(|person| person.times.contains_key(&ClientStep::Unmask));
    let step = |step| (step, median_of(&people, |person| person.times[&step]));
    let last = people.last().expect("some survived");
    Measured {
        scenario,
        ring_bits: bits,
        client: ClientStep::ALL.into_iter().map(step).collect(),
        client_total: median_of(&people, |person| person.times.values().sum()),
        server,
        decode: decode_time(&config),
        input_bytes,
        bytes_up: last.up,
        bytes_down: last.down,
        plain_client: plain.client_time(),
        plain_server: plain.server_time(),
        accumulator_bytes: 4 * config.shape().masked + 8 * config.shape().body,
        memory_growth,
    }
}

fn person(authority: &SigningKey, seed: u64) -> Person {
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    let key = SigningKey::from_bytes(&secret);
    let certificate = IdentityCertificate::issue(authority, &key.verifying_key().to_bytes(), "client", NOW)
        .expect("a key of large order");
    let id = IdentityCertificate::verify(&certificate, &authority.verifying_key(), NOW)
        .expect("just issued")
        .client_id();
    Person { key, certificate, id, seed, times: BTreeMap::new(), up: 0, down: 0 }
}

fn median_of(people: &[Person], time: impl Fn(&Person) -> Duration) -> Duration {
    median(&mut people.iter().map(time).collect::<Vec<_>>())
}

/// Time to decode a sum, whatever is in it.
fn decode_time(config: &SessionConfig) -> Duration {
    let (protocol, shape) = (config.protocol(), config.shape());
    let sum = Layers { masked: vec![1; shape.masked], body: vec![1; shape.body] };
    timed(|| protocol.decode(&[0; 32], sum)).0
}
