//! v1 Pod: labels, node, addresses, readiness and the ports that its containers declare.

use std::net::IpAddr;

use super::{Meta, PROTOCOLS, UNLIMITED, refuse_duplicates};
use crate::{
    cluster::{ContainerPort, Pod, Protocol},
    manifest::{address, fields::Fields, names, node::Node},
};

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> Pod {
    let mut pod = Pod {
        source: meta.source,
        name: meta.name,
        labels: meta.labels,
        annotations: meta.annotations,
        node: None,
        host_network: false,
        addresses: Vec::new(),
        finished: false,
        ready: true,
        ports: Vec::new(),
    };
    if let Some(spec) = object.required("spec") {
        read_spec(&spec.some_fields(), &mut pod);
    }
    if let Some(status) = object.get("status") {
        read_status(&status.some_fields(), &mut pod);
    }
    pod
}

fn read_spec(spec: &Fields<'_>, pod: &mut Pod) {
    pod.node =
        spec.nonempty("nodeName").and_then(|node| node.formed(names::dns_subdomain)).map(str::to_owned);
    pod.host_network = spec.get("hostNetwork").and_then(Node::boolean).unwrap_or(false);

    for container in spec.list("containers", UNLIMITED) {
        let container = container.some_fields();
        pod.ports.extend(container_ports(&container));
    }
    for container in spec.list("initContainers", UNLIMITED) {
        let container = container.some_fields();
        let ports = container_ports(&container);
        let policy = container.get("restartPolicy").and_then(Node::string);
        // One that goes on beside the others is a sidecar.
        if policy == Some("Always") {
            pod.ports.extend(ports);
        }
    }
}

fn container_ports(container: &Fields<'_>) -> Vec<ContainerPort> {
    let nodes = container.list("ports", UNLIMITED);
    let mut ports = Vec::with_capacity(nodes.len());
    let mut names = Vec::new();
    for node in nodes {
        let fields = node.fields(&["name", "containerPort", "hostPort", "hostIP", "protocol"]);
        let name_node = fields.nonempty("name");
        let name = name_node.and_then(|name| name.formed(names::port_name));
        names.extend(name_node.zip(name));
        let protocol = fields.get("protocol").map_or(Some(Protocol::Tcp), |node| node.one_of(&PROTOCOLS));
        let port = fields.required("containerPort").and_then(Node::port);
        if let Some(host_port) = fields.get("hostPort") {
            // 0 is none.
            host_port.integer(0..=65535, "a port");
        }
        if let (Some(protocol), Some(port)) = (protocol, port) {
            ports.push(ContainerPort { name: name.map(str::to_owned), port, protocol });
        }
    }
    refuse_duplicates(names, "name");
    ports
}

fn read_status(status: &Fields<'_>, pod: &mut Pod) {
    let phases =
        [("Pending", false), ("Running", false), ("Succeeded", true), ("Failed", true), ("Unknown", false)];
    pod.finished = status.nonempty("phase").and_then(|phase| phase.one_of(&phases)).unwrap_or(false);
    pod.addresses = addresses(status);

    let conditions = status.list("conditions", UNLIMITED);
    pod.ready = conditions.is_empty();
    for condition in conditions {
        let condition = condition.some_fields();
        let kind = condition.required("type").and_then(Node::string);
        let words = [("True", true), ("False", false), ("Unknown", false)];
        let holds = condition.required("status").and_then(|status| status.one_of(&words));
        if kind == Some("Ready") {
            pod.ready = holds == Some(true);
        }
    }
}

fn addresses(status: &Fields<'_>) -> Vec<IpAddr> {
    let list: Vec<_> = status
        .list("podIPs", 2)
        .into_iter()
        .filter_map(|item| {
            let node = item.fields(&["ip"]).required("ip")?;
            Some((node, node.parsed(address::address)?))
        })
        .collect();
    refuse_duplicates(list.iter().map(|(node, ip)| (*node, address::family(*ip))), "address family");

    let single = status.nonempty("podIP").and_then(|node| Some((node, node.parsed(address::address)?)));
    match (single, list.first()) {
        (Some((_, ip)), None) => return vec![ip],
        (Some((node, ip)), Some((_, first))) if ip != *first => {
            node.error("differs from the first of podIPs");
        }
        _ => {}
    }
    list.into_iter().map(|(_, ip)| ip).collect()
}
