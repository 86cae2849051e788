//! From policies to the lines of the rule sets of one node.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use weir_common::policy::{MAX_LINKS, MAX_RULES};

use super::{
    CompileError, Numbers, RuleKey,
    atoms::AtomId,
    groups::Groups,
    items::{Item, Items},
    lines::Line,
};
use crate::{
    cluster::{Action, Cluster, ClusterNetworkPolicy, NetworkPolicy, Tier},
    datapath::{Direction, RuleId, RuleOrigin, RuleSetId},
};

/// Most lines in one rule set.
const MAX_LINES: usize = MAX_RULES as usize;
/// Most lines for a group of pods in one direction, in rule sets that go on one after the other.
const MOST_LINES: usize = MAX_LINES * MAX_LINKS as usize;

/// The rule sets of one node, before identities are known.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Rule sets by the pods' group. A group without an entry has none in that direction.
    pub(super) by_group: BTreeMap<(usize, Direction), RuleSetId>,
    /// The rule sets.
    pub(super) rule_sets: BTreeMap<RuleSetId, Chain>,
    /// What their rules come from.
    pub(super) origins: BTreeMap<RuleId, RuleOrigin>,
}

/// A rule set.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) lines: Arc<[Line]>,
    /// The rule set that goes on after it.
    pub(super) next: Option<RuleSetId>,
    /// The first group that uses it.
    pub(super) group: usize,
}

/// What the policies say to one group of pods in one direction.
#[derive(Debug, Default)]
struct Tiers<'a> {
    admin: Vec<Arc<Item<'a>>>,
    policy: Vec<Arc<Item<'a>>>,
    isolating: Vec<&'a NetworkPolicy>,
    baseline: Vec<Arc<Item<'a>>>,
}

/// Tiers of the groups that live on the node, filled policy by policy.
struct Selection<'a, 'n> {
    local: HashSet<usize>,
    items: Items<'n>,
    tiers: BTreeMap<(usize, Direction), Tiers<'a>>,
}

impl Rules {
    /// Compiles the policies that select pods of `node`.
    pub(super) fn new(
        cluster: &Cluster,
        node: &str,
        groups: &Groups,
        numbers: &mut Numbers,
    ) -> Result<Self, CompileError> {
        let on_node = groups.pods.iter().filter(|(pod, _)| pod.node.as_deref() == Some(node));
        let local = on_node.map(|(_, group)| *group).collect();
        let mut selection =
            Selection { local, items: Items { groups, numbers: &mut *numbers }, tiers: BTreeMap::new() };
        let mut cluster_policies: Vec<_> = cluster.cluster_policies.values().collect();
        cluster_policies.sort_by_key(|policy| (policy.priority, &policy.name));
        cluster_policies.into_iter().for_each(|policy| selection.add_cluster_policy(policy));
        cluster.policies.values().for_each(|policy| selection.add_policy(policy));

        let mut rules = Self::default();
        for ((group, direction), tiers) in selection.tiers {
            let lines = tiers.lines(groups, group, direction, numbers, &mut rules.origins);
            if lines.is_empty() {
                continue;
            }
            if lines.len() > MOST_LINES {
                return Err(CompileError::TooManyRules {
                    pod: groups.pod_of(group).to_string(),
                    direction,
                    rules: lines.len(),
                    limit: MOST_LINES,
                    policies: rules.policies_of(&lines),
                });
            }
            if let Some(first) = rules.chain(&lines, group, numbers) {
                rules.by_group.insert((group, direction), first);
            }
        }
        Ok(rules)
    }

    /// Puts lines into rule sets that go on one after the other; gives the first.
    fn chain(&mut self, lines: &[Line], group: usize, numbers: &mut Numbers) -> Option<RuleSetId> {
        let mut next = None;
        for (base, link) in
            (0..).step_by(MAX_LINES).zip(lines.chunks(MAX_LINES)).collect::<Vec<_>>().into_iter().rev()
        {
            let relative = |line: &Line| match line.action {
                Action::Pass => Line { next: line.next - base, ..line.clone() },
                Action::Accept | Action::Deny => line.clone(),
            };
            let lines: Arc<[Line]> = link.iter().map(relative).collect();
            let id = numbers.rule_sets.number((Arc::clone(&lines), next));
            self.rule_sets.entry(id).or_insert(Chain { lines, next, group });
            next = Some(id);
        }
        next
    }

    /// The atoms that the rule sets name.
    pub(super) fn atoms(&self) -> HashSet<AtomId> {
        self.rule_sets.values().flat_map(|chain| atoms_of(&chain.lines)).collect()
    }

    /// The policies that `lines` come from, for people; a few of them when they are many.
    pub(super) fn policies_of(&self, lines: &[Line]) -> String {
        let origins = lines.iter().filter_map(|line| self.origins.get(&line.id));
        let names: BTreeSet<_> = origins.flat_map(RuleOrigin::policies).collect();
        let shown: Vec<_> = names.iter().take(5).cloned().collect();
        let more = names.len() - shown.len();
        shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }
}

/// The atoms that `lines` name, again and again.
pub(super) fn atoms_of(lines: &[Line]) -> impl Iterator<Item = AtomId> {
    let peers = lines.iter().map(|line| &*line.peers);
    peers.flat_map(|peers| peers.any_of.iter().flatten().chain(&peers.declares).copied())
}

impl<'a> Selection<'a, '_> {
    fn add_cluster_policy(&mut self, policy: &'a ClusterNetworkPolicy) {
        let subject = &policy.subject;
        let pods = subject.pods.clone().unwrap_or_default();
        let groups = self.local(self.items.groups.in_namespaces(&subject.namespaces, &pods));
        let rules = [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)];
        for (direction, rules) in rules.into_iter().filter(|_| !groups.is_empty()) {
            let items: Vec<_> = (0..)
                .zip(rules)
                .map(|(index, rule)| {
                    let origin = RuleOrigin::ClusterPolicy {
                        policy: policy.name.clone(),
                        ingress: direction.is_ingress(),
                        index,
                        name: rule.name.clone(),
                        source: rule.source.clone(),
                    };
                    Arc::new(self.items.of_cluster_policy(rule, direction, origin))
                })
                .collect();
            for group in &groups {
                let tiers = self.tiers.entry((*group, direction)).or_default();
                match policy.tier {
                    Tier::Admin => tiers.admin.extend_from_slice(&items),
                    Tier::Baseline => tiers.baseline.extend_from_slice(&items),
                }
            }
        }
    }

    fn add_policy(&mut self, policy: &'a NetworkPolicy) {
        let namespace = &policy.name.namespace;
        let groups = self.local(self.items.groups.in_namespace(namespace, &policy.pod_selector));
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

    /// Those of `groups` that live on the node.
    fn local(&self, groups: Vec<usize>) -> Vec<usize> {
        groups.into_iter().filter(|group| self.local.contains(group)).collect()
    }
}

impl Tiers<'_> {
    /// The lines in order. Adds what their rules come from to `origins`.
    fn lines(
        &self,
        groups: &Groups,
        group: usize,
        direction: Direction,
        numbers: &mut Numbers,
        origins: &mut BTreeMap<RuleId, RuleOrigin>,
    ) -> Vec<Line> {
        let declared = &groups.all[group].ports;
        let mut lines = Vec::new();
        let mut add = |item: &Item<'_>| {
            let id = numbers.rules.number(RuleKey::from(&item.origin));
            origins.entry(id).or_insert_with(|| item.origin.clone());
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
        if self.isolating.is_empty() {
            self.baseline.iter().for_each(|item| _ = add(item));
        } else {
            self.policy.iter().for_each(|item| _ = add(item));
            add(&Item::isolation(&self.isolating, direction));
        }
        let end = lines.len();
        for (number, line) in lines.iter_mut().enumerate().filter(|(_, line)| line.action == Action::Pass) {
            line.next = if number < admin { admin } else { end } as u32;
        }
        lines
    }
}
