//! Rewriting a packet at TC: addresses, ports, checksums, and the frame around it.

use weir_common::{
    addr::{Addr, Be16},
    checksum::Change,
    crc32c,
    flow::Tuple,
    header::{Eth, Icmp, IpHeader, Sctp},
    reason::Reason,
};

use crate::{
    ctx::{CheckField, Ctx, Raw},
    family::Family,
    parse::{IP_OFFSET, Kind, Packet},
    slow, words,
};

/// Offsets of the checksum in the transport headers.
const TCP_CHECK: u64 = 16;
const UDP_CHECK: u64 = 6;

/// A frame as far as a router changes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame<H: Copy> {
    eth: Eth,
    ip: H,
}

/// Gives the frame to `mac`, from the address that it was sent to, and takes one off its hops, which the
/// caller has seen to be over 1.
///
/// # Errors
/// [`Reason::InvalidPacket`] when its headers cannot be reached.
#[inline(always)]
pub fn route<F: Family>(ctx: &Ctx<impl Raw>, mac: &[u8; 6]) -> Result<(), Reason> {
    let frame = ctx.header_mut::<Frame<F::Header>>(0)?;
    address(&mut frame.eth, mac);
    frame.ip.take_hop();
    Ok(())
}

/// Gives the frame to `mac`, from the address that it was sent to.
///
/// # Errors
/// As [`route`].
#[inline(always)]
pub fn address_frame(ctx: &Ctx, mac: &[u8; 6]) -> Result<(), Reason> {
    address(ctx.header_mut(0)?, mac);
    Ok(())
}

#[inline(always)]
fn address(eth: &mut Eth, mac: &[u8; 6]) {
    // SAFETY: places of one type, in the packet and in a map.
    unsafe {
        words::copy(&raw mut eth.src, &raw const eth.dst);
        words::copy(&raw mut eth.dst, mac);
    }
}

/// Turns the packet's addresses and ports into `to`, and mends every checksum that covers them.
///
/// # Errors
/// [`Reason::RewriteFailed`] when it cannot be done, or the kernel refuses.
#[inline(always)]
pub fn translate<F: Family, R: Raw>(
    ctx: &Ctx<R>,
    packet: &Packet<F::Addr>,
    to: &Tuple<F::Addr>,
) -> Result<(), Reason> {
    let key = &packet.key;
    let moved = Change::new().addr(key.src, to.src).addr(key.dst, to.dst);
    let ip = ctx.header_mut::<F::Header>(IP_OFFSET)?;
    // SAFETY: the header's two addresses, and those that a tuple begins with.
    unsafe { words::copy(ip.addresses(), (&raw const to.src).cast()) };
    ip.mend(moved);
    if packet.piece.is_later() {
        // Its transport header, and the checksum over all of the datagram, went with the first fragment.
        return Ok(());
    }
    let ports_change = key.sport != to.sport || key.dport != to.dport;
    if ports_change {
        match packet.kind {
            Kind::Tcp | Kind::Udp => {
                *ctx.header_mut(packet.l4)? = Ports { sport: to.sport, dport: to.dport };
            }
            Kind::Sctp => R::mend_sctp(ctx, packet, to)?,
            // The identifier: one port is it, the other is 0 before and after.
            _ => ctx.header_mut::<Icmp>(packet.l4)?.id = Be16(to.sport.0 | to.dport.0),
        }
    }
    if packet.kind == Kind::Sctp {
        return Ok(());
    }
    let check =
        CheckField { at: packet.l4 + by_kind(CHECK_OFFSETS, packet.kind), is_udp: packet.kind == Kind::Udp };
    let ports = Change::new().port(key.sport, to.sport).port(key.dport, to.dport);
    if covers_addresses::<F>(packet.kind) {
        R::mend_l4_check(ctx, check, moved, ports_change.then_some(ports))
    } else if ports_change {
        ctx.replace_l4_check(check.at, ports.folded32(), check.flags())
    } else {
        Ok(())
    }
}

/// Changes the ports of an SCTP packet, and its CRC, which covers them. A field of zero means that the CRC is
/// left to the device, which knows the ports then.
///
/// # Errors
/// [`Reason::RewriteFailed`] for a fragment: the CRC's change depends on the length of the datagram.
#[inline(always)]
pub fn mend_sctp<A: Addr>(ctx: &Ctx, packet: &Packet<A>, to: &Tuple<A>) -> Result<(), Reason> {
    if packet.piece.is_fragment || packet.piece.end >= crc32c::LIMIT {
        return Err(Reason::RewriteFailed);
    }
    let word = |sport: Be16, dport: Be16| u32::from(sport.0) | u32::from(dport.0) << 16;
    let change = word(packet.key.sport, packet.key.dport) ^ word(to.sport, to.dport);
    let difference = slow::hear(slow::crc_difference(change, packet.piece.end));
    let header = ctx.header_mut::<Sctp>(packet.l4)?;
    (header.sport, header.dport) = (to.sport, to.dport);
    let check = u32::from_le_bytes(header.check);
    if check != 0 {
        header.check = (check ^ difference).to_le_bytes();
    }
    Ok(())
}

/// The ports that a transport header begins with.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ports {
    /// Source.
    pub sport: Be16,
    /// Destination.
    pub dport: Be16,
}

/// Whether the transport checksum is also over the addresses: not SCTP's, and of the two ICMPs only the
/// later one's (RFC 4443, section 2.3).
#[inline(always)]
fn covers_addresses<F: Family>(kind: Kind) -> bool {
    match kind {
        Kind::Tcp | Kind::Udp => true,
        Kind::Sctp => false,
        _ => F::VERSION == 6,
    }
}

/// Where the checksum stands in the transport header, by [`Kind`]; ICMP's where nothing else is said.
const CHECK_OFFSETS: u64 = 0x0002_0202_0200_0000 | TCP_CHECK | UDP_CHECK << (Kind::Udp as u32 * 8);

/// A byte of a table by kind: looked up without a branch, of which the verifier would walk every way.
#[inline(always)]
fn by_kind(table: u64, kind: Kind) -> u32 {
    (table >> (kind as u32 * 8)) as u32 & 0xff
}
