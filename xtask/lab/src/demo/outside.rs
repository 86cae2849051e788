//! The outside of a cluster: a client behind the underlay's router, which spreads what goes to services over the
//! nodes as a router does that learns a service's address from several of them (ECMP).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{
    netns, network,
    plan::{Node, UNDERLAY},
};

/// The client's namespace.
pub const OUTSIDE: &str = "weir-outside";

/// The client's addresses.
pub const CLIENT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9))];

/// The router chooses by addresses and ports, so that the connections of one client take different ways.
const BY_PORTS: [(&str, &str); 2] =
    [("ipv4/fib_multipath_hash_policy", "1"), ("ipv6/fib_multipath_hash_policy", "1")];

/// Joins the client to the underlay of a network that is built.
pub fn build() -> Result<()> {
    netns::ip(None, &[format!("netns add {OUTSIDE}")])?;
    netns::sysctl(UNDERLAY, &BY_PORTS)?;
    let router = [
        format!("link add name outside type veth peer name eth0 netns {OUTSIDE}"),
        "link set outside up".to_owned(),
        "address add 203.0.113.1/24 dev outside".to_owned(),
        "address add 2001:db8::1/64 dev outside nodad".to_owned(),
    ];
    netns::ip(Some(UNDERLAY), &router)?;
    let client = [
        "link set lo up",
        "link set eth0 up",
        "address add 203.0.113.9/24 dev eth0",
        "address add 2001:db8::9/64 dev eth0 nodad",
        "route add default via 203.0.113.1",
        "route add default via 2001:db8::1",
    ];
    netns::ip(Some(OUTSIDE), &client.map(str::to_owned))?;
    network::offload(OUTSIDE, "eth0", "tx", false)
}

/// Gives the router a way to these addresses by every one of the nodes, all of equal cost.
pub fn route(addresses: &[IpAddr], nodes: &[Node]) -> Result<()> {
    let way = |address: &IpAddr| {
        let gateways = nodes.iter().flat_map(|node| &node.addresses);
        let hops: String = gateways
            .filter(|gateway| gateway.is_ipv6() == address.is_ipv6())
            .map(|gateway| format!(" nexthop via {gateway} dev br0 onlink"))
            .collect();
        (!hops.is_empty()).then(|| format!("route replace {address}{hops}"))
    };
    netns::ip(Some(UNDERLAY), &addresses.iter().filter_map(way).collect::<Vec<_>>())
}
