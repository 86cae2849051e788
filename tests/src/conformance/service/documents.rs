//! The manifests of a step, with the case's configuration.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use weir::manifest;

use super::case;

/// Every document of a step.
pub(super) fn read(path: &Path, config: &case::Config) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut documents =
        manifest::to_json(&path.display().to_string(), &text).map_err(crate::conformance::refused)?;
    for (name, addresses) in &config.local_addresses {
        let is_it =
            |document: &&mut Value| document["kind"] == "Node" && document["metadata"]["name"] == json!(name);
        let node = documents.iter_mut().find(is_it).with_context(|| format!("no node {name}"))?;
        let known = node["status"]["addresses"].as_array_mut().context("a node has addresses")?;
        known.extend(addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address })));
    }
    documents.push(json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "WeirConfiguration",
        "metadata": { "name": "cluster" },
        "spec": {
            "podCIDRs": config.cluster_cidrs,
            "serviceCIDRs": config.service_cidrs,
            "nodePortAddresses": match &config.node_port_addresses {
                case::NodePortAddresses::Primary(_) => json!("primary"),
                case::NodePortAddresses::Blocks(blocks) => json!(blocks),
            },
            "masqueradeAll": config.masquerade_all,
        },
    }));
    Ok(documents)
}

/// What an object is known by.
pub(super) fn key(document: &Value) -> [String; 3] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &document["metadata"];
    [text(&document["kind"]), text(&metadata["namespace"]), text(&metadata["name"])]
}
