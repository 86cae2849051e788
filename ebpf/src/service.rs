//! Services: from a virtual address to a backend.

use weir_common::{
    flow::{FlowKey, flags as way},
    header::tcp_flags,
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR},
    reason::{Hook, Reason},
    service::{Backend, FrontendKey, MemberKey, Ring, Service, flags, member},
    state::{flags::SECOND_SLOT, inside},
};

use crate::{
    ctx::Ctx,
    family::{Family, NO_MEMBER},
    maps,
    parse::{Kind, Packet},
    slow::{self, GO_ON, NOT_OURS},
    tunnel, words,
    work::{End, Front, Work},
};

/// The service that a packet of `key` is for.
#[inline(always)]
pub fn find<F: Family>(key: &FlowKey<F::Addr>) -> Option<&'static Service> {
    F::frontend(FrontendKey { addr: key.dst, port: key.dport, protocol: key.protocol as u16 })
}

/// Whether a client may use the frontend of a service.
#[inline(always)]
pub fn admits<F: Family>(service: &Service, client: &F::Addr) -> bool {
    match service.flags & (flags::SOURCE_RANGES | flags::SOURCES_HERE) {
        0 => true,
        flags::SOURCE_RANGES => F::is_source(service.id, client),
        _ => service.sources.contain(*client),
    }
}

/// Sends a new flow to a backend of the service that it is for: fills in where its packets go, and whether
/// they get the node's address. Answers [`GO_ON`], [`NOT_OURS`] when it is for none, or the number of the
/// reason to refuse it.
#[inline(always)]
pub fn serve<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> u32 {
    if hook == Hook::FromUplink as u32 && work.is_tunnelled != 0 {
        let Work { packet, path, tunnelled_to, .. } = work;
        return tunnel::accept::<F>(packet, path, tunnelled_to);
    }
    let key = &work.packet.key;
    match find::<F>(key) {
        // Before a backend is chosen: the service may remember it for the source address.
        Some(service) => match F::check_ends(ctx, hook) {
            GO_ON => translate::<F>(*service, work),
            reason => reason,
        },
        None if hook == Hook::FromPod as u32 || opens(&work.packet) => unserved::<F>(key),
        None => NOT_OURS,
    }
}

/// Fills in to which backend a new flow to `service` goes. Answers as [`serve`].
#[inline(always)]
fn translate<F: Family>(service: Service, work: &mut Work<F::Addr>) -> u32 {
    let Work { packet, path, .. } = work;
    let key = &packet.key;
    if !admits::<F>(&service, &key.src) {
        return Reason::SourceRange as u32;
    }
    let (ring, local, masquerade, drops) = if path.flags & way::FROM_NODE != 0 {
        (service.internal, flags::INTERNAL_LOCAL, flags::MASQUERADE_NODE, flags::EMPTY_INTERNAL_DROPS)
    } else {
        let client = F::inside(&key.src);
        if client & inside::POD != 0 {
            (service.internal, flags::INTERNAL_LOCAL, flags::MASQUERADE_POD, flags::EMPTY_INTERNAL_DROPS)
        } else {
            (service.external, flags::EXTERNAL_LOCAL, flags::MASQUERADE_EXTERNAL, flags::EMPTY_EXTERNAL_DROPS)
        }
    };
    let is_outside = masquerade == flags::MASQUERADE_EXTERNAL;
    let set = if service.flags & local != 0 { member::LOCAL } else { member::CLUSTER };
    if !F::balance(&service, ring, set) {
        let is_policy = service.flags & drops != 0;
        return if is_policy { Reason::ServiceNotLocal as u32 } else { Reason::ServiceNoBackend as u32 };
    }
    slow::settle();
    let Work { packet, path, chosen, .. } = work;
    let (key, backend) = (&packet.key, &chosen.backend);
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
    } else if is_outside && service.flags & flags::DSR != 0 && F::endpoint(&path.to.dst).is_none() {
        path.flags |= way::TUNNEL;
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
    match identity::<F>(&key.dst) {
        IDENTITY_SERVICE => Reason::ServicePortUnknown as u32,
        IDENTITY_SERVICE_CIDR => Reason::ServiceUnallocated as u32,
        _ => NOT_OURS,
    }
}

/// What an address is to the commit in force, where no pod is asked about it.
#[inline(always)]
pub fn identity<F: Family>(addr: &F::Addr) -> u32 {
    let [first, second] = F::identity(addr).slots;
    let is_second = maps::state().is_some_and(|state| state.flags & SECOND_SLOT != 0);
    if is_second { second } else { first }
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
pub fn choose<F: Family>(ring: Ring, key: &FlowKey<F::Addr>) -> Option<&'static Backend<F::Addr>> {
    // The scope would make the choice depend on the hook.
    let hash = FlowKey { scope: 0, ..*key }.hash();
    if ring.slots() == 0 {
        return None;
    }
    let (element, byte) = ring.place::<F::Addr>((hash >> 32) as u32 % ring.slots());
    let packed = F::rings().get(ring.offset + element)?;
    // SAFETY: an element, which is aligned to pairs, has as many bytes of slots.
    let pair = unsafe { (&raw const *packed).byte_add((byte & !1) as usize).cast::<u16>().read() };
    let index = ring.index_in(u16::from_le(pair), byte);
    F::rings().get(ring.offset + ring.slot_elements::<F::Addr>() + index)
}

/// Whether live flows from the frontend `front` may stay with the endpoint `back`: while it has the bits
/// `needed` of [`member`], or, where none is, while it is there at all. Where the service itself is gone, these
/// stay too: nothing says then what became of its backends.
#[inline(always)]
pub fn keeps<F: Family>(front: &Front<F::Addr>, back: &End<F::Addr>, protocol: u32, needed: u32) -> bool {
    let key = FrontendKey { addr: front.addr, port: front.port, protocol: protocol as u16 };
    let Some(service) = F::frontend(key) else { return needed == 0 };
    let backend = Backend { addr: back.addr, port: back.port, reserved: 0 };
    F::member(MemberKey { service: service.id, backend }) & (NO_MEMBER | needed) == needed
}
