//! The choice of a group size: what groups bear of attackers and drop-outs, and what they cost in noise.
//!
//! In secure aggregation the rows of a rule are means of groups. A group that holds an attacker is poisoned, so small
//! groups bear more attackers; but every group's sum carries the whole noise, so few large groups are less noisy. Let N
//! clients, A of them malicious, be split at random into G groups whose sizes differ by at most one.
//!
//! **How many groups are poisoned.** Seat the attackers one after the other. With k groups poisoned and a attackers
//! seated, N − a seats are free, and U(k) of these are in groups that are not poisoned, which all of their seats are:
//! the next one poisons another group with probability U(k) / (N − a). For equal groups U(k) = (G − k) N / G, and what
//! follows is the exact distribution. Otherwise U(k) is taken as the seats of the G − k largest groups, which makes the
//! number of poisoned groups larger in distribution: a bound.
//!
//! **How many groups are left.** A group whose sum holds fewer than m inputs is withheld. In the worst case the
//! drop-outs are where they cost the most groups, L − m + 1 of them for each group of L.
//!
//! **What the noise comes to.** A group's sum has noise of deviation z clip norms, its mean z / (N / G), and the mean of
//! K such means that a rule keeps, z G / (N √K). One group of all would have z / N: √G times less when all are kept.
//!
//! The chance is that of one round, of groups that nobody chooses. Attackers who know one another gain nothing by it.

use super::{Bound, RULES};
use crate::secagg::parameters::{Population, ServerModel};

/// Clients, and who among them is not to be relied on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Situation {
    /// N: clients in a round.
    pub clients: usize,
    /// A: how many of them send what they like.
    pub malicious: usize,
    /// How many of them drop out of a round.
    pub dropouts: usize,
    /// Accepted probability that in one round more groups are poisoned than the rule is set to bear.
    pub accepted: f64,
}

/// Why there is nothing to choose from.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SituationError {
    /// Too few or too many.
    #[error("clients is {0}, accepted are {MIN_GROUP} to {MAX_CLIENTS}")]
    Clients(usize),
    /// More than there are.
    #[error("{field} is {found} clients, accepted are 0 to {most}")]
    Count {
        /// `malicious` or `dropouts`
        field: &'static str,
        /// As given.
        found: usize,
        /// All clients but one.
        most: usize,
    },
    /// No probability.
    #[error("the accepted chance is {0}, accepted are 0 to below 1")]
    Chance(f64),
}

/// A group size, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Members of the smallest group.
    pub group_size: usize,
    /// Members of the largest.
    pub largest_group: usize,
    /// G: groups of a full cohort.
    pub groups: usize,
    /// m: members whose input must be in a group's sum: five of six.
    pub min_survivors: usize,
    /// Groups that have a sum when the drop-outs fall as unluckily as they can.
    pub left: usize,
    /// f to set: the fewest poisoned groups that no more than the accepted chance exceeds.
    pub byzantine: usize,
    /// Bound on the probability that more groups than these are poisoned; exact for groups of equal size.
    pub chance: f64,
    /// What rules of each bound bear, the weakest bound first.
    pub tolerances: Vec<Tolerance>,
    /// Deviation of the mean of the `left − byzantine` groups that a selecting rule keeps, against one group of all.
    pub relative_noise: f64,
    /// Shamir threshold in a group whose members all mask with one another: two thirds of it.
    pub threshold: usize,
    /// Colluders in one group that expose a member to a malicious coordinator.
    pub colluders_to_break: usize,
    /// Base-2 logarithm of a bound on the probability that in one round some group holds as many of the malicious.
    pub break_probability_log2: f64,
}

/// What rules that want so many rows bear of so many groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Rows that the rules want.
    pub bound: Bound,
    /// The most poisoned groups among those left, so also the most attackers that are borne wherever they are.
    pub most: Option<usize>,
    /// The most attackers that with the accepted chance poison more groups.
    pub attackers: usize,
}

/// Members of the smallest group: one may be missing, and three survivors must be left.
const MIN_GROUP: usize = 4;
/// Most clients.
const MAX_CLIENTS: usize = 20_000;

/// Rows that rules want of group means, fewest first, with the names of the rules that want as many. The mean is not
/// among them, which bears nothing.
pub fn bounds() -> Vec<(Bound, Vec<&'static str>)> {
    let mut bounds: Vec<(Bound, Vec<_>)> = Vec::new();
    for rule in RULES.iter().filter(|rule| rule.takes_group_means()) {
        let Some(bound) = rule.bound().filter(|bound| bound.per_byzantine > 0) else { continue };
        match bounds.iter_mut().find(|(other, _)| *other == bound) {
            Some((_, names)) => names.push(rule.about.name),
            None => bounds.push((bound, vec![rule.about.name])),
        }
    }
    bounds.sort_by_key(|(bound, _)| (bound.per_byzantine, bound.more));
    bounds
}

/// Every number of groups for which some rule bears the attackers, the largest groups first. Of the group sizes that
/// make as many groups it is the largest.
pub fn choices(situation: &Situation) -> Result<Vec<Choice>, SituationError> {
    let Situation { clients, malicious, dropouts, accepted } = *situation;
    if !(MIN_GROUP..=MAX_CLIENTS).contains(&clients) {
        return Err(SituationError::Clients(clients));
    }
    for (field, found) in [("malicious", malicious), ("dropouts", dropouts)] {
        if found >= clients {
            return Err(SituationError::Count { field, found, most: clients - 1 });
        }
    }
    if !(0.0..1.0).contains(&accepted) {
        return Err(SituationError::Chance(accepted));
    }
    let bounds: Vec<Bound> = bounds().into_iter().map(|(bound, _)| bound).collect();
    let mut found: Vec<Choice> = Vec::new();
    for group_size in (MIN_GROUP..=clients).rev() {
        let groups = clients / group_size;
        if found.last().is_none_or(|last| last.groups != groups)
            && let Some(choice) = choice(situation, group_size, &bounds)
        {
            found.push(choice);
        }
    }
    Ok(found)
}

/// Bound on the probability that `malicious` of `clients` are in more than `most` of `groups` random groups; exact if
/// `groups` divides `clients`.
pub fn chance_of_more(clients: usize, groups: usize, malicious: usize, most: usize) -> f64 {
    let mut seating = Seating::new(clients, groups, most);
    for _ in 0..malicious.min(clients) {
        seating.seat();
    }
    seating.more
}

/// The most malicious clients that poison more than `most` groups with no more than the accepted chance.
pub fn most_attackers(clients: usize, groups: usize, most: usize, accepted: f64) -> usize {
    let mut seating = Seating::new(clients, groups, most);
    while seating.seated < clients {
        seating.seat();
        if seating.more > accepted {
            return seating.seated - 1;
        }
    }
    clients
}

fn choice(situation: &Situation, group_size: usize, bounds: &[Bound]) -> Option<Choice> {
    let &Situation { clients, malicious, dropouts, accepted } = situation;
    let groups = clients / group_size;
    let largest_group = clients.div_ceil(groups);
    let min_survivors = group_size - (group_size / 6).max(1);
    let left = groups - groups.min(dropouts / (group_size - min_survivors + 1));
    let most = |bound: &Bound| Some(left.checked_sub(bound.more)? / bound.per_byzantine);
    let strongest = bounds.iter().filter_map(most).max()?;
    if chance_of_more(clients, groups, malicious, strongest) > accepted {
        return None;
    }
    // More groups are less likely, so that the first that is likely enough is found by halves.
    let candidates: Vec<usize> = (0..=strongest).collect();
    let too_likely = |&f: &usize| chance_of_more(clients, groups, malicious, f) > accepted;
    let byzantine = candidates.partition_point(too_likely);
    let tolerances = bounds
        .iter()
        .map(|bound| {
            let most = most(bound);
            let attackers = most.map_or(0, |most| most_attackers(clients, groups, most, accepted));
            Tolerance { bound: *bound, most, attackers }
        })
        .collect();
    let threshold = (2 * group_size / 3 + 1).min(min_survivors - 1).max(2);
    let population = Population {
        clients,
        colluders: malicious,
        dropouts,
        group_size,
        server: ServerModel::Malicious,
        rounds: 1,
        withheld_reveals: 0,
    };
    let neighbours = largest_group - 1;
    let colluders_to_break = population.colluders_to_break(neighbours, threshold);
    // A coordinator alone would break it, and no plan may say so.
    if colluders_to_break == 0 {
        return None;
    }
    let kept = (left - byzantine) as f64;
    Some(Choice {
        group_size,
        largest_group,
        groups,
        min_survivors,
        left,
        byzantine,
        chance: chance_of_more(clients, groups, malicious, byzantine),
        tolerances,
        relative_noise: clients as f64 / (group_size as f64 * kept.sqrt()),
        threshold,
        colluders_to_break,
        break_probability_log2: population.break_probability_log2(neighbours, threshold),
    })
}

/// Attackers that take random seats in groups, one after the other.
struct Seating {
    clients: usize,
    groups: usize,
    seated: usize,
    /// Probability of each number of poisoned groups up to a most.
    poisoned: Vec<f64>,
    /// Probability of more.
    more: f64,
}

impl Seating {
    fn new(clients: usize, groups: usize, most: usize) -> Self {
        let mut poisoned = vec![0.0; most.min(groups) + 1];
        poisoned[0] = 1.0;
        Self { clients, groups, seated: 0, poisoned, more: 0.0 }
    }

    fn seat(&mut self) {
        let free = (self.clients - self.seated) as f64;
        let mut moved = 0.0;
        // More attackers than `seated` groups cannot be poisoned.
        for (k, probability) in self.poisoned.iter_mut().enumerate().take(self.seated + 2) {
            let clean = self.groups - k;
            let seats = clean * (self.clients / self.groups) + clean.min(self.clients % self.groups);
            let moving = *probability * (seats as f64 / free).min(1.0);
            *probability += moved - moving;
            moved = moving;
        }
        if self.seated + 2 > self.poisoned.len() {
            self.more += moved;
        }
        self.seated += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robust::sampling::draw;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn situation(clients: usize, malicious: usize, dropouts: usize) -> Situation {
        Situation { clients, malicious, dropouts, accepted: 1e-3 }
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12, "found {found}, expected {expected}");
    }

    #[test]
    fn chances_by_hand() {
        // Two pairs: of the six ways to choose two of four, two take a pair.
        assert_close(chance_of_more(4, 2, 2, 1), 4.0 / 6.0);
        // Three groups of two, three attackers: of C(6, 3) = 20 ways, 2³ = 8 hit every group, and none only one.
        assert_close(chance_of_more(6, 3, 3, 2), 8.0 / 20.0);
        assert_close(chance_of_more(6, 3, 3, 1), 1.0);
        // Groups of three and two hold both attackers in 3 + 1 of 10 ways; the bound takes the larger for the clean one.
        assert_close(chance_of_more(5, 2, 2, 1), 3.0 / 4.0);
        // No more groups are poisoned than there are attackers, or groups.
        assert_eq!(chance_of_more(200, 11, 4, 4), 0.0);
        assert_eq!(chance_of_more(200, 11, 50, 11), 0.0);
        assert_eq!(chance_of_more(200, 11, 0, 0), 0.0);
        // Four attackers in four of eleven groups, two of 19 clients and nine of 18: l of the larger groups and 4 − l of
        // the smaller, a seat in each, of C(200, 4) ways.
        let products = 126.0 * 18_f64.powi(4)
            + 2.0 * 84.0 * 19.0 * 18_f64.powi(3)
            + 36.0 * 19_f64.powi(2) * 18_f64.powi(2);
        let exact = products / 64_684_950.0;
        let bound = chance_of_more(200, 11, 4, 3);
        assert!(bound >= exact && bound < exact * 1.02, "{bound} for {exact}");
    }

    /// Probabilities of all numbers add up, and more attackers poison more.
    #[test]
    fn chances_are_probabilities() {
        for (clients, groups) in [(20, 5), (23, 5), (100, 33), (7, 7)] {
            for most in 0..groups {
                let mut seating = Seating::new(clients, groups, most);
                let mut last = 0.0;
                for _ in 0..clients {
                    seating.seat();
                    assert_close(seating.poisoned.iter().sum::<f64>() + seating.more, 1.0);
                    assert!(seating.more >= last - 1e-15);
                    last = seating.more;
                }
                assert_close(last, 1.0);
            }
        }
    }

    #[test]
    fn chances_agree_with_random_groups() {
        let mut rng = ChaCha20Rng::seed_from_u64(11);
        for (clients, groups, malicious, most) in
            [(60, 6, 5, 3), (60, 12, 9, 6), (61, 7, 6, 4), (200, 11, 8, 5)]
        {
            // Clients in random order fill the groups; the first ones are malicious.
            let runs = 40_000;
            let mut more = 0;
            for _ in 0..runs {
                let mut poisoned = vec![false; groups];
                for seat in draw(clients, malicious, &mut rng) {
                    // Seats of the larger groups come first.
                    let (size, larger) = (clients / groups, clients % groups);
                    let in_larger = larger * (size + 1);
                    let group =
                        if seat < in_larger { seat / (size + 1) } else { larger + (seat - in_larger) / size };
                    poisoned[group] = true;
                }
                more += u32::from(poisoned.iter().filter(|poisoned| **poisoned).count() > most);
            }
            let (found, bound) =
                (f64::from(more) / f64::from(runs), chance_of_more(clients, groups, malicious, most));
            let deviation = (bound * (1.0 - bound) / f64::from(runs)).sqrt();
            assert!(found <= bound + 4.0 * deviation, "{found} exceeds the bound {bound}");
            let slack = if clients % groups == 0 { 0.0 } else { 0.05 };
            assert!(found >= bound - 4.0 * deviation - slack, "{found} is far below {bound}");
        }
    }

    /// What the demo's defaults are made of: 200 clients, 4 attackers, 5 % drop out.
    #[test]
    fn the_largest_groups_that_bear_the_attackers_by_hand() {
        let choices = choices(&situation(200, 4, 10)).unwrap();
        let first = &choices[0];
        // Groups of 18 and 19 bear 3 losses each: ten drop-outs take two of eleven, and nine groups bear four.
        assert_eq!(
            (first.group_size, first.largest_group, first.groups, first.min_survivors, first.left),
            (18, 19, 11, 15, 9)
        );
        assert_eq!((first.byzantine, first.chance), (4, 0.0));
        let most: Vec<_> =
            first.tolerances.iter().map(|tolerance| (tolerance.bound.to_string(), tolerance.most)).collect();
        assert_eq!(
            most,
            [("2f + 1".to_owned(), Some(4)), ("2f + 3".to_owned(), Some(3)), ("4f + 3".to_owned(), Some(1))]
        );
        // Four attackers are borne wherever they are; a fifth shares a group too seldom.
        assert_eq!(first.tolerances[0].attackers, 4);
        assert_close(first.relative_noise, 200.0 / 18.0 / 5f64.sqrt());
        // 2 · 13 − 18 neighbours.
        assert_eq!((first.threshold, first.colluders_to_break), (13, 8));
        assert!(choices.windows(2).all(|pair| pair[0].groups < pair[1].groups));
        assert!(choices.windows(2).all(|pair| pair[0].group_size > pair[1].group_size));
    }

    #[test]
    fn many_attackers_share_groups() {
        // Sixty attackers among 1000 clients are hardly ever in sixty of 111 groups, so that fewer need be borne.
        let choices = choices(&Situation { accepted: 0.01, ..situation(1000, 60, 0) }).unwrap();
        let choice = choices.iter().find(|choice| choice.groups == 111).unwrap();
        assert!(choice.byzantine < 60, "{choice:?}");
        assert!(choice.chance <= 0.01 && chance_of_more(1000, 111, 60, choice.byzantine - 1) > 0.01);
        assert!(choice.tolerances[0].attackers >= 60);
        assert!(chance_of_more(1000, 111, choice.tolerances[0].attackers, 55) <= 0.01);
        assert!(chance_of_more(1000, 111, choice.tolerances[0].attackers + 1, 55) > 0.01);
    }

    #[test]
    fn what_no_rule_bears_is_no_choice() {
        assert_eq!(choices(&situation(30, 15, 0)).unwrap(), []);
        // Nobody to bear, and one group of all.
        let alone = choices(&situation(30, 0, 0)).unwrap();
        assert_eq!((alone[0].groups, alone[0].byzantine), (1, 0));
        assert_close(alone[0].relative_noise, 1.0);
    }

    #[test]
    fn situations_that_are_none_are_refused() {
        for (given, expected) in [
            (situation(3, 0, 0), "clients is 3, accepted are 4 to 20000"),
            (situation(10, 10, 0), "malicious is 10 clients, accepted are 0 to 9"),
            (situation(10, 0, 11), "dropouts is 11 clients, accepted are 0 to 9"),
            (
                Situation { accepted: 1.0, ..situation(10, 0, 0) },
                "the accepted chance is 1, accepted are 0 to below 1",
            ),
        ] {
            assert_eq!(choices(&given).unwrap_err().to_string(), expected);
        }
        assert!(choices(&Situation { accepted: f64::NAN, ..situation(10, 0, 0) }).is_err());
    }
}
