//! The flow table: what is known about every live connection, one entry per direction.
//!
//! A table is an `ARRAY` map of [`FlowSet`]s, so that a look-up needs no helper call. A set holds
//! [`WAYS`] entries; a line of tags says which entry may hold a key. Replacement stays inside the set.
//!
//! A tag is the key's hash with, in its low bits, the number of its way and a count of changes; see
//! [`FREE`], [`BUSY`] and [`tag_of`]. A writer takes the way by compare-and-swap of the tag, marks the entry
//! as being written, writes it, and publishes first the entry and then the new tag. A reader that wants one key
//! reads the entry's turn, see [`TURN_BUSY`], the entry, and the turn again; one that wants all of them reads tags,
//! entries, and tags again.
//!
//! An entry goes to the way that its hash names, its home, unless a live flow is there. So a look-up tries the home
//! first, and asks the tags only when it finds somebody else: most packets of known flows take one cache line.
//!
//! The number of the way stands in the tag so that a program gets it out of map memory: the verifier then
//! knows it as any number below [`WAYS`] and walks what follows once, not once for each way. The agent
//! numbers the free tags of a new table; in one of all zeroes every way calls itself 0, and one is used.

use core::mem::offset_of;

use crate::{
    addr::{Addr, Be16, V4, V6, differing},
    plain,
};

/// Entries of one set.
pub const WAYS: usize = 8;
/// The bits of a tag that number its way.
pub const TAG_WAY: u64 = 0x07;
/// The bits of a tag that count changes of its entry, so that a tag that comes back is another one.
pub const TAG_VERSION: u64 = 0xf8;
/// One change.
pub const TAG_CHANGE: u64 = 0x08;
/// Set in the tag of every entry, so that none looks free or busy.
pub const TAG_USED: u64 = 1 << 63;
/// Tag of a free way, to be or-ed with the number of the way.
pub const FREE: u64 = 0;
/// Tag of a way that is being written.
pub const BUSY: u64 = 1 << 32;

/// The bits of [`FlowKey::protocol`] that name the protocol. In an entry the others are its turn.
pub const TURN_PROTOCOL: u32 = 0xff;
/// Set in an entry's turn while the entry is written.
pub const TURN_BUSY: u32 = 0x100;
/// One change in an entry's turn: after 2^23 of them a turn comes back.
pub const TURN_CHANGE: u32 = 0x200;

/// Which packets belong to a direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "the same equality, see below")]
pub struct FlowKey<A> {
    /// Source as the packet carries it on arrival at the hook.
    pub src: A,
    /// Destination as the packet carries it on arrival at the hook.
    pub dst: A,
    /// Source port; the identifier of an echo.
    pub sport: Be16,
    /// Destination port; 0 for an echo.
    pub dport: Be16,
    /// For what a pod sends, the pod's interface: a packet with another pod's address cannot hit that
    /// pod's flows. 0 for what comes through the node's stack.
    pub scope: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// Addresses and ports that a packet leaves with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "the same equality, see below")]
pub struct Tuple<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}

// Equality without branches, for the reason given at `V6`, and because one branch is cheaper than five.
impl<A: Addr> PartialEq for FlowKey<A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (differing(self.src.words(), other.src.words())
            | differing(self.dst.words(), other.dst.words())
            | u32::from(self.sport.0 ^ other.sport.0)
            | u32::from(self.dport.0 ^ other.dport.0)
            | (self.scope ^ other.scope)
            | (self.protocol ^ other.protocol))
            == 0
    }
}

impl<A: Addr> Eq for FlowKey<A> {}

impl<A: Addr> Eq for Tuple<A> {}

impl<A: Addr> PartialEq for Tuple<A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (differing(self.src.words(), other.src.words())
            | differing(self.dst.words(), other.dst.words())
            | u32::from(self.sport.0 ^ other.sport.0)
            | u32::from(self.dport.0 ^ other.dport.0))
            == 0
    }
}

/// One direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowEntry<A> {
    /// The packets it is for; above the protocol stands the entry's turn.
    pub key: FlowKey<A>,
    /// One of [`state`].
    pub state: u8,
    /// Zero.
    pub reserved: u8,
    /// Bits of [`flags`].
    pub flags: u16,
    /// What the packet is rewritten to; equal to the key where nothing is rewritten.
    pub to: Tuple<A>,
    /// Interface the packet is handed to, 0: to the node's stack.
    pub ifindex: u32,
    /// Epoch of the decision.
    pub epoch: u32,
    /// Time of the last packet, the low half of the kernel's jiffies, give or take 64.
    pub seen: u32,
    /// Rule that decided for the sending pod.
    pub egress_rule: u32,
    /// Rule that decided for the receiving pod.
    pub ingress_rule: u32,
    /// Destination MAC address when the packet is handed to an interface.
    pub mac: [u8; 6],
    /// When the other direction's entry was last kept alive, in units of 64 jiffies.
    pub synced: u16,
}

/// Bits of [`FlowEntry::flags`].
pub mod flags {
    /// The entry is for packets back to the one who opened the flow.
    pub const REPLY: u16 = 1 << 0;
    /// Addresses or ports are rewritten.
    pub const REWRITE: u16 = 1 << 1;
    /// The packet goes to a local pod by `bpf_redirect_peer`.
    pub const TO_PEER: u16 = 1 << 2;
    /// A packet of the other direction has been seen.
    pub const ANSWERED: u16 = 1 << 3;
    /// The one who opened the flow is this node itself.
    pub const FROM_NODE: u16 = 1 << 4;
    /// The flow has the node's address and a port of its own.
    pub const MASQUERADED: u16 = 1 << 5;
    /// Where the receiver is no local pod, the packet goes out by the uplink: the stack would take its
    /// source, an address of the node or of a service, for forged.
    pub const BY_UPLINK: u16 = 1 << 6;
    /// The packet goes to a socket of this node as if it came from one: its source is the node's address.
    pub const BY_LOOPBACK: u16 = 1 << 7;
    /// The packet goes, as it is, through a tunnel to the backend of another node, which is the entry's
    /// destination. The backend answers the client itself, so that there is no other direction.
    pub const TUNNEL: u16 = 1 << 8;
    /// The entry's interface and MAC address are those of the next router: XDP may send the packet there.
    pub const EDGE: u16 = 1 << 9;
    /// Never in an entry: this packet, an ICMP error, has been rewritten already.
    pub const REWRITTEN: u16 = 1 << 15;
}

/// States of [`FlowEntry::state`], with timeouts in seconds in [`timeout`](state::timeout).
pub mod state {
    /// Opened, not answered.
    pub const OPENING: u8 = 0;
    /// Packets of both directions seen; for TCP, SYN and SYN+ACK.
    pub const ESTABLISHED: u8 = 1;
    /// A TCP FIN or RST was seen in either direction.
    pub const CLOSING: u8 = 2;

    /// After how many seconds without a packet an entry is dead.
    ///
    /// TCP: RFC 5382 asks for 2 h 4 min when established, 4 min otherwise; here the established time is
    /// 6 h, and 2 min after a FIN or RST, as Linux conntrack has for FIN_WAIT. UDP: RFC 4787 asks for at
    /// least 2 min; Linux conntrack gives 30 s before and 120 s after an answer.
    #[inline(always)]
    pub const fn timeout(state: u8, is_tcp: bool) -> u32 {
        match (state, is_tcp) {
            (CLOSING, _) => 120,
            (ESTABLISHED, true) => 21_600,
            (ESTABLISHED, false) => 120,
            (_, true) => 60,
            (_, false) => 30,
        }
    }
}

/// Element of the `FLOWS_*` arrays.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FlowSet<A> {
    /// One tag per entry.
    pub tags: [u64; WAYS],
    /// The entries.
    pub entries: [FlowEntry<A>; WAYS],
}

/// Key of the `FRAGMENTS_*` maps: a datagram that arrives in fragments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// As in [`FlowKey::scope`].
    pub scope: u32,
    /// Identification, 16 bits for IPv4 and 32 for IPv6, in network order.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// Value of the `FRAGMENTS_*` maps: what the first fragment said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Where the first fragment's data ends, in bytes of the datagram.
    pub first_end: u32,
    /// When the first fragment came, the low half of the kernel's jiffies.
    pub seen: u32,
}

/// How long the fragments of one datagram may take to arrive, in seconds: `net.ipv4.ipfrag_time` of Linux.
pub const FRAGMENT_TIMEOUT: u32 = 30;

plain!(
    FlowKey<V4>: 20, FlowKey<V6>: 44,
    Tuple<V4>: 12, Tuple<V6>: 36,
    FlowEntry<V4>: 64, FlowEntry<V6>: 112,
    FlowSet<V4>: 576, FlowSet<V6>: 960,
    FragmentKey<V4>: 20, FragmentKey<V6>: 44,
    Fragment: 12,
);

impl<A: Addr> FlowKey<A> {
    /// A 64-bit hash: multiply and shift over the key's words, with the finalizer of SplitMix64.
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        let (src, dst) = (self.src.words(), self.dst.words());
        let ports = u64::from(self.sport.0) << 16 | u64::from(self.dport.0);
        let mut hash = mix(0x9e37_79b9_7f4a_7c15, u64::from(self.scope) << 32 | ports);
        hash = mix(hash, u64::from(src[0]) << 32 | u64::from(dst[0]));
        if A::WORDS == 4 {
            hash = mix(hash, u64::from(src[1]) << 32 | u64::from(src[2]));
            hash = mix(hash, u64::from(src[3]) << 32 | u64::from(dst[1]));
            hash = mix(hash, u64::from(dst[2]) << 32 | u64::from(dst[3]));
        }
        mix(hash, u64::from(self.protocol))
    }

    /// The addresses and ports of its packets.
    #[inline(always)]
    pub fn tuple(&self) -> &Tuple<A> {
        const {
            assert!(size_of::<Self>() == size_of::<Tuple<A>>() + 8);
            assert!(offset_of!(Self, src) == offset_of!(Tuple<A>, src));
            assert!(offset_of!(Self, dst) == offset_of!(Tuple<A>, dst));
            assert!(offset_of!(Self, sport) == offset_of!(Tuple<A>, sport));
            assert!(offset_of!(Self, dport) == offset_of!(Tuple<A>, dport));
        }
        // SAFETY: a key begins with the fields of a tuple, as asserted.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// The same, to be written.
    #[inline(always)]
    pub fn tuple_mut(&mut self) -> &mut Tuple<A> {
        // SAFETY: as in `tuple`.
        unsafe { &mut *core::ptr::from_mut(self).cast() }
    }

    /// The key that packets back to the sender of `to` arrive with at a hook of scope `scope`.
    #[inline(always)]
    pub fn reply_to(to: &Tuple<A>, scope: u32, protocol: u32) -> Self {
        Self { src: to.dst, dst: to.src, sport: to.dport, dport: to.sport, scope, protocol }
    }
}

/// One round of the hash.
#[inline(always)]
pub(crate) const fn mix(hash: u64, word: u64) -> u64 {
    let mut hash = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 32;
    hash
}

/// What the tag of a key with this hash has above way and version.
#[inline(always)]
pub const fn tag_of(hash: u64) -> u64 {
    (hash | TAG_USED) & !(TAG_WAY | TAG_VERSION)
}

/// The way that an entry of a key with this hash goes to where nobody lives there, or nobody any more.
#[inline(always)]
pub const fn home_of(hash: u64) -> usize {
    (hash >> 60) as usize & (WAYS - 1)
}

/// The set of a key with this hash, of a table with `mask + 1` sets, a power of two.
///
/// The bits are those that the tag does not keep and some that it does; with at most 2^32 sets two keys
/// of one set still differ in their tags unless they collide in 55 bits, and then the keys are compared.
#[inline(always)]
pub const fn set_of(hash: u64, mask: u32) -> u32 {
    (hash ^ (hash >> 29)) as u32 & mask
}

/// Elapsed jiffies, where both are low halves of the counter: right for up to 2^31 (24 days at 1000 Hz).
#[inline(always)]
pub const fn elapsed(now: u32, seen: u32) -> u32 {
    now.wrapping_sub(seen)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn key(client: u32, sport: u16) -> FlowKey<V4> {
        FlowKey {
            src: V4::from_octets((0x0af4_0000 + client).to_be_bytes()),
            dst: V4::from_octets([10, 96, 0, 10]),
            sport: Be16::new(sport),
            dport: Be16::new(80),
            scope: 7,
            protocol: 6,
        }
    }

    #[test]
    fn flows_spread_evenly_over_the_sets() {
        let mask = 1023;
        let mut fill = HashMap::new();
        for client in 0..32 {
            for sport in 0..1024 {
                *fill.entry(set_of(key(client, 32768 + sport).hash(), mask)).or_insert(0_u32) += 1;
            }
        }
        let (least, most) = (fill.values().min().unwrap(), fill.values().max().unwrap());
        assert_eq!(fill.len(), 1024, "a set stayed empty");
        assert!(*least > 8 && *most < 70, "32 expected in each set, got {least}..{most}");
    }

    #[test]
    fn tags_never_look_free_or_busy() {
        for hash in [0, 1, BUSY, TAG_VERSION, u64::MAX, 1 << 63] {
            let tag = tag_of(hash);
            assert!(tag > BUSY && tag & TAG_USED != 0);
            assert_eq!(tag & (TAG_VERSION | TAG_WAY), 0);
        }
    }

    #[test]
    fn a_reply_key_turns_the_tuple_round() {
        let to = Tuple { src: V4(1), dst: V4(2), sport: Be16(3), dport: Be16(4) };
        let key = FlowKey::reply_to(&to, 9, 17);
        assert_eq!(
            key,
            FlowKey { src: V4(2), dst: V4(1), sport: Be16(4), dport: Be16(3), scope: 9, protocol: 17 }
        );
    }

    #[test]
    fn elapsed_time_survives_the_wrap() {
        assert_eq!(elapsed(5, u32::MAX - 4), 10);
    }
}
