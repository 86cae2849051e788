//! From single objects to a cluster in which they do not contradict each other.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr};

use ipnet::IpNet;

use super::{Cluster, NAMESPACE_NAME_LABEL, Namespace, Node, Pod, Protocol, Service};
use crate::manifest::{Diagnostics, Object, Value};

pub(super) fn cluster<'o>(
    objects: impl Iterator<Item = &'o Object> + Clone,
    skipped: BTreeMap<String, usize>,
) -> Result<Cluster, Diagnostics> {
    let cluster = collect(objects.clone(), skipped);
    // Whoever comes later in the files is in the wrong.
    let mut objects: Vec<_> = objects.collect();
    objects.sort_by_key(|object| (object.key.kind, &object.text.source));
    let mut check = Check { cluster: &cluster, claims: BTreeMap::new(), found: Diagnostics::default() };
    for object in objects {
        check.object(object);
    }
    let mut found = check.found;
    if found.is_empty() {
        return Ok(cluster);
    }
    found.sort();
    Err(found)
}

fn collect<'o>(objects: impl Iterator<Item = &'o Object>, skipped: BTreeMap<String, usize>) -> Cluster {
    let mut cluster = Cluster { skipped, ..Cluster::default() };
    for object in objects {
        if object.key.kind.is_namespaced() {
            let name = &object.key.name.namespace;
            if !cluster.namespaces.contains_key(name) {
                cluster.namespaces.insert(name.clone(), implicit(name));
            }
        }
        let name = object.key.name.clone();
        match object.value.clone() {
            Value::Config(config) => cluster.config = config,
            Value::Node(node) => drop(cluster.nodes.insert(name.name, node)),
            Value::Namespace(namespace) => drop(cluster.namespaces.insert(name.name, namespace)),
            Value::Pod(pod) => drop(cluster.pods.insert(name, pod)),
            Value::Service(service) => drop(cluster.services.insert(name, service)),
            Value::EndpointSlice(slice) => drop(cluster.slices.insert(name, slice)),
            Value::NetworkPolicy(policy) => drop(cluster.policies.insert(name, policy)),
            Value::ClusterNetworkPolicy(policy) => drop(cluster.cluster_policies.insert(name.name, policy)),
        }
    }
    cluster
}

/// A namespace that is only mentioned.
fn implicit(name: &str) -> Namespace {
    let labels = BTreeMap::from([(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned())]);
    Namespace { source: None, name: name.to_owned(), labels }
}

/// What only one object may have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// There is one WeirConfiguration.
    Configuration,
    /// An address of a node or of a pod.
    Host(IpAddr),
    /// A ClusterIP.
    ClusterIp(IpAddr),
    /// What a service answers on.
    Frontend(IpAddr, Protocol, u16),
    /// A port of every node.
    NodePort(Protocol, u16),
}

struct Check<'c> {
    cluster: &'c Cluster,
    claims: BTreeMap<Claim, &'c Object>,
    found: Diagnostics,
}

impl<'c> Check<'c> {
    fn object(&mut self, object: &'c Object) {
        match &object.value {
            Value::Config(_) => {
                self.claim(object, Claim::Configuration, |_, _| false);
            }
            Value::Node(node) => self.node(object, node),
            Value::Pod(pod) => self.pod(object, pod),
            Value::Service(service) => self.service(object, service),
            Value::Namespace(_)
            | Value::EndpointSlice(_)
            | Value::NetworkPolicy(_)
            | Value::ClusterNetworkPolicy(_) => {}
        }
    }

    fn node(&mut self, object: &'c Object, node: &Node) {
        for address in &node.addresses {
            self.claim(object, Claim::Host(*address), is_address(*address));
        }
    }

    fn pod(&mut self, object: &'c Object, pod: &Pod) {
        if pod.is_networked() {
            for address in &pod.addresses {
                self.claim(object, Claim::Host(*address), is_address(*address));
            }
        }
    }

    fn service(&mut self, object: &'c Object, service: &Service) {
        let config = &self.cluster.config;
        let outside =
            |ranges: &[IpNet], address: &IpAddr| !ranges.iter().any(|range| range.contains(address));
        let mut addresses = Vec::new();
        for address in &service.cluster_ips {
            if !config.service_cidrs.is_empty() && outside(&config.service_cidrs, address) {
                self.error(
                    object,
                    is_address(*address),
                    format!("clusterIP {address} is not of the serviceCIDRs"),
                );
            }
            if self.claim(object, Claim::ClusterIp(*address), is_address(*address)) {
                addresses.push(*address);
            }
        }
        for address in service.external_ips.iter().chain(&service.load_balancer_ips) {
            if config.external_ranges.as_deref().is_some_and(|ranges| outside(ranges, address)) {
                self.error(
                    object,
                    is_address(*address),
                    format!("address {address} is not of the externalRanges"),
                );
            }
            addresses.push(*address);
        }
        // What another proxy serves takes nothing from us.
        if service.foreign {
            return;
        }
        for port in &service.ports {
            for address in &addresses {
                let frontend = Claim::Frontend(*address, port.protocol, port.port);
                self.claim(object, frontend, is_address(*address));
            }
            if let Some(node_port) = port.node_port {
                self.claim(
                    object,
                    Claim::NodePort(port.protocol, node_port),
                    is_number("nodePort", node_port),
                );
            }
        }
        if let Some(port) = service.health_check_port {
            let claim = Claim::NodePort(Protocol::Tcp, port);
            self.claim(object, claim, is_number("healthCheckNodePort", port));
        }
    }

    /// Notes that the object has it, or says that another one had it first: then it returns false.
    fn claim(&mut self, object: &'c Object, claim: Claim, is_it: impl Fn(&str, &str) -> bool) -> bool {
        let first = *self.claims.entry(claim).or_insert(object);
        if first.key == object.key {
            return true;
        }
        let message = match claim {
            Claim::Configuration => format!("there is already {} ({})", first.key, first.text.source),
            Claim::Host(address) => used(&format_args!("address {address}"), first),
            Claim::ClusterIp(address) => used(&format_args!("clusterIP {address}"), first),
            Claim::Frontend(address, protocol, port) => {
                used(&format_args!("address {address}, port {port}/{protocol}"), first)
            }
            Claim::NodePort(protocol, port) => used(&format_args!("node port {port}/{protocol}"), first),
        };
        self.error(object, is_it, message);
        false
    }

    fn error(&mut self, object: &Object, is_it: impl Fn(&str, &str) -> bool, message: impl Display) {
        self.found.push(object.text.error(is_it, &format!("{}: {message}", object.key)));
    }
}

fn used(what: &dyn Display, first: &Object) -> String {
    format!("{what} is already used by {} ({})", first.key, first.text.source)
}

/// Recognizes an address however it is written.
fn is_address(address: IpAddr) -> impl Fn(&str, &str) -> bool {
    move |_, text| text.parse() == Ok(address)
}

fn is_number(field: &'static str, number: u16) -> impl Fn(&str, &str) -> bool {
    move |name, text| name == field && text.parse() == Ok(number)
}
