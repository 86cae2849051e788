//! Services: from a virtual address to a backend.

use weir_common::{
    addr::Be16,
    flow::FlowKey,
    service::{Backend, FrontendKey, MemberKey, Ring, Service},
};

use crate::family::Family;

/// The service that a packet of `key` is for.
#[inline(always)]
pub fn find<F: Family>(key: &FlowKey<F::Addr>) -> Option<&'static Service> {
    F::frontend(FrontendKey { addr: key.dst, port: key.dport, protocol: key.protocol as u16 })
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

/// Whether live flows from the frontend `front` may stay with the endpoint `back`.
#[inline(always)]
pub fn keeps<F: Family>(front: (F::Addr, Be16), back: (F::Addr, Be16), protocol: u32) -> bool {
    let Some(service) = F::frontend(FrontendKey { addr: front.0, port: front.1, protocol: protocol as u16 })
    else {
        return false;
    };
    F::is_member(MemberKey {
        service: service.id,
        backend: Backend { addr: back.0, port: back.1, reserved: 0 },
    })
}
