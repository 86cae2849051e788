//! Session affinity: a client's next connection to a service port goes where its last one went.

use weir_common::{
    flow::{FlowKey, elapsed},
    service::{Affinity, AffinityKey, MemberKey, Ring},
};

use crate::{ctx::AlignedAfterWord, family::Family, maps, service, words};

/// Replaces an entry of any state.
const BPF_ANY: u64 = 0;

/// A service port, as far as this stage is concerned with it.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Its number.
    pub id: u32,
    /// Its timeout in seconds, 0: it asks for no affinity.
    pub timeout: u32,
}

/// Chooses a backend of `service` for a new flow: where the service asks for affinity, the one of the client's
/// last connection, not for longer than the timeout after that, and only while it may be chosen; else one from
/// `ring`, whose endpoints have the bit `set` of [`weir_common::service::member`]. False when there is none.
#[inline(always)]
pub fn choose<F: Family>(
    service: Asked,
    ring: Ring,
    set: u32,
    key: &FlowKey<F::Addr>,
    chosen: &mut Affinity<F::Addr>,
) -> bool {
    if ring.len == 0 {
        return false;
    }
    let is_remembered = service.timeout != 0 && recall::<F>(service, set, &key.src, chosen);
    if !is_remembered {
        let Some(backend) = service::choose::<F>(ring, key) else { return false };
        // SAFETY: places of one type, both in maps.
        unsafe { words::copy(&raw mut chosen.backend, backend) };
    }
    if service.timeout != 0 {
        remember::<F>(service, &key.src, chosen);
    }
    true
}

/// The backend of the client's last connection, if it is to be kept to.
#[inline(always)]
fn recall<F: Family>(service: Asked, set: u32, client: &F::Addr, chosen: &mut Affinity<F::Addr>) -> bool {
    let key = AlignedAfterWord::new(AffinityKey { service: service.id, client: *client });
    // SAFETY: an entry may become another client's while it is read; whatever comes of that is checked below.
    let Some(last) = (unsafe { F::affinity().get(&key.1) }) else { return false };
    // SAFETY: places of one type, both in maps.
    unsafe { words::copy(chosen, last) };
    let is_over = elapsed(maps::now(), chosen.seen) >= service.timeout * maps::HZ.load();
    !is_over && F::member(MemberKey { service: service.id, backend: chosen.backend }) & set != 0
}

/// Notes that a connection of the client went to this backend now.
#[inline(always)]
fn remember<F: Family>(service: Asked, client: &F::Addr, chosen: &mut Affinity<F::Addr>) {
    let key = AlignedAfterWord::new(AffinityKey { service: service.id, client: *client });
    chosen.seen = maps::now();
    // Where the map takes no more, the ring alone chooses.
    let _ = F::affinity().insert(&key.1, chosen, BPF_ANY);
}
