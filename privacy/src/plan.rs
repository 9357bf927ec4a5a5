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

use std::fmt;

use crate::ring::{MAX_RING_BITS, Ring};
use crate::{
    ANSWER_BOUND, AdaptiveClip, ClipNorm, Delta, Epsilon, Evaluation, Grid, MatrixKind, MatrixMechanism,
    MatrixNoise, NoiseKind, NoiseMultiplier, ParamError, Participation, RdpCurve, Sampling, TaskLoss,
    Variance, colluder_bound, distributed_discrete_gaussian_rho, distributed_skellam, gaussian_rho,
    zcdp_epsilon,
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

/// What a plan guarantees to a client, and the sizes that make it true.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarantee {
    /// The grid on which updates are rounded.
    pub grid: Grid,
    /// The distribution of the noise. Where [`Guarantee::has_noise`] is false it is nobody's, as is `share`.
    pub noise: NoiseKind,
    /// Who adds it.
    pub placement: Placement,
    /// What ε is about.
    pub claim: Claim,
    /// c: the most colluders that a group is assumed to hold. 0 where the claim bears any number.
    pub colluders: u32,
    /// δ_c: the probability that some group in some round holds more. At most a tenth of δ.
    pub collusion_failure: f64,
    /// h: the independent shares of noise that are counted in one sum. In distributed placement those of the honest
    /// survivors, the client itself among them; otherwise one.
    pub honest: u32,
    /// The parameter of the noise that whoever adds noise adds to each coordinate.
    pub share: Variance,
    /// b: group sums live in Z_2^b. In central placement there is no ring, and an update's steps have 32 bits.
    pub ring_bits: u32,
    /// A bound on the probability, over rotation and noise, that some coordinate of one group sum of honest clients
    /// wraps. It costs accuracy only.
    pub wrap_probability: f64,
    /// Rounds over which δ_c was taken: the most participations that the guarantee covers.
    pub rounds: u32,
    /// The δ of the task, δ_c included.
    pub delta: Delta,
    /// What a client sends beside its update where the clip norm is adaptive.
    pub indicator: Option<Indicator>,
    /// What clients are asked about each new model. Every participation is charged for it.
    pub evaluation: Option<Evaluation>,
    /// None where there is no noise.
    noise_multiplier: Option<NoiseMultiplier>,
    loss: Loss,
    delta_of_noise: Delta,
}

/// The coordinate behind an update's that says whether it was clipped. See [`AdaptiveClip`].
#[derive(Clone, Debug, PartialEq)]
pub struct Indicator {
    /// How the clip norm follows.
    pub clip: AdaptiveClip,
    /// The parameter of the noise that each client adds to the coordinate.
    pub share: Variance,
    /// What it costs, and what the update costs, apart.
    own: RdpCurve,
    vector: RdpCurve,
}

/// What an ε is about. Every part has a name, which a manifest may carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Whose data is protected.
    pub unit: Unit,
    /// Between which inputs it is hard to tell.
    pub adjacency: Adjacency,
    /// How losses are added up.
    pub accounting: Accounting,
    /// The sampling that is credited. [`Sampling::Full`]: none, and ε counts a client's own participations; otherwise it
    /// counts every round.
    pub sampling: Sampling,
}

/// Whose data is protected. Written `user`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Nobody's.
    None,
    /// Everything that one client holds.
    User,
}

/// Which inputs are neighbours. Written `zero-out`, `add-remove`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjacency {
    /// None: any two can be told apart.
    None,
    /// One client's updates, or zeros in their place, with the same clients taking part.
    ZeroOut,
    /// One client is in the population or not.
    AddRemove,
}

/// How losses are added up over rounds. Written `zcdp`, `rdp`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accounting {
    /// Not at all: one participation loses everything.
    None,
    /// Zero-concentrated differential privacy: one ρ for each round.
    Zcdp,
    /// Bounds on the Rényi divergence at many orders.
    Rdp,
}

/// What one round loses.
#[derive(Clone, Debug, PartialEq)]
enum Loss {
    Zcdp {
        rho: f64,
    },
    Renyi(RdpCurve),
    /// Not of a round, but of all of them.
    Whole {
        rho: f64,
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

impl Guarantee {
    /// What a plan without noise promises: nothing. The first participation of a client loses all of it, at any δ.
    pub fn without_noise(
        clip: ClipNorm,
        dimension: u32,
        rounds: u32,
        delta: Delta,
    ) -> Result<Self, PlanError> {
        check_count("dimension", dimension, 1, u32::MAX)?;
        check_count("rounds", rounds, 1, u32::MAX)?;
        Ok(Self {
            grid: Grid::without_rounding(clip, dimension as usize),
            noise: NoiseKind::DiscreteGaussian,
            placement: Placement::InsecureNone,
            claim: Claim {
                unit: Unit::None,
                adjacency: Adjacency::None,
                accounting: Accounting::None,
                sampling: Sampling::Full,
            },
            colluders: 0,
            collusion_failure: 0.0,
            honest: 0,
            share: Variance::new(1)?,
            ring_bits: MAX_RING_BITS,
            wrap_probability: 0.0,
            rounds,
            delta,
            indicator: None,
            evaluation: None,
            noise_multiplier: None,
            loss: Loss::Zcdp { rho: f64::INFINITY },
            delta_of_noise: delta,
        })
    }

    /// Whether anyone adds noise; without it every ε is infinite from the first participation on.
    pub fn has_noise(&self) -> bool {
        self.noise_multiplier.is_some()
    }

    /// The distribution of the noise by name, or `none`.
    pub fn mechanism(&self) -> String {
        if self.has_noise() { self.noise.to_string() } else { "none".to_owned() }
    }

    /// The zCDP loss ρ of one round, given that no group holds more than [`Guarantee::colluders`]. None where losses are
    /// added up by Rényi divergences, or are of all rounds together.
    pub fn rho(&self) -> Option<f64> {
        match self.loss {
            Loss::Zcdp { rho } if rho.is_finite() => Some(rho),
            Loss::Zcdp { .. } | Loss::Renyi(_) | Loss::Whole { .. } => None,
        }
    }

    /// The loss in a form that adds up with those of other tasks.
    pub fn task_loss(&self) -> TaskLoss {
        let once = matches!(self.loss, Loss::Whole { .. });
        TaskLoss { participation: self.loss.curve(), once, failure: self.collusion_failure }
    }

    /// The ε, at [`Guarantee::delta`], that a client has spent after so many participations (or rounds, where
    /// [`Claim::sampling`] says so). With correlated noise the first participation costs all of it. Infinite beyond [`Guarantee::rounds`], over which the colluders were bounded.
    pub fn epsilon(&self, participations: u32) -> f64 {
        if participations > self.rounds {
            return f64::INFINITY;
        }
        self.loss.curve().compose(self.losses(participations)).epsilon(self.delta_of_noise).epsilon
    }

    /// [`Guarantee::epsilon`] by opendp's conversion of zCDP, a second opinion that takes some ten milliseconds; `None`
    /// where losses are added up by Rényi divergences. It is the least ε that ρ allows, at most 1 % below ours.
    pub fn epsilon_by_opendp(&self, participations: u32) -> Option<f64> {
        let (Loss::Zcdp { rho } | Loss::Whole { rho }) = self.loss else { return None };
        if !self.has_noise() {
            return None;
        }
        if participations > self.rounds {
            return Some(f64::INFINITY);
        }
        let spent = (rho * f64::from(self.losses(participations))).next_up();
        Some(zcdp_epsilon(spent, self.delta_of_noise.get()))
    }

    /// How often the loss is spent by so many participations.
    fn losses(&self, participations: u32) -> u32 {
        match self.loss {
            Loss::Whole { .. } => participations.min(1),
            _ => participations,
        }
    }

    /// The correlated noise of the whole task, before its first round; `None` where rounds are independent.
    pub fn matrix_noise(&self) -> Option<MatrixNoise> {
        let Placement::Correlated { matrix, participation } = self.placement else { return None };
        let mechanism = MatrixMechanism::new(matrix, self.rounds, participation).ok()?;
        mechanism.noise(self.noise_multiplier?, self.grid.norm_bound_squared(), self.grid.dimension()).ok()
    }

    /// What updates and indicators would cost, each by itself, at the same δ. `None` where the clip norm is fixed.
    pub fn epsilon_apart(&self, participations: u32) -> Option<(f64, f64)> {
        let alone = |curve: &RdpCurve| curve.compose(participations).epsilon(self.delta_of_noise).epsilon;
        self.indicator.as_ref().map(|indicator| (alone(&indicator.vector), alone(&indicator.own)))
    }

    /// What clients' answers about new models would cost by themselves, at the same δ. `None` where they are not asked.
    pub fn epsilon_of_evaluation(&self, participations: u32) -> Option<f64> {
        let evaluation = self.evaluation.as_ref()?;
        Some(evaluation.curve.compose(participations).epsilon(self.delta_of_noise).epsilon)
    }

    /// Values of a client's input: its update's, and one more where the clip norm is adaptive.
    pub fn input_length(&self) -> usize {
        self.grid.dimension() + usize::from(self.indicator.is_some())
    }

    /// The most participations whose ε is within the budget; never more than [`Guarantee::rounds`].
    pub fn participations_within(&self, budget: Epsilon) -> u32 {
        let (mut low, mut high) = (0, self.rounds);
        while low < high {
            let middle = high - (high - low) / 2;
            if self.epsilon(middle) <= budget.get() {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }
}

impl Loss {
    fn curve(&self) -> RdpCurve {
        match self {
            Self::Zcdp { rho } | Self::Whole { rho } => RdpCurve::from_zcdp(*rho),
            Self::Renyi(curve) => curve.clone(),
        }
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

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::User => "user",
        })
    }
}

impl fmt::Display for Adjacency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ZeroOut => "zero-out",
            Self::AddRemove => "add-remove",
        })
    }
}

impl fmt::Display for Accounting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Zcdp => "zcdp",
            Self::Rdp => "rdp",
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
mod tests {
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{Account, Noise, Rotation, SamplingRate, clip_l2, gaussian_rho};

    const KINDS: [NoiseKind; 2] = [NoiseKind::DiscreteGaussian, NoiseKind::Skellam];

    fn plan() -> Mechanism {
        Mechanism {
            adaptive_clip: None,
            evaluation: None,
            clip: ClipNorm::new(0.5).unwrap(),
            resolution: 1_024,
            dimension: 650,
            noise: NoiseKind::DiscreteGaussian,
            noise_multiplier: NoiseMultiplier::new(1.4).unwrap(),
            placement: distributed(200, 4, 11, 19, 14),
            rounds: 12,
            delta: Delta::new(1e-5).unwrap(),
        }
    }

    #[test]
    fn answers_about_models_are_charged_and_counted_among_the_sums() {
        let evaluation = Some(NoiseMultiplier::new(2.0).unwrap());
        for placement in [plan().placement, Placement::Local { group_size: 19 }] {
            let silent = Mechanism { placement, ..plan() }.guarantee().unwrap();
            let asking = Mechanism { placement, evaluation, ..plan() }.guarantee().unwrap();
            let alone = asking.epsilon_of_evaluation(12).unwrap();
            let both = asking.epsilon(12);
            assert!(both > silent.epsilon(12).max(alone) && both < silent.epsilon(12) + alone);
            assert!(asking.collusion_failure >= silent.collusion_failure);
            assert!(asking.honest <= silent.honest, "{} of {}", asking.honest, silent.honest);
            assert_eq!(asking.claim.accounting, Accounting::Rdp);
        }
        let placement = Placement::Central { sampling: Sampling::Full };
        let refused = Mechanism { placement, evaluation, ..plan() }.guarantee();
        assert_eq!(refused, Err(PlanError::EvaluationCentral));
    }

    fn distributed(
        clients: u32,
        malicious: u32,
        groups: u32,
        group_size: u32,
        min_survivors: u32,
    ) -> Placement {
        Placement::Distributed { clients, malicious, groups, group_size, min_survivors }
    }

    fn central(rate: f64) -> Placement {
        Placement::Central { sampling: Sampling::Poisson(SamplingRate::new(rate).unwrap()) }
    }

    fn placements() -> [Placement; 4] {
        let everyone = Placement::Central { sampling: Sampling::Full };
        [plan().placement, Placement::Local { group_size: 19 }, everyone, central(0.05)]
    }

    fn refusal(change: impl FnOnce(&mut Mechanism)) -> String {
        let mut plan = plan();
        change(&mut plan);
        plan.guarantee().unwrap_err().to_string()
    }

    #[test]
    fn opendp_converts_a_loss_to_what_we_say_of_it() {
        for placement in placements() {
            let guarantee = Mechanism { placement, ..plan() }.guarantee().unwrap();
            let added_up_as_rho = guarantee.claim.accounting == Accounting::Zcdp;
            for participations in [1, 7, 12] {
                let ours = guarantee.epsilon(participations);
                match guarantee.epsilon_by_opendp(participations) {
                    Some(theirs) => {
                        assert!(
                            added_up_as_rho && theirs <= ours * (1.0 + 1e-9),
                            "{placement}: {theirs}, {ours}"
                        );
                        assert!(ours <= theirs * 1.01, "{placement}: {ours} for {theirs}");
                    }
                    None => assert!(!added_up_as_rho, "{placement}"),
                }
            }
            assert!(
                guarantee.epsilon_by_opendp(13).is_none_or(f64::is_infinite),
                "{placement}: beyond the rounds"
            );
        }
    }

    #[test]
    fn honest_survivors_alone_carry_the_whole_noise() {
        let guarantee = plan().guarantee().unwrap();
        assert_eq!((guarantee.colluders, guarantee.collusion_failure), (4, 0.0));
        assert_eq!(guarantee.honest, 10);
        // 1024² + 650/4 + 1024 + √650/2, floored.
        assert_eq!(guarantee.grid.norm_bound_squared(), 1_049_775);
        // ⌈1.96 · 1049775 / 10⌉.
        assert_eq!(guarantee.share.get(), 205_756);
        // 19·1024 + 8.4·√(19·205756) = 36 thousand is above 2^15. Rotation leaves 0.37 of the first term, and 23 in all.
        assert_eq!(guarantee.ring_bits, 16);
        assert!(guarantee.wrap_probability <= 2f64.powi(-40));
    }

    #[test]
    fn the_numbers_of_every_placement_and_mechanism() {
        let named = |placement, noise| {
            let guarantee = Mechanism { noise, placement, ..plan() }.guarantee().unwrap();
            let Claim { unit, adjacency, accounting, sampling } = guarantee.claim;
            let claim = format!("{unit} {adjacency} {accounting} {sampling}");
            let sizes = (guarantee.honest, guarantee.share.get(), guarantee.ring_bits);
            (claim, sizes, [1, 12].map(|rounds| (guarantee.epsilon(rounds) * 1e4).round() / 1e4))
        };
        let [distributed, local, everyone, sampled] = placements();
        let [gaussian, skellam] = KINDS;
        // ⌈1.96 · 1049775⌉ is the whole noise, and a tenth of it a share.
        let (share, whole) = (205_756, 2_057_559);
        for (placement, noise, claim, sizes, epsilons) in [
            (distributed, gaussian, "user zero-out zcdp full", (10, share, 16), [3.2255, 13.9537]),
            (distributed, skellam, "user zero-out rdp full", (10, share, 16), [3.2261, 13.9854]),
            (local, gaussian, "user zero-out zcdp full", (1, whole, 17), [3.2255, 13.9537]),
            (local, skellam, "user zero-out rdp full", (1, whole, 17), [3.2261, 13.9854]),
            (everyone, gaussian, "user zero-out zcdp full", (1, whole, 32), [3.2255, 13.9537]),
            (everyone, skellam, "user zero-out rdp full", (1, whole, 32), [3.2261, 13.9854]),
            (sampled, gaussian, "user add-remove rdp poisson(0.05)", (1, whole, 32), [0.7733, 1.0451]),
            (sampled, skellam, "user add-remove rdp poisson(0.05)", (1, whole, 32), [0.7733, 1.0451]),
        ] {
            assert_eq!(named(placement, noise), (claim.to_owned(), sizes, epsilons));
        }
    }

    #[test]
    fn one_adders_loss_is_what_opendps_map_says() {
        for placement in &placements()[1..3] {
            let guarantee = Mechanism { placement: *placement, ..plan() }.guarantee().unwrap();
            let theirs = gaussian_rho(guarantee.grid.norm_bound_squared(), guarantee.share);
            assert!((guarantee.rho().unwrap() / theirs - 1.0).abs() < 1e-12, "{placement}");
        }
    }

    #[test]
    fn fixed_size_cohorts_are_refused() {
        let sampling = Sampling::FixedSize { cohort: 10, population: 100 };
        assert_eq!(
            refusal(|plan| plan.placement = Placement::Central { sampling }),
            "sampling is fixed-size(10 of 100), accepted is full or poisson"
        );
    }

    proptest! {
        #[test]
        fn losses_never_fall_and_wider_rings_never_narrow(
            placement in 0..4usize, skellam in any::<bool>(), noise in 0.3..20.0f64,
            resolution in 1u32..100_000, dimension in 1u32..100_000, rounds in 1u32..40,
        ) {
            let plan = Mechanism {
                placement: placements()[placement],
                noise: KINDS[usize::from(skellam)],
                noise_multiplier: NoiseMultiplier::new(noise).unwrap(),
                resolution, dimension, rounds,
                ..plan()
            };
            let guarantee = plan.guarantee().unwrap();
            let spent: Vec<f64> = (0..=rounds).map(|count| guarantee.epsilon(count)).collect();
            prop_assert!(spent.is_sorted() && spent[0] == 0.0 && guarantee.epsilon(rounds + 1) == f64::INFINITY);
            prop_assert!(guarantee.wrap_probability <= 2f64.powi(-40));
            // More clients, more steps or more noise in a sum take as many bits or more.
            let wider = [
                Mechanism { resolution: 2 * resolution, ..plan.clone() },
                Mechanism { noise_multiplier: NoiseMultiplier::new(2.0 * noise).unwrap(), ..plan.clone() },
                Mechanism { placement: match plan.placement {
                    Placement::Distributed { clients, malicious, groups, group_size, min_survivors } =>
                        distributed(clients, malicious, groups, 2 * group_size, min_survivors),
                    Placement::Local { group_size } => Placement::Local { group_size: 2 * group_size },
                    other => other,
                }, ..plan },
            ];
            for wider in wider {
                let bits = wider.guarantee().unwrap().ring_bits;
                prop_assert!(bits >= guarantee.ring_bits, "{} bits after {}", bits, guarantee.ring_bits);
            }
        }
    }

    #[test]
    fn the_loss_is_that_of_one_gaussian_with_the_noise_multiplier() {
        let guarantee = plan().guarantee().unwrap();
        for rounds in [1, 5, 12] {
            let central =
                RdpCurve::gaussian(plan().noise_multiplier).compose(rounds).epsilon(plan().delta).epsilon;
            assert!((guarantee.epsilon(rounds) / central - 1.0).abs() < 1e-4, "{rounds}");
        }
        assert!((guarantee.epsilon(12) - 14.0).abs() < 0.2, "{}", guarantee.epsilon(12));
        assert_eq!(guarantee.epsilon(0), 0.0);
        assert_eq!(guarantee.epsilon(13), f64::INFINITY);
    }

    #[test]
    fn a_larger_population_bounds_colluders_by_chance_and_pays_in_delta() {
        let mut plan = plan();
        plan.placement = distributed(1_000, 50, 20, 50, 40);
        let guarantee = plan.guarantee().unwrap();
        assert!(guarantee.colluders > 3 && guarantee.colluders < 20, "{}", guarantee.colluders);
        assert_eq!(guarantee.honest, 40 - guarantee.colluders);
        assert!(guarantee.collusion_failure > 0.0 && guarantee.collusion_failure <= 1e-6);
        let with_all_of_delta =
            RdpCurve::from_zcdp(guarantee.rho().unwrap()).compose(12).epsilon(plan.delta).epsilon;
        assert!(guarantee.epsilon(12) > with_all_of_delta);
    }

    #[test]
    fn participations_within_is_the_last_that_fits() {
        let guarantee = plan().guarantee().unwrap();
        for budget in [0.1, 3.0, 5.0, 8.0, 13.0] {
            let most = guarantee.participations_within(Epsilon::new(budget).unwrap());
            assert!(
                guarantee.epsilon(most) <= budget && guarantee.epsilon(most + 1) > budget,
                "{budget}: {most}"
            );
        }
        assert_eq!(guarantee.participations_within(Epsilon::new(1e6).unwrap()), 12);
    }

    #[test]
    fn group_sums_fit_the_ring_and_carry_the_noise() {
        for (placement, noise) in
            placements()[..2].iter().flat_map(|&placement| KINDS.map(|noise| (placement, noise)))
        {
            let plan = Mechanism { placement, noise, resolution: 24, ..plan() };
            let guarantee = plan.guarantee().unwrap();
            let sampler = Noise::new(noise, guarantee.share);
            let rotation = Rotation::new(&[7; 32], 650);
            let mut rng = ChaCha20Rng::seed_from_u64(2);
            let (mut exact, mut ring) = (vec![0i64; 650], vec![0i32; 650]);
            let mut signal = vec![0i64; 650];
            for client in 0..19 {
                // All clients push one coordinate to the clip norm: the longest sum there is.
                let mut update = vec![0.0; 650];
                update[0] = 0.5;
                update[1] = if client % 2 == 0 { 0.3 } else { -0.3 };
                clip_l2(&mut update, plan.clip).unwrap();
                rotation.forward(&mut update);
                clip_l2(&mut update, plan.clip).unwrap();
                let steps = guarantee.grid.round(&update, &mut rng);
                let noise = sampler.sample_vec(650, &mut rng);
                for (i, (step, noise)) in steps.into_iter().zip(noise).enumerate() {
                    signal[i] += i64::from(step);
                    exact[i] += i64::from(step) + i64::from(noise);
                    ring[i] = ring[i].wrapping_add(step).wrapping_add(noise);
                }
            }
            let unused = 32 - guarantee.ring_bits;
            let centred: Vec<i64> = ring.iter().map(|&x| i64::from(x << unused >> unused)).collect();
            assert_eq!(centred, exact, "{placement} {noise}");

            let added =
                exact.iter().zip(&signal).map(|(x, y)| ((x - y) * (x - y)) as f64).sum::<f64>() / 650.0;
            let expected = 19.0 * guarantee.share.get() as f64;
            let spread = 5.0 * (2.0f64 / 650.0).sqrt();
            assert!((added / expected - 1.0).abs() < spread, "{placement} {noise}: {added} for {expected}");
        }
    }

    #[test]
    fn coarse_grids_pay_for_the_sum_not_being_a_discrete_gaussian() {
        let coarse = Mechanism {
            resolution: 1,
            dimension: 1,
            noise_multiplier: NoiseMultiplier::new(0.5).unwrap(),
            ..plan()
        };
        let guarantee = coarse.guarantee().unwrap();
        assert_eq!(guarantee.share.get(), 1);
        let ideal = guarantee.grid.norm_bound_squared() as f64 / (2.0 * f64::from(guarantee.honest));
        assert!(guarantee.rho().unwrap() > ideal);
    }

    #[test]
    fn correlated_noise_costs_once_and_as_much_as_one_gaussian() {
        for matrix in [MatrixKind::SquareRoot, MatrixKind::Banded { bands: 4 }] {
            let participation = Participation { min_separation: 4, max_participations: 3 };
            let plan = Mechanism { placement: Placement::Correlated { matrix, participation }, ..plan() };
            let guarantee = plan.guarantee().unwrap();
            let once = RdpCurve::gaussian(plan.noise_multiplier).compose(1).epsilon(plan.delta).epsilon;
            assert_eq!(guarantee.epsilon(0), 0.0);
            for participations in [1, 3, 12] {
                let spent = guarantee.epsilon(participations);
                assert!((spent / once - 1.0).abs() < 1e-3, "{spent}, {once}");
            }
            assert_eq!(guarantee.epsilon(13), f64::INFINITY);
            let mut account = Account::default();
            account.add(&guarantee.task_loss(), 12);
            assert_eq!(
                account.epsilon(plan.delta),
                guarantee.epsilon(12),
                "beside other tasks it costs the same"
            );
            let whole = Epsilon::new(guarantee.epsilon(1)).unwrap();
            assert_eq!(guarantee.participations_within(whole), 12);
            assert_eq!(guarantee.participations_within(Epsilon::new(whole.get() * 0.999).unwrap()), 0);
            assert_eq!(
                (guarantee.claim.adjacency, guarantee.claim.sampling),
                (Adjacency::ZeroOut, Sampling::Full)
            );
            assert!(guarantee.matrix_noise().is_some());
        }
        let skellam = refusal(|plan| {
            plan.noise = NoiseKind::Skellam;
            plan.placement =
                Placement::Correlated { matrix: MatrixKind::SquareRoot, participation: Participation::ONCE };
        });
        assert_eq!(skellam, "mechanism is skellam, accepted with correlated noise is discrete-gaussian");
    }

    #[test]
    fn refusals_name_field_value_and_range() {
        let size = |clients, malicious, groups, group_size, min_survivors| {
            refusal(|plan| {
                plan.placement = distributed(clients, malicious, groups, group_size, min_survivors);
            })
        };
        assert_eq!(
            size(200, 4, 11, 19, 4),
            "min_survivors is 4, accepted is 5 to 19 (more than the 4 colluders that a group may hold, \
             at most group_size)"
        );
        assert!(size(200, 4, 11, 19, 20).starts_with("min_survivors is 20, accepted is 5 to 19"));
        assert_eq!(
            size(200, 150, 11, 19, 14),
            "min_survivors is 14, accepted is no value while a whole group of 19 may collude: \
             malicious is 150 of 200 clients"
        );
        assert_eq!(size(200, 200, 11, 19, 14), "malicious is 200, accepted is 0 to 199");
        assert_eq!(size(0, 4, 11, 19, 14), "clients is 0, accepted is at least 1");
        assert_eq!(size(200, 4, 11, 201, 14), "group_size is 201, accepted is 1 to 200");
        assert_eq!(size(200, 4, 0, 19, 14), "groups is 0, accepted is 1 to 200");
        assert_eq!(
            refusal(|plan| plan.placement = Placement::Local { group_size: 0 }),
            "group_size is 0, accepted is 1 to 1048576"
        );
        assert_eq!(refusal(|plan| plan.rounds = 0), "rounds is 0, accepted is at least 1");
        assert!(refusal(|plan| plan.dimension = 0).starts_with("dimension is 0, accepted is"));
        assert!(refusal(|plan| plan.resolution = 0).starts_with("resolution is 0, accepted is"));
        let wide = refusal(|plan| {
            plan.resolution = 1 << 24;
            plan.noise_multiplier = NoiseMultiplier::new(3.0).unwrap();
            plan.dimension = 4;
            plan.placement = distributed(10_000, 4, 11, 1_000, 900);
        });
        assert!(wide.starts_with("a group sum needs a ring of 36 bits, accepted is at most 32"), "{wide}");
        let loud = refusal(|plan| plan.noise_multiplier = NoiseMultiplier::new(1e6).unwrap());
        assert!(loud.starts_with("noise variance is"), "{loud}");
    }
}
