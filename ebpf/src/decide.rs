//! Deciding a flow: judging both ends, and recording it in both directions.
//!
//! Nothing here depends on the kind of program that asks; the hook only says who may have sent the packet.

use weir_common::{
    addr::Addr,
    flow::{FlowKey, Tuple, flags, state},
    header::protocol,
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR, Protocol, RULE_OWN_NODE, RULE_SELF},
    reason::{Hook, Reason},
    state::State,
};

use crate::{
    ctx::Ctx,
    family::Family,
    flow::{self, Path, Rules, tuple_of},
    maps,
    parse::{Kind, Packet},
    policy::{self, Direction},
    report, service,
    slow::{GO_ON, NOT_OURS},
    work::{End, Work},
};

/// First step: where the packet goes. For a flow whose entry is of an older revision (`is_known`, its way
/// in `work`) that stays as it is where that is still right; else the flow is opened anew. Answers
/// [`GO_ON`], [`NOT_OURS`], or the number of the reason to refuse it.
#[inline(always)]
pub fn choose<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>, is_known: bool) -> u32 {
    let Some(state) = maps::state() else { return Reason::NotReady as u32 };
    let Work { packet, path, .. } = work;
    let key = &packet.key;
    work.is_new = 0;
    if is_known {
        if key.scope != 0 && !is_behind::<F>(&key.src, key.scope) {
            return Reason::InvalidSource as u32;
        }
        if still_served::<F>(key, path) {
            return GO_ON;
        }
        if path.flags & flags::REPLY != 0 {
            return Reason::ServiceNoBackend as u32;
        }
    }
    work.is_new = 1;
    path.to = tuple_of(key);
    path.flags = 0;
    path.state = state::OPENING;
    let answer = open::<F>(ctx, hook, state, packet, path);
    if path.to != tuple_of(key) {
        path.flags |= flags::REWRITE;
    }
    answer
}

/// Second step: judges the flow at those of its ends that are pods of this node. Answers [`GO_ON`], or the
/// number of the reason to refuse it.
#[inline(always)]
pub fn judge<F: Family>(work: &mut Work<F::Addr>) -> u32 {
    let Work { packet, path, client, server, rules, .. } = work;
    let key = &packet.key;
    let (from, to, port) = if path.flags & flags::REPLY != 0 {
        (path.to.dst, key.src, key.sport)
    } else {
        (key.src, path.to.dst, path.to.dport)
    };
    let protocol = policy_protocol(key.protocol);
    let from_node = path.flags & flags::FROM_NODE != 0;
    let to_self = from == to && !from_node;
    client.ifindex = 0;
    server.ifindex = 0;
    if !from_node && let Some(pod) = F::endpoint(&from) {
        client.set(pod);
        if !to_self
            && let Err(reason) =
                policy::judge::<F>(pod, Direction::Egress, to, protocol, port.get(), &mut rules.egress)
        {
            return reason as u32;
        }
    }
    if let Some(pod) = F::endpoint(&to) {
        server.set(pod);
        if from_node {
            rules.ingress = RULE_OWN_NODE;
        } else if to_self {
            *rules = Rules { egress: RULE_SELF, ingress: RULE_SELF };
        } else if let Err(reason) =
            policy::judge::<F>(pod, Direction::Ingress, from, protocol, port.get(), &mut rules.ingress)
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
    let now = maps::now();
    let Work { packet, path, reply, client, server, is_new, rules, best, .. } = work;
    let key = &packet.key;
    path.epoch = state.epoch;
    if *is_new != 0 {
        // The reply first: once a packet is out, its answer must find the way back.
        reply.key = FlowKey::reply_to(&path.to, server.ifindex, key.protocol);
        reply.path.to = Tuple { src: key.dst, dst: key.src, sport: key.dport, dport: key.sport };
        reply.path.flags = path.flags | flags::REPLY;
        reply.path.epoch = path.epoch;
        reply.path.state = path.state;
        lead(&mut reply.path, client);
        flow::insert::<F>(&reply.key, &reply.path, rules, now, best);
        report::opened::<F>(ctx, hook, packet, &path.to, rules);
    }
    lead(path, if path.flags & flags::REPLY != 0 { client } else { server });
    flow::insert::<F>(key, path, rules, now, best);
    GO_ON
}

/// Fills in where a new flow goes, and that the node is its client where that is so. Answers as [`choose`].
#[inline(always)]
fn open<F: Family>(
    ctx: &Ctx,
    hook: u32,
    state: &State,
    packet: &Packet<F::Addr>,
    path: &mut Path<F::Addr>,
) -> u32 {
    if hook == Hook::FromUplink as u32 {
        return NOT_OURS;
    }
    if packet.piece.is_later() {
        return Reason::FragmentNotFound as u32;
    }
    if packet.kind == Kind::EchoReply {
        return Reason::IcmpUnrelated as u32;
    }
    let (src, dst) = (packet.key.src, packet.key.dst);
    if hook == Hook::ToPod as u32 {
        if !is_behind::<F>(&dst, ctx.ifindex()) {
            return Reason::UnknownEndpoint as u32;
        }
        if ctx.ingress_ifindex() == 0 {
            path.flags |= flags::FROM_NODE;
            return GO_ON;
        }
        return if is_outside::<F>(ctx, state, src) { GO_ON } else { Reason::InvalidSource as u32 };
    }
    if hook == Hook::FromPod as u32 {
        if !is_behind::<F>(&src, ctx.ifindex()) {
            return Reason::InvalidSource as u32;
        }
        if dst.is_martian() || dst == src {
            return Reason::InvalidDestination as u32;
        }
    } else {
        // The node's own packets take their way unless they are for a service.
        if service::find::<F>(&packet.key).is_none() {
            return NOT_OURS;
        }
        path.flags |= flags::FROM_NODE;
    }
    destination::<F>(state, packet, path)
}

/// A packet that comes to a pod from elsewhere has no address of this node, nor of a pod of it.
#[inline(always)]
fn is_outside<F: Family>(ctx: &Ctx, state: &State, src: F::Addr) -> bool {
    let is_local = F::endpoint(&src).is_some_and(|pod| pod.ifindex != ctx.ingress_ifindex());
    !src.is_martian() && src != F::node(state) && !is_local
}

/// Fills in where a new flow's packets go: to a backend when it is for a service, else where they say.
/// Refuses when the address is a service's, but there is nothing behind it. Answers as [`choose`].
#[inline(always)]
fn destination<F: Family>(state: &State, packet: &Packet<F::Addr>, path: &mut Path<F::Addr>) -> u32 {
    let key = &packet.key;
    if let Some(service) = service::find::<F>(key) {
        let Some(backend) = service::choose::<F>(service.internal, key) else {
            return Reason::ServiceNoBackend as u32;
        };
        path.to.dst = backend.addr;
        path.to.dport = backend.port;
        if backend.addr == key.src {
            // A pod that is its own backend would drop a packet from its own address.
            path.to.src = F::node(state);
            if path.to.src == F::Addr::default() {
                return Reason::ServiceNoBackend as u32;
            }
        }
    } else if F::endpoint(&key.dst).is_none() {
        match F::identity(key.dst).slots[0] {
            IDENTITY_SERVICE => return Reason::ServicePortUnknown as u32,
            IDENTITY_SERVICE_CIDR => return Reason::ServiceUnallocated as u32,
            _ => {}
        }
    }
    GO_ON
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

/// Makes a way end at `receiver`, or in the node's stack when that is no local pod.
#[inline(always)]
fn lead<A>(path: &mut Path<A>, receiver: &End) {
    path.flags &= !flags::TO_PEER;
    path.ifindex = receiver.ifindex;
    path.mac = receiver.mac;
    if receiver.ifindex != 0 {
        path.flags |= flags::TO_PEER;
    }
}

/// Whether the service that a flow was opened through still sends it to its backend. TCP flows stay
/// with an endpoint that has left; flows without a connection end at once, as with kube-proxy.
#[inline(always)]
fn still_served<F: Family>(key: &FlowKey<F::Addr>, path: &Path<F::Addr>) -> bool {
    let to = &path.to;
    let is_reply = path.flags & flags::REPLY != 0;
    let (front, front_port, back, back_port) = if is_reply {
        (to.src, to.sport, key.src, key.sport)
    } else {
        (key.dst, key.dport, to.dst, to.dport)
    };
    if front == back && front_port == back_port || key.protocol == u32::from(protocol::TCP) {
        return true;
    }
    service::keeps::<F>((front, front_port), (back, back_port), key.protocol)
}
