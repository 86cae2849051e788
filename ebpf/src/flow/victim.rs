//! Which entry of a set makes room for a new one.

use core::ptr::addr_of;

use weir_common::flow::{BUSY, FlowEntry, FlowSet, TAG_USED, TURN_PROTOCOL, WAYS, elapsed, home_of, state};

use super::{
    lifetime,
    set::{entry, load_tag, tagged},
};
use crate::work::{Best, Cursor};

/// The tag of the way that an entry for a key with this hash goes to: that of the same key, or its home where nobody
/// lives there any more, else any free way, else the entry that is least worth keeping. To find that one out takes
/// reading them all. `best` is for its own use.
#[inline(always)]
pub(super) fn victim<A>(set: *mut FlowSet<A>, hash: u64, now: u32, best: &mut Best) -> u64 {
    // The one that is read is the one that is written.
    best.tag.set(tagged(set, hash));
    if best.tag.get() == 0 {
        let home = load_tag(set, home_of(hash));
        best.tag.set(home);
        let is_left = match home & TAG_USED {
            0 => home & BUSY == 0,
            _ => is_over(entry(set, home_of(hash)), now, &mut best.worth),
        };
        if !is_left {
            find_stalest(set, now, best);
        }
    }
    best.tag.get()
}

#[inline(always)]
fn find_stalest<A>(set: *mut FlowSet<A>, now: u32, best: &mut Best) {
    best.worth.set(0);
    for way in 0..WAYS {
        let tag = load_tag(set, way);
        // All ones where it is free; or busy, and then the swap fails unless its writer has finished. No branch, of
        // which the verifier would walk both ways.
        const { assert!(TAG_USED == 1 << 63) };
        let worth = staleness(entry(set, way), now) | (tag >> 63).wrapping_sub(1);
        if worth >= best.worth.get() {
            best.worth.set(worth);
            best.tag.set(tag);
        }
    }
}

/// Whether the flow of an entry has timed out. `life` is for its own use.
#[inline(always)]
fn is_over<A>(entry: *mut FlowEntry<A>, now: u32, life: &mut Cursor<u64>) -> bool {
    // SAFETY: in bounds; single words.
    let (seen, state, number) = unsafe {
        (
            addr_of!((*entry).seen).read_volatile(),
            addr_of!((*entry).state).read_volatile(),
            addr_of!((*entry).key.protocol).read_volatile() & TURN_PROTOCOL,
        )
    };
    life.set(lifetime(state, number).into());
    u64::from(elapsed(now, seen)) > life.get()
}

/// How little an entry is worth keeping: its age, with flows that have ended and then such as were never
/// answered before all others.
#[inline(always)]
fn staleness<A>(entry: *mut FlowEntry<A>, now: u32) -> u64 {
    // SAFETY: in bounds; single words.
    let (seen, entry_state) =
        unsafe { (addr_of!((*entry).seen).read_volatile(), addr_of!((*entry).state).read_volatile()) };
    let class = (CLASSES >> ((u32::from(entry_state) & 3) * 2)) & 3;
    (u64::from(class) << 32 | u64::from(elapsed(now, seen))) + 1
}

/// Two bits by [`state`]: 2 for flows that have ended, 1 for such as were never answered.
const CLASSES: u32 = (2 << (state::CLOSING * 2)) | (1 << (state::OPENING * 2));
