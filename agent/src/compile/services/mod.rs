//! Services: what a node does with packets to their addresses.
//!
//! The semantics are those of kube-proxy's nftables mode. EndpointSlices alone say which endpoints there
//! are and in which state: pods are not asked, and neither is `publishNotReadyAddresses`, which whoever
//! writes the slices follows.

mod endpoints;
mod frontends;
pub mod maglev;
mod port;
#[cfg(test)]
mod tests;
pub mod view;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use weir_common::policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR};

use self::{
    endpoints::{Failing, Slices, Usable, local_ready, probed},
    frontends::Kind,
    maglev::Rings,
    port::PortInFamily,
};
use super::{Interner, ServicePortKey, Unhealthy};
use crate::{
    cluster::{Cluster, Endpoint, EndpointSlice, Node, Probe, Protocol, Service, ServiceKind},
    datapath::{self, Frontend, HealthCheck, IdentityId, Target},
};

/// The services of a cluster as one node is to handle them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// For [`Datapath::frontends`](datapath::Datapath::frontends).
    pub frontends: BTreeMap<Frontend, datapath::Service>,
    /// For [`Datapath::health_checks`](datapath::Datapath::health_checks).
    pub health_checks: BTreeMap<u16, HealthCheck>,
    /// For [`Datapath::probes`](datapath::Datapath::probes).
    pub probes: BTreeMap<Target, Probe>,
    /// For [`Datapath::identities`](datapath::Datapath::identities): ClusterIPs, where a port that no
    /// frontend has is rejected, and service CIDRs, whose other addresses are dropped. Addresses for the
    /// outside are not among them: what their services do not answer on goes its own way.
    pub identities: BTreeMap<IpNet, IdentityId>,
}

/// Compiles the services of `cluster` for `node`, with `numbers` for their ports.
pub fn compile(
    cluster: &Cluster,
    node: &str,
    unhealthy: &Unhealthy,
    numbers: &mut Interner<ServicePortKey>,
) -> Services {
    let place = Place::new(cluster, node);
    let mut probes = BTreeMap::new();
    let slices = Slices::new(cluster);
    let mut rings = Rings::default();
    let mut frontends = BTreeMap::new();
    let mut node_ports = BTreeMap::new();
    let mut health_checks = BTreeMap::new();
    for service in cluster.services.values().filter(|service| is_served(service)) {
        let slices = slices.of(&service.name);
        let families = service.cluster_ips.iter();
        for (&cluster_ip, port) in families.flat_map(|ip| service.ports.iter().map(move |port| (ip, port))) {
            let protocol = port.protocol;
            let ipv6 = cluster_ip.is_ipv6();
            probes.extend(probed(service, slices, port, ipv6, &place));
            let key = ServicePortKey { service: service.name.clone(), port: port.port, protocol };
            let mut in_family = PortInFamily {
                config: &cluster.config,
                service,
                id: numbers.number(key),
                place: &place,
                usable: Usable::new(
                    slices,
                    port,
                    ipv6,
                    &place,
                    &Failing { service: &service.name, unhealthy },
                ),
                rings: &mut rings,
            };
            for (kind, address, port) in frontends::of(service, port, cluster_ip, &place) {
                let frontend = Frontend { address, port, protocol: protocol.number() };
                let frontends = if kind == Kind::NodePort { &mut node_ports } else { &mut frontends };
                frontends.entry(frontend).or_insert_with(|| in_family.at(kind, address));
            }
        }
        let failing = Failing { service: &service.name, unhealthy };
        health_checks.extend(health_check(service, slices, &place, &failing));
    }
    // An address of the node may be given as an external address too, and that goes before its node ports.
    for (frontend, service) in node_ports {
        frontends.entry(frontend).or_insert(service);
    }
    Services { frontends, health_checks, probes, identities: identities(cluster) }
}

/// The blocks that pod addresses come from: the configured ones, else the nodes', and the addresses of
/// pods that are in none. Empty when pods cannot be told apart.
pub fn pod_cidrs(cluster: &Cluster) -> Vec<IpNet> {
    if cluster.config.pods_unknown {
        return Vec::new();
    }
    let mut blocks = cluster.config.pod_cidrs.clone();
    if blocks.is_empty() {
        blocks.extend(cluster.nodes.values().flat_map(|node| &node.pod_cidrs));
    }
    let pods = cluster.pods.values().filter(|pod| pod.is_networked());
    blocks.extend(pods.flat_map(|pod| &pod.addresses).copied().map(IpNet::from));
    IpNet::aggregate(&blocks)
}

/// Whether the service has addresses that are ours to serve.
fn is_served(service: &Service) -> bool {
    !service.foreign && service.kind != ServiceKind::ExternalName
}

/// What policy and services tell apart by destination where no frontend matches.
fn identities(cluster: &Cluster) -> BTreeMap<IpNet, IdentityId> {
    let cidrs = cluster.config.service_cidrs.iter().map(|cidr| (cidr.trunc(), IDENTITY_SERVICE_CIDR));
    let served = cluster.services.values().filter(|service| is_served(service));
    let addresses =
        served.flat_map(|service| service.cluster_ips.iter().map(|ip| (IpNet::from(*ip), IDENTITY_SERVICE)));
    cidrs.chain(addresses).collect()
}

/// The health check of a load balancer's service, which only `externalTrafficPolicy: Local` has. Endpoints
/// are counted in the service's first family, so that one of two families is one.
fn health_check(
    service: &Service,
    slices: &[&EndpointSlice],
    place: &Place<'_>,
    failing: &Failing<'_>,
) -> Option<(u16, HealthCheck)> {
    let port = service
        .health_check_port
        .filter(|_| service.kind == ServiceKind::LoadBalancer && service.external_local)?;
    let ipv6 = service.cluster_ips.first()?.is_ipv6();
    let local_endpoints = local_ready(slices, &service.ports, ipv6, place, failing);
    Some((port, HealthCheck { service: service.name.clone(), local_endpoints }))
}

/// The node that services are compiled for.
struct Place<'a> {
    node: &'a str,
    zone: Option<&'a str>,
    /// The node's address of each family.
    primary_addresses: Vec<IpAddr>,
    /// Its addresses that answer on node ports.
    node_port_addresses: Vec<IpAddr>,
    doors: Doors,
}

/// Where services are asked, on any node.
#[derive(Default)]
struct Doors {
    /// Where ClusterIPs come from, given out or not.
    cidrs: Vec<IpNet>,
    /// At addresses of their own.
    addresses: HashSet<(IpAddr, u16, Protocol)>,
    /// At the nodes' addresses.
    node_ports: HashSet<(u16, Protocol)>,
    nodes: HashSet<IpAddr>,
}

impl<'a> Place<'a> {
    fn new(cluster: &'a Cluster, name: &'a str) -> Self {
        let node = cluster.nodes.get(name);
        let addresses = node.map_or(&[][..], |node| &node.addresses);
        let primary = |ipv6| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
        let primary_addresses: Vec<_> = [false, true].into_iter().filter_map(primary).collect();
        let node_port_addresses = match &cluster.config.node_port_addresses {
            None => primary_addresses.clone(),
            Some(blocks) => addresses
                .iter()
                .copied()
                .filter(|address| blocks.iter().any(|block| block.contains(address)))
                .collect(),
        };
        Self {
            node: name,
            zone: node.and_then(Node::zone),
            node_port_addresses: node_port_addresses
                .into_iter()
                .filter(|address| !address.is_loopback())
                .collect(),
            primary_addresses,
            doors: Doors::new(cluster),
        }
    }

    fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(self.node)
    }
}

impl Doors {
    fn new(cluster: &Cluster) -> Self {
        let nodes = cluster.nodes.values().flat_map(|node| &node.addresses).copied().collect();
        let mut doors = Self { nodes, cidrs: cluster.config.service_cidrs.clone(), ..Self::default() };
        for service in cluster.services.values().filter(|service| is_served(service)) {
            let own = [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips];
            for port in &service.ports {
                let addresses = own.into_iter().flatten();
                doors.addresses.extend(addresses.map(|address| (*address, port.port, port.protocol)));
                doors.node_ports.extend(port.node_port.map(|number| (number, port.protocol)));
            }
        }
        doors
    }

    /// Whether a packet that goes there is for a service. Such a place is no endpoint: packets that go from one
    /// service to another may never arrive.
    fn contains(&self, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.addresses.contains(&(address, port, protocol))
            || self.node_ports.contains(&(port, protocol)) && self.nodes.contains(&address)
            || self.cidrs.iter().any(|cidr| cidr.contains(&address))
    }
}
