//! Rules of a NetworkPolicy that change nothing.

use super::{Code, Finding, covers};
use crate::cluster::{Cluster, Labels, NetworkPolicy, PolicyRule};

/// Rules of a direction that is not among the policy types.
pub(super) fn without_type(policy: &NetworkPolicy, findings: &mut Vec<Finding>) {
    let directions = [
        ("ingress", "Ingress", policy.isolates_ingress, &policy.ingress),
        ("egress", "Egress", policy.isolates_egress, &policy.egress),
    ];
    for (field, kind, isolates, rules) in directions {
        if let Some(first) = rules.first().filter(|_| !isolates) {
            let message = format!("{} has {field} rules, but policyTypes without {kind}", policy.name);
            findings.push(Code::TypeMissing.at(&first.source, message));
        }
    }
}

/// Rules that allow nothing beyond what another rule of the policy allows. Of two that say the same, the
/// second one is shadowed.
pub(super) fn shadowed(cluster: &Cluster, policy: &NetworkPolicy, findings: &mut Vec<Finding>) {
    let none = Labels::new();
    let own = cluster.namespaces.get(&policy.name.namespace).map_or(&none, |namespace| &namespace.labels);
    for (field, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        for (index, rule) in rules.iter().enumerate() {
            let other = rules.iter().enumerate().find(|(other_index, other)| {
                *other_index != index
                    && covers(other, rule, own)
                    && (*other_index < index || !covers(rule, other, own))
            });
            if let Some((other_index, other)) = other {
                let message = format!(
                    "{} {field}[{index}] allows nothing beyond {field}[{other_index}] ({})",
                    policy.name, other.source
                );
                findings.push(Code::RuleShadowed.at(&rule.source, message));
            }
        }
    }
}

fn covers(a: &PolicyRule, b: &PolicyRule, own: &Labels) -> bool {
    covers::peers(a.peers.as_deref(), b.peers.as_deref(), own)
        && covers::ports(a.ports.as_deref(), b.ports.as_deref())
}
