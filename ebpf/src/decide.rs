//! Deciding a flow: judging both ends, and recording it in both directions.
//!
//! Nothing here depends on the kind of program that asks; the hook only says who may have sent the packet.

use weir_common::{
    addr::Addr,
    flow::{FlowKey, Tuple, flags, state},
    header::protocol,
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR, Protocol, RULE_OWN_NODE, RULE_SELF},
    reason::{Hook, Reason},
    service::FrontendKey,
    state::{State, inside},
};

use crate::{
    ctx::Ctx,
    family::Family,
    flow::{Path, Rules},
    maps, masquerade,
    parse::Kind,
    policy::{self, Direction},
    report, service,
    slow::{self, GO_ON, NOT_OURS},
    tunnel, words,
    work::{End, Work},
};

/// First step for a new flow: where the packet goes. Answers [`GO_ON`], [`NOT_OURS`], or the number of the
/// reason to refuse it.
#[inline(always)]
pub fn choose<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> u32 {
    let Some(state) = maps::state() else { return Reason::NotReady as u32 };
    work.is_new = 1;
    // SAFETY: places in the map.
    unsafe { words::copy(&raw mut work.path.to, work.packet.key.tuple()) };
    work.path.state = state::OPENING;
    work.known_rules = Rules::NONE;
    let answer = open::<F>(ctx, hook, state, work);
    let Work { packet, path, .. } = work;
    // SAFETY: as before.
    if path.flags & flags::TUNNEL == 0 && !unsafe { words::same(&raw const path.to, packet.key.tuple()) } {
        path.flags |= flags::REWRITE;
    }
    answer
}

/// Second step: judges the flow at those of its ends that are pods of this node. Answers [`GO_ON`], or the
/// number of the reason to refuse it.
#[inline(always)]
pub fn judge<F: Family>(work: &mut Work<F::Addr>) -> u32 {
    name_ends(work);
    let answer = slow::hear(judge_ends::<F>(work));
    slow::settle();
    let Work { packet, path, rules, known_rules, .. } = work;
    let (flags, tcp_flags) = (u32::from(path.flags), u32::from(packet.tcp_flags));
    slow::hear(policy::count_judged(rules.packed(), known_rules.packed(), answer, flags, tcp_flags))
}

/// [`judge`], once it is known who speaks with whom.
#[inline(always)]
fn judge_ends<F: Family>(work: &mut Work<F::Addr>) -> u32 {
    let Work { packet, path, client, server, rules, .. } = work;
    let protocol = policy_protocol(packet.key.protocol);
    let port = server.port.get();
    let from_node = path.flags & flags::FROM_NODE != 0;
    // SAFETY: places in the map.
    let to_self = !from_node && unsafe { words::same(&raw const client.addr, &raw const server.addr) };
    client.ifindex = 0;
    server.ifindex = 0;
    if !from_node && let Some(pod) = F::endpoint(&client.addr) {
        client.set_pod(pod);
        if !to_self
            && let Err(reason) =
                policy::judge::<F>(pod, Direction::Egress, &server.addr, protocol, port, &mut rules.egress)
        {
            return reason as u32;
        }
    }
    if let Some(pod) = F::endpoint(&server.addr) {
        server.set_pod(pod);
        if from_node {
            rules.ingress = RULE_OWN_NODE;
        } else if to_self {
            *rules = Rules { egress: RULE_SELF, ingress: RULE_SELF };
        } else if let Err(reason) =
            policy::judge::<F>(pod, Direction::Ingress, &client.addr, protocol, port, &mut rules.ingress)
        {
            return reason as u32;
        }
    }
    GO_ON
}

/// Third step: records the flow, a new one in both directions.
#[inline(always)]
pub fn record<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> u32 {
    let Some(state) = maps::state() else { return Reason::NotReady as u32 };
    if work.path.flags & flags::TUNNEL != 0 {
        tunnel::record::<F>(work);
        return GO_ON;
    }
    if work.is_new != 0 {
        let answer = F::allot();
        if answer != GO_ON {
            return answer;
        }
        slow::settle();
    }
    let Work { packet, path, entry, client, server, epoch, is_new, rules, .. } = work;
    let key = &packet.key;
    // Not the one of now: a commit may have ended since the packet was judged.
    path.epoch = *epoch;
    if *is_new != 0 {
        // The reply first: once a packet is out, its answer must find the way back.
        turn(entry.key.tuple_mut(), &path.to);
        entry.key.scope = server.ifindex;
        entry.key.protocol = key.protocol;
        turn(&mut entry.path.to, key.tuple());
        entry.path.flags = path.flags & !(flags::BY_UPLINK | flags::BY_LOOPBACK) | flags::REPLY;
        if hook == Hook::FromUplink as u32 {
            entry.path.flags |= flags::BY_UPLINK;
        } else if hook == Hook::ToUplink as u32 && F::inside(&key.dst) & inside::OWN != 0 {
            entry.path.flags |= flags::BY_LOOPBACK;
        }
        entry.path.epoch = path.epoch;
        entry.path.state = path.state;
        lead(&mut entry.path, client, state);
        if !insert::<F>() {
            return Reason::FlowTableFailed as u32;
        }
        report::opened::<F>(ctx, hook, packet, &path.to, rules);
    }
    slow::settle();
    if path.flags & flags::REPLY != 0 {
        lead(path, client, state);
    } else {
        lead(path, server, state);
    }
    slow::settle();
    // SAFETY: places in the map.
    unsafe {
        words::copy(&raw mut entry.key, key);
        words::copy(&raw mut entry.path, path);
    }
    // A flow that goes on has its old entry until a later packet writes the new one.
    if !insert::<F>() && *is_new != 0 {
        return Reason::FlowTableFailed as u32;
    }
    GO_ON
}

/// Writes an entry; where another CPU writes the same place, a few times.
#[inline(always)]
fn insert<F: Family>() -> bool {
    const TRIES: u32 = 3;
    (0..TRIES).any(|_| F::insert())
}

/// Makes `to` the tuple of packets that go the other way.
#[inline(always)]
fn turn<A>(to: &mut Tuple<A>, from: &Tuple<A>) {
    // SAFETY: places of one type each, all in the map.
    unsafe {
        words::copy(&raw mut to.src, &raw const from.dst);
        words::copy(&raw mut to.dst, &raw const from.src);
    }
    (to.sport, to.dport) = (from.dport, from.sport);
}

/// Notes who speaks with whom, by the packet and its way. One form for both directions, so that what
/// follows is not walked by the verifier for each.
#[inline(always)]
pub fn name_ends<A: Addr>(work: &mut Work<A>) {
    let Work { packet, path, client, server, front, .. } = work;
    let (here, there) = (packet.key.tuple(), &path.to);
    // SAFETY: places of one type each, all in the map.
    unsafe {
        if path.flags & flags::REPLY != 0 {
            words::copy(&raw mut client.addr, &raw const there.dst);
            words::copy(&raw mut server.addr, &raw const here.src);
            words::copy(&raw mut front.addr, &raw const there.src);
            (server.port, front.port) = (here.sport, there.sport);
        } else {
            words::copy(&raw mut client.addr, &raw const here.src);
            words::copy(&raw mut server.addr, &raw const there.dst);
            words::copy(&raw mut front.addr, &raw const here.dst);
            (server.port, front.port) = (there.dport, here.dport);
        }
    }
    slow::settle();
}

/// Fills in where a new flow goes, and that the node is its client where that is so. Answers as [`choose`].
#[inline(always)]
fn open<F: Family>(ctx: &Ctx, hook: u32, state: &State, work: &mut Work<F::Addr>) -> u32 {
    let is_node = hook == Hook::ToUplink as u32 || hook == Hook::ToPod as u32 && ctx.ingress_ifindex() == 0;
    work.path.flags = if is_node { flags::FROM_NODE } else { 0 };
    let served = if hook == Hook::ToPod as u32 { NOT_OURS } else { F::serve(ctx, hook) };
    slow::settle();
    let is_uplink = hook == Hook::FromUplink as u32 || hook == Hook::ToUplink as u32;
    if is_uplink && served == NOT_OURS {
        return NOT_OURS;
    }
    let answer = F::check_ends(ctx, hook);
    if answer != GO_ON {
        return answer;
    }
    if hook == Hook::FromPod as u32 && masquerade::concerns::<F>(state, &work.path) {
        work.path.flags |= flags::MASQUERADED | flags::BY_UPLINK;
    }
    if served == NOT_OURS { GO_ON } else { served }
}

/// Whether the packet in `work` may open a flow, and between these ends. Answers [`GO_ON`], or the number of
/// the reason to refuse it.
#[inline(always)]
pub fn check_ends<F: Family>(ctx: &Ctx, hook: u32, work: &Work<F::Addr>) -> u32 {
    let Work { packet, path, .. } = work;
    if packet.piece.is_later() {
        return Reason::FragmentNotFound as u32;
    }
    if packet.kind == Kind::EchoReply {
        return Reason::IcmpUnrelated as u32;
    }
    let (src, dst) = (&packet.key.src, &packet.key.dst);
    if hook == Hook::FromPod as u32 {
        if !is_behind::<F>(src, ctx.ifindex()) {
            return Reason::InvalidSource as u32;
        }
        // SAFETY: places in the map.
        if dst.is_martian() || unsafe { words::same(dst, src) } {
            return Reason::InvalidDestination as u32;
        }
        return GO_ON;
    }
    if hook == Hook::ToPod as u32 && !is_behind::<F>(dst, ctx.ifindex()) {
        return Reason::UnknownEndpoint as u32;
    }
    if path.flags & flags::FROM_NODE == 0 && !is_outside::<F>(ctx, &packet.key) {
        return Reason::InvalidSource as u32;
    }
    GO_ON
}

/// A packet that comes from elsewhere has no address of this node, nor of a pod of it, nor of a service. Of a
/// service's external address that is the port, too: a router that has the address may hide clients behind it.
#[inline(always)]
fn is_outside<F: Family>(ctx: &Ctx, key: &FlowKey<F::Addr>) -> bool {
    let src = &key.src;
    let is_local = F::endpoint(src).is_some_and(|pod| pod.ifindex != ctx.ingress_ifindex());
    let is_node = F::inside(src) & inside::OWN != 0;
    let is_service = matches!(service::identity::<F>(src), IDENTITY_SERVICE | IDENTITY_SERVICE_CIDR);
    let front = FrontendKey { addr: *src, port: key.sport, protocol: key.protocol as u16 };
    !src.is_martian() && !is_node && !is_local && !is_service && F::frontend(front).is_none()
}

/// What policy judges by, for an IP protocol number.
#[inline(always)]
fn policy_protocol(number: u32) -> Protocol {
    match number as u8 {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        _ => Protocol::Echo,
    }
}

/// Whether a local pod behind this interface has the address.
#[inline(always)]
pub fn is_behind<F: Family>(addr: &F::Addr, ifindex: u32) -> bool {
    F::endpoint(addr).is_some_and(|pod| pod.ifindex == ifindex)
}

/// Makes a way end at `receiver`; when that is no local pod, at the uplink or in the node's stack.
#[inline(always)]
fn lead<A>(path: &mut Path<A>, receiver: &End<A>, state: &State) {
    path.flags &= !(flags::TO_PEER | flags::EDGE);
    path.ifindex = receiver.ifindex;
    if path.flags & flags::BY_UPLINK != 0 && path.ifindex == 0 {
        path.ifindex = state.uplink;
    }
    // SAFETY: places in the map.
    unsafe { words::copy(&raw mut path.mac, &raw const receiver.mac) };
    if receiver.ifindex != 0 {
        path.flags |= flags::TO_PEER;
    }
}
