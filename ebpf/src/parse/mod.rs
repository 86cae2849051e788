//! Headers. What is not fully understood is refused with a reason.

pub mod ipv4;
pub mod ipv6;
pub mod transport;

use weir_common::{
    addr::Addr,
    flow::FlowKey,
    header::{ETHERTYPES_VLAN, Eth},
    reason::Reason,
};

use crate::ctx::Ctx;

/// Where the header after Ethernet starts.
pub const IP_OFFSET: u32 = size_of::<Eth>() as u32;

/// How much of a frame must be readable before its headers are walked: the longest IPv4 header, or the
/// longest chain of IPv6 headers that is passed on, and TCP with all its options.
const WALK: u32 = 512;

/// What follows the IP header, and so what the ports of the key stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP, the ports its own.
    Tcp,
    /// UDP, the ports its own.
    Udp,
    /// SCTP, the ports its own.
    Sctp,
    /// An echo request: source port the identifier, destination port 0.
    EchoRequest,
    /// An echo reply: source port 0, destination port the identifier.
    EchoReply,
    /// An ICMP error; it belongs to the flow of the packet that it quotes.
    IcmpError,
    /// Neighbour discovery.
    Neighbour,
}

/// Where a fragment lies in its datagram. Offsets in bytes of the datagram's data.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Piece {
    /// Identification, in network order.
    pub id: u32,
    /// Where this fragment starts.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
    /// Whether it is a fragment at all.
    pub is_fragment: bool,
}

impl Piece {
    /// A fragment that is not the first: it has no transport header.
    #[inline(always)]
    pub fn is_later(&self) -> bool {
        self.start != 0
    }
}

/// A packet, parsed.
#[repr(C)]
pub struct Packet<A> {
    /// Addresses and ports; the scope is filled in by the hook.
    pub key: FlowKey<A>,
    /// What it is.
    pub kind: Kind,
    /// Where the transport header starts in the frame.
    pub l4: u32,
    /// TCP flags, 0 for others.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The ICMP type, 0 for others.
    pub icmp_type: u8,
    /// Which part of a datagram it is.
    pub piece: Piece,
}

impl<A: Addr> Packet<A> {
    /// The transport protocol by IANA number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.key.protocol as u8
    }
}

/// The ethertype of the frame.
///
/// # Errors
/// [`Reason::VlanFiltered`] for a tag of any kind at any depth: the kernel takes one off and keeps it
/// beside the packet, others still stand in the frame.
#[inline(always)]
pub fn ethertype(ctx: &Ctx) -> Result<u16, Reason> {
    if ctx.vlan_present() != 0 {
        return Err(Reason::VlanFiltered);
    }
    ctx.pull(IP_OFFSET + 40);
    let ethertype = ctx.header::<Eth>(0)?.ethertype.get();
    if ETHERTYPES_VLAN.contains(&ethertype) {
        return Err(Reason::VlanFiltered);
    }
    Ok(ethertype)
}
