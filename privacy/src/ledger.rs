//! Who has spent how much of the budget.
//!
//! A charge is a fact: it is recorded whether or not it was allowed, and a ledger is rebuilt by replaying the charges in
//! any order. [`Ledger::check`] is what refuses, before the fact. The coordinator keeps all clients of a task in one
//! ledger; a client keeps its own entry in its own.
//!
//! Absent: reservations, refunds (a round that crashes stays charged), and the storage of the charges.

use std::collections::BTreeMap;

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
        Self { guarantee, budget, cap, participations: BTreeMap::new() }
    }

    /// Whether the client may take part once more.
    pub fn check(&self, client: &ClientId) -> Result<(), BudgetExceeded> {
        let participation = self.participations(client).saturating_add(1);
        if participation <= self.cap {
            Ok(())
        } else if participation > self.guarantee.rounds {
            Err(BudgetExceeded::Rounds { participation, rounds: self.guarantee.rounds })
        } else {
            let epsilon = self.guarantee.epsilon(participation);
            Err(BudgetExceeded::Epsilon { participation, epsilon, budget: self.budget })
        }
    }

    /// Records one participation, allowed or not.
    pub fn charge(&mut self, client: ClientId) {
        let count = self.participations.entry(client).or_default();
        *count = count.saturating_add(1);
    }

    /// Participations charged to the client.
    pub fn participations(&self, client: &ClientId) -> u32 {
        self.participations.get(client).copied().unwrap_or(0)
    }

    /// The ε that the client has spent; infinite if it was charged beyond what the guarantee covers.
    pub fn spent(&self, client: &ClientId) -> f64 {
        self.guarantee.epsilon(self.participations(client))
    }

    /// The largest ε that any client has spent: the loss that the task as a whole states.
    pub fn max_spent(&self) -> f64 {
        self.guarantee.epsilon(self.participations.values().copied().max().unwrap_or(0))
    }

    /// The budget less [`Ledger::max_spent`], at least 0.
    pub fn remaining(&self) -> f64 {
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
