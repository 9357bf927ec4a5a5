//! One small session, honest but for a client that drops out: what the targets of secure aggregation change one message
//! of. Everything is drawn from fixed seeds, so a client that plays its part again says the same again.

use std::{collections::BTreeMap, sync::LazyLock};

use chacha20::ChaCha20Rng;
use ed25519_dalek::SigningKey;
use fedveil_aggregation::secagg::{
    Accumulator, ClientId, Cohort, GroupServer, IdentityCertificate, MaskedInput, Prg, ProtocolKind, Refusal,
    Roster, SessionConfig, SessionParameters, client::advertise,
};
use rand_core::SeedableRng;

pub const NOW: u64 = 1_000;

/// They form two groups of eight, in which each has six neighbours.
const CLIENTS: u8 = 16;

/// The client whose messages, or whose mail, are the fuzzer's.
pub const CHOSEN: u8 = 0;

/// What a client sends, in this order.
pub const SENT: [&str; 6] = ["advertise", "reveal", "shares", "input", "consistency", "unmask"];

/// What a client is sent, in this order.
pub const HEARD: [&str; 5] = ["roster", "reveals", "delivery", "survivors", "signatures"];

pub static SESSION: LazyLock<Session> = LazyLock::new(Session::play);

/// The session as it went, seen from the chosen client's group.
pub struct Session {
    pub config: SessionConfig,
    /// Everyone but the chosen client has advertised.
    pub cohort: Cohort,
    pub roster: Roster,
    /// Sharing, collecting, consistency and unmasking: everyone but the chosen client has sent its message.
    pub phases: [GroupServer; 4],
    /// The inputs of the others, and of all.
    pub inputs: [Accumulator; 2],
    /// Σ x over the survivors.
    pub sum: Vec<u32>,
    /// Clients whose inputs are in the sum; the chosen one is the last.
    pub survivors: Vec<u8>,
    pub sent: BTreeMap<u8, Vec<Vec<u8>>>,
    pub heard: BTreeMap<u8, Vec<Vec<u8>>>,
}

impl Session {
    fn play() -> Self {
        let config = SessionConfig::new(parameters()).expect("the parameters make a session");
        let mut heard: BTreeMap<u8, Vec<Vec<u8>>> = (0..CLIENTS).map(|client| (client, Vec::new())).collect();
        let says = |client: u8, heard: &BTreeMap<u8, Vec<Vec<u8>>>| {
            let sent =
                play(&config, client, &heard[&client]).expect("nothing is wrong with an honest session");
            sent.last().expect("a client begins").clone()
        };
        // The chosen client is the last to speak.
        let clients: Vec<u8> = (CHOSEN + 1..CLIENTS).chain([CHOSEN]).collect();

        let mut all = Cohort::new(config.clone());
        let mut cohort = all.clone();
        for &client in &clients {
            cohort = all.clone();
            let message = says(client, &heard);
            all.apply_advertise(all.check_advertise(&message, NOW).expect("an honest advertisement"));
        }
        let roster = all.seal().expect("everyone has advertised");
        for heard in heard.values_mut() {
            heard.push(roster.message().to_vec());
        }

        let reveal = |&client: &u8| {
            let message = says(client, &heard);
            let nonce = roster.check_reveal(&config, id(client), &message).expect("an honest nonce");
            (id(client), nonce)
        };
        let nonces = clients.iter().map(reveal).collect();
        let (message, groups) = roster.form_groups(&config, &nonces).expect("everyone has revealed");
        for heard in heard.values_mut() {
            heard.push(message.clone());
        }

        let index = roster.index_of(id(CHOSEN)).expect("everyone is in the roster");
        let group =
            groups.iter().find(|group| group.members().contains(&index)).expect("everyone is in a group");
        let mut server = GroupServer::new(&config, &roster, group);
        let members: Vec<ClientId> = server.members().collect();
        let mut survivors = clients;
        survivors.retain(|client| members.contains(&id(*client)));

        let mut sharing = server.clone();
        for &client in &survivors {
            sharing = server.clone();
            let shares = server.check_shares(id(client), &says(client, &heard)).expect("honest shares");
            server.apply_shares(id(client), shares);
        }
        let deliveries = server.close_sharing().expect("everyone has shared");
        for &client in &survivors {
            heard.entry(client).or_default().push(deliveries[&id(client)].clone());
        }

        // The first one drops out.
        survivors.remove(0);
        let mut collecting = server.clone();
        let mut inputs = [server.accumulator(), server.accumulator()];
        for &client in &survivors {
            collecting = server.clone();
            inputs[0] = inputs[1].clone();
            let input = decode(&config, &says(client, &heard)).expect("an honest input");
            server.check_masked_input(id(client), &input).expect("an honest input");
            inputs[1].add(id(client), &input).expect("an honest input");
            server.apply_masked_input(id(client), *input.digest());
        }
        let message = server.close_collecting().expect("enough have submitted");
        for client in &survivors {
            heard.entry(*client).or_default().push(message.clone());
        }

        let mut consistency = server.clone();
        for &client in &survivors {
            consistency = server.clone();
            let signature =
                server.check_consistency(id(client), &says(client, &heard)).expect("an honest signature");
            server.apply_consistency(id(client), signature);
        }
        let signatures = server.close_consistency().expect("all survivors have signed");
        for client in &survivors {
            heard.entry(*client).or_default().push(signatures[&id(*client)].clone());
        }

        let mut unmasking = server.clone();
        for &client in &survivors {
            unmasking = server.clone();
            let answer = server.check_unmask(id(client), &says(client, &heard)).expect("an honest answer");
            server.apply_unmask(id(client), answer);
        }
        let sum = server.close_unmasking().expect("all survivors have answered").sum(&inputs[1]);
        let sum = sum.expect("all answers are honest").values;
        let expected = survivors.iter().fold(vec![0; sum.len()], |sum: Vec<u32>, &client| {
            sum.iter().zip(values(client)).map(|(sum, value)| sum + value).collect()
        });
        assert_eq!(sum, expected, "the sum is the survivors'");

        let sent = |&client: &u8| {
            let sent =
                play(&config, client, &heard[&client]).expect("nothing is wrong with an honest session");
            (client, sent)
        };
        let sent = survivors.iter().map(sent).collect();
        let phases = [sharing, collecting, consistency, unmasking];
        Self { config, cohort, roster, phases, inputs, sum, survivors, sent, heard }
    }
}

/// What a client sends, from its advertisement to its answer to the last message that it hears.
pub fn play(config: &SessionConfig, client: u8, heard: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut rng = ChaCha20Rng::seed_from_u64(client.into());
    let mut heard = heard.iter();
    let (state, message) = advertise(config.clone(), &key(client), &certificate(client), NOW, &mut rng)?;
    let mut sent = vec![message];

    let Some(roster) = heard.next() else { return Ok(sent) };
    let (state, message) = state.on_roster(roster)?;
    sent.push(message);

    let Some(reveals) = heard.next() else { return Ok(sent) };
    let (state, message) = state.on_reveals(reveals, NOW, &mut rng)?;
    sent.push(message);

    let Some(delivery) = heard.next() else { return Ok(sent) };
    let (state, message) = state.on_delivery(delivery)?.submit(&values(client), &mut rng)?;
    sent.push(message);

    let Some(survivors) = heard.next() else { return Ok(sent) };
    let (state, message) = state.on_survivors(survivors)?;
    sent.push(message);

    let Some(signatures) = heard.next() else { return Ok(sent) };
    sent.push(state.on_signatures(signatures)?);
    Ok(sent)
}

/// A masked input in one piece.
pub fn decode(config: &SessionConfig, message: &[u8]) -> Option<MaskedInput> {
    let mut upload = config.upload();
    upload.push(message).ok()?;
    upload.finish().ok()
}

pub fn id(client: u8) -> ClientId {
    IdentityCertificate::verify(&certificate(client), &authority().verifying_key(), NOW)
        .expect("the authority issued it")
        .client_id()
}

fn certificate(client: u8) -> Vec<u8> {
    IdentityCertificate::issue(&authority(), key(client).verifying_key().as_bytes(), "", NOW)
        .expect("key and name can be certified")
}

fn key(client: u8) -> SigningKey {
    SigningKey::from_bytes(&[100 + client; 32])
}

fn authority() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The client's vector. What it counts up from tells it from the others'.
fn values(client: u8) -> Vec<u32> {
    (0..5).map(|element| 10 * u32::from(client) + element).collect()
}

fn parameters() -> SessionParameters {
    SessionParameters {
        context: [1; 32],
        authority: authority().verifying_key().to_bytes(),
        protocol: ProtocolKind::PairwiseMask,
        prg: Prg::Aes256Ctr,
        ring_bits: 11,
        length: 5,
        group_size: 8,
        degree: 6,
        threshold: 4,
        min_survivors: 6,
        min_cohort: 15,
        max_cohort: CLIENTS.into(),
        max_missing_reveals: 1,
    }
}
