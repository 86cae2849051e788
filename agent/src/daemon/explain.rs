//! `weir explain`: the verdict on a connection, and what decided it at each end.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use weir_common::policy::Protocol;

use crate::{
    cluster::{Cluster, Name},
    datapath::{Connection, Judgement, Network, RuleOrigin},
};

/// Whether the connection from `source` to `destination` is allowed, and why. The first word of the text is the
/// verdict. An error names what is wrong with the question.
pub fn explain(cluster: &Cluster, source: &str, destination: &str) -> Result<(bool, String), String> {
    let (destination, port, protocol) = split_port(destination)?;
    let sources = addresses(cluster, source)?;
    let destinations = addresses(cluster, destination)?;
    let (from, to) = sources
        .iter()
        .find_map(|from| Some((*from, *destinations.iter().find(|to| to.is_ipv4() == from.is_ipv4())?)))
        .ok_or_else(|| format!("{source} and {destination} have no address of one family"))?;

    let network = Network::compile(cluster, &mut BTreeMap::new()).map_err(|error| error.to_string())?;
    let connection = Connection { source: from, destination: to, protocol, port };
    let (allowed, text) = judgement(cluster, &network, &connection);
    let verdict = if allowed { "ALLOWED" } else { "DENIED" };
    let (from, to) = (name(cluster, from), name(cluster, to));
    Ok((allowed, format!("{verdict} {from} -> {to}:{port}/{}\n{text}", protocol_name(protocol))))
}

fn judgement(cluster: &Cluster, network: &Network, connection: &Connection) -> (bool, String) {
    match network.connect(connection) {
        Judgement::InvalidSource => {
            (false, "  dropped: the source is not the sender's own address\n".to_owned())
        }
        Judgement::Dropped => (false, "  dropped: the service has nothing for this client\n".to_owned()),
        Judgement::Rejected => {
            (false, "  rejected: the service has no endpoint, or not this port\n".to_owned())
        }
        Judgement::Direct(path) => (path.allowed(), ends(cluster, network, connection, "  ")),
        Judgement::Balanced(backends) => {
            let mut text = String::new();
            for (backend, path) in &backends {
                let verdict = if path.allowed() { "allowed" } else { "denied" };
                let _ =
                    writeln!(text, "  backend {}:{} {verdict}", name(cluster, backend.address), backend.port);
                let connection =
                    Connection { destination: backend.address, port: backend.port, ..*connection };
                text.push_str(&ends(cluster, network, &connection, "    "));
            }
            (backends.values().all(|path| path.allowed()), text)
        }
    }
}

fn ends(cluster: &Cluster, network: &Network, connection: &Connection, indent: &str) -> String {
    let explanations = network.explain(connection);
    if explanations.is_empty() {
        return format!("{indent}neither end is a pod: weir does not judge it\n");
    }
    let texts = explanations.iter().map(|explanation| explanation.text(cluster));
    texts.flat_map(|text| text.lines().map(|line| format!("{indent}{line}\n")).collect::<Vec<_>>()).collect()
}

/// Where a rule comes from, in a few words.
pub(crate) fn origin_text(origin: &RuleOrigin) -> String {
    let list = |ingress: bool| if ingress { "ingress" } else { "egress" };
    match origin {
        RuleOrigin::Policy { policy, ingress, index, source } => {
            format!("{policy} {}[{index}] ({source})", list(*ingress))
        }
        RuleOrigin::ClusterPolicy { policy, ingress, index, source, .. } => {
            format!("{policy} {}[{index}] ({source})", list(*ingress))
        }
        RuleOrigin::Isolation { policies, .. } => {
            let names: Vec<_> =
                policies.iter().map(|(policy, source)| format!("{policy} ({source})")).collect();
            format!("isolated by {}", names.join(", "))
        }
    }
}

fn name(cluster: &Cluster, address: IpAddr) -> String {
    let pod = cluster.pods.values().find(|pod| pod.is_networked() && pod.addresses.contains(&address));
    let service = || cluster.services.values().find(|service| service.cluster_ips.contains(&address));
    match pod {
        Some(pod) => pod.name.to_string(),
        None => match service() {
            Some(service) => format!("service {}", service.name),
            None if address.is_ipv6() => format!("[{address}]"),
            None => address.to_string(),
        },
    }
}

/// `DST:PORT[/PROTO]`.
fn split_port(text: &str) -> Result<(&str, u16, Protocol), String> {
    let complaint = || format!("`{text}` is not DESTINATION:PORT[/PROTOCOL]");
    let (host, rest) = text.rsplit_once(':').ok_or_else(complaint)?;
    let (port, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
    let protocol = match protocol.to_ascii_uppercase().as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => return Err(format!("`{protocol}` is none of TCP, UDP and SCTP")),
    };
    let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(complaint)?;
    Ok((host, port, protocol))
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Echo => "echo",
    }
}

/// The addresses of `NS/POD`, `NS/SERVICE`, a node, or an address itself.
fn addresses(cluster: &Cluster, text: &str) -> Result<Vec<IpAddr>, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let found = match text.split_once('/') {
        Some((namespace, name)) => {
            let name = Name { namespace: namespace.into(), name: name.into() };
            let pod = cluster.pods.get(&name).map(|pod| pod.addresses.clone());
            pod.or_else(|| cluster.services.get(&name).map(|service| service.cluster_ips.clone()))
        }
        None => cluster.nodes.get(text).map(|node| node.addresses.clone()),
    };
    match found {
        Some(addresses) if addresses.is_empty() => Err(format!("{text} has no address")),
        Some(addresses) => Ok(addresses),
        None => {
            Err(format!("`{text}` is no pod or service (NAMESPACE/NAME), node or address of this cluster"))
        }
    }
}
