//! Canaries: clients that take part to find out how much a run tells about one client.
//!
//! A canary flips a fair coin before the run. Under heads it submits, in every round, a random direction of its own at
//! the full clip norm; under tails the zero update. That is the pair of neighbours which the plan's ε is about: one
//! client's updates, or zeros in their place. All else that it does is what an honest client does: it clips, rotates,
//! rounds, adds noise, masks.
//!
//! Afterwards [`scores`] asks what the coordinator saw: the noised sum of every group that a canary was in. That is the
//! most that the folder of a run holds about a client, and more than the models do: they are made from the same sums by
//! division, a rule and momentum, which only lose. `fedveil_privacy::audit` turns scores into bounds on ε.
//!
//! Absent on purpose: canaries that know one another's coins, and directions chosen with the data in view.

use std::collections::BTreeMap;

use fedveil_coordinator_core::Event;
use fedveil_privacy::Rotation;
use fedveil_privacy::audit::Scores;
use fedveil_proto_plan::{TaskPlan, Terms};
use fedveil_provenance::Digest;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::sampling::standard_normal;

/// The source of all coins and directions of a run. Who has it knows who was there: it is for after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CanarySeed(pub Digest);

impl CanarySeed {
    /// The coin of a client, by its number.
    pub fn coin(&self, client: u32) -> bool {
        self.stream("coin", client).next_u32() % 2 == 1
    }

    /// What a canary submits in every round.
    pub fn update(&self, client: u32, length: usize, clip_norm: f64) -> Vec<f32> {
        if !self.coin(client) {
            return vec![0.0; length];
        }
        self.direction(client, length).iter().map(|value| (value * clip_norm) as f32).collect()
    }

    /// A uniformly random direction, of norm 1.
    fn direction(&self, client: u32, length: usize) -> Vec<f64> {
        let mut rng = self.stream("direction", client);
        let vector: Vec<f64> = (0..length).map(|_| standard_normal(&mut rng)).collect();
        let norm = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        vector.iter().map(|value| value / norm).collect()
    }

    fn stream(&self, purpose: &str, client: u32) -> chacha20::ChaCha20Rng {
        let name = format!("fedveil/canary/v1\n{}\n{purpose}\n{client}", self.0);
        chacha20::ChaCha20Rng::from_seed(Digest::of(name).0)
    }
}

/// The file `canaries.json` of a run folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canaries {
    /// Source of coins and directions.
    pub seed: CanarySeed,
    /// Who they were.
    pub canaries: Vec<Canary>,
}

/// One canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Its number among the clients, from which its coin and its direction follow.
    pub number: u32,
    /// Its identity.
    pub client: Digest,
}

/// What a run tells about its canaries.
#[derive(Debug)]
pub struct Scored {
    /// The score and the coin of every canary that was in a sum.
    pub scores: Scores,
    /// Canaries that were in none; nothing can be told about them.
    pub unseen: u32,
    /// Canaries of heads among the scored.
    pub included: u32,
    /// Most rounds that one canary was in a sum of.
    pub rounds: u32,
}

/// Why there are no scores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanaryError {
    /// A sum cannot be read.
    #[error("group sum {digest}: {reason}")]
    Sum {
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// No canary was in any sum.
    #[error("none of {canaries} canaries was in a group's sum; accepted is a run in which one was")]
    Unseen {
        /// How many there were.
        canaries: usize,
    },
    /// Scores that no audit can use.
    #[error(transparent)]
    Scores(#[from] fedveil_privacy::ParamError),
}

/// Scores every canary by the group sums that it was in, from the coordinator's events.
///
/// Of a sum, what is left after the other groups' median, scaled to the group's survivors, is projected on the canary's
/// direction, in clip norms. Heads is expected at 1 and tails at 0 in every round, and the noise is that of the plan: the
/// sum over rounds of projection − ½ ranks canaries by their likelihood ratio, and is 0 where both are equally likely.
///
/// `blob` reads a sum by its digest.
pub fn scores(
    canaries: &Canaries,
    plan: &TaskPlan,
    terms: &Terms,
    events: &[Event],
    mut blob: impl FnMut(&Digest) -> Result<Vec<u8>, String>,
) -> Result<Scored, CanaryError> {
    let length = plan.model.parameters as usize;
    let mut tallies: BTreeMap<Digest, Tally> = canaries
        .canaries
        .iter()
        .map(|canary| {
            let direction = canaries.seed.direction(canary.number, length);
            (canary.client, Tally { direction, number: canary.number, score: 0.0, rounds: 0 })
        })
        .collect();
    for round in rounds(events) {
        let rotation = Rotation::new(&plan.rotation_seed(round.number, &round.model), length);
        let mut sums = Vec::new();
        for (group, digest) in &round.sums {
            let unreadable = |reason: String| CanaryError::Sum { digest: *digest, reason };
            let bytes = blob(digest).map_err(unreadable)?;
            let (words, rest) = bytes.as_chunks::<8>();
            if words.len() != length || !rest.is_empty() {
                let found = bytes.len();
                return Err(unreadable(format!("{found} bytes, expected 8 for each of {length} parameters")));
            }
            let steps: Vec<i64> = words.iter().map(|word| i64::from_le_bytes(*word)).collect();
            let mut sum = terms.guarantee.grid.to_real(&steps);
            rotation.inverse(&mut sum);
            sums.push((round.members.get(group).map_or(&[][..], Vec::as_slice), sum));
        }
        let typical = typical_update(&sums, length);
        for (members, sum) in &sums {
            let survivors = members.len() as f64;
            for member in *members {
                let Some(tally) = tallies.get_mut(member) else { continue };
                let residuals = sum.iter().zip(&typical).map(|(sum, typical)| sum - survivors * typical);
                let projection: f64 = tally.direction.iter().zip(residuals).map(|(a, b)| a * b).sum();
                tally.score += projection / plan.privacy.clip_norm - 0.5;
                tally.rounds += 1;
            }
        }
    }
    let unseen = tallies.values().filter(|tally| tally.rounds == 0).count();
    tallies.retain(|_, tally| tally.rounds > 0);
    if tallies.is_empty() {
        return Err(CanaryError::Unseen { canaries: canaries.canaries.len() });
    }
    let coin = |tally: &Tally| canaries.seed.coin(tally.number);
    Ok(Scored {
        scores: Scores::new(tallies.values().map(|tally| (tally.score, coin(tally))))?,
        unseen: unseen as u32,
        included: tallies.values().filter(|tally| coin(tally)).count() as u32,
        rounds: tallies.values().map(|tally| tally.rounds).max().unwrap_or(0),
    })
}

struct Tally {
    direction: Vec<f64>,
    number: u32,
    score: f64,
    rounds: u32,
}

/// What a round's sums were made of.
struct Round {
    number: u32,
    /// The model that the round started from.
    model: Digest,
    /// Who was charged for a group's sum, and so is in it.
    members: BTreeMap<u32, Vec<Digest>>,
    sums: BTreeMap<u32, Digest>,
}

fn rounds(events: &[Event]) -> Vec<Round> {
    let mut current = Digest::of(b"");
    let mut rounds: Vec<Round> = Vec::new();
    // What clients say of a new model are sums too, and of no update.
    let mut is_judged = false;
    for event in events {
        match event {
            Event::EvaluationOpened { .. } => is_judged = true,
            Event::TaskOpened { model, .. } | Event::Published { model, .. } => current = *model,
            Event::RoundOpened { round, .. } => {
                is_judged = false;
                rounds.push(Round {
                    number: *round,
                    model: current,
                    members: BTreeMap::new(),
                    sums: BTreeMap::new(),
                });
            }
            Event::PrivacyCharged { group, clients, .. } => {
                if let Some(round) = rounds.last_mut() {
                    round.members.insert(*group, clients.clone());
                }
            }
            Event::GroupSummed { group, sum, .. } if !is_judged => {
                if let Some(round) = rounds.last_mut() {
                    round.sums.insert(*group, *sum);
                }
            }
            _ => {}
        }
    }
    rounds
}

/// The median over groups of a group's mean update, by coordinate: what all clients have in common, and no canary's
/// business. Zero where fewer than three groups leave no median that one canary cannot move.
fn typical_update(sums: &[(&[Digest], Vec<f64>)], length: usize) -> Vec<f64> {
    if sums.len() < 3 {
        return vec![0.0; length];
    }
    (0..length)
        .map(|at| {
            let mut means: Vec<f64> =
                sums.iter().map(|(members, sum)| sum[at] / members.len().max(1) as f64).collect();
            means.sort_by(f64::total_cmp);
            f64::midpoint(means[(means.len() - 1) / 2], means[means.len() / 2])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_are_fair_and_directions_are_unlike() {
        let seed = CanarySeed(Digest::of("coins"));
        let heads = (0..1_000).filter(|&client| seed.coin(client)).count();
        // 500 ± 16.
        assert!(heads.abs_diff(500) < 80, "{heads}");
        let [one, two] = [0, 1].map(|client| seed.direction(client, 400));
        let dot: f64 = one.iter().zip(&two).map(|(a, b)| a * b).sum();
        // Of independent directions in 400 dimensions, 0 ± 0.05.
        assert!(dot.abs() < 0.25, "{dot}");
        assert_eq!(one, seed.direction(0, 400));
        assert_ne!(one, CanarySeed(Digest::of("others")).direction(0, 400));
    }

    #[test]
    fn a_canary_submits_its_direction_or_nothing() {
        let seed = CanarySeed(Digest::of("updates"));
        for client in 0..20 {
            let update = seed.update(client, 300, 0.5);
            let norm = update.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            let expected = if seed.coin(client) { 0.5 } else { 0.0 };
            assert!((norm - expected).abs() < 1e-6, "client {client}: {norm}");
        }
    }

    #[test]
    fn the_file_names_coins_by_their_seed_alone() {
        let canaries = Canaries {
            seed: CanarySeed(Digest::of("file")),
            canaries: vec![Canary { number: 3, client: Digest::of("client") }],
        };
        let text = serde_json::to_string(&canaries).unwrap();
        assert_eq!(serde_json::from_str::<Canaries>(&text).unwrap(), canaries);
        assert!(serde_json::from_str::<Canaries>(&text.replace("number", "index")).is_err());
    }

    #[test]
    fn what_all_groups_share_is_no_canarys() {
        let members = [Digest::of("a"), Digest::of("b")];
        let sum = |value: f64| (&members[..], vec![value; 2]);
        assert_eq!(typical_update(&[sum(2.0), sum(4.0), sum(1e9)], 2), [2.0, 2.0]);
        assert_eq!(typical_update(&[sum(2.0), sum(4.0), sum(6.0), sum(-1e9)], 2), [1.5, 1.5]);
        assert_eq!(typical_update(&[sum(2.0), sum(4.0)], 2), [0.0, 0.0]);
    }
}
