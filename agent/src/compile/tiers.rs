//! What policies say to a group of pods, tier by tier.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Numbers, RuleKey,
    groups::{Groups, NamedPort},
    items::{Item, Items},
    lines::Line,
};
use crate::{
    cluster::{Action, Cluster, ClusterNetworkPolicy, Name, NetworkPolicy, Tier},
    datapath::{Direction, RuleId, RuleOrigin},
    shared_map::SharedMap,
};

/// What the policies say to one group of pods in one direction.
#[derive(Debug, Default)]
pub(super) struct Tiers<'a> {
    admin: Vec<Arc<Item<'a>>>,
    policy: Vec<Arc<Item<'a>>>,
    isolating: Vec<&'a NetworkPolicy>,
    /// None where policies isolate.
    baseline: Vec<Arc<Item<'a>>>,
}

/// What the policies of `cluster` say to `groups`.
pub(super) fn tiers<'a>(
    cluster: &'a Cluster,
    all: &'a Groups,
    groups: &BTreeSet<usize>,
    numbers: &mut Numbers,
) -> BTreeMap<(usize, Direction), Tiers<'a>> {
    let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for group in groups {
        by_namespace.entry(&all.pod_of(*group).namespace).or_default().push(*group);
    }
    let mut selection = Selection { items: Items { groups: all, numbers }, tiers: BTreeMap::new() };
    for (namespace, groups) in by_namespace {
        let first = Name { namespace: namespace.into(), name: "".into() };
        let policies =
            cluster.policies.iter_from(&first).take_while(|(name, _)| *name.namespace == *namespace);
        policies.for_each(|(_, policy)| selection.add_policy(policy, &groups));
    }
    let mut cluster_policies: Vec<_> = cluster.cluster_policies.values().collect();
    cluster_policies.sort_by_key(|policy| (policy.priority, &policy.name));
    cluster_policies.into_iter().for_each(|policy| selection.add_cluster_policy(policy, groups));
    selection.tiers
}

impl Tiers<'_> {
    /// The lines in order, for pods that declare these ports. Adds what their rules come from to `origins`.
    pub(super) fn lines(
        &self,
        direction: Direction,
        declared: &BTreeSet<NamedPort>,
        numbers: &mut Numbers,
        origins: &mut SharedMap<RuleId, RuleOrigin>,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut add = |item: &Item<'_>| {
            let id = numbers.rules.number(RuleKey::from(&item.origin));
            // Where its policy stands may be all that has changed.
            if origins.get(&id) != Some(&item.origin) {
                origins.insert(id, item.origin.clone());
            }
            let resolved = item.resolved(declared);
            lines.extend(resolved.map(|(peers, ports)| Line {
                action: item.action,
                next: 0,
                id,
                peers,
                ports,
            }));
            lines.len()
        };
        let admin = self.admin.iter().map(|item| add(item)).last().unwrap_or(0);
        self.policy.iter().chain(&self.baseline).for_each(|item| _ = add(item));
        if !self.isolating.is_empty() {
            add(&Item::isolation(&self.isolating, direction));
        }
        let end = lines.len();
        for (number, line) in lines.iter_mut().enumerate().filter(|(_, line)| line.action == Action::Pass) {
            line.next = if number < admin { admin } else { end } as u32;
        }
        lines
    }
}

/// Tiers of some groups, filled policy by policy.
struct Selection<'a, 'n> {
    items: Items<'n>,
    tiers: BTreeMap<(usize, Direction), Tiers<'a>>,
}

impl<'a> Selection<'a, '_> {
    fn add_cluster_policy(&mut self, policy: &'a ClusterNetworkPolicy, groups: &BTreeSet<usize>) {
        let is_subject = |group: &&usize| self.items.groups.is_in(**group, &policy.subject);
        let groups: Vec<_> = groups.iter().filter(is_subject).copied().collect();
        let rules = [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)];
        for (direction, rules) in rules {
            // A pod that is isolated never comes to the last tier.
            let is_judged = |group: &&usize| {
                let tiers = self.tiers.get(&(**group, direction));
                policy.tier == Tier::Admin || tiers.is_none_or(|tiers| tiers.isolating.is_empty())
            };
            let groups: Vec<_> = groups.iter().filter(is_judged).copied().collect();
            if groups.is_empty() {
                continue;
            }
            let items: Vec<_> = (0..)
                .zip(rules)
                .map(|(index, rule)| {
                    let origin = RuleOrigin::ClusterPolicy {
                        policy: policy.name.to_string(),
                        ingress: direction.is_ingress(),
                        index,
                        name: rule.name.clone(),
                        source: rule.source.clone(),
                    };
                    Arc::new(self.items.of_cluster_policy(rule, direction, origin))
                })
                .collect();
            for group in groups {
                let tiers = self.tiers.entry((group, direction)).or_default();
                match policy.tier {
                    Tier::Admin => tiers.admin.extend_from_slice(&items),
                    Tier::Baseline => tiers.baseline.extend_from_slice(&items),
                }
            }
        }
    }

    fn add_policy(&mut self, policy: &'a NetworkPolicy, groups: &[usize]) {
        let namespace = &policy.name.namespace;
        let is_selected = |group: &&usize| policy.pod_selector.matches(self.items.groups.labels_of(**group));
        let groups: Vec<_> = groups.iter().filter(is_selected).copied().collect();
        let rules = [
            (Direction::Ingress, &policy.ingress, policy.isolates_ingress),
            (Direction::Egress, &policy.egress, policy.isolates_egress),
        ];
        for (direction, rules, _) in rules.into_iter().filter(|rules| rules.2 && !groups.is_empty()) {
            let items: Vec<_> = (0..)
                .zip(rules)
                .map(|(index, rule)| {
                    let origin = RuleOrigin::Policy {
                        policy: policy.name.clone(),
                        ingress: direction.is_ingress(),
                        index,
                        source: rule.source.clone(),
                    };
                    Arc::new(self.items.of_policy(rule, namespace, direction, origin))
                })
                .collect();
            for group in &groups {
                let tiers = self.tiers.entry((*group, direction)).or_default();
                tiers.isolating.push(policy);
                tiers.policy.extend_from_slice(&items);
            }
        }
    }
}
