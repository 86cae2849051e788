//! First-fit allocation of runs of array elements.

use std::ops::Range;

/// The free elements of one array map.
///
/// A run which a commit frees can only be given out by the next one: never while a packet may still read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    free: Vec<Range<u32>>,
}

impl Space {
    /// Everything below `capacity` but the ranges in use, which may overlap.
    pub(super) fn new(capacity: u32, used: impl IntoIterator<Item = Range<u32>>) -> Self {
        let mut used: Vec<_> = used.into_iter().filter(|range| range.start < range.end).collect();
        used.sort_unstable_by_key(|range| range.start);
        let mut free = Vec::new();
        let mut next = 0;
        for range in used {
            if range.start > next {
                free.push(next..range.start.min(capacity));
            }
            next = next.max(range.end);
        }
        if next < capacity {
            free.push(next..capacity);
        }
        free.retain(|range| range.start < range.end);
        Self { free }
    }

    /// Number of free elements.
    pub(super) fn free(&self) -> u32 {
        self.free.iter().map(|range| range.end - range.start).sum()
    }

    /// Takes a run of `len` elements and gives its first index; `None` when no free run is long enough.
    pub(super) fn take(&mut self, len: u32) -> Option<u32> {
        let position = self.free.iter().position(|range| range.end - range.start >= len)?;
        let run = &mut self.free[position];
        let start = run.start;
        run.start += len;
        if run.start == run.end {
            self.free.remove(position);
        }
        Some(start)
    }
}

impl Space {
    /// Frees a run.
    pub(super) fn give_back(&mut self, run: Range<u32>) {
        let position = self.free.partition_point(|free| free.start < run.start);
        self.free.insert(position, run);
        if self.free.get(position + 1).is_some_and(|next| next.start == self.free[position].end) {
            self.free[position].end = self.free.remove(position + 1).end;
        }
        if position > 0 && self.free[position - 1].end == self.free[position].start {
            self.free[position - 1].end = self.free.remove(position).end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_never_overlap_and_never_touch_what_is_used(
            capacity in 1_u32..200,
            used in proptest::collection::vec((0_u32..220, 0_u32..20), 0..12),
            requests in proptest::collection::vec(1_u32..30, 0..30),
        ) {
            let used: Vec<_> = used.into_iter().map(|(start, len)| start..start + len).collect();
            let mut taken: BTreeSet<u32> = used.iter().cloned().flatten().collect();
            let mut space = Space::new(capacity, used);
            for len in requests {
                let Some(start) = space.take(len) else {
                    // Refused only when there is no such run.
                    let runs = (0..capacity.saturating_sub(len - 1)).find(|s| (*s..s + len).all(|i| !taken.contains(&i)));
                    prop_assert_eq!(runs, None);
                    continue;
                };
                prop_assert!(start + len <= capacity);
                for index in start..start + len {
                    prop_assert!(taken.insert(index), "{} given out twice", index);
                }
            }
        }
    }

    #[test]
    fn runs_that_come_back_join_their_neighbours() {
        let mut space = Space::new(100, [0..50, 50..90]);
        for run in [10..20, 30..40, 20..30, 80..90] {
            space.give_back(run);
        }
        assert_eq!(space.free, [10..40, 80..100]);
        assert_eq!(space.take(30), Some(10));
    }

    #[test]
    fn the_first_run_that_fits_is_taken() {
        let mut space = Space::new(100, [10..20, 22..90]);
        assert_eq!(space.take(3), Some(0));
        assert_eq!(space.take(8), Some(90));
        assert_eq!(space.take(7), Some(3));
        assert_eq!(space.take(2), Some(20));
        assert_eq!(space.take(3), None);
    }
}
