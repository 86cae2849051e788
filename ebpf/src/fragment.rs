//! Fragments: the later ones have no ports, and get those of the first.
//!
//! One that comes before its first waits, see [`early`]: there is nothing to judge it by yet.

use weir_common::{
    flow::{FRAGMENT_TIMEOUT, Fragment, FragmentKey, elapsed},
    reason::{Hook, Reason},
};

use crate::{
    ctx::{Aligned, Ctx},
    early,
    family::Family,
    maps,
    slow::{GO_ON, TAKEN},
    work::Work,
};

/// Replaces an entry of any state.
const BPF_ANY: u64 = 0;

/// Remembers the ports of a first fragment, fills in those of a later one. Answers [`GO_ON`]; [`TAKEN`] for one
/// that waits, and for a first that others have waited for, which comes again with them behind it; or the number
/// of the reason to refuse it. A second first fragment of a live datagram with other ports, or one that ends
/// elsewhere, overlaps.
#[inline(always)]
pub fn resolve<F: Family>(ctx: &Ctx, hook: u32, work: &mut Work<F::Addr>) -> u32 {
    let packet = &mut work.packet;
    let key = Aligned(FragmentKey {
        src: packet.key.src,
        dst: packet.key.dst,
        id: packet.piece.id,
        scope: packet.key.scope,
        protocol: packet.key.protocol,
    });
    let now = maps::now();
    // It would come again without its tunnel, and be judged as somebody else's.
    let may_wait = hook != Hook::FromUplink as u32 || work.is_tunnelled == 0;
    let known = known::<F>(&key, now);
    if packet.piece.is_later() {
        let Some(first) = known else {
            if !may_wait {
                return Reason::FragmentNotFound as u32;
            }
            early::ask::<F>(packet);
            let answer = early::hold(ctx, hook);
            if answer == TAKEN && self::known::<F>(&key, now).is_some() {
                // The first has come in the meantime, and may not have seen this one.
                early::release(ctx, hook, false);
            }
            return answer;
        };
        if packet.piece.start < first.first_end {
            return Reason::FragmentOverlap as u32;
        }
        packet.key.sport = first.sport;
        packet.key.dport = first.dport;
        return GO_ON;
    }
    if let Some(first) = known
        && (first.sport != packet.key.sport
            || first.dport != packet.key.dport
            || first.first_end != packet.piece.end)
    {
        return Reason::FragmentOverlap as u32;
    }
    let first = Aligned(Fragment {
        sport: packet.key.sport,
        dport: packet.key.dport,
        first_end: packet.piece.end,
        seen: now,
    });
    if F::fragments().insert(&key.0, &first.0, BPF_ANY).is_err() {
        return Reason::FragmentNotFound as u32;
    }
    early::ask::<F>(packet);
    if may_wait && early::release(ctx, hook, true) { TAKEN } else { GO_ON }
}

/// What the first fragment said, if it came not too long ago.
#[inline(always)]
fn known<F: Family>(key: &Aligned<FragmentKey<F::Addr>>, now: u32) -> Option<&'static Fragment> {
    // SAFETY: an entry is replaced whole or evicted; a torn read could only mix two fragments of one sender's datagram.
    unsafe { F::fragments().get(&key.0) }
        .filter(|known| elapsed(now, known.seen) <= FRAGMENT_TIMEOUT * maps::HZ.load())
}
