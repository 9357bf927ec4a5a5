//! Work on several threads whose results do not tell on how many.

use std::sync::{Mutex, PoisonError};

/// `work` of each item, in the order of the items. The calling thread is one of `threads`; items are taken in small
/// blocks by whoever is free.
pub(super) fn map<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let count = items.len();
    let threads = threads.min(count);
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let block = (count / (threads * 8)).clamp(1, 64);
    let queue = Mutex::new(items.into_iter().enumerate());
    let worker = || {
        let mut done: Vec<(usize, R)> = Vec::new();
        loop {
            let taken: Vec<(usize, T)> =
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(block).collect();
            if taken.is_empty() {
                return done;
            }
            done.extend(taken.into_iter().map(|(index, item)| (index, work(item))));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut results = worker();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_on_any_number_of_threads() {
        for count in [0, 1, 7, 1_000] {
            let expected: Vec<u64> = (0..count).map(|item| item * item).collect();
            for threads in [1, 2, 5, 64] {
                assert_eq!(map(threads, (0..count).collect(), |item| item * item), expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "item 5")]
    fn a_panic_comes_through() {
        map(3, (0..10).collect(), |item| assert!(item != 5, "item {item}"));
    }
}
