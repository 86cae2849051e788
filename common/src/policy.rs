//! Policy as bit vectors: identities, rule sets, and the rules they number.
//!
//! The rules of one pod in one direction stand in order in a *rule set*. Two look-ups give two bit
//! vectors over its rules: those whose peer matches and those whose port matches. The lowest common bit
//! is the rule that decides. An `ARRAY` map needs no helper call, so that the only hash look-up of a
//! decision is `PEERS`.

use crate::plain;

/// Rule set number of a pod that no policy selects in that direction: everything passes.
pub const NO_POLICY: u32 = 0;

/// Identity of an address that no policy distinguishes from the rest of the world.
pub const IDENTITY_WORLD: u32 = 0;
/// Identity of an unallocated address of a service CIDR.
pub const IDENTITY_SERVICE_CIDR: u32 = 1;
/// Identity of the address of a service.
pub const IDENTITY_SERVICE: u32 = 2;
/// First identity that stands for a set of selectors and blocks.
pub const IDENTITY_FIRST: u32 = 16;

/// Most 64-bit words in one bit vector, hence 64 times as many rules in one rule set.
pub const MAX_WORDS: u32 = 64;
/// Most rules in one rule set. One that another goes on after has as many.
pub const MAX_RULES: u32 = MAX_WORDS * 64;
/// Most rule sets that go on one after the other, hence 65,536 rules for a pod in one direction.
pub const MAX_LINKS: u32 = 16;
/// Most steps of the binary search over a [`PortTable`], hence 2^12 port intervals per protocol.
pub const MAX_PORT_STEPS: u32 = 12;
/// Most times a Pass rule may send the search on (Admin to NetworkPolicy, Baseline to the default).
pub const MAX_PASSES: u32 = 3;

/// Value of the `IDENTITIES_*` LPM tries, keyed by a prefix.
///
/// Two numbers, so that a commit can give an address a new identity while pods that still use their old
/// rule set go on seeing the old one: an [`Endpoint`](crate::endpoint::Endpoint) names the slot it reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The identity, per slot.
    pub slots: [u32; 2],
}

/// Key of the `PEERS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    /// Rule set.
    pub rule_set: u32,
    /// Identity of the peer.
    pub identity: u32,
}

/// What policy distinguishes by protocol: the index of [`RuleSet::ports`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp = 0,
    /// UDP, IP protocol 17.
    Udp = 1,
    /// SCTP, IP protocol 132.
    Sctp = 2,
    /// Echo requests of ICMP and ICMPv6, judged at port 0. They follow the peers of a policy: a rule that
    /// allows matches whatever its ports are, a rule that denies or passes only when it names no port.
    Echo = 3,
}

/// Number of [`Protocol`]s.
pub const PROTOCOLS: usize = 4;

/// A sorted run of the `PORTS` array: the port intervals of one protocol in one rule set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTable {
    /// Index of the first interval.
    pub offset: u32,
    /// Number of intervals; the first starts at port 0. Never 0 in a written rule set.
    pub len: u32,
}

/// Element of the `PORTS` array: ports from `start` to the next element's start share one bit vector.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortInterval {
    /// First port, host byte order.
    pub start: u32,
    /// Index in the `VECTORS` array of the rules whose port matches.
    pub vector: u32,
}

/// Element of the `RULE_SETS` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Words in each bit vector; 0: the element is free, and a packet that meets it is dropped.
    pub words: u32,
    /// Index in the `VECTORS` array of the rules that match an identity that `PEERS` does not list.
    pub default_peers: u32,
    /// Index of the first rule in the `RULES` array.
    pub rules: u32,
    /// Number of the rule set that goes on where no rule of this one has decided; [`NO_POLICY`]: none does.
    pub next: u32,
    /// Port intervals by [`Protocol`].
    pub ports: [PortTable; PROTOCOLS],
}

/// What a rule says. A byte of a map, hence constants and not an enum.
pub mod action {
    /// The packet passes.
    pub const ALLOW: u32 = 0;
    /// The packet is dropped.
    pub const DENY: u32 = 1;
    /// The decision is left to the rules from [`Rule::next`](super::Rule::next) on.
    pub const PASS: u32 = 2;
    /// The packet is dropped because the pod is isolated and no rule allows it.
    pub const ISOLATED: u32 = 3;
}

/// Element of the `RULES` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// One of [`action`].
    pub action: u32,
    /// For a Pass rule: the number, in the rule set, of the rule the search goes on with; past its last rule,
    /// the search goes on in the next rule set, whose first rule has the number [`MAX_RULES`] here.
    pub next: u32,
    /// Number of the rule for people: the agent knows its policy, file and line. Never 0.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}

/// The rule number that stands for "no policy selects the pod": nothing had to be decided.
pub const RULE_NONE: u32 = 0;
/// The rule number of "a pod's own node always reaches it" (Kubernetes API, NetworkPolicySpec.ingress).
pub const RULE_OWN_NODE: u32 = 1;
/// The rule number of "a pod always reaches itself".
pub const RULE_SELF: u32 = 2;
/// The first rule number that the agent gives out.
pub const RULE_FIRST: u32 = 16;

/// Element of the `RULE_HITS` array, on one CPU: what a rule has decided.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Connections: those that it let in, from their first packet on or since a change, and the attempts
    /// that it refused.
    pub connections: u64,
    /// Packets, of both directions.
    pub packets: u64,
}

impl RuleHits {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.wrapping_add(other.connections),
            packets: self.packets.wrapping_add(other.packets),
        }
    }
}

plain!(Identity: 8, PeerKey: 8, PortTable: 8, PortInterval: 8, RuleSet: 48, Rule: 16, RuleHits: 16);
