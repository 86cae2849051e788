//! One set of the flow table: its tags, its entries, and the entry of a key.
//!
//! Memory order. A writer takes a way by compare-and-swap of its tag to [`BUSY`](weir_common::flow::BUSY), and so has it for itself. It sets
//! [`TURN_BUSY`] in the entry's turn, writes the entry, and publishes the next turn, and then the new tag. Each of these
//! four steps is an atomic operation that fetches, which is a full barrier. A reader loads the turn, copies the entry,
//! and loads the turn again: when neither says busy and both agree, no writer had the entry in between, because a turn
//! comes back only after 2^23 writes.
//!
//! That holds where the reader's loads happen in this order. x86 keeps loads in order. On others the turn is loaded
//! by an atomic addition of nothing ([`load_turn`]), which is a full barrier, both times: no word of the entry
//! is loaded before the first, and what the second reads is the turn's last value at an instant after all
//! loads before it, so if one of those saw a writer's word, it sees that writer's mark or what came later. A
//! load-acquire would not do for the second: it holds back later loads, not earlier ones.
//!
//! Tags only say where to look, and what they say is checked against the entry's key: a tag that has changed by
//! then costs a look-up, and nothing else.
//!
//! Fields that change in place (`seen`, `synced`, state) are single aligned words whose every value is valid
//! for any flow: one that is written to a way just as it is given to another flow changes how long that one
//! is kept, and not where its packets go.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg},
    mem::offset_of,
    ptr::{self, addr_of, addr_of_mut},
};

use weir_common::{
    addr::Addr,
    flow::{
        FlowEntry, FlowKey, FlowSet, TAG_VERSION, TAG_WAY, TURN_BUSY, TURN_PROTOCOL, Tuple, WAYS, home_of,
        set_of, tag_of,
    },
};

use crate::{family::Family, words, work::At};

#[inline(always)]
pub(super) fn set<F: Family>(hash: u64) -> Option<*mut FlowSet<F::Addr>> {
    F::flows().get_ptr_mut(set_of(hash, F::flow_mask()))
}

#[inline(always)]
pub(super) fn load_tag<A>(set: *mut FlowSet<A>, way: usize) -> u64 {
    // SAFETY: `set` points at an element of the map and `way` is below WAYS; volatile, since other CPUs write it.
    unsafe { addr_of!((*set).tags[way & (WAYS - 1)]).read_volatile() }
}

/// Loads an entry's protocol and turn, after everything that was loaded before and before everything that is
/// loaded next.
#[inline(always)]
pub(super) fn load_turn<A>(entry: *mut FlowEntry<A>) -> u32 {
    // SAFETY: in bounds as in `entry`; an aligned word of map memory.
    unsafe {
        let turn = addr_of_mut!((*entry).key.protocol);
        if cfg!(bpf_target_arch = "x86_64") {
            return turn.read_volatile();
        }
        atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(turn, 0)
    }
}

/// Replaces an entry's protocol and turn, after everything that was written before and before everything
/// that is written next.
#[inline(always)]
pub(super) fn swap_turn<A>(entry: *mut FlowEntry<A>, new: u32) -> u32 {
    // SAFETY: as in `load_turn`.
    unsafe { atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(addr_of_mut!((*entry).key.protocol), new) }
}

/// Replaces a tag if it is still `old`.
#[inline(always)]
pub(super) fn swap_tag<A>(set: *mut FlowSet<A>, way: usize, old: u64, new: u64) -> bool {
    // SAFETY: as in `load_tag`; an aligned word of map memory.
    let (_, swapped) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            addr_of_mut!((*set).tags[way & (WAYS - 1)]),
            old,
            new,
        )
    };
    swapped
}

/// The way that a tag stands in.
#[inline(always)]
pub(super) fn way_of(tag: u64) -> usize {
    (tag & TAG_WAY) as usize
}

/// All ones when a tag may be of a key with this hash, else 0: a number to mask by and no branch, which the
/// processor would guess wrong and the verifier would walk both ways of.
#[inline(always)]
fn matches(tag: u64, hash: u64) -> u64 {
    let difference = words::opaque((tag ^ tag_of(hash)) >> (TAG_VERSION | TAG_WAY).count_ones());
    (difference.wrapping_sub(1).cast_signed() >> 63).cast_unsigned()
}

/// The tag in `set` of an entry that may be of a key with this hash; 0 when there is none.
#[inline(always)]
pub(super) fn tagged<A>(set: *mut FlowSet<A>, hash: u64) -> u64 {
    let mut found = 0;
    for way in 0..WAYS {
        let tag = load_tag(set, way);
        found ^= (found ^ tag) & matches(tag, hash);
    }
    // The home, or else the last one, should two writers have made two of a key.
    let home = load_tag(set, home_of(hash));
    found ^ (found ^ home) & matches(home, hash)
}

/// An entry of a key, and its turn when it was found.
pub(super) struct Found<A> {
    /// The entry.
    pub(super) entry: *mut FlowEntry<A>,
    turn: u32,
}

/// The entry of a key: its home's, else the one that has the tag. `at` is for its own use: out of map memory, the
/// verifier takes either for the same.
#[inline(always)]
pub(super) fn find<A: Addr>(
    set: *mut FlowSet<A>,
    key: &FlowKey<A>,
    hash: u64,
    at: &mut At,
) -> Option<Found<A>> {
    at.way.set(home_of(hash) as u32);
    at.turn.set(load_turn(entry(set, home_of(hash))));
    if !is_of(entry(set, home_of(hash)), at.turn.get(), key) {
        let tag = tagged(set, hash);
        if tag == 0 {
            return None;
        }
        at.way.set(way_of(tag) as u32);
        at.turn.set(load_turn(entry(set, way_of(tag))));
        if !is_of(entry(set, way_of(tag)), at.turn.get(), key) {
            return None;
        }
    }
    Some(Found { entry: entry(set, at.way.get() as usize), turn: at.turn.get() })
}

/// Whether an entry is of `key`, and whole at this turn.
#[inline(always)]
fn is_of<A: Addr>(entry: *mut FlowEntry<A>, turn: u32, key: &FlowKey<A>) -> bool {
    /// All of a key before its protocol.
    #[repr(C)]
    struct Ends<A>(Tuple<A>, u32);
    const { assert!(size_of::<Ends<A>>() == offset_of!(FlowKey<A>, protocol)) };
    let last = (turn ^ key.protocol) & (TURN_BUSY | TURN_PROTOCOL);
    // SAFETY: in bounds as in `entry`; a key begins with these.
    let others = unsafe { words::difference::<Ends<A>>(entry.cast(), ptr::from_ref(key).cast()) };
    // Opaque, or LLVM would make two branches.
    words::opaque(others | u64::from(last)) == 0
}

impl<A> Found<A> {
    /// Whether it is still what it was when it was found: what was read of it is of one piece.
    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        load_turn(self.entry) == self.turn
    }
}

/// The entry of a way.
#[inline(always)]
pub(super) fn entry<A>(set: *mut FlowSet<A>, way: usize) -> *mut FlowEntry<A> {
    // SAFETY: `set` points at an element of the map and `way` is below WAYS.
    unsafe { addr_of_mut!((*set).entries[way & (WAYS - 1)]) }
}
