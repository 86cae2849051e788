//! What `weir describe policy` shows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{cluster::Name, source::Source};

/// The name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyName {
    /// Of a NetworkPolicy.
    Namespaced(Name),
    /// Of a ClusterNetworkPolicy.
    Cluster(String),
}

/// A policy, and what a node has to do with it. As JSON it is what `weir describe policy -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// `NAMESPACE/NAME`, or `NAME` of a ClusterNetworkPolicy.
    pub name: String,
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// The nodes whose counts these are; none where no agent was asked.
    pub nodes: Vec<String>,
    /// Where the object starts.
    pub source: Source,
    /// Of a ClusterNetworkPolicy: `Admin` or `Baseline`.
    pub tier: Option<String>,
    /// Of a ClusterNetworkPolicy.
    pub priority: Option<u16>,
    /// The pods that it selects, on all nodes.
    pub pods: Vec<String>,
    /// The directions that it isolates them for: `ingress`, `egress`.
    pub isolates: Vec<String>,
    /// Its rules in order, and the isolation behind them.
    pub rules: Vec<RuleReport>,
}

/// A rule of a policy, or that it isolates and no rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// `ingress[0]`, or `ingress, no rule matches`.
    pub rule: String,
    /// The name that a rule of a ClusterNetworkPolicy may have.
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Where it stands.
    pub source: Source,
    /// Why it has no effect, if so.
    pub idle: Option<String>,
    /// Whose packets it is about; `None`: everyone's.
    pub peers: Option<Vec<PeerReport>>,
    /// Which ports it is about; `None`: every one.
    pub ports: Option<Vec<PortReport>>,
    /// What it has decided on the nodes; `None` where it selects no pod of theirs.
    pub counts: Option<RuleCounts>,
}

/// Connections and packets that a rule has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleCounts {
    /// Connections.
    pub connections: u64,
    /// Packets of both directions.
    pub packets: u64,
}

/// A peer of a rule, and whom it stands for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// What the manifest says: `pods app=web in namespaces team=a`, `10.0.0.0/8 except 10.1.0.0/16`.
    pub peer: String,
    /// Where it stands.
    pub source: Source,
    /// The pods that it matches.
    pub pods: Vec<String>,
    /// The nodes that it matches.
    pub nodes: Vec<String>,
}

/// A port of a rule, and what it stands for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortReport {
    /// What the manifest says: `80/TCP`, `8000-8080/TCP`, `http/TCP`.
    pub port: String,
    /// Where it stands.
    pub source: Source,
    /// Of a port that is named: the numbers that it has.
    pub numbers: Option<Vec<NamedPortReport>>,
}

/// A number that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedPortReport {
    /// Number and protocol: `8080/TCP`.
    pub port: String,
    /// The receiving pods that declare it so.
    pub pods: Vec<String>,
}

impl RuleCounts {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(other.connections),
            packets: self.packets.saturating_add(other.packets),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(name) => write!(f, "NetworkPolicy {name}"),
            Self::Cluster(name) => write!(f, "ClusterNetworkPolicy {name}"),
        }
    }
}

impl FromStr for PolicyName {
    type Err = &'static str;

    /// From `NAMESPACE/NAME` or `NAME`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            [name] if !name.is_empty() => Ok(Self::Cluster(name.to_owned())),
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::Namespaced(Name { namespace: namespace.into(), name: name.into() }))
            }
            _ => Err("expected NAMESPACE/NAME, or the NAME of a ClusterNetworkPolicy"),
        }
    }
}
