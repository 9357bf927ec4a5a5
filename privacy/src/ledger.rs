//! Who has spent how much of the budget.
//!
//! ```text
//! check ─► reserve ─┬─► charge   for good
//!                   └─► release  the participation did not come to pass
//! ```
//!
//! A charge is a fact: it is recorded whether or not it was allowed, and a ledger is rebuilt by replaying the charges in
//! any order. [`Ledger::check`] is what refuses, before the fact. It counts what is reserved as if it were charged, so
//! that whatever is under way at the same time fits the budget together. The coordinator keeps all clients of a task in
//! one ledger; a client keeps its own entry in its own.
//!
//! Absent: refunds (a round that crashes stays charged), and the storage of the charges.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Epsilon, Guarantee};

/// Whatever names a client for the task's lifetime; the ledger only compares it.
pub type ClientId = [u8; 32];

/// The participations of each client under one guarantee and one budget.
#[derive(Clone, Debug)]
pub struct Ledger {
    guarantee: Guarantee,
    budget: Epsilon,
    /// The most participations that both the budget and the guarantee allow.
    cap: u32,
    participations: BTreeMap<ClientId, u32>,
    /// The most participations of any client.
    most: u32,
    /// Participations that are under way; no zeros.
    reserved: BTreeMap<ClientId, u32>,
}

/// One more participation that may not be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetExceeded {
    /// It would pass the budget.
    #[error("participation {participation} would bring epsilon to {epsilon:.4}, the budget is {budget}")]
    Epsilon {
        /// Which participation it would be, counted from 1.
        participation: u32,
        /// The ε after it.
        epsilon: f64,
        /// The budget.
        budget: Epsilon,
    },
    /// It would pass the number of rounds over which the guarantee was made.
    #[error("participation {participation} would pass the {rounds} rounds that the guarantee covers")]
    Rounds {
        /// Which participation it would be, counted from 1.
        participation: u32,
        /// Rounds of the task.
        rounds: u32,
    },
}

impl Ledger {
    /// A ledger without charges.
    pub fn new(guarantee: Guarantee, budget: Epsilon) -> Self {
        let cap = guarantee.participations_within(budget);
        Self { guarantee, budget, cap, participations: BTreeMap::new(), most: 0, reserved: BTreeMap::new() }
    }

    /// Whether the client may take part once more, if all that is reserved comes to pass.
    pub fn check(&self, client: &ClientId) -> Result<(), BudgetExceeded> {
        let participation =
            self.participations(client).saturating_add(self.reserved(client)).saturating_add(1);
        if participation <= self.cap {
            Ok(())
        } else if participation > self.guarantee.rounds {
            Err(BudgetExceeded::Rounds { participation, rounds: self.guarantee.rounds })
        } else {
            let epsilon = self.guarantee.epsilon(participation);
            Err(BudgetExceeded::Epsilon { participation, epsilon, budget: self.budget })
        }
    }

    /// Sets one participation aside.
    pub fn reserve(&mut self, client: ClientId) {
        let count = self.reserved.entry(client).or_default();
        *count = count.saturating_add(1);
    }

    /// Gives one reserved participation back, if there is one.
    pub fn release(&mut self, client: &ClientId) {
        match self.reserved.get_mut(client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.reserved.remove(client)),
        }
    }

    /// Gives back everything that is reserved.
    pub fn release_all(&mut self) {
        self.reserved.clear();
    }

    /// Records one participation, reserved or not, allowed or not.
    pub fn charge(&mut self, client: ClientId) {
        self.release(&client);
        let count = self.participations.entry(client).or_default();
        *count = count.saturating_add(1);
        self.most = self.most.max(*count);
    }

    /// Participations charged to the client.
    pub fn participations(&self, client: &ClientId) -> u32 {
        self.participations.get(client).copied().unwrap_or(0)
    }

    /// Participations that are set aside for the client.
    pub fn reserved(&self, client: &ClientId) -> u32 {
        self.reserved.get(client).copied().unwrap_or(0)
    }

    /// Everyone for whom something is set aside.
    pub fn reservations(&self) -> impl Iterator<Item = &ClientId> {
        self.reserved.keys()
    }

    /// Everyone who was charged, or has something set aside.
    pub fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.participations.keys().chain(self.reserved.keys()).collect::<BTreeSet<_>>().into_iter()
    }

    /// The ε that the client has spent; infinite if it was charged beyond what the guarantee covers.
    pub fn spent(&self, client: &ClientId) -> f64 {
        self.guarantee.epsilon(self.participations(client))
    }

    /// The largest ε that any client has spent: the loss that the task as a whole states.
    pub fn max_spent(&self) -> f64 {
        self.guarantee.epsilon(self.most)
    }

    /// The budget less [`Ledger::max_spent`], at least 0; infinite where the budget is.
    pub fn remaining(&self) -> f64 {
        if self.budget == Epsilon::INFINITE {
            return f64::INFINITY;
        }
        (self.budget.get() - self.max_spent()).max(0.0)
    }

    /// The budget.
    pub fn budget(&self) -> Epsilon {
        self.budget
    }

    /// The guarantee under which charges are counted.
    pub fn guarantee(&self) -> &Guarantee {
        &self.guarantee
    }

    /// The most participations that a client is allowed in the whole task.
    pub fn cap(&self) -> u32 {
        self.cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClipNorm, Delta, Mechanism, NoiseKind, NoiseMultiplier, Placement};

    const ALICE: ClientId = [1; 32];
    const BOB: ClientId = [2; 32];

    fn ledger(budget: f64) -> Ledger {
        let plan = Mechanism {
            adaptive_clip: None,
            evaluation: None,
            clip: ClipNorm::new(1.0).unwrap(),
            resolution: 4_096,
            dimension: 100,
            noise: NoiseKind::DiscreteGaussian,
            noise_multiplier: NoiseMultiplier::new(2.0).unwrap(),
            placement: Placement::Distributed {
                clients: 100,
                malicious: 2,
                groups: 5,
                group_size: 20,
                min_survivors: 15,
            },
            rounds: 10,
            delta: Delta::new(1e-5).unwrap(),
        };
        Ledger::new(plan.guarantee().unwrap(), Epsilon::new(budget).unwrap())
    }

    #[test]
    fn a_client_takes_part_until_the_budget_is_spent() {
        let mut ledger = ledger(4.0);
        let mut spent = 0.0;
        while ledger.check(&ALICE).is_ok() {
            ledger.charge(ALICE);
            assert!(ledger.spent(&ALICE) > spent, "every participation costs");
            spent = ledger.spent(&ALICE);
        }
        assert!(spent <= 4.0 && spent > 3.0, "{spent}");
        assert_eq!(ledger.participations(&ALICE), ledger.cap());
        let next = ledger.guarantee().epsilon(ledger.cap() + 1);
        assert_eq!(
            ledger.check(&ALICE),
            Err(BudgetExceeded::Epsilon {
                participation: ledger.cap() + 1,
                epsilon: next,
                budget: ledger.budget()
            })
        );
        assert!(next > 4.0);
        assert_eq!(ledger.check(&BOB), Ok(()), "budgets are per client");
    }

    #[test]
    fn what_is_reserved_counts_until_it_is_charged_or_released() {
        let mut ledger = ledger(4.0);
        for _ in 1..ledger.cap() {
            ledger.charge(ALICE);
        }
        ledger.check(&ALICE).unwrap();
        ledger.reserve(ALICE);
        let spent = ledger.spent(&ALICE);
        let Err(BudgetExceeded::Epsilon { participation, epsilon, .. }) = ledger.check(&ALICE) else {
            panic!("the last participation is set aside");
        };
        assert_eq!(participation, ledger.cap() + 1);
        assert!(epsilon > 4.0 && spent < 4.0, "{spent} is spent, and what is reserved is not");
        ledger.release(&ALICE);
        assert_eq!(ledger.check(&ALICE), Ok(()));

        ledger.reserve(ALICE);
        ledger.charge(ALICE);
        assert_eq!((ledger.reserved(&ALICE), ledger.participations(&ALICE)), (0, ledger.cap()));
        ledger.release(&ALICE);
        assert!(ledger.check(&ALICE).is_err(), "a charge is not taken back");

        ledger.reserve(BOB);
        ledger.reserve(BOB);
        ledger.release(&BOB);
        assert_eq!(
            (ledger.reserved(&BOB), ledger.reservations().count(), ledger.clients().count()),
            (1, 1, 2)
        );
        ledger.release_all();
        assert_eq!((ledger.reserved(&BOB), ledger.max_spent()), (0, ledger.spent(&ALICE)));
    }

    #[test]
    fn the_rounds_of_the_guarantee_are_a_cap_of_their_own() {
        let mut ledger = ledger(1_000.0);
        for _ in 0..10 {
            ledger.check(&ALICE).unwrap();
            ledger.charge(ALICE);
        }
        let refused = ledger.check(&ALICE).unwrap_err();
        assert_eq!(refused, BudgetExceeded::Rounds { participation: 11, rounds: 10 });
        assert_eq!(
            refused.to_string(),
            "participation 11 would pass the 10 rounds that the guarantee covers"
        );
        ledger.charge(ALICE);
        assert_eq!(ledger.spent(&ALICE), f64::INFINITY, "a charge beyond the guarantee is not hidden");
        assert_eq!(ledger.remaining(), 0.0);
    }

    #[test]
    fn a_budget_below_one_participation_admits_nobody() {
        let ledger = ledger(0.01);
        let refused = ledger.check(&ALICE).unwrap_err().to_string();
        assert!(refused.starts_with("participation 1 would bring epsilon to 2.16"), "{refused}");
        assert!(refused.ends_with("the budget is 0.01"), "{refused}");
    }

    #[test]
    fn the_task_states_its_largest_loss() {
        let mut ledger = ledger(8.0);
        assert_eq!((ledger.max_spent(), ledger.remaining()), (0.0, 8.0));
        for client in [ALICE, BOB, BOB, BOB] {
            ledger.charge(client);
        }
        assert_eq!(ledger.max_spent(), ledger.spent(&BOB));
        assert!(ledger.spent(&ALICE) < ledger.spent(&BOB));
        assert_eq!(ledger.remaining(), 8.0 - ledger.spent(&BOB));
    }

    #[test]
    fn charges_rebuild_a_ledger_in_any_order() {
        let charges = [ALICE, BOB, BOB, ALICE, BOB];
        let (mut forwards, mut backwards) = (ledger(8.0), ledger(8.0));
        for i in 0..charges.len() {
            forwards.charge(charges[i]);
            backwards.charge(charges[charges.len() - 1 - i]);
        }
        assert_eq!(forwards.participations, backwards.participations);
        assert_eq!(forwards.max_spent(), backwards.max_spent());
    }
}
