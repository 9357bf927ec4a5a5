//! What both sides must agree on before a session, and the message sizes that follow from it.

use ed25519_dalek::VerifyingKey;

use super::agreement::TAG_LEN;
use super::codec::{HEADER_LEN, VERSION};
use super::graph::degree_of;
use super::identity::MAX_CERTIFICATE_LEN;
use super::prg::Prg;
use super::protocol::{PairwiseMask, Protocol, ProtocolKind, RlweError, RlweTwoLayer, Shape};
use super::shamir::SHARE_LEN;
use super::transcript::digest;
use super::upload::{Upload, upload_len};

/// Largest accepted [`SessionParameters::max_cohort`].
pub const MAX_COHORT: usize = 1 << 16;

/// Largest accepted [`SessionParameters::length`].
pub const MAX_LENGTH: usize = 1 << 28;

/// The choices of one session. Clients take them from the plan that they accepted, never from the coordinator's
/// messages; every signature, commitment and key of the session binds all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionParameters {
    /// Digest of all that the sum is for: plan, round, model. Clients given different models get different sessions.
    pub context: [u8; 32],
    /// Ed25519 public key of the enrolment authority.
    pub authority: [u8; 32],
    /// What goes under the masks.
    pub protocol: ProtocolKind,
    /// Stream cipher of the masks.
    pub prg: Prg,
    /// b: elements are in Z_{2^b}; 8 to 32.
    pub ring_bits: u32,
    /// Elements in a vector.
    pub length: usize,
    /// Smallest group. A cohort of n is split into ⌊n / group_size⌋ groups whose sizes differ by at most one.
    pub group_size: usize,
    /// k: with how many neighbours each member shares masks and secrets. Groups of at most k + 1 members are complete
    /// graphs; where larger ones can form, k is even.
    pub degree: usize,
    /// t: how many neighbours' shares recover a member's secret, and how many of its neighbours must sign the survivors.
    pub threshold: usize,
    /// u_min: a group with fewer survivors is given up; above t.
    pub min_survivors: usize,
    /// Smallest roster that a client accepts.
    pub min_cohort: usize,
    /// Largest roster that a client accepts.
    pub max_cohort: usize,
    /// w: how many nonces may be missing from the beacon. A coordinator chooses among Σ_{i≤w} C(n, i) beacons.
    pub max_missing_reveals: usize,
}

/// Parameters that cannot make a working or a safe session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The authority's key is no key.
    #[error("authority is not a valid Ed25519 public key")]
    Authority,
    /// Ring width out of range.
    #[error("ring_bits is {0}, accepted are 8 to 32")]
    RingBits(u32),
    /// Vector length out of range.
    #[error("length is {0}, accepted are 1 to {MAX_LENGTH}")]
    Length(usize),
    /// Groups too small for there to be anyone to hide among.
    #[error("group_size is {0}, accepted are 3 and above")]
    GroupSize(usize),
    /// The order threshold < min_survivors ≤ group_size is broken.
    #[error(
        "threshold {threshold} must be below min_survivors {min_survivors}, and that not above group_size {group_size}"
    )]
    Order {
        /// t
        threshold: usize,
        /// u_min
        min_survivors: usize,
        /// Smallest group
        group_size: usize,
    },
    /// A ring on which members cannot have as many neighbours on either side.
    #[error(
        "degree is {degree}, accepted is an even number, or one of at least {group_len} − 1, the others in the largest group that this cohort can form"
    )]
    Degree {
        /// k
        degree: usize,
        /// Largest group that can form.
        group_len: usize,
    },
    /// Too high to be reached, or so low that the coordinator could get both share kinds for one client out of honest
    /// members alone.
    #[error(
        "threshold is {threshold}, accepted are at most {fewest} and over half of {most}, a member's fewest and most neighbours"
    )]
    Threshold {
        /// t
        threshold: usize,
        /// Neighbours of a member of the smallest group that can form.
        fewest: usize,
        /// Neighbours of a member of the largest.
        most: usize,
    },
    /// The encryption has no room for these vectors, or for sums over so large a group.
    #[error("protocol rlwe-two-layer: {0}")]
    Rlwe(#[from] RlweError),
    /// Too few for one group once tolerated reveals are missing.
    #[error("min_cohort is {found}, group_size and max_missing_reveals need at least {needed}")]
    MinCohort {
        /// Configured.
        found: usize,
        /// group_size + max_missing_reveals
        needed: usize,
    },
    /// Upper bound below the lower one, or above what is supported.
    #[error("max_cohort is {found}, accepted are {min_cohort} (min_cohort) to {MAX_COHORT}")]
    MaxCohort {
        /// Configured.
        found: usize,
        /// The lower bound.
        min_cohort: usize,
    },
}

/// Checked [`SessionParameters`], with what is derived from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    parameters: SessionParameters,
    authority: VerifyingKey,
    shape: Shape,
    digest: [u8; 32],
}

impl SessionConfig {
    /// Checks the parameters.
    pub fn new(parameters: SessionParameters) -> Result<Self, ConfigError> {
        let SessionParameters {
            ring_bits,
            length,
            group_size,
            degree,
            threshold,
            min_survivors,
            min_cohort,
            max_cohort,
            max_missing_reveals,
            ..
        } = parameters;
        if !(8..=32).contains(&ring_bits) {
            return Err(ConfigError::RingBits(ring_bits));
        }
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(ConfigError::Length(length));
        }
        if group_size < 3 {
            return Err(ConfigError::GroupSize(group_size));
        }
        if !(threshold < min_survivors && min_survivors <= group_size) {
            return Err(ConfigError::Order { threshold, min_survivors, group_size });
        }
        if !(min_cohort..=MAX_COHORT).contains(&max_cohort) {
            return Err(ConfigError::MaxCohort { found: max_cohort, min_cohort });
        }
        let needed = group_size.saturating_add(max_missing_reveals);
        if min_cohort < needed {
            return Err(ConfigError::MinCohort { found: min_cohort, needed });
        }
        let group_len = max_group_len(&parameters);
        if !degree.is_multiple_of(2) && degree < group_len - 1 {
            return Err(ConfigError::Degree { degree, group_len });
        }
        let (fewest, most) = (degree_of(group_size, degree), degree_of(group_len, degree));
        if threshold > fewest || 2 * threshold <= most {
            return Err(ConfigError::Threshold { threshold, fewest, most });
        }
        let authority = VerifyingKey::from_bytes(&parameters.authority)
            .ok()
            .filter(|key| !key.is_weak())
            .ok_or(ConfigError::Authority)?;
        let shape = protocol(&parameters)?.shape();
        let digest = parameters_digest(&parameters);
        Ok(Self { parameters, authority, shape, digest })
    }

    /// The parameters as given.
    pub fn parameters(&self) -> &SessionParameters {
        &self.parameters
    }

    /// The enrolment authority's key.
    pub fn authority(&self) -> &VerifyingKey {
        &self.authority
    }

    /// Digest of all parameters: what signatures and keys of the session bind.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The largest group that any accepted cohort can form.
    pub fn max_group_len(&self) -> usize {
        max_group_len(&self.parameters)
    }

    /// How many neighbours of a client, in a group of `group_len`, must collude with the coordinator to unmask it.
    ///
    /// The honest neighbours and the colluders sign, and answer for, two survivor sets that differ in the client; each
    /// set takes t answers of k' neighbours, and an honest member answers once: 2t − k'.
    pub fn colluders_to_break(&self, group_len: usize) -> usize {
        let neighbours = degree_of(group_len, self.parameters.degree);
        (2 * self.parameters.threshold).saturating_sub(neighbours)
    }

    /// The protocol that was chosen, set up for this session's vectors.
    pub fn protocol(&self) -> Box<dyn Protocol + Send + Sync> {
        protocol(&self.parameters).expect("the parameters were checked when this was made")
    }

    /// Lengths of the layers of an upload.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A decoder for one masked input, which takes the message in pieces.
    pub fn upload(&self) -> Upload {
        Upload::new(self.shape)
    }

    /// Longest acceptable message of each kind in bytes.
    pub fn limits(&self) -> Limits {
        let SessionParameters { max_cohort, degree, .. } = self.parameters;
        let group = self.max_group_len();
        let neighbours = degree_of(group, degree);
        let bitmap = group.div_ceil(8);
        let advertise = HEADER_LEN + 4 + MAX_CERTIFICATE_LEN + 4 * 32 + 64;
        Limits {
            advertise,
            roster: HEADER_LEN + 4 + max_cohort * (4 + advertise),
            reveal: HEADER_LEN + 32,
            reveals: HEADER_LEN + 4 + max_cohort * (4 + 32),
            shares: HEADER_LEN + neighbours * BOX_LEN,
            delivery: HEADER_LEN + bitmap + neighbours * BOX_LEN,
            masked_input: upload_len(&self.shape),
            survivors: HEADER_LEN + 2 * bitmap,
            consistency: HEADER_LEN + 64,
            signatures: HEADER_LEN + 4 + neighbours * (4 + 64),
            unmask: HEADER_LEN + neighbours * SHARE_LEN,
        }
    }
}

/// Length of one sealed box: a share of the mask secret key and one of the self-mask seed.
pub(super) const BOX_LEN: usize = 2 * SHARE_LEN + TAG_LEN;

/// Longest acceptable message of each kind in bytes, for a transport to refuse what is longer before reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "one field per message kind, named after it")]
pub struct Limits {
    pub advertise: usize,
    pub roster: usize,
    pub reveal: usize,
    pub reveals: usize,
    pub shares: usize,
    pub delivery: usize,
    pub masked_input: usize,
    pub survivors: usize,
    pub consistency: usize,
    pub signatures: usize,
    pub unmask: usize,
}

/// Of n revealed members ⌊n / g⌋ groups are made. The largest group is the one of the most members that still make the
/// fewest groups.
fn max_group_len(parameters: &SessionParameters) -> usize {
    let SessionParameters { group_size, min_cohort, max_cohort, max_missing_reveals, .. } = *parameters;
    let fewest_groups = (min_cohort - max_missing_reveals) / group_size;
    let most_members = (fewest_groups * group_size + group_size - 1).min(max_cohort);
    most_members.div_ceil(fewest_groups)
}

fn protocol(parameters: &SessionParameters) -> Result<Box<dyn Protocol + Send + Sync>, ConfigError> {
    let SessionParameters { ring_bits, length, .. } = *parameters;
    match parameters.protocol {
        ProtocolKind::PairwiseMask => Ok(Box::new(PairwiseMask::new(ring_bits, length))),
        ProtocolKind::RlweTwoLayer => {
            Ok(Box::new(RlweTwoLayer::new(ring_bits, length, max_group_len(parameters))?))
        }
    }
}

fn parameters_digest(parameters: &SessionParameters) -> [u8; 32] {
    let SessionParameters {
        context,
        authority,
        protocol,
        prg,
        ring_bits,
        length,
        group_size,
        degree,
        threshold,
        min_survivors,
        min_cohort,
        max_cohort,
        max_missing_reveals,
    } = parameters;
    let protocol = match protocol {
        ProtocolKind::PairwiseMask => 1,
        ProtocolKind::RlweTwoLayer => 2,
    };
    let prg = match prg {
        Prg::Aes256Ctr => 1,
        Prg::ChaCha20 => 2,
    };
    let numbers: Vec<u8> = [
        protocol,
        prg,
        *ring_bits as usize,
        *length,
        *group_size,
        *degree,
        *threshold,
        *min_survivors,
        *min_cohort,
        *max_cohort,
        *max_missing_reveals,
    ]
    .iter()
    .flat_map(|&number| (number as u64).to_le_bytes())
    .collect();
    digest("session", &[&[VERSION], context, authority, &numbers])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secagg::groups::group_sizes;

    fn parameters() -> SessionParameters {
        SessionParameters {
            context: [1; 32],
            authority: ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes(),
            protocol: ProtocolKind::PairwiseMask,
            prg: Prg::Aes256Ctr,
            ring_bits: 20,
            length: 10,
            group_size: 6,
            degree: 7,
            threshold: 4,
            min_survivors: 5,
            min_cohort: 20,
            max_cohort: 100,
            max_missing_reveals: 2,
        }
    }

    fn error(change: impl FnOnce(&mut SessionParameters)) -> ConfigError {
        let mut parameters = parameters();
        change(&mut parameters);
        SessionConfig::new(parameters).unwrap_err()
    }

    #[test]
    fn every_bound_is_checked() {
        assert!(SessionConfig::new(parameters()).is_ok());
        assert_eq!(error(|p| p.ring_bits = 7), ConfigError::RingBits(7));
        assert_eq!(error(|p| p.ring_bits = 33), ConfigError::RingBits(33));
        assert_eq!(error(|p| p.length = 0), ConfigError::Length(0));
        assert_eq!(error(|p| p.group_size = 2), ConfigError::GroupSize(2));
        assert!(matches!(error(|p| p.min_survivors = 4), ConfigError::Order { .. }));
        assert!(matches!(error(|p| p.min_survivors = 7), ConfigError::Order { .. }));
        let threshold = |threshold, fewest, most| ConfigError::Threshold { threshold, fewest, most };
        assert_eq!(error(|p| p.threshold = 3), threshold(3, 5, 7));
        assert_eq!(error(|p| (p.threshold, p.min_survivors, p.degree) = (5, 6, 4)), threshold(5, 4, 4));
        assert_eq!(error(|p| p.degree = 5), ConfigError::Degree { degree: 5, group_len: 8 });
        assert_eq!(error(|p| p.degree = 0), threshold(4, 0, 0));
        assert_eq!(error(|p| p.min_cohort = 7), ConfigError::MinCohort { found: 7, needed: 8 });
        assert_eq!(error(|p| p.max_cohort = 19), ConfigError::MaxCohort { found: 19, min_cohort: 20 });
        assert_eq!(error(|p| p.authority = [0; 32]), ConfigError::Authority);
    }

    #[test]
    fn no_accepted_cohort_makes_a_larger_or_smaller_group() {
        for group_size in 3..12 {
            for min_cohort in group_size..60 {
                let parameters = SessionParameters {
                    group_size,
                    min_cohort,
                    max_missing_reveals: 0,
                    max_cohort: 200,
                    ..parameters()
                };
                let largest = max_group_len(&parameters);
                for cohort in min_cohort..=200 {
                    let sizes = group_sizes(cohort, group_size);
                    assert_eq!(sizes.iter().sum::<usize>(), cohort);
                    assert!(sizes.iter().all(|size| (group_size..=largest).contains(size)), "{parameters:?}");
                }
            }
        }
    }

    #[test]
    fn a_larger_group_takes_fewer_colluders() {
        let config = SessionConfig::new(parameters()).unwrap();
        assert_eq!([6, 7, 8].map(|len| config.colluders_to_break(len)), [3, 2, 1]);
        let sparse = SessionConfig::new(SessionParameters { degree: 4, ..parameters() }).unwrap();
        assert_eq!([6, 7, 8].map(|len| sparse.colluders_to_break(len)), [4, 4, 4]);
    }

    #[test]
    fn the_digest_binds_every_parameter() {
        type Change = fn(&mut SessionParameters);
        let changes: [Change; 13] = [
            |p| p.context[0] ^= 1,
            |p| p.authority[0] ^= 1,
            |p| p.protocol = ProtocolKind::RlweTwoLayer,
            |p| p.prg = Prg::ChaCha20,
            |p| p.ring_bits += 1,
            |p| p.length += 1,
            |p| p.group_size += 1,
            |p| p.degree += 1,
            |p| p.threshold += 1,
            |p| p.min_survivors += 1,
            |p| p.min_cohort += 1,
            |p| p.max_cohort += 1,
            |p| p.max_missing_reveals += 1,
        ];
        let base = parameters_digest(&parameters());
        for (index, change) in changes.iter().enumerate() {
            let mut changed = parameters();
            change(&mut changed);
            assert_ne!(parameters_digest(&changed), base, "change {index}");
        }
    }
}
