//! weir.dev/v1alpha1 WeirConfiguration: cluster-wide settings.
//!
//! ```yaml
//! apiVersion: weir.dev/v1alpha1
//! kind: WeirConfiguration
//! metadata:
//!   name: cluster
//! spec:
//!   podCIDRs: [10.244.0.0/16, fd00:10:244::/48]
//!   serviceCIDRs: [10.96.0.0/16, fd00:10:96::/112]
//!   nodePortAddresses: primary      # or a list of blocks
//!   masquerade: true
//!   masqueradeAll: false
//!   resetGoneBackends: true
//!   externalRanges: [203.0.113.0/24]
//! ```

use ipnet::IpNet;

use super::{Meta, UNLIMITED, refuse_duplicates, sub};
use crate::{
    cluster::Config,
    manifest::{address, diagnostics::quote, fields::Fields, node::Node},
};

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> Config {
    let mut config = Config { source: Some(meta.source), ..Config::default() };
    let known = [
        "podCIDRs",
        "serviceCIDRs",
        "nodePortAddresses",
        "masquerade",
        "masqueradeAll",
        "resetGoneBackends",
        "externalRanges",
    ];
    let Some(spec) = sub(object, "spec", &known) else { return config };
    config.pod_cidrs = spec.get("podCIDRs").map(blocks).unwrap_or_default();
    config.service_cidrs = spec.get("serviceCIDRs").map(blocks).unwrap_or_default();
    config.node_port_addresses = spec.get("nodePortAddresses").and_then(node_port_addresses);
    config.masquerade = spec.get("masquerade").and_then(Node::boolean).unwrap_or(false);
    config.masquerade_all = spec.get("masqueradeAll").and_then(Node::boolean).unwrap_or(false);
    config.keep_gone = !spec.get("resetGoneBackends").and_then(Node::boolean).unwrap_or(true);
    config.external_ranges = spec.get("externalRanges").map(blocks);
    config
}

fn blocks(node: Node<'_>) -> Vec<IpNet> {
    let items = node.list(UNLIMITED).into_iter();
    let blocks: Vec<_> = items.filter_map(|item| Some((item, item.parsed(address::block)?))).collect();
    refuse_duplicates(blocks.iter().copied(), "block");
    blocks.into_iter().map(|(_, block)| block).collect()
}

fn node_port_addresses(node: Node<'_>) -> Option<Vec<IpNet>> {
    match node.text() {
        None => Some(blocks(node)),
        Some("primary") => None,
        Some(word) => {
            node.error(format!("{} is neither a list of blocks nor the word primary", quote(word)));
            None
        }
    }
}
