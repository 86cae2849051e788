//! Rings as they lie in `RINGS_*`.

use std::iter;

use weir_common::{
    plain::{Plain, bytes_of, from_bytes},
    service::{Backend, Ring},
};

use super::family::{Ip, backend, backend_of};
use crate::datapath;

/// The elements of a ring that is to stand at a place.
pub(super) fn elements_of<A: Ip>(at: Ring, ring: &datapath::Ring) -> impl Iterator<Item = Backend<A>>
where
    Backend<A>: Plain,
{
    let width = at.width() as usize;
    let mut slots = ring.slots();
    let slots = iter::from_fn(move || {
        let some = slots.by_ref().take(Backend::<A>::SLOT_BYTES as usize / width);
        let mut bytes: Vec<u8> = some.flat_map(|slot| slot.to_le_bytes().into_iter().take(width)).collect();
        if bytes.is_empty() {
            return None;
        }
        bytes.resize(size_of::<Backend<A>>(), 0);
        from_bytes(&bytes)
    });
    // A backend of the other family has no place in a ring; none gets there from a Service.
    slots.chain(ring.backends().iter().map(|backend| backend_of(*backend).unwrap_or_default()))
}

/// The ring that stands at a place, of all elements of the map; `None` when it is empty, or not whole.
pub(super) fn ring_at<A: Ip>(elements: &[Backend<A>], at: Ring) -> Option<datapath::Ring>
where
    Backend<A>: Plain,
{
    let elements = elements.get(at.offset as usize..)?;
    let (packed, backends) = elements.split_at_checked(at.slot_elements::<A>() as usize)?;
    let slot = |number| {
        let (element, byte) = at.place::<A>(number);
        let pair = byte as usize / 2 * 2;
        let bytes = bytes_of(&packed[element as usize]);
        at.index_in(u16::from_le_bytes([bytes[pair], bytes[pair + 1]]), byte) as u16
    };
    let slots: Vec<_> = (0..at.slots()).map(slot).collect();
    let count = usize::from(*slots.iter().max()?) + 1;
    let backends = backends.get(..count)?.iter().map(backend).collect();
    Some(datapath::Ring::new(backends, &slots))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::addr::{V4, V6};

    use super::*;

    /// A ring in which every backend has a slot.
    fn ring(backends: usize, slots: usize, is_v4: bool) -> datapath::Ring {
        let backend = |number: usize| {
            let number = number as u32;
            let address = if is_v4 { V4(number).address() } else { V6([1, 2, 3, number]).address() };
            datapath::Backend { address, port: 8080 }
        };
        let slots: Vec<_> = (0..slots).rev().map(|slot| (slot % backends) as u16).collect();
        datapath::Ring::new((0..backends).map(backend).collect(), &slots)
    }

    /// Checks that a ring is read back as it was written, behind other elements and before others.
    fn check<A: Ip>(at: Ring, ring: &datapath::Ring)
    where
        Backend<A>: Plain,
    {
        let own: Vec<_> = elements_of::<A>(at, ring).collect();
        assert_eq!(own.len(), at.slot_elements::<A>() as usize + ring.backends().len());
        let noise = from_bytes(&[0xa5; 24]).unwrap();
        let mut elements = vec![noise; at.offset as usize];
        elements.extend(own);
        assert_eq!(ring_at(&elements, at).as_ref(), Some(ring));
        elements.push(noise);
        assert_eq!(ring_at(&elements, at).as_ref(), Some(ring));
        elements.truncate(elements.len() - 2);
        assert_eq!(ring_at(&elements, at), None, "the last backend is missing");
    }

    #[test]
    fn a_slot_takes_one_byte_for_up_to_256_backends_and_two_for_more() {
        let taken = |slots, backends| {
            let at = Ring::new(0, slots, backends);
            (at.width(), at.slot_elements::<V4>(), at.slot_elements::<V6>())
        };
        assert_eq!(taken(509, 4), (1, 64, 32));
        assert_eq!(taken(32_749, 256), (1, 4094, 2047));
        assert_eq!(taken(32_749, 257), (2, 8188, 4094));
        assert_eq!(taken(1, 1), (1, 1, 1));
        assert_eq!(Ring::new(0, 0, 0), Ring::default());
    }

    #[test]
    fn rings_about_the_limit_of_one_byte_are_read_as_they_were_written() {
        for backends in [255, 256, 257, 258] {
            for (is_v4, slots) in [(true, 32_749), (false, 32_749), (true, 32_752), (false, 32_752)] {
                let ring = ring(backends, slots, is_v4);
                let at = Ring::new(3, slots as u32, backends);
                if is_v4 { check::<V4>(at, &ring) } else { check::<V6>(at, &ring) }
            }
        }
    }

    proptest! {
        #[test]
        fn a_ring_of_any_size_is_read_as_it_was_written(
            (backends, slots) in (1..600_usize).prop_flat_map(|backends| (Just(backends), backends..2000)),
            offset in 0..40_u32,
            is_v4: bool,
        ) {
            let ring = ring(backends, slots, is_v4);
            // And as an earlier version wrote it, which had slots of two bytes alone.
            for at in [Ring::new(offset, slots as u32, backends), Ring { offset, len: slots as u32 }] {
                if is_v4 { check::<V4>(at, &ring) } else { check::<V6>(at, &ring) }
            }
        }
    }
}
