//! What a plan guarantees: the sizes that a mechanism proved, and what so many participations spend.

use super::{Accounting, Adjacency, Claim, Placement, PlanError, Unit, check_count};
use crate::ring::MAX_RING_BITS;
use crate::{
    AdaptiveClip, ClipNorm, Delta, Epsilon, Evaluation, Grid, MatrixMechanism, MatrixNoise, NoiseKind,
    NoiseMultiplier, RdpCurve, Sampling, TaskLoss, Variance, zcdp_epsilon,
};

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
    pub(super) noise_multiplier: Option<NoiseMultiplier>,
    pub(super) loss: Loss,
    pub(super) delta_of_noise: Delta,
}

/// The coordinate behind an update's that says whether it was clipped. See [`AdaptiveClip`].
#[derive(Clone, Debug, PartialEq)]
pub struct Indicator {
    /// How the clip norm follows.
    pub clip: AdaptiveClip,
    /// The parameter of the noise that each client adds to the coordinate.
    pub share: Variance,
    /// What it costs, and what the update costs, apart.
    pub(super) own: RdpCurve,
    pub(super) vector: RdpCurve,
}

/// What one round loses.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loss {
    Zcdp {
        rho: f64,
    },
    Renyi(RdpCurve),
    /// Not of a round, but of all of them.
    Whole {
        rho: f64,
    },
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
    /// [`Claim::sampling`] says so). With correlated noise the first participation costs all of it. Infinite beyond
    /// [`Guarantee::rounds`], over which the colluders were bounded.
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
    pub(super) fn curve(&self) -> RdpCurve {
        match self {
            Self::Zcdp { rho } | Self::Whole { rho } => RdpCurve::from_zcdp(*rho),
            Self::Renyi(curve) => curve.clone(),
        }
    }
}
