//! Room in the array maps, and the refusal when there is not enough.

use std::ops::Range;

use super::space::Space;

/// A map is too small for a change. Nothing has been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{map} holds {capacity} elements; this change needs {needed} while old and new stand side by side{}",
    if *needed <= u64::from(*capacity) { ", and the free ones are too scattered" } else { "" }
)]
pub struct TooLarge {
    /// The map, or what else has a limit.
    pub map: &'static str,
    /// Elements needed: what is in use, and what is to be added before anything can be freed.
    pub needed: u64,
    /// Elements there are.
    pub capacity: u32,
}

/// Hands out runs of one array map, and keeps count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    map: &'static str,
    capacity: u32,
    needed: u64,
    space: Space,
    failed: bool,
}

impl Array {
    pub(super) fn new(map: &'static str, capacity: u32, used: Vec<Range<u32>>) -> Self {
        let space = Space::new(capacity, used);
        let needed = u64::from(capacity) - u64::from(space.free());
        Self { map, capacity, needed, space, failed: false }
    }

    /// The first index of a run. After a failure it is 0 and [`Array::check`] tells.
    pub(super) fn take(&mut self, len: u32) -> u32 {
        self.needed += u64::from(len);
        self.space.take(len).unwrap_or_else(|| {
            self.failed = true;
            0
        })
    }

    /// Frees a run, to be given out by a later plan: this one must be done with taking.
    pub(super) fn give_back(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.needed -= u64::from(len);
            self.space.give_back(start..start + len);
        }
    }

    /// Elements in use and asked for.
    pub(super) const fn needed(&self) -> u64 {
        self.needed
    }

    pub(super) const fn check(&self) -> Result<(), TooLarge> {
        if self.failed {
            return Err(TooLarge { map: self.map, needed: self.needed, capacity: self.capacity });
        }
        Ok(())
    }
}

/// Refuses more than `capacity` elements.
pub(super) fn check(map: &'static str, needed: usize, capacity: u32) -> Result<(), TooLarge> {
    let needed = needed as u64;
    if needed > u64::from(capacity) {
        return Err(TooLarge { map, needed, capacity });
    }
    Ok(())
}
