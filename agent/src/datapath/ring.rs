//! The backends of a service port. There are as many of them as there are services: they are to be small.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Backend;

/// A Maglev ring: a connection goes to the backend of the slot that its hash falls on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ring {
    backends: Box<[Backend]>,
    slots: Slots,
}

impl Ring {
    /// The ring of these backends with, for each slot, the index of its backend: a prime number of slots, or 1;
    /// none without backends.
    pub fn new(backends: Vec<Backend>, slots: &[u16]) -> Self {
        Self { slots: Slots::new(backends.len(), slots), backends: backends.into() }
    }

    /// The ring with these backends in its slots.
    pub fn of_slots(slots: &[Backend]) -> Self {
        let backends: Vec<_> = slots.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let index = |backend| backends.binary_search(backend).map_or(0, |index| index as u16);
        let slots: Vec<_> = slots.iter().map(index).collect();
        Self::new(backends, &slots)
    }

    /// The backends, sorted.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// For each slot, the index of its backend.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = u16> + Clone {
        (0..self.len()).map(|slot| self.slots.get(slot))
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.slots.len as usize
    }

    /// Whether there is no backend.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The backend that a connection with this hash goes to. Panics when there is none.
    pub fn at(&self, hash: usize) -> Backend {
        self.backends[self.slots.get(hash % self.len()) as usize]
    }

    /// The backend of every slot, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Backend> + Clone {
        self.slots().map(|index| self.backends[index as usize])
    }
}

/// Indexes of backends, each in as few bits as their number takes: 1, 2, 4, 8 or 16, so that none is in two words.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Slots {
    words: Box<[u64]>,
    len: u32,
    bits: u32,
}

impl Slots {
    fn new(backends: usize, slots: &[u16]) -> Self {
        if slots.is_empty() {
            return Self::default();
        }
        let bits = backends.next_power_of_two().ilog2().max(1).next_power_of_two();
        let word = |slots: &[u16]| slots.iter().rev().fold(0, |word, slot| word << bits | u64::from(*slot));
        let words = slots.chunks((u64::BITS / bits) as usize).map(word).collect();
        Self { words, len: slots.len() as u32, bits }
    }

    fn get(&self, slot: usize) -> u16 {
        let first = slot * self.bits as usize;
        let word = self.words[first / u64::BITS as usize] >> (first % u64::BITS as usize);
        (word & ((1 << self.bits) - 1)) as u16
    }
}

/// The endpoints of a service port with what is known of each: bits of [`weir_common::service::member`]. A copy
/// shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(Arc<[(Backend, u32)]>);

impl Members {
    /// What is known of an endpoint.
    pub fn get(&self, backend: &Backend) -> Option<&u32> {
        let position = self.0.binary_search_by_key(backend, |(other, _)| *other).ok()?;
        Some(&self.0[position].1)
    }

    /// Whether it is an endpoint of the service port.
    pub fn contains_key(&self, backend: &Backend) -> bool {
        self.get(backend).is_some()
    }

    /// All of them, in the order of their addresses.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Backend, &u32)> + Clone {
        self.0.iter().map(|(backend, bits)| (backend, bits))
    }

    /// Addresses and ports, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Backend> + Clone {
        self.0.iter().map(|(backend, _)| backend)
    }

    /// What is known of each, in the same order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &u32> + Clone {
        self.0.iter().map(|(_, bits)| bits)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<Backend, u32>> for Members {
    fn from(members: BTreeMap<Backend, u32>) -> Self {
        Self(members.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn backends(count: u16) -> Vec<Backend> {
        (0..count).map(|port| Backend { address: IpAddr::from([10, 0, 0, 1]), port }).collect()
    }

    proptest! {
        #[test]
        fn a_ring_has_the_slots_that_it_was_made_of(
            (count, slots) in prop_oneof![1_u16..20, 1_u16..700, Just(u16::MAX)]
                .prop_flat_map(|count| (Just(count), prop::collection::vec(0..count, 1..300))),
        ) {
            let ring = Ring::new(backends(count), &slots);
            prop_assert_eq!(ring.slots().collect::<Vec<_>>(), &*slots);
            prop_assert_eq!(ring.len(), slots.len());
            for (hash, slot) in slots.iter().enumerate() {
                prop_assert_eq!(ring.at(hash).port, *slot);
                prop_assert_eq!(ring.at(hash + slots.len()).port, *slot);
            }
        }
    }

    #[test]
    fn a_ring_of_four_backends_takes_two_bits_for_a_slot() {
        assert_eq!(Ring::new(backends(4), &[3; 509]).slots.words.len(), 16);
        assert_eq!(Ring::new(backends(5), &[4; 509]).slots.words.len(), 32);
        assert_eq!(Ring::new(Vec::new(), &[]), Ring::default());
    }
}
