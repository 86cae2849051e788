//! v1 Node: its addresses and the ranges of its pods.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Meta, UNLIMITED, refuse_duplicates};
use crate::{
    cluster::Node,
    manifest::{address, fields::Fields, node},
};

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> Node {
    let pod_cidrs = object.get("spec").map(|spec| pod_cidrs(&spec.some_fields())).unwrap_or_default();
    let addresses = object.get("status").map(|status| addresses(&status.some_fields())).unwrap_or_default();
    Node {
        source: meta.source,
        name: meta.name.name,
        labels: meta.labels,
        annotations: meta.annotations,
        addresses,
        pod_cidrs,
    }
}

fn pod_cidrs(spec: &Fields<'_>) -> Vec<IpNet> {
    let list = spec.list("podCIDRs", 2);
    let blocks: Vec<_> = list.iter().filter_map(|node| Some((*node, node.parsed(address::block)?))).collect();
    refuse_duplicates(
        blocks.iter().map(|(node, block)| (*node, address::family(block.addr()))),
        "address family",
    );
    let single = spec.nonempty("podCIDR").and_then(|node| Some((node, node.parsed(address::block)?)));
    match (single, blocks.first()) {
        (Some((_, block)), None) => return vec![block],
        (Some((node, block)), Some((_, first))) if block != *first => {
            node.error("differs from the first of podCIDRs");
        }
        _ => {}
    }
    blocks.into_iter().map(|(_, block)| block).collect()
}

/// Internal addresses before external ones.
fn addresses(status: &Fields<'_>) -> Vec<IpAddr> {
    let mut internal = Vec::new();
    let mut external = Vec::new();
    for node in status.list("addresses", UNLIMITED) {
        let fields = node.fields(&["type", "address"]);
        let kind = fields.required("type").and_then(node::Node::string);
        let Some(value) = fields.required("address") else { continue };
        match kind {
            Some("InternalIP") => internal.extend(value.parsed(address::address).map(|ip| (node, ip))),
            Some("ExternalIP") => external.extend(value.parsed(address::address).map(|ip| (node, ip))),
            _ => {
                value.string();
            }
        }
    }
    refuse_duplicates(internal.iter().copied(), "address");
    refuse_duplicates(external.iter().copied(), "address");
    let mut addresses: Vec<_> = internal.into_iter().map(|(_, ip)| ip).collect();
    for (_, ip) in external {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}
