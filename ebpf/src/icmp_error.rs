//! ICMP errors: one belongs to the flow of the packet that it quotes, and goes the way of that flow's
//! other direction. No entry of its own.

use weir_common::{
    addr::Be16,
    checksum::Change,
    flow::{FlowKey, flags},
    header::{Icmp, Ipv4, Ipv6, protocol},
    reason::{Hook, Reason},
};

use crate::{
    ctx::Ctx,
    decide,
    family::Family,
    flow::{self, Path},
    maps,
    parse::Packet,
    rewrite::{self, Bytes},
};

/// The packet that an ICMP error quotes.
struct Quote<A> {
    /// Its addresses and ports, turned round: the key of what its receiver sends back.
    back: FlowKey<A>,
    /// Where its IP header starts in the frame.
    ip: u32,
    /// Where its transport header starts.
    l4: u32,
    /// The checksum of its IP header.
    check: Be16,
}

/// Where the addresses of a quoted header of this family stand, and its length.
struct Layout {
    src: u32,
    dst: u32,
    len: u32,
}

/// Finds the flow that an error belongs to: one that is live and of this revision, whose packets the
/// error's receiver had sent. Copies its way to `path`, and translates the error where it says so.
///
/// # Errors
/// [`Reason::IcmpUnrelated`], and [`Reason::InvalidSource`] for an error of a pod under another address.
#[inline(always)]
pub fn resolve<F: Family>(
    ctx: &Ctx,
    hook: u32,
    packet: &Packet<F::Addr>,
    path: &mut Path<F::Addr>,
) -> Result<(), Reason> {
    if hook == Hook::FromPod as u32 && !decide::is_behind::<F>(&packet.key.src, ctx.ifindex()) {
        return Err(Reason::InvalidSource);
    }
    let quote = quoted::<F>(ctx, packet)?;
    let epoch = maps::state().map_or(0, |state| state.epoch);
    // An error goes to the one who sent what it quotes.
    if quote.back.dst != packet.key.dst
        || !flow::peek::<F>(&quote.back, path, maps::now())
        || path.epoch != epoch
    {
        return Err(Reason::IcmpUnrelated);
    }
    if path.flags & flags::REWRITE != 0 {
        translate::<F>(ctx, packet, &quote, path)?;
    }
    Ok(())
}

#[inline(always)]
fn layout<F: Family>() -> Layout {
    if F::VERSION == 4 {
        Layout { src: 12, dst: 16, len: size_of::<Ipv4>() as u32 }
    } else {
        Layout { src: 8, dst: 24, len: size_of::<Ipv6>() as u32 }
    }
}

/// Reads the quoted packet. Only the plain shape is known: no options, no extension headers, not a later fragment.
#[inline(always)]
fn quoted<F: Family>(ctx: &Ctx, packet: &Packet<F::Addr>) -> Result<Quote<F::Addr>, Reason> {
    let unrelated = |_| Reason::IcmpUnrelated;
    let ip = packet.l4 + size_of::<Icmp>() as u32;
    let l4 = ip + layout::<F>().len;
    let (number, check) = if F::VERSION == 4 {
        let header = ctx.header::<Ipv4>(ip).map_err(unrelated)?;
        let is_later = header.fragment.get() & 0x1fff != 0;
        if header.version_ihl != 0x45 || is_later {
            return Err(Reason::IcmpUnrelated);
        }
        (header.protocol, header.check)
    } else {
        let header = ctx.header::<Ipv6>(ip).map_err(unrelated)?;
        if header.version_class_flow[0] >> 4 != 6 {
            return Err(Reason::IcmpUnrelated);
        }
        (header.next_header, Be16(0))
    };
    let src = ctx.header::<Bytes<F::Addr>>(ip + layout::<F>().src).map_err(unrelated)?.0;
    let dst = ctx.header::<Bytes<F::Addr>>(ip + layout::<F>().dst).map_err(unrelated)?.0;
    let (sport, dport) = if number == F::ICMP {
        let echo = ctx.header::<Icmp>(l4).map_err(unrelated)?;
        match echo.kind {
            kind if kind == F::ECHO_REQUEST => (echo.id, Be16(0)),
            kind if kind == F::ECHO_REPLY => (Be16(0), echo.id),
            _ => return Err(Reason::IcmpUnrelated),
        }
    } else if number == protocol::TCP || number == protocol::UDP || number == protocol::SCTP {
        let udp = ctx.header::<[Bytes<Be16>; 2]>(l4).map_err(unrelated)?;
        (udp[0].0, udp[1].0)
    } else {
        return Err(Reason::IcmpUnrelated);
    };
    let back = FlowKey {
        src: dst,
        dst: src,
        sport: dport,
        dport: sport,
        scope: packet.key.scope,
        protocol: u32::from(number),
    };
    Ok(Quote { back, ip, l4, check })
}

/// Undoes the flow's translation in the quoted packet and in the error's own header.
///
/// Direct writes: nothing leaves an ICMP checksum to the device. The quoted transport checksum stays as
/// it is; nobody can check it, since the quote ends early.
#[inline(always)]
fn translate<F: Family>(
    ctx: &Ctx,
    packet: &Packet<F::Addr>,
    quote: &Quote<F::Addr>,
    path: &Path<F::Addr>,
) -> Result<(), Reason> {
    let (key, to) = (&quote.back, &path.to);
    // The quote runs the other way: its source is where packets of this entry go.
    let inner = Change::new().addr(key.dst, to.dst).addr(key.src, to.src);
    ctx.write(quote.ip + layout::<F>().src, Bytes(to.dst))?;
    ctx.write(quote.ip + layout::<F>().dst, Bytes(to.src))?;
    let mut covered = inner;
    if F::VERSION == 4 {
        let check = inner.apply(quote.check);
        ctx.write(quote.ip + 10, Bytes(check))?;
        covered = covered.half(quote.check.0, check.0);
    }
    if key.protocol as u8 != F::ICMP {
        ctx.write(quote.l4, Bytes((to.dport, to.sport)))?;
        covered = covered.port(key.dport, to.dport).port(key.sport, to.sport);
    }
    // The flow's own server speaks under the address that the client knows; a router under its own.
    let src = if packet.key.src == key.src { to.src } else { packet.key.src };
    let mut outer = Change::new();
    rewrite::addresses::<F>(ctx, (packet.key.src, packet.key.dst), (src, to.dst), &mut outer)?;
    let mut check = covered.apply(ctx.header::<Icmp>(packet.l4)?.check);
    if F::VERSION == 6 {
        check = outer.apply(check);
    }
    ctx.write(packet.l4 + 2, Bytes(check))
}
