//! What a task plan says about privacy, and what follows from it.
//!
//! Placement of the noise (distributed): every client adds an independent discrete Gaussian share to its rounded update,
//! and the coordinator sees sums over groups. The shares are sized so that the honest survivors of one group alone
//! carry the whole noise: h = min_survivors − c of them, where no group holds more than c colluders except with
//! probability δ_c, which comes off δ. A group with fewer survivors than `min_survivors` must be withheld.

use crate::{
    ClipNorm, Delta, Epsilon, Grid, NoiseMultiplier, ParamError, RdpCurve, Variance, colluder_bound,
    distributed_discrete_gaussian_rho,
};

/// The privacy part of a task plan. Anyone who holds the plan computes the same [`Guarantee`] from it.
#[derive(Clone, Debug, PartialEq)]
pub struct DistributedGaussian {
    /// L2 bound on a client's update.
    pub clip: ClipNorm,
    /// Integer steps per clip norm.
    pub resolution: u32,
    /// Coordinates of an update.
    pub dimension: u32,
    /// Standard deviation of the noise that honest survivors alone put into one group sum, over the integer L2 bound.
    pub noise_multiplier: NoiseMultiplier,
    /// Clients among whom each round's groups are drawn. Against a coordinator that chooses who takes part, this is the
    /// cohort of one round, and `malicious` counts the most that may be in it.
    pub clients: u32,
    /// How many of them may pool what they know with the coordinator, their own noise included.
    pub malicious: u32,
    /// Groups per round.
    pub groups: u32,
    /// Clients in the largest group.
    pub group_size: u32,
    /// Survivors below which a group sum is withheld.
    pub min_survivors: u32,
    /// Rounds of the task. A client takes part at most once in each.
    pub rounds: u32,
    /// The δ of the whole task.
    pub delta: Delta,
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
        /// The field of [`DistributedGaussian`].
        field: &'static str,
        /// Its value.
        found: u32,
        /// The values that the other fields leave.
        accepted: String,
    },
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
    /// c: the most colluders that a group is assumed to hold.
    pub colluders: u32,
    /// δ_c: the probability that some group in some round holds more. At most a tenth of δ.
    pub collusion_failure: f64,
    /// h: the honest survivors whose shares are counted, the client itself among them.
    pub honest: u32,
    /// The parameter of the noise that each client adds to each coordinate.
    pub share: Variance,
    /// b: group sums live in Z_2^b.
    pub ring_bits: u32,
    /// A bound on the probability that some coordinate of one group sum of honest clients wraps. It costs accuracy only.
    pub wrap_probability: f64,
    /// Rounds over which δ_c was taken: the most participations that the guarantee covers.
    pub rounds: u32,
    /// The δ of the task, δ_c included.
    pub delta: Delta,
    rho: f64,
    delta_of_noise: Delta,
}

impl DistributedGaussian {
    /// Sizes noise and ring, and proves the loss per participation.
    pub fn guarantee(&self) -> Result<Guarantee, PlanError> {
        let grid = Grid::new(self.clip, self.resolution, self.dimension as usize)?;
        self.check_counts()?;
        let bound = colluder_bound(
            self.clients,
            self.malicious,
            self.group_size,
            self.groups,
            self.rounds,
            self.delta.get() * COLLUSION_SHARE_OF_DELTA,
        );
        let honest = self.honest_survivors(bound.colluders)?;
        let noise = self.noise_multiplier.get().powi(2) * grid.norm_bound_squared() as f64;
        let share = Variance::new((noise / f64::from(honest)).ceil() as u64)?;
        let (ring_bits, wrap_probability) = self.ring(&grid, share)?;
        let rho = distributed_discrete_gaussian_rho(grid.norm_bound_squared(), share, honest, self.dimension);
        let delta_of_noise = Delta::new(self.delta.get() - bound.failure)?;
        Ok(Guarantee {
            grid,
            colluders: bound.colluders,
            collusion_failure: bound.failure,
            honest,
            share,
            ring_bits,
            wrap_probability,
            rounds: self.rounds,
            delta: self.delta,
            rho,
            delta_of_noise,
        })
    }

    fn check_counts(&self) -> Result<(), PlanError> {
        check_count("clients", self.clients, 1, u32::MAX)?;
        check_count("malicious", self.malicious, 0, self.clients - 1)?;
        check_count("group_size", self.group_size, 1, self.clients.min(MAX_GROUP_SIZE))?;
        check_count("groups", self.groups, 1, self.clients)?;
        check_count("rounds", self.rounds, 1, u32::MAX)
    }

    fn honest_survivors(&self, colluders: u32) -> Result<u32, PlanError> {
        if (colluders + 1..=self.group_size).contains(&self.min_survivors) {
            return Ok(self.min_survivors - colluders);
        }
        let accepted = if colluders < self.group_size {
            format!(
                "{} to {} (more than the {colluders} colluders that a group may hold, at most group_size)",
                colluders + 1,
                self.group_size
            )
        } else {
            format!(
                "no value while a whole group of {} may collude: malicious is {} of {} clients",
                self.group_size, self.malicious, self.clients
            )
        };
        Err(PlanError::Count { field: "min_survivors", found: self.min_survivors, accepted })
    }

    /// The ring and its wrap probability. A sum of discrete Gaussians is subgaussian with the sum of their parameters
    /// (Canonne, Kamath, Steinke 2020): P[|noise| ≥ Kσ] ≤ 2·exp(−K²/2) in each coordinate.
    fn ring(&self, grid: &Grid, share: Variance) -> Result<(u32, f64), PlanError> {
        let signal = f64::from(self.group_size) * f64::from(grid.coordinate_bound());
        let sigma = (f64::from(self.group_size) * share.get() as f64).sqrt();
        let wrap = |bits: u32| {
            let room = 2f64.powi(bits as i32 - 1) - signal;
            if room <= 0.0 {
                return 1.0;
            }
            (2.0 * f64::from(self.dimension) * (-0.5 * (room / sigma).powi(2)).exp()).min(1.0)
        };
        let needed = (MIN_RING_BITS..)
            .find(|&bits| wrap(bits) <= MAX_WRAP)
            .expect("some ring is wide enough for a finite sum");
        if needed > MAX_RING_BITS {
            return Err(PlanError::Ring {
                needed,
                resolution: self.resolution,
                group_size: self.group_size,
                noise_multiplier: self.noise_multiplier,
            });
        }
        Ok((needed, wrap(needed)))
    }
}

impl Guarantee {
    /// The zCDP loss ρ of one participation, given that no group holds more than [`Guarantee::colluders`].
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// The ε, at [`Guarantee::delta`], that a client has spent after so many participations. Infinite beyond
    /// [`Guarantee::rounds`], over which the colluders were bounded.
    pub fn epsilon(&self, participations: u32) -> f64 {
        if participations > self.rounds {
            return f64::INFINITY;
        }
        RdpCurve::from_zcdp(self.rho).compose(participations).epsilon(self.delta_of_noise).epsilon
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

/// The part of δ that colluders may take; the noise keeps the rest.
const COLLUSION_SHARE_OF_DELTA: f64 = 0.1;

/// Bounds the work that a plan from the network can ask for.
const MAX_GROUP_SIZE: u32 = 1 << 20;

const MIN_RING_BITS: u32 = 8;
const MAX_RING_BITS: u32 = 32;

/// The accepted probability that a group sum wraps somewhere: 2^-40.
const MAX_WRAP: f64 = 1.0 / (1u64 << 40) as f64;

fn check_count(field: &'static str, found: u32, least: u32, most: u32) -> Result<(), PlanError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let accepted = if most == u32::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
    Err(PlanError::Count { field, found, accepted })
}
