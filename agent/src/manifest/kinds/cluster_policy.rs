//! policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy, with the rules of its CustomResourceDefinition.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Meta, PROTOCOLS, check_conditions, refuse_duplicates, selector, sub};
use crate::{
    cluster::{
        Action, ClusterNetworkPolicy, ClusterPeer, ClusterPeerKind, ClusterRule, PodSet, PolicyPort,
        PortMatch, Protocol, Tier,
    },
    manifest::{
        address,
        diagnostics::quote,
        fields::{Fields, suggest},
        node::Node,
    },
};

/// Items that each list of the kind may have.
const MOST: usize = 25;
/// Characters of a rule's name.
const NAME_MOST: usize = 100;

const ACTIONS: [(&str, Action); 3] =
    [("Accept", Action::Accept), ("Deny", Action::Deny), ("Pass", Action::Pass)];

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> ClusterNetworkPolicy {
    let mut policy = ClusterNetworkPolicy {
        source: meta.source,
        name: meta.name.name,
        tier: Tier::Admin,
        priority: 0,
        subject: PodSet { namespaces: Default::default(), pods: None },
        ingress: Vec::new(),
        egress: Vec::new(),
    };
    if let Some(status) = sub(object, "status", &["conditions"]) {
        check_conditions(&status);
    }
    let Some(spec) = object.required("spec") else { return policy };
    let spec = spec.fields(&["tier", "priority", "subject", "ingress", "egress"]);

    let tiers = [("Admin", Tier::Admin), ("Baseline", Tier::Baseline)];
    policy.tier = spec.required("tier").and_then(|tier| tier.one_of(&tiers)).unwrap_or(Tier::Admin);
    let priority = spec.required("priority").and_then(|node| node.integer(0..=1000, "a priority"));
    policy.priority = priority.and_then(|priority| u16::try_from(priority).ok()).unwrap_or_default();
    let subject = spec.required("subject").and_then(|subject| {
        let (name, node) = subject.fields(&["namespaces", "pods"]).exactly_one(&["namespaces", "pods"])?;
        pod_set(name, node)
    });
    if let Some(subject) = subject {
        policy.subject = subject;
    }
    policy.ingress = spec.list("ingress", MOST).into_iter().filter_map(|node| rule(node, true)).collect();
    policy.egress = spec.list("egress", MOST).into_iter().filter_map(|node| rule(node, false)).collect();
    policy
}

fn rule(node: Node<'_>, ingress: bool) -> Option<ClusterRule> {
    let direction = if ingress { "from" } else { "to" };
    let fields = node.fields(&["name", "action", direction, "protocols"]);
    let name = fields.get("name").and_then(|node| {
        let name = node.string()?;
        if name.chars().count() > NAME_MOST {
            node.error(format!("has more than {NAME_MOST} characters"));
        }
        Some(name.to_owned())
    });
    let action = fields.required("action").and_then(|action| action.one_of(&ACTIONS));
    let peers = fields.required(direction).map(at_least_one).unwrap_or_default();
    let peers: Vec<_> = peers.into_iter().filter_map(|node| peer(node, ingress)).collect();
    let protocols = fields.get("protocols").map(at_least_one);
    if let Some(protocols) = &protocols
        && peers
            .iter()
            .any(|peer| matches!(peer.kind, ClusterPeerKind::Nodes(_) | ClusterPeerKind::Networks(_)))
    {
        refuse_named_ports(protocols);
    }
    let ports = protocols.map(|protocols| protocols.into_iter().filter_map(port).collect());
    Some(ClusterRule { source: node.source(), name, action: action?, peers, ports })
}

fn at_least_one(node: Node<'_>) -> Vec<Node<'_>> {
    let items = node.list(MOST);
    if node.items().is_some() && items.is_empty() {
        node.error("at least one item is required");
    }
    items
}

/// What is no pod declares no ports.
fn refuse_named_ports(protocols: &[Node<'_>]) {
    for node in protocols {
        let entries = node.entries().unwrap_or_default();
        if let Some((_, key, _)) = entries.iter().find(|(name, ..)| *name == "destinationNamedPort") {
            key.error("may not be used in a rule whose peers are networks or nodes");
        }
    }
}

fn peer(node: Node<'_>, ingress: bool) -> Option<ClusterPeer> {
    const KNOWN: [&str; 5] = ["namespaces", "pods", "nodes", "networks", "domainNames"];
    if let Some(name) = peer_of_the_future(node, &KNOWN) {
        let name = quote(name);
        node.warning(format!(
            "unknown peer {name}: an Accept rule matches nothing by it, any other rule denies"
        ));
        return Some(ClusterPeer { source: node.source(), kind: ClusterPeerKind::Unknown });
    }
    let (name, value) = node.fields(&KNOWN).exactly_one(&KNOWN)?;
    let kind = match name {
        "nodes" | "networks" | "domainNames" if ingress => {
            value.error("only an egress rule may have such a peer");
            return None;
        }
        "nodes" => ClusterPeerKind::Nodes(selector::read(value)),
        "networks" => ClusterPeerKind::Networks(networks(value)),
        "domainNames" => {
            value.error("domain names are not supported; use networks");
            return None;
        }
        _ => ClusterPeerKind::Pods(pod_set(name, value)?),
    };
    Some(ClusterPeer { source: node.source(), kind })
}

/// The one field of a peer that later versions of the API may know: they say what a rule with it does. A
/// known field misspelled is not meant.
fn peer_of_the_future<'t>(node: Node<'t>, known: &[&str]) -> Option<&'t str> {
    match node.entries()?[..] {
        [(name, ..)] if !known.contains(&name) && suggest(name, known).is_none() => Some(name),
        _ => None,
    }
}

fn pod_set(name: &str, node: Node<'_>) -> Option<PodSet> {
    if name == "namespaces" {
        return Some(PodSet { namespaces: selector::read(node), pods: None });
    }
    let fields = node.fields(&["namespaceSelector", "podSelector"]);
    let namespaces = fields.get("namespaceSelector").map(selector::read).unwrap_or_default();
    let pods = fields.required("podSelector").map(selector::read)?;
    Some(PodSet { namespaces, pods: Some(pods) })
}

fn networks(node: Node<'_>) -> Vec<IpNet> {
    let items = at_least_one(node);
    refuse_duplicates(items.iter().filter_map(|item| Some((*item, item.text()?))), "block");
    let blocks: BTreeSet<_> = items.into_iter().filter_map(|item| item.parsed(address::block)).collect();
    blocks.into_iter().collect()
}

fn port(node: Node<'_>) -> Option<PolicyPort> {
    const KNOWN: [&str; 4] = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let (name, value) = node.fields(&KNOWN).exactly_one(&KNOWN)?;
    let (protocol, ports) = if name == "destinationNamedPort" {
        (None, PortMatch::Named(value.string()?.to_owned()))
    } else {
        let protocol = protocol(name)?;
        let destination = value.fields(&["destinationPort"]).required("destinationPort")?;
        (Some(protocol), destination_port(destination)?)
    };
    Some(PolicyPort { source: node.source(), protocol, ports })
}

fn protocol(name: &str) -> Option<Protocol> {
    PROTOCOLS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|(_, protocol)| *protocol)
}

fn destination_port(node: Node<'_>) -> Option<PortMatch> {
    let (name, value) = node.fields(&["number", "range"]).exactly_one(&["number", "range"])?;
    if name == "number" {
        return value.port().map(|port| PortMatch::Range(port, port));
    }
    let fields = value.fields(&["start", "end"]);
    let start = fields.required("start").and_then(Node::port);
    let end = fields.required("end").and_then(Node::port);
    let (start, end) = (start?, end?);
    if start >= end {
        fields.error(format!("start {start} must be less than end {end}"));
    }
    Some(PortMatch::Range(start, end))
}
