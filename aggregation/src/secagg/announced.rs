//! The groups that a coordinator's reveals make, as each client works them out: a function of the configuration, of two
//! messages that everyone is sent alike, and of the time. Nothing of the client itself comes in.
//!
//! So clients of one process may share what one of them worked out
//! ([`AwaitRoster::on_claimed`](super::client::AwaitRoster::on_claimed),
//! [`AwaitReveals::on_announced`](super::client::AwaitReveals::on_announced)): a simulation of n clients would otherwise read
//! n² entries. A client by itself takes the same way, with values that it makes for itself.

use std::sync::{Arc, OnceLock};

use super::client::Refusal;
use super::config::SessionConfig;
use super::groups::{ClaimedRoster, Group, RosterError, form_groups};
use super::messages::{Advertisement, Nonce, decode_reveals};

/// The groups of a roster by its reveals, and the members of those that were asked for.
pub struct AnnouncedGroups {
    roster: Arc<ClaimedRoster>,
    /// When certificates are judged, in unix seconds.
    now: u64,
    reveals: Vec<(usize, Nonce)>,
    groups: Result<Vec<AnnouncedGroup>, Refusal>,
}

struct AnnouncedGroup {
    group: Group,
    members: OnceLock<Result<Vec<Advertisement>, RosterError>>,
}

impl AnnouncedGroups {
    pub(super) fn read(
        roster: Arc<ClaimedRoster>,
        config: &SessionConfig,
        message: &[u8],
        now: u64,
    ) -> Result<Self, Refusal> {
        let reveals = decode_reveals(message, roster.claims().len())?;
        let groups = check(&roster, config, &reveals).map(|()| {
            let formed = form_groups(config, roster.root(), message, &reveals).into_iter();
            formed.map(|group| AnnouncedGroup { group, members: OnceLock::new() }).collect()
        });
        Ok(Self { roster, now, reveals, groups })
    }

    /// Whether they are groups of this roster.
    pub(super) fn are_of(&self, roster: &ClaimedRoster) -> bool {
        self.roster.root() == roster.root()
    }

    /// Whether the client of that roster index has revealed this nonce.
    pub(super) fn has_revealed(&self, index: usize, nonce: &Nonce) -> bool {
        self.reveals
            .binary_search_by_key(&index, |(index, _)| *index)
            .is_ok_and(|at| self.reveals[at].1 == *nonce)
    }

    /// The group of a client that has revealed, its position there, and the group's entries, whose signatures are valid.
    pub(super) fn group_of(
        &self,
        index: usize,
        config: &SessionConfig,
    ) -> Result<(&Group, usize, &[Advertisement]), Refusal> {
        let groups = self.groups.as_ref().map_err(Refusal::clone)?;
        let (AnnouncedGroup { group, members }, position) = groups
            .iter()
            .find_map(|announced| {
                let position = announced.group.members().iter().position(|&member| member == index)?;
                Some((announced, position))
            })
            .expect("every member that revealed is in a group");
        let members = members.get_or_init(|| self.roster.verify(group, config, self.now));
        Ok((group, position, members.as_ref().map_err(RosterError::clone)?))
    }
}

/// Every nonce is the one that was committed to, and no more are missing than agreed.
fn check(roster: &ClaimedRoster, config: &SessionConfig, reveals: &[(usize, Nonce)]) -> Result<(), Refusal> {
    let claims = roster.claims();
    for (index, nonce) in reveals {
        if !claims[*index].commits_to_nonce(config, nonce) {
            return Err(Refusal::AlteredReveal { index: *index });
        }
    }
    let (missing, max) = (claims.len() - reveals.len(), config.parameters().max_missing_reveals);
    if missing > max {
        return Err(Refusal::MissingReveals { missing, max });
    }
    Ok(())
}
