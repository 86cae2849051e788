//! Services and EndpointSlices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{Labels, Name, Protocol};
use crate::source::Source;

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
    /// Annotation `weir.dev/forwarding`; `None`: by the node's stack.
    pub forwarding: Option<Forwarding>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.healthCheckNodePort`.
    pub health_check_port: Option<u16>,
    /// How its backends are checked: annotations `weir.dev/health-check*`; `None`: not at all.
    pub probe: Option<Box<Probe>>,
    /// `spec.selector`; `None` when absent or empty.
    pub selector: Option<Labels>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Label `service.kubernetes.io/headless` or `service.kubernetes.io/service-proxy-name` is set: not ours to serve.
    pub foreign: bool,
}

/// How packets from outside get to a backend on another node, where they may be sent on before the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Forwarding {
    /// Under the node's address; answers come back by this node.
    Snat,
    /// As they are, through a tunnel; the backend answers the client itself.
    Dsr,
}

/// How the backends of a service are checked, at each of its TCP ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Probe {
    /// What counts as a success.
    pub kind: ProbeKind,
    /// Time from one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row after which a backend leaves.
    pub failures: u32,
    /// Successes in a row after which it comes back.
    pub successes: u32,
}

/// What counts as the success of a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// A connection is accepted.
    Tcp,
    /// A GET of this path is answered with a status from 200 to 399.
    Http {
        /// The path.
        path: String,
    },
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
    pub service: Option<Arc<str>>,
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
    pub node: Option<Arc<str>>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `hints`; `None`: there are none.
    pub hints: Option<Box<Hints>>,
    /// Its share of new connections, in proportion to those of the others: annotation `weir.dev/weight` of the
    /// slice, 0 to [`Endpoint::MOST_WEIGHT`]. With 0 it gets none, and keeps what it has.
    pub weight: u32,
}

/// Where an endpoint is to be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    /// `forNodes[].name`.
    pub nodes: BTreeSet<String>,
    /// `forZones[].name`.
    pub zones: BTreeSet<String>,
}

impl Endpoint {
    /// Its hints, which may be none.
    pub fn hints(&self) -> &Hints {
        const NONE: &Hints = &Hints { zones: BTreeSet::new(), nodes: BTreeSet::new() };
        self.hints.as_deref().unwrap_or(NONE)
    }

    /// Weight of an endpoint whose slice says nothing.
    pub const USUAL_WEIGHT: u32 = 100;
    /// Greatest weight.
    pub const MOST_WEIGHT: u32 = 1000;
}
