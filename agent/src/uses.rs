//! What is in use, and how often.

use crate::shared_map::SharedMap;

/// Counts the uses of things. A copy costs next to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uses<K: Ord>(SharedMap<K, u32>);

impl<K: Ord + Clone> Uses<K> {
    /// Notes one use more; whether it is the first.
    pub(crate) fn begin(&mut self, thing: K) -> bool {
        if let Some(uses) = self.0.value_mut(&thing) {
            *uses += 1;
            return false;
        }
        self.0.insert(thing, 1_u32);
        true
    }

    /// Notes one use less; whether it was the last.
    pub(crate) fn end(&mut self, thing: &K) -> bool {
        let Some(uses) = self.0.value_mut(thing) else { return false };
        *uses -= 1;
        let is_last = *uses == 0;
        if is_last {
            self.0.remove(thing);
        }
        is_last
    }

    /// The things in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// Whether the same things are in use, however often.
    pub(crate) fn are_of_same(&self, other: &Self) -> bool {
        self.0.differences_by(&other.0, |_, _| true).is_empty()
    }
}

impl<K: Ord> Default for Uses<K> {
    fn default() -> Self {
        Self(SharedMap::default())
    }
}
