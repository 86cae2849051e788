//! The manifests of a step, with the case's configuration.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use weir::{
    cluster::{Cluster, Objects},
    manifest,
};

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
            // The cases are kube-proxy's.
            "resetGoneBackends": false,
        },
    }));
    Ok(documents)
}

/// Lets the pods live on that flows of the step before go to: those are about endpoints that leave their service, and
/// nothing goes to a pod that is gone.
pub(super) fn keep_servers(documents: &mut Vec<Value>, before: Vec<Value>, flows: &[case::Flow]) {
    let servers: Vec<SocketAddr> =
        flows.iter().filter_map(|flow| flow.established_with.parse().ok()).collect();
    let known: BTreeSet<_> = documents.iter().map(key).collect();
    let is_server = |document: &Value| {
        let address: Option<IpAddr> = document["status"]["podIP"].as_str().and_then(|text| text.parse().ok());
        document["kind"] == "Pod" && servers.iter().any(|server| Some(server.ip()) == address)
    };
    let gone = before.into_iter().filter(|document| is_server(document) && !known.contains(&key(document)));
    documents.extend(gone);
}

/// The cluster that documents describe.
pub(super) fn cluster(documents: &[Value]) -> anyhow::Result<Cluster> {
    let mut objects = Objects::default();
    let read = manifest::from_text("documents", &text(documents));
    objects.insert_all(read.map_err(crate::conformance::refused)?);
    objects.build().map_err(crate::conformance::refused)
}

/// The manifest of some documents.
pub(super) fn text<'a>(documents: impl IntoIterator<Item = &'a Value>) -> String {
    documents.into_iter().map(|document| format!("---\n{document}\n")).collect()
}

/// What an object is known by.
pub(super) fn key(document: &Value) -> [String; 3] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &document["metadata"];
    [text(&document["kind"]), text(&metadata["namespace"]), text(&metadata["name"])]
}
