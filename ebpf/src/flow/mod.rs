//! The flow table: look-up, keeping alive, insertion. See [`weir_common::flow`] for its layout, [`set`] for who may
//! read and write what when.

mod set;
mod victim;

use core::ptr::{addr_of, addr_of_mut};

use weir_common::{
    addr::Addr,
    flow::{
        BUSY, FlowEntry, FlowKey, TAG_CHANGE, TAG_USED, TAG_VERSION, TURN_BUSY, TURN_CHANGE, TURN_PROTOCOL,
        Tuple, elapsed, flags, state, tag_of,
    },
    header::{protocol, tcp_flags},
    policy::RULE_NONE,
    reason::Reason,
};

use self::{
    set::{entry, find, set, swap_tag, swap_turn, tagged, way_of},
    victim::victim,
};
use crate::{
    family::Family,
    maps,
    parse::Packet,
    words,
    work::{Entry, Work},
};

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

/// The timeout of an entry in jiffies.
#[inline(always)]
fn lifetime(entry_state: u8, number: u32) -> u32 {
    state::timeout(entry_state, number == u32::from(protocol::TCP)) * maps::HZ.load()
}

/// Finds the live entry of the packet in `work`, marks it used, and copies its way there.
#[inline(always)]
pub fn lookup<F: Family>(work: &mut Work<F::Addr>, now: u32) -> bool {
    let Work { packet, path, known_rules, at, .. } = work;
    let hash = packet.key.hash();
    let Some(set) = set::<F>(hash) else { return false };
    let Some(found) = find(set, &packet.key, hash, at) else { return false };
    let entry = found.entry;
    read_path(entry, path);
    *known_rules = read_rules(entry);
    let times = read_times(entry);
    let is_live = is_live(&packet.key, path.state, times, now);
    let next = next_state(path, packet.tcp_flags);
    if !is_live || next == Next::Reopens || !found.is_whole() {
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

/// Copies what an entry says to do. A torn copy is found out by the turn.
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

/// Whether an entry of `key` has not timed out.
#[inline(always)]
fn is_live<A: Addr>(key: &FlowKey<A>, state: u8, times: Times, now: u32) -> bool {
    elapsed(now, times.seen) <= lifetime(state, key.protocol)
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
            let entry = entry(set, way_of(tag));
            addr_of_mut!((*entry).seen).write_volatile(maps::now());
            addr_of_mut!((*entry).state).write_volatile(path.state);
        }
    }
    tag != 0
}

/// Finds the live entry of the key in [`Work::entry`] without marking it used, and copies its way there.
#[inline(always)]
pub fn peek<F: Family>(work: &mut Work<F::Addr>) -> bool {
    let Work { entry: Entry { key, path }, at, .. } = work;
    let hash = key.hash();
    let Some(set) = set::<F>(hash) else { return false };
    let Some(found) = find(set, key, hash, at) else { return false };
    read_path(found.entry, path);
    let (times, now) = (read_times(found.entry), maps::now());
    // The sign of a difference, for a comparison would be a branch.
    path.is_due = maps::HZ.load().wrapping_sub(elapsed(now, times.seen)) >> 31 != 0;
    is_live(key, path.state, times, now) && found.is_whole()
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
    let entry = entry(set, way);
    // SAFETY: in bounds; the way is ours until its tag is published.
    unsafe {
        let turn = swap_turn(entry, TURN_BUSY);
        words::copy(addr_of_mut!((*entry).key).cast(), key.tuple());
        (*entry).key.scope = key.scope;
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
        swap_turn(entry, (turn & !(TURN_BUSY | TURN_PROTOCOL)).wrapping_add(TURN_CHANGE) | key.protocol);
    }
    let version = old.wrapping_add(TAG_CHANGE) & TAG_VERSION;
    swap_tag(set, way, BUSY | way as u64, tag_of(hash) | version | way as u64);
    Ok(())
}
