//! Fragments: the later ones have no ports, and get those of the first.
//!
//! A later fragment that comes before its first is dropped: there is nothing to judge it by.

use weir_common::{
    flow::{FRAGMENT_TIMEOUT, Fragment, FragmentKey, elapsed},
    reason::Reason,
};

use crate::{ctx::Aligned, family::Family, maps, parse::Packet};

/// Replaces an entry of any state.
const BPF_ANY: u64 = 0;

/// Remembers the ports of a first fragment, fills in those of a later one.
///
/// # Errors
/// [`Reason::FragmentNotFound`] and [`Reason::FragmentOverlap`]. A second first fragment of a live
/// datagram with other ports, or one that ends elsewhere, overlaps.
#[inline(always)]
pub fn resolve<F: Family>(packet: &mut Packet<F::Addr>) -> Result<(), Reason> {
    if !packet.piece.is_fragment {
        return Ok(());
    }
    let key = Aligned(FragmentKey {
        src: packet.key.src,
        dst: packet.key.dst,
        id: packet.piece.id,
        scope: packet.key.scope,
        protocol: packet.key.protocol,
    });
    let now = maps::now();
    // SAFETY: an entry is replaced whole or evicted; a torn read could only mix two fragments of one sender's datagram.
    let known = unsafe { F::fragments().get(&key.0) }
        .filter(|known| elapsed(now, known.seen) <= FRAGMENT_TIMEOUT * maps::HZ.load());
    if packet.piece.is_later() {
        let Some(first) = known else { return Err(Reason::FragmentNotFound) };
        if packet.piece.start < first.first_end {
            return Err(Reason::FragmentOverlap);
        }
        packet.key.sport = first.sport;
        packet.key.dport = first.dport;
        return Ok(());
    }
    if let Some(first) = known
        && (first.sport != packet.key.sport
            || first.dport != packet.key.dport
            || first.first_end != packet.piece.end)
    {
        return Err(Reason::FragmentOverlap);
    }
    let first = Aligned(Fragment {
        sport: packet.key.sport,
        dport: packet.key.dport,
        first_end: packet.piece.end,
        seen: now,
    });
    match F::fragments().insert(&key.0, &first.0, BPF_ANY) {
        Ok(()) => Ok(()),
        Err(_) => Err(Reason::FragmentNotFound),
    }
}
