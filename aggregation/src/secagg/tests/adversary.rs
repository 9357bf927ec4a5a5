//! What a coordinator gets to know, together with members that collude: computed from the messages it has and from the
//! colluders' own secrets, without any of the checks of the code under test.

use super::super::agreement::{Route, Secret, open, pairwise_mask_key, self_mask_key};
use super::super::client::pairwise_sign;
use super::super::config::BOX_LEN;
use super::super::graph::Graph;
use super::super::messages::{MemberSet, Survivors, encode_signatures};
use super::super::prg::Sign;
use super::super::protocol::{BODY_MODULUS, GroupTranscript, Layers};
use super::super::shamir::{Interpolation, SHARE_LEN, Share};
use super::*;

const HEADER: usize = 2;

/// The two secrets of a member that its neighbours hold shares of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shared {
    Mask,
    Seed,
}

/// One group in which everybody shared and submitted, and what is known of it.
pub(super) struct Attack {
    pub(super) session: Session,
    pub(super) graph: Graph,
    pub(super) transcript: GroupTranscript,
    pub(super) mask_keys: Vec<[u8; 32]>,
    /// Honest members that signed nothing yet.
    pub(super) waiting: BTreeMap<usize, AwaitSurvivors>,
    pub(super) uploads: Vec<Layers>,
    /// Each colluder's secrets: for masks, and for the self mask.
    pub(super) colluders: BTreeMap<usize, (Secret, Secret)>,
    /// By owner and kind, then by holder.
    pub(super) shares: BTreeMap<(usize, Shared), BTreeMap<usize, Share>>,
}

impl Attack {
    /// A cohort of one group; colluders are given by position.
    pub(super) fn new(parameters: SessionParameters, colluders: &[usize]) -> Self {
        let clients = parameters.group_size;
        let mut session = Session::new(parameters, clients, 1);
        let secrets = session.secrets();
        let (states, mut server, boxes) = session.until_delivery();
        for (client, message) in boxes.iter().enumerate() {
            let shares = server.check_shares(session.id(client), message).unwrap();
            server.apply_shares(session.id(client), shares);
        }
        let deliveries = server.close_sharing().unwrap();
        let mut waiting = BTreeMap::new();
        let mut uploads = Vec::new();
        for (client, state) in states.into_iter().enumerate() {
            let state = ok(state.on_delivery(&deliveries[&session.id(client)]));
            let (state, message) = ok(state.submit(&session.inputs[client], &mut session.rng));
            uploads.push(session.decode(&message).unwrap().layers);
            if !colluders.contains(&client) {
                waiting.insert(client, state);
            }
        }
        let members = server.advertisements();
        let graph = Graph::new(clients, session.config.parameters().degree);
        let mut attack = Self {
            graph,
            transcript: *server.transcript(),
            mask_keys: members.iter().map(|member| *member.mask_key()).collect(),
            waiting,
            uploads,
            colluders: BTreeMap::new(),
            shares: BTreeMap::new(),
            session,
        };
        for ClientSecrets { id, boxes: own, masks, seed } in secrets {
            let client = (0..clients).find(|client| attack.session.id(*client) == id).unwrap();
            if !colluders.contains(&client) {
                continue;
            }
            for owner in graph.neighbours(client) {
                let nth = graph.neighbours(owner).binary_search(&client).unwrap();
                let sealed: [u8; BOX_LEN] =
                    boxes[owner][HEADER + nth * BOX_LEN..][..BOX_LEN].try_into().unwrap();
                let route = Route { transcript: &attack.transcript, sender: owner, recipient: client };
                let shares = open(&own.agree(members[owner].box_key()), route, &sealed).unwrap();
                attack.learn(owner, Shared::Mask, client, &shares[..SHARE_LEN]);
                attack.learn(owner, Shared::Seed, client, &shares[SHARE_LEN..]);
            }
            attack.colluders.insert(client, (masks, seed));
        }
        attack
    }

    fn learn(&mut self, owner: usize, kind: Shared, holder: usize, share: &[u8]) {
        let share = Share::decode(share.try_into().unwrap()).unwrap();
        self.shares.entry((owner, kind)).or_default().insert(holder, share);
    }

    pub(super) fn members(&self) -> Vec<usize> {
        (0..self.graph.members()).collect()
    }

    pub(super) fn without(&self, dropped: &[usize]) -> Vec<usize> {
        self.members().into_iter().filter(|at| !dropped.contains(at)).collect()
    }

    /// Tells the honest members among `told` that the `submitters` are the survivors. Colluders sign whatever helps.
    /// Returns the answers that this brings, and why others refuse.
    pub(super) fn tell(
        &mut self,
        submitters: &[usize],
        told: &[usize],
    ) -> (BTreeMap<usize, Vec<u8>>, BTreeMap<usize, Refusal>) {
        let set = |positions: &[usize]| MemberSet::of(self.graph.members(), positions.iter().copied());
        let story = Survivors { sharers: set(&self.members()), submitters: set(submitters) }.encode();
        let (mut signatures, mut answers, mut refusals) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut signed = BTreeMap::new();
        for client in told.iter().filter(|at| !self.colluders.contains_key(at)) {
            let state = self.waiting.remove(client).expect("an honest member signs one set");
            match state.on_survivors(&story) {
                Ok((state, reply)) => {
                    signatures.insert(*client, Consistency::decode(&reply).unwrap());
                    signed.insert(*client, state);
                }
                Err(refusal) => {
                    refusals.insert(*client, refusal);
                }
            }
        }
        for &client in self.colluders.keys().filter(|at| submitters.contains(at)) {
            let signature = Consistency::sign(&self.transcript, &story, &self.session.keys[client]);
            signatures.insert(client, signature);
        }
        for (client, state) in signed {
            let neighbours = self.graph.neighbours(client);
            let theirs: Vec<_> =
                neighbours.iter().filter_map(|at| Some((*at, *signatures.get(at)?))).collect();
            match state.on_signatures(&encode_signatures(&theirs)) {
                Ok(answer) => drop(answers.insert(client, answer)),
                Err(refusal) => drop(refusals.insert(client, refusal)),
            }
        }
        (answers, refusals)
    }

    /// Takes down what a member answered that believes in these survivors.
    pub(super) fn hear(&mut self, submitters: &[usize], answers: &BTreeMap<usize, Vec<u8>>) {
        for (&holder, answer) in answers {
            let neighbours = self.graph.neighbours(holder);
            assert_eq!(answer.len(), HEADER + neighbours.len() * SHARE_LEN);
            for (owner, share) in neighbours.into_iter().zip(answer[HEADER..].chunks(SHARE_LEN)) {
                let kind = if submitters.contains(&owner) { Shared::Seed } else { Shared::Mask };
                self.learn(owner, kind, holder, share);
            }
        }
    }

    /// [`tell`](Self::tell) and [`hear`](Self::hear).
    pub(super) fn run(&mut self, submitters: &[usize], told: &[usize]) -> BTreeMap<usize, Refusal> {
        let (answers, refusals) = self.tell(submitters, told);
        self.hear(submitters, &answers);
        refusals
    }

    /// A member's secret, if it is a colluder's or there are enough shares of it.
    pub(super) fn secret(&self, owner: usize, kind: Shared) -> Option<Secret> {
        if let Some((masks, seed)) = self.colluders.get(&owner) {
            return Some(Secret::from_bytes(if kind == Shared::Mask {
                masks.as_bytes()
            } else {
                seed.as_bytes()
            }));
        }
        let shares = self.shares.get(&(owner, kind))?;
        let threshold = self.session.config.parameters().threshold;
        if shares.len() < threshold {
            return None;
        }
        let shares: Vec<_> = shares.iter().take(threshold).collect();
        let secret = Interpolation::new(shares.iter().map(|(holder, _)| **holder))
            .recover(&shares.iter().map(|(_, share)| *share).collect::<Vec<_>>())
            .map(|secret| Secret::from_bytes(&secret))?;
        assert!(kind == Shared::Seed || secret.public_key() == self.mask_keys[owner]);
        Some(secret)
    }

    /// The sum of these members' vectors, if every mask between them and the others is known, and their self masks.
    pub(super) fn sum(&self, of: &[usize]) -> Option<Vec<u32>> {
        let mut masks = Vec::new();
        for &member in of {
            let seed = self.secret(member, Shared::Seed)?;
            masks.push((self_mask_key(&self.transcript, seed.as_bytes(), member), Sign::Minus));
            for other in self.graph.neighbours(member).into_iter().filter(|at| !of.contains(at)) {
                let (secret, ours, theirs) = match self.secret(member, Shared::Mask) {
                    Some(secret) => (secret, member, other),
                    None => (self.secret(other, Shared::Mask)?, other, member),
                };
                let key = pairwise_mask_key(&self.transcript, &secret, ours, &self.mask_keys[theirs], theirs);
                masks.push((key, pairwise_sign(other, member)));
            }
        }
        let config = &self.session.config;
        let mut sum = add(of.iter().map(|member| &self.uploads[*member]));
        config.parameters().prg.apply(masks, &mut sum.masked);
        Some(config.protocol().decode(&self.transcript, sum))
    }

    /// [`sum`](Self::sum) is known, and is that of their inputs.
    #[track_caller]
    pub(super) fn assert_sum(&self, of: &[usize]) {
        let mut expected = vec![0; self.session.config.parameters().length];
        for member in of {
            let input = &self.session.inputs[*member];
            expected.iter_mut().zip(input).for_each(|(sum, value)| *sum += value);
        }
        assert_eq!(self.sum(of), Some(expected));
    }
}

/// Layers added in their rings.
pub(super) fn add<'a>(layers: impl Iterator<Item = &'a Layers>) -> Layers {
    layers.cloned().reduce(add_two).expect("there is something to add")
}

fn add_two(a: Layers, b: Layers) -> Layers {
    let add_mod = |a: u64, b: u64| ((u128::from(a) + u128::from(b)) % u128::from(BODY_MODULUS)) as u64;
    Layers {
        masked: a.masked.into_iter().zip(b.masked).map(|(a, b)| a.wrapping_add(b)).collect(),
        body: a.body.into_iter().zip(b.body).map(|(a, b)| add_mod(a, b)).collect(),
    }
}
