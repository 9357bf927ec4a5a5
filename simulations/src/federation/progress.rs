//! Rounds, as the events tell of them.

use fedveil_coordinator_core::{Event, Millis};
use fedveil_provenance::{Digest, GroupDecision};
use serde::{Deserialize, Serialize};

/// One round that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundSummary {
    /// Its number, from 1.
    pub round: u32,
    /// Virtual time at which it was opened, in milliseconds.
    pub opened: Millis,
    /// Virtual time at which it was over.
    pub ended: Millis,
    /// Clients that were drawn.
    pub cohort: usize,
    /// Inputs that were accepted.
    pub inputs: usize,
    /// Clients that left the round before its end, whatever for.
    pub dropped: usize,
    /// With [`Attendance::Buffered`](super::Attendance::Buffered), how many newer models there were on average when those who
    /// checked in for the round had finished with theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness: Option<f64>,
    /// Bytes of messages that clients have sent since the round before was over, lost ones included.
    pub bytes_up: u64,
    /// The same of the coordinator's messages.
    pub bytes_down: u64,
    /// How it ended.
    pub outcome: RoundOutcome,
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum RoundOutcome {
    /// With a new model.
    Published {
        /// Digest of the model file; [`Federation::model`](super::Federation::model) has its bytes until the next round
        /// is over.
        model: Digest,
        /// What became of each row of the rule.
        groups: Vec<GroupDecision>,
    },
    /// Without one.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// Counts what happens in the round in progress.
#[derive(Default)]
pub(super) struct Progress {
    opened: Option<(u32, Millis)>,
    cohort: usize,
    inputs: usize,
    dropped: usize,
    /// Flights that have checked in, and the newer models that there were, of all together.
    stale: (u64, u64),
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

impl Progress {
    /// Takes note of an event at this time; gives the round that it ends.
    pub(super) fn note(&mut self, event: &Event, now: Millis) -> Option<RoundSummary> {
        match event {
            Event::RoundOpened { round, cohort, .. } => {
                (self.opened, self.cohort) = (Some((*round, now)), cohort.len());
                None
            }
            Event::InputAccepted { .. } | Event::UpdateAccepted { .. } => {
                self.inputs += 1;
                None
            }
            Event::ClientDropped { .. } => {
                self.dropped += 1;
                None
            }
            Event::Published { round: 1.., model, groups, .. } => {
                self.end(now, RoundOutcome::Published { model: *model, groups: groups.clone() })
            }
            Event::RoundAborted { reason, .. } => {
                self.end(now, RoundOutcome::Aborted { reason: reason.clone() })
            }
            _ => None,
        }
    }

    /// These have checked in, with models that had so many newer ones each.
    pub(super) fn stale(&mut self, checked_in: impl Iterator<Item = u64>) {
        for staleness in checked_in {
            self.stale = (self.stale.0 + 1, self.stale.1 + staleness);
        }
    }

    fn end(&mut self, ended: Millis, outcome: RoundOutcome) -> Option<RoundSummary> {
        let Self { opened, cohort, inputs, dropped, stale, bytes_up, bytes_down } = std::mem::take(self);
        let (round, opened) = opened?;
        let (flights, newer) = stale;
        let staleness = (flights > 0).then(|| newer as f64 / flights as f64);
        Some(RoundSummary {
            round,
            opened,
            ended,
            cohort,
            inputs,
            dropped,
            staleness,
            bytes_up,
            bytes_down,
            outcome,
        })
    }
}
