//! ARP and neighbour discovery: a pod may speak for its own addresses only.

use weir_common::{
    addr::{Addr, V4, V6},
    header::{Arp, ETHERTYPE_IPV4, Eth, Neighbour, icmp},
    reason::Reason,
};

use crate::{
    ctx::Ctx,
    family::{Family, Inet, Inet6},
    parse::{IP_OFFSET, Packet},
};

const HARDWARE_ETHERNET: u16 = 1;
const OPERATION_REQUEST: u16 = 1;
const OPERATION_REPLY: u16 = 2;

/// Whether a pod behind this interface has the address.
#[inline(always)]
fn is_own<F: Family>(ctx: &Ctx, addr: F::Addr) -> bool {
    F::endpoint(&addr).is_some_and(|endpoint| endpoint.ifindex == ctx.ifindex())
}

/// Judges an ARP message from a pod: requests and replies whose sender is the pod itself, with the MAC
/// address that the frame comes from. A probe for an own address has no sender (RFC 5227).
///
/// # Errors
/// [`Reason::InvalidNeighbour`].
#[inline(always)]
pub fn check_arp(ctx: &Ctx) -> Result<(), Reason> {
    let eth = ctx.header::<Eth>(0)?;
    let arp = ctx.header::<Arp>(IP_OFFSET)?;
    let operation = arp.operation.get();
    let is_ethernet_ipv4 = arp.hardware.get() == HARDWARE_ETHERNET
        && arp.protocol.get() == ETHERTYPE_IPV4
        && arp.hardware_len == 6
        && arp.protocol_len == 4;
    if !is_ethernet_ipv4 || arp.sender_mac != eth.src {
        return Err(Reason::InvalidNeighbour);
    }
    let sender = V4::from_octets(arp.sender);
    let speaks_for =
        if sender == V4(0) && operation == OPERATION_REQUEST { V4::from_octets(arp.target) } else { sender };
    let is_message = operation == OPERATION_REQUEST || operation == OPERATION_REPLY;
    if is_message && is_own::<Inet>(ctx, speaks_for) { Ok(()) } else { Err(Reason::InvalidNeighbour) }
}

/// Judges a neighbour discovery message from a pod (RFC 4861): solicitations for routers, for neighbours,
/// and advertisements of own addresses, each with the hop limit that shows it was not routed. Router
/// advertisements and redirects are never a pod's to send.
///
/// # Errors
/// [`Reason::InvalidNeighbour`].
#[inline(always)]
pub fn check_discovery(ctx: &Ctx, packet: &Packet<V6>) -> Result<(), Reason> {
    let src = packet.key.src;
    let is_unspecified = src == V6([0; 4]);
    let from_self = is_unspecified || is_link_local(src) || is_own::<Inet6>(ctx, src);
    if packet.ttl != 255 || !from_self {
        return Err(Reason::InvalidNeighbour);
    }
    match packet.icmp_type {
        icmp::ROUTER_SOLICITATION => Ok(()),
        icmp::NEIGHBOUR_SOLICITATION => {
            let target = ctx.header::<Neighbour>(packet.l4)?.target;
            // Without a source it asks whether an address of its own is free (RFC 4862).
            if !is_unspecified || may_advertise(ctx, target) { Ok(()) } else { Err(Reason::InvalidNeighbour) }
        }
        icmp::NEIGHBOUR_ADVERTISEMENT => {
            let target = ctx.header::<Neighbour>(packet.l4)?.target;
            if may_advertise(ctx, target) { Ok(()) } else { Err(Reason::InvalidNeighbour) }
        }
        _ => Err(Reason::InvalidNeighbour),
    }
}

/// Link-local addresses mean nothing beyond the pod's own link to the node.
#[inline(always)]
fn may_advertise(ctx: &Ctx, target: V6) -> bool {
    is_link_local(target) || is_own::<Inet6>(ctx, target)
}

#[inline(always)]
fn is_link_local(addr: V6) -> bool {
    u32::from_be(addr.words()[0]) >> 22 == 0xfe80 >> 6
}
