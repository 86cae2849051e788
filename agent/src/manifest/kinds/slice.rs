//! discovery.k8s.io/v1 EndpointSlice.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Meta, PROTOCOLS, meta, refuse_duplicates, sub};
use crate::{
    cluster::{Endpoint, EndpointPort, EndpointSlice, Hints, Protocol},
    manifest::{address, diagnostics::quote, fields::Fields, names, node::Node},
};

const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 100;
const MOST_ADDRESSES: usize = 100;
const MOST_HINTS: usize = 8;
const MOST_TOPOLOGY: usize = 16;
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// How many new connections its endpoints get, beside those of other slices.
const WEIGHT: &str = "weir.dev/weight";

/// `addressType`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressType {
    Ipv4,
    Ipv6,
    Fqdn,
}

pub(super) fn read(object: &Fields<'_>, mut meta: Meta) -> EndpointSlice {
    let weight = meta::annotation(object, WEIGHT).and_then(|node| node.parsed(weight));
    let weight = weight.unwrap_or(Endpoint::USUAL_WEIGHT);
    let words = [("IPv4", AddressType::Ipv4), ("IPv6", AddressType::Ipv6), ("FQDN", AddressType::Fqdn)];
    let kind = object.required("addressType").and_then(|node| node.one_of(&words));
    let endpoints = object.list("endpoints", MOST_ENDPOINTS);
    EndpointSlice {
        source: meta.source,
        name: meta.name,
        service: meta.labels.remove(SERVICE_LABEL).filter(|name| !name.is_empty()).map(Into::into),
        ipv6: kind == Some(AddressType::Ipv6),
        ports: ports(object),
        endpoints: endpoints.into_iter().filter_map(|node| endpoint(node, kind?, weight)).collect(),
    }
}

fn ports(object: &Fields<'_>) -> Vec<EndpointPort> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for node in object.list("ports", MOST_PORTS) {
        let fields = node.fields(&["name", "protocol", "port", "appProtocol"]);
        let name = fields.nonempty("name").map_or(Some(""), |name| name.formed(names::dns_label));
        names.extend(name.map(|name| (node, name)));
        let protocol = fields.get("protocol").map_or(Some(Protocol::Tcp), |node| node.one_of(&PROTOCOLS));
        if let Some(app) = fields.nonempty("appProtocol") {
            app.formed(names::label_key);
        }
        let port = fields.get("port").and_then(Node::port);
        if let (Some(name), Some(protocol)) = (name, protocol) {
            ports.push(EndpointPort { name: name.to_owned(), protocol, port });
        }
    }
    refuse_duplicates(names, "name");
    ports.shrink_to_fit();
    ports
}

fn endpoint(node: Node<'_>, kind: AddressType, weight: u32) -> Option<Endpoint> {
    let known = [
        "addresses",
        "conditions",
        "hostname",
        "targetRef",
        "deprecatedTopology",
        "nodeName",
        "zone",
        "hints",
    ];
    let fields = node.fields(&known);
    let addresses = addresses(&fields, kind);

    let conditions = sub(&fields, "conditions", &["ready", "serving", "terminating"]);
    let condition = |name: &str, default| {
        let value = conditions.as_ref().and_then(|conditions| conditions.get(name));
        value.and_then(Node::boolean).unwrap_or(default)
    };
    let text = |name: &str| fields.nonempty(name).and_then(Node::string).map(Into::into);
    let hints = sub(&fields, "hints", &["forZones", "forNodes"]);
    let hint = |name: &str| hints.as_ref().map(|hints| hint_names(hints, name)).unwrap_or_default();

    if let Some(hostname) = fields.nonempty("hostname") {
        hostname.formed(names::dns_label);
    }
    let reference = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    sub(&fields, "targetRef", &reference);
    if let Some(topology) = fields.get("deprecatedTopology") {
        let count = topology.strings().count();
        if count > MOST_TOPOLOGY {
            topology.error(format!("has {count} entries; at most {MOST_TOPOLOGY} are allowed"));
        }
    }
    let endpoint = |address| Endpoint {
        address,
        ready: condition("ready", true),
        serving: condition("serving", true),
        terminating: condition("terminating", false),
        node: fields.nonempty("nodeName").and_then(|node| node.formed(names::dns_subdomain)).map(Into::into),
        zone: text("zone"),
        hints: Some(Hints { nodes: hint("forNodes"), zones: hint("forZones") })
            .filter(|hints| *hints != Hints::default())
            .map(Box::new),
        weight,
    };
    // Without an address, only for the errors in what belongs to it.
    let endpoint = endpoint(addresses.first().copied().unwrap_or(IpAddr::from([0; 4])));
    (!addresses.is_empty()).then_some(endpoint)
}

fn weight(text: &str) -> Result<u32, String> {
    const MOST: u32 = Endpoint::MOST_WEIGHT;
    let number = text.parse().ok().filter(|number| *number <= MOST && !text.starts_with('+'));
    number.ok_or_else(|| format!("{} is not a number from 0 to {MOST}", quote(text)))
}

/// Names are checked, and left out.
fn addresses(endpoint: &Fields<'_>, kind: AddressType) -> Vec<IpAddr> {
    let Some(list) = endpoint.required("addresses") else { return Vec::new() };
    let nodes = list.list(MOST_ADDRESSES);
    if nodes.is_empty() {
        list.error("at least one address is required");
    }
    let read = |node: Node<'_>| {
        if kind == AddressType::Fqdn {
            node.formed(names::dns_subdomain);
            return None;
        }
        let family = if kind == AddressType::Ipv6 { "IPv6" } else { "IPv4" };
        node.parsed(|text| {
            let ip = address::address(text)?;
            match address::special(ip) {
                _ if address::family(ip) != family => Err(format!("{ip} is not an {family} address")),
                Some(why) => Err(format!("{ip} {why}")),
                None => Ok(ip),
            }
        })
    };
    nodes.into_iter().filter_map(read).collect()
}

fn hint_names(hints: &Fields<'_>, name: &str) -> BTreeSet<String> {
    let nodes = hints.list(name, MOST_HINTS);
    let names: Vec<_> = nodes
        .into_iter()
        .filter_map(|node| Some((node, node.fields(&["name"]).required("name")?.string()?)))
        .collect();
    refuse_duplicates(names.iter().copied(), "name");
    names.into_iter().map(|(_, name)| name.to_owned()).collect()
}
