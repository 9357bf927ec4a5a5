//! Modes `secagg` and `insecure_ideal`: updates are summed in random groups, and what a malicious coordinator needs to
//! see one of them.

use fedveil_aggregation::robust::grouping::{chance_of_more, most_attackers};
use fedveil_aggregation::robust::{Rule, RuleSpec};
use fedveil_aggregation::secagg::parameters::{Population, ServerModel};
use fedveil_aggregation::secagg::{Prg, ProtocolKind};
use fedveil_privacy::Placement;
use fedveil_provenance::NO_NOISE;

use crate::error::{at_least, field};
use crate::terms::Shape;
use crate::{Aggregation, MAX_CLIENTS, Mode, PlanError, TaskPlan};

/// The probability, for one round, with which [`Terms::borne_mostly`](crate::Terms::borne_mostly) attackers may poison
/// too many groups.
pub const ACCEPTED_CHANCE: f64 = 1e-3;

impl TaskPlan {
    /// Mode `secagg`.
    pub(crate) fn in_groups(&self) -> Result<(Rule, Shape), PlanError> {
        self.check_aggregation()?;
        self.refuse_correlated_noise()?;
        if self.cohort.population.is_some() {
            return Err(PlanError::Inconsistent(
                "cohort.population amplifies privacy only where nobody is told who was drawn; in mode secagg the roster \
                 is known to all, so leave it out"
                    .to_owned(),
            ));
        }
        let rule = self.rule(RuleSpec::takes_group_means)?;
        let masks = match self.aggregation.masks.as_str() {
            "aes-256-ctr" => Prg::Aes256Ctr,
            "chacha20" => Prg::ChaCha20,
            other => return Err(field("aggregation.masks", other, "aes-256-ctr, chacha20")),
        };
        let protocol = self.aggregation.protocol.parse().map_err(|_| {
            let names = ProtocolKind::ALL.map(ProtocolKind::name);
            field("aggregation.protocol", &self.aggregation.protocol, names.join(", "))
        })?;
        let (groups, fewest_groups, largest_group) = self.group_shape()?;
        let minimum_rows = rule.minimum_rows(self.server.assumed_byzantine as usize) as u32;
        if fewest_groups < minimum_rows {
            return Err(PlanError::Inconsistent(format!(
                "server.rule {rule} bears {} poisoned groups only among {minimum_rows} or more, and \
                 cohort.minimum {} makes {fewest_groups} groups of aggregation.group_size {}",
                self.server.assumed_byzantine, self.cohort.minimum, self.aggregation.group_size
            )));
        }
        rule.check_counts(fewest_groups as usize, self.server.assumed_byzantine as usize)
            .map_err(|error| PlanError::Inconsistent(format!("server.assumed_byzantine: {error}")))?;
        if self.evaluation().is_some() && fewest_groups < self.minimum_answers() {
            return Err(PlanError::Inconsistent(format!(
                "server.gate.evaluation bears {} poisoned groups only among {} or more, and cohort.minimum {} makes \
                 {fewest_groups}",
                self.server.assumed_byzantine,
                self.minimum_answers(),
                self.cohort.minimum
            )));
        }
        let (colluders_to_break, break_probability_log2) = self.collusion(largest_group)?;
        let placement = match self.privacy.placement.as_str() {
            "distributed" => Placement::Distributed {
                // The smallest cohort bounds best how many colluders meet in a group. One that forms a single group can
                // be smaller than the largest single group; then every colluder is in it, in both.
                clients: (self.cohort.minimum - self.aggregation.max_missing_reveals).max(largest_group),
                malicious: self.cohort.assumed_malicious,
                groups,
                group_size: largest_group,
                min_survivors: self.aggregation.min_survivors,
            },
            "local" => Placement::Local { group_size: largest_group },
            NO_NOISE => {
                let accepted = "distributed, local (insecure_none wants mode insecure_plain: masks around a sum that \
                                has no noise would promise what nobody keeps)";
                return Err(field("privacy.placement", NO_NOISE, accepted));
            }
            "central" => {
                let accepted = "distributed, local (central wants mode insecure_plain: a coordinator that is not \
                                trusted with updates is not trusted with their noise)";
                return Err(field("privacy.placement", "central", accepted));
            }
            other => return Err(field("privacy.placement", other, "distributed, local")),
        };
        let shape = Shape {
            placement,
            groups,
            minimum_rows,
            largest_group,
            colluders_to_break,
            break_probability_log2,
            masking: Some((protocol, masks)),
        };
        Ok((rule, shape))
    }

    /// The most clients that with little chance poison more than `borne` rows, and a bound on the probability that the
    /// assumed malicious ones do.
    pub(crate) fn poisoned_rows(&self, mode: Mode, groups: u32, borne: u32) -> (u32, f64) {
        let malicious = self.cohort.assumed_malicious;
        match mode {
            Mode::Secagg | Mode::InsecureIdeal => {
                let [clients, groups, most] =
                    [self.cohort.clients, groups, borne].map(|count| count as usize);
                let attackers = most_attackers(clients, groups, most, ACCEPTED_CHANCE);
                (attackers as u32, chance_of_more(clients, groups, malicious as usize, most))
            }
            Mode::InsecurePlain => (borne, f64::from(u8::from(malicious > borne))),
        }
    }

    fn check_aggregation(&self) -> Result<(), PlanError> {
        at_least("aggregation.group_size", self.aggregation.group_size, 3, self.cohort.minimum)?;
        at_least("aggregation.degree", self.aggregation.degree, 2, MAX_CLIENTS)?;
        at_least(
            "aggregation.min_survivors",
            self.aggregation.min_survivors,
            3,
            self.aggregation.group_size,
        )?;
        // Among min_survivors of a complete graph, each has one neighbour fewer than that.
        let neighbours = self.aggregation.degree.min(self.aggregation.min_survivors - 1);
        at_least("aggregation.threshold", self.aggregation.threshold, 2, neighbours)?;
        if !(0.0..1.0).contains(&self.aggregation.break_probability) {
            return Err(field(
                "aggregation.break_probability",
                self.aggregation.break_probability,
                "0 or more, below 1",
            ));
        }
        at_least(
            "aggregation.max_missing_reveals",
            self.aggregation.max_missing_reveals,
            0,
            self.cohort.minimum / 10,
        )
    }

    /// Groups of a full cohort, fewest groups of any admissible one, and the largest group of any.
    fn group_shape(&self) -> Result<(u32, u32, u32), PlanError> {
        let size = self.aggregation.group_size;
        let fewest_members =
            self.cohort.minimum - self.aggregation.max_missing_reveals.min(self.cohort.minimum);
        let fewest_groups = fewest_members / size;
        if fewest_groups == 0 {
            return Err(field("aggregation.group_size", size, format!("up to {fewest_members}")));
        }
        let largest =
            (fewest_members..=self.cohort.clients).map(|n| n.div_ceil(n / size)).max().unwrap_or(size);
        Ok((self.cohort.clients / size, fewest_groups, largest))
    }

    /// Groups whose answers about a model make a median that bears the poisoned ones.
    pub fn minimum_answers(&self) -> u32 {
        self.server.assumed_byzantine.saturating_mul(2).saturating_add(1)
    }

    /// Colluders among a client's neighbours that break it, and log2 of the probability that any client has as many.
    fn collusion(&self, largest_group: u32) -> Result<(u32, f64), PlanError> {
        let Aggregation { degree, threshold, break_probability, .. } = self.aggregation;
        if degree % 2 == 1 && degree + 1 < largest_group {
            let complete = largest_group - 1;
            return Err(field(
                "aggregation.degree",
                degree,
                format!("an even number, or {complete} and above"),
            ));
        }
        let neighbours = degree.min(largest_group - 1);
        if 2 * threshold <= neighbours {
            return Err(field("aggregation.threshold", threshold, format!("more than {}", neighbours / 2)));
        }
        // Two survivor sets that differ in the victim need `threshold` answers each, and an honest neighbour answers
        // once.
        let colluders_to_break = 2 * threshold - neighbours;
        let probability_log2 = self.break_probability_log2();
        if probability_log2.exp2() > break_probability {
            return Err(PlanError::Inconsistent(format!(
                "aggregation.threshold {threshold} among {neighbours} neighbours falls to {colluders_to_break} \
                 colluders; with cohort.assumed_malicious {} that happens with probability up to {:.2e}, and \
                 aggregation.break_probability accepts {break_probability:e}",
                self.cohort.assumed_malicious,
                probability_log2.exp2()
            )));
        }
        Ok((colluders_to_break, probability_log2))
    }

    /// The worst over all admissible cohorts. Of those with equally large groups the smallest is the worst: more
    /// clients thin the colluders out faster than they add groups.
    fn break_probability_log2(&self) -> f64 {
        let Aggregation { group_size, degree, threshold, max_missing_reveals, .. } = self.aggregation;
        let (mut worst, mut largest) = (f64::NEG_INFINITY, 0);
        for clients in self.cohort.minimum..=self.cohort.clients {
            let population = Population {
                clients: clients as usize,
                colluders: self.cohort.assumed_malicious as usize,
                dropouts: 0,
                group_size: group_size as usize,
                server: ServerModel::Malicious,
                // Groups are drawn anew to evaluate a model.
                rounds: u64::from(self.rounds) * (1 + u64::from(self.evaluation().is_some())),
                withheld_reveals: max_missing_reveals as usize,
            };
            if population.largest_group() > largest {
                largest = population.largest_group();
                let (degree, threshold) = (degree as usize, threshold as usize);
                // A group that is cut in two gives two sums, and neither has the noise of the whole.
                let probability = population.break_probability_log2(degree, threshold).exp2()
                    + population.split_probability_log2(degree, threshold).exp2();
                worst = worst.max(probability.log2());
            }
        }
        worst
    }
}
