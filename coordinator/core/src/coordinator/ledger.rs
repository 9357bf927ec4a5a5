//! The ledger: what a run's events cost its clients.

use crate::event::Event;
use fedveil_privacy::Ledger;
use fedveil_proto_plan::{PlanError, TaskPlan, Terms};

/// The ledger of a run, from its plan and its events. Of a round that is not over, everyone of the cohort who is not
/// charged counts as reserved.
pub fn ledger_of(plan: &TaskPlan, events: &[Event]) -> Result<Ledger, PlanError> {
    let mut ledger = new_ledger(plan, &plan.check()?)?;
    for event in events {
        note(&mut ledger, event);
    }
    Ok(ledger)
}

pub(super) fn new_ledger(plan: &TaskPlan, terms: &Terms) -> Result<Ledger, PlanError> {
    Ok(Ledger::new(terms.guarantee.clone(), plan.budget()?))
}

/// What an event by itself says to the ledger.
pub(super) fn note(ledger: &mut Ledger, event: &Event) {
    match event {
        Event::RoundOpened { cohort, .. } => cohort.iter().for_each(|client| ledger.reserve(client.0)),
        Event::PrivacyCharged { clients, .. } => clients.iter().for_each(|client| ledger.charge(client.0)),
        Event::Published { .. } | Event::RoundAborted { .. } | Event::TaskClosed { .. } => {
            ledger.release_all();
        }
        _ => {}
    }
}
