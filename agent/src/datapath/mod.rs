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
pub mod explain;
mod network;
mod ring;

pub mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::service::member;

pub use bits::Bits;
pub use evaluate::{Connection, Decision, Judgement, Origin, Path};
pub use network::Network;
pub use ring::{Members, Ring};

use crate::{
    cluster::{Action, Name, Probe},
    shared_map::SharedMap,
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

/// What one node is to enforce. A copy costs next to nothing, and so does what two have in common when they
/// are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datapath {
    /// This node's name.
    pub node: String,
    /// This node's own addresses, the primary one of each family first.
    pub node_addresses: Vec<IpAddr>,
    /// Blocks that pod addresses come from: who is a pod among the clients of a service. Empty when
    /// pods cannot be told apart, and nobody is.
    pub pod_cidrs: Arc<[IpNet]>,
    /// Masquerade what pods send elsewhere than to `inside`.
    pub masquerade: bool,
    /// Reset TCP connections to services whose backend is gone.
    pub reset_gone: bool,
    /// The cluster's own addresses, blocks of pods and nodes, and whose they are: bits of
    /// [`weir_common::state::inside`].
    pub inside: Arc<BTreeMap<IpNet, u32>>,
    /// Networked pods of this node by address.
    pub endpoints: SharedMap<IpAddr, Endpoint>,
    /// Identity by prefix, longest match. Addresses without an entry are of the world.
    pub identities: SharedMap<IpNet, IdentityId>,
    /// The rule sets that endpoints name.
    pub rule_sets: SharedMap<RuleSetId, Arc<RuleSet>>,
    /// Every rule that the rule sets name.
    pub rules: SharedMap<RuleId, RuleOrigin>,
    /// Service ports by frontend.
    pub frontends: SharedMap<Frontend, Arc<Service>>,
    /// Services that answer health checks on this node, by `spec.healthCheckNodePort`.
    pub health_checks: BTreeMap<u16, HealthCheck>,
    /// Backends that are to be checked, and how. Those that fail come back as [`crate::compile::Unhealthy`].
    pub probes: BTreeMap<Target, Probe>,
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
    /// The rule set that goes on where no rule of this one decides. This one is full then.
    pub next: Option<RuleSetId>,
}

/// A rule in a rule set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it says.
    pub action: Action,
    /// For Pass: the number, in the rule set, of the rule the search goes on with; past its last rule, the
    /// search goes on in the next rule set.
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

/// A backend of a service that is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The service.
    pub service: Name,
    /// The backend.
    pub backend: Backend,
}

/// A service port at one of its frontends, as this node handles it.
///
/// Everything is decided here but three things that only a packet shows: who the client is (pod, node
/// or outside: which ring, which flags), whether it is in `source_ranges`, and whether the chosen
/// backend is the client itself, which is masqueraded whatever the flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Number of the service port, the same at all of its frontends.
    pub id: ServiceId,
    /// The service.
    pub name: Name,
    /// Bits of [`weir_common::service::flags`].
    pub flags: u32,
    /// Ring of backends for pods and the node itself, empty when there are none.
    pub internal: Arc<Ring>,
    /// Ring of backends for outside clients.
    pub external: Arc<Ring>,
    /// The port of every backend of a service that is forwarded by DSR, whose packets do not name it.
    pub target_port: u16,
    /// Every endpoint of the service port, with bits of [`weir_common::service::member`]. A UDP flow to one
    /// that does not serve is decided again at its next packet, and so is what one that is not sound has not
    /// answered; TCP and SCTP flows stay.
    pub members: Members,
    /// Clients that may use this frontend, checked before anything else; empty: everyone.
    pub source_ranges: Vec<IpNet>,
    /// Seconds for which new connections of a client address go to the backend of its last one, at
    /// whichever frontend with this `id`.
    pub affinity: Option<u32>,
}

impl Service {
    /// Whether live flows of every protocol may stay with an endpoint.
    pub fn serves(&self, backend: Backend) -> bool {
        self.is_member(backend, member::SERVES)
    }

    /// Whether flows that it has not answered may wait for an endpoint.
    pub fn is_sound(&self, backend: Backend) -> bool {
        self.is_member(backend, member::SOUND)
    }

    fn is_member(&self, backend: Backend, bit: u32) -> bool {
        self.members.get(&backend).is_some_and(|bits| bits & bit != 0)
    }
}

/// A service that tells load balancers whether this node has endpoints for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The service.
    pub service: Name,
    /// Ready endpoints on this node. None of them: the answer is 503 rather than 200.
    pub local_endpoints: usize,
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
    /// The policies that it comes from, by name.
    pub fn policies(&self) -> Vec<String> {
        match self {
            Self::Policy { policy, .. } => vec![policy.to_string()],
            Self::ClusterPolicy { policy, .. } => vec![policy.clone()],
            Self::Isolation { policies, .. } => policies.iter().map(|(name, _)| name.to_string()).collect(),
        }
    }
}
