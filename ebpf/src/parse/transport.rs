//! TCP, UDP, SCTP and ICMP headers.

use weir_common::{
    addr::Be16,
    header::{Icmp, Sctp, Tcp, Udp, icmp, protocol, tcp_flags},
    reason::Reason,
};

use super::{Kind, Packet, WALK};
use crate::{
    ctx::{Ctx, Raw},
    family::Family,
    slow,
    work::{Refused, Work},
};

/// Fills in kind, ports and flags from the transport header, of which `data_len` bytes are in the packet.
///
/// # Errors
/// A reason for what is malformed or not passed on.
#[inline(always)]
pub fn parse<F: Family, R: Raw>(
    ctx: &Ctx<R>,
    work: &mut Work<F::Addr>,
    data_len: u32,
) -> Result<(), Refused> {
    let packet = &mut work.packet;
    let protocol = packet.protocol();
    let need = match protocol {
        protocol::TCP => size_of::<Tcp>(),
        protocol::SCTP => size_of::<Sctp>(),
        protocol::UDP => size_of::<Udp>(),
        number if number == F::ICMP => size_of::<Icmp>(),
        _ => return Err(Reason::UnsupportedL4.into()),
    } as u32;
    packet.kind = match protocol {
        protocol::TCP => Kind::Tcp,
        protocol::SCTP => Kind::Sctp,
        protocol::UDP => Kind::Udp,
        _ => Kind::EchoRequest,
    };
    if packet.piece.is_later() {
        // The ports come from the first fragment, see `fragment`.
        return Ok(());
    }
    let too_short = if packet.piece.is_fragment { Reason::FragmentTooShort } else { Reason::InvalidPacket };
    if data_len < need {
        return Err(too_short.into());
    }
    ctx.pull(packet.l4 + need);
    slow::settle();
    match packet.kind {
        Kind::Tcp => {
            let tcp = ctx.header::<Tcp>(packet.l4)?;
            let header_len = u32::from(tcp.offset >> 4) * 4;
            if header_len < size_of::<Tcp>() as u32 {
                return Err(Reason::InvalidPacket.into());
            }
            if header_len > data_len {
                return Err(too_short.into());
            }
            if !is_possible(tcp.flags) {
                return Err(Reason::InvalidTcpFlags.into());
            }
            packet.tcp_flags = tcp.flags;
            ports(packet, tcp.sport, tcp.dport);
        }
        Kind::Udp => {
            let udp = ctx.header::<Udp>(packet.l4)?;
            let len = u32::from(udp.len.get());
            // The length is of the whole datagram, so that only a whole one can be compared.
            if !packet.piece.is_fragment
                && ctx.gso_size() == 0
                && (len < size_of::<Udp>() as u32 || len > data_len)
            {
                return Err(Reason::InvalidPacket.into());
            }
            ports(packet, udp.sport, udp.dport);
        }
        Kind::Sctp => {
            let sctp = ctx.header::<Sctp>(packet.l4)?;
            ports(packet, sctp.sport, sctp.dport);
        }
        _ => slow::heed(R::parse_icmp::<F>(ctx))?,
    }
    Ok(())
}

#[inline(always)]
fn ports<A>(packet: &mut Packet<A>, sport: Be16, dport: Be16) {
    packet.key.sport = sport;
    packet.key.dport = dport;
}

/// A segment opens (SYN), aborts (RST), or carries an acknowledgement; FIN only goes with the last (RFC 9293).
#[inline(always)]
fn is_possible(flags: u8) -> bool {
    let flags = flags & (tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST | tcp_flags::ACK);
    if flags & tcp_flags::SYN != 0 {
        flags & (tcp_flags::FIN | tcp_flags::RST) == 0
    } else if flags & tcp_flags::RST != 0 {
        flags & tcp_flags::FIN == 0
    } else {
        flags & tcp_flags::ACK != 0
    }
}

/// Fills in kind and ports from an ICMP header.
///
/// # Errors
/// [`Reason::IcmpUnsupported`] for a type that is not passed on.
#[inline(always)]
pub fn parse_icmp<F: Family>(ctx: &Ctx, packet: &mut Packet<F::Addr>) -> Result<(), Reason> {
    let header = ctx.header::<Icmp>(packet.l4)?;
    packet.icmp_type = header.kind;
    if header.kind == F::ECHO_REQUEST {
        packet.kind = Kind::EchoRequest;
        packet.key.sport = header.id;
    } else if header.kind == F::ECHO_REPLY {
        packet.kind = Kind::EchoReply;
        packet.key.dport = header.id;
    } else if F::is_icmp_error(header.kind) {
        if packet.piece.is_fragment {
            return Err(Reason::IcmpUnsupported);
        }
        ctx.pull(WALK);
        packet.kind = Kind::IcmpError;
    } else if F::VERSION == 6
        && header.kind >= icmp::ROUTER_SOLICITATION
        && header.kind <= icmp::NEIGHBOUR_ADVERTISEMENT
        && !packet.piece.is_fragment
    {
        packet.kind = Kind::Neighbour;
    } else {
        return Err(Reason::IcmpUnsupported);
    }
    Ok(())
}
