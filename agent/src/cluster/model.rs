//! The types of a cluster. Plain values: whatever stands here has been validated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::source::Source;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The label that every namespace has: its name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Name of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Name {
    /// `metadata.namespace`, `default` when absent.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything that the manifests say, as far as it concerns the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Cluster-wide settings.
    pub config: Config,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Namespaces by name. A namespace that is only mentioned exists, with the one label that Kubernetes gives it.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Pods.
    pub pods: BTreeMap<Name, Pod>,
    /// Services.
    pub services: BTreeMap<Name, Service>,
    /// EndpointSlices.
    pub slices: BTreeMap<Name, EndpointSlice>,
    /// NetworkPolicies.
    pub policies: BTreeMap<Name, NetworkPolicy>,
    /// ClusterNetworkPolicies by name.
    pub cluster_policies: BTreeMap<String, ClusterNetworkPolicy>,
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
    pub name: String,
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
    pub name: String,
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

/// `metav1.LabelSelector`: all requirements hold. Without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// `matchLabels` as `In` with one value, and `matchExpressions`; sorted.
    pub requirements: BTreeSet<Requirement>,
}

/// One requirement of a [`Selector`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Operator and values.
    pub operator: Operator,
}

/// How a [`Requirement`] judges a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The label is there, with one of the values.
    In(BTreeSet<String>),
    /// The label is absent, or has none of the values.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

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
    pub name: String,
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

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where the object starts.
    pub source: Source,
    /// Name.
    pub name: Name,
    /// Annotations whose keys begin with `weir.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.clusterIPs`, or `spec.clusterIP`; empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` of ipMode VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`; empty: everyone.
    pub source_ranges: Vec<IpNet>,
    /// `spec.externalTrafficPolicy` is Local.
    pub external_local: bool,
    /// `spec.internalTrafficPolicy` is Local.
    pub internal_local: bool,
    /// `spec.sessionAffinity: ClientIP`, with its timeout in seconds.
    pub affinity: Option<u32>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.healthCheckNodePort`.
    pub health_check_port: Option<u16>,
    /// `spec.selector`; `None` when absent or empty.
    pub selector: Option<Labels>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Label `service.kubernetes.io/headless` or `service.kubernetes.io/service-proxy-name` is set: not ours to serve.
    pub foreign: bool,
}

/// `spec.type` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKind {
    /// Only its ClusterIPs and external addresses.
    ClusterIp,
    /// A port on every node as well.
    NodePort,
    /// A load balancer's address as well.
    LoadBalancer,
    /// A name, nothing to serve.
    ExternalName,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where the item starts.
    pub source: Source,
    /// Name, empty when absent.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the service's addresses.
    pub port: u16,
    /// Port on the nodes.
    pub node_port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Where the object starts.
    pub source: Source,
    /// Name.
    pub name: Name,
    /// The service it belongs to: label `kubernetes.io/service-name`.
    pub service: Option<String>,
    /// `addressType` is IPv6 (else IPv4; FQDN slices have no endpoints here).
    pub ipv6: bool,
    /// `ports`.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name, empty when absent.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number; `None`: not restricted, which no service can use.
    pub port: Option<u16>,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `addresses[0]`: the others are ignored, as kube-proxy ignores them.
    pub address: IpAddr,
    /// `conditions.ready`, true when absent.
    pub ready: bool,
    /// `conditions.serving`, true when absent.
    pub serving: bool,
    /// `conditions.terminating`, false when absent.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<String>,
    /// `zone`.
    pub zone: Option<String>,
    /// `hints.forZones[].name`.
    pub zone_hints: BTreeSet<String>,
    /// `hints.forNodes[].name`.
    pub node_hints: BTreeSet<String>,
}
