//! Masquerade: what a pod sends outside of the cluster leaves under the node's address and a port of its own.

use weir_common::{
    flow::flags,
    header::protocol,
    reason::Reason,
    state::{self, State},
};

use crate::{
    family::Family,
    flow::Path,
    maps, words,
    work::{Entry, Work},
};

/// The ports given out: above those that Linux hands to the node's own sockets
/// (`net.ipv4.ip_local_port_range`, up to 60999 unless changed).
const FIRST_PORT: u16 = 61000;
const PORTS: u32 = 65536 - FIRST_PORT as u32;
/// Ports looked at before the connection is refused.
const TRIES: u32 = 16;
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
        && !F::is_inside(dst)
}

/// Gives a new flow the node's address and a free port: one that no live flow with the same receiver has.
/// An echo's identifier is its port. SCTP keeps its port, since its checksum is over all of the packet.
///
/// # Errors
/// [`Reason::NoFreePort`].
#[inline(always)]
pub fn allot<F: Family>(work: &mut Work<F::Addr>) -> Result<(), Reason> {
    let Some(state) = maps::state() else { return Err(Reason::NotReady) };
    let Work { packet, path, entry: Entry { key, .. }, cursor, .. } = work;
    // SAFETY: places of one type each, all in maps.
    unsafe {
        words::copy(&raw mut path.to.src, F::node(state));
        words::copy(&raw mut key.src, &raw const path.to.dst);
        words::copy(&raw mut key.dst, F::node(state));
    }
    path.flags |= flags::REWRITE;
    key.sport = path.to.dport;
    key.scope = 0;
    key.protocol = packet.key.protocol;
    if packet.protocol() == protocol::SCTP {
        key.dport = packet.key.sport;
        return if F::has_entry() { Err(Reason::NoFreePort) } else { Ok(()) };
    }
    cursor.set(packet.key.hash() as u32 % PORTS);
    for _ in 0..TRIES {
        let offset = cursor.get() % PORTS;
        key.dport = weir_common::addr::Be16::new(FIRST_PORT + offset as u16);
        if !F::has_entry() {
            path.to.sport = key.dport;
            return Ok(());
        }
        cursor.set(offset + STEP);
    }
    Err(Reason::NoFreePort)
}
