//! Whole sessions, honest and attacked. A coordinator that lies is played by editing its messages; a client that lies,
//! by signing and sealing with its own keys what it should not.

mod adversary;
mod attacks;
mod binding;
mod colluders;
mod faults;
mod honest;
mod losses;
mod poison;
mod statistics;
mod transcript;
mod vectors;

use std::collections::BTreeMap;

use chacha20::ChaCha20Rng;
use ed25519_dalek::SigningKey;
use rand_core::SeedableRng;

use super::agreement::Secret;
use super::client::{
    AwaitDelivery, AwaitInput, AwaitReveals, AwaitRoster, AwaitSignatures, AwaitSurvivors, advertise,
};
use super::codec::{Kind, Writer};
use super::messages::Nonce;
use super::protocol::Shape;
use super::*;

const NOW: u64 = 1_000;
const NOT_AFTER: u64 = 2_000;

/// A cohort of clients, and their randomness: equal seeds make equal sessions. Clients are numbered by roster index, and
/// once they are in their group by position.
struct Session {
    config: SessionConfig,
    keys: Vec<SigningKey>,
    certificates: Vec<Vec<u8>>,
    /// Unit vectors unless a test sets others: client i has 1 at i, so the sum shows who was added how often.
    inputs: Vec<Vec<u32>>,
    seed: u64,
    rng: ChaCha20Rng,
}

fn authority() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// One group of seven, a complete graph, of which five must survive and two can be lost.
fn seven() -> SessionParameters {
    SessionParameters {
        context: [1; 32],
        authority: authority().verifying_key().to_bytes(),
        protocol: ProtocolKind::PairwiseMask,
        prg: Prg::Aes256Ctr,
        ring_bits: 20,
        length: 7,
        group_size: 7,
        degree: 6,
        threshold: 4,
        min_survivors: 5,
        min_cohort: 7,
        max_cohort: 7,
        max_missing_reveals: 0,
    }
}

/// One group of twelve on a ring, each member with three neighbours on either side, of which it can lose two.
fn twelve() -> SessionParameters {
    SessionParameters {
        length: 12,
        group_size: 12,
        min_survivors: 8,
        min_cohort: 12,
        max_cohort: 12,
        ..seven()
    }
}

/// Both protocols, each on a complete graph and on a ring. Every member has six neighbours and t = 4.
fn graphs_and_protocols() -> impl Iterator<Item = SessionParameters> {
    let with = |parameters: SessionParameters| {
        ProtocolKind::ALL.map(|protocol| SessionParameters { protocol, ..parameters.clone() })
    };
    [seven(), twelve()].into_iter().flat_map(with)
}

/// The secrets that a client draws, as it knows them itself.
struct ClientSecrets {
    id: ClientId,
    boxes: Secret,
    masks: Secret,
    seed: Secret,
}

impl Session {
    fn new(parameters: SessionParameters, clients: usize, seed: u64) -> Self {
        let config = SessionConfig::new(parameters).unwrap();
        let mut keys: Vec<SigningKey> =
            (0..clients).map(|client| SigningKey::from_bytes(&[client as u8; 32])).collect();
        let id = |key: &SigningKey| identity(key).client_id();
        keys.sort_by_key(id);
        let certificates = keys.iter().map(|key| certificate(key, NOT_AFTER)).collect();
        let unit = |client| (0..config.parameters().length).map(|i| u32::from(i == client)).collect();
        let inputs = (0..clients).map(unit).collect();
        Self { config, keys, certificates, inputs, seed, rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    fn of_seven(seed: u64) -> Self {
        Self::new(seven(), 7, seed)
    }

    fn of_twelve(seed: u64) -> Self {
        Self::new(twelve(), 12, seed)
    }

    fn id(&self, client: usize) -> ClientId {
        identity(&self.keys[client]).client_id()
    }

    fn advertise(&mut self, client: usize) -> (AwaitRoster, Vec<u8>) {
        let (key, certificate) = (&self.keys[client], &self.certificates[client]);
        advertise(self.config.clone(), key, certificate, NOW, &mut self.rng).unwrap()
    }

    /// The secrets that clients draw when they all advertise, in roster order.
    fn secrets(&self) -> Vec<ClientSecrets> {
        let mut rng = ChaCha20Rng::seed_from_u64(self.seed);
        let draw = |client| {
            let [boxes, masks, seed, _nonce] = [(); 4].map(|()| Secret::random(&mut rng));
            ClientSecrets { id: self.id(client), boxes, masks, seed }
        };
        (0..self.keys.len()).map(draw).collect()
    }

    fn until_roster(&mut self) -> (Vec<AwaitRoster>, Vec<Vec<u8>>) {
        (0..self.keys.len()).map(|client| self.advertise(client)).unzip()
    }

    fn until_reveals(&mut self) -> (Vec<AwaitReveals>, Roster, BTreeMap<ClientId, Nonce>) {
        let (clients, advertisements) = self.until_roster();
        let roster = self.seal(&advertisements);
        let mut nonces = BTreeMap::new();
        let clients = clients.into_iter().enumerate().map(|(client, state)| {
            let (state, reply) = ok(state.on_roster(roster.message()));
            let nonce = roster.check_reveal(&self.config, self.id(client), &reply).unwrap();
            nonces.insert(self.id(client), nonce);
            state
        });
        (clients.collect(), roster, nonces)
    }

    fn seal(&self, advertisements: &[Vec<u8>]) -> Roster {
        let mut cohort = Cohort::new(self.config.clone());
        for message in advertisements {
            cohort.apply_advertise(cohort.check_advertise(message, NOW).unwrap());
        }
        cohort.seal().unwrap()
    }

    /// From here on, of the one group that the cohort makes: a client's number is its position.
    fn until_delivery(&mut self) -> (Vec<AwaitDelivery>, GroupServer, Vec<Vec<u8>>) {
        let (clients, roster, nonces) = self.until_reveals();
        let (message, groups) = roster.form_groups(&self.config, &nonces).unwrap();
        let [group] = groups.as_slice() else { panic!("{} groups", groups.len()) };
        let server = GroupServer::new(&self.config, &roster, group);
        let mut clients: Vec<_> = clients.into_iter().map(Some).collect();
        let order = group.members();
        self.keys = order.iter().map(|&index| self.keys[index].clone()).collect();
        self.certificates = order.iter().map(|&index| self.certificates[index].clone()).collect();
        let clients = order.iter().map(|&index| clients[index].take().expect("positions are distinct"));
        let (clients, shares) =
            clients.map(|client| ok(client.on_reveals(&message, NOW, &mut self.rng))).unzip();
        (clients, server, shares)
    }

    fn until_input(&mut self) -> (Vec<AwaitInput>, GroupServer) {
        let (clients, mut server, shares) = self.until_delivery();
        for (client, message) in shares.iter().enumerate() {
            let shares = server.check_shares(self.id(client), message).unwrap();
            server.apply_shares(self.id(client), shares);
        }
        let deliveries = server.close_sharing().unwrap();
        let clients = clients.into_iter().enumerate();
        (
            clients.map(|(client, state)| ok(state.on_delivery(&deliveries[&self.id(client)]))).collect(),
            server,
        )
    }

    /// All clients are ready to hear of survivors, though only the inputs of `submitters` arrived.
    fn until_survivors(&mut self, submitters: &[usize]) -> (Vec<AwaitSurvivors>, GroupServer, Accumulator) {
        let (clients, mut server) = self.until_input();
        let mut sum = server.accumulator();
        let clients = clients.into_iter().enumerate().map(|(client, state)| {
            let (state, message) = ok(state.submit(&self.inputs[client], &mut self.rng));
            if submitters.contains(&client) {
                let (id, input) = (self.id(client), self.decode(&message).unwrap());
                server.check_masked_input(id, &input).unwrap();
                sum.add(id, &input).unwrap();
                server.apply_masked_input(id, *input.digest());
            }
            state
        });
        let clients = clients.collect();
        (clients, server, sum)
    }

    /// The survivors have signed; their signatures are with the server.
    fn until_signatures(
        &mut self,
        submitters: &[usize],
    ) -> (BTreeMap<usize, AwaitSignatures>, GroupServer, Accumulator) {
        let (clients, mut server, sum) = self.until_survivors(submitters);
        let message = server.close_collecting().unwrap();
        let survivors = clients.into_iter().enumerate().filter(|(client, _)| submitters.contains(client));
        let clients = survivors.map(|(client, state)| {
            let (state, reply) = ok(state.on_survivors(&message));
            let consistency = server.check_consistency(self.id(client), &reply).unwrap();
            server.apply_consistency(self.id(client), consistency);
            (client, state)
        });
        let clients = clients.collect();
        (clients, server, sum)
    }

    fn decode(&self, message: &[u8]) -> Result<MaskedInput, CodecError> {
        let mut upload = self.config.upload();
        message.chunks(97).try_for_each(|piece| upload.push(piece))?;
        upload.finish()
    }

    /// All that signed send their shares.
    fn finish(
        &self,
        clients: BTreeMap<usize, AwaitSignatures>,
        mut server: GroupServer,
        sum: &Accumulator,
    ) -> Result<Sum, Abort> {
        let signatures = server.close_consistency()?;
        for (client, state) in clients {
            let reply = ok(state.on_signatures(&signatures[&self.id(client)]));
            let shares = server.check_unmask(self.id(client), &reply).unwrap();
            server.apply_unmask(self.id(client), shares);
        }
        server.close_unmasking()?.sum(sum)
    }
}

/// Bit-packed elements, by way of an upload that has nothing else.
fn unpacked(packed: &[u8], length: usize, bits: u32) -> Result<Vec<u32>, CodecError> {
    let mut upload = Upload::new(Shape { masked: length, masked_bits: bits, body: 0 });
    upload.push(&Writer::new(Kind::MaskedInput).finish())?;
    upload.push(packed)?;
    Ok(upload.finish()?.layers.masked)
}

fn certificate(key: &SigningKey, not_after: u64) -> Vec<u8> {
    IdentityCertificate::issue(&authority(), &key.verifying_key().to_bytes(), "test", not_after).unwrap()
}

fn identity(key: &SigningKey) -> IdentityCertificate {
    IdentityCertificate::verify(&certificate(key, NOT_AFTER), &authority().verifying_key(), NOW).unwrap()
}

/// `unwrap` for results whose success has secrets, hence no `Debug`, and its opposite.
#[track_caller]
fn ok<T>(result: Result<T, Refusal>) -> T {
    match result {
        Ok(value) => value,
        Err(refusal) => panic!("client refused: {refusal}"),
    }
}

#[track_caller]
fn refusal<T>(result: Result<T, Refusal>) -> Refusal {
    match result {
        Ok(_) => panic!("client did not refuse"),
        Err(refusal) => refusal,
    }
}
