//! Namespaces for the nodes, and one in which everything else ends: the pods' interfaces, the wire that joins the
//! nodes, and the world beyond it. No stack has an address there: whoever looks at it sees what was sent, and nobody
//! answers but the test.

use std::{net::IpAddr, process::Command};

use anyhow::{Context as _, Result, ensure};
use weir::cluster::{Cluster, Pod};

use crate::live::{netns, network};

/// Where everything ends.
pub(super) const ENDS: &str = "weir-ends";
/// The interface of the world.
pub(super) const WORLD: &str = "world";
/// Its MAC address, as the nodes' next hop.
pub(super) const WORLD_MAC: Mac = [2, 0, 0, 0, 2, 0];
/// The routers of the nodes.
const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1"];

const SILENT: [(&str, &str); 2] =
    [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

/// A MAC address.
pub(super) type Mac = [u8; 6];

/// What the nodes hang on.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<End>,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) netns: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Its place on the wire.
    pub(super) port: String,
    pub(super) mac: Mac,
}

/// The other end of a pod's interface.
#[derive(Debug)]
pub(super) struct End {
    node: usize,
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) mac: Mac,
    /// MAC address of the host-side interface.
    pub(super) next_hop: Mac,
}

impl Network {
    /// Builds the nodes of a cluster, without pods.
    pub(super) fn build(cluster: &Cluster) -> Result<Self> {
        let node = |(number, node): (usize, &std::sync::Arc<weir::cluster::Node>)| Node {
            name: node.name.to_string(),
            netns: format!("weir-node-{}", node.name),
            addresses: Vec::new(),
            port: format!("node{number}"),
            mac: [2, 0, 0, 0, 1, number as u8],
        };
        let nodes: Vec<_> = cluster.nodes.values().enumerate().map(node).collect();
        let names = nodes.iter().map(|node| node.netns.as_str()).chain([ENDS]);
        netns::ip(None, &names.map(|name| format!("netns add {name}")).collect::<Vec<_>>())?;
        netns::sysctl(ENDS, &SILENT)?;
        let mut wire = vec![
            "link add wire type bridge".to_owned(),
            "link set wire up".to_owned(),
            format!("link add {WORLD} address {} type veth peer name beyond", text(WORLD_MAC)),
            format!("link set {WORLD} up"),
            "link set beyond master wire up".to_owned(),
        ];
        for node in &nodes {
            let Node { port, mac, netns, .. } = node;
            netns::sysctl(netns, &network::ROUTER)?;
            wire.push(format!(
                "link add {port} type veth peer name uplink address {} netns {netns}",
                text(*mac)
            ));
            wire.push(format!("link set {port} master wire up"));
        }
        netns::ip(Some(ENDS), &wire)?;
        for node in &nodes {
            netns::ip(Some(&node.netns), &["link set lo up".to_owned(), "link set uplink up".to_owned()])?;
            // So that sockets of the node send whole packets: a veth would leave the checksum to the other end.
            network::offload(&node.netns, "uplink", "tx", false)?;
            learned(&node.port, node.mac)?;
        }
        learned("beyond", WORLD_MAC)?;
        let mut network = Self { nodes, pods: Vec::new() };
        for node in cluster.nodes.values() {
            let number = network.number(&node.name)?;
            node.pod_cidrs.iter().try_for_each(|cidr| {
                let via = node.addresses.iter().find(|address| address.is_ipv6() == cidr.addr().is_ipv6());
                let via = via.with_context(|| format!("{} has no address like {cidr}", node.name))?;
                network.route_elsewhere(number, &format!("route replace {cidr} via {via} dev uplink onlink"))
            })?;
        }
        network.arrange(cluster)?;
        Ok(network)
    }

    /// Gives nodes the addresses that they have in a cluster, and makes ends for its pods.
    pub(super) fn arrange(&mut self, cluster: &Cluster) -> Result<()> {
        for node in cluster.nodes.values() {
            let number = self.number(&node.name)?;
            for address in &node.addresses {
                if !self.nodes[number].addresses.contains(address) {
                    self.add_node_address(number, *address)?;
                }
            }
        }
        cluster.pods.values().filter(|pod| pod.is_networked()).try_for_each(|pod| self.add_pod(pod))
    }

    /// The node of this name.
    pub(super) fn node(&self, name: &str) -> Result<&Node> {
        Ok(&self.nodes[self.number(name)?])
    }

    /// The end of the pod on this node that has an address.
    pub(super) fn pod(&self, node: &str, address: IpAddr) -> Option<&End> {
        let is_there = |end: &&End| self.nodes[end.node].name == node;
        self.pods.iter().filter(is_there).find(|end| end.addresses.contains(&address))
    }

    fn number(&self, name: &str) -> Result<usize> {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.with_context(|| format!("the run began without a node {name}"))
    }

    fn add_node_address(&mut self, number: usize, address: IpAddr) -> Result<()> {
        let node = &mut self.nodes[number];
        let is_first = !node.addresses.iter().any(|other| other.is_ipv6() == address.is_ipv6());
        node.addresses.push(address);
        let mut lines = vec![format!("address add {} dev uplink", alone(address))];
        if is_first {
            let gateway = GATEWAYS[usize::from(address.is_ipv6())];
            let world = text(WORLD_MAC);
            lines.push(format!("neigh replace {gateway} lladdr {world} dev uplink nud permanent"));
            lines.push(format!("route replace default via {gateway} dev uplink onlink src {address}"));
        }
        netns::ip(Some(&node.netns), &lines)?;
        let mac = text(node.mac);
        self.route_elsewhere(
            number,
            &format!("neigh replace {address} lladdr {mac} dev uplink nud permanent"),
        )?;
        self.route_elsewhere(number, &format!("route replace {address} dev uplink"))
    }

    /// The same line for all nodes but one.
    fn route_elsewhere(&self, number: usize, line: &str) -> Result<()> {
        let mut others = self.nodes.iter().enumerate().filter(|(other, _)| *other != number);
        others.try_for_each(|(_, node)| netns::ip(Some(&node.netns), &[line.to_owned()]))
    }

    fn add_pod(&mut self, pod: &Pod) -> Result<()> {
        let Some(name) = &pod.node else { return Ok(()) };
        let node = self.number(name)?;
        let known = self.pods.iter().position(|end| {
            end.node == node && end.addresses.iter().any(|address| pod.addresses.contains(address))
        });
        let number = match known {
            Some(number) => number,
            None => self.add_end(node)?,
        };
        let interface = format!("pod{number}");
        let end = &mut self.pods[number];
        let new: Vec<_> = pod.addresses.iter().filter(|address| !end.addresses.contains(address)).collect();
        let mac = text(end.mac);
        let lines = new.iter().flat_map(|address| {
            [
                format!("neigh replace {address} lladdr {mac} dev {interface} nud permanent"),
                format!("route replace {address} dev {interface} scope link"),
            ]
        });
        netns::ip(Some(&self.nodes[node].netns), &lines.collect::<Vec<_>>())?;
        end.addresses.extend(new);
        Ok(())
    }

    fn add_end(&mut self, node: usize) -> Result<usize> {
        let number = self.pods.len();
        ensure!(number < 256, "too many pods");
        let end = End {
            node,
            name: format!("end{number}"),
            addresses: Vec::new(),
            mac: [2, 0, 0, 0, 3, number as u8],
            next_hop: [2, 0, 0, 0, 4, number as u8],
        };
        let netns = &self.nodes[node].netns;
        let link = format!(
            "link add pod{number} address {} type veth peer name {} address {} netns {ENDS}",
            text(end.next_hop),
            end.name,
            text(end.mac)
        );
        netns::ip(Some(netns), &[link])?;
        network::offload(netns, &format!("pod{number}"), "tx", false)?;
        netns::ip(Some(ENDS), &[format!("link set {} up", end.name)])?;
        netns::ip(Some(netns), &[format!("link set pod{number} up")])?;
        self.pods.push(end);
        Ok(number)
    }
}

/// Tells the wire where a MAC address is, so that no frame goes astray.
fn learned(port: &str, mac: Mac) -> Result<()> {
    let arguments = format!("fdb replace {} dev {port} master static", text(mac));
    netns::within(ENDS, || {
        let output = Command::new("bridge").args(arguments.split(' ')).output().context("bridge")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bridge {arguments}: {error}");
        Ok(())
    })
}

fn alone(address: IpAddr) -> String {
    if address.is_ipv6() { format!("{address}/128 nodad") } else { format!("{address}/32") }
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
