//! Services: frontends, rings of backends.

use crate::{
    addr::{Addr, Be16},
    plain,
};

/// Key of the `FRONTENDS_*` maps: an address, port and protocol that a service answers on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrontendKey<A> {
    /// The virtual address.
    pub addr: A,
    /// The service port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u16,
}

/// A run of the `RINGS_*` array that one group of clients chooses from: its slots, packed into elements, and
/// behind them its backends. A slot says which of the backends it is: in one byte where these are at most
/// [`Ring::NARROW_BACKENDS`], else in two, the low one first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ring {
    /// Index of the first element.
    pub offset: u32,
    /// Number of slots, a prime or 1, with [`Ring::NARROW`]; 0: there is no backend for these clients.
    pub len: u32,
}

impl Ring {
    /// Set in [`Ring::len`] where a slot takes one byte. An earlier version had none of those.
    pub const NARROW: u32 = 1 << 31;
    /// Most backends that one byte tells apart.
    pub const NARROW_BACKENDS: usize = 1 << u8::BITS;

    /// A ring of `slots` for so many backends.
    pub const fn new(offset: u32, slots: u32, backends: usize) -> Self {
        let is_narrow = slots > 0 && backends <= Self::NARROW_BACKENDS;
        Self { offset, len: if is_narrow { slots | Self::NARROW } else { slots } }
    }

    /// Number of slots.
    pub const fn slots(&self) -> u32 {
        self.len & !Self::NARROW
    }

    /// Bytes of a slot.
    pub const fn width(&self) -> u32 {
        1 << self.is_wide()
    }

    /// Elements that its slots take.
    pub const fn slot_elements<A>(&self) -> u32 {
        // A rounded-up division without the branch that `div_ceil` has.
        let bytes = self.slots() << self.is_wide();
        (bytes + (Backend::<A>::SLOT_BYTES - 1)) >> Backend::<A>::SLOT_BYTES.ilog2()
    }

    /// Where a slot is: the element, counted from the first, and its first byte there.
    pub const fn place<A>(&self, slot: u32) -> (u32, u32) {
        let byte = slot << self.is_wide();
        (byte / Backend::<A>::SLOT_BYTES, byte % Backend::<A>::SLOT_BYTES)
    }

    /// The backend of the slot at this byte, of the pair of bytes that it is in, the low one first. Without a
    /// branch: the verifier would walk what follows twice.
    pub const fn index_in(&self, pair: u16, byte: u32) -> u32 {
        pair as u32 >> (byte % 2 * u8::BITS) & 0xffff >> (self.is_narrow() * u8::BITS)
    }

    /// Whether a slot takes one byte: 1 or 0.
    const fn is_narrow(&self) -> u32 {
        self.len >> 31
    }

    /// Whether it takes two.
    const fn is_wide(&self) -> u32 {
        1 - self.is_narrow()
    }
}

/// Bits of [`Service::flags`].
pub mod flags {
    /// An empty ring is answered by a drop rather than a reject: endpoints exist, but none that policy lets this node use.
    pub const EMPTY_INTERNAL_DROPS: u32 = 1 << 0;
    /// The same for outside clients.
    pub const EMPTY_EXTERNAL_DROPS: u32 = 1 << 1;
    /// Masquerade connections of pods.
    pub const MASQUERADE_POD: u32 = 1 << 2;
    /// Masquerade connections of the node itself.
    pub const MASQUERADE_NODE: u32 = 1 << 3;
    /// Masquerade connections from outside.
    pub const MASQUERADE_EXTERNAL: u32 = 1 << 4;
    /// Only clients in the service's source ranges may use the frontend; others are dropped.
    pub const SOURCE_RANGES: u32 = 1 << 5;
    /// The ring for pods and the node is of this node's endpoints only.
    pub const INTERNAL_LOCAL: u32 = 1 << 6;
    /// The same for outside clients.
    pub const EXTERNAL_LOCAL: u32 = 1 << 7;
    /// Packets from outside to a backend of another node go there as they are, through a tunnel, and the backend
    /// answers the client itself.
    pub const DSR: u32 = 1 << 8;
    /// The service's packets from outside may be sent on before the stack.
    pub const EDGE: u32 = 1 << 9;
    /// With [`SOURCE_RANGES`]: they are few, and in [`Service::sources`](super::Service::sources) rather than in
    /// `SOURCE_RANGES_*`.
    pub const SOURCES_HERE: u32 = 1 << 10;
}

/// Bits of the values of the `MEMBERS_*` maps.
pub mod member {
    /// It serves: flows of every protocol may stay with it. Without this bit it is still an endpoint of the
    /// service, and connections that it has may come to their end.
    pub const SERVES: u32 = 1 << 0;
    /// It is in the service port's ring of all nodes' endpoints.
    pub const CLUSTER: u32 = 1 << 1;
    /// It is in the service port's ring of this node's endpoints.
    pub const LOCAL: u32 = 1 << 2;
    /// It serves and its health checks do not fail: what it has not answered yet may wait for it.
    pub const SOUND: u32 = 1 << 3;
}

/// Value of the `FRONTENDS_*` maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Number of the service port for people; the key of `MEMBERS_*`. Never 0.
    pub id: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// For pods and the node itself.
    pub internal: Ring,
    /// For clients outside the cluster.
    pub external: Ring,
    /// The port of all backends of a service that is forwarded by [`flags::DSR`], whose packets do not carry it.
    pub target_port: Be16,
    /// Zero.
    pub reserved: u16,
    /// For how many seconds after a client's last connection the next one goes to the same backend; 0: the ring alone says.
    pub affinity: u32,
    /// The clients that may use the frontend, of a service with [`flags::SOURCES_HERE`].
    pub sources: Sources,
}

/// Words of [`Sources`].
const SOURCE_WORDS: usize = 8;

/// A few blocks of addresses: of each the network and the mask, word by word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources([u32; SOURCE_WORDS]);

impl Sources {
    /// Blocks that there is room for: four of IPv4, one of IPv6.
    pub const fn room<A: Addr>() -> usize {
        SOURCE_WORDS / (2 * A::WORDS)
    }

    /// These blocks, each a network and its mask; `None` where they are too many.
    pub fn of<A: Addr>(blocks: &[(A, A)]) -> Option<Self> {
        if blocks.len() > Self::room::<A>() {
            return None;
        }
        // Of no address, the mask of zeroes leaves ones.
        let mut words = [0; SOURCE_WORDS];
        for (number, block) in words.chunks_exact_mut(2 * A::WORDS).enumerate() {
            let (network, mask) = block.split_at_mut(A::WORDS);
            match blocks.get(number) {
                Some((one, other)) => {
                    network.copy_from_slice(&one.words()[..A::WORDS]);
                    mask.copy_from_slice(&other.words()[..A::WORDS]);
                }
                None => network.fill(u32::MAX),
            }
        }
        Some(Self(words))
    }

    /// Whether an address is in one of the blocks. All are looked at: a branch for each would cost more.
    #[inline(always)]
    pub fn contain<A: Addr>(&self, addr: A) -> bool {
        let words = addr.words();
        let mut is_outside = 1;
        let mut block = 0;
        while block < SOURCE_WORDS {
            let mut differing = 0;
            let mut word = 0;
            while word < A::WORDS {
                differing |= words[word] & self.0[block + A::WORDS + word] ^ self.0[block + word];
                word += 1;
            }
            is_outside &= u32::from(differing != 0);
            block += 2 * A::WORDS;
        }
        is_outside == 0
    }
}

/// Element of the `RINGS_*` arrays: a backend, or [`SLOT_BYTES`](Self::SLOT_BYTES) bytes of a ring's slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend<A> {
    /// The endpoint's address.
    pub addr: A,
    /// The endpoint's port.
    pub port: Be16,
    /// Zero.
    pub reserved: u16,
}

impl<A> Backend<A> {
    /// Bytes of slots that one element holds, a power of two.
    pub const SLOT_BYTES: u32 = 1 << size_of::<Self>().ilog2();
}

/// Key of the `MEMBERS_*` maps: an endpoint of a service port, in whatever state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemberKey<A> {
    /// [`Service::id`].
    pub service: u32,
    /// The endpoint.
    pub backend: Backend<A>,
}

/// Key of the `AFFINITY_*` maps: a client of a service port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey<A> {
    /// [`Service::id`].
    pub service: u32,
    /// The client's address.
    pub client: A,
}

/// Value of the `AFFINITY_*` maps: where the client's last connection went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity<A> {
    /// When that was, the low half of the kernel's jiffies.
    pub seen: u32,
    /// The backend.
    pub backend: Backend<A>,
}

/// Key of the `SOURCE_RANGES_*` LPM tries, after the length of its prefix: a client that may use the
/// frontends of a service port that have [`flags::SOURCE_RANGES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceKey<A> {
    /// [`Service::id`], all of which belongs to every prefix.
    pub service: u32,
    /// The client.
    pub client: A,
}

/// Bits that the prefixes of [`SourceKey`] begin with: the service.
pub const SOURCE_PREFIX: u32 = u32::BITS;

plain!(
    AffinityKey<crate::addr::V4>: 8, AffinityKey<crate::addr::V6>: 20,
    Affinity<crate::addr::V4>: 12, Affinity<crate::addr::V6>: 24,
    Ring: 8, Service: 64, Sources: 32,
    SourceKey<crate::addr::V4>: 8, SourceKey<crate::addr::V6>: 20,
    FrontendKey<crate::addr::V4>: 8, FrontendKey<crate::addr::V6>: 20,
    Backend<crate::addr::V4>: 8, Backend<crate::addr::V6>: 20,
    MemberKey<crate::addr::V4>: 12, MemberKey<crate::addr::V6>: 24,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{V4, V6};

    #[test]
    fn slots_of_one_byte_lie_in_an_element_one_after_the_other_and_those_of_two_as_pairs() {
        let (narrow, wide) = (Ring::new(0, 509, 256), Ring::new(0, 509, 257));
        assert_eq!((narrow.slots(), narrow.width(), wide.slots(), wide.width()), (509, 1, 509, 2));
        assert_eq!([0, 7, 8, 508].map(|slot| narrow.place::<V4>(slot)), [(0, 0), (0, 7), (1, 0), (63, 4)]);
        assert_eq!([0, 3, 4, 508].map(|slot| wide.place::<V4>(slot)), [(0, 0), (0, 6), (1, 0), (127, 0)]);
        assert_eq!([15, 16].map(|slot| narrow.place::<V6>(slot)), [(0, 15), (1, 0)]);
        assert_eq!([7, 8].map(|slot| wide.place::<V6>(slot)), [(0, 14), (1, 0)]);
        assert_eq!((narrow.index_in(0x0201, 6), narrow.index_in(0x0201, 7)), (1, 2));
        assert_eq!(wide.index_in(0x0201, 6), 0x0201);
    }

    #[test]
    fn a_list_of_sources_holds_its_blocks_and_nothing_else() {
        let v4 = |octets| V4::from_octets(octets);
        let blocks = [
            (v4([192, 0, 2, 0]), v4([255, 255, 255, 0])),
            (v4([198, 51, 100, 7]), v4([255; 4])),
            (v4([10, 0, 0, 0]), v4([255, 0, 0, 0])),
        ];
        let sources = Sources::of(&blocks).unwrap();
        for inside in [[192, 0, 2, 0], [192, 0, 2, 255], [198, 51, 100, 7], [10, 255, 0, 1]] {
            assert!(sources.contain(v4(inside)), "{inside:?}");
        }
        for outside in [[192, 0, 3, 0], [198, 51, 100, 8], [11, 0, 0, 1], [0; 4], [255; 4]] {
            assert!(!sources.contain(v4(outside)), "{outside:?}");
        }
        assert!(Sources::of(&[blocks[0]; 5]).is_none());
    }

    #[test]
    fn one_block_of_ipv6_fits() {
        let v6 = |first, last| {
            let mut octets = [first; 16];
            octets[15] = last;
            V6::from_octets(octets)
        };
        let block = (v6(0x20, 0), v6(0xff, 0xf0));
        let sources = Sources::of(&[block]).unwrap();
        assert!(sources.contain(v6(0x20, 0x0f)));
        assert!(!sources.contain(v6(0x20, 0x10)) && !sources.contain(v6(0x21, 0)));
        assert!(Sources::of(&[block; 2]).is_none());
    }

    #[test]
    fn a_block_of_everybody_is_one_and_no_block_is_of_nobody() {
        let everybody = Sources::of(&[(V4(0), V4(0))]).unwrap();
        let nobody = Sources::of::<V4>(&[]).unwrap();
        for addr in [V4(0), V4(1), V4(u32::MAX)] {
            assert!(everybody.contain(addr) && !nobody.contain(addr));
        }
    }
}
