//! Work that every processor takes its part of.

use std::{
    collections::BTreeMap,
    iter,
    num::NonZero,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// What comes of each of the `items`, in their order.
pub(crate) fn on_all_processors<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    // To ask how many processors there are is reading several files.
    let processors = match items.len() {
        0 | 1 => 1,
        many => thread::available_parallelism().map_or(1, NonZero::get).min(many),
    };
    if processors == 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        Some((index, items.get(index)?))
    };
    let one_after_the_other =
        || iter::from_fn(take).map(|(index, item)| (index, work(item))).collect::<Vec<_>>();
    let results: BTreeMap<_, _> = thread::scope(|scope| {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(one_after_the_other)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.flatten().collect()
    });
    results.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        assert_eq!(
            on_all_processors(&items, |item| item * 2),
            (0..1000).map(|item| item * 2).collect::<Vec<_>>()
        );
        assert_eq!(on_all_processors(&items[..0], |item| *item), [0; 0]);
    }

    #[test]
    #[should_panic(expected = "number 7")]
    fn a_panic_is_passed_on() {
        on_all_processors(&[1, 7, 3], |item| assert_ne!(*item, 7, "number 7"));
    }
}
