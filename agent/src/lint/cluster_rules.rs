//! Rules of ClusterNetworkPolicies that are never reached.

use super::{Code, Finding, covers};
use crate::cluster::{Action, Cluster, ClusterNetworkPolicy, ClusterRule, Tier};

/// Rules before which another one decides everything that they are about: one of the same tier, whatever it
/// says, or one of the Admin tier that does not pass to a rule of the Baseline tier.
pub(super) fn shadowed(cluster: &Cluster, findings: &mut Vec<Finding>) {
    let mut policies: Vec<_> = cluster.cluster_policies.values().collect();
    policies.sort_by_key(|policy| (policy.tier != Tier::Admin, policy.priority, &policy.name));
    for ingress in [true, false] {
        let rules: Vec<_> = policies.iter().flat_map(|policy| numbered(policy, ingress)).collect();
        for (position, weaker) in rules.iter().enumerate() {
            let stronger = rules[..position].iter().find(|stronger| stronger.shadows(weaker));
            if let Some(stronger) = stronger {
                let message = format!("{weaker} comes after {stronger} ({})", stronger.rule.source);
                findings.push(Code::ClusterRuleShadowed.at(&weaker.rule.source, message));
            }
        }
    }
}

struct Numbered<'a> {
    policy: &'a ClusterNetworkPolicy,
    ingress: bool,
    index: usize,
    rule: &'a ClusterRule,
}

fn numbered(policy: &ClusterNetworkPolicy, ingress: bool) -> impl Iterator<Item = Numbered<'_>> {
    let rules = if ingress { &policy.ingress } else { &policy.egress };
    rules.iter().enumerate().map(move |(index, rule)| Numbered { policy, ingress, index, rule })
}

impl Numbered<'_> {
    fn shadows(&self, weaker: &Self) -> bool {
        let decides = self.policy.tier == weaker.policy.tier || self.rule.action != Action::Pass;
        decides
            && covers::pod_set(&self.policy.subject, &weaker.policy.subject)
            && covers::cluster_peers(&self.rule.peers, &weaker.rule.peers)
            && covers::ports(self.rule.ports.as_deref(), weaker.rule.ports.as_deref())
    }
}

impl std::fmt::Display for Numbered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = if self.ingress { "ingress" } else { "egress" };
        write!(f, "{} {list}[{}] ({:?})", self.policy.name, self.index, self.rule.action)
    }
}
