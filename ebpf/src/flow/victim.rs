//! Which entry of a set makes room for a new one.

use core::ptr::{addr_of, addr_of_mut};

use weir_common::flow::{
    BUSY, FlowEntry, FlowSet, TAG_USED, TAG_VERSION, TAG_WAY, TURN_PROTOCOL, WAYS, elapsed, home_of, state,
    tag_of,
};

use super::{
    lifetime,
    set::{entry, load_tag},
};
use crate::work::Best;

/// The tag of the way that an entry for a key with this hash goes to. `best` is for its own use.
#[inline(always)]
pub(super) fn victim<A>(set: *mut FlowSet<A>, hash: u64, now: u32, best: &mut Best) -> u64 {
    let home = load_tag(set, home_of(hash));
    best.worth.set(match home {
        _ if home & !(TAG_VERSION | TAG_WAY) == tag_of(hash) => u64::MAX,
        _ if home & TAG_USED == 0 && home & BUSY != 0 => 0,
        _ if home & TAG_USED == 0 || is_over(entry(set, home_of(hash)), now) => u64::MAX - 2,
        _ => 0,
    });
    best.tag.set(home);
    for way in 0..WAYS {
        let tag = load_tag(set, way);
        let worth = if tag & !(TAG_VERSION | TAG_WAY) == tag_of(hash) {
            u64::MAX - 1
        } else if tag & TAG_USED == 0 {
            // Free; or busy, and then the swap fails unless its writer has finished.
            u64::MAX - 3
        } else {
            // SAFETY: in bounds.
            staleness(unsafe { addr_of_mut!((*set).entries[way]) }, now)
        };
        // The home, and of equals the last, as a look-up has it: should two writers have made two entries of a
        // key, the one that is read is the one that is written.
        if worth >= best.worth.get() {
            best.worth.set(worth);
            best.tag.set(tag);
        }
    }
    best.tag.get()
}

/// Whether the flow of an entry has timed out.
#[inline(always)]
fn is_over<A>(entry: *mut FlowEntry<A>, now: u32) -> bool {
    // SAFETY: in bounds; single words.
    let (seen, state, number) = unsafe {
        (
            addr_of!((*entry).seen).read_volatile(),
            addr_of!((*entry).state).read_volatile(),
            addr_of!((*entry).key.protocol).read_volatile() & TURN_PROTOCOL,
        )
    };
    elapsed(now, seen) > lifetime(state, number)
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
