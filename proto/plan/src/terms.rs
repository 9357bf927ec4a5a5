//! What a plan means: its terms, which nothing but [`TaskPlan::check`] makes, and what they say of privacy.

use fedveil_aggregation::optimizer::ServerOptimizer;
use fedveil_aggregation::robust::Rule;
use fedveil_aggregation::secagg::{Prg, ProtocolKind};
use fedveil_privacy::{Epsilon, Guarantee, Placement};
use fedveil_provenance::PrivacyClaim;

use crate::{ExampleTerms, TaskPlan};

/// Who sees what of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The coordinator sees sums of groups.
    Secagg,
    /// The coordinator sees every update by itself.
    InsecurePlain,
    /// Like `secagg` in all but the cryptography: the coordinator sees every update by itself, and sums groups of them in
    /// the clear. For simulations.
    InsecureIdeal,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Secagg, Self::InsecurePlain, Self::InsecureIdeal];

    /// The name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secagg => "secagg",
            Self::InsecurePlain => "insecure_plain",
            Self::InsecureIdeal => "insecure_ideal",
        }
    }

    /// Whether sums are taken of groups, with or without masks.
    pub fn has_groups(self) -> bool {
        self != Self::InsecurePlain
    }
}

/// What a plan means, computed from its fields alone.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who sees what.
    pub mode: Mode,
    /// Privacy guarantee of one round and of the whole task.
    pub guarantee: Guarantee,
    /// Groups in a full cohort; none in mode `insecure_plain`.
    pub groups: u32,
    /// Groups that must yield a sum, or clients that must send an update, or the round is aborted. 0 where nothing may
    /// depend on who was drawn.
    pub minimum_rows: u32,
    /// Largest group that any admissible cohort produces; 1 in mode `insecure_plain`.
    pub largest_group: u32,
    /// Colluders among a client's neighbours that a malicious coordinator would need to see its update; none in mode
    /// `insecure_plain`.
    pub colluders_to_break: u32,
    /// Base-2 logarithm of a bound on the probability that, in any round of the task, it has them around any client or
    /// can cut a group's graph in two; −∞ where the assumed colluders are too few, 0 in mode `insecure_plain`.
    pub break_probability_log2: f64,
    /// Rounds that the ε budget pays for, at most `rounds`.
    pub affordable_rounds: u32,
    /// Privacy of single examples, where the plan asks for it.
    pub example: Option<ExampleTerms>,
    /// The robust rule with its pre-aggregators and options.
    pub rule: Rule,
    /// Poisoning clients that the rule bears wherever they are, in every cohort that the plan admits; none for the mean.
    pub borne: u32,
    /// Poisoning clients of a full cohort that in one round poison no more rows than the rule is set to bear, but for a
    /// probability of [`ACCEPTED_CHANCE`](crate::ACCEPTED_CHANCE): some share a group. At least `borne`.
    pub borne_mostly: u32,
    /// Bound on the probability that in one round of a full cohort `cohort.assumed_malicious` clients poison more rows
    /// than the rule is set to bear. As many as `borne` never do.
    pub too_many_poisoned: f64,
    /// The server optimiser.
    pub optimizer: ServerOptimizer,
    /// What masks, and with what; nothing in mode `insecure_plain`.
    pub(crate) masking: Option<(ProtocolKind, Prg)>,
}

/// What a mode makes of a plan's cohort.
pub(crate) struct Shape {
    pub(crate) placement: Placement,
    pub(crate) groups: u32,
    pub(crate) minimum_rows: u32,
    pub(crate) largest_group: u32,
    pub(crate) colluders_to_break: u32,
    pub(crate) break_probability_log2: f64,
    pub(crate) masking: Option<(ProtocolKind, Prg)>,
}

impl Terms {
    /// What a manifest of the task says about privacy once this ε is spent. An adaptive clip norm is that of the
    /// first round here.
    pub fn privacy_claim(&self, plan: &TaskPlan, epsilon_spent: f64) -> PrivacyClaim {
        let claim = self.guarantee.claim;
        PrivacyClaim {
            epsilon_spent,
            epsilon_budget: plan.privacy.epsilon,
            delta: plan.privacy.delta,
            unit: claim.unit.to_string(),
            neighbours: claim.adjacency.to_string(),
            accountant: claim.accounting.to_string(),
            sampling: claim.sampling.to_string(),
            placement: self.guarantee.placement.to_string(),
            mechanism: self.guarantee.mechanism(),
            noise_multiplier: plan.privacy.noise_multiplier,
            clip_norm: plan.privacy.clip_norm,
            adaptive_clip: self.guarantee.indicator.is_some(),
            private: !plan.simulated,
        }
    }

    /// Whether the plan can have spent this ε by the end of that round: it is what some number of participations costs,
    /// one a round at most. Floating point may differ between machines; a millionth is forgiven.
    pub fn can_have_spent(&self, epsilon: f64, rounds: u32) -> bool {
        if !self.guarantee.has_noise() {
            return epsilon == 0.0 || epsilon == f64::INFINITY && rounds > 0;
        }
        let close = |participations| {
            let cost = self.guarantee.epsilon(participations);
            (epsilon - cost).abs() <= 1e-6 * cost
        };
        let most = Epsilon::new(epsilon * (1.0 + 1e-6))
            .map_or(0, |epsilon| self.guarantee.participations_within(epsilon));
        close(most.min(rounds))
    }

    /// What one client is charged for at most, in participations of the guarantee: one, where that pays for the task.
    pub fn most_charges(&self) -> u32 {
        match self.guarantee.placement {
            Placement::Correlated { .. } => self.affordable_rounds.min(1),
            _ => self.affordable_rounds,
        }
    }
}
