//! The desired datapath of one node: what the BPF maps are to say.
//!
//! A pure value: it can be compared, printed, and evaluated in user space. Numbers of identities, rule
//! sets, rules and services are stable from one compilation to the next for the same content, because
//! they are handed out by [`crate::compile::Numbers`].
//!
//! A rule set that two successive datapaths both have differs at most in [`RuleSet::peers`], and there at
//! most in identities that only one of them gives to addresses. So a commit may add the new entries before
//! it gives out the new identities, and remove the old ones after.

mod bits;
mod evaluate;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

pub use bits::Bits;
pub use evaluate::{Decision, Judgement, Origin, Packet, Path};

use crate::{
    cluster::{Action, Name},
    source::Source,
};

/// Number of an identity; see [`weir_common::policy`].
pub type IdentityId = u32;
/// Number of a rule set.
pub type RuleSetId = u32;
/// Number of a rule for people.
pub type RuleId = u32;
/// Number of a service port for people.
pub type ServiceId = u32;

/// What one node is to enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datapath {
    /// This node's name.
    pub node: String,
    /// This node's own addresses, the primary one of each family first.
    pub node_addresses: Vec<IpAddr>,
    /// Networked pods of this node by address.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    /// Identity by prefix, longest match. Addresses without an entry are of the world.
    pub identities: BTreeMap<IpNet, IdentityId>,
    /// The rule sets that endpoints name.
    pub rule_sets: BTreeMap<RuleSetId, RuleSet>,
    /// Every rule that the rule sets name.
    pub rules: BTreeMap<RuleId, RuleOrigin>,
    /// Service ports by frontend.
    pub frontends: BTreeMap<Frontend, Service>,
}

/// A pod of this node, at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub pod: Name,
    /// Rule set for what it receives; `None`: no policy selects it.
    pub ingress: Option<RuleSetId>,
    /// Rule set for what it sends.
    pub egress: Option<RuleSetId>,
}

/// Which of a pod's packets a rule set is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Those it receives.
    Ingress,
    /// Those it sends.
    Egress,
}

/// The rules of one pod in one direction, in order. The lowest rule whose peer and port both match decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Which rules match by their peer, by identity.
    pub peers: BTreeMap<IdentityId, Bits>,
    /// Which rules match an identity that `peers` does not list.
    pub default_peers: Bits,
    /// Which rules match by their port: for each [`weir_common::policy::Protocol`], intervals by their first
    /// port. Each begins with one at port 0 and no two neighbours are equal.
    pub ports: [BTreeMap<u16, Bits>; weir_common::policy::PROTOCOLS],
}

/// A rule in a rule set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it says.
    pub action: Action,
    /// For Pass: the number, in the rule set, of the rule the search goes on with.
    pub next: u32,
    /// What it comes from.
    pub id: RuleId,
}

/// What a rule comes from: what weir says when asked why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum RuleOrigin {
    /// An item of a NetworkPolicy.
    Policy {
        /// The policy.
        policy: Name,
        /// `ingress` or `egress`.
        ingress: bool,
        /// Number of the item.
        index: usize,
        /// Where the item stands.
        source: Source,
    },
    /// A rule of a ClusterNetworkPolicy.
    ClusterPolicy {
        /// The policy.
        policy: String,
        /// `ingress` or `egress`.
        ingress: bool,
        /// Number of the rule.
        index: usize,
        /// Its name.
        name: Option<String>,
        /// Where the rule stands.
        source: Source,
    },
    /// No rule allows it, and these NetworkPolicies isolate the pod.
    Isolation {
        /// `ingress` or `egress`.
        ingress: bool,
        /// The policies, and where they stand.
        policies: BTreeSet<(Name, Source)>,
    },
}

/// What a service answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// An endpoint's address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

/// A service port at one of its frontends, as this node handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its number.
    pub id: ServiceId,
    /// The service.
    pub name: Name,
    /// Bits of [`weir_common::service::flags`].
    pub flags: u32,
    /// Ring of backends for pods and the node itself, empty when there are none.
    pub internal: Vec<Backend>,
    /// Ring of backends for outside clients.
    pub external: Vec<Backend>,
    /// Endpoints that live flows may stay with: the above, and terminating ones that still serve.
    pub members: BTreeSet<Backend>,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Whether it is [`Direction::Ingress`].
    pub const fn is_ingress(self) -> bool {
        matches!(self, Self::Ingress)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ingress() { "ingress" } else { "egress" })
    }
}

impl RuleOrigin {
    /// The policies it comes from, each with where it stands.
    pub fn policies(&self) -> Vec<String> {
        match self {
            Self::Policy { policy, source, .. } => vec![format!("{policy} ({source})")],
            Self::ClusterPolicy { policy, source, .. } => vec![format!("{policy} ({source})")],
            Self::Isolation { policies, .. } => {
                policies.iter().map(|(policy, source)| format!("{policy} ({source})")).collect()
            }
        }
    }
}
