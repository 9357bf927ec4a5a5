//! Inputs: what a round takes from clients, how long it may be, and which sum it belongs to.

use crate::command::{Command, Reject, Upload};
use crate::coordinator::{Coordinator, Settings};
use crate::event::Client;
use crate::job::Job;
use crate::updates::{Total, Updates};
use fedveil_aggregation::plain::{self, Values};
use fedveil_aggregation::secagg::{Accumulator, MAX_CERTIFICATE_LEN, MaskedInput, SessionConfig};
use fedveil_privacy::{Placement, l2_norm};
use fedveil_proto::{Kind, limits::MAX_DECLINE};
use fedveil_proto_plan::Mode;
use fedveil_provenance::{Candidate, Digest};
use std::collections::BTreeMap;

impl Coordinator {
    /// What decodes a client's input while it arrives, a message of this kind. Where none is awaited it is refused before
    /// its bytes are read; either way the shell says how it went with [`Command::Input`].
    pub fn begin_input(&self, client: &Client, kind: Kind) -> Result<Upload, Reject> {
        self.round_of_input(client)?.begin_input(self, client, kind)
    }

    /// An input that arrived whole.
    pub fn whole_input(&self, client: Client, kind: Kind, bytes: &[u8]) -> Command {
        let decode = |mut upload: Upload| {
            upload.push(bytes)?;
            upload.finish()
        };
        Command::Input { client, input: self.begin_input(&client, kind).and_then(decode) }
    }

    /// Refuses an update that no honest client sends, where the guarantee depends on it, or nothing else bounds it.
    pub(crate) fn check_update(&self, values: &Values) -> Result<(), Reject> {
        let grid = &self.terms.guarantee.grid;
        match (self.terms.guarantee.placement, values) {
            (Placement::Central { .. } | Placement::Correlated { .. }, Values::Steps(steps))
                if !grid.admits(steps) =>
            {
                Err(Reject::fault(format!(
                    "the update's norm is beyond {:.1} steps, what the noise is sized for",
                    grid.norm_bound()
                )))
            }
            (_, Values::Reals(reals)) => {
                let norm = l2_norm(reals);
                if norm <= self.clip.get() && norm.is_finite() {
                    return Ok(());
                }
                let bound = if norm.is_finite() { self.clip.to_string() } else { "any number".to_owned() };
                Err(Reject::fault(format!("the update's norm is {norm}, beyond {bound}")))
            }
            _ => Ok(()),
        }
    }

    /// Adds an accepted input to its group's sum.
    pub(crate) fn accumulate(
        &self,
        client: &Client,
        input: &MaskedInput,
        sums: &mut BTreeMap<u32, Accumulator>,
    ) {
        if let Some(round) = &self.round {
            round.accumulate(client, input, sums);
        }
    }

    /// The job that closes a round of single updates.
    pub(crate) fn close_job(&self, updates: Updates) -> Option<Job> {
        self.round.as_ref()?.close_job(self, updates)
    }

    /// The sum that a client's update belongs to, where nothing is asked of updates but their sums.
    pub(crate) fn sum_of(&self, client: &Client) -> Option<u32> {
        match self.terms.mode {
            Mode::InsecurePlain => self.terms.rule.is_mean().then_some(0),
            Mode::Secagg | Mode::InsecureIdeal => self.round.as_ref()?.group_of(client),
        }
    }

    /// The job that makes a group's sum known where nothing is masked.
    pub(crate) fn sum_job(&mut self, group: u32, sum: Total) -> Option<Job> {
        let ring_bits = self.terms.guarantee.ring_bits;
        Some(Job::Sum {
            round: self.last_round,
            group,
            sum: self.round.as_mut()?.sum(group, sum)?,
            ring_bits,
        })
    }

    /// The job that unmasks a group's sum.
    pub(crate) fn unmask_job(&mut self, group: u32, sum: Accumulator) -> Option<Job> {
        self.round.as_mut()?.unmask_job(group, sum)
    }

    /// Longest message of each kind that a client may send, for the transport.
    pub fn message_limits(&self) -> impl Fn(Kind) -> usize + Send + Sync + use<> {
        let session = self.session(0, &Digest([0; 32])).map(|session| session.limits());
        let update = plain::message_len(self.terms.guarantee.input_length());
        move |kind| match (kind, &session) {
            (Kind::Hello, _) => 4 + MAX_CERTIFICATE_LEN,
            (Kind::Join, _) => 8,
            (Kind::Decline, _) => MAX_DECLINE,
            (Kind::Advertise, Some(limits)) => limits.advertise,
            (Kind::Reveal, Some(limits)) => limits.reveal,
            (Kind::Shares, Some(limits)) => limits.shares,
            (Kind::Input, Some(limits)) => limits.masked_input,
            (Kind::Consistency, Some(limits)) => limits.consistency,
            (Kind::Unmask, Some(limits)) => limits.unmask,
            (Kind::PlainInput, None) => update,
            _ => 0,
        }
    }

    /// The session of secure aggregation of a round, in plans that have one.
    pub(crate) fn session(&self, round: u32, model: &Digest) -> Option<SessionConfig> {
        let Settings { plan, authority, .. } = &self.settings;
        (self.terms.mode == Mode::Secagg).then(|| {
            self.terms.session(plan, authority, round, model).expect(
                "the session parameters were checked when the coordinator was made, and no round changes them",
            )
        })
    }

    /// The session in which clients judge a new model, in plans that ask them.
    pub(crate) fn evaluation_session(&self, candidate: &Candidate) -> SessionConfig {
        let Settings { plan, authority, .. } = &self.settings;
        self.terms.evaluation_session(plan, authority, candidate).expect(
            "the session parameters were checked when the coordinator was made, and no candidate changes them",
        )
    }
}
