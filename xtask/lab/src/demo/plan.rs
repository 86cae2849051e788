//! What is to be built: a pure function of the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Result, bail};
use ipnet::IpNet;
use weir::cluster::{Cluster, Name, Protocol};

/// The namespace in which the nodes' uplinks meet.
pub const UNDERLAY: &str = "weir-underlay";

/// The topology of a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nodes, by name.
    pub nodes: Vec<Node>,
    /// Pods that run, by name.
    pub pods: Vec<Pod>,
    /// What is left out, and why.
    pub notes: Vec<String>,
}

/// A node: a network namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its end in the underlay.
    pub port: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where its pods' addresses come from: its pod CIDRs, and addresses of its pods outside of them.
    pub pod_routes: Vec<IpNet>,
}

/// A pod: a network namespace with a veth to its node's.
#[derive(Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: Name,
    /// Number of its node in [`Plan::nodes`].
    pub node: usize,
    /// Its network namespace: that of its node for a pod of the host's network.
    pub netns: String,
    /// Its interface in the node's namespace; `None` for a pod of the host's network.
    pub interface: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What it listens on.
    pub ports: BTreeSet<(Protocol, u16)>,
}

impl Plan {
    /// Plans the topology of a cluster.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        let mut plan = Self::default();
        for (number, node) in cluster.nodes.values().enumerate() {
            if node.addresses.is_empty() {
                bail!(
                    "{}: Node {}: no status.addresses, so the demo cannot reach it",
                    node.source,
                    node.name
                );
            }
            plan.nodes.push(Node {
                netns: format!("weir-node-{}", node.name),
                port: format!("node{number}"),
                name: node.name.to_string(),
                addresses: primary(&node.addresses),
                pod_routes: node.pod_cidrs.clone(),
            });
        }
        if plan.nodes.is_empty() {
            bail!("the manifests have no Node, so there is nothing to run pods on");
        }
        let numbers: BTreeMap<&str, usize> =
            cluster.nodes.keys().enumerate().map(|(number, name)| (&**name, number)).collect();
        for pod in cluster.pods.values().filter(|pod| !pod.finished) {
            let Some(&node) = pod.node.as_deref().and_then(|name| numbers.get(name)) else {
                plan.notes.push(format!("{}: pod {} is on no node of the manifests", pod.source, pod.name));
                continue;
            };
            if pod.addresses.is_empty() && !pod.host_network {
                plan.notes.push(format!("{}: pod {} has no status.podIPs", pod.source, pod.name));
                continue;
            }
            plan.add_pod(pod, node);
        }
        Ok(plan)
    }

    /// Every network namespace, the underlay's first.
    pub fn namespaces(&self) -> Vec<&str> {
        let pods = self.pods.iter().filter(|pod| pod.interface.is_some()).map(|pod| pod.netns.as_str());
        [UNDERLAY].into_iter().chain(self.nodes.iter().map(|node| node.netns.as_str())).chain(pods).collect()
    }

    fn add_pod(&mut self, pod: &weir::cluster::Pod, number: usize) {
        let node = &mut self.nodes[number];
        let interface = (!pod.host_network).then(|| format!("weir{}", self.pods.len()));
        let netns = match interface {
            // The first dot is where the namespace ends: it has none in its name.
            Some(_) => format!("weir-pod-{}.{}", pod.name.namespace, pod.name.name),
            None => node.netns.clone(),
        };
        let addresses = if pod.host_network { node.addresses.clone() } else { pod.addresses.clone() };
        if interface.is_some() {
            for &address in &addresses {
                if !node.pod_routes.iter().any(|cidr| cidr.contains(&address)) {
                    node.pod_routes.push(address.into());
                }
            }
        }
        let listens = |port: &&weir::cluster::ContainerPort| port.protocol != Protocol::Sctp;
        if pod.ports.iter().any(|port| port.protocol == Protocol::Sctp) {
            self.notes.push(format!("{}: pod {}: its SCTP ports are not probed", pod.source, pod.name));
        }
        let ports = pod.ports.iter().filter(listens).map(|port| (port.protocol, port.port)).collect();
        self.pods.push(Pod { name: pod.name.clone(), node: number, netns, interface, addresses, ports });
    }
}

/// The first address of each family.
fn primary(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = |ipv6: bool| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
    [first(false), first(true)].into_iter().flatten().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use weir::{
        cluster::{self, ContainerPort, Labels},
        source::Source,
    };

    use super::*;

    fn source() -> Source {
        Source { file: "test.yaml".into(), line: 1, column: 1 }
    }

    fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> cluster::Node {
        cluster::Node {
            source: source(),
            name: name.into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        }
    }

    fn pod(name: &str, node: &str, addresses: &[&str]) -> cluster::Pod {
        let port = |port, protocol| ContainerPort { name: None, port, protocol };
        cluster::Pod {
            source: source(),
            name: Name { namespace: "test".into(), name: name.into() },
            labels: Labels::new(),
            annotations: Labels::new(),
            node: Some(node.to_owned()),
            host_network: false,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            finished: false,
            ready: true,
            ports: vec![port(8080, Protocol::Tcp), port(5353, Protocol::Udp)],
        }
    }

    /// Two nodes with two pods each, one of them outside of its node's CIDRs, and one with IPv4 alone.
    pub(crate) fn sample() -> Cluster {
        let nodes = [
            node("test-a", &["192.0.2.1", "192.0.2.9", "2001:db8::1"], &["10.1.0.0/24", "fd00:1::/64"]),
            node("test-b", &["192.0.2.2", "2001:db8::2"], &["10.2.0.0/24", "fd00:2::/64"]),
        ];
        let pods = [
            pod("one", "test-a", &["10.1.0.1", "fd00:1::1"]),
            pod("two", "test-a", &["10.1.0.2"]),
            pod("three", "test-b", &["10.2.0.1", "fd00:2::1"]),
            pod("four", "test-b", &["10.9.0.1", "fd00:9::1"]),
        ];
        Cluster {
            nodes: nodes.into_iter().map(|node| (node.name.clone(), node.into())).collect(),
            pods: pods.into_iter().map(|pod| (pod.name.clone(), pod.into())).collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn every_interface_and_namespace_has_a_name_of_its_own() {
        let plan = Plan::new(&sample()).unwrap();
        let names: BTreeSet<_> = plan.namespaces().into_iter().collect();
        assert_eq!(names.len(), 1 + 2 + 4);
        let interfaces: BTreeSet<_> = plan.pods.iter().filter_map(|pod| pod.interface.as_deref()).collect();
        assert_eq!(interfaces.len(), 4);
        assert!(interfaces.iter().all(|name| name.len() <= 15));
    }

    #[test]
    fn a_node_has_one_address_of_each_family_and_routes_to_all_its_pods() {
        let plan = Plan::new(&sample()).unwrap();
        assert_eq!(
            plan.nodes[0].addresses,
            ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        let routes = ["10.2.0.0/24", "fd00:2::/64", "10.9.0.1/32", "fd00:9::1/128"];
        assert_eq!(plan.nodes[1].pod_routes, routes.map(|cidr| cidr.parse::<IpNet>().unwrap()));
    }

    #[test]
    fn pods_that_are_nowhere_are_named_and_left_out() {
        let mut cluster = sample();
        for (name, change) in [("one", 0), ("two", 1), ("three", 2)] {
            let name = Name { namespace: "test".into(), name: name.into() };
            let pod = cluster.pods.get_mut(&name).unwrap();
            match change {
                0 => pod.node = Some("elsewhere".to_owned()),
                1 => pod.addresses.clear(),
                _ => pod.finished = true,
            }
        }
        let plan = Plan::new(&cluster).unwrap();
        assert_eq!(plan.pods.iter().map(|pod| &*pod.name.name).collect::<Vec<_>>(), ["four"]);
        assert_eq!(
            plan.notes,
            [
                "test.yaml:1:1: pod test/one is on no node of the manifests",
                "test.yaml:1:1: pod test/two has no status.podIPs",
            ]
        );
    }

    #[test]
    fn a_pod_of_the_hosts_network_lives_in_its_nodes_namespace() {
        let mut cluster = sample();
        cluster.pods.values_mut().for_each(|pod| pod.host_network = true);
        let plan = Plan::new(&cluster).unwrap();
        assert!(plan.pods.iter().all(|pod| pod.interface.is_none()));
        assert_eq!(plan.namespaces(), [UNDERLAY, "weir-node-test-a", "weir-node-test-b"]);
    }

    #[test]
    fn a_cluster_without_a_node_that_can_be_reached_is_refused() {
        assert!(Plan::new(&Cluster::default()).is_err());
        let mut cluster = sample();
        cluster.nodes.get_mut("test-b").unwrap().addresses.clear();
        let error = Plan::new(&cluster).unwrap_err().to_string();
        assert!(error.starts_with("test.yaml:1:1: Node test-b: no status.addresses"), "{error}");
    }
}
