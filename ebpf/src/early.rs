//! Fragments that come before the first of their datagram wait for it, as [`weir_common::early`] says.
//!
//! TC has no queue of its own, so the frames are copied into a map. When the first fragment comes, it and then
//! each of them is sent to the same hook once more, by `bpf_clone_redirect` of the first's packet with the bytes
//! of each, and so they are judged as if they had come in order; the packet itself is used up. At an ingress hook
//! the clones queue up behind what is under way, at an egress hook the program runs on them at once, which is
//! why nothing of [`Work`](crate::work::Work) is read afterwards.
//!
//! Each frame is sent once: who takes its way by compare-and-swap of the tag sends it. And none stays behind on
//! account of two CPUs: the first fragment's is written before the set is looked through, a frame is written
//! before the first fragment is looked for again, with full barriers in between. One of both sees the other.
//!
//! The stages are functions that the verifier takes by themselves, see [`slow`].

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr::{addr_of, addr_of_mut, null_mut},
};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop};
use weir_common::{
    early::{self, BUSY, EarlyFrame, EarlyKey, EarlySet, FRAME_MAX, FREE, PATIENCE, SHARE, WAYS},
    flow::elapsed,
    reason::{Hook, Reason, drop_counter},
};

use crate::{
    ctx::Ctx,
    family::Family,
    maps,
    parse::Packet,
    slow::{self, NOT_OURS, TAKEN},
    words,
    work::Cursor,
};

/// The datagram in question.
#[repr(C)]
pub struct Asked {
    /// Its key.
    pub key: EarlyKey,
    /// Who sends it.
    pub sender: u32,
    /// What its frames are found by.
    pub tag: u64,
    /// The sender's set.
    pub set: u32,
    /// A way that is free, as far as a search has come.
    free: Cursor<u32>,
    /// How many the sender has, as far as that search has come.
    own: Cursor<u32>,
    /// The ways that are to be sent, one bit for each.
    claimed: Cursor<u64>,
}

/// Notes which datagram it is about.
#[inline(always)]
pub fn ask<F: Family>(packet: &Packet<F::Addr>) {
    let Some(asked) = asked() else { return };
    let key = &mut asked.key;
    // SAFETY: places in maps; an address of either family is no longer than one of IPv6.
    unsafe {
        words::clear(&raw mut key.src);
        words::clear(&raw mut key.dst);
        words::copy((&raw mut key.src).cast(), &raw const packet.key.src);
        words::copy((&raw mut key.dst).cast(), &raw const packet.key.dst);
    }
    key.scope = packet.key.scope;
    key.id = packet.piece.id;
    key.protocol = u32::from(F::VERSION) << 8 | packet.key.protocol;
    asked.tag = early::tag(key);
    asked.sender = early::sender(key);
    asked.set = early::set_of(key.scope, asked.sender);
}

/// Keeps a fragment of the datagram that was asked about. Answers [`TAKEN`], or the number of the reason to
/// drop it.
#[inline(always)]
pub fn hold(ctx: &Ctx, hook: u32) -> u32 {
    slow::hear(hold_early(ctx.as_ptr(), hook))
}

/// Sends what waits of the datagram that was asked about to the hook again, with `leads` the packet at hand
/// before it. False when nothing waits, and then nothing has been done.
#[inline(always)]
pub fn release(ctx: &Ctx, hook: u32, leads: bool) -> bool {
    slow::hear(release_early(ctx.as_ptr(), hook, leads.into())) == TAKEN
}

/// [`hold`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hold_early(skb: *mut __sk_buff, hook: u32) -> u32 {
    /// More than one where another CPU takes the same way.
    const TRIES: u32 = 3;
    const NO_ROOM: u32 = Reason::FragmentBufferFull as u32;

    let (ctx, hook) = (Ctx::new(skb), slow::hear(hook));
    let Some(asked) = asked() else { return NO_ROOM };
    let Some(way) = (0..TRIES).map(|_| slow::hear(place_early(hook))).find(|way| *way != NOT_OURS) else {
        return NO_ROOM;
    };
    let slot = asked.set * WAYS as u32 + way;
    let (Some(set), Some(frame)) = (set(asked.set), frame(slot)) else { return NO_ROOM };
    let len = slow::hear(ctx.len());
    // SAFETY: elements of the maps; the way is ours until its tag is published.
    unsafe {
        if len > FRAME_MAX as u32 || !ctx.load(addr_of_mut!((*frame).data).cast(), len) {
            leave(set, way);
            return NO_ROOM;
        }
        (*frame).len = len;
        words::copy(addr_of_mut!((*frame).key), &raw const asked.key);
        let way = way as usize & (WAYS - 1);
        addr_of_mut!((*set).seen[way]).write_volatile(maps::now());
        addr_of_mut!((*set).senders[way]).write_volatile(asked.sender);
    }
    swap_tag(set, way, BUSY, asked.tag);
    TAKEN
}

/// Takes a way for a frame of the datagram that was asked about. Answers the way, or [`NOT_OURS`] when there is
/// none for this sender, or another CPU took it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn place_early(hook: u32) -> u32 {
    let hook = slow::hear(hook);
    let Some(asked) = asked() else { return NOT_OURS };
    let Some(set) = set(asked.set) else { return NOT_OURS };
    asked.free.set(NOT_OURS);
    asked.own.set(0);
    for_each_way(look, null_mut());
    let way = asked.free.get();
    if way == NOT_OURS || asked.own.get() >= SHARE {
        return NOT_OURS;
    }
    let old = load_tag(set, way);
    if old == BUSY || !swap_tag(set, way, old, BUSY) {
        return NOT_OURS;
    }
    if old == FREE {
        add(set, 1);
    } else if let Some(frame) = frame(asked.set * WAYS as u32 + way) {
        time_out(hook, frame);
    }
    way
}

/// [`release`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn release_early(skb: *mut __sk_buff, hook: u32, leads: u32) -> u32 {
    let (ctx, hook) = (Ctx::new(skb), slow::hear(hook));
    let Some(asked) = asked() else { return NOT_OURS };
    let Some(set) = set(asked.set) else { return NOT_OURS };
    if add(set, 0) == 0 {
        return NOT_OURS;
    }
    asked.claimed.set(0);
    for_each_way(claim, (&raw const hook).cast_mut().cast());
    // From here on the program may run again, on the same memory.
    let mut sending = Sending { skb, claimed: asked.claimed.get(), first: asked.set * WAYS as u32, hook };
    if sending.claimed == 0 {
        return NOT_OURS;
    }
    if slow::hear(leads) != 0 {
        send(&ctx, hook);
    }
    for_each_way(replay, (&raw mut sending).cast());
    TAKEN
}

/// What is being sent.
struct Sending {
    skb: *mut __sk_buff,
    /// The ways, one bit for each.
    claimed: u64,
    /// The slot of the set's first way.
    first: u32,
    hook: u32,
}

/// Calls a function for every way of a set, with this context. The verifier walks it once or twice, and not
/// once for each way.
#[inline(always)]
fn for_each_way(each: extern "C" fn(u32, *mut c_void) -> i64, context: *mut c_void) {
    // SAFETY: plain helper call; the function has the signature that the helper wants.
    unsafe { bpf_loop(WAYS as u32, each as *mut c_void, context, 0) };
}

/// Looks whether a way is free, and whether the sender who was asked about has it.
extern "C" fn look(way: u32, _: *mut c_void) -> i64 {
    let Some(asked) = asked() else { return 1 };
    let Some(set) = set(asked.set) else { return 1 };
    let tag = load_tag(set, way);
    // SAFETY: in bounds of an element of the map.
    let (seen, sender) = unsafe {
        let way = way as usize & (WAYS - 1);
        (addr_of!((*set).seen[way]).read_volatile(), addr_of!((*set).senders[way]).read_volatile())
    };
    if tag == FREE || tag != BUSY && elapsed(maps::now(), seen) > patience() {
        asked.free.set(way);
    } else if sender == asked.sender {
        asked.own.set(asked.own.get() + 1);
    }
    0
}

/// Takes a way if its frame is of the datagram that was asked about, and came not too long ago.
extern "C" fn claim(way: u32, hook: *mut c_void) -> i64 {
    let Some(asked) = asked() else { return 1 };
    let (Some(set), Some(frame)) = (set(asked.set), frame(asked.set * WAYS as u32 + way)) else { return 1 };
    if load_tag(set, way) != asked.tag || !swap_tag(set, way, asked.tag, BUSY) {
        return 0;
    }
    // SAFETY: places in maps.
    if !unsafe { words::same(addr_of!((*frame).key), &raw const asked.key) } {
        swap_tag(set, way, BUSY, asked.tag);
        return 0;
    }
    // SAFETY: in bounds of an element of the map.
    let seen = unsafe { addr_of!((*set).seen[way as usize & (WAYS - 1)]).read_volatile() };
    if elapsed(maps::now(), seen) > patience() {
        // SAFETY: the context that `release_early` passes.
        time_out(unsafe { hook.cast::<u32>().read() }, frame);
        leave(set, way);
        return 0;
    }
    asked.claimed.set(asked.claimed.get() | 1 << way);
    0
}

/// Sends the frame of a way that has been taken, in the place of the packet.
extern "C" fn replay(way: u32, sending: *mut c_void) -> i64 {
    // SAFETY: the context that `release_early` passes.
    let &Sending { skb, claimed, first, hook } = unsafe { &*sending.cast() };
    if claimed >> (way & 63) & 1 == 0 {
        return 0;
    }
    let (ctx, slot) = (Ctx::new(skb), first + way);
    let (Some(set), Some(frame)) = (set(slot / WAYS as u32), frame(slot)) else { return 1 };
    // SAFETY: elements of the maps; the way is ours.
    let is_written = unsafe {
        let len = slow::hear((*frame).len);
        len <= FRAME_MAX as u32 && ctx.replace(addr_of!((*frame).data).cast(), len)
    };
    if is_written {
        send(&ctx, hook);
    } else {
        maps::count(&maps::DROPS, drop_counter(hook, Reason::RewriteFailed as u32), ctx.len());
    }
    leave(set, way);
    0
}

/// Sends a copy of the packet to this hook.
#[inline(always)]
fn send(ctx: &Ctx, hook: u32) {
    let is_ingress = hook == Hook::FromPod as u32 || hook == Hook::FromUplink as u32;
    if !ctx.clone_to(ctx.ifindex(), is_ingress) {
        maps::count(&maps::DROPS, drop_counter(hook, Reason::RewriteFailed as u32), ctx.len());
    }
}

/// Counts a frame that has waited too long.
#[inline(always)]
fn time_out(hook: u32, frame: *const EarlyFrame) {
    // SAFETY: an element of the map.
    let len = unsafe { addr_of!((*frame).len).read_volatile() };
    maps::count(&maps::DROPS, drop_counter(hook, Reason::FragmentTimedOut as u32), len);
}

#[inline(always)]
fn patience() -> u32 {
    PATIENCE * maps::HZ.load()
}

#[inline(always)]
fn asked() -> Option<&'static mut Asked> {
    // SAFETY: this CPU's own element, of integers only; see `Work`.
    maps::ASKED.get_ptr_mut(0).map(|asked| unsafe { &mut *asked })
}

#[inline(always)]
fn set(number: u32) -> Option<*mut EarlySet> {
    maps::EARLY.get_ptr_mut(number)
}

#[inline(always)]
fn frame(slot: u32) -> Option<*mut EarlyFrame> {
    maps::EARLY_FRAMES.get_ptr_mut(slot)
}

/// Frees a way that is ours.
#[inline(always)]
fn leave(set: *mut EarlySet, way: u32) {
    swap_tag(set, way, BUSY, FREE);
    add(set, u64::MAX);
}

/// Adds to the number of frames in the set, and gives what it was: a full barrier.
#[inline(always)]
fn add(set: *mut EarlySet, number: u64) -> u64 {
    // SAFETY: an aligned word of an element of the map.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*set).held), number) }
}

#[inline(always)]
fn load_tag(set: *mut EarlySet, way: u32) -> u64 {
    // SAFETY: in bounds of an element of the map; volatile, since other CPUs write it.
    unsafe { addr_of!((*set).tags[way as usize & (WAYS - 1)]).read_volatile() }
}

/// Replaces a tag if it is still `old`: a full barrier.
#[inline(always)]
fn swap_tag(set: *mut EarlySet, way: u32, old: u64, new: u64) -> bool {
    // SAFETY: an aligned word of an element of the map.
    let (_, swapped) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            addr_of_mut!((*set).tags[way as usize & (WAYS - 1)]),
            old,
            new,
        )
    };
    swapped
}
