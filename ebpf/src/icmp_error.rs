//! ICMP errors: one belongs to the flow of the packet that it quotes, and goes the way of that flow's
//! other direction. No entry of its own.

use weir_common::{
    addr::Be16,
    checksum::Change,
    flow::{FlowKey, flags},
    header::{Icmp, IpHeader, protocol},
    reason::{Hook, Reason},
};

use crate::{
    ctx::Ctx,
    decide, deliver,
    family::Family,
    flow::{self, Path},
    maps,
    parse::{IP_OFFSET, Packet},
    rewrite::Ports,
    words,
    work::Work,
};

/// An error and what it quotes, of which at least eight bytes after the IP header are there (RFC 792; more
/// in RFC 4443).
#[repr(C)]
#[derive(Clone, Copy)]
struct Quote<H: Copy> {
    error: Icmp,
    ip: H,
    /// The quoted transport header; for others than an echo, its first two words are the ports.
    transport: Icmp,
}

/// Finds the flow that an error belongs to: one that is live, of this revision in either direction, whose
/// packets the error's receiver had sent. The quoted packet may be the first of this revision, and the
/// only kind: one too big for its way gets no answer but the error. Leaves its way in `work`, and
/// translates the error where that says so.
///
/// # Errors
/// [`Reason::IcmpUnrelated`], and [`Reason::InvalidSource`] for an error of a pod under another address.
#[inline(always)]
pub fn resolve<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> Result<(), Reason> {
    let Work { packet, path, entry, quoted, .. } = work;
    if hook == Hook::FromPod as u32 && !decide::is_behind::<F>(&packet.key.src, ctx.ifindex()) {
        return Err(Reason::InvalidSource);
    }
    read_quote::<F>(ctx, packet, quoted)?;
    // An error goes to the one who sent what it quotes.
    // SAFETY: places in the map.
    if !unsafe { words::same(&raw const quoted.dst, &raw const packet.key.dst) } {
        return Err(Reason::IcmpUnrelated);
    }
    // SAFETY: as before.
    unsafe { words::copy(&raw mut entry.key, quoted) };
    if !F::has_entry() {
        return Err(Reason::IcmpUnrelated);
    }
    // SAFETY: as before.
    unsafe { words::copy(&raw mut *path, &raw const entry.path) };
    let epoch = maps::state().map_or(0, |state| state.epoch);
    if path.epoch != epoch {
        entry.key = flow::peer_key(path, quoted.protocol);
        if !F::has_entry() || entry.path.epoch != epoch {
            return Err(Reason::IcmpUnrelated);
        }
    }
    // One whose hops run out goes to the stack as it came.
    if path.flags & flags::REWRITE != 0 && !deliver::expires(packet, path) {
        translate::<F>(ctx, packet, quoted, path)?;
        // That was all there is to rewrite.
        path.flags = path.flags & !flags::REWRITE | flags::REWRITTEN;
    }
    Ok(())
}

/// Reads the quoted packet, which must lie within the error: behind its end, no checksum covers what is there.
#[inline(always)]
fn read_quote<F: Family>(
    ctx: &Ctx,
    packet: &Packet<F::Addr>,
    back: &mut FlowKey<F::Addr>,
) -> Result<(), Reason> {
    if packet.piece.end < size_of::<Quote<F::Header>>() as u32 {
        return Err(Reason::IcmpUnrelated);
    }
    let quote = ctx.header_mut::<Quote<F::Header>>(packet.l4).map_err(|_| Reason::IcmpUnrelated)?;
    let Some(number) = quote.ip.transport() else { return Err(Reason::IcmpUnrelated) };
    // SAFETY: places of one type each, in the packet and in the map.
    unsafe {
        let addresses = quote.ip.addresses().cast::<F::Addr>();
        words::copy(&raw mut back.dst, addresses);
        words::copy(&raw mut back.src, addresses.add(1));
    }
    back.scope = packet.key.scope;
    back.protocol = u32::from(number);
    if number == F::ICMP {
        let (kind, id) = (quote.transport.kind, quote.transport.id);
        if kind != F::ECHO_REQUEST && kind != F::ECHO_REPLY {
            return Err(Reason::IcmpUnrelated);
        }
        back.sport = if kind == F::ECHO_REPLY { id } else { Be16(0) };
        back.dport = if kind == F::ECHO_REPLY { Be16(0) } else { id };
    } else if number == protocol::TCP || number == protocol::UDP || number == protocol::SCTP {
        let ports = ports(quote);
        back.sport = ports.dport;
        back.dport = ports.sport;
    } else {
        return Err(Reason::IcmpUnrelated);
    }
    Ok(())
}

#[inline(always)]
fn ports<H: Copy>(quote: &mut Quote<H>) -> &mut Ports {
    // SAFETY: eight bytes of alignment 1, of which the ports are four.
    unsafe { &mut *(&raw mut quote.transport).cast() }
}

/// Undoes the flow's translation in the quoted packet and in the error's own header.
///
/// Direct writes: nothing leaves an ICMP checksum to the device. The quoted transport checksum stays as
/// it is; nobody can check it, since the quote ends early.
#[inline(always)]
fn translate<F: Family>(
    ctx: &Ctx,
    packet: &Packet<F::Addr>,
    key: &FlowKey<F::Addr>,
    path: &Path<F::Addr>,
) -> Result<(), Reason> {
    let to = &path.to;
    let outer = ctx.header_mut::<F::Header>(IP_OFFSET)?;
    let quote = ctx.header_mut::<Quote<F::Header>>(packet.l4)?;
    // The quote runs the other way: its source is where packets of this entry go.
    let inner = Change::new().addr(key.dst, to.dst).addr(key.src, to.src);
    let mut moved = Change::new().addr(packet.key.dst, to.dst);
    // SAFETY: places of one type each, in the packet and in the map.
    unsafe {
        let addresses = quote.ip.addresses().cast::<F::Addr>();
        words::copy(addresses, &raw const to.dst);
        words::copy(addresses.add(1), &raw const to.src);
        let addresses = outer.addresses().cast::<F::Addr>();
        words::copy(addresses.add(1), &raw const to.dst);
        // The flow's own server speaks under the address that the client knows; a router under its own.
        if packet.key.src == key.src {
            words::copy(addresses, &raw const to.src);
            moved = moved.addr(key.src, to.src);
        }
    }
    outer.mend(moved);
    let mut covered = quote.ip.mend(inner);
    if key.protocol as u8 != F::ICMP {
        *ports(quote) = Ports { sport: to.dport, dport: to.sport };
        covered = covered.port(key.dport, to.dport).port(key.sport, to.sport);
    }
    let mut check = covered.apply(quote.error.check);
    if F::VERSION == 6 {
        check = moved.apply(check);
    }
    quote.error.check = check;
    Ok(())
}
