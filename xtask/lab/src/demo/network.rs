//! Builds the network of a [`Plan`]: namespaces, the underlay, uplinks, the pods' interfaces.
//!
//! Addresses stand alone (/32 and /128) everywhere, as on a cloud network, and every hop is routed:
//! pods to their node by a link-scope gateway that is the same for all, nodes to one another's pods by their
//! node addresses, everything else to the underlay's router.

use std::{net::IpAddr, process::Command};

use anyhow::Result;

use super::{
    netns,
    plan::{Node, Plan, Pod, UNDERLAY},
};
use xtask::shell;

/// A pod's way to its node, per family: the same on all of them.
const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1"];

/// The router of the nodes. None of their own addresses: they would answer none of its ARP requests.
const ROUTERS: [&str; 2] = ["169.254.2.1", "fe80::2"];

/// Settings of a namespace that forwards. Addresses are unique by plan: none waits for duplicate detection.
pub const ROUTER: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// For pods: no addresses but those of the plan (mode 1 makes no link-local one), so that they resolve
/// neighbours as themselves; and no router advertisements.
const POD: [(&str, &str); 3] = [
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// Builds everything but the pods' way to the world: their interfaces stay down until they are enforced.
pub fn build(plan: &Plan) -> Result<()> {
    let names = plan.namespaces();
    netns::ip(None, &names.iter().map(|name| format!("netns add {name}")).collect::<Vec<_>>())?;
    netns::sysctl(UNDERLAY, &ROUTER)?;
    netns::ip(Some(UNDERLAY), &underlay(plan))?;
    for (number, node) in plan.nodes.iter().enumerate() {
        netns::sysctl(&node.netns, &ROUTER)?;
        netns::ip(Some(UNDERLAY), &uplink(node))?;
        netns::ip(Some(&node.netns), &node_side(plan, number))?;
        // A veth hands packets over with the checksum still to be filled in. XDP programs on the other side
        // cannot see that, and would update a checksum that is not there: so it is filled in on sending.
        offload(&node.netns, "uplink", "tx", false)?;
        offload(UNDERLAY, &node.port, "tx", false)?;
    }
    netns::ip(Some(UNDERLAY), &underlay_routes(plan))?;
    for pod in &plan.pods {
        build_pod(&plan.nodes[pod.node], pod)?;
    }
    Ok(())
}

/// Joins a pod's namespace to its node's: the node's end of the veth stays down.
pub fn build_pod(node: &Node, pod: &Pod) -> Result<()> {
    let Some(interface) = &pod.interface else { return Ok(()) };
    netns::sysctl(&pod.netns, &POD)?;
    netns::ip(Some(&node.netns), &host_side(interface, pod))?;
    netns::ip(Some(&pod.netns), &pod_side(pod))
}

/// Brings a pod's interface up by hand, as the agent does once it enforces the pod.
pub fn bring_up(plan: &Plan, pod: &Pod) -> Result<()> {
    match &pod.interface {
        Some(interface) => {
            netns::ip(Some(&plan.nodes[pod.node].netns), &[format!("link set {interface} up")])
        }
        None => Ok(()),
    }
}

/// Routes a pod's addresses to its interface, which must be up for that.
pub fn route_to(plan: &Plan, pod: &Pod) -> Result<()> {
    let Some(interface) = &pod.interface else { return Ok(()) };
    let route = |address: &IpAddr| format!("route replace {address} dev {interface} scope link");
    netns::ip(Some(&plan.nodes[pod.node].netns), &pod.addresses.iter().map(route).collect::<Vec<_>>())
}

/// Whether the kernel leaves a piece of work to a device: to fill in transport checksums (`tx`), to cut up long
/// packets (`tso`), and what else ethtool(8) knows.
pub fn offload(netns: &str, device: &str, feature: &str, is_on: bool) -> Result<()> {
    let value = if is_on { "on" } else { "off" };
    netns::within(netns, || {
        shell::output(Command::new("ethtool").args(["-K", device, feature, value])).map(drop)
    })
}

fn underlay(plan: &Plan) -> Vec<String> {
    let mut lines = lines(&["link set lo up", "link add br0 type bridge", "link set br0 up"]);
    for ipv6 in families(plan.nodes.iter().flat_map(|node| &node.addresses)) {
        lines.push(format!("address add {} dev br0", link_scope(&ROUTERS, ipv6)));
    }
    lines
}

fn uplink(node: &Node) -> Vec<String> {
    let Node { port, netns, .. } = node;
    vec![
        format!("link add name {port} type veth peer name uplink netns {netns}"),
        format!("link set {port} master br0 up"),
    ]
}

fn node_side(plan: &Plan, number: usize) -> Vec<String> {
    let node = &plan.nodes[number];
    let mut lines = lines(&["link set lo up", "link set uplink up"]);
    for address in &node.addresses {
        lines.push(format!("address add {} dev uplink", alone(*address)));
        let router = ROUTERS[usize::from(address.is_ipv6())];
        if address.is_ipv4() {
            lines.push(format!("route add {router} dev uplink scope link src {address}"));
        }
        // Services' addresses go this way too: the programs on the uplink translate them first.
        lines.push(format!("route add default via {router} dev uplink src {address}"));
    }
    for other in plan.nodes.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, node)| node) {
        for address in &other.addresses {
            lines.push(format!("route add {address} dev uplink"));
        }
        lines.extend(pod_routes(other, "uplink"));
    }
    lines
}

fn underlay_routes(plan: &Plan) -> Vec<String> {
    let to_node = |node: &Node| {
        let own = node.addresses.iter().map(|address| format!("route add {address} dev br0"));
        own.chain(pod_routes(node, "br0")).collect::<Vec<_>>()
    };
    plan.nodes.iter().flat_map(to_node).collect()
}

fn pod_routes(node: &Node, device: &str) -> Vec<String> {
    let via = |cidr: &ipnet::IpNet| {
        let ipv6 = cidr.addr().is_ipv6();
        let node_address = node.addresses.iter().find(|address| address.is_ipv6() == ipv6)?;
        Some(format!("route add {cidr} via {node_address} dev {device} onlink"))
    };
    node.pod_routes.iter().filter_map(via).collect()
}

fn host_side(interface: &str, pod: &Pod) -> Vec<String> {
    let mut lines = vec![format!("link add name {interface} type veth peer name eth0 netns {}", pod.netns)];
    for ipv6 in families(&pod.addresses) {
        lines.push(format!("address add {} dev {interface}", link_scope(&GATEWAYS, ipv6)));
    }
    lines
}

fn pod_side(pod: &Pod) -> Vec<String> {
    let mut lines = lines(&["link set lo up", "link set eth0 up"]);
    for address in &pod.addresses {
        lines.push(format!("address add {} dev eth0", alone(*address)));
    }
    for ipv6 in families(&pod.addresses) {
        let gateway = GATEWAYS[usize::from(ipv6)];
        if !ipv6 {
            lines.push(format!("route add {gateway} dev eth0 scope link"));
        }
        lines.push(format!("route add default via {gateway} dev eth0"));
    }
    lines
}

/// Which families occur: false for IPv4, true for IPv6.
fn families<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> std::collections::BTreeSet<bool> {
    addresses.into_iter().map(IpAddr::is_ipv6).collect()
}

fn link_scope(per_family: &[&str; 2], ipv6: bool) -> String {
    if ipv6 { format!("{}/64 nodad", per_family[1]) } else { format!("{}/32", per_family[0]) }
}

fn alone(address: IpAddr) -> String {
    if address.is_ipv6() { format!("{address}/128 nodad") } else { format!("{address}/32") }
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}
