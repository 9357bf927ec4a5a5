//! What clients may spend over all tasks.
//!
//! A population is a set of clients that outlives tasks: everyone whom one authority enrolled. Tasks follow one another
//! and run at the same time, so a participation is set aside before it happens, and what is set aside counts as spent
//! until it is charged or given back.
//!
//! Absent: who took part when, and where that is kept.

use std::collections::BTreeMap;

use crate::{Account, Delta, TaskLoss};

/// The most that one client may spend over all tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// ε, at `delta`. Infinity allows everything.
    pub epsilon: f64,
    /// δ of everything.
    pub delta: Delta,
}

/// Participations of one client in one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Participations {
    /// For good.
    pub charged: u32,
    /// Under way.
    pub reserved: u32,
}

/// One more participation that may not be. Every ε is at `delta`, over all tasks.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "population.epsilon is {allowed} at delta {delta} over all tasks; {spent:.4} is spent, with what is under way \
     {reserved:.4}, and one more participation would bring it to {asked:.4}"
)]
pub struct Overdrawn {
    /// ε that the limit allows.
    pub allowed: f64,
    /// δ of the limit.
    pub delta: Delta,
    /// ε of what is charged.
    pub spent: f64,
    /// ε of what is charged and what is reserved.
    pub reserved: f64,
    /// ε of both and one more participation.
    pub asked: f64,
    /// Whether it stays so, whatever becomes of what is reserved.
    pub for_good: bool,
}

impl Limit {
    /// Whether a client with these participations may take part once more in the task `asked`. A task that `tasks` lacks
    /// costs infinitely.
    pub fn check<T: Ord>(
        &self,
        tasks: &BTreeMap<T, TaskLoss>,
        client: &BTreeMap<T, Participations>,
        asked: &T,
    ) -> Result<(), Overdrawn> {
        let all = |entry: &Participations| entry.charged.saturating_add(entry.reserved);
        let after = self.epsilon(tasks, client, all, Some(asked));
        if after <= self.epsilon {
            return Ok(());
        }
        let charged = |entry: &Participations| entry.charged;
        Err(Overdrawn {
            allowed: self.epsilon,
            delta: self.delta,
            spent: self.epsilon(tasks, client, charged, None),
            reserved: self.epsilon(tasks, client, all, None),
            asked: after,
            for_good: self.epsilon(tasks, client, charged, Some(asked)) > self.epsilon,
        })
    }

    /// ε of what is charged, and of that with what is reserved.
    pub fn standing<T: Ord>(
        &self,
        tasks: &BTreeMap<T, TaskLoss>,
        client: &BTreeMap<T, Participations>,
    ) -> (f64, f64) {
        let all = |entry: &Participations| entry.charged.saturating_add(entry.reserved);
        (self.epsilon(tasks, client, |entry| entry.charged, None), self.epsilon(tasks, client, all, None))
    }

    fn epsilon<T: Ord>(
        &self,
        tasks: &BTreeMap<T, TaskLoss>,
        client: &BTreeMap<T, Participations>,
        count: impl Fn(&Participations) -> u32,
        one_more: Option<&T>,
    ) -> f64 {
        let unknown = TaskLoss::unbounded();
        let mut account = Account::default();
        let mut add = |task: &T, participations| {
            account.add(tasks.get(task).unwrap_or(&unknown), participations);
        };
        for (task, entry) in client {
            add(task, count(entry).saturating_add(u32::from(one_more == Some(task))));
        }
        if let Some(task) = one_more.filter(|task| !client.contains_key(task)) {
            add(task, 1);
        }
        account.epsilon(self.delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoiseMultiplier, RdpCurve};

    fn loss(multiplier: f64) -> TaskLoss {
        let participation = RdpCurve::gaussian(NoiseMultiplier::new(multiplier).unwrap());
        TaskLoss { participation, once: false, failure: 1e-7 }
    }

    fn tasks() -> BTreeMap<&'static str, TaskLoss> {
        BTreeMap::from([("first", loss(2.0)), ("second", loss(4.0))])
    }

    fn epsilon(first: u32, second: u32) -> f64 {
        let mut account = Account::default();
        account.add(&loss(2.0), first);
        account.add(&loss(4.0), second);
        account.epsilon(delta())
    }

    fn delta() -> Delta {
        Delta::new(1e-5).unwrap()
    }

    fn client(entries: &[(&'static str, u32, u32)]) -> BTreeMap<&'static str, Participations> {
        let entry = |&(task, charged, reserved)| (task, Participations { charged, reserved });
        entries.iter().map(entry).collect()
    }

    #[test]
    fn what_is_reserved_counts_in_every_task() {
        let limit = Limit { epsilon: epsilon(3, 2), delta: delta() };
        let check = |entries: &[_], asked| limit.check(&tasks(), &client(entries), &asked);
        assert_eq!(check(&[("first", 3, 0), ("second", 1, 0)], "second"), Ok(()));
        assert_eq!(check(&[("first", 2, 0), ("second", 1, 1)], "first"), Ok(()));
        let refused = check(&[("first", 3, 0), ("second", 1, 1)], "second").unwrap_err();
        assert_eq!(refused.spent, epsilon(3, 1));
        assert_eq!((refused.reserved, refused.asked), (epsilon(3, 2), epsilon(3, 3)));
        assert!(!refused.for_good, "what is under way may come to nothing");
        let refused = check(&[("first", 3, 0), ("second", 2, 0)], "second").unwrap_err();
        assert!(refused.for_good && refused.spent == refused.reserved, "{refused:?}");
        assert_eq!(
            refused.to_string(),
            format!(
                "population.epsilon is {} at delta 0.00001 over all tasks; {:.4} is spent, with what is under way \
                 {:.4}, and one more participation would bring it to {:.4}",
                epsilon(3, 2),
                epsilon(3, 2),
                epsilon(3, 2),
                epsilon(3, 3)
            )
        );
    }

    #[test]
    fn without_a_limit_everything_is_allowed_and_an_unknown_task_only_then() {
        let none = Limit { epsilon: f64::INFINITY, delta: delta() };
        let spent = client(&[("first", u32::MAX, u32::MAX)]);
        assert_eq!(none.check(&tasks(), &spent, &"first"), Ok(()));
        assert_eq!(none.check(&tasks(), &client(&[]), &"third"), Ok(()));
        let some = Limit { epsilon: 1e9, delta: delta() };
        assert_eq!(some.check(&tasks(), &client(&[]), &"third").unwrap_err().asked, f64::INFINITY);
    }

    #[test]
    fn the_standing_is_what_is_spent_and_what_may_be() {
        let limit = Limit { epsilon: 1.0, delta: delta() };
        let standing = limit.standing(&tasks(), &client(&[("first", 3, 0), ("second", 1, 1)]));
        assert_eq!(standing, (epsilon(3, 1), epsilon(3, 2)));
        assert_eq!(limit.standing(&tasks(), &client(&[])), (0.0, 0.0));
    }
}
