//! Policies and rules that are about nobody.

use ipnet::IpNet;

use super::{Code, Finding, pods};
use crate::cluster::{
    Cluster, ClusterPeerKind, NetworkPolicy, PeerKind, Pod, PodSet, PolicyPort, PolicyRule, PortMatch,
};

/// Policies that select no pod; of the others, rules that match nobody.
pub(super) fn without_effect(cluster: &Cluster, findings: &mut Vec<Finding>) {
    for policy in cluster.policies.values() {
        let selected: Vec<_> = pods(cluster).filter(|pod| selects(policy, pod)).collect();
        if selected.is_empty() {
            let message = format!("{}: no pod of its namespace has the labels of podSelector", policy.name);
            findings.push(Code::PolicySelectsNothing.at(&policy.source, message));
            continue;
        }
        let directions = [("ingress", &policy.ingress, Some(&*selected)), ("egress", &policy.egress, None)];
        for (field, rules, receivers) in directions {
            for (index, rule) in rules.iter().enumerate() {
                if let Some(why) = nobody(cluster, policy, rule, receivers) {
                    let message = format!("{} {field}[{index}]: {why}", policy.name);
                    findings.push(Code::RuleMatchesNothing.at(&rule.source, message));
                }
            }
        }
    }
    for policy in cluster.cluster_policies.values() {
        if !pods(cluster).any(|pod| is_in(cluster, &policy.subject, pod)) {
            let message = format!("{}: no pod is of its subject", policy.name);
            findings.push(Code::PolicySelectsNothing.at(&policy.source, message));
            continue;
        }
        for (field, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
            for (index, rule) in rules.iter().enumerate() {
                if !rule.peers.iter().any(|peer| has_somebody(cluster, &peer.kind)) {
                    let message =
                        format!("{} {field}[{index}]: no pod or node is what its peers select", policy.name);
                    findings.push(Code::RuleMatchesNothing.at(&rule.source, message));
                }
            }
        }
    }
}

/// Whether `policy` selects `pod`.
pub(super) fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    pod.name.namespace == policy.name.namespace && policy.pod_selector.matches(&pod.labels)
}

/// Whether `pod` is one of `set`.
pub(super) fn is_in(cluster: &Cluster, set: &PodSet, pod: &Pod) -> bool {
    let namespace = cluster.namespaces.get(&pod.name.namespace);
    namespace.is_some_and(|namespace| set.namespaces.matches(&namespace.labels))
        && set.pods.as_ref().is_none_or(|pods| pods.matches(&pod.labels))
}

/// Why `rule` matches nothing, if so. Its ports are those of `receivers`, or else of its peers.
fn nobody(
    cluster: &Cluster,
    policy: &NetworkPolicy,
    rule: &PolicyRule,
    receivers: Option<&[&Pod]>,
) -> Option<String> {
    if let Some(peers) = &rule.peers {
        let is_empty = |kind: &PeerKind| match kind {
            PeerKind::Pods { .. } => !pods(cluster).any(|pod| is_peer(cluster, policy, kind, pod)),
            PeerKind::Block { cidr, except } => IpNet::aggregate(except).contains(cidr),
        };
        if peers.iter().all(|peer| is_empty(&peer.kind)) {
            let blocks = peers.iter().all(|peer| matches!(peer.kind, PeerKind::Block { .. }));
            let why =
                if blocks { "except takes out all of the block" } else { "no pod is what its peers select" };
            return Some(why.to_owned());
        }
    }
    let by_address = |rule: &PolicyRule| {
        rule.peers.iter().flatten().any(|peer| matches!(peer.kind, PeerKind::Block { .. }))
    };
    let receiving: Vec<&Pod> = match (receivers, &rule.peers) {
        (Some(receivers), _) => receivers.to_vec(),
        // A block may hold any pod's address.
        (None, Some(peers)) if !by_address(rule) => pods(cluster)
            .filter(|pod| peers.iter().any(|peer| is_peer(cluster, policy, &peer.kind, pod)))
            .collect(),
        (None, _) => pods(cluster).collect(),
    };
    let ports = rule.ports.as_ref()?;
    let unknown: Vec<_> = ports.iter().filter_map(|port| undeclared(port, &receiving)).collect();
    (unknown.len() == ports.len())
        .then(|| format!("no pod that receives declares a port named {}", unknown.join(" or ")))
}

/// The name of `port` that no pod of `receiving` declares.
fn undeclared<'a>(port: &'a PolicyPort, receiving: &[&Pod]) -> Option<&'a str> {
    let PortMatch::Named(name) = &port.ports else { return None };
    let declares = |pod: &&Pod| {
        pod.ports.iter().any(|declared| {
            declared.name.as_ref() == Some(name)
                && port.protocol.is_none_or(|protocol| protocol == declared.protocol)
        })
    };
    (!receiving.iter().any(declares)).then_some(name)
}

fn is_peer(cluster: &Cluster, policy: &NetworkPolicy, peer: &PeerKind, pod: &Pod) -> bool {
    let PeerKind::Pods { namespaces, pods } = peer else { return false };
    let in_namespace = match namespaces {
        None => pod.name.namespace == policy.name.namespace,
        Some(selector) => cluster
            .namespaces
            .get(&pod.name.namespace)
            .is_some_and(|namespace| selector.matches(&namespace.labels)),
    };
    in_namespace && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
}

fn has_somebody(cluster: &Cluster, peer: &ClusterPeerKind) -> bool {
    match peer {
        ClusterPeerKind::Pods(set) => pods(cluster).any(|pod| is_in(cluster, set, pod)),
        ClusterPeerKind::Nodes(selector) => cluster.nodes.values().any(|node| selector.matches(&node.labels)),
        // What is unknown denies, which is an effect.
        ClusterPeerKind::Networks(_) | ClusterPeerKind::Unknown => true,
    }
}
