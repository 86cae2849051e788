//! Pods that policies leave open, or cut off from DNS.

use std::collections::BTreeMap;

use super::{
    Code, Finding,
    effect::{is_in, selects},
    names, pods,
};
use crate::cluster::{
    Action, Cluster, ClusterNetworkPolicy, Name, NetworkPolicy, Pod, PolicyPort, PortMatch, Protocol,
};

const DNS: u16 = 53;

/// Pods that no policy protects: one finding for each namespace.
pub(super) fn unprotected(cluster: &Cluster, findings: &mut Vec<Finding>) {
    let mut open = BTreeMap::<&str, Vec<&Pod>>::new();
    for pod in pods(cluster) {
        let isolated =
            cluster.policies.values().any(|policy| policy.isolates_ingress && selects(policy, pod));
        let restricted = cluster.cluster_policies.values().any(|policy| {
            policy.ingress.iter().any(|rule| rule.action == Action::Deny)
                && is_in(cluster, &policy.subject, pod)
        });
        if !isolated && !restricted {
            open.entry(&pod.name.namespace).or_default().push(pod);
        }
    }
    for pods in open.values() {
        findings.push(Code::UnprotectedPod.at(&pods[0].source, names(pods)));
    }
}

/// Pods that are isolated for egress and may not ask for names: one finding for each set of policies that
/// isolates them, where the first of these stands.
pub(super) fn without_dns(cluster: &Cluster, findings: &mut Vec<Finding>) {
    let mut cut_off = BTreeMap::<Vec<&Name>, Vec<&Pod>>::new();
    for pod in pods(cluster) {
        let isolating: Vec<&NetworkPolicy> = cluster
            .policies
            .values()
            .map(|policy| &**policy)
            .filter(|policy| policy.isolates_egress && selects(policy, pod))
            .collect();
        let allowed = isolating
            .iter()
            .flat_map(|policy| &policy.egress)
            .any(|rule| rule.ports.as_ref().is_none_or(|ports| any_is_dns(cluster, ports)));
        let accepted = || {
            let of_pod =
                cluster.cluster_policies.values().filter(|policy| is_in(cluster, &policy.subject, pod));
            of_pod.into_iter().any(|policy| accepts_dns(cluster, policy))
        };
        if !isolating.is_empty() && !allowed && !accepted() {
            cut_off.entry(isolating.iter().map(|policy| &policy.name).collect()).or_default().push(pod);
        }
    }
    for (policies, pods) in cut_off {
        let by: Vec<_> = policies.iter().map(ToString::to_string).collect();
        let message = format!("{} isolated for egress by {}", names(&pods), by.join(", "));
        findings.push(Code::NoDnsEgress.at(&cluster.policies[policies[0]].source, message));
    }
}

fn accepts_dns(cluster: &Cluster, policy: &ClusterNetworkPolicy) -> bool {
    let accepted = policy.egress.iter().filter(|rule| rule.action == Action::Accept);
    // What the Baseline tier accepts, isolation has refused before.
    policy.tier == crate::cluster::Tier::Admin
        && accepted.into_iter().any(|rule| rule.ports.as_ref().is_none_or(|ports| any_is_dns(cluster, ports)))
}

fn any_is_dns(cluster: &Cluster, ports: &[PolicyPort]) -> bool {
    ports.iter().any(|port| {
        port.protocol.is_none_or(|protocol| protocol == Protocol::Udp)
            && match &port.ports {
                PortMatch::All => true,
                PortMatch::Range(first, last) => (*first..=*last).contains(&DNS),
                PortMatch::Named(name) => pods(cluster).flat_map(|pod| &pod.ports).any(|declared| {
                    declared.name.as_ref() == Some(name)
                        && declared.protocol == Protocol::Udp
                        && declared.port == DNS
                }),
            }
    })
}
