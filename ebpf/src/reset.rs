//! Resets: a TCP connection whose backend is gone for good is ended at the next packet of either side.
//!
//! The packet is made into the reset that its receiver would have sent, had it known no such connection
//! (RFC 9293, section 3.10.7.1), and goes back where it came from. Its sequence number is the one that the
//! sender waits for, since that is what the sender acknowledged last.

use weir_common::{
    addr::Be16,
    answer::NewHeader,
    checksum::Sum,
    flow::state,
    header::{Eth, IpHeader, Tcp, protocol, tcp_flags},
};

use crate::{
    ctx::Ctx,
    family::Family,
    parse::{IP_OFFSET, Kind},
    reject, slow, words,
    work::Work,
};

/// Length of a TCP header without options, in words, as its field has it.
const HEADER_LEN: u8 = 5 << 4;
/// Offset of the checksum in the header.
const CHECK: u32 = 16;

/// A reset.
#[repr(C)]
#[derive(Clone, Copy)]
struct Reset<H: Copy> {
    eth: Eth,
    ip: H,
    tcp: Tcp,
}

/// Closes both directions of the flow in `work`, so that their entries are the first to go and a new
/// connection from the same port opens another.
#[inline(always)]
fn close<F: Family>(work: &mut Work<F::Addr>) {
    let Work { packet, path, entry, .. } = work;
    path.state = state::CLOSING;
    // SAFETY: places of one type each, all in the map.
    unsafe {
        words::copy(&raw mut entry.key, &raw const packet.key);
        words::copy(&raw mut entry.path, &raw const *path);
    }
    F::insert();
    F::keep_alive();
}

/// Closes the flow of the packet in `work`, if it is a TCP connection, and answers the packet, whose place the answer takes. Gives what the program returns; `None` when
/// there is no answer: a reset is not answered by one, and a later fragment has no TCP header.
#[inline(always)]
pub fn answer<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> Option<i32> {
    if work.packet.kind != Kind::Tcp {
        return None;
    }
    close::<F>(work);
    slow::settle();
    let Work { packet, path, .. } = work;
    if packet.piece.is_later() || packet.tcp_flags & (tcp_flags::ACK | tcp_flags::RST) != tcp_flags::ACK {
        return None;
    }
    let seq = u32::from_ne_bytes(ctx.header::<Tcp>(packet.l4).ok()?.ack);
    let is_partial = ctx.leaves_check(packet.l4 + CHECK).ok()?;
    // Options and extension headers go, and what follows the TCP header.
    let spare = packet.l4 - IP_OFFSET - size_of::<F::Header>() as u32;
    ctx.resize(packet.l4 + size_of::<Tcp>() as u32, -spare.cast_signed()).ok()?;
    let reset = ctx.header_mut::<Reset<F::Header>>(0).ok()?;
    let (src, dst) = (&packet.key.src, &packet.key.dst);
    reject::turn(&mut reset.eth, &mut path.mac);
    // SAFETY: places of one type each, in the packet and in the map.
    unsafe {
        let addresses = reset.ip.addresses().cast::<F::Addr>();
        words::copy(addresses, dst);
        words::copy(addresses.add(1), src);
    }
    let len = size_of::<Tcp>() as u16;
    let addresses = Sum::new().addr(*src).addr(*dst);
    reset.ip.begin(protocol::TCP, len, addresses);
    let (sport, dport) = (packet.key.dport, packet.key.sport);
    reset.tcp.sport = sport;
    reset.tcp.dport = dport;
    reset.tcp.seq = seq.to_ne_bytes();
    reset.tcp.ack = [0; 4];
    [reset.tcp.offset, reset.tcp.flags] = [HEADER_LEN, tcp_flags::RST];
    (reset.tcp.window, reset.tcp.urgent) = (Be16(0), Be16(0));
    let pseudo = addresses.pseudo(protocol::TCP, len);
    let own = pseudo.word(seq).half(sport.0).half(dport.0);
    let whole = own.half(u16::from_ne_bytes([HEADER_LEN, tcp_flags::RST])).check();
    // Who makes the checksum begins with the sum of the pseudo-header, which stands in its place.
    reset.tcp.check = if is_partial { Be16(!pseudo.check().0) } else { whole };
    reject::send_back(ctx, hook)
}
