//! Who is behind the groups that look poisoned: a test over many rounds.
//!
//! Inside secure aggregation a rule scores groups, and one round says nothing of one client. But groups are drawn anew in
//! every round: a client that poisons takes the suspicion with it, and one that does not is in a suspicious group only by
//! chance. [`Decoder`] bets on each client that it goes on being in suspicious groups. Whoever wins too much against
//! chance is named.
//!
//! **What chance allows.** Take an honest client i and a round whose scored groups have N seats, at most a of them taken
//! by attackers. Seats are drawn uniformly, by a beacon that nobody can steer without the coordinator. *Hypothesis: what i
//! sends is like what other honest clients send*, so that exchanging i with another honest client would not change the
//! law of the scores. Given everything before the round, the seats of the attackers and the scores, i is therefore equally
//! likely on each of the N − a or more other seats. The m groups with the highest scores have no more seats than the m
//! largest, S(m), so that i is in one of them with probability at most
//!
//! ```text
//! P(m) = S(m) / (N − a)            whatever attackers send, as long as it does not depend on where i sits
//! P(m) = q + S(m) / (N − a)        whatever they send
//! ```
//!
//! Members learn who sits where before they send, so that attackers can frame i: be loud where i is with them and quiet
//! elsewhere. They can do so only in its group. q bounds the probability that one of them is there; where none is, its
//! group's score is that of honest clients, and the first bound holds.
//!
//! **The bet.** For each of some m and p, wealth that begins at 1 is multiplied in each round in which i has a part by
//! p / P(m) if its group is among the m most suspicious, and by (1 − p) / (1 − P(m)) if not; for P(m) ≥ p there is no bet.
//! Of groups with equal scores, each has its share of the places. For an honest client the expected factor is at most 1,
//! given the past, so that the mean wealth of all bets is a nonnegative supermartingale: it ever reaches 1/α with
//! probability at most α (Ville 1939; Howard, Ramdas, McAuliffe, Sekhon 2021). Its reciprocal at its highest is thus a
//! p-value *at any time*: it may be looked at after every round, and the task may go on for as long as it likes. Multiplied
//! by the number of clients (Bonferroni) it bounds the probability that any honest client at all is ever named. The
//! p-values depend neither on the rule nor on the law of scores, and are true for dependent clients.
//!
//! **Drop-outs.** A client has a part in a round if its input is in the sum of a scored group. Which groups have a sum and
//! who drops out is taken as given: it must not depend on which honest client sits where. Attackers break that only where
//! their own drop-out has a group withheld; then they are in no sum.
//!
//! Scores are made of noised sums that are known anyway, so that nothing here costs privacy.
//!
//! Deliberately absent: a verdict on intent (data that is very unlike all other data looks the same), attackers that
//! poison in few rounds or that do not raise their group's score, and rows that are single clients: those are not drawn,
//! and their scores are no matter of chance.

use std::collections::BTreeMap;

/// What the bets count on that a client who poisons is among the most suspicious groups: in nearly all rounds, or in most.
const SHARES: [f64; 2] = [0.95, 0.75];

/// What false alarms are counted over, and whom they are counted against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Clients of the federation. Where more turn up, they are counted in from then on.
    pub clients: usize,
    /// Accepted probability that any honest client is ever named.
    pub false_alarm: f64,
    /// a: the most attackers among them.
    pub attackers: usize,
    /// f: poisoned groups that the rule is set to bear. Bets are on the f most suspicious groups and on fewer.
    pub poisoned_groups: usize,
}

/// A design that tests nothing.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DesignError {
    /// No probability.
    #[error("the false-alarm rate is {0}, accepted is a number above 0, at most 0.5")]
    FalseAlarm(f64),
    /// Nobody is there.
    #[error("there are no clients to test")]
    NoClients,
}

/// A group of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredGroup<C> {
    /// Clients drawn into it.
    pub members: usize,
    /// Those whose input is in its sum.
    pub present: Vec<C>,
    /// The rule's score, larger is more suspicious; none for a group without a sum.
    pub score: Option<f64>,
}

/// What the rounds say about one client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Rounds in which it had a part in a scored group.
    pub rounds: u32,
    /// Rounds of these in which its group was among the f most suspicious. Equal scores share places, so that it need not
    /// be whole.
    pub suspicious: f64,
    /// How many that would be by chance.
    pub expected: f64,
    /// Bound on the probability that any honest client ever looks this suspicious, if attackers aim at nobody.
    pub p_value: f64,
    /// The same bound, if all attackers aim at one client.
    pub p_framed: f64,
}

/// The test of every client, round after round.
#[derive(Clone, Debug)]
pub struct Decoder<C> {
    design: Design,
    bets: Vec<Bet>,
    clients: BTreeMap<C, Account>,
    /// Clients that are tested again from the beginning, each of which counts as one more.
    anew: usize,
}

/// On being in one of the `most` most suspicious groups in a `share` of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bet {
    most: usize,
    share: f64,
}

#[derive(Clone, Debug)]
struct Account {
    rounds: u32,
    suspicious: f64,
    expected: f64,
    /// Against chance, and against framing.
    wealth: [Wealth; 2],
}

/// Logarithms of what the bets made.
#[derive(Clone, Debug)]
struct Wealth {
    of_bets: Vec<f64>,
    highest_mean: f64,
}

/// Probabilities P(m) of one round, against chance and against framing, for the m of each bet.
struct Chances {
    of_bets: Vec<[f64; 2]>,
    /// Of the f most suspicious groups, against chance.
    of_suspicious: f64,
}

impl<C: Ord + Clone> Decoder<C> {
    /// A decoder that has seen nothing.
    pub fn new(design: Design) -> Result<Self, DesignError> {
        let rate = design.false_alarm;
        if !(rate > 0.0 && rate <= 0.5) {
            return Err(DesignError::FalseAlarm(rate));
        }
        if design.clients == 0 {
            return Err(DesignError::NoClients);
        }
        let most = design.poisoned_groups.max(1);
        let numbers = std::iter::successors(Some(1), |m| Some(2 * m)).take_while(|&m| m < most).chain([most]);
        let bets = numbers.flat_map(|most| SHARES.map(|share| Bet { most, share })).collect();
        Ok(Self { design, bets, clients: BTreeMap::new(), anew: 0 })
    }

    /// Takes note of a round, all its groups together.
    pub fn observe(&mut self, groups: &[ScoredGroup<C>]) {
        let scored: Vec<(&ScoredGroup<C>, f64)> = groups
            .iter()
            .filter_map(|group| Some((group, group.score.filter(|score| !score.is_nan())?)))
            .collect();
        let members: Vec<usize> = scored.iter().map(|(group, _)| group.members).collect();
        let chances = self.chances(members);
        let scores: Vec<f64> = scored.iter().map(|(_, score)| *score).collect();
        let most = self.design.poisoned_groups.max(1);
        for (group, score) in scored {
            let above = scores.iter().filter(|other| **other > score).count();
            let equal = scores.iter().filter(|other| **other == score).count();
            // The part of the first m places that falls to this group.
            let part = |m: usize| (m.saturating_sub(above) as f64 / equal as f64).min(1.0);
            for client in &group.present {
                let account =
                    self.clients.entry(client.clone()).or_insert_with(|| Account::new(self.bets.len()));
                account.rounds += 1;
                account.suspicious += part(most);
                account.expected += chances.of_suspicious;
                for (against, wealth) in account.wealth.iter_mut().enumerate() {
                    for ((bet, chance), log) in
                        self.bets.iter().zip(&chances.of_bets).zip(&mut wealth.of_bets)
                    {
                        *log += bet.log_factor(chance[against], part(bet.most));
                    }
                    wealth.highest_mean = wealth.highest_mean.max(log_mean(&wealth.of_bets));
                }
            }
        }
    }

    /// Begins anew for this client, as if it had not been seen. It counts as one client more from then on.
    pub fn forget(&mut self, client: &C) {
        self.anew += usize::from(self.clients.remove(client).is_some());
    }

    /// What the rounds say about a client; nothing if it had no part in any.
    pub fn evidence(&self, client: &C) -> Option<Evidence> {
        self.clients.get(client).map(|account| self.judge(account))
    }

    /// Every client that had a part in some round, the most suspicious first.
    pub fn ranking(&self) -> Vec<(C, Evidence)> {
        let mut ranking: Vec<(C, Evidence)> =
            self.clients.iter().map(|(client, account)| (client.clone(), self.judge(account))).collect();
        ranking.sort_by(|(_, a), (_, b)| {
            (a.p_value.total_cmp(&b.p_value)).then(b.suspicious.total_cmp(&a.suspicious))
        });
        ranking
    }

    /// Whether a client with this evidence is named: at most the accepted rate of false alarms, if nobody aims.
    pub fn names(&self, evidence: &Evidence) -> bool {
        evidence.p_value <= self.design.false_alarm
    }

    /// Whether it would be named even if all attackers aimed at it.
    pub fn names_despite_framing(&self, evidence: &Evidence) -> bool {
        evidence.p_framed <= self.design.false_alarm
    }

    /// The fewest rounds after which a client can be named that is in one of the f most suspicious groups of such sizes in
    /// each; first if nobody aims, then if attackers do. None where that is never.
    pub fn fewest_rounds(&self, members: &[usize]) -> [Option<u32>; 2] {
        let chances = self.chances(members.to_vec());
        let most = self.design.poisoned_groups.max(1);
        let wanted = (self.tested() as f64 / self.design.false_alarm).ln();
        [0, 1].map(|against| {
            // On average over the f places.
            let growth = |(bet, chance): (&Bet, &[f64; 2])| {
                let part = bet.most as f64 / most as f64;
                let [hit, miss] = [1.0, 0.0].map(|part| bet.log_factor(chance[against], part));
                part * hit + (1.0 - part) * miss
            };
            let best = self.bets.iter().zip(&chances.of_bets).map(growth).fold(0.0, f64::max);
            let rounds = (wanted + (self.bets.len() as f64).ln()) / best;
            (rounds <= f64::from(u32::MAX)).then(|| rounds.ceil() as u32)
        })
    }

    /// What is tested.
    pub fn design(&self) -> &Design {
        &self.design
    }

    fn tested(&self) -> usize {
        self.design.clients.max(self.clients.len()) + self.anew
    }

    fn judge(&self, account: &Account) -> Evidence {
        let [p_value, p_framed] = [0, 1].map(|against| {
            let p = (-account.wealth[against].highest_mean).exp().max(f64::MIN_POSITIVE);
            (self.tested() as f64 * p).min(1.0)
        });
        let Account { rounds, suspicious, expected, .. } = *account;
        // What bears framing bears chance as well.
        Evidence { rounds, suspicious, expected, p_value, p_framed: p_framed.max(p_value) }
    }

    fn chances(&self, mut members: Vec<usize>) -> Chances {
        members.sort_unstable_by(|a, b| b.cmp(a));
        let seats: usize = members.iter().sum();
        let attackers = self.design.attackers;
        let honest = seats.saturating_sub(attackers) as f64;
        let by_chance = |most: usize| {
            let largest: usize = members.iter().take(most).sum();
            if most >= members.len() || honest == 0.0 { 1.0 } else { (largest as f64 / honest).min(1.0) }
        };
        let aimed = touched(seats, members.first().copied().unwrap_or(0), attackers);
        let of_bet = |bet: &Bet| {
            let chance = by_chance(bet.most);
            [chance, (aimed + chance).min(1.0)]
        };
        Chances {
            of_bets: self.bets.iter().map(of_bet).collect(),
            of_suspicious: by_chance(self.design.poisoned_groups.max(1)),
        }
    }
}

impl Bet {
    /// The logarithm of what a round multiplies wealth by, for a group that has this part of the places.
    fn log_factor(self, chance: f64, part: f64) -> f64 {
        if chance >= self.share {
            return 0.0;
        }
        (part * self.share / chance + (1.0 - part) * (1.0 - self.share) / (1.0 - chance)).ln()
    }
}

impl Account {
    fn new(bets: usize) -> Self {
        let wealth = Wealth { of_bets: vec![0.0; bets], highest_mean: 0.0 };
        Self { rounds: 0, suspicious: 0.0, expected: 0.0, wealth: [wealth.clone(), wealth] }
    }
}

/// Probability that one of `attackers` is in the group of a client, of `size` out of `seats`.
fn touched(seats: usize, size: usize, attackers: usize) -> f64 {
    let elsewhere = seats.saturating_sub(size);
    let others = seats.saturating_sub(1);
    let spared: f64 = (0..attackers)
        .map(|taken| elsewhere.saturating_sub(taken) as f64 / others.saturating_sub(taken).max(1) as f64)
        .product();
    1.0 - spared
}

/// The logarithm of the mean of exponentials.
fn log_mean(logs: &[f64]) -> f64 {
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - highest).exp()).sum();
    highest + (sum / logs.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    const ATTACKERS: usize = 3;

    /// A federation of which the first clients are attackers.
    struct Federation {
        clients: usize,
        groups: usize,
        rng: ChaCha20Rng,
    }

    impl Federation {
        fn new(clients: usize, groups: usize, seed: u64) -> Self {
            Self { clients, groups, rng: ChaCha20Rng::seed_from_u64(seed) }
        }

        fn uniform(&mut self) -> f64 {
            (self.rng.next_u64() >> 11) as f64 * 2f64.powi(-53)
        }

        /// Random groups, whose scores `raise` changes.
        fn round(&mut self, raise: impl Fn(&[usize], f64) -> Option<f64>) -> Vec<ScoredGroup<usize>> {
            let mut order: Vec<usize> = (0..self.clients).collect();
            for place in (1..order.len()).rev() {
                let other = (self.uniform() * (place + 1) as f64) as usize;
                order.swap(place, other.min(place));
            }
            (0..self.groups)
                .map(|group| {
                    let present: Vec<usize> =
                        order.iter().copied().skip(group).step_by(self.groups).collect();
                    let score = raise(&present, self.uniform());
                    ScoredGroup { members: present.len(), present, score }
                })
                .collect()
        }
    }

    fn decoder(clients: usize, attackers: usize, poisoned_groups: usize, false_alarm: f64) -> Decoder<usize> {
        Decoder::new(Design { clients, false_alarm, attackers, poisoned_groups }).unwrap()
    }

    /// Of so many federations, those in which `named` holds for some client in the end, and a bound that a share of `rate`
    /// stays within but for one case in 30,000.
    fn alarms(federations: u64, rate: f64, mut run: impl FnMut(u64) -> bool) -> (u64, f64) {
        let found = (0..federations).filter(|&seed| run(seed)).count() as u64;
        let n = federations as f64;
        (found, rate * n + 4.0 * (rate * (1.0 - rate) * n).sqrt())
    }

    fn any_named(decoder: &Decoder<usize>, clients: std::ops::Range<usize>) -> [bool; 2] {
        let evidence: Vec<Evidence> = clients.filter_map(|client| decoder.evidence(&client)).collect();
        [
            evidence.iter().any(|evidence| decoder.names(evidence)),
            evidence.iter().any(|evidence| decoder.names_despite_framing(evidence)),
        ]
    }

    #[test]
    fn factors_by_hand() {
        let decoder = decoder(8, 0, 1, 0.1);
        let chances = decoder.chances(vec![2, 2, 2, 2]);
        assert_eq!(chances.of_bets, [[0.25, 0.25]; 2]);
        let [hit, miss] = [1.0, 0.0].map(|part| decoder.bets[0].log_factor(0.25, part).exp());
        assert!((hit - 0.95 / 0.25).abs() < 1e-12 && (miss - 0.05 / 0.75).abs() < 1e-12);
        // Half of a place is half of both.
        assert!((decoder.bets[0].log_factor(0.25, 0.5).exp() - f64::midpoint(hit, miss)).abs() < 1e-12);
        // One attacker among seven others shares a group of two with a client in one case of seven.
        assert!((touched(8, 2, 1) - 1.0 / 7.0).abs() < 1e-12);
        // Two: 1 − (6/7)(5/6).
        assert!((touched(8, 2, 2) - 2.0 / 7.0).abs() < 1e-12);
        assert_eq!((touched(8, 2, 0), touched(0, 0, 3) >= 0.0), (0.0, true));
        assert_eq!(touched(4, 4, 1), 1.0);
    }

    #[test]
    fn bets_expect_no_gain_from_chance() {
        for (share, chance) in [(0.95, 0.1), (0.95, 0.9), (0.75, 0.5), (0.75, 0.8)] {
            let bet = Bet { most: 1, share };
            for truth in [0.0, chance / 2.0, chance] {
                let [hit, miss] = [1.0, 0.0].map(|part| bet.log_factor(chance, part).exp());
                let expected = truth * hit + (1.0 - truth) * miss;
                assert!(expected <= 1.0 + 1e-12, "{share} {chance} {truth}: {expected}");
            }
        }
    }

    /// Thousands of honest federations, looked at after every round; groups are unequal, some are withheld, clients drop
    /// out.
    #[test]
    fn honest_federations_raise_no_more_alarms_than_stated() {
        let rate = 0.2;
        let (found, bound) = alarms(3000, rate, |seed| {
            let mut federation = Federation::new(22, 7, seed);
            let mut decoder = decoder(22, 0, 3, rate);
            (0..40).any(|_| {
                let mut groups = federation.round(|_, chance| (chance > 0.1).then_some(chance));
                for group in &mut groups {
                    let gone = (federation.uniform() * 8.0) as usize;
                    group.present.retain(|client| client % 8 != gone);
                }
                decoder.observe(&groups);
                any_named(&decoder, 0..22)[0]
            })
        });
        assert!((found as f64) <= bound, "{found} alarms, at most {bound} fit the rate");
        // The test is no empty one: its alarms are within a few times of what it may raise.
        assert!(found as f64 >= bound / 20.0, "{found} alarms are suspiciously few");
    }

    /// Attackers among them, loud or quiet, who aim at nobody.
    #[test]
    fn honest_clients_beside_attackers_are_not_named_more_often() {
        let rate = 0.2;
        for loud in [10.0, -10.0] {
            let (found, bound) = alarms(1500, rate, |seed| {
                let mut federation = Federation::new(24, 8, seed);
                let mut decoder = decoder(24, ATTACKERS, ATTACKERS, rate);
                (0..30).any(|_| {
                    let groups = federation.round(|present, chance| {
                        Some(
                            chance
                                + if present.iter().any(|&client| client < ATTACKERS) { loud } else { 0.0 },
                        )
                    });
                    decoder.observe(&groups);
                    any_named(&decoder, ATTACKERS..24)[0]
                })
            });
            assert!((found as f64) <= bound, "{found} alarms, at most {bound} fit the rate");
        }
    }

    /// Attackers that are loud where the last client is with them and as quiet as can be elsewhere get it suspected: that
    /// is what the second p-value is for, and it holds.
    #[test]
    fn framing_gets_no_honest_client_named_by_the_second_number() {
        let rate = 0.2;
        let mut suspected = 0;
        let (found, bound) = alarms(1500, rate, |seed| {
            let mut federation = Federation::new(40, 10, seed);
            let mut decoder = decoder(40, ATTACKERS, ATTACKERS, rate);
            let victim = 39;
            for _ in 0..40 {
                let groups = federation.round(|present, chance| {
                    let attacked = present.iter().any(|&client| client < ATTACKERS);
                    Some(match (attacked, present.contains(&victim)) {
                        (true, true) => 10.0,
                        (true, false) => -10.0,
                        _ => chance,
                    })
                });
                decoder.observe(&groups);
            }
            let [by_chance, framed] = any_named(&decoder, ATTACKERS..40);
            suspected += u64::from(by_chance);
            framed
        });
        assert!((found as f64) <= bound, "{found} framed, at most {bound} fit the rate");
        assert!(suspected as f64 > bound, "only {suspected} were suspected");
    }

    /// Rounds after which all attackers are named, over some federations: the median. First by chance, then despite framing.
    fn rounds_needed(
        clients: usize,
        groups: usize,
        attackers: usize,
        f: usize,
        most: u32,
    ) -> [Option<u32>; 2] {
        let mut needed = [vec![], vec![]];
        for seed in 0..15 {
            let mut federation = Federation::new(clients, groups, seed);
            let mut decoder = decoder(clients, f, f, 0.01);
            let mut named = [None; 2];
            for round in 1..=most {
                decoder.observe(&federation.round(|present, chance| {
                    Some(chance + f64::from(u8::from(present.iter().any(|&client| client < attackers))))
                }));
                let evidence: Vec<Evidence> =
                    (0..attackers).filter_map(|client| decoder.evidence(&client)).collect();
                if evidence.iter().all(|evidence| decoder.names(evidence)) {
                    named[0].get_or_insert(round);
                }
                if evidence.iter().all(|evidence| decoder.names_despite_framing(evidence)) {
                    named[1].get_or_insert(round);
                    break;
                }
            }
            let [by_chance, framed] = any_named(&decoder, attackers..clients);
            assert!(!framed && (!by_chance || seed > 0), "an honest client was named");
            for (needed, named) in needed.iter_mut().zip(named) {
                needed.push(named.unwrap_or(u32::MAX));
            }
        }
        needed.map(|mut needed| {
            needed.sort_unstable();
            Some(needed[needed.len() / 2]).filter(|&rounds| rounds < u32::MAX)
        })
    }

    /// The table of docs/robustness.md.
    #[test]
    fn rounds_that_it_takes_to_name_every_attacker() {
        for (clients, groups, attackers, f, expected) in [
            (200, 11, 1, 4, [5, 15]),
            (200, 11, 4, 4, [13, 38]),
            (200, 25, 4, 4, [7, 11]),
            (200, 50, 4, 4, [5, 7]),
            (1000, 50, 4, 4, [6, 8]),
            (1000, 50, 10, 10, [9, 15]),
        ] {
            let found = rounds_needed(clients, groups, attackers, f, 80);
            assert_eq!(found, expected.map(Some), "{attackers} of {clients} in {groups} groups");
        }
    }

    #[test]
    fn the_fewest_rounds_are_what_a_client_takes_that_is_always_suspicious() {
        let members = vec![18; 11];
        let decoder = decoder(198, 4, 4, 0.01);
        let [by_chance, framed] = decoder.fewest_rounds(&members).map(Option::unwrap);
        assert!((8..=14).contains(&by_chance) && (25..=40).contains(&framed), "{by_chance} {framed}");
        // Two groups: the more suspicious one is no news, and one of four attackers is nearly always near.
        assert_eq!(decoder.fewest_rounds(&[99, 99]), [None, None]);
    }

    #[test]
    fn whoever_is_forgotten_begins_anew_and_counts_twice() {
        let mut decoder = decoder(10, 0, 1, 0.1);
        let groups: Vec<_> = (0..5)
            .map(|group| ScoredGroup {
                members: 2,
                present: vec![2 * group, 2 * group + 1],
                score: Some(-(group as f64)),
            })
            .collect();
        (0..3).for_each(|_| decoder.observe(&groups));
        let before = decoder.evidence(&1).unwrap();
        assert_eq!((before.rounds, before.suspicious), (3, 3.0));
        assert!((before.expected - 0.6).abs() < 1e-12 && before.p_value < 0.5, "{before:?}");
        decoder.forget(&0);
        decoder.forget(&77);
        assert_eq!(decoder.evidence(&0), None);
        let after = decoder.evidence(&1).unwrap();
        assert!((after.p_value / before.p_value - 1.1).abs() < 1e-12);
        assert_eq!(decoder.ranking()[0].0, 1);
    }

    #[test]
    fn equal_scores_share_places_and_groups_without_one_are_no_evidence() {
        let mut decoder = decoder(6, 0, 1, 0.1);
        let group = |client: usize, score| ScoredGroup { members: 2, present: vec![client], score };
        decoder.observe(&[
            group(0, Some(1.0)),
            group(1, Some(1.0)),
            group(2, None),
            group(3, Some(f64::NAN)),
        ]);
        let evidence = decoder.evidence(&0).unwrap();
        assert_eq!((evidence.suspicious, evidence.expected, evidence.p_value), (0.5, 0.5, 1.0));
        assert_eq!((decoder.evidence(&2), decoder.evidence(&3)), (None, None));
        decoder.observe(&[]);
        assert_eq!(decoder.evidence(&0), Some(evidence));
    }

    #[test]
    fn designs_that_test_nothing_are_refused() {
        let design = |clients, false_alarm| Design { clients, false_alarm, attackers: 0, poisoned_groups: 1 };
        for rate in [0.0, -0.1, 0.6, f64::NAN] {
            assert!(matches!(Decoder::<usize>::new(design(5, rate)), Err(DesignError::FalseAlarm(_))));
        }
        assert!(matches!(Decoder::<usize>::new(design(0, 0.1)), Err(DesignError::NoClients)));
    }
}
