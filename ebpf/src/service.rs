//! Services: from a virtual address to a backend.

use weir_common::{
    flow::FlowKey,
    policy::IDENTITY_SERVICE,
    reason::Reason,
    service::{Backend, FrontendKey, MemberKey, Ring, Service, member},
};

use crate::{
    family::{Family, NO_MEMBER},
    work::{End, Front},
};

/// The service that a packet of `key` is for.
#[inline(always)]
pub fn find<F: Family>(key: &FlowKey<F::Addr>) -> Option<&'static Service> {
    F::frontend(FrontendKey { addr: key.dst, port: key.dport, protocol: key.protocol as u16 })
}

/// Whether a packet of `key` is to an address of a service, whatever the port.
#[inline(always)]
pub fn is_asked<F: Family>(key: &FlowKey<F::Addr>) -> bool {
    find::<F>(key).is_some() || F::identity(&key.dst).slots[0] == IDENTITY_SERVICE
}

/// Chooses a backend from `ring` for a new flow, by the hash of its addresses and ports: the same packet
/// finds the same backend as long as the ring has it. `None` when the ring is empty.
#[inline(always)]
pub fn choose<F: Family>(ring: Ring, key: &FlowKey<F::Addr>) -> Option<&'static Backend<F::Addr>> {
    // The scope would make the choice depend on the hook.
    let hash = FlowKey { scope: 0, ..*key }.hash();
    if ring.len == 0 {
        return None;
    }
    let slot = (hash >> 32) as u32 % ring.len;
    F::rings().get(ring.offset + slot)
}

/// Why a service refuses a client whose ring is empty: `drops` is the flag that says that there are backends,
/// but not for this node.
#[inline(always)]
pub fn refusal(service: &Service, drops: u32) -> Reason {
    if service.flags & drops != 0 { Reason::ServiceNotLocal } else { Reason::ServiceNoBackend }
}

/// Whether live flows from the frontend `front` may stay with the endpoint `back`: while it serves, or, for
/// such as come to an end of their own (`has_end`), while it is there at all. Where the service itself is
/// gone, these stay too: nothing says then what became of its backends.
#[inline(always)]
pub fn keeps<F: Family>(front: &Front<F::Addr>, back: &End<F::Addr>, protocol: u32, has_end: bool) -> bool {
    let key = FrontendKey { addr: front.addr, port: front.port, protocol: protocol as u16 };
    let Some(service) = F::frontend(key) else { return has_end };
    let backend = Backend { addr: back.addr, port: back.port, reserved: 0 };
    let is = F::member(MemberKey { service: service.id, backend });
    if has_end { is & NO_MEMBER == 0 } else { is & member::SERVES != 0 }
}
