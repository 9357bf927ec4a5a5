//! Degree and threshold of the masking graph, and what they leave to chance.
//!
//! Each client masks with k neighbours on a ring of random order (a Harary graph, or the complete graph of a small
//! group) and shares its secrets among them with threshold t. [`find`] gives the smallest k, and for it the smallest
//! t, that keep three chances small; [`Population`] judges a k and a t that someone else chose.
//!
//! Let N clients hold c colluders and d drop-outs, and let X(n, v) be the number of the n among v places drawn at
//! random out of N, a hypergeometric variable: the order is the beacon's, so that any fixed places of a ring are such
//! a draw, the k places around a client too.
//!
//! **A neighbourhood falls to m colluders.** Against a coordinator that keeps to the protocol m = t: so many shares
//! are the secret. A malicious one tells some neighbours of a client that it survived and others that it dropped out,
//! and needs t shares of each of its two secrets. An honest neighbour gives one, of one kind; a colluder both. With c'
//! colluders among k neighbours that is k − c' + 2c' ≥ 2t, hence m = 2t − k. Shares of a client are with its
//! neighbours only, so its own does not count. Over all clients P ≤ N · P[X(c, k) ≥ m]. The event is that a client is
//! honest *and* its k places hold m colluders, so that drawing from all N, itself included, bounds it. In a complete
//! graph the members of a group L share one fate: P ≤ groups · P[X(c, L) ≥ m].
//!
//! **The honest survivors fall apart.** Then parts of a group's sum come out, each over fewer than the group. It takes
//! two disjoint runs of k/2 consecutive places that nobody honest is left in. A ring of L has L(L − k − 1)/2 pairs of
//! such runs: P ≤ groups · L(L − k − 1)/2 · P[X(c + d, k) = k]. A complete graph does not fall apart.
//!
//! **A sum is not recovered.** A client's secret needs t surviving neighbours: P ≤ N · P[X(d, k) > k − t]. In a
//! complete graph of L a survivor has the survivors but itself: P ≤ groups · P[X(d, L) ≥ L − t].
//!
//! The first two make the break probability, also over the rounds of a task, and over the Σ_{i≤w} C(N, i) orders from
//! which a coordinator picks by withholding up to w reveals (whose clients are then counted as honest and gone: N − w).
//! [`find`] grants each half of 2^-security. Small groups do not get there, whatever k and t: a
//! handful of colluders lands in one group of twenty too often. There [`find`] gives what is hardest to break among
//! all that is correct, and says how hard that is.
//!
//! The second event supposes that drop-outs happen. A malicious coordinator makes them, and the threshold stops it:
//! clients answer for a set of survivors only where t neighbours signed it. At both ends of an arc that is cut off, k/2
//! of the neighbours are missing, so t − k/2 of these have to be colluders who sign nonetheless, 2t − k in the two runs
//! together. That this is so *somewhere* on a ring is likelier than that a neighbourhood falls, and what it gives away
//! is less: two sums in place of one, and while no neighbourhood falls each is over at least k − t + 2 honest clients.
//! [`Population::split_probability_log2`] states it apart from the break probability.
//!
//! Not covered: a cohort whose members the coordinator chose (fix the share of colluders accordingly), and retries of
//! a round (count them as rounds).
//!
//! For one group of all, criterion and results are those of Google's finder (google-parfait/federated-compute), made for
//! the protocol of Bell, Bonawitz, Gascón, Lepoint, Raykova: "Secure Single-Server Aggregation with (Poly)Logarithmic
//! Overhead", CCS 2020. The argument for 2t − k is that of Bonawitz et al.: "Practical Secure Aggregation for
//! Privacy-Preserving Machine Learning", CCS 2017, against active adversaries, with the neighbours in place of all.

use std::f64::consts::LN_2;
use std::iter::once;

use super::config::MAX_COHORT;
use hypergeometric::{Hypergeometric, ln_binomial};

mod hypergeometric;
#[cfg(test)]
mod tests;

/// Largest accepted [`GraphRequirements::security`] and [`GraphRequirements::correctness`].
pub const MAX_EXPONENT: u32 = 256;

/// What the coordinator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerModel {
    /// Anything, together with the malicious clients.
    Malicious,
    /// It keeps to the protocol, and pools what it sees with the malicious clients. For comparison with the literature:
    /// what is enough here may have 2t ≤ k, which no session accepts.
    SemiHonest,
}

/// What degree and threshold have to hold against.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphRequirements {
    /// Clients in a round's cohort.
    pub clients: usize,
    /// Smallest group; `None` for one group of all.
    pub group_size: Option<usize>,
    /// Largest share of the cohort that colludes, in [0, 1).
    pub malicious: f64,
    /// Largest share of the cohort that drops out of a round, in [0, 1).
    pub dropout: f64,
    /// What the coordinator may do.
    pub server: ServerModel,
    /// The break probability, over all rounds, is to be at most 2^-security.
    pub security: u32,
    /// The probability that some group's sum of a round is not recovered is at most 2^-correctness.
    pub correctness: u32,
    /// Rounds with the same colluders.
    pub rounds: u64,
    /// w: how many clients' reveals the coordinator may withhold from the beacon.
    pub withheld_reveals: usize,
}

/// A graph, and what it leaves to chance. Probabilities are base-2 logarithms of upper bounds, at most 0, and
/// −∞ for what cannot happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GraphParameters {
    /// k: neighbours of each client. One less than the largest group for a complete graph, else even.
    pub degree: usize,
    /// t: shares that recover a secret.
    pub threshold: usize,
    /// That a client is exposed, or the honest survivors of a group fall apart by chance, in any round.
    pub break_probability_log2: f64,
    /// That a group is cut in two and the sums of both parts come out, in any round.
    pub split_probability_log2: f64,
    /// That some group's sum of one round is not recovered.
    pub failure_probability_log2: f64,
    /// m: colluders in one neighbourhood that expose a client.
    pub colluders_to_break: usize,
}

/// Requirements that are none, or that nothing meets.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// Too few or too many.
    #[error("clients is {0}, accepted are 3 to {MAX_COHORT}")]
    Clients(usize),
    /// Not even the smallest group is left.
    #[error("withheld_reveals is {found}, accepted are 0 to {max}: at least 3 of the clients must be left")]
    WithheldReveals {
        /// As required.
        found: usize,
        /// clients − 3
        max: usize,
    },
    /// Nobody to hide among, or more than there are.
    #[error("group_size is {found}, accepted are 3 to {max}, the clients less withheld_reveals")]
    GroupSize {
        /// As required.
        found: usize,
        /// clients − withheld_reveals
        max: usize,
    },
    /// A share that is none.
    #[error("{field} is {found}, accepted are shares from 0 to below 1")]
    Share {
        /// `malicious` or `dropout`
        field: &'static str,
        /// As required.
        found: f64,
    },
    /// A bound that is none, or far below any failure of machines.
    #[error("{field} is {found}, accepted are 1 to {MAX_EXPONENT}")]
    Exponent {
        /// `security` or `correctness`
        field: &'static str,
        /// As required.
        found: u32,
    },
    /// Nothing to bound.
    #[error("rounds is 0, accepted are 1 and above")]
    Rounds,
    /// With drop-outs as required, a threshold that the survivors reach is one that needs no colluder to be broken.
    #[error(
        "no threshold loses fewer than one round in 2^{correctness} to drop-outs and takes a colluder to break, with \
         malicious {malicious}, dropout {dropout} and groups from {group_size} clients; a smaller dropout, a smaller \
         correctness or larger groups may have one"
    )]
    NoThreshold {
        /// As required.
        correctness: u32,
        /// As required.
        malicious: f64,
        /// As required.
        dropout: f64,
        /// Smallest group.
        group_size: usize,
    },
}

/// The smallest degree, and for it the smallest threshold, that meet the requirements; where no graph is as secure as
/// required, the correct one with the smallest bound on the break probability.
pub fn find(requirements: &GraphRequirements) -> Result<GraphParameters, ParameterError> {
    requirements.check()?;
    let population = requirements.population();
    let per_event = -f64::from(requirements.security) - 1.0;
    let correctness = -f64::from(requirements.correctness);

    let mut best: Option<(f64, GraphParameters)> = None;
    let sparse = (2..population.group_size - 1).step_by(2);
    for degree in sparse.chain(once(population.largest_group() - 1)) {
        let smallest_degree = degree.min(population.group_size - 1);
        let Some(largest) =
            last(2, smallest_degree, |t| population.failure_probability_log2(degree, t) <= correctness)
        else {
            continue;
        };
        let insecure = |t| population.exposure_log2(degree, t) > per_event;
        let smallest = last(2, largest, insecure).map_or(2, |t| t + 1);
        if smallest <= largest && population.disconnection_log2(degree) <= per_event {
            return Ok(population.parameters(degree, smallest));
        }
        let bound = population.break_bound_log2(degree, largest);
        if population.colluders_to_break(degree, largest) > 0 && best.is_none_or(|(least, _)| bound < least) {
            best = Some((bound, population.parameters(degree, largest)));
        }
    }
    best.map(|(_, parameters)| parameters).ok_or(ParameterError::NoThreshold {
        correctness: requirements.correctness,
        malicious: requirements.malicious,
        dropout: requirements.dropout,
        group_size: population.group_size,
    })
}

impl GraphRequirements {
    /// One group of all against a malicious coordinator: 2^-40 security, 2^-20 correctness, one round, every reveal
    /// there.
    pub fn new(clients: usize, malicious: f64, dropout: f64) -> Self {
        Self {
            clients,
            group_size: None,
            malicious,
            dropout,
            server: ServerModel::Malicious,
            security: 40,
            correctness: 20,
            rounds: 1,
            withheld_reveals: 0,
        }
    }

    /// The requirements as numbers of clients: shares are rounded down.
    pub fn population(&self) -> Population {
        // A share like 0.29 of 100 is a hair below 29 as a float.
        let count = |share: f64| (share * self.clients as f64 + 1e-9).floor() as usize;
        Population {
            clients: self.clients,
            colluders: count(self.malicious),
            dropouts: count(self.dropout),
            group_size: self.group_size.unwrap_or(self.clients.saturating_sub(self.withheld_reveals)),
            server: self.server,
            rounds: self.rounds,
            withheld_reveals: self.withheld_reveals,
        }
    }

    fn check(&self) -> Result<(), ParameterError> {
        if !(3..=MAX_COHORT).contains(&self.clients) {
            return Err(ParameterError::Clients(self.clients));
        }
        let max = self.clients - 3;
        if self.withheld_reveals > max {
            return Err(ParameterError::WithheldReveals { found: self.withheld_reveals, max });
        }
        let max = self.clients - self.withheld_reveals;
        if let Some(found) = self.group_size
            && !(3..=max).contains(&found)
        {
            return Err(ParameterError::GroupSize { found, max });
        }
        for (field, found) in [("malicious", self.malicious), ("dropout", self.dropout)] {
            if !(0.0..1.0).contains(&found) {
                return Err(ParameterError::Share { field, found });
            }
        }
        for (field, found) in [("security", self.security), ("correctness", self.correctness)] {
            if !(1..=MAX_EXPONENT).contains(&found) {
                return Err(ParameterError::Exponent { field, found });
            }
        }
        if self.rounds == 0 {
            return Err(ParameterError::Rounds);
        }
        Ok(())
    }
}

/// A cohort that a beacon splits into groups, and who in it is not to be relied on.
///
/// Judges any graph, also what a plan from elsewhere says: methods take every number without a panic. More colluders
/// or drop-outs than clients are all of them, a degree over what the largest group allows is the complete graph. All
/// probabilities are base-2 logarithms of upper bounds, at most 0, −∞ for what cannot happen. Rounding of the numerics
/// changes them by less than 10^-6 for cohorts up to [`MAX_COHORT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Population {
    /// N: clients in the cohort.
    pub clients: usize,
    /// c: how many of them collude.
    pub colluders: usize,
    /// d: how many of them drop out of a round.
    pub dropouts: usize,
    /// Smallest group. Of n clients ⌊n / group_size⌋ groups are made, whose sizes differ by at most one.
    pub group_size: usize,
    /// What the coordinator may do.
    pub server: ServerModel,
    /// Rounds with the same colluders.
    pub rounds: u64,
    /// w: how many clients' reveals the coordinator may withhold from the beacon.
    pub withheld_reveals: usize,
}

impl Population {
    /// Bound on the probability that, in any round, a client is exposed or the honest survivors of a group fall apart
    /// by chance.
    pub fn break_probability_log2(&self, degree: usize, threshold: usize) -> f64 {
        self.break_bound_log2(degree, threshold).min(0.0)
    }

    /// Bound on the probability that, in any round, a group is cut in two and the sums of both parts come out: by a
    /// malicious coordinator that picks who drops out, or before a semi-honest one by chance.
    pub fn split_probability_log2(&self, degree: usize, threshold: usize) -> f64 {
        let bound = match self.server {
            ServerModel::SemiHonest => self.disconnection_log2(degree),
            ServerModel::Malicious => {
                let needed = self.colluders_to_break(degree, threshold);
                self.pairs_of_runs_log2(degree)
                    + self.places(self.colluders, degree).log2_at_least(needed)
                    + self.attempts_log2()
            }
        };
        bound.min(0.0)
    }

    /// Bound on the probability that some group's sum of one round is not recovered.
    pub fn failure_probability_log2(&self, degree: usize, threshold: usize) -> f64 {
        let smallest = self.group_size.max(1);
        let mut bound = f64::NEG_INFINITY;
        if degree.saturating_add(1) >= smallest {
            let too_many = smallest.saturating_sub(threshold);
            bound = self.groups_log2() + self.places(self.dropouts, smallest).log2_at_least(too_many);
        }
        if !self.is_complete(degree) {
            let too_many = (degree + 1).saturating_sub(threshold);
            let of_sparse =
                (self.clients as f64).log2() + self.places(self.dropouts, degree).log2_at_least(too_many);
            bound = add_log2(bound, of_sparse);
        }
        bound.min(0.0)
    }

    /// m: colluders in one neighbourhood that expose a client.
    pub fn colluders_to_break(&self, degree: usize, threshold: usize) -> usize {
        match self.server {
            ServerModel::Malicious => threshold.saturating_mul(2).saturating_sub(self.neighbours(degree)),
            ServerModel::SemiHonest => threshold,
        }
    }

    /// Members of the largest group that can form, withheld reveals or not.
    pub fn largest_group(&self) -> usize {
        let size = self.group_size.max(1);
        let fewest_groups = (self.members() / size).max(1);
        let most_members = (fewest_groups * size + size - 1).min(self.clients);
        most_members.div_ceil(fewest_groups)
    }

    /// Most groups that can form.
    pub fn groups(&self) -> usize {
        (self.clients / self.group_size.max(1)).max(1)
    }

    fn parameters(&self, degree: usize, threshold: usize) -> GraphParameters {
        GraphParameters {
            degree,
            threshold,
            break_probability_log2: self.break_probability_log2(degree, threshold),
            split_probability_log2: self.split_probability_log2(degree, threshold),
            failure_probability_log2: self.failure_probability_log2(degree, threshold),
            colluders_to_break: self.colluders_to_break(degree, threshold),
        }
    }

    /// Above 0 the bound says nothing, but smaller is still better.
    fn break_bound_log2(&self, degree: usize, threshold: usize) -> f64 {
        add_log2(self.exposure_log2(degree, threshold), self.disconnection_log2(degree))
    }

    /// That a neighbourhood holds enough colluders.
    fn exposure_log2(&self, degree: usize, threshold: usize) -> f64 {
        let needed = self.colluders_to_break(degree, threshold);
        let (victims_log2, places) = if self.is_complete(degree) {
            (self.groups_log2(), self.largest_group())
        } else {
            ((self.clients as f64).log2(), degree)
        };
        victims_log2 + self.places(self.colluders, places).log2_at_least(needed) + self.attempts_log2()
    }

    /// That two runs of k/2 places hold nobody but colluders and drop-outs.
    fn disconnection_log2(&self, degree: usize) -> f64 {
        let bad = self.colluders.saturating_add(self.dropouts);
        self.pairs_of_runs_log2(degree)
            + self.places(bad, degree).log2_at_least(degree)
            + self.attempts_log2()
    }

    /// Groups · L(L − k − 1)/2, where two runs of k/2 places can be.
    fn pairs_of_runs_log2(&self, degree: usize) -> f64 {
        let group = self.largest_group();
        let between = group.saturating_sub(degree.saturating_add(1));
        self.groups_log2() + (group as f64 * between as f64 / 2.0).log2()
    }

    /// Rounds · Σ_{i≤w} C(N, i): how often the coordinator sees an order.
    fn attempts_log2(&self) -> f64 {
        let withheld = 0..=self.withheld_reveals.min(self.clients);
        let orders = withheld
            .map(|i| ln_binomial(self.clients, i) / LN_2)
            .reduce(add_log2)
            .expect("no reveal withheld is one way");
        (self.rounds.max(1) as f64).log2() + orders
    }

    fn groups_log2(&self) -> f64 {
        (self.groups() as f64).log2()
    }

    fn is_complete(&self, degree: usize) -> bool {
        degree.saturating_add(1) >= self.largest_group()
    }

    fn neighbours(&self, degree: usize) -> usize {
        degree.min(self.largest_group() - 1)
    }

    /// Clients in groups, at least.
    fn members(&self) -> usize {
        self.clients.saturating_sub(self.withheld_reveals).max(1)
    }

    /// How many of `marked` clients are in `places` fixed places.
    fn places(&self, marked: usize, places: usize) -> Hypergeometric {
        let population = self.members();
        Hypergeometric { population, marked: marked.min(population), drawn: places.min(population) }
    }
}

/// log2(2^a + 2^b)
fn add_log2(a: f64, b: f64) -> f64 {
    let (less, more) = if a < b { (a, b) } else { (b, a) };
    if less == f64::NEG_INFINITY { more } else { more + (less - more).exp2().ln_1p() / LN_2 }
}

/// The last number from `first` to `last` for which `holds`, given that it does not hold again once it does not.
fn last(first: usize, last: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (first, last + 1);
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    (low > first).then(|| low - 1)
}
