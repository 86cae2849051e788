//! Tunnels to the backends of other nodes: IP in IP (RFC 2003, RFC 2473).
//!
//! A packet for a service that is forwarded by DSR goes to its backend as the client sent it, behind a second
//! header: from this node to the backend's address, which tells the backend's node who was chosen. That node
//! takes the header off and lets the backend answer the client itself.

use weir_common::{
    flow::flags,
    header::{IpHeader, Tcp, Udp},
    reason::Reason,
    service::{self, Backend, MemberKey, member},
    state::inside,
};

use crate::{
    ctx::{Ctx, Raw},
    family::{Family, NO_MEMBER},
    flow::Path,
    maps,
    parse::{IP_OFFSET, Kind, Packet},
    service::find,
    slow::{self, GO_ON, NOT_OURS},
    words,
    work::Work,
};

/// What goes through every network of the family with the tunnel's header around it: no need to look.
const ALWAYS_FITS: u32 = 1280;

/// Whether the frame may be the end of a tunnel.
#[inline(always)]
pub fn may_end<F: Family>(ctx: &Ctx) -> bool {
    ctx.header::<F::Header>(IP_OFFSET).is_ok_and(|ip| ip.transport() == Some(F::TUNNEL))
}

/// Takes the header of a tunnel to a pod of this node off the packet, and notes the pod. Answers [`GO_ON`];
/// [`NOT_OURS`] for a tunnel to somebody else, which the node itself may have; or the number of the reason to
/// drop the packet.
#[inline(always)]
pub fn leave<F: Family>(ctx: &Ctx, work: &mut Work<F::Addr>) -> u32 {
    let Ok(ip) = ctx.header_mut::<F::Header>(IP_OFFSET) else { return NOT_OURS };
    let is_fragment = ip.is_fragment();
    let (from, to) = (&mut work.packet.key.src, &mut work.tunnelled_to);
    // SAFETY: the header's two addresses, in the packet, and places in the map.
    unsafe {
        let addresses = ip.addresses().cast::<F::Addr>();
        words::copy(from, addresses);
        words::copy(to, addresses.add(1));
    }
    if F::endpoint(to).is_none() {
        return NOT_OURS;
    }
    if is_fragment || F::inside(from) & inside::NODE == 0 {
        return Reason::InvalidTunnel as u32;
    }
    match ctx.adjust_room(-(size_of::<F::Header>() as i32), F::DECAP) {
        Ok(()) => GO_ON,
        Err(reason) => reason as u32,
    }
}

/// Fills in where a new flow goes that came through a tunnel to `backend`, if that is one of the service that
/// it is for. Answers as [`crate::decide::choose`].
#[inline(always)]
pub fn accept<F: Family>(packet: &Packet<F::Addr>, path: &mut Path<F::Addr>, backend: &F::Addr) -> u32 {
    let key = &packet.key;
    let Some(service) = find::<F>(key) else { return Reason::InvalidTunnel as u32 };
    let (service, port, bits) = (service.id, service.target_port, service.flags);
    if bits & service::flags::DSR == 0 {
        return Reason::InvalidTunnel as u32;
    }
    // Nobody of the cluster comes this way: a source in it is a lie.
    if F::inside(&key.src) != 0 {
        return Reason::InvalidSource as u32;
    }
    let key = MemberKey { service, backend: Backend { addr: *backend, port, reserved: 0 } };
    if F::member(key) & (NO_MEMBER | member::SERVES) != member::SERVES {
        return Reason::InvalidTunnel as u32;
    }
    path.to.dport = port;
    // SAFETY: places in the map.
    unsafe { words::copy(&raw mut path.to.dst, backend) };
    GO_ON
}

/// Records a flow that goes through a tunnel, in its one direction. Its event is the backend's node's to tell.
#[inline(always)]
pub fn record<F: Family>(work: &mut Work<F::Addr>) {
    let Work { packet, path, entry, epoch, .. } = work;
    path.epoch = *epoch;
    // Where the next hop is, is for XDP to find out anew.
    path.flags &= !flags::EDGE;
    // SAFETY: places of one type each, all in the map.
    unsafe {
        words::copy(&raw mut entry.key, &raw const packet.key);
        words::copy(&raw mut entry.path, path);
    }
    F::insert();
}

/// Puts the packet, whose way is in `work`, into the tunnel to its backend. Leaves in [`Work::fib`] the interface
/// that it leaves by, and for one that is too big the length that would fit.
///
/// # Errors
/// [`Reason::PacketTooBig`], and [`Reason::RewriteFailed`] when the kernel refuses.
#[inline(always)]
pub fn enter<F: Family>(ctx: &Ctx, work: &mut Work<F::Addr>) -> Result<(), Reason> {
    let Some(state) = maps::state() else { return Err(Reason::NotReady) };
    let Work { packet, path, fib, .. } = work;
    fib.ask::<F>(ctx.ifindex(), F::node(state), &path.to.dst);
    let ifindex = fib.route(ctx);
    let ip = ctx.header_mut::<F::Header>(IP_OFFSET)?;
    let (class, len) = (ip.class(), ip.packet_len());
    let longest = match ctx.gso_size() {
        0 => u32::from(len),
        segment => packet.l4 - IP_OFFSET + transport_len(ctx, packet) + segment,
    };
    if !fits::<F>(ctx, slow::hear(longest), ifindex) {
        fib.mtu = ctx.mtu(ifindex).saturating_sub(size_of::<F::Header>() as u32) as u16;
        return Err(Reason::PacketTooBig);
    }
    ip.take_hop();
    ctx.adjust_room(size_of::<F::Header>() as i32, F::ENCAP)?;
    let outer = ctx.header_mut::<F::Header>(IP_OFFSET)?;
    write::<F>(outer, class, len, F::node(state), &path.to.dst);
    Ok(())
}

/// Length of the transport header, which every segment of a packet has.
#[inline(always)]
fn transport_len<A>(ctx: &Ctx, packet: &Packet<A>) -> u32 {
    match (packet.kind, ctx.header::<Tcp>(packet.l4)) {
        (Kind::Tcp, Ok(tcp)) => u32::from(tcp.offset >> 4) * 4,
        _ => size_of::<Udp>() as u32,
    }
}

/// Whether a packet of `len` bytes fits through the interface `ifindex` inside of a tunnel.
#[inline(always)]
pub fn fits<F: Family>(ctx: &Ctx<impl Raw>, len: u32, ifindex: u32) -> bool {
    let len = len + size_of::<F::Header>() as u32;
    len <= ALWAYS_FITS || len <= ctx.mtu(ifindex)
}

/// Writes the header of a tunnel around a packet of `len` bytes and of this class of service.
#[inline(always)]
pub fn write<F: Family>(header: &mut F::Header, class: u8, len: u16, from: &F::Addr, to: &F::Addr) {
    header.wrap(class, len);
    // SAFETY: the header's two addresses, in the packet, and places in maps.
    unsafe {
        let addresses = header.addresses().cast::<F::Addr>();
        words::copy(addresses, from);
        words::copy(addresses.add(1), to);
    }
    header.seal();
}
