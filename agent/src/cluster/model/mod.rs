//! The types of a cluster. Plain values: whatever stands here has been validated.

mod policy;
mod selector;
mod service;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

pub use self::{policy::*, selector::*, service::*};
use crate::{shared_map::SharedMap, source::Source};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The label that every namespace has: its name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Name of a namespaced object. It stands in many places: a copy shares the texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Name {
    /// `metadata.namespace`, `default` when absent.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything that the manifests say, as far as it concerns the network. A copy costs next to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Cluster-wide settings.
    pub config: Config,
    /// Nodes by name.
    pub nodes: SharedMap<Arc<str>, Arc<Node>>,
    /// Namespaces by name. A namespace that is only mentioned exists, with the one label that Kubernetes gives it.
    pub namespaces: SharedMap<Arc<str>, Arc<Namespace>>,
    /// Pods.
    pub pods: SharedMap<Name, Arc<Pod>>,
    /// Services.
    pub services: SharedMap<Name, Arc<Service>>,
    /// EndpointSlices.
    pub slices: SharedMap<Name, Arc<EndpointSlice>>,
    /// NetworkPolicies.
    pub policies: SharedMap<Name, Arc<NetworkPolicy>>,
    /// ClusterNetworkPolicies by name.
    pub cluster_policies: SharedMap<Arc<str>, Arc<ClusterNetworkPolicy>>,
    /// Objects of kinds that do not concern weir: how many of each `apiVersion/kind`.
    pub skipped: BTreeMap<String, usize>,
}

/// `WeirConfiguration` (weir.dev/v1alpha1): cluster-wide settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where it stands; `None` when no manifest has one and the defaults hold.
    pub source: Option<Source>,
    /// Ranges that pod addresses come from. Empty: the nodes' `podCIDRs`, or else the pods' own addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges that ClusterIPs come from; an address of them without a service is dropped.
    pub service_cidrs: Vec<IpNet>,
    /// Blocks whose node addresses answer on node ports; `None`: each node's primary address of each family.
    pub node_port_addresses: Option<Vec<IpNet>>,
    /// Masquerade what pods send outside of the cluster behind their node's address.
    pub masquerade: bool,
    /// Masquerade everything that goes to a service address (kube-proxy's `masqueradeAll`).
    pub masquerade_all: bool,
    /// Leave TCP connections alone whose backend is gone, as kube-proxy does (`resetGoneBackends: false`).
    pub keep_gone: bool,
    /// Pods cannot be told apart from outside clients (kube-proxy without a detector of local traffic).
    pub pods_unknown: bool,
    /// Ranges that external and load-balancer addresses may come from; `None`: any.
    pub external_ranges: Option<Vec<IpNet>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where the object starts.
    pub source: Source,
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// Annotations whose keys begin with `weir.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// `status.addresses` of type InternalIP, then those of type ExternalIP, in order: the first of a family is the primary one.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or `spec.podCIDR` when that is all there is.
    pub pod_cidrs: Vec<IpNet>,
}

impl Node {
    /// The value of the label `topology.kubernetes.io/zone`.
    pub fn zone(&self) -> Option<&str> {
        self.labels.get("topology.kubernetes.io/zone").map(String::as_str)
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Where the object starts; `None` for one that is only mentioned by others.
    pub source: Option<Source>,
    /// Name.
    pub name: Arc<str>,
    /// Labels, `kubernetes.io/metadata.name` included.
    pub labels: Labels,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Where the object starts.
    pub source: Source,
    /// Name.
    pub name: Name,
    /// Labels.
    pub labels: Labels,
    /// Annotations whose keys begin with `weir.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `spec.hostNetwork`: the pod has its node's addresses and no interface of its own.
    pub host_network: bool,
    /// `status.podIPs`, or `status.podIP` when that is all there is. Empty for a pod that has none yet.
    pub addresses: Vec<IpAddr>,
    /// `status.phase` is Succeeded or Failed: its addresses are no longer its own.
    pub finished: bool,
    /// The Ready condition; true when there are no conditions.
    pub ready: bool,
    /// Container ports, of init containers that go on running (`restartPolicy: Always`) too.
    pub ports: Vec<ContainerPort>,
}

impl Pod {
    /// Whether the pod is on the network with addresses of its own: those that policies select and judge.
    pub fn is_networked(&self) -> bool {
        !self.host_network && !self.finished && !self.addresses.is_empty()
    }
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name, by which policies and services may refer to it.
    pub name: Option<String>,
    /// Number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A transport protocol of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
