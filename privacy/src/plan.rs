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
        let needed = (MIN_RING_BITS..64)
            .find(|&bits| wrap(bits) <= MAX_WRAP)
            .expect("at most 2^20 clients of at most 2^24 steps and as much noise stay below 2^48");
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

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{Noise, NoiseKind};

    fn plan() -> DistributedGaussian {
        DistributedGaussian {
            clip: ClipNorm::new(0.5).unwrap(),
            resolution: 1_024,
            dimension: 650,
            noise_multiplier: NoiseMultiplier::new(1.4).unwrap(),
            clients: 200,
            malicious: 4,
            groups: 11,
            group_size: 19,
            min_survivors: 14,
            rounds: 12,
            delta: Delta::new(1e-5).unwrap(),
        }
    }

    fn refusal(change: impl FnOnce(&mut DistributedGaussian)) -> String {
        let mut plan = plan();
        change(&mut plan);
        plan.guarantee().unwrap_err().to_string()
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
        // 19·1024 + 8.4·√(19·205756) = 36 thousand, above 2^15 and below 2^16.
        assert_eq!(guarantee.ring_bits, 17);
        assert!(guarantee.wrap_probability <= MAX_WRAP);
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
        (plan.clients, plan.malicious, plan.groups, plan.group_size, plan.min_survivors) =
            (1_000, 50, 20, 50, 40);
        let guarantee = plan.guarantee().unwrap();
        assert!(guarantee.colluders > 3 && guarantee.colluders < 20, "{}", guarantee.colluders);
        assert_eq!(guarantee.honest, 40 - guarantee.colluders);
        assert!(guarantee.collusion_failure > 0.0 && guarantee.collusion_failure <= 1e-6);
        let with_all_of_delta = RdpCurve::from_zcdp(guarantee.rho()).compose(12).epsilon(plan.delta).epsilon;
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
    fn group_sums_fit_the_ring() {
        let plan = plan();
        let guarantee = plan.guarantee().unwrap();
        let noise = Noise::new(NoiseKind::DiscreteGaussian, guarantee.share);
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (mut exact, mut ring) = (vec![0i64; 650], vec![0i32; 650]);
        for client in 0..plan.group_size {
            // All clients push one coordinate to the clip norm: the largest sum there is.
            let mut update = vec![0.0; 650];
            update[0] = 0.5;
            update[1] = if client % 2 == 0 { 0.3 } else { -0.3 };
            let steps = guarantee.grid.round(&update, &mut rng);
            let noise = noise.sample_vec(650, &mut rng);
            for (i, (step, noise)) in steps.into_iter().zip(noise).enumerate() {
                exact[i] += i64::from(step) + i64::from(noise);
                ring[i] = ring[i].wrapping_add(step).wrapping_add(noise);
            }
        }
        let unused = 32 - guarantee.ring_bits;
        let centred: Vec<i64> = ring.iter().map(|&x| i64::from(x << unused >> unused)).collect();
        assert_eq!(centred, exact);

        let spread = exact[2..].iter().map(|&x| (x * x) as f64).sum::<f64>() / 648.0;
        let expected = 19.0 * guarantee.share.get() as f64;
        assert!((spread / expected - 1.0).abs() < 5.0 * (2.0f64 / 648.0).sqrt(), "{spread} for {expected}");
    }

    #[test]
    fn the_ring_is_the_narrowest() {
        for resolution in [1, 10, 100, 1_000, 100_000] {
            let plan = DistributedGaussian { resolution, ..plan() };
            let guarantee = plan.guarantee().unwrap();
            let signal = 19.0 * f64::from(resolution);
            let sigma = (19.0 * guarantee.share.get() as f64).sqrt();
            let k = (2.0 * (2.0 * 650.0 / MAX_WRAP).ln()).sqrt();
            let fits = |bits: u32| signal + k * sigma <= 2f64.powi(bits as i32 - 1);
            assert!(fits(guarantee.ring_bits), "{resolution}");
            assert!(guarantee.ring_bits == 8 || !fits(guarantee.ring_bits - 1), "{resolution}");
        }
    }

    #[test]
    fn coarse_grids_pay_for_the_sum_not_being_a_discrete_gaussian() {
        let coarse = DistributedGaussian {
            resolution: 1,
            dimension: 1,
            noise_multiplier: NoiseMultiplier::new(0.5).unwrap(),
            ..plan()
        };
        let guarantee = coarse.guarantee().unwrap();
        assert_eq!(guarantee.share.get(), 1);
        let ideal = guarantee.grid.norm_bound_squared() as f64 / (2.0 * f64::from(guarantee.honest));
        assert!(guarantee.rho() > ideal);
    }

    #[test]
    fn refusals_name_field_value_and_range() {
        assert_eq!(
            refusal(|plan| plan.min_survivors = 4),
            "min_survivors is 4, accepted is 5 to 19 (more than the 4 colluders that a group may hold, \
             at most group_size)"
        );
        assert!(
            refusal(|plan| plan.min_survivors = 20).starts_with("min_survivors is 20, accepted is 5 to 19")
        );
        assert_eq!(
            refusal(|plan| plan.malicious = 150),
            "min_survivors is 14, accepted is no value while a whole group of 19 may collude: \
             malicious is 150 of 200 clients"
        );
        assert_eq!(refusal(|plan| plan.malicious = 200), "malicious is 200, accepted is 0 to 199");
        assert_eq!(refusal(|plan| plan.clients = 0), "clients is 0, accepted is at least 1");
        assert_eq!(refusal(|plan| plan.group_size = 201), "group_size is 201, accepted is 1 to 200");
        assert_eq!(refusal(|plan| plan.groups = 0), "groups is 0, accepted is 1 to 200");
        assert_eq!(refusal(|plan| plan.rounds = 0), "rounds is 0, accepted is at least 1");
        assert!(refusal(|plan| plan.dimension = 0).starts_with("dimension is 0, accepted is"));
        assert!(refusal(|plan| plan.resolution = 0).starts_with("resolution is 0, accepted is"));
        let wide = refusal(|plan| {
            plan.resolution = 1 << 24;
            plan.noise_multiplier = NoiseMultiplier::new(3.0).unwrap();
            (plan.clients, plan.group_size, plan.min_survivors) = (10_000, 1_000, 900);
        });
        assert!(wide.starts_with("a group sum needs a ring of 36 bits, accepted is at most 32"), "{wide}");
        let loud = refusal(|plan| plan.noise_multiplier = NoiseMultiplier::new(1e6).unwrap());
        assert!(loud.starts_with("noise variance is"), "{loud}");
    }
}
