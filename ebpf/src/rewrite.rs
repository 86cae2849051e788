//! Rewriting a packet at TC: addresses, ports, hop limit, checksums.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use weir_common::{
    addr::{Addr, Be16},
    checksum::Change,
    flow::Tuple,
    header::{Eth, Ipv4},
    reason::Reason,
};

use crate::{
    ctx::Ctx,
    family::Family,
    flow::tuple_of,
    parse::{IP_OFFSET, Kind, Packet},
    words,
};

const TTL_V4: u32 = IP_OFFSET + core::mem::offset_of!(Ipv4, ttl) as u32;
const CHECK_V4: u32 = IP_OFFSET + core::mem::offset_of!(Ipv4, check) as u32;
const HOP_LIMIT_V6: u32 = IP_OFFSET + core::mem::offset_of!(weir_common::header::Ipv6, hop_limit) as u32;

/// Offsets of the checksum in the transport headers.
const TCP_CHECK: u32 = 16;
const UDP_CHECK: u32 = 6;
const ICMP_CHECK: u32 = 2;

/// Takes one off the hop limit, as a router does. The caller has seen that it is over 1.
#[inline(always)]
pub fn decrement_hops<F: Family>(ctx: &Ctx, ttl: u8) -> Result<(), Reason> {
    if F::VERSION == 6 {
        return ctx.write(HOP_LIMIT_V6, ttl - 1);
    }
    // TTL is the first byte of a word whose second byte stays.
    let change = Change::new().half(u16::from_ne_bytes([ttl, 0]), u16::from_ne_bytes([ttl - 1, 0]));
    let check = ctx.header::<Bytes<Be16>>(CHECK_V4)?.0;
    ctx.write(TTL_V4, ttl - 1)?;
    ctx.write(CHECK_V4, Bytes(change.apply(check)))
}

/// Gives the frame to `mac`, from the address that it was sent to.
#[inline(always)]
pub fn address_frame(ctx: &Ctx, mac: &[u8; 6]) -> Result<(), Reason> {
    let eth = ctx.header_mut::<Eth>(0)?;
    // SAFETY: places in the packet and in the map.
    unsafe {
        words::copy(&raw mut eth.src, &raw const eth.dst);
        words::copy(&raw mut eth.dst, mac);
    }
    Ok(())
}

/// Puts other addresses into the IP header, and adds that to `change`, for checksums that cover them too.
#[inline(always)]
pub fn addresses<F: Family>(
    ctx: &Ctx,
    old: (F::Addr, F::Addr),
    new: (F::Addr, F::Addr),
    change: &mut Change,
) -> Result<(), Reason> {
    *change = change.addr(old.0, new.0).addr(old.1, new.1);
    ctx.write(F::SRC_OFFSET, Bytes(new.0))?;
    ctx.write(F::DST_OFFSET, Bytes(new.1))?;
    if F::VERSION == 4 {
        let check = ctx.header::<Bytes<Be16>>(CHECK_V4)?.0;
        ctx.write(CHECK_V4, Bytes(change.apply(check)))?;
    }
    Ok(())
}

/// A value of alignment 1.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Bytes<T: Copy>(pub T);

/// Turns the packet's addresses and ports into `to`, and mends every checksum that covers them.
///
/// # Errors
/// [`Reason::RewriteFailed`] when the kernel refuses.
#[inline(always)]
pub fn translate<F: Family>(ctx: &Ctx, packet: &Packet<F::Addr>, to: &Tuple<F::Addr>) -> Result<(), Reason> {
    let from = tuple_of(&packet.key);
    let mut moved = Change::new();
    addresses::<F>(ctx, (from.src, from.dst), (to.src, to.dst), &mut moved)?;
    if packet.piece.is_later() {
        // Its transport header, and the checksum over all of the datagram, went with the first fragment.
        return Ok(());
    }
    let (check, covers_addresses, flags) = match packet.kind {
        Kind::Tcp => (TCP_CHECK, true, 0),
        Kind::Udp => (UDP_CHECK, true, u64::from(BPF_F_MARK_MANGLED_0)),
        Kind::Sctp => return ports_alone(&from, to),
        // Of the two, only ICMPv6 has the addresses in its checksum (RFC 4443, section 2.3).
        _ => (ICMP_CHECK, F::VERSION == 6, 0),
    };
    let ports = Change::new().port(from.sport, to.sport).port(from.dport, to.dport);
    let ports_change = from.sport != to.sport || from.dport != to.dport;
    if ports_change {
        match packet.kind {
            Kind::Tcp | Kind::Udp => ctx.write(packet.l4, Bytes((to.sport, to.dport)))?,
            // An echo's identifier is not rewritten: nothing maps several senders to one address.
            _ => return Err(Reason::RewriteFailed),
        }
    }
    if covers_addresses {
        ctx.replace_l4_check(packet.l4 + check, moved.folded32(), flags | u64::from(BPF_F_PSEUDO_HDR))?;
    }
    if ports_change {
        ctx.replace_l4_check(packet.l4 + check, ports.folded32(), flags)?;
    }
    Ok(())
}

/// SCTP's CRC covers its ports but no address: other addresses need no change of the packet, other
/// ports would need the CRC of all of it.
#[inline(always)]
fn ports_alone<A: Addr>(from: &Tuple<A>, to: &Tuple<A>) -> Result<(), Reason> {
    if from.sport == to.sport && from.dport == to.dport { Ok(()) } else { Err(Reason::RewriteFailed) }
}
