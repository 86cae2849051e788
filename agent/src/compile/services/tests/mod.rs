//! Tests of compiled services by what the datapath's own model answers for packets.

mod addresses;
mod changes;
mod flows;
mod health;
mod kube_proxy;
mod semantics;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    cluster::{
        Cluster, Endpoint, EndpointPort, EndpointSlice, Hints, Name, Node, Pod, Protocol, Service,
        ServiceKind, ServicePort,
    },
    compile::{Numbers, services},
    datapath::{
        self, Datapath, Frontend,
        services::{Packet, Verdict},
    },
    source::Source,
};

const CLUSTER_IP: &str = "10.96.0.10";
const LOAD_BALANCER: &str = "203.0.113.10";
const EXTERNAL: &str = "203.0.113.129";
const POD: &str = "10.64.1.200";
const OUTSIDE: &str = "198.51.100.7";
const NODE: &str = "192.0.2.11";
const NODE_PORT: u16 = 30080;
const LOCAL: &str = "10.64.1.10";
const REMOTE: &str = "10.64.2.10";
const BOTH: &str = "10.64.1.10:8080 10.64.2.10:8080";
const BOTH_MASQUERADED: &str = "10.64.1.10:8080* 10.64.2.10:8080*";

fn source() -> Source {
    Source { file: Arc::from("test.yaml"), line: 1, column: 1 }
}

fn name(name: &str) -> Name {
    Name { namespace: "default".into(), name: name.into() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Nodes `node-1` in zone `east` and `node-2` in zone `west`, and a service `web` with every kind of address.
fn cluster(endpoints: Vec<Endpoint>) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.config.pod_cidrs = vec!["10.64.0.0/16".parse().unwrap(), "fd64::/48".parse().unwrap()];
    cluster.config.service_cidrs = vec!["10.96.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()];
    for (number, zone) in [(1, "east"), (2, "west")] {
        let node = Node {
            source: source(),
            name: format!("node-{number}").into(),
            labels: BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())]),
            annotations: BTreeMap::new(),
            addresses: vec![ip(&format!("192.0.2.1{number}")), ip(&format!("2001:db8::{number}"))],
            pod_cidrs: Vec::new(),
        };
        cluster.nodes.insert(node.name.clone(), node);
    }
    cluster.services.insert(name("web"), service());
    cluster.slices.insert(name("web-1"), slice("web-1", endpoints));
    cluster
}

fn service() -> Service {
    Service {
        source: source(),
        name: name("web"),
        annotations: BTreeMap::new(),
        kind: ServiceKind::LoadBalancer,
        cluster_ips: vec![ip(CLUSTER_IP)],
        external_ips: vec![ip(EXTERNAL)],
        load_balancer_ips: vec![ip(LOAD_BALANCER)],
        source_ranges: Vec::new(),
        external_local: false,
        internal_local: false,
        affinity: None,
        forwarding: None,
        publish_not_ready: false,
        health_check_port: Some(32000),
        probe: None,
        selector: None,
        ports: vec![ServicePort {
            source: source(),
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(NODE_PORT),
        }],
        foreign: false,
    }
}

/// A service with an endpoint on each node.
fn spread() -> Cluster {
    cluster(vec![endpoint(LOCAL, "node-1"), endpoint(REMOTE, "node-2")])
}

fn web(cluster: &mut Cluster) -> &mut Service {
    cluster.services.get_mut(&name("web")).unwrap()
}

fn pod(pod: &str, address: &str) -> Pod {
    Pod {
        source: source(),
        name: name(pod),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        node: Some("node-1".to_owned()),
        host_network: false,
        addresses: vec![ip(address)],
        finished: false,
        ready: true,
        ports: Vec::new(),
    }
}

fn slice(slice: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        source: source(),
        name: name(slice),
        service: Some("web".into()),
        ipv6: endpoints.iter().any(|endpoint| endpoint.address.is_ipv6()),
        ports: vec![EndpointPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: Some(8080) }],
        endpoints,
    }
}

/// A ready endpoint on a node.
fn endpoint(address: &str, node: &str) -> Endpoint {
    Endpoint {
        address: ip(address),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.into()),
        zone: None,
        hints: None,
        weight: Endpoint::USUAL_WEIGHT,
    }
}

/// A terminating endpoint that still serves.
fn draining(address: &str, node: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..endpoint(address, node) }
}

/// An endpoint that does not serve.
fn dead(address: &str, node: &str) -> Endpoint {
    Endpoint { ready: false, serving: false, ..endpoint(address, node) }
}

fn compile(cluster: &Cluster, node: &str) -> Datapath {
    crate::compile::compile(cluster, node, &mut Numbers::default()).unwrap()
}

fn packet(from: &str, to: &str, port: u16) -> Packet {
    Packet { from: ip(from), sport: 40000, to: Frontend { address: ip(to), port, protocol: 6 } }
}

/// What becomes of a packet, in a line: the backends, a star at those with masquerade, or the verdict.
fn describe(datapath: &Datapath, packet: &Packet) -> String {
    match datapath.serve(packet) {
        Verdict::Dnat(choice) => {
            let star = |backend| if choice.masquerades(backend) { "*" } else { "" };
            let backends = choice.ring.backends().iter();
            backends
                .map(|backend| format!("{}:{}{}", backend.address, backend.port, star(*backend)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Verdict::Reject => "reject".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Pass => "pass".to_owned(),
    }
}

/// The same for a packet that `node-1` handles.
fn ask(cluster: &Cluster, from: &str, to: &str, port: u16) -> String {
    describe(&compile(cluster, "node-1"), &packet(from, to, port))
}
