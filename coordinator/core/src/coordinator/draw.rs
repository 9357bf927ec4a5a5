//! Rounds: when one opens and who is drawn into it, and when the task ends.
//!
//! Draws come from the seed of the call alone. Who cannot pay, or is quarantined, is never drawn.

use crate::coordinator::{Coordinator, JOIN_WINDOW_SECONDS};
use crate::event::{Client, Event, Millis};
use fedveil_privacy::{Overdrawn, Participation, Placement, Sampling, SamplingRate};
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;

impl Coordinator {
    pub(super) fn end_of_task(&self, now: Millis, overdrawn: &BTreeMap<Client, Overdrawn>) -> Option<String> {
        let rounds = self.settings.plan.plan().rounds;
        if self.last_round >= rounds {
            return Some(format!("all {rounds} rounds are done"));
        }
        if let (Some(gate), Some(last)) = (&self.settings.plan.plan().server.gate, self.rejected.last())
            && self.rejected.len() >= gate.max_rejections as usize
        {
            let count = self.rejected.len();
            return Some(format!("the gate rejected {count} models in a row; of the last, {}", last.reason));
        }
        let affordable = self.terms.affordable_rounds;
        let minimum = self.settings.plan.plan().cohort.minimum as usize;
        // Counting is for when there may be enough: it is asked after every message.
        let enough_are_there =
            self.joined.len() >= self.wanted(now) && self.drawable().count() >= self.wanted(now);
        let paying = || self.drawable().filter(|client| self.can_pay(client)).count();
        // Enough clients are there, and too few of them can pay.
        if self.last_round >= affordable && enough_are_there && paying() < minimum {
            return Some(format!(
                "one more round would pass the privacy budget epsilon {} (spent {:.2} in {affordable} rounds)",
                self.settings.plan.plan().privacy.epsilon,
                self.epsilon_spent()
            ));
        }
        // The same, for what they have spent elsewhere. What is under way elsewhere may come to nothing.
        let can_never_pay = |client: &&Client| {
            !self.can_pay(client) || overdrawn.get(client).is_some_and(|found| found.for_good)
        };
        let least = overdrawn.iter().min_by(|(_, one), (_, other)| one.asked.total_cmp(&other.asked));
        let counted = || (self.drawable().count(), self.drawable().filter(can_never_pay).count());
        match least.map(|least| (least, counted())) {
            Some(((client, found), (there, spent))) if enough_are_there && there - spent < minimum => {
                Some(format!(
                    "{spent} of {there} clients cannot pay for one more round, and cohort.minimum is {minimum}; \
                     for client {client}, {found}"
                ))
            }
            _ => None,
        }
    }

    /// Clients without which no round begins at this time.
    fn wanted(&self, now: Millis) -> usize {
        let cohort = &self.settings.plan.plan().cohort;
        let waited = now >= self.idle_since.plus_seconds(JOIN_WINDOW_SECONDS);
        let everyone = cohort.population.unwrap_or(cohort.clients);
        let held = self.suspicion.quarantined().len() as u32;
        (if waited { cohort.minimum } else { everyone.saturating_sub(held).max(cohort.minimum) }) as usize
    }

    fn can_pay(&self, client: &Client) -> bool {
        self.ledger.check(&client.0).is_ok()
    }

    pub(super) fn open_round(
        &self,
        now: Millis,
        seed: [u8; 32],
        overdrawn: &BTreeMap<Client, Overdrawn>,
    ) -> Vec<Event> {
        let wanted = self.wanted(now);
        if self.joined.len() < wanted {
            return Vec::new();
        }
        let mut ready: Vec<Client> = self.drawable().filter(|client| self.can_pay(client)).copied().collect();
        ready.retain(|client| !overdrawn.contains_key(client));
        if ready.len() < wanted {
            return Vec::new();
        }
        let mut rng = chacha20::ChaCha20Rng::from_seed(seed);
        let round = self.last_round + 1;
        let deadline = self.phase_deadline(now);
        if let Some(rate) = self.sampling_rate() {
            let cohort = ready.iter().filter(|_| coin(&mut rng, rate)).copied().collect();
            // Everyone who could have been drawn pays, and at once: what happens in the round tells who was.
            return vec![
                Event::RoundOpened { round, cohort, deadline },
                Event::PrivacyCharged { group: 0, clients: ready },
            ];
        }
        // There may be none: noise that is correlated goes on whoever is there.
        let free = ready.into_iter().filter(|client| self.may_take_part(client, round)).collect();
        let cohort = drawn(free, self.settings.plan.plan().cohort.clients as usize, &mut rng);
        vec![Event::RoundOpened { round, cohort, deadline }]
    }

    /// The probability with which each client is drawn, where that is what the guarantee counts on.
    pub(crate) fn sampling_rate(&self) -> Option<SamplingRate> {
        match self.terms.guarantee.placement {
            Placement::Central { sampling: Sampling::Poisson(rate) } => Some(rate),
            _ => None,
        }
    }

    /// How often a client may take part, where the guarantee counts on that.
    pub(super) fn participation(&self) -> Option<Participation> {
        match self.terms.guarantee.placement {
            Placement::Correlated { participation, .. } => Some(participation),
            _ => None,
        }
    }

    /// Whether a participation costs this client anything: with correlated noise, the first one has paid for all.
    pub(crate) fn pays(&self, client: &Client) -> bool {
        self.participation().is_none() || self.ledger.participations(&client.0) == 0
    }

    /// Whether the guarantee lets the client take part in this round.
    fn may_take_part(&self, client: &Client, round: u32) -> bool {
        match (self.participation(), self.participated.get(client)) {
            (Some(Participation { min_separation, max_participations }), Some(&(last, count))) => {
                round - last >= min_separation && count < max_participations
            }
            _ => true,
        }
    }
}

/// A uniformly random set of at most `places` clients, sorted.
fn drawn(mut ready: Vec<Client>, places: usize, rng: &mut impl Rng) -> Vec<Client> {
    let places = ready.len().min(places);
    for place in 0..places {
        let rest = (ready.len() - place) as u64;
        ready.swap(place, place + uniform(rng, rest) as usize);
    }
    ready.truncate(places);
    ready.sort_unstable();
    ready
}

/// True with this probability, or less by at most 2^-53.
fn coin(rng: &mut impl Rng, rate: SamplingRate) -> bool {
    // A rate has 53 significant bits, so that its product with 2^64 is a whole number, or rounded down to one.
    let most = (rate.get() * 2f64.powi(64)) as u128;
    u128::from(rng.next_u64()) < most
}

/// A number in `0..bound` without bias, by rejection; `bound` is not 0.
fn uniform(rng: &mut impl Rng, bound: u64) -> u64 {
    let zone = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < zone {
            return draw % bound;
        }
    }
}
