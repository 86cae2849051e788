//! The flow table: look-up, keeping alive, insertion. See [`weir_common::flow`] for its layout.
//!
//! Memory order. A writer takes a way by compare-and-swap of its tag to [`BUSY`], writes the entry, and
//! publishes the new tag by another; both are full barriers. A reader loads the tag ([`load_tag`]), copies the
//! entry, and loads the tag again ([`reload_tag`]): when both loads agree, no writer had the way in between,
//! because a tag that comes back carries another version.
//!
//! That holds where the reader's loads happen in this order. The entry is loaded after the tag, for its
//! address is computed from it, and a processor does not load from an address before it has it. The tag is
//! loaded again after the entry on x86, which keeps loads in order. On others it is loaded by an atomic
//! addition of nothing, which is a full barrier: what it reads is the tag's last value at an instant after
//! all loads before it, so if one of those saw a writer's word, it sees that writer's [`BUSY`] or what came
//! later. A load-acquire would not do: it holds back later loads, not earlier ones.
//!
//! Fields that change in place (`seen`, `synced`, state) are single aligned words whose every value is valid
//! for any flow: one that is written to a way just as it is given to another flow changes how long that one
//! is kept, and not where its packets go.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr::{addr_of, addr_of_mut},
};

use weir_common::{
    addr::Addr,
    flow::{
        BUSY, FlowEntry, FlowKey, FlowSet, TAG_CHANGE, TAG_USED, TAG_VERSION, TAG_WAY, Tuple, WAYS, elapsed,
        flags, set_of, state, tag_of,
    },
    header::{protocol, tcp_flags},
    policy::RULE_NONE,
    reason::Reason,
};

use crate::{
    family::Family,
    maps,
    parse::Packet,
    words,
    work::{Best, Entry, Work},
};

/// Where in a hash the number of the way stands that its entry is looked for first.
const HOME_SHIFT: u32 = 60;
/// How often, in seconds, the other direction's entry is kept alive by this one.
const SYNC_SECONDS: u32 = 5;
/// Times in entries are kept up to this many jiffies, as a shift.
const STAMP_SHIFT: u32 = 6;

/// What an entry says to do with its packets.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Path<A> {
    /// What the packet is rewritten to.
    pub to: Tuple<A>,
    /// Interface the packet is handed to.
    pub ifindex: u32,
    /// Epoch of the decision.
    pub epoch: u32,
    /// Destination MAC address.
    pub mac: [u8; 6],
    /// Bits of [`flags`].
    pub flags: u16,
    /// One of [`state`].
    pub state: u8,
    /// Whether the other direction has just been kept alive: what else is looked after now and then is due. Of an
    /// entry that was only looked at, whether its last packet is more than a second old.
    pub is_due: bool,
}

/// The rules that decided a flow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rules {
    /// For the sending pod.
    pub egress: u32,
    /// For the receiving pod.
    pub ingress: u32,
}

impl Rules {
    /// No rule had to be asked.
    pub const NONE: Self = Self { egress: RULE_NONE, ingress: RULE_NONE };

    /// Both as one number, which a function of its own takes.
    #[inline(always)]
    pub fn packed(&self) -> u64 {
        u64::from(self.egress) << 32 | u64::from(self.ingress)
    }
}

#[inline(always)]
fn set<F: Family>(hash: u64) -> Option<*mut FlowSet<F::Addr>> {
    F::flows().get_ptr_mut(set_of(hash, F::flow_mask()))
}

#[inline(always)]
fn load_tag<A>(set: *mut FlowSet<A>, way: usize) -> u64 {
    // SAFETY: `set` points at an element of the map and `way` is below WAYS; volatile, since other CPUs write it.
    unsafe { addr_of!((*set).tags[way & (WAYS - 1)]).read_volatile() }
}

/// Loads a tag again, after everything that was loaded before.
#[inline(always)]
fn reload_tag<A>(set: *mut FlowSet<A>, way: usize) -> u64 {
    if cfg!(bpf_target_arch = "x86_64") {
        return load_tag(set, way);
    }
    // SAFETY: as in `load_tag`; an aligned word of map memory.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*set).tags[way & (WAYS - 1)]), 0)
    }
}

/// Replaces a tag if it is still `old`.
#[inline(always)]
fn swap_tag<A>(set: *mut FlowSet<A>, way: usize, old: u64, new: u64) -> bool {
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
fn way_of(tag: u64) -> usize {
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
fn tagged<A>(set: *mut FlowSet<A>, hash: u64) -> u64 {
    let mut found = 0;
    for way in 0..WAYS {
        let tag = load_tag(set, way);
        // The last one, should two writers have made two of a key.
        found ^= (found ^ tag) & matches(tag, hash);
    }
    found
}

/// The timeout of an entry in jiffies.
#[inline(always)]
fn lifetime<A>(entry_state: u8, key: &FlowKey<A>) -> u32 {
    state::timeout(entry_state, key.protocol == u32::from(protocol::TCP)) * maps::HZ.load()
}

/// Finds the live entry of the packet in `work`, marks it used, and copies its way there.
#[inline(always)]
pub fn lookup<F: Family>(work: &mut Work<F::Addr>, now: u32) -> bool {
    let Work { packet, path, known_rules, .. } = work;
    let hash = packet.key.hash();
    let Some(set) = set::<F>(hash) else { return false };
    prefetch(set, home_of(hash));
    let tag = tagged(set, hash);
    if tag == 0 {
        return false;
    }
    let entry = entry(set, tag);
    read_path(entry, path);
    *known_rules = read_rules(entry);
    let times = read_times(entry);
    let is_live = is_live(entry, &packet.key, path.state, times, now);
    let next = next_state(path, packet.tcp_flags);
    if !is_live || next == Next::Reopens || reload_tag(set, way_of(tag)) != tag {
        return false;
    }
    // SAFETY: in bounds; single words, see the module's note. Written seldom: each write takes the entry's
    // cache line away from other CPUs.
    unsafe {
        if (now ^ times.seen) >> STAMP_SHIFT != 0 {
            addr_of_mut!((*entry).seen).write_volatile(now);
        }
        let due = sync_due(times.synced, now);
        path.is_due = due;
        if due {
            addr_of_mut!((*entry).synced).write_volatile(stamp(now));
        }
        if let Next::Changes(state) = next {
            addr_of_mut!((*entry).state).write_volatile(state);
            path.state = state;
        }
        if due || next != Next::Same {
            let is_whole = F::keep_alive();
            // The way back was lost to another flow: opened once more, this one gets it again. A masqueraded
            // flow would get another port, and an answer cannot open anything.
            return is_whole || path.flags & (flags::REPLY | flags::MASQUERADED) != 0;
        }
    }
    true
}

/// The way that an entry for a key with this hash goes to where it is free.
#[inline(always)]
fn home_of(hash: u64) -> usize {
    (hash >> HOME_SHIFT) as usize & (WAYS - 1)
}

/// Has the processor fetch the entry of a way. The tags lie in another cache line, and the entry's address is known
/// only when they are there: whoever guesses it from the hash waits once instead of twice.
#[inline(always)]
fn prefetch<A>(set: *mut FlowSet<A>, way: usize) {
    // SAFETY: in bounds as in `load_tag`. Volatile, or nothing would be loaded: nobody looks at it.
    unsafe { addr_of!((*set).entries[way & (WAYS - 1)].key.protocol).read_volatile() };
}

/// The entry behind a tag.
#[inline(always)]
fn entry<A>(set: *mut FlowSet<A>, tag: u64) -> *mut FlowEntry<A> {
    // SAFETY: `set` points at an element of the map and a way is below WAYS.
    unsafe { addr_of_mut!((*set).entries[way_of(tag)]) }
}

/// Copies what an entry says to do. A torn copy is found out by the tag.
#[inline(always)]
fn read_path<A: Addr>(entry: *mut FlowEntry<A>, path: &mut Path<A>) {
    // SAFETY: in bounds as in `entry`.
    unsafe {
        words::copy(&raw mut path.to, addr_of!((*entry).to));
        path.ifindex = addr_of!((*entry).ifindex).read_volatile();
        path.epoch = addr_of!((*entry).epoch).read_volatile();
        words::copy(&raw mut path.mac, addr_of!((*entry).mac));
        path.flags = addr_of!((*entry).flags).read_volatile();
        path.state = addr_of!((*entry).state).read_volatile();
    }
}

/// The rules that decided when the entry was written.
#[inline(always)]
fn read_rules<A>(entry: *mut FlowEntry<A>) -> Rules {
    // SAFETY: in bounds as in `entry`.
    unsafe {
        Rules {
            egress: addr_of!((*entry).egress_rule).read_volatile(),
            ingress: addr_of!((*entry).ingress_rule).read_volatile(),
        }
    }
}

/// When an entry was last used.
#[derive(Clone, Copy)]
struct Times {
    seen: u32,
    synced: u16,
}

#[inline(always)]
fn read_times<A>(entry: *mut FlowEntry<A>) -> Times {
    // SAFETY: in bounds as in `entry`.
    unsafe {
        Times {
            seen: addr_of!((*entry).seen).read_volatile(),
            synced: addr_of!((*entry).synced).read_volatile(),
        }
    }
}

/// Whether an entry is of `key` and has not timed out.
#[inline(always)]
fn is_live<A: Addr>(entry: *mut FlowEntry<A>, key: &FlowKey<A>, state: u8, times: Times, now: u32) -> bool {
    // SAFETY: in bounds as in `entry`.
    let is_same = unsafe { words::same(addr_of!((*entry).key), key) };
    is_same && elapsed(now, times.seen) <= lifetime(state, key)
}

/// What a packet does to the state of its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Same,
    Changes(u8),
    /// A SYN on a flow that has ended: the ports are used again, for another flow.
    Reopens,
}

#[inline(always)]
fn next_state<A>(entry: &Path<A>, tcp: u8) -> Next {
    if tcp & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN && entry.state == state::CLOSING {
        return Next::Reopens;
    }
    if tcp & (tcp_flags::FIN | tcp_flags::RST) != 0 && entry.state != state::CLOSING {
        return Next::Changes(state::CLOSING);
    }
    // Of a tunnelled flow no answers are seen: that the client goes on says that there are some.
    // One number and no branch: the bit of a SYN, where the flag is, takes the flag out.
    const { assert!((tcp_flags::SYN as u16) << 7 == flags::TUNNEL) };
    let goes_on = flags::TUNNEL & !(u16::from(tcp) << 7);
    if entry.flags & (flags::REPLY | goes_on) != 0 && entry.state == state::OPENING {
        return Next::Changes(state::ESTABLISHED);
    }
    Next::Same
}

/// A time as [`FlowEntry::synced`] keeps it.
#[inline(always)]
fn stamp(now: u32) -> u16 {
    (now >> STAMP_SHIFT) as u16
}

#[inline(always)]
fn sync_due(synced: u16, now: u32) -> bool {
    let since = stamp(now).wrapping_sub(synced);
    u32::from(since) > (SYNC_SECONDS * maps::HZ.load()) >> STAMP_SHIFT
}

/// The key of the other direction's entry.
#[inline(always)]
pub fn peer_key<A: Addr>(path: &Path<A>, protocol: u32) -> FlowKey<A> {
    let scope = if path.flags & flags::TO_PEER != 0 { path.ifindex } else { 0 };
    FlowKey::reply_to(&path.to, scope, protocol)
}

/// Marks the other direction's entry used and in the same state, if it is there; whether it is. A tunnelled
/// flow has none, and is whole without.
#[inline(always)]
pub fn keep_alive<F: Family>(packet: &Packet<F::Addr>, path: &Path<F::Addr>) -> bool {
    if path.flags & flags::TUNNEL != 0 {
        return true;
    }
    let hash = peer_key(path, packet.key.protocol).hash();
    let Some(set) = set::<F>(hash) else { return false };
    let tag = tagged(set, hash);
    if tag != 0 {
        // SAFETY: in bounds; single words, see the module's note.
        unsafe {
            addr_of_mut!((*entry(set, tag)).seen).write_volatile(maps::now());
            addr_of_mut!((*entry(set, tag)).state).write_volatile(path.state);
        }
    }
    tag != 0
}

/// Finds the live entry of the key in [`Work::entry`] without marking it used, and copies its way there.
#[inline(always)]
pub fn peek<F: Family>(work: &mut Work<F::Addr>) -> bool {
    let Entry { key, path } = &mut work.entry;
    let hash = key.hash();
    let Some(set) = set::<F>(hash) else { return false };
    let tag = tagged(set, hash);
    if tag == 0 {
        return false;
    }
    let entry = entry(set, tag);
    read_path(entry, path);
    let (times, now) = (read_times(entry), maps::now());
    // The sign of a difference, for a comparison would be a branch.
    path.is_due = maps::HZ.load().wrapping_sub(elapsed(now, times.seen)) >> 31 != 0;
    let is_live = is_live(entry, key, path.state, times, now);
    is_live && reload_tag(set, way_of(tag)) == tag
}

/// Writes the entry that is in `work`: over the one of the same key, into a free way, or over the entry of
/// the set that is least worth keeping.
///
/// # Errors
/// [`Reason::FlowTableFailed`] when another CPU is at work on the same way; that one wins.
#[inline(always)]
pub fn insert<F: Family>(work: &mut Work<F::Addr>) -> Result<(), Reason> {
    let Work { entry: Entry { key, path }, rules, best, .. } = work;
    let now = maps::now();
    let hash = key.hash();
    let Some(set) = set::<F>(hash) else { return Err(Reason::FlowTableFailed) };
    let old = victim(set, hash, now, best);
    let way = way_of(old);
    if old & BUSY != 0 && old & TAG_USED == 0 || !swap_tag(set, way, old, BUSY | way as u64) {
        return Err(Reason::FlowTableFailed);
    }
    let entry = entry(set, old);
    // SAFETY: in bounds; the way is ours until its tag is published.
    unsafe {
        words::copy(addr_of_mut!((*entry).key), key);
        (*entry).state = path.state;
        (*entry).reserved = 0;
        (*entry).flags = path.flags;
        words::copy(addr_of_mut!((*entry).to), &raw const path.to);
        (*entry).ifindex = path.ifindex;
        (*entry).epoch = path.epoch;
        (*entry).seen = now;
        (*entry).egress_rule = rules.egress;
        (*entry).ingress_rule = rules.ingress;
        words::copy(addr_of_mut!((*entry).mac), &raw const path.mac);
        (*entry).synced = stamp(now);
    }
    let version = old.wrapping_add(TAG_CHANGE) & TAG_VERSION;
    swap_tag(set, way, BUSY | way as u64, tag_of(hash) | version | way as u64);
    Ok(())
}

/// The tag of the way that an entry for a key with this hash goes to. `best` is for its own use.
#[inline(always)]
fn victim<A>(set: *mut FlowSet<A>, hash: u64, now: u32, best: &mut Best) -> u64 {
    let home = load_tag(set, home_of(hash));
    best.worth.set(if home & (TAG_USED | BUSY) == 0 { u64::MAX - 1 } else { 0 });
    best.tag.set(home);
    for way in 0..WAYS {
        let tag = load_tag(set, way);
        let worth = if tag & !(TAG_VERSION | TAG_WAY) == tag_of(hash) {
            u64::MAX
        } else if tag & TAG_USED == 0 {
            // Free; or busy, and then the swap fails unless its writer has finished.
            u64::MAX - 2
        } else {
            // SAFETY: in bounds.
            staleness(unsafe { addr_of_mut!((*set).entries[way]) }, now)
        };
        // Of equals the last, as a look-up has it: should two writers have made two entries of a key, the one
        // that is read is the one that is written.
        if worth >= best.worth.get() {
            best.worth.set(worth);
            best.tag.set(tag);
        }
    }
    best.tag.get()
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
