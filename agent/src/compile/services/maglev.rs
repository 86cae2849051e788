//! Maglev rings: consistent hashing with an almost perfect balance (Eisenbud et al., NSDI 2016).
//!
//! A ring depends on the set of backends alone, never on their order, on the node or on the machine:
//! two nodes that see the same backends send the same connection to the same one.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::endpoints::Weighted;
use crate::datapath::{Backend, Ring};

/// Slots per backend that a ring is to have.
const SLOTS_PER_BACKEND: usize = 100;

/// Sizes of rings. Few and far between: a ring whose size changes sends most connections elsewhere,
/// one whose size stays sends only those of the backend that went.
const SIZES: [usize; 9] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537];

/// Slots of a ring for this many backends: 1 for one, else the smallest size with a hundred slots for
/// each, at most 65,537.
pub fn size_for(backends: usize) -> usize {
    match backends {
        0 => 0,
        1 => 1,
        _ => {
            let wanted = backends * SLOTS_PER_BACKEND;
            SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1])
        }
    }
}

/// The ring of `size` slots, a prime or 1, for backends with their weights: each gets slots in proportion
/// to its weight, and none with weight 0. Of more than 65,535 backends the rest are left out.
pub fn ring(backends: &[(Backend, u32)], size: usize) -> Ring {
    let mut backends: Vec<_> = backends.iter().copied().filter(|(_, weight)| *weight > 0).collect();
    backends.sort_unstable();
    backends.dedup_by_key(|(backend, _)| *backend);
    backends.truncate(MOST);
    let slots = fill(&backends, if backends.is_empty() { 0 } else { size });
    Ring::new(backends.into_iter().map(|(backend, _)| backend).collect(), &slots)
}

/// Most backends of a ring, as many as its slots can tell apart.
const MOST: usize = FREE as usize;

/// Slots of a ring at the edge: there the connections that a change moves are other people's.
const EDGE_SIZE: usize = SIZES[SIZES.len() - 1];

/// Rings that were built, by size and backends: services often have the same ones, and most have one ring
/// for several frontends.
#[derive(Default)]
pub(super) struct Rings(HashMap<(usize, Vec<Weighted>), Arc<Ring>>);

impl Rings {
    /// The ring that clients choose from.
    pub(super) fn get(&mut self, backends: &[Weighted]) -> Arc<Ring> {
        self.sized(backends, size_for(backends.len()))
    }

    /// The ring that clients outside of the cluster choose from at the edge.
    pub(super) fn at_edge(&mut self, backends: &[Weighted]) -> Arc<Ring> {
        self.sized(backends, if backends.len() < 2 { backends.len() } else { EDGE_SIZE })
    }

    fn sized(&mut self, backends: &[Weighted], size: usize) -> Arc<Ring> {
        let built = self.0.entry((size, backends.to_vec()));
        Arc::clone(built.or_insert_with(|| Arc::new(ring(backends, size))))
    }
}

/// A backend's walk over the slots of a ring: its preferences, each slot once.
struct Walk {
    next: usize,
    skip: usize,
    weight: u64,
    credit: u64,
}

const FREE: u16 = u16::MAX;

/// Lets the backends take turns; at each turn one takes the next slot of its walk that is still free. One
/// with half of the greatest weight takes every other turn.
fn fill(backends: &[Weighted], size: usize) -> Vec<u16> {
    let mut slots = vec![FREE; size];
    let turn = u64::from(backends.iter().map(|(_, weight)| *weight).max().unwrap_or(0));
    let mut walks: Vec<_> =
        backends.iter().map(|(backend, weight)| Walk::new(backend, size, *weight)).collect();
    let mut free = size;
    while free > 0 {
        for (walk, index) in walks.iter_mut().zip(0..) {
            walk.credit += walk.weight;
            if walk.credit < turn {
                continue;
            }
            walk.credit -= turn;
            walk.take(&mut slots, index);
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
    slots
}

impl Walk {
    fn new(backend: &Backend, size: usize, weight: u32) -> Self {
        let offset = hash(backend, 0) % size.max(1) as u64;
        // Any step but a multiple of a prime size visits every slot.
        let skip = hash(backend, 1) % (size.max(2) - 1) as u64 + 1;
        Self { next: offset as usize, skip: skip as usize, weight: u64::from(weight), credit: 0 }
    }

    /// Takes the next free slot; there must be one.
    fn take(&mut self, slots: &mut [u16], index: u16) {
        while slots[self.next] != FREE {
            self.advance(slots.len());
        }
        slots[self.next] = index;
    }

    fn advance(&mut self, size: usize) {
        self.next += self.skip;
        if self.next >= size {
            self.next -= size;
        }
    }
}

/// A hash of a backend that is the same everywhere and for ever: every node must come to the same ring.
fn hash(backend: &Backend, seed: u64) -> u64 {
    let address = match backend.address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    [address as u64, (address >> 64) as u64, u64::from(backend.port)]
        .into_iter()
        .fold(mix(seed), |state, word| mix(state ^ word))
}

/// The output function of SplitMix64, a bijection that spreads every input bit.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn backends(count: u32) -> Vec<(Backend, u32)> {
        (0..count)
            .map(|n| (Backend { address: IpAddr::V4((0x0af4_0100 + n).into()), port: 8080 }, 1))
            .collect()
    }

    fn shares(ring: &Ring) -> BTreeMap<Backend, usize> {
        let mut shares = BTreeMap::new();
        for backend in ring.iter() {
            *shares.entry(backend).or_default() += 1;
        }
        shares
    }

    #[test]
    fn a_ring_is_a_prime_number_of_slots_a_hundred_for_each_backend() {
        for size in SIZES {
            assert!((2..size).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
        }
        assert_eq!((size_for(0), size_for(1), size_for(2), size_for(3)), (0, 1, 251, 509));
        assert_eq!((size_for(5), size_for(6), size_for(655), size_for(5000)), (509, 1021, 65537, 65537));
    }

    #[test]
    fn equal_backends_have_equal_shares() {
        for count in [1, 2, 3, 4, 7, 20, 100, 500] {
            let ring = ring(&backends(count), size_for(count as usize));
            let shares = shares(&ring);
            assert_eq!(shares.len(), count as usize);
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            assert!(most - least <= 1, "{count} backends: {least} to {most} slots");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut backends = backends(4);
        for ((_, weight), share) in backends.iter_mut().zip([3, 1, 0, 2]) {
            *weight = share;
        }
        let ring = ring(&backends, 65537);
        let shares = shares(&ring);
        for (backend, weight) in &backends {
            let got = *shares.get(backend).unwrap_or(&0) as f64 / 65537.0;
            assert!((got - f64::from(*weight) / 6.0).abs() < 0.001, "weight {weight}: {got}");
        }
    }

    #[test]
    fn a_backend_that_goes_hardly_moves_the_slots_of_the_others() {
        let all = backends(100);
        let before = ring(&all, 65537);
        for gone in [0, 1, 42, 99] {
            let mut left = all.clone();
            let (gone, _) = left.remove(gone);
            let after = ring(&left, 65537);
            let others = before.iter().zip(after.iter()).filter(|(before, _)| *before != gone);
            let moved = others.clone().filter(|(before, after)| before != after).count();
            assert!((moved as f64) < 0.008 * others.count() as f64, "{moved} slots moved without {gone:?}");
        }
    }

    #[test]
    fn one_ring_is_kept_for_one_set_of_backends() {
        let mut rings = Rings::default();
        let backends = backends(3);
        assert!(Arc::ptr_eq(&rings.get(&backends), &rings.get(&backends)));
        assert!(!Arc::ptr_eq(&rings.get(&backends), &rings.get(&backends[1..])));
        let heavy: Vec<_> = backends.iter().map(|(backend, weight)| (*backend, weight + 1)).collect();
        assert!(!Arc::ptr_eq(&rings.get(&backends), &rings.get(&heavy)));
    }

    #[test]
    fn a_ring_at_the_edge_is_as_large_as_rings_get() {
        let mut rings = Rings::default();
        let backends = backends(3);
        assert_eq!((rings.at_edge(&backends).len(), rings.get(&backends).len()), (65537, 509));
        assert_eq!((rings.at_edge(&backends[..1]).len(), rings.at_edge(&[]).len()), (1, 0));
    }

    /// A ring must not change when weir does: nodes of two versions balance one service.
    #[test]
    fn the_ring_of_known_backends_is_known() {
        let ring = ring(&backends(3), 11);
        assert_eq!(ring.slots().collect::<Vec<_>>(), [1, 1, 2, 1, 2, 0, 0, 2, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn the_order_of_backends_does_not_matter(
            backends in proptest::collection::btree_map(any::<([u8; 16], u16)>(), 1..4_u32, 1..12)
                .prop_map(|map| map.into_iter().map(|((address, port), weight)| (Backend { address: address.into(), port }, weight)).collect::<Vec<_>>()),
            rotate: usize,
        ) {
            let mut other = backends.clone();
            other.reverse();
            other.rotate_left(rotate % backends.len());
            prop_assert_eq!(ring(&backends, 251), ring(&other, 251));
        }
    }
}
