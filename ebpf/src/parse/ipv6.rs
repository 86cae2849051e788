//! IPv6 and its extension headers (RFC 8200).

use weir_common::{
    addr::{Be16, V6},
    header::{Extension, Ipv6, protocol},
    reason::Reason,
};

use super::{IP_OFFSET, Packet, WALK, transport};
use crate::{
    ctx::{Ctx, Raw},
    family::Inet6,
    slow, words,
    work::{Cursor, Refused, Work},
};

/// Most extension headers that are passed on. Hosts send one or two; the limit is also that of the verifier's patience.
const MAX_EXTENSIONS: usize = 6;
const MORE_FRAGMENTS: u16 = 0x0001;
const OFFSET_MASK: u16 = 0xfff8;

/// Parses an IPv6 packet.
///
/// # Errors
/// A reason for what is malformed or not passed on.
#[inline(always)]
pub fn parse<R: Raw>(ctx: &Ctx<R>, work: &mut Work<V6>) -> Result<(), Refused> {
    let ip = ctx.header::<Ipv6>(IP_OFFSET)?;
    if ip.version_class_flow[0] >> 4 != 6 {
        return Err(Reason::InvalidPacket.into());
    }
    let first = IP_OFFSET + size_of::<Ipv6>() as u32;
    let available = ctx.len().wrapping_sub(first);
    let payload_len = match u32::from(ip.payload_len.get()) {
        // A segmentation-offload packet of more than 64 KiB has no length of its own (BIG TCP).
        0 if ctx.gso_size() != 0 => available,
        len => len,
    };
    if payload_len > available || ctx.len() < first {
        return Err(Reason::InvalidPacket.into());
    }
    let end = first + payload_len;
    let packet = &mut work.packet;
    // SAFETY: two places of one type each, in the map and in the packet.
    unsafe {
        words::copy(&raw mut packet.key.src, &raw const ip.src);
        words::copy(&raw mut packet.key.dst, &raw const ip.dst);
    }
    packet.key.sport = Be16(0);
    packet.key.dport = Be16(0);
    packet.key.scope = 0;
    packet.key.protocol = u32::from(ip.next_header);
    packet.l4 = first;
    packet.tcp_flags = 0;
    packet.icmp_type = 0;
    packet.ttl = ip.hop_limit;
    packet.piece.id = 0;
    packet.piece.start = 0;
    packet.piece.is_fragment = false;
    if !is_transport(packet.protocol()) {
        slow::heed(R::walk_extensions(ctx, end))?;
    }
    let packet = &mut work.packet;
    if packet.l4 > end {
        return Err(Reason::InvalidPacket.into());
    }
    let data_len = end - packet.l4;
    packet.piece.end = packet.piece.start + data_len;
    slow::settle();
    transport::parse::<Inet6, R>(ctx, work, data_len)
}

#[inline(always)]
fn is_transport(next: u8) -> bool {
    next == protocol::TCP || next == protocol::UDP || next == protocol::ICMPV6 || next == protocol::SCTP
}

/// Walks to the transport header, from the header that the packet's protocol and `l4` name, in a packet
/// that ends at `end`. Hop-by-hop options may only come first, destination options any number of times, a
/// fragment header once and last; routing, authentication and all others are refused.
///
/// # Errors
/// [`Reason::InvalidExtensionHeader`], or [`Reason::InvalidPacket`] when the chain is cut short.
#[inline(always)]
pub fn walk(ctx: &Ctx, packet: &mut Packet<V6>, at: &mut Cursor<u32>, end: u32) -> Result<(), Reason> {
    ctx.pull(WALK);
    let mut next = packet.protocol();
    at.set(packet.l4);
    for position in 0..MAX_EXTENSIONS {
        let offset = at.get();
        let header = ctx.header::<Extension>(offset).map_err(|_| Reason::InvalidExtensionHeader)?;
        let following = header.next_header;
        match next {
            protocol::HOP_BY_HOP if position == 0 => at.set(offset + 8 + u32::from(header.len) * 8),
            protocol::DESTINATION_OPTIONS => at.set(offset + 8 + u32::from(header.len) * 8),
            protocol::FRAGMENT => {
                at.set(offset + 8);
                let field = header.fragment.get();
                packet.piece.id = u32::from_ne_bytes(header.id);
                packet.piece.start = u32::from(field & OFFSET_MASK);
                // An atomic fragment is a whole datagram (RFC 6946).
                packet.piece.is_fragment = field & (OFFSET_MASK | MORE_FRAGMENTS) != 0;
                // Later fragments do not show what follows; headers there could not be judged alike.
                if !is_transport(following) {
                    return Err(Reason::InvalidExtensionHeader);
                }
            }
            _ => return Err(Reason::InvalidExtensionHeader),
        }
        next = following;
        if at.get() > end {
            return Err(Reason::InvalidPacket);
        }
        if is_transport(next) {
            packet.l4 = at.get();
            packet.key.protocol = u32::from(next);
            return Ok(());
        }
    }
    Err(Reason::InvalidExtensionHeader)
}
