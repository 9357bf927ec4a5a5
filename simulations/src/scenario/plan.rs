//! From a scenario to the plan that the cores run.

use std::num::NonZeroUsize;

use fedveil_aggregation::robust::Rule;
use fedveil_aggregation::secagg::ProtocolKind;
use fedveil_client_core::Policy;
use fedveil_learning::ModelSpec;
use fedveil_proto_plan::{
    Aggregation, Cohort, Mode, Model, PlanError, Privacy, Server, TaskPlan, Terms, Training, VERSION,
};
use fedveil_provenance::{Digest, NO_NOISE};

use super::sections::{ALL, FELLOWS, PARTITION, SAMPLE};
use super::{AggregationSection, ScenarioError, Spec};
use crate::algorithm::{Refused, Runner};
use crate::federation::{Attendance, ConditionError, Hierarchy, Keep, Setup};

/// Name of the protocol that is the cheaper one.
const AUTO: &str = "auto";
/// Noise multipliers that a plan may have, from the least to the most.
const NOISE: [f64; 10] = [1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6];

/// What a scenario means, before any data is read.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan of the clients' rounds.
    pub plan: TaskPlan,
    /// In a hierarchy, the plan of the rounds in which regions are the clients.
    pub cloud: Option<TaskPlan>,
    /// What it means.
    pub terms: Terms,
    /// The model.
    pub model: ModelSpec,
    /// The algorithm, bound to it.
    pub runner: Runner,
}

impl Spec {
    /// Clients of a full round.
    pub fn cohort(&self) -> u32 {
        self.population.cohort.unwrap_or(self.population.clients)
    }

    /// The plan that the scenario asks for, checked.
    pub fn plan(&self) -> Result<Planned, ScenarioError> {
        self.check_ranges()?;
        let architecture = &self.model.architecture;
        let model: ModelSpec = architecture
            .parse()
            .map_err(|error| ScenarioError::key("model.architecture", format!("{architecture:?}"), error))?;
        let mut plan = self.unsized_plan(&model)?;
        self.sized(&mut plan)?;
        let runner = Runner::new(&self.algorithm.choice(), model.clone(), self.population.clients, &mut plan)
            .map_err(refused)?;
        let parameters = model.parameters();
        if plan.model.parameters as usize != parameters {
            if self.attackers.clients > 0 {
                let accepted = format!(
                    "0 with algorithm.name = {:?}: its clients send more than an update, and no attack here forges that",
                    self.algorithm.name
                );
                return Err(ScenarioError::key("attackers.clients", self.attackers.clients, accepted));
            }
            self.sized(&mut plan)?;
        }
        let terms = plan.check().map_err(in_scenario)?;
        if terms.affordable_rounds == 0 {
            let cost = terms.guarantee.epsilon(1);
            return Err(ScenarioError::key(
                "privacy.epsilon",
                plan.privacy.epsilon,
                format!("at least {cost:.3}, what one round costs"),
            ));
        }
        let cloud = self.hierarchy.as_ref().map(|hierarchy| self.cloud(hierarchy, &plan)).transpose()?;
        Ok(Planned { plan, cloud, terms, model, runner })
    }

    /// The plan of the cloud, which sees what regions release and adds it up in the clear.
    fn cloud(&self, hierarchy: &Hierarchy, region: &TaskPlan) -> Result<TaskPlan, ScenarioError> {
        let regions = hierarchy.regions;
        let cloud = TaskPlan {
            id: Digest::of([&b"cloud "[..], &region.id.0].concat()),
            mode: Mode::InsecurePlain.name().to_owned(),
            rounds: self.rounds,
            cohort: Cohort {
                clients: regions,
                minimum: (regions / 2).max(2),
                assumed_malicious: 0,
                population: None,
            },
            privacy: Privacy { delta: region.privacy.delta, ..Privacy::none(f64::INFINITY) },
            aggregation: Aggregation::none(),
            server: Server { learning_rate: 1.0, momentum: 0.0, ..Server::mean() },
            ..region.clone()
        };
        if !(2..=self.population.clients).contains(&regions) {
            let accepted = format!("2 to population.clients ({})", self.population.clients);
            return Err(ScenarioError::key("hierarchy.regions", regions, accepted));
        }
        if self.attackers.clients > 0 {
            let accepted = "0 in a hierarchy: attackers meet in one federation";
            return Err(ScenarioError::key("attackers.clients", self.attackers.clients, accepted));
        }
        cloud.check().map_err(in_scenario)?;
        Ok(cloud)
    }

    /// Sizes the plan's noise.
    fn sized(&self, plan: &mut TaskPlan) -> Result<(), ScenarioError> {
        match self.privacy.noise_multiplier {
            Some(noise) if self.has_no_noise() => {
                let accepted = "nothing: privacy.epsilon is infinite, or privacy.placement says so";
                Err(ScenarioError::key("privacy.noise_multiplier", noise, accepted))
            }
            None if self.has_no_noise() => Ok(()),
            Some(noise) => {
                plan.privacy.noise_multiplier = noise;
                Ok(())
            }
            None => self.size_noise(plan),
        }
    }

    /// Who connects for a round: everyone where coins are tossed for each client, as many as asked for otherwise.
    fn check_in(&self) -> u32 {
        let clients = self.population.clients;
        let coins = self.tosses_coins();
        self.population.check_in.unwrap_or_else(|| if coins { clients } else { self.cohort() })
    }

    /// The federation of the cloud, where there is one.
    pub fn cloud_setup(&self, planned: &Planned, threads: NonZeroUsize) -> Option<Setup> {
        let plan = planned.cloud.clone()?;
        let regions = plan.cohort.clients as usize;
        let attendance = Attendance::CheckIn { clients: regions };
        Some(Setup { plan, clients: regions, attendance, server_step: None, ..self.setup(planned, threads) })
    }

    /// The federation that runs the plan, on so many threads; in a hierarchy, that of every region. Its clients allow whatever
    /// the scenario asks for.
    pub fn setup(&self, planned: &Planned, threads: NonZeroUsize) -> Setup {
        let policy = Policy {
            max_epsilon: f64::INFINITY,
            max_delta: 1.0,
            max_total_epsilon: f64::INFINITY,
            max_break_probability: 1.0,
            min_survivors: 2,
            min_colluders_to_break: 1,
            allow_insecure_plain: true,
            allow_insecure_no_noise: true,
            allow_insecure_simulated: true,
            ..Policy::default()
        };
        Setup {
            threads,
            attendance: planned
                .runner
                .attendance()
                .unwrap_or(Attendance::CheckIn { clients: self.check_in() as usize }),
            keep: Keep::Nothing,
            server_step: planned.runner.server(&planned.terms),
            influence: self.robustness.influence,
            ..Setup::new(planned.plan.clone(), self.population.clients as usize, policy, self.seed)
        }
    }

    /// Whether each client's part in a round is decided by a coin, which amplifies privacy. There is none without noise.
    fn tosses_coins(&self) -> bool {
        self.population.sampling == "poisson" && !self.has_no_noise()
    }

    /// Whether nobody adds noise.
    fn has_no_noise(&self) -> bool {
        self.privacy.placement == NO_NOISE || self.privacy.epsilon == f64::INFINITY
    }

    fn check_ranges(&self) -> Result<(), ScenarioError> {
        let population = self.population.clients;
        let cohort = self.cohort();
        if !(1..=population).contains(&cohort) {
            return Err(ScenarioError::key(
                "population.cohort",
                cohort,
                format!("1 to population.clients ({population})"),
            ));
        }
        if !["fixed", "poisson"].contains(&self.population.sampling.as_str()) {
            let found = format!("{:?}", self.population.sampling);
            return Err(ScenarioError::key("population.sampling", found, "fixed or poisson"));
        }
        let is_plain = self.aggregation.mode == Mode::InsecurePlain.name();
        for (key, found, accepted) in [
            ("attackers.knowledge", &self.attackers.knowledge, [FELLOWS, ALL]),
            ("attackers.data", &self.attackers.data, [PARTITION, SAMPLE]),
        ] {
            if !accepted.contains(&found.as_str()) {
                return Err(ScenarioError::key(key, format!("{found:?}"), accepted.join(" or ")));
            }
        }
        if self.attackers.knowledge == ALL && !is_plain {
            let accepted = "fellows in modes with groups, where nobody sees what an honest client sends";
            return Err(ScenarioError::key("attackers.knowledge", ALL, accepted));
        }
        if !self.robustness.influence && !is_plain {
            let accepted =
                "true in modes with groups, whose rounds can be replayed with all that was said of them";
            return Err(ScenarioError::key("robustness.influence", false, accepted));
        }
        if self.attackers.clients >= population {
            let accepted = format!("0 to {}, so that one client is honest", population.saturating_sub(1));
            return Err(ScenarioError::key("attackers.clients", self.attackers.clients, accepted));
        }
        self.conditions().check().map_err(|ConditionError { key, found, accepted }| ScenarioError::Key {
            key,
            found,
            accepted: accepted.to_owned(),
        })?;
        if let Some(check_in) = self.population.check_in
            && !(cohort..=population).contains(&check_in)
        {
            let accepted = format!("the cohort ({cohort}) to population.clients ({population})");
            return Err(ScenarioError::key("population.check_in", check_in, accepted));
        }
        if self.evaluation.every == 0 {
            return Err(ScenarioError::key("evaluation.every", 0, "a whole number from 1 up"));
        }
        if self.evaluation.clients > population {
            return Err(ScenarioError::key(
                "evaluation.clients",
                self.evaluation.clients,
                format!("0 to population.clients ({population})"),
            ));
        }
        Ok(())
    }

    /// The plan without its noise.
    fn unsized_plan(&self, model: &ModelSpec) -> Result<TaskPlan, ScenarioError> {
        let parameters = u32::try_from(model.parameters()).unwrap_or(u32::MAX);
        let is_plain = self.aggregation.mode == Mode::InsecurePlain.name();
        let cohort = self.cohort();
        let server = self.server();
        let (aggregation, minimum) = if is_plain {
            (Aggregation::none(), self.population.minimum.unwrap_or((cohort / 2).max(2)))
        } else {
            let missing = self.max_missing_reveals(&server)?;
            let fewest = rows_needed(&server)? * self.aggregation.group_size + missing;
            let uneven = (1..cohort).rev().find(|&clients| self.is_uneven(clients));
            let behind = uneven.map_or(0, |clients| clients + 1 + missing);
            let minimum = fewest.max(cohort * 9 / 10).max(behind).min(cohort);
            let minimum = self.population.minimum.unwrap_or(minimum);
            (self.groups(parameters, missing, minimum), minimum)
        };
        let privacy = &self.privacy;
        Ok(TaskPlan {
            version: VERSION,
            task: self.name.clone(),
            // One scenario, one task: whoever runs it again gets the same signatures.
            id: self.digest(),
            mode: self.aggregation.mode.clone(),
            // A client's guarantee is of all rounds that its region ever runs.
            rounds: self
                .rounds
                .saturating_mul(self.hierarchy.as_ref().map_or(1, |hierarchy| hierarchy.rounds)),
            phase_seconds: self.phase_seconds,
            model: Model { architecture: model.to_string(), parameters },
            cohort: Cohort {
                clients: cohort,
                minimum,
                assumed_malicious: self.population.assumed_malicious,
                population: self.tosses_coins().then_some(self.population.clients),
            },
            training: Training {
                epochs: self.training.epochs,
                batch_size: self.training.batch_size,
                learning_rate: self.training.learning_rate,
                momentum: self.training.momentum,
                proximal: None,
                planned_steps: None,
                example_privacy: None,
            },
            privacy: if self.has_no_noise() {
                Privacy { delta: privacy.delta, ..Privacy::none(privacy.clip_norm) }
            } else {
                Privacy {
                    placement: privacy.placement.clone(),
                    mechanism: privacy.mechanism.clone(),
                    clip_norm: privacy.clip_norm,
                    noise_multiplier: 1.0,
                    resolution: privacy.resolution,
                    epsilon: privacy.epsilon,
                    delta: privacy.delta,
                    adaptive_clip: privacy.adaptive_clip.clone(),
                    correlated_noise: privacy.correlated_noise.clone(),
                }
            },
            aggregation,
            server,
            simulated: true,
        })
    }

    fn server(&self) -> Server {
        Server {
            rule: self.robustness.rule.clone(),
            pre: self.robustness.pre.clone(),
            options: self.robustness.options.clone(),
            assumed_byzantine: self.robustness.assumed_byzantine,
            // FedAvg; other algorithms write their own.
            learning_rate: 1.0,
            momentum: 0.0,
            gate: None,
            optimizer: None,
        }
    }

    fn max_missing_reveals(&self, server: &Server) -> Result<u32, ScenarioError> {
        let (cohort, size) = (self.cohort(), self.aggregation.group_size);
        if !(3..=cohort).contains(&size) {
            return Err(ScenarioError::key(
                "aggregation.group_size",
                size,
                format!("3 to the cohort, {cohort}"),
            ));
        }
        let spare = cohort.saturating_sub(rows_needed(server)? * size);
        let most = spare.min(2).min(cohort / 20);
        let even = (0..=most).take_while(|missing| !self.is_uneven(cohort - missing)).last();
        Ok(self.aggregation.max_missing_reveals.unwrap_or(even.unwrap_or(0)))
    }

    /// Clients whose input must be in a group's sum: as many as leave room for one drop-out in six.
    fn min_survivors(&self) -> u32 {
        let AggregationSection { group_size, min_survivors, .. } = self.aggregation;
        min_survivors.unwrap_or_else(|| group_size - (group_size / 6).max(1)).max(3)
    }

    /// The largest group that so many clients make.
    fn largest_group(&self, clients: u32) -> u32 {
        clients.div_ceil((clients / self.aggregation.group_size).max(1))
    }

    /// Whether so many clients make a group so large that more than half of it is more than survive in the smallest.
    fn is_uneven(&self, clients: u32) -> bool {
        (self.largest_group(clients) - 1) / 2 + 1 >= self.min_survivors()
    }

    /// Secure aggregation, with what is left open sized for groups of the smallest size, and a threshold of two thirds, but
    /// more than half of the largest group, or two sets of helpers could be told different things.
    fn groups(&self, parameters: u32, max_missing_reveals: u32, minimum: u32) -> Aggregation {
        let section = &self.aggregation;
        let (size, min_survivors) = (section.group_size, self.min_survivors());
        // No group reaches twice the smallest size, so that by default every group is a complete graph.
        let degree = section.degree.unwrap_or(2 * size);
        let fewest = minimum.saturating_sub(max_missing_reveals).max(1);
        let largest = (fewest..=self.cohort()).map(|clients| self.largest_group(clients)).max();
        let half = (largest.unwrap_or(size) - 1) / 2 + 1;
        let threshold = (2 * size / 3 + 1).max(half).min(min_survivors - 1);
        let protocol = if section.protocol == AUTO {
            let neighbours = degree.min(size - 1);
            ProtocolKind::cheapest(parameters as usize, neighbours as usize).name().to_owned()
        } else {
            section.protocol.clone()
        };
        Aggregation {
            protocol,
            group_size: size,
            degree,
            threshold: section.threshold.unwrap_or(threshold),
            min_survivors,
            max_missing_reveals,
            masks: section.masks.clone(),
            break_probability: section.break_probability,
        }
    }

    /// The least noise, to three digits, with which all rounds together cost no more than the budget.
    fn size_noise(&self, plan: &mut TaskPlan) -> Result<(), ScenarioError> {
        let mut fits = |noise: f64| -> Result<bool, PlanError> {
            plan.privacy.noise_multiplier = noise;
            Ok(plan.check()?.affordable_rounds >= plan.rounds)
        };
        // A plan bounds its noise from both sides, by its resolution; what it refuses below is too little here too.
        fits(1.0)
            .or_else(|error| NOISE.iter().find_map(|&noise| fits(noise).ok()).ok_or(error))
            .map_err(in_scenario)?;
        let Some(first) = NOISE.iter().position(|&noise| fits(noise).unwrap_or(false)) else {
            let accepted = "an epsilon that some noise reaches, or privacy.noise_multiplier beside it";
            return Err(ScenarioError::key("privacy.epsilon", self.privacy.epsilon, accepted));
        };
        let (mut low, mut high) = (NOISE[first.saturating_sub(1)], NOISE[first]);
        while high / low > 1.0005 {
            let middle = (low * high).sqrt();
            if fits(middle).unwrap_or(false) { high = middle } else { low = middle }
        }
        let unit = 10_f64.powf(high.log10().floor() - 2.0);
        plan.privacy.noise_multiplier = (high / unit).ceil() * unit;
        Ok(())
    }

    /// Names the scenario: the digest of all its values.
    pub fn digest(&self) -> Digest {
        let mut bytes = b"fedveil/scenario/v1\n".to_vec();
        bytes.extend(format!("{self:?}").into_bytes());
        Digest::of(bytes)
    }
}

/// Rows without which the rule does not bear what it is set to bear.
fn rows_needed(server: &Server) -> Result<u32, ScenarioError> {
    let options: Vec<(&str, String)> =
        server.options.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let pre: Vec<&str> = server.pre.iter().map(String::as_str).collect();
    let rule = Rule::new(&server.rule, &pre, &options)
        .map_err(|error| ScenarioError::Inconsistent(format!("robustness.rule: {error}")))?;
    Ok(rule.minimum_rows(server.assumed_byzantine as usize) as u32)
}

fn refused(error: Refused) -> ScenarioError {
    match error {
        Refused::Plan(error) => in_scenario(error),
        other => ScenarioError::section("algorithm", other),
    }
}

/// A plan's refusal in the words of a scenario.
fn in_scenario(error: PlanError) -> ScenarioError {
    match error {
        PlanError::Field { field, found, accepted } => {
            ScenarioError::Key { key: scenario_key(field), found, accepted }
        }
        other => ScenarioError::Inconsistent(other.to_string()),
    }
}

fn scenario_key(field: &'static str) -> &'static str {
    match field {
        "task" => "name",
        "mode" => "aggregation.mode",
        "model.parameters" => "model.architecture",
        "cohort.clients" => "population.cohort",
        "cohort.minimum" => "population.minimum",
        "cohort.assumed_malicious" => "population.assumed_malicious",
        "cohort.population" => "population.sampling",
        "server.rule" => "robustness.rule",
        "server.pre" => "robustness.pre",
        "server.options" => "robustness.options",
        "server.assumed_byzantine" => "robustness.assumed_byzantine",
        "server.learning_rate" | "server.momentum" | "server.optimizer" => "algorithm.options",
        same => same,
    }
}
