//! What a task plan says about privacy, and what follows from it.
//!
//! | placement | who adds noise | adders counted | whom a client trusts |
//! |---|---|---|---|
//! | distributed | every client a share of its own, before the sum | h = min_survivors − c | that no group holds more than c colluders, except with probability δ_c, which comes off δ |
//! | local | every client all of it | 1 | nobody |
//! | central | the coordinator, once, to the sum; independently in every round, or correlated over rounds | 1 | the coordinator |
//! | insecure_none | nobody: ε is infinite ([`Guarantee::without_noise`]) | 0 | everybody who sees an update or a model |
//!
//! Distributed shares are sized so that the honest survivors of one group alone carry the whole noise: a group with fewer
//! survivors than `min_survivors` must be withheld.
//!
//! Neighbours are zero-out: a client's update replaced by zero. Who takes part is known to whoever sees the sums, so
//! that nothing is credited for sampling, and ε counts the rounds in which a client took part. The exception is
//! [`Sampling::Poisson`] in central placement: there it is one client more or less, the reader sees models only, and
//! every round counts, whoever was drawn.

mod claim;
mod guarantee;

pub use claim::{Accounting, Adjacency, Claim, Unit};
pub use guarantee::{Guarantee, Indicator};

use std::fmt;

use self::guarantee::Loss;
use crate::ring::{MAX_RING_BITS, Ring};
use crate::{
    ANSWER_BOUND, AdaptiveClip, ClipNorm, Delta, Evaluation, Grid, MatrixKind, MatrixMechanism, NoiseKind,
    NoiseMultiplier, ParamError, Participation, Sampling, Variance, colluder_bound,
    distributed_discrete_gaussian_rho, distributed_skellam, gaussian_rho,
};

/// The privacy part of a task plan. Anyone who holds the plan computes the same [`Guarantee`] from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mechanism {
    /// L2 bound on a client's update.
    pub clip: ClipNorm,
    /// Integer steps per clip norm.
    pub resolution: u32,
    /// Coordinates of an update.
    pub dimension: u32,
    /// The distribution of the noise.
    pub noise: NoiseKind,
    /// Standard deviation of the noise that is counted in one sum, over the integer L2 bound.
    pub noise_multiplier: NoiseMultiplier,
    /// Who adds it.
    pub placement: Placement,
    /// How the clip norm follows the updates, from `clip` on. `None`: it stays.
    pub adaptive_clip: Option<AdaptiveClip>,
    /// Noise of what clients say of each new model, over what one of them can change it by. `None`: they are not asked.
    pub evaluation: Option<NoiseMultiplier>,
    /// Rounds of the task. A client takes part at most once in each.
    pub rounds: u32,
    /// The δ of the whole task.
    pub delta: Delta,
}

/// Who adds the noise. Written `distributed`, `local`, `central`, `insecure_none`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placement {
    /// Every client a share: what a sum needs is the honest survivors' shares together.
    Distributed {
        /// Clients among whom each round's groups are drawn. Against a coordinator that chooses who takes part, this is
        /// the cohort of one round, and `malicious` counts the most that may be in it.
        clients: u32,
        /// How many of them may pool what they know with the coordinator, their own noise included.
        malicious: u32,
        /// Groups per round.
        groups: u32,
        /// Clients in the largest group.
        group_size: u32,
        /// Survivors below which a group sum is withheld.
        min_survivors: u32,
    },
    /// Every client the whole noise: a sum of n updates carries n times what is counted.
    Local {
        /// Clients in the largest group.
        group_size: u32,
    },
    /// The coordinator, once, to the integer sum. An empty sum is released with its noise too.
    Central {
        /// How cohorts are drawn.
        sampling: Sampling,
    },
    /// The coordinator, with noise that later rounds partly take back ([`MatrixMechanism`]). Written `central`, too. One
    /// loss covers the whole task, for every client that keeps to the participation.
    Correlated {
        /// How the noise of a round depends on that of the rounds before.
        matrix: MatrixKind,
        /// How often a client takes part at most, which the coordinator enforces.
        participation: Participation,
    },
    /// Nobody: research alone. A [`Mechanism`] cannot have it; see [`Guarantee::without_noise`].
    InsecureNone,
}

/// A plan that gives no guarantee.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Clip norm, resolution, dimension or noise share out of range.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// A count out of range, or at odds with another one.
    #[error("{field} is {found}, accepted is {accepted}")]
    Count {
        /// The field of [`Mechanism`] or [`Placement`].
        field: &'static str,
        /// Its value.
        found: u32,
        /// The values that the other fields leave.
        accepted: String,
    },
    /// Cohorts drawn in a way for which integer noise has no accountant.
    #[error("sampling is {found}, accepted is full or poisson")]
    Sampling {
        /// How they are drawn.
        found: Sampling,
    },
    /// Noise over rounds of a distribution that has no accountant there.
    #[error("mechanism is {found}, accepted with correlated noise is discrete-gaussian")]
    CorrelatedNoise {
        /// The distribution.
        found: NoiseKind,
    },
    /// A clip norm that follows the updates, where the coordinator adds the noise.
    #[error("adaptive clipping needs noise from the clients, and the placement is central")]
    AdaptiveCentral,
    /// A mechanism of noise that nobody adds.
    #[error("placement insecure_none has no noise, and so no mechanism")]
    NoNoise,
    /// Clients that are asked about models, where the coordinator adds the noise.
    #[error("federated evaluation needs noise from the clients, and the placement is central")]
    EvaluationCentral,
    /// A group sum does not fit the widest ring.
    #[error(
        "a group sum needs a ring of {needed} bits, accepted is at most 32: \
         resolution is {resolution}, group_size is {group_size}, noise_multiplier is {noise_multiplier}"
    )]
    Ring {
        /// Bits that would be enough.
        needed: u32,
        /// Steps per clip norm.
        resolution: u32,
        /// Clients in the largest group.
        group_size: u32,
        /// Noise multiplier.
        noise_multiplier: NoiseMultiplier,
    },
}
impl Mechanism {
    /// Sizes noise and ring, and proves the loss of one round.
    pub fn guarantee(&self) -> Result<Guarantee, PlanError> {
        let grid = Grid::new(self.clip, self.resolution, self.dimension as usize)?;
        check_count("rounds", self.rounds, 1, u32::MAX)?;
        let Counted { honest, colluders, collusion_failure } = self.counted()?;
        let noise = self.noise_multiplier.get().powi(2) * grid.norm_bound_squared() as f64;
        let share = match self.placement {
            Placement::Correlated { matrix, participation } => {
                let sensitivity = MatrixMechanism::new(matrix, self.rounds, participation)?.sensitivity();
                Variance::new((noise * sensitivity.powi(2)).ceil() as u64)?
            }
            _ => Variance::new((noise / f64::from(honest)).ceil() as u64)?,
        };
        let mut ring = self.ring(&grid, share)?;
        let mut loss = self.loss(grid.norm_bound_squared(), share, honest)?;
        let indicator = self.indicator(honest, &loss)?;
        if let Some(indicator) = &indicator {
            ring = ring.or_wider(self.ring(&AdaptiveClip::grid(), indicator.share)?);
            loss = Loss::Renyi(indicator.own.plus(&indicator.vector, 1));
        }
        let evaluation = self.evaluation(honest)?;
        if let Some(evaluation) = &evaluation {
            loss = Loss::Renyi(evaluation.curve.plus(&loss.curve(), 1));
        }
        Ok(Guarantee {
            claim: self.claim(&loss),
            grid,
            noise: self.noise,
            placement: self.placement,
            colluders,
            collusion_failure,
            honest,
            share,
            ring_bits: ring.bits,
            wrap_probability: ring.wrap_probability,
            rounds: self.rounds,
            delta: self.delta,
            indicator,
            evaluation,
            noise_multiplier: Some(self.noise_multiplier),
            loss,
            delta_of_noise: Delta::new(self.delta.get() - collusion_failure)?,
        })
    }

    fn counted(&self) -> Result<Counted, PlanError> {
        match self.placement {
            Placement::Distributed { clients, malicious, groups, group_size, min_survivors } => {
                check_count("clients", clients, 1, u32::MAX)?;
                check_count("malicious", malicious, 0, clients - 1)?;
                check_count("group_size", group_size, 1, clients.min(MAX_GROUP_SIZE))?;
                check_count("groups", groups, 1, clients)?;
                let max_failure = self.delta.get() * COLLUSION_SHARE_OF_DELTA;
                // Groups are drawn anew for every sum.
                let sums = self.rounds.saturating_mul(1 + u32::from(self.evaluation.is_some()));
                let bound = colluder_bound(clients, malicious, group_size, groups, sums, max_failure);
                let colluders = bound.colluders;
                if !(colluders + 1..=group_size).contains(&min_survivors) {
                    let accepted = if colluders < group_size {
                        format!(
                            "{} to {group_size} (more than the {colluders} colluders that a group may hold, \
                             at most group_size)",
                            colluders + 1
                        )
                    } else {
                        format!(
                            "no value while a whole group of {group_size} may collude: malicious is {malicious} \
                             of {clients} clients"
                        )
                    };
                    return Err(PlanError::Count { field: "min_survivors", found: min_survivors, accepted });
                }
                Ok(Counted { honest: min_survivors - colluders, colluders, collusion_failure: bound.failure })
            }
            Placement::Local { group_size } => {
                check_count("group_size", group_size, 1, MAX_GROUP_SIZE)?;
                Ok(Counted { honest: 1, colluders: 0, collusion_failure: 0.0 })
            }
            Placement::Central { .. } | Placement::Correlated { .. } => {
                Ok(Counted { honest: 1, colluders: 0, collusion_failure: 0.0 })
            }
            Placement::InsecureNone => Err(PlanError::NoNoise),
        }
    }

    fn ring(&self, grid: &Grid, share: Variance) -> Result<Ring, PlanError> {
        let group_size = match self.placement {
            Placement::Distributed { group_size, .. } | Placement::Local { group_size } => group_size,
            Placement::Central { .. } | Placement::Correlated { .. } | Placement::InsecureNone => {
                return Ok(Ring { bits: MAX_RING_BITS, wrap_probability: 0.0 });
            }
        };
        let ring = Ring::narrowest(grid, group_size, self.noise, share);
        if ring.bits > MAX_RING_BITS {
            return Err(PlanError::Ring {
                needed: ring.bits,
                resolution: self.resolution,
                group_size,
                noise_multiplier: self.noise_multiplier,
            });
        }
        Ok(ring)
    }

    fn indicator(&self, honest: u32, vector: &Loss) -> Result<Option<Indicator>, PlanError> {
        let Some(clip) = self.adaptive_clip else { return Ok(None) };
        if matches!(self.placement, Placement::Central { .. } | Placement::Correlated { .. }) {
            return Err(PlanError::AdaptiveCentral);
        }
        clip.check_first(self.clip)?;
        let share = clip.share(honest)?;
        let own = clip.curve(self.noise, share, honest);
        Ok(Some(Indicator { clip, share, own, vector: vector.curve() }))
    }

    fn evaluation(&self, honest: u32) -> Result<Option<Evaluation>, PlanError> {
        let Some(noise_multiplier) = self.evaluation else { return Ok(None) };
        let (Placement::Distributed { group_size, .. } | Placement::Local { group_size }) = self.placement
        else {
            return Err(PlanError::EvaluationCentral);
        };
        let answers = Grid::new(ClipNorm::new(1.0)?, ANSWER_BOUND, 1)?;
        let evaluation = Evaluation::new(noise_multiplier, self.noise, honest, group_size, |share| {
            Ring::narrowest(&answers, group_size, self.noise, share).bits
        })?;
        if evaluation.ring_bits > MAX_RING_BITS {
            return Err(PlanError::Ring {
                needed: evaluation.ring_bits,
                resolution: ANSWER_BOUND,
                group_size,
                noise_multiplier,
            });
        }
        Ok(Some(evaluation))
    }

    /// The loss of one round, given that `honest` shares are in every sum.
    fn loss(&self, norm_bound_squared: u64, share: Variance, honest: u32) -> Result<Loss, PlanError> {
        if let Placement::Correlated { matrix, participation } = self.placement {
            if self.noise != NoiseKind::DiscreteGaussian {
                return Err(PlanError::CorrelatedNoise { found: self.noise });
            }
            let dimension = self.dimension as usize;
            let noise = MatrixMechanism::new(matrix, self.rounds, participation)?.noise(
                self.noise_multiplier,
                norm_bound_squared,
                dimension,
            )?;
            return Ok(Loss::Whole { rho: noise.rho() });
        }
        let dimension = self.dimension;
        let loss = match self.noise {
            // One share is no sum: opendp has the map.
            NoiseKind::DiscreteGaussian if honest == 1 => {
                Loss::Zcdp { rho: gaussian_rho(norm_bound_squared, share) }
            }
            NoiseKind::DiscreteGaussian => Loss::Zcdp {
                rho: distributed_discrete_gaussian_rho(norm_bound_squared, share, honest, dimension),
            },
            NoiseKind::Skellam => {
                Loss::Renyi(distributed_skellam(norm_bound_squared, share, honest, dimension))
            }
        };
        match self.placement {
            Placement::Central { sampling: Sampling::Poisson(rate) } => {
                Ok(Loss::Renyi(loss.curve().poisson_sampled(rate)))
            }
            Placement::Central { sampling: found @ Sampling::FixedSize { .. } } => {
                Err(PlanError::Sampling { found })
            }
            _ => Ok(loss),
        }
    }

    fn claim(&self, loss: &Loss) -> Claim {
        let (adjacency, sampling) = match self.placement {
            Placement::Central { sampling: sampling @ Sampling::Poisson(_) } => {
                (Adjacency::AddRemove, sampling)
            }
            _ => (Adjacency::ZeroOut, Sampling::Full),
        };
        let accounting = match loss {
            Loss::Zcdp { .. } | Loss::Whole { .. } => Accounting::Zcdp,
            Loss::Renyi(_) => Accounting::Rdp,
        };
        Claim { unit: Unit::User, adjacency, accounting, sampling }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Distributed { .. } => "distributed",
            Self::Local { .. } => "local",
            Self::Central { .. } | Self::Correlated { .. } => "central",
            Self::InsecureNone => "insecure_none",
        })
    }
}

/// The shares of noise that a placement lets count on.
struct Counted {
    honest: u32,
    colluders: u32,
    collusion_failure: f64,
}

/// The part of δ that colluders may take; the noise keeps the rest.
const COLLUSION_SHARE_OF_DELTA: f64 = 0.1;

/// Bounds the work that a plan from the network can ask for.
const MAX_GROUP_SIZE: u32 = 1 << 20;

fn check_count(field: &'static str, found: u32, least: u32, most: u32) -> Result<(), PlanError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let accepted = if most == u32::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
    Err(PlanError::Count { field, found, accepted })
}

#[cfg(test)]
mod tests;
