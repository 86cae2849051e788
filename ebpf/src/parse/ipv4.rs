//! IPv4 (RFC 791).

use weir_common::{
    addr::{Be16, V4},
    header::{Ipv4, protocol},
    reason::Reason,
};

use super::{IP_OFFSET, Piece, WALK, transport};
use crate::{
    ctx::{Ctx, Raw},
    family::Inet,
    slow, words,
    work::{Cursor, Refused, Work},
};

const RESERVED_FLAG: u16 = 0x8000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// What follows is padding.
const OPTION_END: u8 = 0;
/// Padding between options.
const OPTION_PADDING: u32 = 1;
/// Loose and strict source routing: they would let the sender choose where the packet goes after we judged it.
const OPTION_LSRR: u8 = 131;
const OPTION_SSRR: u8 = 137;
/// Most options in a header, the padding counted byte by byte. Real ones are one to four words long.
const MAX_OPTIONS: u32 = 16;

/// Parses an IPv4 packet.
///
/// # Errors
/// A reason for what is malformed or not passed on.
#[inline(always)]
pub fn parse<R: Raw>(ctx: &Ctx<R>, work: &mut Work<V4>) -> Result<(), Refused> {
    let version_ihl = ctx.header::<Ipv4>(IP_OFFSET)?.version_ihl;
    let header_len = u32::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < size_of::<Ipv4>() as u32 {
        return Err(Reason::InvalidPacket.into());
    }
    if header_len > size_of::<Ipv4>() as u32 {
        slow::heed(R::check_options(ctx, header_len))?;
    }
    let ip = ctx.header::<Ipv4>(IP_OFFSET)?;
    let available = ctx.len().wrapping_sub(IP_OFFSET);
    let total_len = match u32::from(ip.total_len.get()) {
        // A segmentation-offload packet of more than 64 KiB has no length of its own (BIG TCP).
        0 if ctx.gso_size() != 0 => available,
        len => len,
    };
    if total_len < header_len || total_len > available {
        return Err(Reason::InvalidPacket.into());
    }
    let data_len = total_len - header_len;
    let packet = &mut work.packet;
    // SAFETY: two places of one type each, in the map and in the packet.
    unsafe {
        words::copy(&raw mut packet.key.src, &raw const ip.src);
        words::copy(&raw mut packet.key.dst, &raw const ip.dst);
    }
    packet.key.sport = Be16(0);
    packet.key.dport = Be16(0);
    packet.key.scope = 0;
    packet.key.protocol = u32::from(ip.protocol);
    packet.l4 = IP_OFFSET + header_len;
    packet.tcp_flags = 0;
    packet.icmp_type = 0;
    packet.ttl = ip.ttl;
    set_piece(&mut packet.piece, ip.fragment.get(), ip.id, data_len)?;
    if ip.protocol == protocol::ICMPV6 {
        return Err(Reason::UnsupportedL4.into());
    }
    slow::settle();
    transport::parse::<Inet, R>(ctx, work, data_len)
}

#[inline(always)]
fn set_piece(piece: &mut Piece, field: u16, id: Be16, data_len: u32) -> Result<(), Reason> {
    if field & RESERVED_FLAG != 0 {
        return Err(Reason::InvalidPacket);
    }
    piece.id = u32::from(id.0);
    piece.start = u32::from(field & OFFSET_MASK) * 8;
    piece.end = piece.start + data_len;
    piece.is_fragment = field & (MORE_FRAGMENTS | OFFSET_MASK) != 0;
    Ok(())
}

/// Walks the options: each must fit, and none may be a source route.
///
/// # Errors
/// [`Reason::InvalidIpOption`].
#[inline(always)]
pub fn check_options(ctx: &Ctx, at: &mut Cursor<u32>, header_len: u32) -> Result<(), Reason> {
    ctx.pull(WALK);
    at.set(size_of::<Ipv4>() as u32);
    for _ in 0..MAX_OPTIONS {
        let offset = at.get();
        if offset >= header_len {
            break;
        }
        // Two bytes even where one would do: the verifier takes no check of a single one at a variable offset.
        let [kind, len] = *ctx.header::<[u8; 2]>(IP_OFFSET + offset)?;
        // All ones for padding, a single byte: with a branch, every round would be two for the verifier.
        let padding = slow::hear(u32::from(kind) ^ OPTION_PADDING).wrapping_sub(1).cast_signed() >> 31;
        let len = u32::from(len) | padding.cast_unsigned();
        match kind {
            OPTION_END => return Ok(()),
            OPTION_LSRR | OPTION_SSRR => return Err(Reason::InvalidIpOption),
            _ if len < 2 => return Err(Reason::InvalidIpOption),
            // Of all ones, only the lowest bit.
            _ => at.set(offset + (len & (1 | !padding.cast_unsigned()))),
        }
    }
    // The last one ends where the header ends.
    if at.get() == header_len { Ok(()) } else { Err(Reason::InvalidIpOption) }
}
