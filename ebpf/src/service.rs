//! Services: from a virtual address to a backend.

use weir_common::{
    flow::{FlowKey, flags as way},
    header::tcp_flags,
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR},
    reason::{Hook, Reason},
    service::{Backend, FrontendKey, MemberKey, Ring, Service, flags},
    state::inside,
};

use crate::{
    family::Family,
    flow::Path,
    parse::{Kind, Packet},
    slow::{GO_ON, NOT_OURS},
    words,
    work::{End, Front},
};

/// Sends a new flow to a backend of the service that it is for: fills in where its packets go, and whether
/// they get the node's address. Answers [`GO_ON`], [`NOT_OURS`] when it is for none, or the number of the
/// reason to refuse it.
#[inline(always)]
pub fn serve<F: Family>(hook: u32, packet: &Packet<F::Addr>, path: &mut Path<F::Addr>) -> u32 {
    let key = &packet.key;
    let front = FrontendKey { addr: key.dst, port: key.dport, protocol: key.protocol as u16 };
    match F::frontend(front) {
        Some(service) => translate::<F>(*service, key, path),
        None if hook == Hook::FromPod as u32 || opens(packet) => unserved::<F>(key),
        None => NOT_OURS,
    }
}

/// Fills in to which backend a new flow to `service` goes. Answers as [`serve`].
#[inline(always)]
fn translate<F: Family>(service: Service, key: &FlowKey<F::Addr>, path: &mut Path<F::Addr>) -> u32 {
    if service.flags & flags::SOURCE_RANGES != 0 && !F::is_source(service.id, &key.src) {
        return Reason::SourceRange as u32;
    }
    let (ring, masquerade, drops) = if path.flags & way::FROM_NODE != 0 {
        (service.internal, flags::MASQUERADE_NODE, flags::EMPTY_INTERNAL_DROPS)
    } else {
        let client = F::inside(&key.src);
        if client & inside::POD != 0 {
            (service.internal, flags::MASQUERADE_POD, flags::EMPTY_INTERNAL_DROPS)
        } else {
            (service.external, flags::MASQUERADE_EXTERNAL, flags::EMPTY_EXTERNAL_DROPS)
        }
    };
    let Some(backend) = choose::<F>(ring, key) else {
        let is_policy = service.flags & drops != 0;
        return if is_policy { Reason::ServiceNotLocal as u32 } else { Reason::ServiceNoBackend as u32 };
    };
    path.to.dport = backend.port;
    // SAFETY: places of one type each, all in maps.
    let is_itself = unsafe {
        words::copy(&raw mut path.to.dst, &raw const backend.addr);
        words::same(&raw const backend.addr, &raw const key.src)
    };
    if F::endpoint(&path.to.dst).is_none() && F::inside(&path.to.dst) & inside::OWN != 0 {
        // A socket of this node. Under the node's address as its source the packet would not get there.
        path.flags |= if path.flags & way::FROM_NODE != 0 { way::BY_LOOPBACK } else { 0 };
    } else if service.flags & masquerade != 0 || is_itself {
        // Who is its own backend would drop a packet from its own address.
        path.flags |= way::MASQUERADED | way::BY_UPLINK;
    } else if path.flags & way::FROM_NODE != 0 {
        // The route that the packet was to take was the service's: to the backend it needs another.
        path.flags |= way::BY_UPLINK;
    }
    GO_ON
}

/// Refuses what is for the address of a service but for no port of it, or for an address of the services'
/// range that none has. Answers as [`serve`].
#[inline(always)]
fn unserved<F: Family>(key: &FlowKey<F::Addr>) -> u32 {
    if F::endpoint(&key.dst).is_some() {
        return NOT_OURS;
    }
    match F::identity(&key.dst).slots[0] {
        IDENTITY_SERVICE => Reason::ServicePortUnknown as u32,
        IDENTITY_SERVICE_CIDR => Reason::ServiceUnallocated as u32,
        _ => NOT_OURS,
    }
}

/// Whether a packet may open a flow. On the uplink most are no concern of ours, and this tells it sooner
/// than a look-up.
#[inline(always)]
fn opens<A>(packet: &Packet<A>) -> bool {
    match packet.kind {
        Kind::Tcp => packet.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN,
        kind => kind != Kind::EchoReply,
    }
}

/// Chooses a backend from `ring` for a new flow, by the hash of its addresses and ports: the same packet
/// finds the same backend as long as the ring has it. `None` when the ring is empty.
#[inline(always)]
fn choose<F: Family>(ring: Ring, key: &FlowKey<F::Addr>) -> Option<&'static Backend<F::Addr>> {
    // The scope would make the choice depend on the hook.
    let hash = FlowKey { scope: 0, ..*key }.hash();
    if ring.len == 0 {
        return None;
    }
    let slot = (hash >> 32) as u32 % ring.len;
    F::rings().get(ring.offset + slot)
}

/// Whether live flows from the frontend `front` may stay with the endpoint `back`.
#[inline(always)]
pub fn keeps<F: Family>(front: &Front<F::Addr>, back: &End<F::Addr>, protocol: u32) -> bool {
    let key = FrontendKey { addr: front.addr, port: front.port, protocol: protocol as u16 };
    let Some(service) = F::frontend(key) else { return false };
    F::is_member(MemberKey {
        service: service.id,
        backend: Backend { addr: back.addr, port: back.port, reserved: 0 },
    })
}
