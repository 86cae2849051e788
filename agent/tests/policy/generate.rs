//! Random clusters, dense enough that rules meet: few labels, nested blocks, few ports.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};
use weir::{cluster::*, source::Source};

/// Ports that mean something to some policy or pod, and their neighbours.
pub(crate) const PORTS: [u16; 9] = [1, 52, 53, 79, 80, 81, 82, 8080, 65535];

/// Addresses outside of the cluster.
pub(crate) const OUTSIDE: [&str; 4] = ["203.0.113.7", "203.0.113.200", "198.51.100.1", "2001:db8::9"];

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 4] = ["a", "b", "c", "d"];
const BLOCKS: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.244.0.0/16",
    "10.244.1.0/24",
    "10.244.1.0/28",
    "10.244.2.16/30",
    "10.244.2.17/32",
    "192.168.50.0/24",
    "192.168.50.12/32",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "203.0.113.200/32",
    "::/0",
    "fd00:10:244::/48",
    "fd00:10:244:1::/64",
    "2001:db8::/32",
];

/// A place of its own for each thing.
fn source(line: usize) -> Source {
    Source { file: Arc::from("cluster.yaml"), line: line as u32, column: 1 }
}

/// A cluster of two nodes and twelve pods, some of which are not on the network.
pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let namespaces = vec(labels(), NAMESPACES.len());
    let pods = vec(pod(), NAMESPACES.len() * PODS.len());
    let policies = vec(policy(), 0..6);
    let cluster_policies = vec(cluster_policy(), 0..5);
    (namespaces, pods, policies, cluster_policies).prop_map(
        |(namespaces, pods, policies, cluster_policies)| {
            let mut cluster = Cluster::default();
            for (index, (name, role)) in [("n1", "edge"), ("n2", "core")].into_iter().enumerate() {
                let addresses = [format!("192.168.50.{}", 11 + index), format!("fd00:50::{}", 11 + index)];
                let node = Node {
                    source: source(1),
                    name: name.into(),
                    labels: [("role".to_owned(), role.to_owned())].into(),
                    annotations: Default::default(),
                    addresses: addresses.map(|address| address.parse().unwrap()).to_vec(),
                    pod_cidrs: Vec::new(),
                };
                cluster.nodes.insert(Arc::from(name), node);
            }
            for (name, mut labels) in NAMESPACES.into_iter().zip(namespaces) {
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
                let namespace = Namespace { source: None, name: name.into(), labels };
                cluster.namespaces.insert(Arc::from(name), namespace);
            }
            for (index, mut pod) in pods.into_iter().enumerate() {
                let (namespace, number) = (index / PODS.len(), index % PODS.len());
                pod.name = Name { namespace: NAMESPACES[namespace].into(), name: PODS[number].into() };
                let node = 1 + index % 2;
                pod.node = Some(format!("n{node}"));
                let host = 10 + index;
                let own = [format!("10.244.{node}.{host}"), format!("fd00:10:244:{node}::{host}")];
                pod.addresses = own.map(|address| address.parse().unwrap()).to_vec();
                if pod.host_network {
                    pod.addresses = cluster.nodes[&*format!("n{node}")].addresses.clone();
                }
                cluster.pods.insert(pod.name.clone(), pod);
            }
            for (index, mut policy) in policies.into_iter().enumerate() {
                policy.name.name = format!("p{index}").into();
                policy.source = source(100 * (index + 1));
                cluster.policies.insert(policy.name.clone(), policy);
            }
            for (index, mut policy) in cluster_policies.into_iter().enumerate() {
                policy.name = format!("c{index}").into();
                policy.source = source(10_000 * (index + 1));
                cluster.cluster_policies.insert(policy.name.clone(), policy);
            }
            cluster
        },
    )
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(key(), value(), 0..3)
}

fn key() -> impl Strategy<Value = String> {
    select(&["app", "tier"][..]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    select(&["one", "two"][..]).prop_map(str::to_owned)
}

fn pod() -> impl Strategy<Value = Pod> {
    let odd = prop_oneof![10 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))];
    (labels(), vec(container_port(), 0..3), odd).prop_map(|(labels, ports, (host_network, finished))| Pod {
        source: source(2),
        name: Name { namespace: "".into(), name: "".into() },
        labels,
        annotations: Default::default(),
        node: None,
        host_network,
        addresses: Vec::new(),
        finished,
        ready: true,
        ports,
    })
}

fn container_port() -> impl Strategy<Value = ContainerPort> {
    let name = option::of(select(&["web", "dns"][..]).prop_map(str::to_owned));
    (name, select(&[53, 80, 81][..]), protocol()).prop_map(|(name, port, protocol)| ContainerPort {
        name,
        port,
        protocol,
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&Protocol::ALL[..])
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = || btree_set(value(), 1..3);
    let operator = prop_oneof![
        4 => values().prop_map(Operator::In),
        2 => values().prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    let requirement = (key(), operator).prop_map(|(key, operator)| Requirement { key, operator });
    btree_set(requirement, 0..3).prop_map(|requirements| Selector { requirements })
}

fn pod_set() -> impl Strategy<Value = PodSet> {
    (selector(), option::of(selector())).prop_map(|(namespaces, pods)| PodSet { namespaces, pods })
}

fn block() -> impl Strategy<Value = IpNet> {
    select(&BLOCKS[..]).prop_map(|block| block.parse().unwrap())
}

fn peer() -> impl Strategy<Value = PeerKind> {
    let pods = (option::of(selector()), option::of(selector()))
        .prop_map(|(namespaces, pods)| PeerKind::Pods { namespaces, pods });
    let block = block().prop_flat_map(|cidr| {
        let blocks = BLOCKS.iter().map(|block| block.parse().unwrap());
        let inside: Vec<IpNet> = blocks.filter(|block| *block != cidr && cidr.contains(block)).collect();
        let most = inside.len().min(3);
        subsequence(inside, 0..=most).prop_map(move |except| PeerKind::Block { cidr, except })
    });
    prop_oneof![pods, block]
}

fn port(protocol: impl Strategy<Value = Option<Protocol>>) -> impl Strategy<Value = PolicyPort> {
    let number = select(&PORTS[..]);
    let ports = prop_oneof![
        1 => Just(PortMatch::All),
        3 => (number.clone(), number).prop_map(|(one, other)| PortMatch::Range(one.min(other), one.max(other))),
        2 => select(&["web", "dns", "none"][..]).prop_map(|name| PortMatch::Named(name.to_owned())),
    ];
    (protocol, ports).prop_map(|(protocol, ports)| PolicyPort { source: source(3), protocol, ports })
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let peers = vec(peer().prop_map(|kind| PolicyPeer { source: source(4), kind }), 1..3);
    let ports = vec(port(protocol().prop_map(Some)), 1..4);
    let rule = (option::of(peers), option::of(ports)).prop_map(|(peers, ports)| PolicyRule {
        source: source(5),
        peers,
        ports,
    });
    vec(rule, 0..3)
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let types = select(&[(true, false), (false, true), (true, true)][..]);
    (select(&NAMESPACES[..]), selector(), types, rules(), rules()).prop_map(
        |(namespace, pod_selector, (isolates_ingress, isolates_egress), ingress, egress)| NetworkPolicy {
            source: source(6),
            name: Name { namespace: namespace.into(), name: "".into() },
            pod_selector,
            isolates_ingress,
            isolates_egress,
            ingress,
            egress,
        },
    )
}

fn cluster_rules(egress: bool) -> impl Strategy<Value = Vec<ClusterRule>> {
    let pods = pod_set().prop_map(ClusterPeerKind::Pods);
    let role = select(&["edge", "core"][..]).prop_map(|role| Selector {
        requirements: BTreeSet::from([Requirement {
            key: "role".to_owned(),
            operator: Operator::In([role.to_owned()].into()),
        }]),
    });
    let nodes = prop_oneof![role, Just(Selector::default())].prop_map(ClusterPeerKind::Nodes);
    let networks = vec(block(), 1..3).prop_map(ClusterPeerKind::Networks);
    let outward = if egress { 3 } else { 0 };
    let peer = prop_oneof![
        8 => pods,
        1 => Just(ClusterPeerKind::Unknown),
        outward => nodes,
        outward => networks,
    ];
    let peers = vec(peer.prop_map(|kind| ClusterPeer { source: source(7), kind }), 1..3);
    let ports = vec(port(option::weighted(0.7, protocol())), 1..3);
    let action = select(&[Action::Accept, Action::Deny, Action::Pass][..]);
    let rule = (action, peers, option::of(ports)).prop_map(|(action, peers, ports)| ClusterRule {
        source: source(8),
        name: None,
        action,
        peers,
        ports,
    });
    vec(rule, 0..4)
}

fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let tier = select(&[Tier::Admin, Tier::Baseline][..]);
    (tier, 0..4_u16, pod_set(), cluster_rules(false), cluster_rules(true)).prop_map(
        |(tier, priority, subject, ingress, egress)| ClusterNetworkPolicy {
            source: source(9),
            name: "".into(),
            tier,
            priority,
            subject,
            ingress,
            egress,
        },
    )
}

/// Every address that can open a connection or be opened one to.
pub(crate) fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    let pods = cluster.pods.values().flat_map(|pod| pod.addresses.iter().copied());
    let nodes = cluster.nodes.values().flat_map(|node| node.addresses.iter().copied());
    let outside = OUTSIDE.iter().map(|address| address.parse().unwrap());
    pods.chain(nodes).chain(outside).collect::<BTreeSet<_>>().into_iter().collect()
}
