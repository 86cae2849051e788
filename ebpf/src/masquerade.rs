//! The source that a flow has beyond this node: its own, or the node's address and a port of its own.

use weir_common::{
    addr::Be16,
    flow::{self, flags},
    reason::Reason,
    state::{self, State},
};

use crate::{
    family::Family,
    flow::Path,
    maps, slow, words,
    work::{Entry, Work},
};

/// The ports given out: below node ports (30000 to 32767) and below those that Linux hands to the node's own
/// sockets (`net.ipv4.ip_local_port_range`, from 32768 unless changed).
const FIRST_PORT: u16 = 10_000;
const PORTS: u32 = 20_000;
/// Ports looked at before the connection is refused.
const TRIES: u32 = 16;
/// After so many of them a port will do whose flow has only just ended, and from the second try on one whose flow has
/// ended and said nothing for a second, by which time both of its ends are done with it. Such flows are kept for two
/// minutes, and there are fewer ports than a client opens connections in that time.
const PATIENT_TRIES: u32 = TRIES / 2;
/// Distance of one try from the next: a prime that shares no factor with the number of ports.
const STEP: u32 = 1117;

/// Whether a new flow of a pod is to be masqueraded: it leaves the cluster by the uplink.
#[inline(always)]
pub fn concerns<F: Family>(state: &State, path: &Path<F::Addr>) -> bool {
    let dst = &path.to.dst;
    state.flags & state::flags::MASQUERADE != 0
        && state.uplink != 0
        && *F::node(state) != F::Addr::default()
        && F::endpoint(dst).is_none()
        && F::inside(dst) == 0
}

/// Finds a source port for a new flow by which its answers are told from those of every other: its own
/// where that is free, and if the flow is masqueraded one of those given out, beside the node's address.
/// An echo's identifier is its port.
///
/// Two services with one backend may be asked from one port, and so may a service and its backend: both
/// flows would have the same answers. The later one gets another port.
///
/// # Errors
/// [`Reason::NoFreePort`].
#[inline(always)]
pub fn allot<F: Family>(work: &mut Work<F::Addr>) -> Result<(), Reason> {
    let Some(state) = maps::state() else { return Err(Reason::NotReady) };
    let Work { packet, path, server, entry: Entry { key, .. }, cursor, .. } = work;
    key.dport = packet.key.sport;
    let first = packet.key.hash() as u32 % PORTS;
    cursor.set(first);
    if path.flags & flags::MASQUERADED != 0 {
        if *F::node(state) == F::Addr::default() {
            return Err(Reason::NoFreePort);
        }
        // SAFETY: places of one type each, all in maps.
        unsafe { words::copy(&raw mut path.to.src, F::node(state)) };
        path.flags |= flags::REWRITE;
        key.dport = Be16::new(FIRST_PORT + first as u16);
    }
    // SAFETY: as before.
    unsafe {
        words::copy(&raw mut key.src, &raw const path.to.dst);
        words::copy(&raw mut key.dst, &raw const path.to.src);
    }
    key.sport = path.to.dport;
    key.scope = server.ifindex;
    key.protocol = packet.key.protocol;
    for attempt in 0..TRIES {
        if F::is_free(attempt) {
            slow::settle();
            let Work { packet, path, entry: Entry { key, .. }, .. } = work;
            path.to.sport = key.dport;
            if key.dport != packet.key.sport {
                path.flags |= flags::REWRITE;
            }
            return Ok(());
        }
    }
    Err(Reason::NoFreePort)
}

/// Whether the answers that [`Work::entry`] is for are of no other flow than the packet's, or of one that has ended;
/// for the `attempt`th time, the first excepted by another port.
#[inline(always)]
pub fn is_free<F: Family>(attempt: u32, work: &mut Work<F::Addr>) -> bool {
    if attempt != 0 {
        let offset = (work.cursor.get() + STEP) % PORTS;
        work.cursor.set(offset);
        work.entry.key.dport = Be16::new(FIRST_PORT + offset as u16);
    }
    if !F::has_entry() {
        return true;
    }
    slow::settle();
    let (sent, found) = (work.packet.key.tuple(), &work.entry.path);
    let is_over = attempt >= PATIENT_TRIES || attempt != 0 && found.is_due;
    if is_over && found.state == flow::state::CLOSING {
        return true;
    }
    let answer = &found.to;
    // SAFETY: places of one type each, all in the map.
    let are_ends = unsafe {
        words::same(&raw const answer.src, &raw const sent.dst)
            && words::same(&raw const answer.dst, &raw const sent.src)
    };
    are_ends && answer.sport == sent.dport && answer.dport == sent.sport
}
