//! The edge: packets from outside for services whose backends are on other nodes, sent on at XDP before the
//! kernel makes anything of them.
//!
//! A fast path and nothing else. It takes whole TCP and UDP packets without options, of flows that leave by
//! the interface that they come by, and drops new ones whose client is in none of their service's source ranges;
//! every other packet goes up unchanged, to `from_uplink` at TC, which decides and does the same in all cases. So
//! a packet that the edge does not take is slower, never treated otherwise.
//!
//! Flows with a backend of this node go up too: there the packet is rewritten and put into the pod in one
//! step, which XDP cannot do.

pub mod fib;
mod xdp;

use aya_ebpf::bindings::{
    xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    xdp_md,
};
use weir_common::{
    addr::Addr,
    flow::{flags, state},
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Eth, IpHeader},
    reason::{Hook, Reason},
    service::{self, member},
    state::State,
};

use crate::{
    ctx::Ctx,
    family::{Family, Inet, Inet6},
    flow::{self, Rules},
    maps,
    parse::{IP_OFFSET, Kind},
    report, rewrite,
    service::{admits, find},
    slow, tunnel, words,
    work::Work,
};

/// Runs the program.
#[inline(always)]
pub fn run(ctx: &Ctx<xdp_md>) -> u32 {
    let Ok(eth) = ctx.header::<Eth>(0) else { return XDP_PASS };
    // A frame to a group is not the node's to send on.
    if eth.dst[0] & 1 != 0 {
        return XDP_PASS;
    }
    match eth.ethertype.get() {
        ETHERTYPE_IPV4 => packet::<Inet>(ctx),
        ETHERTYPE_IPV6 => packet::<Inet6>(ctx),
        _ => XDP_PASS,
    }
}

#[inline(always)]
fn packet<F: Family>(ctx: &Ctx<xdp_md>) -> u32 {
    // The one element is always there.
    let Some(work) = F::work().get_ptr_mut(0) else { return XDP_PASS };
    // SAFETY: this CPU's own element, of integers only; see `Work`.
    let work = unsafe { &mut *work };
    let len = ctx.len();
    if !is_plain::<F>(ctx, work) {
        return XDP_PASS;
    }
    match find_way::<F>(ctx, work) {
        Way::Onward => {}
        Way::ToStack => return XDP_PASS,
        Way::Denied => {
            report::denied::<F>(ctx, Reason::SourceRange, work);
            return XDP_DROP;
        }
    }
    let action = send::<F>(ctx, work);
    if action == XDP_TX {
        maps::count(&maps::FORWARDED, Hook::Edge as u32, len);
    }
    action
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It leaves by the interface that it came by.
    Onward,
    /// TC decides.
    ToStack,
    /// Its client may not use the service.
    Denied,
}

/// Parses the packet; whether it is one that the edge takes.
#[inline(always)]
fn is_plain<F: Family>(ctx: &Ctx<xdp_md>, work: &mut Work<F::Addr>) -> bool {
    let is_parsed = F::parse(ctx, work).is_ok();
    slow::settle();
    let packet = &work.packet;
    let has_ports = packet.kind == Kind::Tcp || packet.kind == Kind::Udp;
    is_parsed && has_ports && !packet.piece.is_fragment && packet.ttl > 1
}

/// Finds the packet's way, which is in `work` where it leads onward: known to the last hop.
#[inline(always)]
fn find_way<F: Family>(ctx: &Ctx<xdp_md>, work: &mut Work<F::Addr>) -> Way {
    let Some(state) = maps::state() else { return Way::ToStack };
    let epoch = state.epoch;
    if epoch == 0 {
        return Way::ToStack;
    }
    // Before anything is looked up that a commit may change.
    work.epoch = epoch;
    if flow::lookup::<F>(work, maps::now()) {
        // Whether a flow of an earlier revision may stay is for TC to decide.
        if work.path.epoch != epoch {
            return Way::ToStack;
        }
    } else {
        match open::<F>(work) {
            Way::Onward => {}
            way => return way,
        }
    }
    slow::settle();
    let path = &work.path;
    let is_onward = if path.flags & flags::EDGE != 0 && !path.is_due {
        path.ifindex == ctx.ifindex()
    } else {
        is_onward(path.flags) && approach::<F>(ctx, state, work)
    };
    if is_onward { Way::Onward } else { Way::ToStack }
}

/// Whether packets of a flow leave the node again, for whoever opened it from outside.
#[inline(always)]
fn is_onward(way: u16) -> bool {
    let is_translated = way & (flags::BY_UPLINK | flags::TO_PEER | flags::FROM_NODE) == flags::BY_UPLINK;
    way & flags::TUNNEL != 0 || is_translated
}

/// Opens a flow, where nothing is to be decided but who its backend is. Its way is in `work` then.
#[inline(always)]
fn open<F: Family>(work: &mut Work<F::Addr>) -> Way {
    let Work { packet, path, .. } = work;
    let key = &packet.key;
    let Some(service) = find::<F>(key) else { return Way::ToStack };
    let service = *service;
    if !admits::<F>(&service, &key.src) {
        return Way::Denied;
    }
    if service.flags & service::flags::DSR == 0 || key.src.is_martian() || F::inside(&key.src) != 0 {
        return Way::ToStack;
    }
    // SAFETY: places of one type, all in maps.
    unsafe { words::copy(&raw mut path.to, key.tuple()) };
    let set =
        if service.flags & service::flags::EXTERNAL_LOCAL != 0 { member::LOCAL } else { member::CLUSTER };
    if !F::balance(&service, service.external, set) {
        return Way::ToStack;
    }
    slow::settle();
    let Work { path, chosen, epoch, .. } = work;
    // SAFETY: as before.
    unsafe { words::copy(&raw mut path.to.dst, &raw const chosen.backend.addr) };
    path.to.dport = chosen.backend.port;
    path.flags = flags::TUNNEL;
    path.state = state::OPENING;
    path.epoch = *epoch;
    Way::Onward
}

/// Asks the kernel for the next hop of the flow in `work` and records the flow with it. False where that is
/// not known, or lies beyond another interface: a pod of this node, for one.
#[inline(always)]
fn approach<F: Family>(ctx: &Ctx<xdp_md>, state: &State, work: &mut Work<F::Addr>) -> bool {
    let Work { packet, path, entry, rules, fib, .. } = work;
    let ifindex = ctx.ifindex();
    let from = if path.flags & flags::TUNNEL != 0 { F::node(state) } else { &path.to.src };
    fib.ask::<F>(ifindex, from, &path.to.dst);
    if !fib.answer(ctx) || fib.ifindex != ifindex {
        return false;
    }
    path.ifindex = ifindex;
    path.flags |= flags::EDGE;
    *rules = Rules::NONE;
    // SAFETY: places of one type each, all in the map.
    unsafe {
        words::copy(&raw mut path.mac, &raw const fib.dmac);
        words::copy(&raw mut entry.key, &raw const packet.key);
        words::copy(&raw mut entry.path, path);
    }
    F::insert();
    true
}

/// Sends the packet out again as its way says.
#[inline(always)]
fn send<F: Family>(ctx: &Ctx<xdp_md>, work: &Work<F::Addr>) -> u32 {
    let path = &work.path;
    if path.flags & flags::TUNNEL == 0 {
        return match rewrite::translate::<F, _>(ctx, &work.packet, &path.to) {
            Ok(()) if rewrite::route::<F>(ctx, &path.mac).is_ok() => XDP_TX,
            // It has been changed: nobody else is to make something of it.
            _ => XDP_DROP,
        };
    }
    let Some(state) = maps::state() else { return XDP_PASS };
    let Ok(ip) = ctx.header_mut::<F::Header>(IP_OFFSET) else { return XDP_PASS };
    if !tunnel::fits::<F>(ctx, u32::from(ip.packet_len()), path.ifindex) {
        return XDP_PASS;
    }
    ip.take_hop();
    match xdp::encapsulate::<F>(ctx, F::node(state), path) {
        true => XDP_TX,
        // As above.
        false => XDP_DROP,
    }
}
