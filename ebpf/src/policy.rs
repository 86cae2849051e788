//! Policy: which rule decides, by two bit vectors. See [`weir_common::policy`].

use core::hint::black_box;

use weir_common::{
    endpoint::Endpoint,
    flow::flags,
    header::tcp_flags,
    policy::{
        MAX_LINKS, MAX_PASSES, MAX_PORT_STEPS, MAX_RULES, MAX_WORDS, NO_POLICY, PROTOCOLS, PeerKey,
        PortTable, Protocol, RULE_NONE, action,
    },
    reason::Reason,
};

use crate::{family::Family, flow::Rules, maps, slow::GO_ON};

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
    peer: &F::Addr,
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
    match found as u32 & ACTION_MASK {
        action::ALLOW => Ok(()),
        action::DENY => Err(Reason::PolicyDeny),
        _ => Err(Reason::PolicyDenied),
    }
}

/// Counts a packet for the rules that decided its flow.
#[inline(always)]
pub fn count_packet(rules: &Rules) {
    for rule in [rules.egress, rules.ingress] {
        if rule != RULE_NONE
            && let Some(hits) = maps::RULE_HITS.get_ptr_mut(rule)
        {
            // SAFETY: the element of this CPU, which no other program on this CPU can interrupt at TC.
            unsafe { (*hits).packets += 1 };
        }
    }
}

/// Counts what has just been judged, for each of the two rules, as they are `now`: the packet; and a connection,
/// where it was not the same one `before`, for a flow is judged again after every change. Of two directions the
/// one counts that the flow was opened in; of a TCP connection that is refused, its SYNs. Gives `answer` back.
///
/// A function of its own for the same reason as [`evaluate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_judged(now: u64, before: u64, answer: u32, way: u32, tcp: u32) -> u32 {
    // Of segments that are valid at all, a SYN has neither and every other one or both.
    let goes_on = tcp as u8 & (tcp_flags::ACK | tcp_flags::RST) != 0;
    let is_new = way as u16 & flags::REPLY == 0 && (answer == GO_ON || !goes_on);
    for half in [0, 32] {
        let (rule, former) = ((now >> half) as u32, (before >> half) as u32);
        if let Some(hits) = maps::RULE_HITS.get_ptr_mut(rule) {
            // SAFETY: as in `count_packet`.
            unsafe {
                (*hits).packets += 1;
                if is_new && rule != former {
                    (*hits).connections += 1;
                }
            }
        }
    }
    answer
}

/// Results of [`evaluate`] that name no rule.
const INCOMPLETE: u64 = 0;
const NO_RULE: u64 = 1;
/// Set in the low half when a rule was found, beside its action; the rule's number is in the high half.
const FOUND: u64 = 0x100;
const ACTION_MASK: u32 = 0xff;
/// Set in the low half of a link: a rule set, in the high half, and with which of its rules the search goes on.
const LINK: u64 = 1 << 31;

/// The rule that decides in a rule set and those that go on after it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn evaluate(rule_set: u32, identity: u32, protocol: u32, port: u32) -> u64 {
    let mut found = link(rule_set, 0);
    for _ in 0..MAX_LINKS {
        found = black_box(evaluate_link(found, identity, protocol, port));
        if found & LINK == 0 {
            return found;
        }
    }
    INCOMPLETE
}

#[inline(always)]
fn link(rule_set: u32, start: u32) -> u64 {
    u64::from(rule_set) << 32 | LINK | u64::from(start)
}

/// The rule that decides in one rule set, or the link on which the search goes on.
///
/// A function of its own with numbers for arguments, so that the verifier walks its loops once and not
/// for every family, direction and program that asks.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn evaluate_link(link: u64, identity: u32, protocol: u32, port: u32) -> u64 {
    let (rule_set, start) = ((link >> 32) as u32, (link & !LINK) as u32);
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
    let (words, rules) = (set.words, set.rules);
    let mut start = start;
    // One step a block, and one more for each Pass rule, which leads onwards.
    for _ in 0..MAX_WORDS / BLOCK + MAX_PASSES {
        let number = black_box(first_common(peers, ports, start, words));
        match number {
            NO_BIT if set.next == NO_POLICY => return NO_RULE,
            NO_BIT => return self::link(set.next, start.saturating_sub(MAX_RULES)),
            BROKEN => return INCOMPLETE,
            NOT_HERE => start = (start / 64 + BLOCK) * 64,
            _ => {
                let Some(rule) = maps::RULES.get(rules + number) else { return INCOMPLETE };
                if rule.action != action::PASS {
                    return u64::from(rule.id) << 32 | FOUND | u64::from(rule.action);
                }
                start = rule.next;
            }
        }
    }
    INCOMPLETE
}

/// Binary search for the interval that holds `port`.
///
/// Without a branch on what is found, so that the verifier walks one path and not all of them.
#[inline(always)]
fn port_vector(table: PortTable, port: u32) -> Option<u32> {
    let mut first = table.offset;
    let mut len = table.len;
    for _ in 0..MAX_PORT_STEPS {
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

/// Words that one call of [`first_common`] looks at.
const BLOCK: u32 = 8;

/// No bit is common.
const NO_BIT: u32 = u32::MAX;
/// The vectors are not whole.
const BROKEN: u32 = u32::MAX - 1;
/// No bit of these words is common.
const NOT_HERE: u32 = u32::MAX - 2;

/// The lowest bit that two vectors of `words` words have in common, in the [`BLOCK`] words from that of bit
/// `start` on.
///
/// A function of its own for the same reason as [`evaluate`], and of one block, so that the verifier walks
/// as many words and not all that a vector may have.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_common(one: u32, other: u32, start: u32, words: u32) -> u32 {
    let first = start / 64;
    let mut mask = u64::MAX << (start & 63);
    for step in 0..BLOCK {
        let word = first + step;
        if word >= words {
            return NO_BIT;
        }
        let (Some(one), Some(other)) = (maps::VECTORS.get(one + word), maps::VECTORS.get(other + word))
        else {
            return BROKEN;
        };
        let common = one & other & mask;
        if common != 0 {
            return word * 64 + common.trailing_zeros();
        }
        mask = u64::MAX;
    }
    NOT_HERE
}
