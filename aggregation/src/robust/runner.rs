//! Who does the work: tasks that a caller may run at the same time.
//!
//! This crate starts no threads. A rule cuts its passes over the rows into tasks, and a [`Runner`] that the caller
//! brings runs them, wherever it likes. Tasks share nothing that they write to, and their results are put together in
//! the order of the columns, so that an aggregate is the same bit for bit whoever runs it.

/// One piece of work.
pub type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs tasks, in any order and on any threads.
pub trait Runner: Sync {
    /// How many tasks may run at the same time: work is cut into as many.
    fn threads(&self) -> usize;

    /// Runs every task to its end before it returns.
    fn run(&self, tasks: Vec<Task<'_>>);
}

/// Runs one task after the other on the thread that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Runner for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: Vec<Task<'_>>) {
        for task in tasks {
            task();
        }
    }
}

/// What `work` makes of each item, in order, which it gets with the item's place.
pub(super) fn map<I: Send, T: Send>(
    runner: &dyn Runner,
    items: Vec<I>,
    work: impl Fn(usize, I) -> T + Sync,
) -> Vec<T> {
    let share = items.len().div_ceil(runner.threads().max(1)).max(1);
    let mut results: Vec<Option<T>> = items.iter().map(|_| None).collect();
    let mut items = items.into_iter().enumerate();
    let work = &work;
    let tasks = results.chunks_mut(share).map(|results| {
        let items: Vec<_> = items.by_ref().take(results.len()).collect();
        let task: Task<'_> = Box::new(move || {
            for (result, (place, item)) in results.iter_mut().zip(items) {
                *result = Some(work(place, item));
            }
        });
        task
    });
    runner.run(tasks.collect());
    results.into_iter().map(|result| result.expect("a runner runs every task to its end")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robust::tests::compares_pairs;
    use crate::robust::{PRE_AGGREGATORS, RULES, Rule};
    use std::thread;

    struct Threads(usize);

    impl Runner for Threads {
        fn threads(&self) -> usize {
            self.0
        }

        fn run(&self, tasks: Vec<Task<'_>>) {
            thread::scope(|scope| {
                for task in tasks {
                    scope.spawn(task);
                }
            });
        }
    }

    #[test]
    fn results_keep_the_order_of_their_items() {
        for threads in [1, 2, 3, 7, 100] {
            let found = map(&Threads(threads), (0..23).collect(), |place, item: usize| (place, item * item));
            assert!(found.into_iter().eq((0..23).map(|item| (item, item * item))), "{threads} threads");
        }
        assert!(map(&Serial, Vec::<u8>::new(), |_, item| item).is_empty());
    }

    /// More columns than one task takes, not a multiple of anything, rows of both precisions.
    #[test]
    fn every_rule_gives_the_same_bits_on_any_number_of_threads() {
        let (n, d, f) = (15, 20_003, 2);
        let value = |row: usize, column: usize| {
            let drawn = (row * 7919 + column * 104_729 + row * column * 31) % 10_007;
            drawn as f32 / 10_007.0 - if row < f { 3.0 } else { 0.5 }
        };
        let single: Vec<Vec<f32>> =
            (0..n).map(|row| (0..d).map(|column| value(row, column)).collect()).collect();
        let double: Vec<Vec<f64>> =
            single.iter().map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect();
        let reference = vec!["1"; d].join(",");
        let mut rules: Vec<Rule> = RULES
            .iter()
            .map(|spec| {
                let settings = [("reference", reference.as_str())];
                let settings = if spec.about.name == "fltrust" { &settings[..] } else { &[] };
                Rule::new(spec.about.name, &[], settings).unwrap()
            })
            .collect();
        rules.extend(PRE_AGGREGATORS.iter().map(|pre| Rule::new("median", &[pre.about.name], &[]).unwrap()));
        for rule in rules {
            let serial = rule.aggregate(&single, f).unwrap();
            for threads in [2, 3] {
                let found = rule.aggregate_on(&Threads(threads), &single, f).unwrap();
                assert!(found == serial, "{rule} on {threads} threads");
            }
            let double = rule.aggregate_on(&Threads(2), &double, f).unwrap();
            assert!(double == serial || compares_pairs(&rule), "{rule} in f64");
        }
    }
}
