//! Explanations in words.
//!
//! Nothing here is escaped for a terminal: names of files and rules are as the manifests have them.

use std::fmt::Write;

use super::{Cause, Explanation, Reason};
use crate::{
    cluster::{
        Cluster, ClusterPeerKind, Operator, PeerKind, PodSet, PolicyPort, PortMatch, Requirement, Selector,
    },
    datapath::RuleOrigin,
};

impl Explanation<'_> {
    /// The explanation, a line for the decision and one for each rule that came near; `cluster` is what the
    /// datapath was compiled from.
    pub fn text(&self, cluster: &Cluster) -> String {
        let verdict = if self.decision.allowed { "allowed" } else { "denied" };
        let direction = self.direction;
        let cause = match self.cause {
            Cause::Rule(RuleOrigin::Isolation { policies, .. }) => {
                let names: Vec<_> =
                    policies.iter().map(|(name, source)| format!("{name} ({source})")).collect();
                format!("isolated by {}, and none of their rules matches", names.join(", "))
            }
            Cause::Rule(origin) => described(cluster, origin),
            Cause::NoPolicy => format!("no policy selects it for {direction}"),
            Cause::NoRule => "no rule matches, and no NetworkPolicy isolates it".to_owned(),
            Cause::OwnNode => "its own node always reaches it".to_owned(),
            Cause::Itself => "a pod always reaches itself".to_owned(),
            Cause::Incomplete => "its rules are not complete".to_owned(),
        };
        let mut text = format!("{direction} {}: {verdict}: {cause}\n", self.pod);
        for other in self.others.iter().filter(|other| other.came_near()) {
            let why = match other.reason {
                Reason::Peer => "the peer does not match",
                Reason::Port => "the port does not match",
                Reason::PeerAndPort => "neither peer nor port matches",
                Reason::Passed => "matches, and passes on to the next tier",
                Reason::Unreached => "matches, but is not reached",
            };
            _ = writeln!(text, "  {}: {why}", described(cluster, other.origin));
        }
        text
    }
}

/// Name, place and content of a rule.
fn described(cluster: &Cluster, origin: &RuleOrigin) -> String {
    let (name, source) = match origin {
        RuleOrigin::Policy { policy, ingress, index, source } => {
            (format!("{policy} {}[{index}]", list(*ingress)), source)
        }
        RuleOrigin::ClusterPolicy { policy, ingress, index, name, source } => {
            let name = name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
            (format!("{policy} {}[{index}]{name}", list(*ingress)), source)
        }
        RuleOrigin::Isolation { .. } => return origin.policies().join(", "),
    };
    let content = rule_text(cluster, origin).map(|text| format!(" {text}")).unwrap_or_default();
    format!("{name} ({source}){content}")
}

fn list(ingress: bool) -> &'static str {
    if ingress { "ingress" } else { "egress" }
}

/// What a rule says, as `from pods app=web; port 80/TCP`. `None` when `cluster` does not have it.
pub fn rule_text(cluster: &Cluster, origin: &RuleOrigin) -> Option<String> {
    let (ingress, action, peers, ports) = match origin {
        RuleOrigin::Policy { policy, ingress, index, .. } => {
            let policy = cluster.policies.get(policy)?;
            let rule = if *ingress { &policy.ingress } else { &policy.egress }.get(*index)?;
            let peers = rule.peers.iter().flatten().map(|peer| peer_text(&peer.kind)).collect::<Vec<_>>();
            (*ingress, String::new(), rule.peers.as_ref().map(|_| peers), &rule.ports)
        }
        RuleOrigin::ClusterPolicy { policy, ingress, index, .. } => {
            let policy = cluster.cluster_policies.get(&**policy)?;
            let rule = if *ingress { &policy.ingress } else { &policy.egress }.get(*index)?;
            let peers = rule.peers.iter().map(|peer| cluster_peer_text(&peer.kind)).collect::<Vec<_>>();
            (*ingress, format!("{:?} ", rule.action), Some(peers), &rule.ports)
        }
        RuleOrigin::Isolation { .. } => return None,
    };
    let side = if ingress { "from" } else { "to" };
    let peers = peers.map_or("everyone".to_owned(), |peers| peers.join(" or "));
    let ports = ports.as_ref().map(|ports| ports.iter().map(port_text).collect::<Vec<_>>().join(", "));
    let ports = ports.map(|ports| format!("; port {ports}")).unwrap_or_default();
    Some(format!("{action}{side} {peers}{ports}"))
}

/// What a peer of a NetworkPolicy says.
pub(crate) fn peer_text(peer: &PeerKind) -> String {
    match peer {
        PeerKind::Pods { namespaces: None, pods } => pods_text(pods.as_ref()),
        PeerKind::Pods { namespaces: Some(namespaces), pods } => {
            format!("{} in namespaces {}", pods_text(pods.as_ref()), selector_text(namespaces))
        }
        PeerKind::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        PeerKind::Block { cidr, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} except {}", except.join(", "))
        }
    }
}

/// What a peer of a ClusterNetworkPolicy says.
pub(crate) fn cluster_peer_text(peer: &ClusterPeerKind) -> String {
    match peer {
        ClusterPeerKind::Pods(PodSet { namespaces, pods }) => {
            format!("{} in namespaces {}", pods_text(pods.as_ref()), selector_text(namespaces))
        }
        ClusterPeerKind::Nodes(nodes) => format!("nodes {}", selector_text(nodes)),
        ClusterPeerKind::Networks(networks) => {
            networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        ClusterPeerKind::Unknown => "a peer of a kind that is not known".to_owned(),
    }
}

fn pods_text(pods: Option<&Selector>) -> String {
    format!("pods {}", pods.map_or("(all)".to_owned(), selector_text))
}

fn selector_text(selector: &Selector) -> String {
    if selector.requirements.is_empty() {
        return "(all)".to_owned();
    }
    selector.requirements.iter().map(requirement_text).collect::<Vec<_>>().join(",")
}

/// As `kubectl -l` writes it.
fn requirement_text(Requirement { key, operator }: &Requirement) -> String {
    let list = |values: &std::collections::BTreeSet<String>| {
        values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    };
    match operator {
        Operator::In(values) if values.len() == 1 => format!("{key}={}", list(values)),
        Operator::In(values) => format!("{key} in ({})", list(values)),
        Operator::NotIn(values) if values.len() == 1 => format!("{key}!={}", list(values)),
        Operator::NotIn(values) => format!("{key} notin ({})", list(values)),
        Operator::Exists => key.clone(),
        Operator::DoesNotExist => format!("!{key}"),
    }
}

/// What a port of a rule says.
pub(crate) fn port_text(port: &PolicyPort) -> String {
    let ports = match &port.ports {
        PortMatch::All => "any".to_owned(),
        PortMatch::Range(first, last) if first == last => first.to_string(),
        PortMatch::Range(first, last) => format!("{first}-{last}"),
        PortMatch::Named(name) => name.clone(),
    };
    port.protocol.map_or(ports.clone(), |protocol| format!("{ports}/{protocol}"))
}
