//! Mode `insecure_plain`: no session of secure aggregation, and every update a row of its own.

use fedveil_aggregation::robust::{Rule, RuleSpec};
use fedveil_privacy::{ClipNorm, Guarantee, MatrixKind, Participation, Placement, Sampling, SamplingRate};
use fedveil_provenance::NO_NOISE;

use crate::error::{at_least, field};
use crate::terms::Shape;
use crate::{Aggregation, CorrelatedNoise, MAX_CLIENTS, MAX_ROWS, Mode, PlanError, Privacy, TaskPlan, Terms};

/// Most rounds over which noise is correlated: a round's noise is made of that of all rounds before.
const MAX_CORRELATED_ROUNDS: u32 = 1 << 14;

impl Aggregation {
    /// The section of a plan in which nothing is masked. There it says so, and nothing else is accepted: a signed plan
    /// holds no group size that no group has.
    pub fn none() -> Self {
        let none = || "none".to_owned();
        Self {
            protocol: none(),
            group_size: 0,
            degree: 0,
            threshold: 0,
            min_survivors: 0,
            max_missing_reveals: 0,
            masks: none(),
            break_probability: 0.0,
        }
    }
}

impl Privacy {
    /// The section of a plan in which nobody adds noise, for research on data that is nobody's secret: ε is infinite, and
    /// the section says so in every field. Updates longer than `clip_norm` are clipped to it; infinite, none is.
    pub fn none(clip_norm: f64) -> Self {
        Self {
            placement: NO_NOISE.to_owned(),
            mechanism: "none".to_owned(),
            clip_norm,
            noise_multiplier: 0.0,
            resolution: 0,
            epsilon: f64::INFINITY,
            delta: 1e-5,
            adaptive_clip: None,
            correlated_noise: None,
        }
    }
}

impl Terms {
    /// What everyone must be told of a plan in which a name says `insecure`: for the terminal, plans and reports.
    pub fn warning(&self) -> Option<&'static str> {
        match (self.mode, self.guarantee.has_noise()) {
            (_, false) => Some(
                "INSECURE: privacy.placement insecure_none. Nobody adds noise: epsilon is infinite. The coordinator sees \
                 the update of every single client, models may give their data away, and nothing of this task is private.",
            ),
            (Mode::InsecureIdeal, true) => Some(
                "INSECURE: mode insecure_ideal. Sums of groups are computed without masks: the coordinator sees the update \
                 of every single client, and this task is a simulation.",
            ),
            (Mode::InsecurePlain, true) => Some(
                "INSECURE: mode insecure_plain. The coordinator sees the update of every single client; whoever runs \
                 it, or breaks into it, can read them.",
            ),
            _ => None,
        }
    }
}

impl TaskPlan {
    pub(crate) fn in_the_clear(&self) -> Result<(Rule, Shape), PlanError> {
        if self.aggregation != Aggregation::none() {
            return Err(PlanError::Inconsistent(
                "aggregation promises masks that mode insecure_plain does not have; accepted are protocol and masks \
                 \"none\" and 0 for the rest"
                    .to_owned(),
            ));
        }
        let rule = self.rule(RuleSpec::takes_client_updates)?;
        let placement = self.placement_in_the_clear(&rule)?;
        let byzantine = self.server.assumed_byzantine as usize;
        let minimum_rows = match placement {
            // A round that nobody was drawn into is released like any other.
            Placement::Central { sampling: Sampling::Poisson(_) } | Placement::Correlated { .. } => 0,
            _ => rule.minimum_rows(byzantine) as u32,
        };
        if self.cohort.minimum < minimum_rows {
            return Err(PlanError::Inconsistent(format!(
                "server.rule {rule} bears {byzantine} poisoned clients only among {minimum_rows} or more, and \
                 cohort.minimum is {}",
                self.cohort.minimum
            )));
        }
        if !rule.is_mean() {
            at_least("cohort.clients", self.cohort.clients, 2, MAX_ROWS)?;
        }
        for rows in [self.cohort.minimum, self.cohort.clients] {
            rule.check_counts(rows as usize, byzantine)
                .map_err(|error| PlanError::Inconsistent(format!("server.assumed_byzantine: {error}")))?;
        }
        let shape = Shape {
            placement,
            groups: 0,
            minimum_rows,
            largest_group: 1,
            colluders_to_break: 0,
            break_probability_log2: 0.0,
            masking: None,
        };
        Ok((rule, shape))
    }

    fn placement_in_the_clear(&self, rule: &Rule) -> Result<Placement, PlanError> {
        match (self.privacy.placement.as_str(), self.cohort.population) {
            ("central", population) => {
                if !rule.is_mean() {
                    let accepted = "mean (the noise of placement central is sized for a sum of all updates; how far one \
                                    client moves another rule has no such bound)";
                    return Err(field("server.rule", rule.name(), accepted));
                }
                match &self.privacy.correlated_noise {
                    None => Ok(Placement::Central { sampling: self.sampling(population)? }),
                    Some(correlated) => self.correlated(correlated),
                }
            }
            (NO_NOISE, None) => {
                self.refuse_correlated_noise()?;
                Ok(Placement::InsecureNone)
            }
            (NO_NOISE, Some(_)) => Err(PlanError::Inconsistent(
                "cohort.population amplifies privacy only in placement central: without noise there is none".to_owned(),
            )),
            ("local", None) => {
                self.refuse_correlated_noise()?;
                Ok(Placement::Local { group_size: 1 })
            }
            ("local", Some(_)) => Err(PlanError::Inconsistent(
                "cohort.population amplifies privacy only in placement central: a client's own noise hides it from a \
                 coordinator that knows whom it has drawn"
                    .to_owned(),
            )),
            (other, _) => {
                let accepted = "local, central, insecure_none (distributed noise hides an update in a sum, and mode insecure_plain \
                                shows it by itself)";
                Err(field("privacy.placement", other, accepted))
            }
        }
    }

    /// A section that promises noise which nobody adds is refused, whatever it promises.
    pub(crate) fn without_noise(&self) -> Result<Guarantee, PlanError> {
        let Privacy { clip_norm, delta, .. } = self.privacy;
        if self.privacy != (Privacy { delta, ..Privacy::none(clip_norm) }) {
            return Err(PlanError::Inconsistent(
                "privacy promises noise that placement insecure_none does not have; accepted are mechanism \"none\", 0 for \
                 noise_multiplier and resolution, an infinite epsilon, and neither adaptive_clip nor correlated_noise"
                    .to_owned(),
            ));
        }
        let clip = if clip_norm == f64::INFINITY {
            ClipNorm::INFINITE
        } else {
            ClipNorm::new(clip_norm).map_err(|error| {
                field("privacy.clip_norm", error.found, format!("{}, or infinite", error.accepted))
            })?
        };
        Guarantee::without_noise(clip, self.model.parameters, self.rounds, self.delta()?)
            .map_err(|error| self.no_guarantee(error))
    }

    fn sampling(&self, population: Option<u32>) -> Result<Sampling, PlanError> {
        let Some(population) = population else { return Ok(Sampling::Full) };
        at_least("cohort.population", population, self.cohort.clients, MAX_CLIENTS)?;
        let rate = f64::from(self.cohort.clients) / f64::from(population);
        let rate = SamplingRate::new(rate)
            .map_err(|error| field("cohort.population", error.found, error.accepted))?;
        Ok(Sampling::Poisson(rate))
    }

    pub(crate) fn refuse_correlated_noise(&self) -> Result<(), PlanError> {
        match self.privacy.correlated_noise {
            None => Ok(()),
            Some(_) => Err(PlanError::Inconsistent(
                "privacy.correlated_noise wants privacy.placement central: a round takes back noise of the rounds before, \
                 and clients that added it may be gone"
                    .to_owned(),
            )),
        }
    }

    fn correlated(&self, correlated: &CorrelatedNoise) -> Result<Placement, PlanError> {
        let CorrelatedNoise { matrix, bands, min_separation, max_participations } = correlated;
        if self.cohort.population.is_some() {
            return Err(PlanError::Inconsistent(
                "privacy.correlated_noise has no amplification by sampling, so that cohort.population says nothing; leave \
                 one of them out"
                    .to_owned(),
            ));
        }
        at_least("rounds", self.rounds, 1, MAX_CORRELATED_ROUNDS)?;
        let matrix = match (matrix.as_str(), bands) {
            ("toeplitz", None) => MatrixKind::SquareRoot,
            ("banded-toeplitz", Some(bands)) => {
                at_least("privacy.correlated_noise.bands", *bands, 1, self.rounds)?;
                MatrixKind::Banded { bands: *bands }
            }
            ("toeplitz", Some(bands)) => {
                return Err(field("privacy.correlated_noise.bands", bands, "nothing with matrix toeplitz"));
            }
            ("banded-toeplitz", None) => {
                let accepted = format!("1 to {} with matrix banded-toeplitz", self.rounds);
                return Err(field("privacy.correlated_noise.bands", "left out", accepted));
            }
            (other, _) => {
                return Err(field("privacy.correlated_noise.matrix", other, "toeplitz, banded-toeplitz"));
            }
        };
        at_least("privacy.correlated_noise.min_separation", *min_separation, 1, self.rounds)?;
        at_least("privacy.correlated_noise.max_participations", *max_participations, 1, self.rounds)?;
        let participation =
            Participation { min_separation: *min_separation, max_participations: *max_participations };
        Ok(Placement::Correlated { matrix, participation })
    }
}
