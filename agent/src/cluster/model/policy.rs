//! NetworkPolicy and ClusterNetworkPolicy.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Name, Protocol, Selector};
use crate::source::Source;

/// networking.k8s.io/v1 NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Where the object starts.
    pub source: Source,
    /// Name.
    pub name: Name,
    /// Pods of its namespace that it isolates.
    pub pod_selector: Selector,
    /// `Ingress` is among the policy types, given or by default: the selected pods are isolated for ingress.
    pub isolates_ingress: bool,
    /// `Egress` is among the policy types, given or by default.
    pub isolates_egress: bool,
    /// `spec.ingress`. Without effect unless `isolates_ingress`.
    pub ingress: Vec<PolicyRule>,
    /// `spec.egress`. Without effect unless `isolates_egress`.
    pub egress: Vec<PolicyRule>,
}

/// One item of `spec.ingress` or `spec.egress` of a NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Where the item starts.
    pub source: Source,
    /// `from` or `to`; `None` when absent or empty: everyone.
    pub peers: Option<Vec<PolicyPeer>>,
    /// `ports`; `None` when absent or empty: every port of every protocol.
    pub ports: Option<Vec<PolicyPort>>,
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPeer {
    /// Where the item starts.
    pub source: Source,
    /// Whom it names.
    pub kind: PeerKind,
}

/// Whom a [`PolicyPeer`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Pods by selectors.
    Pods {
        /// Namespaces; `None`: the policy's own namespace.
        namespaces: Option<Selector>,
        /// Pods in these namespaces; `None`: all.
        pods: Option<Selector>,
    },
    /// Addresses by block.
    Block {
        /// The block, its host bits cleared.
        cidr: IpNet,
        /// What is taken out of it, host bits cleared.
        except: Vec<IpNet>,
    },
}

/// One port of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPort {
    /// Where the item starts.
    pub source: Source,
    /// Protocol, TCP when absent. `None` is used by ClusterNetworkPolicy alone: a port name of any protocol.
    pub protocol: Option<Protocol>,
    /// Which ports.
    pub ports: PortMatch,
}

/// Which ports a [`PolicyPort`] names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortMatch {
    /// Every port of the protocol.
    All,
    /// From the first to the second, both included.
    Range(u16, u16),
    /// The number that the destination pod declares under this name, for the protocol.
    Named(String),
}

/// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    /// Where the object starts.
    pub source: Source,
    /// Name.
    pub name: Arc<str>,
    /// Before or after NetworkPolicy.
    pub tier: Tier,
    /// 0 to 1000; lower is stronger. Equal ones are ordered by name.
    pub priority: u16,
    /// The pods it is about.
    pub subject: PodSet,
    /// Rules for what they receive, in order.
    pub ingress: Vec<ClusterRule>,
    /// Rules for what they send, in order.
    pub egress: Vec<ClusterRule>,
}

/// `spec.tier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Before NetworkPolicy.
    Admin,
    /// After NetworkPolicy.
    Baseline,
}

/// Pods by namespace, or by namespace and pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodSet {
    /// Namespaces.
    pub namespaces: Selector,
    /// Pods of these; `None`: all.
    pub pods: Option<Selector>,
}

/// One rule of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// Where the item starts.
    pub source: Source,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it says.
    pub action: Action,
    /// `from` or `to`, at least one.
    pub peers: Vec<ClusterPeer>,
    /// `protocols`; `None` when absent: everything.
    pub ports: Option<Vec<PolicyPort>>,
}

/// What a [`ClusterRule`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Allow, finally.
    Accept,
    /// Deny, finally.
    Deny,
    /// Leave it to the next tier.
    Pass,
}

/// One peer of a [`ClusterRule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPeer {
    /// Where the item starts.
    pub source: Source,
    /// Whom it names.
    pub kind: ClusterPeerKind,
}

/// Whom a [`ClusterPeer`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterPeerKind {
    /// Pods.
    Pods(PodSet),
    /// Nodes by label (egress only).
    Nodes(Selector),
    /// Addresses (egress only).
    Networks(Vec<IpNet>),
    /// No field that is known: an Accept rule matches nothing by it, a Deny or Pass rule denies.
    Unknown,
}
