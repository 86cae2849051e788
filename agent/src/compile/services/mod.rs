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
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR};

use self::{
    endpoints::{Failing, SlicesOf, Usable, local_ready, probed},
    frontends::Kind,
    maglev::Rings,
    port::PortInFamily,
};
use super::{Interner, ServicePortKey, Unhealthy};
use crate::{
    cluster::{Cluster, Config, Endpoint, EndpointSlice, Name, Node, Probe, Protocol, Service, ServiceKind},
    datapath::{self, Frontend, HealthCheck, IdentityId, ServiceId, Target},
    shared_map::SharedMap,
};

/// The services of a cluster as one node is to handle them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// For [`Datapath::frontends`](datapath::Datapath::frontends).
    pub frontends: SharedMap<Frontend, Arc<datapath::Service>>,
    /// For [`Datapath::health_checks`](datapath::Datapath::health_checks).
    pub health_checks: BTreeMap<u16, HealthCheck>,
    /// For [`Datapath::probes`](datapath::Datapath::probes).
    pub probes: BTreeMap<Target, Probe>,
    /// For [`Datapath::identities`](datapath::Datapath::identities): ClusterIPs, where a port that no
    /// frontend has is rejected, and service CIDRs, whose other addresses are dropped. Addresses for the
    /// outside are not among them: what their services do not answer on goes its own way.
    pub identities: SharedMap<IpNet, IdentityId>,
}

/// Compiles the services of `cluster` for `node`, with `numbers` for their ports.
pub fn compile(
    cluster: &Cluster,
    node: &str,
    unhealthy: &Unhealthy,
    numbers: &mut Interner<ServicePortKey>,
) -> Services {
    let mut compiled = Compiled::default();
    compiled.update(cluster, node, unhealthy, numbers);
    compiled.services
}

/// The services of a cluster, and what it takes to compile only those that change.
#[derive(Clone, Debug, Default)]
pub(super) struct Compiled {
    pub(super) services: Services,
    /// What it was compiled from.
    config: Config,
    node: Option<Arc<Node>>,
    nodes: SharedMap<Arc<str>, Arc<Node>>,
    unhealthy: Unhealthy,
    doors: Arc<Doors>,
    sources: SharedMap<Name, Arc<Service>>,
    slices: SharedMap<Name, Arc<EndpointSlice>>,
    slices_of: SlicesOf,
    /// What each service came to.
    outcomes: SharedMap<Name, Arc<Outcome>>,
    /// Frontends at ports of the node, some of which may be another service's external address.
    node_ports: SharedMap<Frontend, Arc<datapath::Service>>,
    others: SharedMap<Frontend, Arc<datapath::Service>>,
}

/// What one service comes to on a node.
#[derive(Debug, Default)]
struct Outcome {
    frontends: Vec<(Kind, Frontend, Arc<datapath::Service>)>,
    health_check: Option<(u16, HealthCheck)>,
    probes: BTreeMap<Target, Probe>,
    cluster_ips: Vec<IpAddr>,
}

impl Compiled {
    /// Compiles what is not the same as the last time.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        node: &str,
        unhealthy: &Unhealthy,
        numbers: &mut Interner<ServicePortKey>,
    ) {
        let identities = self.services.identities.clone();
        if self.config != cluster.config || self.node.as_ref() != cluster.nodes.get(node) {
            // These have a say in all services.
            *self = Self { config: cluster.config.clone(), ..Self::default() };
            self.node = cluster.nodes.get(node).cloned();
            let cidrs = cluster.config.service_cidrs.iter();
            self.services.identities = cidrs.map(|cidr| (cidr.trunc(), IDENTITY_SERVICE_CIDR)).collect();
        }
        let mut changed: BTreeSet<Name> =
            self.sources.differences(&cluster.services).into_iter().map(|found| found.key.clone()).collect();
        changed.extend(self.slices_of.update(&self.slices, &cluster.slices));
        if !self.sources.is_same(&cluster.services) || !self.nodes.is_same(&cluster.nodes) {
            let before = std::mem::replace(&mut self.doors, Arc::new(Doors::new(cluster)));
            changed.extend(self.slices_of.with_endpoints_between(&before, &self.doors));
        }
        let doors = Arc::clone(&self.doors);
        let place = Place::new(cluster, node, &doors);
        changed.extend(self.unhealthy.symmetric_difference(unhealthy).map(|target| target.service.clone()));
        self.unhealthy.clone_from(unhealthy);
        self.nodes = cluster.nodes.clone();
        self.sources = cluster.services.clone();
        self.slices = cluster.slices.clone();

        let mut rings = Rings::default();
        let mut frontends = BTreeSet::new();
        // What one service gives up, another may take.
        for name in &changed {
            if let Some(before) = self.outcomes.remove(name) {
                frontends.extend(before.frontends.iter().map(|(_, frontend, _)| *frontend));
                self.withdraw(&before);
            }
        }
        for name in changed {
            let Some(service) = cluster.services.get(&name).filter(|service| is_served(service)) else {
                continue;
            };
            let slices = self.slices_of.of(&name);
            let failing = Failing { service: &service.name, unhealthy };
            let outcome =
                Outcome::new(service, slices, &cluster.config, &place, &failing, &mut rings, numbers);
            frontends.extend(outcome.frontends.iter().map(|(_, frontend, _)| *frontend));
            self.add(&outcome);
            self.outcomes.insert(name, Arc::new(outcome));
        }
        for frontend in frontends {
            // An address of the node may be given as an external address too, and that goes before its node
            // ports.
            match self.others.get(&frontend).or_else(|| self.node_ports.get(&frontend)) {
                Some(service) => drop(self.services.frontends.insert(frontend, Arc::clone(service))),
                None => drop(self.services.frontends.remove(&frontend)),
            }
        }
        if self.services.identities == identities {
            // The very same: policy is judged anew where they are not.
            self.services.identities = identities;
        }
    }

    fn add(&mut self, outcome: &Outcome) {
        for (kind, frontend, service) in &outcome.frontends {
            let among = if *kind == Kind::NodePort { &mut self.node_ports } else { &mut self.others };
            // The first of a service is the strongest; no two services have one.
            if !among.contains_key(frontend) {
                among.insert(*frontend, Arc::clone(service));
            }
        }
        self.services.health_checks.extend(outcome.health_check.clone());
        self.services.probes.extend(outcome.probes.clone());
        let identities = &mut self.services.identities;
        identities.extend(outcome.cluster_ips.iter().map(|ip| (IpNet::from(*ip), IDENTITY_SERVICE)));
    }

    fn withdraw(&mut self, outcome: &Outcome) {
        for (kind, frontend, _) in &outcome.frontends {
            let among = if *kind == Kind::NodePort { &mut self.node_ports } else { &mut self.others };
            among.remove(frontend);
        }
        if let Some((port, _)) = &outcome.health_check {
            self.services.health_checks.remove(port);
        }
        for target in outcome.probes.keys() {
            self.services.probes.remove(target);
        }
        for address in outcome.cluster_ips.iter().copied().map(IpNet::from) {
            if self.config.service_cidrs.contains(&address) {
                self.services.identities.insert(address, IDENTITY_SERVICE_CIDR);
            } else {
                self.services.identities.remove(&address);
            }
        }
    }

    /// The numbers of ports that `before` knew and this does not know any more.
    pub(super) fn gone_since(&self, before: &Self) -> Vec<ServiceId> {
        let ids = |outcome: Option<&Arc<Outcome>>| -> BTreeSet<ServiceId> {
            outcome.iter().flat_map(|outcome| &outcome.frontends).map(|(.., service)| service.id).collect()
        };
        let changed = before.outcomes.differences_by(&self.outcomes, Arc::ptr_eq).into_iter();
        changed.flat_map(|found| &ids(found.before) - &ids(found.after)).collect()
    }
}

impl Outcome {
    fn new(
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        config: &Config,
        place: &Place<'_>,
        failing: &Failing<'_>,
        rings: &mut Rings,
        numbers: &mut Interner<ServicePortKey>,
    ) -> Self {
        let (mut frontends, mut probes) = (Vec::new(), BTreeMap::new());
        let families = service.cluster_ips.iter();
        for (&cluster_ip, port) in families.flat_map(|ip| service.ports.iter().map(move |port| (ip, port))) {
            let protocol = port.protocol;
            let ipv6 = cluster_ip.is_ipv6();
            probes.extend(probed(service, slices, port, ipv6, place));
            let key = ServicePortKey { service: service.name.clone(), port: port.port, protocol };
            let mut in_family = PortInFamily {
                config,
                service,
                id: numbers.number(key),
                place,
                usable: Usable::new(slices, port, ipv6, place, failing),
                rings: &mut *rings,
            };
            for (kind, address, port) in frontends::of(service, port, cluster_ip, place) {
                let frontend = Frontend { address, port, protocol: protocol.number() };
                frontends.push((kind, frontend, in_family.at(kind, address).into()));
            }
        }
        // Most services have one, and there are many of them.
        frontends.shrink_to_fit();
        let health_check = health_check(service, slices, place, failing);
        Self { frontends, health_check, probes, cluster_ips: service.cluster_ips.clone() }
    }
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

/// The health check of a load balancer's service, which only `externalTrafficPolicy: Local` has. Endpoints
/// are counted in the service's first family, so that one of two families is one.
fn health_check(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
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
    doors: &'a Doors,
}

/// Where services are asked, on any node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    fn new(cluster: &'a Cluster, name: &'a str, doors: &'a Doors) -> Self {
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
            zone: node.and_then(|node| node.zone()),
            node_port_addresses: node_port_addresses
                .into_iter()
                .filter(|address| !address.is_loopback())
                .collect(),
            primary_addresses,
            doors,
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
