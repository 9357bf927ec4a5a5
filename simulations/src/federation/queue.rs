//! What is going to happen, in the order in which it will.

use super::{Direction, Message, Trained};
use fedveil_coordinator_core::{Job, Millis};
use std::collections::{BTreeMap, BTreeSet};

/// What waits in the queue.
pub(super) enum Pending {
    Message {
        session: u64,
        message: Message,
    },
    /// A client ends its training. The result, where it was computed ahead of its time.
    Training {
        session: u64,
        client: usize,
        round: u32,
        result: Option<Result<Trained, String>>,
    },
    Job(Box<Job>),
    /// More clients come, unless a round is in progress.
    CheckIn,
}

/// At one instant, what clients have sent leaves the queue before they send more, so that no more inputs are under way
/// than clients work on at a time. Within both classes, in the order of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Up,
    Other,
}

pub(super) type Key = (Millis, Class, u64);

#[derive(Default)]
pub(super) struct Queue {
    entries: BTreeMap<Key, Pending>,
    /// Keys of trainings whose results are not there.
    untrained: BTreeSet<Key>,
    counter: u64,
}

/// What happens next.
#[expect(clippy::vec_box, reason = "a job waits in its box, and leaves the queue in it")]
pub(super) enum Next {
    /// One thing for the coordinator.
    One(Pending),
    /// Jobs that are due at one instant.
    Jobs(Vec<Box<Job>>),
    /// Messages to distinct clients, and trainings of distinct clients, due at one instant.
    Clients(Vec<Pending>),
}

impl Queue {
    /// Puts something in, behind all that happens at that time.
    pub(super) fn push(&mut self, at: Millis, pending: Pending) {
        let class = match &pending {
            Pending::CheckIn | Pending::Message { message: Message { direction: Direction::Up, .. }, .. } => {
                Class::Up
            }
            _ => Class::Other,
        };
        let key = (at, class, self.number());
        if matches!(pending, Pending::Training { result: None, .. }) {
            self.untrained.insert(key);
        }
        self.entries.insert(key, pending);
    }

    /// A number that was not given before.
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.entries.first_key_value().map(|(&(at, ..), _)| at)
    }

    /// Takes what happens next, at most `most` trainings at once.
    pub(super) fn pop(&mut self, most: usize) -> Option<Next> {
        let (&key, first) = self.entries.first_key_value()?;
        let (at, class, _) = key;
        let same = (at, class, 0)..=(at, class, u64::MAX);
        Some(match (class, first) {
            (_, Pending::Job(_)) => {
                let is_job = |(_, pending): &(&Key, &Pending)| matches!(pending, Pending::Job(_));
                let keys: Vec<Key> =
                    self.entries.range(same).take_while(is_job).map(|(key, _)| *key).collect();
                let jobs = keys.iter().filter_map(|key| match self.entries.remove(key) {
                    Some(Pending::Job(job)) => Some(job),
                    _ => None,
                });
                Next::Jobs(jobs.collect())
            }
            (Class::Up, _) => Next::One(self.entries.pop_first()?.1),
            (Class::Other, _) => {
                let (mut seen, mut trainings) = (BTreeSet::new(), 0);
                let mut keys = Vec::new();
                for (key, pending) in self.entries.range(same) {
                    let client = match pending {
                        Pending::Message { message, .. } => message.client,
                        Pending::Training { client, .. } => {
                            trainings += 1;
                            *client
                        }
                        Pending::Job(_) | Pending::CheckIn => break,
                    };
                    if trainings > most {
                        break;
                    }
                    if seen.insert(client) {
                        keys.push(*key);
                    }
                }
                for key in &keys {
                    self.untrained.remove(key);
                }
                Next::Clients(keys.iter().filter_map(|key| self.entries.remove(key)).collect())
            }
        })
    }

    /// The next trainings that nobody has computed, at most so many: a key, a client, a session and a round of each.
    pub(super) fn untrained(&self, most: usize) -> Vec<(Key, usize, u64, u32)> {
        let found = self.untrained.iter().filter_map(|key| match self.entries.get(key)? {
            Pending::Training { session, client, round, .. } => Some((*key, *client, *session, *round)),
            _ => None,
        });
        found.take(most).collect()
    }

    /// The result of a training, ahead of its time.
    pub(super) fn trained(&mut self, key: Key, computed: Result<Trained, String>) {
        if let Some(Pending::Training { result, .. }) = self.entries.get_mut(&key) {
            *result = Some(computed);
            self.untrained.remove(&key);
        }
    }

    /// The same of one that takes so many milliseconds longer than was known.
    pub(super) fn trained_late(&mut self, key: Key, computed: Result<Trained, String>, late: u64) {
        self.untrained.remove(&key);
        if let Some(Pending::Training { session, client, round, .. }) = self.entries.remove(&key) {
            let result = Some(computed);
            let end = Millis(key.0.0.saturating_add(late));
            self.push(end, Pending::Training { session, client, round, result });
        }
    }

    /// Clients that a message is under way to or from.
    pub(super) fn corresponding(&self) -> BTreeSet<usize> {
        let clients = self.entries.values().filter_map(|pending| match pending {
            Pending::Message { message, .. } => Some(message.client),
            _ => None,
        });
        clients.collect()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.untrained.clear();
    }
}
