//! Policy: which rule decides, by two bit vectors. See [`weir_common::policy`].

use core::{
    hint::black_box,
    ptr::{addr_of, addr_of_mut},
};

use weir_common::{
    endpoint::Endpoint,
    policy::{
        MAX_PASSES, MAX_PORT_STEPS, MAX_WORDS, NO_POLICY, PROTOCOLS, PeerKey, PortTable, Protocol, RULE_NONE,
        action,
    },
    reason::Reason,
};

use crate::{family::Family, maps};

/// Whose rules are asked.
#[derive(Clone, Copy)]
pub enum Direction {
    /// What the pod receives.
    Ingress,
    /// What the pod sends.
    Egress,
}

/// Judges a flow at one end: by the rules of `pod` for `direction`, with `peer` at the other end, to the
/// transport port `port` (host order) of the receiver. Notes the rule that decided.
///
/// # Errors
/// The reason why it is denied.
#[inline(always)]
pub fn judge<F: Family>(
    pod: &Endpoint,
    direction: Direction,
    peer: F::Addr,
    protocol: Protocol,
    port: u16,
    rule: &mut u32,
) -> Result<(), Reason> {
    let number = match direction {
        Direction::Ingress => pod.ingress,
        Direction::Egress => pod.egress,
    };
    *rule = RULE_NONE;
    if number == NO_POLICY {
        return Ok(());
    }
    let identity = F::identity(peer);
    let identity = if pod.slot == 0 { identity.slots[0] } else { identity.slots[1] };
    let found = black_box(evaluate(number, identity, protocol as u32, u32::from(port)));
    match found {
        INCOMPLETE => return Err(Reason::PolicyIncomplete),
        NO_RULE => return Ok(()),
        _ => {}
    }
    *rule = (found >> 32) as u32;
    maps::count(&maps::RULE_HITS, *rule, 0);
    match found as u32 & ACTION_MASK {
        action::ALLOW => Ok(()),
        action::DENY => Err(Reason::PolicyDeny),
        _ => Err(Reason::PolicyDenied),
    }
}

/// Results of [`evaluate`] that name no rule.
const INCOMPLETE: u64 = 0;
const NO_RULE: u64 = 1;
/// Set in the low half when a rule was found, beside its action; the rule's number is in the high half.
const FOUND: u64 = 0x100;
const ACTION_MASK: u32 = 0xff;

/// The rule that decides in a rule set.
///
/// A function of its own with numbers for arguments, so that the verifier walks its loops once and not
/// for every family, direction and program that asks.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn evaluate(rule_set: u32, identity: u32, protocol: u32, port: u32) -> u64 {
    // As in `slow::hear`: the verifier does not know what the callers pass.
    let protocol = black_box(protocol);
    let Some(set) = maps::RULE_SETS.get(rule_set) else { return INCOMPLETE };
    // SAFETY: the agent replaces values whole; a reader sees the old or the new one.
    let peers = match unsafe { maps::PEERS.get(PeerKey { rule_set, identity }) } {
        Some(vector) => *vector,
        None => set.default_peers,
    };
    let table = set.ports[protocol as usize & (PROTOCOLS - 1)];
    let Some(ports) = port_vector(table, port) else { return INCOMPLETE };
    if set.words == 0 || set.words > MAX_WORDS {
        return INCOMPLETE;
    }
    search(peers, ports, set.words, set.rules)
}

/// Binary search for the interval that holds `port`.
///
/// Without a branch on what is found, so that the verifier walks one path and not all of them.
#[inline(always)]
fn port_vector(table: PortTable, port: u32) -> Option<u32> {
    let mut first = table.offset;
    let mut len = table.len;
    for _ in 0..=MAX_PORT_STEPS {
        if len <= 1 {
            break;
        }
        let half = len / 2;
        let start = maps::PORTS.get(first + half)?.start;
        // All ones when start <= port; both are 16-bit numbers.
        let reached = (start.wrapping_sub(port + 1) as i32 >> 31) as u32;
        first += half & reached;
        len -= half;
    }
    if len != 1 {
        return None;
    }
    Some(maps::PORTS.get(first)?.vector)
}

/// How far a search has come. It is kept in map memory, because the verifier forgets what it knows of a
/// number there: otherwise every range of rules passed over would be a state of its own to it.
#[repr(C)]
pub struct Progress {
    /// Rules of the current word that are still to be looked at.
    mask: u64,
    /// The current word.
    word: u32,
    reserved: u32,
}

/// The lowest rule in both vectors that does not pass the decision on.
#[inline(always)]
fn search(peers: u32, ports: u32, words: u32, rules: u32) -> u64 {
    let Some(progress) = maps::SEARCH.get_ptr_mut(0) else { return INCOMPLETE };
    set_progress(progress, 0, u64::MAX);
    for _ in 0..MAX_WORDS + MAX_PASSES {
        let (word, mask) = get_progress(progress);
        if word >= words {
            return NO_RULE;
        }
        let (Some(by_peer), Some(by_port)) =
            (maps::VECTORS.get(peers + word), maps::VECTORS.get(ports + word))
        else {
            return INCOMPLETE;
        };
        let both = by_peer & by_port & mask;
        if both == 0 {
            set_progress(progress, word + 1, u64::MAX);
            continue;
        }
        let number = word * 64 + both.trailing_zeros();
        let Some(rule) = maps::RULES.get(rules + number) else { return INCOMPLETE };
        if rule.action != action::PASS {
            return u64::from(rule.id) << 32 | FOUND | u64::from(rule.action);
        }
        // Only ever onwards, so that the loop ends.
        let next = if rule.next > number { rule.next } else { number + 1 };
        set_progress(progress, next / 64, u64::MAX << (next & 63));
    }
    INCOMPLETE
}

#[inline(always)]
fn get_progress(progress: *mut Progress) -> (u32, u64) {
    // SAFETY: this CPU's own element of the map.
    unsafe { (addr_of!((*progress).word).read_volatile(), addr_of!((*progress).mask).read_volatile()) }
}

#[inline(always)]
fn set_progress(progress: *mut Progress, word: u32, mask: u64) {
    // SAFETY: as in `get_progress`.
    unsafe {
        addr_of_mut!((*progress).word).write_volatile(word);
        addr_of_mut!((*progress).mask).write_volatile(mask);
    }
}
