//! Rejects: the packet is made into an ICMP error that quotes it, and goes back where it came from. It says that
//! the port is unreachable, or which length gets through the tunnel to the backend.
//!
//! It speaks for the address that the sender asked: that is whose port is not there, and an address of the
//! node would be a forged one to the node's own stack. No answer goes to a packet that was sent to all of a
//! link, or under an address that nobody has, and none is about an ICMP error or a later fragment (RFC 1122,
//! section 3.2.2).
//!
//! A tunnel's packets are never fragmented, so an IPv4 packet that may be is told of like one that may not:
//! senders take the length for their route, and send fragments that fit.
//!
//! A pod's packets come under its own address, so that an answer, of one packet for one, reaches nobody
//! else. Who is outside may have used any source: those answers are limited as Linux limits all of its own.

use core::mem::offset_of;

use weir_common::{
    addr::{Addr, Be16},
    answer::NewHeader,
    checksum::Sum,
    header::{Eth, Icmp, IpHeader, Tcp, Udp},
    reason::{Hook, Reason},
};

use crate::{
    ctx::Ctx,
    family::Family,
    parse::{IP_OFFSET, Kind},
    slow, words,
    work::Work,
};

/// Answers to the outside that one CPU gives a second: `net.ipv4.icmp_msgs_per_sec` of Linux.
const MOST_A_SECOND: u32 = 1000;

/// Where TCP has its checksum.
const TCP_CHECK: u32 = offset_of!(Tcp, check) as u32;
/// Where UDP has it.
const UDP_CHECK: u32 = offset_of!(Udp, check) as u32;

/// What an answer begins with; what it quotes comes next.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head<H: Copy> {
    eth: Eth,
    ip: H,
    icmp: Icmp,
}

/// Whether a packet that is refused for this reason is answered.
#[inline(always)]
pub fn is_due(reason: u32) -> bool {
    reason == Reason::ServiceNoBackend as u32
        || reason == Reason::ServicePortUnknown as u32
        || reason == Reason::PacketTooBig as u32
}

/// Answers the packet in `work`, whose place the answer takes. Gives what the program returns; `None` when
/// there is no answer.
#[inline(always)]
pub fn answer<F: Family>(ctx: &Ctx, hook: u32, reason: u32, work: &mut Work<F::Addr>) -> Option<i32> {
    let quoted = F::quote(ctx, hook);
    if quoted >= slow::NOT_OURS {
        return None;
    }
    slow::settle();
    let Work { packet, path, cursor, fib, .. } = work;
    let (src, dst, len) = (&packet.key.src, &packet.key.dst, cursor.get());
    let (kind, mtu) = if reason == Reason::PacketTooBig as u32 {
        (F::Header::TOO_BIG, fib.mtu)
    } else {
        ([F::Header::UNREACHABLE, F::Header::PORT_UNREACHABLE], 0)
    };
    ctx.resize(IP_OFFSET + len, (size_of::<F::Header>() + size_of::<Icmp>()) as i32).ok()?;
    let head = ctx.header_mut::<Head<F::Header>>(0).ok()?;
    turn(&mut head.eth, &mut path.mac);
    // SAFETY: places of one type each, in the packet and in the map.
    unsafe {
        let addresses = head.ip.addresses().cast::<F::Addr>();
        words::copy(addresses, dst);
        words::copy(addresses.add(1), src);
    }
    let len = len as u16 + size_of::<Icmp>() as u16;
    let addresses = Sum::new().addr(*src).addr(*dst);
    head.ip.begin(F::ICMP, len, addresses);
    [head.icmp.kind, head.icmp.code] = kind;
    (head.icmp.id, head.icmp.rest) = (Be16(0), Be16::new(mtu));
    let mut sum = Sum::new().word(quoted).half(u16::from_ne_bytes(kind)).half(head.icmp.rest.0);
    if F::VERSION == 6 {
        sum = sum.word(addresses.folded32()).pseudo(F::ICMP, len);
    }
    head.icmp.check = sum.check();
    send_back(ctx, hook)
}

/// Sees whether the packet in `work` may be answered, and how much of it the answer quotes, which it leaves in
/// [`Work::cursor`]. Answers the sum of that, or [`slow::NOT_OURS`].
#[inline(always)]
pub fn quote<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> u32 {
    let Work { packet, cursor, meter, .. } = work;
    let is_for_all = ctx.header::<Eth>(0).map_or(1, |eth| eth.dst[0] & 1) != 0;
    let is_mute = packet.kind == Kind::IcmpError || packet.piece.is_later();
    if is_for_all || is_mute || packet.key.src.is_martian() {
        return slow::NOT_OURS;
    }
    if hook == Hook::FromUplink as u32 && !meter.admits(MOST_A_SECOND) {
        return slow::NOT_OURS;
    }
    let end = packet.l4 + (packet.piece.end - packet.piece.start);
    let most = F::Header::ERROR_MAX - (size_of::<F::Header>() + size_of::<Icmp>()) as u32;
    cursor.set((end - IP_OFFSET).min(most));
    let (len, headers) = (cursor.get(), packet.l4 - IP_OFFSET);
    if ctx.gso_size() == 0 {
        return slow::hear(slow::sum(ctx.as_ptr(), IP_OFFSET, len));
    }
    // The device is still to fill in the transport checksum, and does so in the quotation too. All that it covers
    // then sums up to the complement of what stands in the checksum's place now.
    let at = packet.l4 + if packet.kind == Kind::Tcp { TCP_CHECK } else { UDP_CHECK };
    match (slow::hear(slow::sum(ctx.as_ptr(), IP_OFFSET, headers)), ctx.header::<[u8; 2]>(at)) {
        (sum, Ok(check)) if sum != slow::NOT_OURS => sum + u32::from(!u16::from_ne_bytes(*check)),
        _ => slow::NOT_OURS,
    }
}

/// Gives the frame to who sent it. `spare` is a place in a map.
#[inline(always)]
pub fn turn(eth: &mut Eth, spare: &mut [u8; 6]) {
    // SAFETY: places of one type, in the packet and in a map.
    unsafe {
        words::copy(&raw mut *spare, &raw const eth.dst);
        words::copy(&raw mut eth.dst, &raw const eth.src);
        words::copy(&raw mut eth.src, &raw const *spare);
    }
}

/// Sends the packet to where it came from.
#[inline(always)]
pub fn send_back(ctx: &Ctx, hook: u32) -> Option<i32> {
    let action = if hook == Hook::FromPod as u32 {
        ctx.redirect_peer(ctx.ifindex())
    } else if hook == Hook::FromUplink as u32 {
        ctx.redirect(ctx.ifindex())
    } else if hook == Hook::ToUplink as u32 {
        // To the node's own socket, as if it had come in.
        ctx.redirect_ingress(ctx.ifindex())
    } else {
        return None;
    };
    Some(action)
}
