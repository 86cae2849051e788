//! Flows that were decided in an earlier epoch: whether their service still sends them where they go.

use weir_common::{
    flow::{flags, state},
    header::{protocol, tcp_flags},
    reason::Reason,
    service::member,
    state::{State, flags::RESET_GONE},
};

use crate::{
    decide,
    family::Family,
    maps,
    parse::{Kind, Packet},
    service,
    slow::{GO_ON, NOT_OURS},
    words,
    work::Work,
};

/// The first step of [`decide`] for such a flow, its way in `work`: it stays as it is where that is still
/// right. Answers as [`decide::choose`], or [`NOT_OURS`] when the flow is to be opened anew.
#[inline(always)]
pub fn run<F: Family>(work: &mut Work<F::Addr>) -> u32 {
    let Some(state) = maps::state() else { return Reason::NotReady as u32 };
    work.is_new = 0;
    let key = &work.packet.key;
    if key.scope != 0 && !decide::is_behind::<F>(&key.src, key.scope) {
        return Reason::InvalidSource as u32;
    }
    decide::name_ends(work);
    if still_served::<F>(state, work) {
        return GO_ON;
    }
    if goes_on(&work.packet) || work.path.flags & flags::REPLY != 0 {
        return Reason::ServiceBackendGone as u32;
    }
    NOT_OURS
}

/// Whether the packet is of a connection that has been opened: one of TCP, and not its first.
#[inline(always)]
fn goes_on<A>(packet: &Packet<A>) -> bool {
    packet.kind == Kind::Tcp && packet.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) != tcp_flags::SYN
}

/// Whether the service that a flow was opened through still sends it to its backend. UDP leaves a backend
/// that serves no more, as with kube-proxy. What was never answered, such as a SYN that is sent again, leaves one
/// that fails its checks as well. TCP stays until the backend is gone, or for ever where the cluster wants
/// kube-proxy's way; SCTP stays for ever.
#[inline(always)]
fn still_served<F: Family>(state: &State, work: &mut Work<F::Addr>) -> bool {
    let Work { packet, path, server, front, cursor, .. } = work;
    let is_tcp = packet.key.protocol == u32::from(protocol::TCP);
    let is_udp = packet.key.protocol == u32::from(protocol::UDP);
    let is_unanswered = path.state == state::OPENING && !goes_on(packet);
    // Who is sound serves.
    cursor.set((u32::from(is_unanswered) * member::SOUND) | (u32::from(is_udp) * member::SERVES));
    // Through memory: from here the verifier walks one way and not one for each number.
    let needed = cursor.get();
    if needed == 0 && (!is_tcp || state.flags & RESET_GONE == 0) {
        return true;
    }
    // SAFETY: places in the map.
    if front.port == server.port && unsafe { words::same(&raw const front.addr, &raw const server.addr) } {
        return true;
    }
    service::keeps::<F>(front, server, packet.key.protocol, needed)
}
