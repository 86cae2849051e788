//! Peers of NetworkPolicies that mean more than their author thinks.

use std::net::IpAddr;

use super::{Code, Finding, names, pods};
use crate::cluster::{Cluster, NetworkPolicy, PeerKind, PolicyPeer};

/// A namespaceSelector and a podSelector as two items next to each other.
pub(super) fn or_instead_of_and(policy: &NetworkPolicy, findings: &mut Vec<Finding>) {
    let rules = policy.ingress.iter().chain(&policy.egress);
    for pair in rules.filter_map(|rule| rule.peers.as_deref()).flat_map(|peers| peers.windows(2)) {
        let namespaces_alone =
            |peer: &PolicyPeer| matches!(peer.kind, PeerKind::Pods { namespaces: Some(_), pods: None });
        let pods_alone =
            |peer: &PolicyPeer| matches!(peer.kind, PeerKind::Pods { namespaces: None, pods: Some(_) });
        if (namespaces_alone(&pair[0]) && pods_alone(&pair[1]))
            || (pods_alone(&pair[0]) && namespaces_alone(&pair[1]))
        {
            let message = format!(
                "{} names namespaceSelector and podSelector as separate peers, all pods of those namespaces and \
                 pods of its own namespace",
                policy.name
            );
            findings.push(Code::OrInsteadOfAnd.at(&pair[1].source, message));
        }
    }
}

/// Blocks that hold addresses of pods.
pub(super) fn blocks_of_pods(cluster: &Cluster, policy: &NetworkPolicy, findings: &mut Vec<Finding>) {
    let rules = policy.ingress.iter().chain(&policy.egress);
    for peer in rules.filter_map(|rule| rule.peers.as_ref()).flatten() {
        let PeerKind::Block { cidr, except } = &peer.kind else { continue };
        let is_in = |address: &IpAddr| {
            cidr.contains(address) && !except.iter().any(|except| except.contains(address))
        };
        let covered: Vec<_> = pods(cluster).filter(|pod| pod.addresses.iter().any(is_in)).collect();
        if !covered.is_empty() {
            let message = format!("{}: block {cidr} holds addresses of {}", policy.name, names(&covered));
            findings.push(Code::BlockCoversPods.at(&peer.source, message));
        }
    }
}
