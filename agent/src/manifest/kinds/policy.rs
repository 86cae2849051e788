//! networking.k8s.io/v1 NetworkPolicy.

use super::{Meta, PROTOCOLS, UNLIMITED, check_conditions, selector, sub};
use crate::{
    cluster::{NetworkPolicy, PeerKind, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol},
    manifest::{address, diagnostics::quote, fields::Fields, names, node::Node, scalar::Scalar},
};

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> NetworkPolicy {
    let mut policy = NetworkPolicy {
        source: meta.source,
        name: meta.name,
        pod_selector: Default::default(),
        isolates_ingress: true,
        isolates_egress: false,
        ingress: Vec::new(),
        egress: Vec::new(),
    };
    // It had one once.
    if let Some(status) = sub(object, "status", &["conditions"]) {
        check_conditions(&status);
    }
    let Some(spec) = sub(object, "spec", &["podSelector", "policyTypes", "ingress", "egress"]) else {
        return policy;
    };
    policy.pod_selector = spec.get("podSelector").map(selector::read).unwrap_or_default();
    policy.ingress = spec.list("ingress", UNLIMITED).into_iter().map(|node| rule(node, "from")).collect();
    policy.egress = spec.list("egress", UNLIMITED).into_iter().map(|node| rule(node, "to")).collect();

    let types = [("Ingress", true), ("Egress", false)];
    let types: Vec<_> =
        spec.list("policyTypes", 2).into_iter().filter_map(|node| node.one_of(&types)).collect();
    if types.is_empty() {
        policy.isolates_egress = !policy.egress.is_empty();
    } else {
        policy.isolates_ingress = types.contains(&true);
        policy.isolates_egress = types.contains(&false);
    }
    policy
}

fn rule(node: Node<'_>, peers: &str) -> PolicyRule {
    let fields = node.fields(&["ports", peers]);
    let ports: Vec<_> = fields.list("ports", UNLIMITED).into_iter().filter_map(port).collect();
    let peers: Vec<_> = fields.list(peers, UNLIMITED).into_iter().filter_map(peer).collect();
    PolicyRule {
        source: node.source(),
        peers: Some(peers).filter(|peers| !peers.is_empty()),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    }
}

fn peer(node: Node<'_>) -> Option<PolicyPeer> {
    let fields = node.fields(&["podSelector", "namespaceSelector", "ipBlock"]);
    let pods = fields.get("podSelector").map(selector::read);
    let namespaces = fields.get("namespaceSelector").map(selector::read);
    let by_selector = pods.is_some() || namespaces.is_some();
    let kind = match fields.get("ipBlock") {
        Some(_) if by_selector => {
            fields.error("ipBlock may not be set together with podSelector or namespaceSelector");
            return None;
        }
        Some(block) => ip_block(block)?,
        None if by_selector => PeerKind::Pods { namespaces, pods },
        None => {
            fields.error("a peer needs podSelector, namespaceSelector or ipBlock");
            return None;
        }
    };
    Some(PolicyPeer { source: node.source(), kind })
}

fn ip_block(node: Node<'_>) -> Option<PeerKind> {
    let fields = node.fields(&["cidr", "except"]);
    let cidr = fields.required("cidr").and_then(|cidr| cidr.parsed(address::block));
    let mut except = Vec::new();
    for node in fields.list("except", UNLIMITED) {
        let Some(block) = node.parsed(address::block) else { continue };
        let Some(cidr) = cidr else { continue };
        if !cidr.contains(&block) || cidr == block {
            node.error(format!("{block} is not a part of cidr {cidr}"));
        }
        except.push(block);
    }
    Some(PeerKind::Block { cidr: cidr?, except })
}

fn port(node: Node<'_>) -> Option<PolicyPort> {
    let fields = node.fields(&["protocol", "port", "endPort"]);
    let protocol = fields.get("protocol").map_or(Some(Protocol::Tcp), |node| node.one_of(&PROTOCOLS));
    let port = fields.get("port");
    let ports = match port {
        None => Some(PortMatch::All),
        Some(port) if matches!(port.scalar(), Some(Scalar::String(_))) => {
            port_name(port).map(|name| PortMatch::Named(name.to_owned()))
        }
        Some(port) => port.port().map(|port| PortMatch::Range(port, port)),
    };
    let ports = match (fields.get("endPort"), ports) {
        (None, ports) => ports?,
        (Some(end), Some(PortMatch::Range(first, _))) => {
            let last = end.port()?;
            if last < first {
                end.error(format!("{last} is less than port {first}"));
            }
            PortMatch::Range(first, last)
        }
        (Some(end), ports) => {
            end.port();
            match ports {
                Some(PortMatch::All) => end.error("may not be set without port"),
                Some(PortMatch::Named(_)) => end.error("may not be set when port is a name"),
                _ => {}
            }
            return None;
        }
    };
    Some(PolicyPort { source: node.source(), protocol: Some(protocol?), ports })
}

/// The name of a port; a number in quotes is none.
pub(super) fn port_name(node: Node<'_>) -> Option<&str> {
    let name = node.string()?;
    if !name.is_empty() && name.bytes().all(|c| c.is_ascii_digit()) {
        node.error(format!(
            "{} in quotes is a name, and a port name needs a letter; write the number without quotes",
            quote(name)
        ));
        return None;
    }
    node.formed(names::port_name)
}
