//! The ports of a service.

use super::set;
use crate::{
    cluster::{Protocol, ServiceKind, ServicePort},
    manifest::{
        fields::Fields,
        kinds::{PROTOCOLS, UNLIMITED, policy, refuse_duplicates},
        names,
        node::Node,
        scalar::Scalar,
    },
};

/// The kubelet's port, which no load balancer may expose.
const KUBELET: u16 = 10250;

pub(super) fn read(spec: &Fields<'_>, kind: ServiceKind, headless: bool) -> Vec<ServicePort> {
    let nodes = spec.list("ports", UNLIMITED);
    if nodes.is_empty() && !headless && kind != ServiceKind::ExternalName {
        spec.missing("ports");
    }
    let several = nodes.len() > 1;
    let mut ports = Vec::with_capacity(nodes.len());
    let mut names = Vec::new();
    for node in nodes {
        let fields = node.fields(&["name", "protocol", "appProtocol", "port", "targetPort", "nodePort"]);
        let name_node = fields.nonempty("name");
        let name = name_node.and_then(|name| name.formed(names::dns_label));
        names.extend(name_node.zip(name));
        if several && name_node.is_none() {
            fields.missing("name");
        }
        if let Some(app) = fields.nonempty("appProtocol") {
            app.formed(names::label_key);
        }
        let protocol = fields.get("protocol").map_or(Some(Protocol::Tcp), |node| node.one_of(&PROTOCOLS));
        let number = fields.required("port");
        let port = number.and_then(Node::port);
        if let (Some(KUBELET), ServiceKind::LoadBalancer, Some(node)) = (port, kind, number) {
            node.error(format!("port {KUBELET} is the kubelet's and may not be exposed by a load balancer"));
        }
        check_target_port(&fields);
        let node_port = set(&fields, "nodePort").map(|node| (node, node.port()));
        if let (Some((node, _)), ServiceKind::ClusterIp | ServiceKind::ExternalName) = (node_port, kind) {
            node.error("only a service of type NodePort or LoadBalancer may have one");
        }
        if let (Some(protocol), Some(port)) = (protocol, port) {
            let source = node.source();
            let name = name.unwrap_or_default().to_owned();
            let node_port = node_port.and_then(|(_, port)| port);
            ports.push((node, ServicePort { source, name, protocol, port, node_port }));
        }
    }
    refuse_duplicates(names, "name");
    refuse_duplicates(ports.iter().map(|(node, port)| (*node, (port.protocol, port.port))), "port");
    let node_ports = ports.iter().filter_map(|(node, port)| Some((*node, (port.protocol, port.node_port?))));
    refuse_duplicates(node_ports, "nodePort");
    ports.into_iter().map(|(_, port)| port).collect()
}

fn check_target_port(port: &Fields<'_>) {
    let Some(target) = set(port, "targetPort").filter(|target| target.text() != Some("")) else { return };
    match target.scalar() {
        Some(Scalar::String(_)) => drop(policy::port_name(target)),
        _ => drop(target.port()),
    }
}
