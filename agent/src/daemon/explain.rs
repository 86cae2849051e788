//! `weir explain`: the verdict on a connection, and what decided it at each end.

use std::{fmt::Write as _, net::IpAddr};

use weir_common::policy::{Protocol, RULE_OWN_NODE, RULE_SELF};

use super::verdicts::{End, Ends, Verdicts};
use crate::{
    cluster::{Cluster, Name, Pod},
    datapath::{Connection, Judgement, Origin, RuleOrigin},
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
    let question = Question {
        cluster,
        verdicts: Verdicts::new(cluster),
        connection: Connection { source: from, destination: to, protocol, port },
    };
    let (allowed, text) = question.answer()?;
    let verdict = if allowed { "ALLOWED" } else { "DENIED" };
    let to = question.name(to);
    Ok((allowed, format!("{verdict} {} -> {to}:{port}/{}\n{text}", question.name(from), name_of(protocol))))
}

struct Question<'a> {
    cluster: &'a Cluster,
    verdicts: Verdicts<'a>,
    connection: Connection,
}

impl Question<'_> {
    fn answer(&self) -> Result<(bool, String), String> {
        let Some((node, origin)) = self.first_node() else {
            return Ok((true, "  neither end is a pod or a service: weir does not judge it\n".to_owned()));
        };
        let datapath = self.verdicts.datapath(&node).map_err(|error| error.to_string())?;
        match datapath.judge(origin, &self.connection) {
            Judgement::InvalidSource => {
                Ok((false, format!("  node {node} drops it: the source is not the sender's own address\n")))
            }
            Judgement::Dropped => {
                Ok((false, format!("  node {node} drops it: the service has nothing for this client\n")))
            }
            Judgement::Rejected => Ok((
                false,
                format!("  node {node} rejects it: the service has no endpoint, or not this port\n"),
            )),
            Judgement::Direct(_) => {
                let ends = self.ends(&self.connection)?;
                Ok((ends.allowed(), self.describe(&self.connection, &ends, "  ")))
            }
            Judgement::Balanced(backends) => {
                let mut text = String::new();
                let mut all = true;
                for backend in backends.keys() {
                    let connection =
                        Connection { destination: backend.address, port: backend.port, ..self.connection };
                    let ends = self.ends(&connection)?;
                    all &= ends.allowed();
                    let verdict = if ends.allowed() { "allowed" } else { "denied" };
                    let _ =
                        writeln!(text, "  backend {}:{} {verdict}", self.name(backend.address), backend.port);
                    text.push_str(&self.describe(&connection, &ends, "    "));
                }
                Ok((all, text))
            }
        }
    }

    /// The node that sees the connection first: the sender's, else the receiver's, else any.
    fn first_node(&self) -> Option<(String, Origin)> {
        let node_of = |address| self.verdicts.pod(address).and_then(|pod| pod.node.clone());
        let own = self.cluster.nodes.values().find(|node| node.addresses.contains(&self.connection.source));
        let any = || self.cluster.nodes.keys().next().cloned();
        node_of(self.connection.source)
            .map(|node| (node, Origin::Pod))
            .or_else(|| own.map(|node| (node.name.clone(), Origin::Node)))
            .or_else(|| Some((node_of(self.connection.destination).or_else(any)?, Origin::Outside)))
    }

    fn ends(&self, connection: &Connection) -> Result<Ends, String> {
        self.verdicts.ends(connection).map_err(|error| error.to_string())
    }

    fn describe(&self, connection: &Connection, ends: &Ends, indent: &str) -> String {
        let (source, destination) = (self.name(connection.source), self.name(connection.destination));
        let width = source.len().max(destination.len());
        let said =
            |end: &Option<End>| end.as_ref().map_or_else(|| "not judged: not a pod".to_owned(), reason);
        format!(
            "{indent}egress   {source:width$}  {}\n{indent}ingress  {destination:width$}  {}\n",
            said(&ends.egress),
            said(&ends.ingress)
        )
    }

    fn name(&self, address: IpAddr) -> String {
        let pod = self.verdicts.pod(address).map(|pod| pod.name.to_string());
        let service = || {
            let found = self.cluster.services.values().find(|service| service.cluster_ips.contains(&address));
            found.map(|service| format!("service {}", service.name))
        };
        let plain = || if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        pod.or_else(service).unwrap_or_else(plain)
    }
}

fn reason(end: &End) -> String {
    let verdict = if end.decision.allowed { "allowed" } else { "denied" };
    let why = match (&end.origin, end.decision.rule) {
        (Some(RuleOrigin::Policy { policy, ingress, index, source }), _) => {
            format!("rule {} {index} of NetworkPolicy {policy} ({source})", direction(*ingress))
        }
        (Some(RuleOrigin::ClusterPolicy { policy, ingress, index, name, source }), _) => {
            let name = name.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
            format!("rule {} {index}{name} of ClusterNetworkPolicy {policy} ({source})", direction(*ingress))
        }
        (Some(origin @ RuleOrigin::Isolation { .. }), _) => {
            format!("no rule allows it, and the pod is isolated by {}", origin.policies().join(", "))
        }
        (None, RULE_OWN_NODE) => "a pod's own node always reaches it".to_owned(),
        (None, RULE_SELF) => "a pod always reaches itself".to_owned(),
        (None, _) => "no policy decides it".to_owned(),
    };
    format!("{verdict}: {why}")
}

const fn direction(ingress: bool) -> &'static str {
    if ingress { "ingress" } else { "egress" }
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

const fn name_of(protocol: Protocol) -> &'static str {
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
            let name = Name { namespace: namespace.to_owned(), name: name.to_owned() };
            let pod = cluster.pods.get(&name).map(|pod: &Pod| pod.addresses.clone());
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
