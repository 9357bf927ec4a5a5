//! The check of a plan: ranges of single fields first, then the mode's own demands, then what privacy follows.
//!
//! Everything is computed from the plan alone, so that whoever holds the same bytes comes to the same [`Terms`].

use fedveil_aggregation::optimizer::{Adaptive, ServerOptimizer};
use fedveil_aggregation::robust::{Kind, RULES, Rule, RuleSpec, SEED};
use fedveil_privacy::{
    self as privacy, AdaptiveClip, ClipNorm, Delta, Epsilon, Mechanism, NoiseKind, NoiseMultiplier,
    ParamError, Placement,
};
use fedveil_provenance::NO_NOISE;

use crate::error::{at_least, field};
use crate::{
    AdaptiveClipping, AdaptiveOptimizer, FederatedEvaluation, Gate, MAX_CLIENTS, MAX_PARAMETERS, MAX_PRE,
    Mode, PlanError, Server, TaskPlan, Terms, VERSION,
};

impl TaskPlan {
    /// Checks every field and computes what follows from them.
    pub fn check(&self) -> Result<Terms, PlanError> {
        let mode = Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == self.mode)
            .ok_or_else(|| field("mode", &self.mode, Mode::ALL.map(Mode::name).join(", ")))?;
        self.check_ranges()?;
        if self.privacy.adaptive_clip.is_some() && !mode.has_groups() {
            return Err(field("privacy.adaptive_clip", "a section", "nothing but in mode secagg"));
        }
        if self.evaluation().is_some() && mode != Mode::Secagg {
            return Err(field("server.gate.evaluation", "a section", "nothing but in mode secagg"));
        }
        let (rule, shape) = match mode {
            Mode::Secagg | Mode::InsecureIdeal => self.in_groups()?,
            Mode::InsecurePlain => self.in_the_clear()?,
        };
        let guarantee = match shape.placement {
            Placement::InsecureNone => self.without_noise()?,
            placement => self.mechanism(placement)?.guarantee().map_err(|e| self.no_guarantee(e))?,
        };
        let budget = self.budget()?;
        let affordable_rounds = guarantee.participations_within(budget).min(self.rounds);
        let example = self.example_terms(affordable_rounds)?;
        let optimizer = self.server.optimizer()?;
        let borne = if rule.is_mean() { 0 } else { self.server.assumed_byzantine };
        let (borne_mostly, too_many_poisoned) = self.poisoned_rows(mode, shape.groups, borne);
        Ok(Terms {
            mode,
            guarantee,
            groups: shape.groups,
            minimum_rows: shape.minimum_rows,
            largest_group: shape.largest_group,
            colluders_to_break: shape.colluders_to_break,
            break_probability_log2: shape.break_probability_log2,
            affordable_rounds,
            example,
            rule,
            borne,
            borne_mostly,
            too_many_poisoned,
            optimizer,
            masking: shape.masking,
        })
    }

    /// The robust rule, of those that `fits`, with options that a plan may set: seeds are drawn for each round, and vectors
    /// have no place in a plan.
    pub(crate) fn rule(&self, fits: fn(&RuleSpec) -> bool) -> Result<Rule, PlanError> {
        let Server { rule, pre, options, .. } = &self.server;
        let spec = RULES.iter().find(|spec| spec.about.name == rule && fits(spec)).ok_or_else(|| {
            let names: Vec<&str> =
                RULES.iter().filter(|spec| fits(spec)).map(|spec| spec.about.name).collect();
            field("server.rule", rule, names.join(", "))
        })?;
        let texts: Vec<(&str, String)> =
            options.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
        let settings: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let pre: Vec<&str> = pre.iter().map(String::as_str).collect();
        if pre.len() > MAX_PRE {
            return Err(field("server.pre", format!("{} names", pre.len()), format!("up to {MAX_PRE}")));
        }
        let made = Rule::new(rule, &pre, &settings)
            .map_err(|error| PlanError::Inconsistent(format!("server: {error}")))?;
        for &(key, text) in &settings {
            let name = key.rsplit('.').next().unwrap_or(key);
            if name == SEED {
                let accepted = "no value: it is drawn anew for each round";
                return Err(field("server.options", format!("{key} = {text}"), accepted));
            }
            let words: Option<&[&str]> = spec.about.options.iter().find_map(|option| match option.kind {
                Kind::Vector(words) if option.key == name => Some(words),
                Kind::Rows if option.key == name => Some(&[]),
                _ => None,
            });
            if let Some(words) = words.filter(|words| !words.contains(&text)) {
                let accepted =
                    if words.is_empty() { "no value in a plan".to_owned() } else { words.join(", ") };
                return Err(field("server.options", format!("{key} = {text}"), accepted));
            }
        }
        Ok(made)
    }

    fn check_ranges(&self) -> Result<(), PlanError> {
        let positive = |name, value: f64, high: f64| {
            if value > 0.0 && value <= high {
                Ok(())
            } else {
                Err(field(name, value, format!("more than 0, up to {high}")))
            }
        };
        at_least("version", self.version, VERSION, VERSION)?;
        if self.task.is_empty() || self.task.len() > 64 {
            return Err(field("task", &self.task, "a name of 1 to 64 bytes"));
        }
        at_least("rounds", self.rounds, 1, 100_000)?;
        at_least("phase_seconds", self.phase_seconds, 1, 86_400)?;
        at_least("model.parameters", self.model.parameters, 1, MAX_PARAMETERS)?;
        at_least("cohort.clients", self.cohort.clients, 2, MAX_CLIENTS)?;
        at_least("cohort.minimum", self.cohort.minimum, 2, self.cohort.clients)?;
        at_least("cohort.assumed_malicious", self.cohort.assumed_malicious, 0, self.cohort.minimum - 1)?;
        at_least("training.epochs", self.training.epochs, 1, 1_000)?;
        at_least("training.batch_size", self.training.batch_size, 0, 65_536)?;
        positive("training.learning_rate", self.training.learning_rate, 1e3)?;
        if let Some(momentum) = self.training.momentum
            && !(0.0..1.0).contains(&momentum)
        {
            return Err(field("training.momentum", momentum, "0 or more, below 1"));
        }
        if let Some(proximal) = self.training.proximal {
            positive("training.proximal", proximal, 1e3)?;
        }
        if let Some(steps) = self.training.planned_steps {
            at_least("training.planned_steps", steps, 1, 1_000_000)?;
        }
        at_least("server.assumed_byzantine", self.server.assumed_byzantine, 0, self.cohort.clients)?;
        positive("server.learning_rate", self.server.learning_rate, 1e3)?;
        if !(0.0..1.0).contains(&self.server.momentum) {
            return Err(field("server.momentum", self.server.momentum, "0 or more, below 1"));
        }
        self.server.gate.as_ref().map_or(Ok(()), Gate::check)
    }

    /// What clients are asked about each new model, if they are.
    pub fn evaluation(&self) -> Option<&FederatedEvaluation> {
        self.server.gate.as_ref()?.evaluation.as_ref()
    }

    fn mechanism(&self, placement: Placement) -> Result<Mechanism, PlanError> {
        let privacy = &self.privacy;
        Ok(Mechanism {
            clip: ClipNorm::new(privacy.clip_norm)
                .map_err(|error| field("privacy.clip_norm", error.found, error.accepted))?,
            resolution: privacy.resolution,
            dimension: self.model.parameters,
            noise: privacy.mechanism.parse().map_err(|_| {
                let names = [NoiseKind::DiscreteGaussian, NoiseKind::Skellam].map(|kind| kind.to_string());
                field("privacy.mechanism", &privacy.mechanism, names.join(", "))
            })?,
            noise_multiplier: NoiseMultiplier::new(privacy.noise_multiplier)
                .map_err(|error| field("privacy.noise_multiplier", error.found, error.accepted))?,
            placement,
            adaptive_clip: privacy.adaptive_clip.as_ref().map(AdaptiveClipping::check).transpose()?,
            evaluation: self.evaluation().map(FederatedEvaluation::noise).transpose()?,
            rounds: self.rounds,
            delta: self.delta()?,
        })
    }

    /// The ε at which the task stops: a number, and in plans without noise infinite.
    pub fn budget(&self) -> Result<Epsilon, PlanError> {
        if self.privacy.placement == NO_NOISE && self.privacy.epsilon == f64::INFINITY {
            return Ok(Epsilon::INFINITE);
        }
        Epsilon::new(self.privacy.epsilon)
            .map_err(|error| field("privacy.epsilon", error.found, error.accepted))
    }

    /// δ is a probability with which everything about some client may come out: of n clients, with 1/n it may be one
    /// whole client each time. n is the population, or the cohort, of which a population has at least as many.
    pub(crate) fn delta(&self) -> Result<Delta, PlanError> {
        let delta = Delta::new(self.privacy.delta)
            .map_err(|error| field("privacy.delta", error.found, error.accepted))?;
        let (name, clients) = match self.cohort.population {
            Some(population) => ("cohort.population", population),
            None => ("cohort.clients", self.cohort.clients),
        };
        if delta.get() * f64::from(clients) > 1.0 {
            let accepted = format!("a number above 0, at most 1/{clients} (one in {name})");
            return Err(field("privacy.delta", delta, accepted));
        }
        Ok(delta)
    }

    /// Says in the fields of the plan why it gives no guarantee.
    pub(crate) fn no_guarantee(&self, error: privacy::PlanError) -> PlanError {
        match error {
            privacy::PlanError::Param(error) if error.name == "resolution" => {
                field("privacy.resolution", error.found, error.accepted)
            }
            privacy::PlanError::Param(error) if error.name == "clip norm" => {
                field("privacy.clip_norm", error.found, error.accepted)
            }
            privacy::PlanError::Param(error) => field(
                "privacy.noise_multiplier",
                self.privacy.noise_multiplier,
                format!(
                    "one that at privacy.resolution {} makes the {} {}, not {:e}",
                    self.privacy.resolution, error.name, error.accepted, error.found
                ),
            ),
            privacy::PlanError::Count { field: "min_survivors", found, accepted } => {
                field("aggregation.min_survivors", found, accepted)
            }
            other => PlanError::Inconsistent(format!("privacy: {other}")),
        }
    }
}
impl Server {
    fn optimizer(&self) -> Result<ServerOptimizer, PlanError> {
        let Self { learning_rate, momentum, .. } = *self;
        let Some(AdaptiveOptimizer { name, beta1, beta2, tau }) = &self.optimizer else {
            return Ok(ServerOptimizer::Sgd { learning_rate, momentum });
        };
        let rule = Adaptive::ALL.into_iter().find(|rule| rule.name() == name).ok_or_else(|| {
            field("server.optimizer.name", name, Adaptive::ALL.map(Adaptive::name).join(", "))
        })?;
        if momentum != 0.0 {
            return Err(field(
                "server.momentum",
                momentum,
                "0 with server.optimizer, whose momentum is beta1",
            ));
        }
        let optimizer =
            ServerOptimizer::Adaptive { rule, learning_rate, beta1: *beta1, beta2: *beta2, tau: *tau };
        optimizer.check().map_err(|error| {
            let name = match error.name {
                "beta1" => "server.optimizer.beta1",
                "beta2" => "server.optimizer.beta2",
                "tau" => "server.optimizer.tau",
                _ => "server.learning_rate",
            };
            field(name, error.found, error.accepted)
        })?;
        Ok(optimizer)
    }
}

impl AdaptiveClipping {
    fn check(&self) -> Result<AdaptiveClip, PlanError> {
        let wrong = |name, error: ParamError| field(name, error.found, error.accepted);
        let noise = NoiseMultiplier::new(self.noise_multiplier)
            .map_err(|error| wrong("privacy.adaptive_clip.noise_multiplier", error))?;
        let minimum =
            ClipNorm::new(self.minimum).map_err(|error| wrong("privacy.adaptive_clip.minimum", error))?;
        let maximum =
            ClipNorm::new(self.maximum).map_err(|error| wrong("privacy.adaptive_clip.maximum", error))?;
        AdaptiveClip::new(self.quantile, self.learning_rate, noise, minimum, maximum).map_err(|error| {
            let name = match error.name {
                "quantile" => "privacy.adaptive_clip.quantile",
                "maximum clip norm" => "privacy.adaptive_clip.maximum",
                _ => "privacy.adaptive_clip.learning_rate",
            };
            wrong(name, error)
        })
    }
}
