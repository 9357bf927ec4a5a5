//! What clients of the round send: accepted as events, or refused. Reads only.

use crate::command::{Input, Reject, Upload};
use crate::coordinator::Coordinator;
use crate::event::{Client, Event, Hex, Millis};
use crate::round::{Progress, Round, Stage};
use fedveil_aggregation::plain;
use fedveil_aggregation::secagg::{ClientId, GroupServer};
use fedveil_proto::Kind;
use fedveil_provenance::Digest;
use std::collections::BTreeSet;

impl Round {
    /// Judges a message of a client that is in the round.
    pub(crate) fn decide_message(
        &self,
        client: &Client,
        kind: Kind,
        bytes: &[u8],
        now: Millis,
    ) -> Result<Vec<Event>, Reject> {
        let from = ClientId(client.0);
        let client = *client;
        let message = || Hex(bytes.to_vec());
        let event = match (&self.stage, kind) {
            (Stage::Advertising { cohort, .. }, Kind::Advertise) => {
                let advertisement =
                    cohort.check_advertise(bytes, now.unix_seconds()).map_err(Reject::fault)?;
                if advertisement.client_id() != from {
                    return Err(Reject::fault("the advertisement names another client"));
                }
                Event::Advertised { client, message: message() }
            }
            (Stage::Revealing { config, roster, reveals }, Kind::Reveal) => {
                if reveals.contains_key(&from) {
                    return Err(Reject::fault("message was already accepted from this client"));
                }
                roster.check_reveal(config, from, bytes).map_err(Reject::fault)?;
                Event::Revealed { client, message: message() }
            }
            (Stage::Grouped { groups, group_of, .. }, _) => {
                let group =
                    group_of.get(&client).ok_or_else(|| Reject::fault("the client is in no group"))?;
                let server = groups[*group].server.as_ref().ok_or_else(|| self.misplaced(kind))?;
                match kind {
                    Kind::Shares => {
                        server.check_shares(from, bytes).map_err(Reject::fault)?;
                        Event::Shared { client, message: message() }
                    }
                    Kind::Consistency => {
                        server.check_consistency(from, bytes).map_err(Reject::fault)?;
                        Event::Signed { client, message: message() }
                    }
                    Kind::Unmask => {
                        server.check_unmask(from, bytes).map_err(Reject::fault)?;
                        Event::Unmasked { client, message: message() }
                    }
                    _ => return Err(self.misplaced(kind)),
                }
            }
            _ => return Err(self.misplaced(kind)),
        };
        Ok(vec![event])
    }

    /// Refuses an input that is not awaited.
    pub(crate) fn begin_input(
        &self,
        coordinator: &Coordinator,
        client: &Client,
        kind: Kind,
    ) -> Result<Upload, Reject> {
        match (&self.stage, kind) {
            (Stage::Grouped { config: None, .. }, Kind::PlainInput) => {
                self.expects_steps(client)?;
                Ok(Upload::Plain(plain::Upload::steps(coordinator.terms().guarantee.input_length())))
            }
            (Stage::Grouped { config: Some(config), .. }, Kind::Input) => {
                self.server_of(client)?.expects_input(ClientId(client.0)).map_err(Reject::fault)?;
                Ok(Upload::Masked(config.upload()))
            }
            (Stage::Plain { updated, closing: false, .. }, Kind::PlainInput) => {
                expects_update(updated, client)?;
                let parameters = coordinator.plan().plan().model.parameters as usize;
                let upload = if coordinator.terms().guarantee.has_noise() {
                    plain::Upload::steps(parameters)
                } else {
                    plain::Upload::reals(parameters)
                };
                Ok(Upload::Plain(upload))
            }
            _ => Err(self.misplaced(kind)),
        }
    }

    /// Judges an input of a client that is in the round.
    pub(crate) fn decide_input(
        &self,
        coordinator: &Coordinator,
        client: &Client,
        input: &Input,
    ) -> Result<Vec<Event>, Reject> {
        let client = *client;
        match (&self.stage, input) {
            (Stage::Grouped { config: None, .. }, Input::Plain(update)) => {
                self.check_round(update)?;
                self.expects_steps(&client)?;
                Ok(vec![Event::UpdateAccepted { client }])
            }
            (Stage::Grouped { config: Some(_), .. }, Input::Masked(input)) => {
                self.server_of(&client)?
                    .check_masked_input(ClientId(client.0), input)
                    .map_err(Reject::fault)?;
                Ok(vec![Event::InputAccepted { client, digest: Digest(*input.digest()) }])
            }
            (Stage::Plain { updated, closing: false, .. }, Input::Plain(update)) => {
                self.check_round(update)?;
                expects_update(updated, &client)?;
                coordinator.check_update(&update.values)?;
                Ok(vec![Event::UpdateAccepted { client }])
            }
            (_, Input::Masked(_)) => Err(self.misplaced(Kind::Input)),
            (_, Input::Plain(_)) => Err(self.misplaced(Kind::PlainInput)),
        }
    }

    fn check_round(&self, update: &plain::Update) -> Result<(), Reject> {
        let (found, expected) = (update.round, self.number);
        if found != expected {
            return Err(Reject::ignore(format!("too late: an update of round {found} in round {expected}")));
        }
        Ok(())
    }

    /// Whether an update is awaited of this client, in a group without masks.
    fn expects_steps(&self, client: &Client) -> Result<(), Reject> {
        let group = self.group_of(client).and_then(|group| self.group(group));
        let group = group.ok_or_else(|| Reject::fault("the client is in no group"))?;
        expects_update(&group.survivors, client)?;
        match group.progress {
            Progress::In(_) => Ok(()),
            _ => Err(Reject::fault("input comes after its sender was declared dropped")),
        }
    }

    fn server_of(&self, client: &Client) -> Result<&GroupServer, Reject> {
        let Stage::Grouped { groups, group_of, .. } = &self.stage else {
            return Err(self.misplaced(Kind::Input));
        };
        let group = group_of.get(client).ok_or_else(|| Reject::fault("the client is in no group"))?;
        groups[*group].server.as_ref().ok_or_else(|| self.misplaced(Kind::Input))
    }
}

fn expects_update(updated: &BTreeSet<Client>, client: &Client) -> Result<(), Reject> {
    if updated.contains(client) {
        return Err(Reject::fault("message was already accepted from this client"));
    }
    Ok(())
}
