//! From policies to the lines of the rule sets of one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weir_common::policy::{MAX_LINKS, MAX_RULES};

use super::{
    CompileError, Numbers, RuleKey,
    atoms::AtomId,
    groups::{Groups, NamedPort},
    items::{Item, Items},
    lines::Line,
};
use crate::{
    cluster::{Action, Cluster, ClusterNetworkPolicy, Name, NetworkPolicy, Tier},
    datapath::{Direction, RuleId, RuleOrigin, RuleSetId},
    shared_map::SharedMap,
    uses::Uses,
};

/// Most lines in one rule set.
const MAX_LINES: usize = MAX_RULES as usize;
/// Most lines for a group of pods in one direction, in rule sets that go on one after the other.
const MOST_LINES: usize = MAX_LINES * MAX_LINKS as usize;

/// The rule sets of one node, before identities are known. A copy costs next to nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Rule sets by the pods' group. A group without an entry has none in that direction.
    pub(super) by_group: SharedMap<(usize, Direction), RuleSetId>,
    /// The rule sets.
    pub(super) rule_sets: SharedMap<RuleSetId, Arc<Chain>>,
    /// What their rules come from.
    pub(super) origins: SharedMap<RuleId, RuleOrigin>,
    /// The atoms that their lines name.
    pub(super) atoms: Uses<AtomId>,
    /// By how many groups, and rule sets that go on in it, each rule set is used.
    rule_set_uses: Uses<RuleSetId>,
    /// In how many lines each rule is used.
    rule_uses: Uses<RuleId>,
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

/// Tiers of some groups, filled policy by policy.
struct Selection<'a, 'n> {
    items: Items<'n>,
    tiers: BTreeMap<(usize, Direction), Tiers<'a>>,
}

impl Rules {
    /// Compiles what the policies of `cluster` say to `groups` anew, and leaves what they say to others.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        all: &Groups,
        groups: &BTreeSet<usize>,
        numbers: &mut Numbers,
    ) -> Result<(), CompileError> {
        let tiers = tiers(cluster, all, groups, numbers);
        for (group, direction) in groups.iter().flat_map(|group| Direction::BOTH.map(|way| (*group, way))) {
            let lines = tiers
                .get(&(group, direction))
                .map(|tiers| tiers.lines(direction, &all.all[group].ports, numbers, &mut self.origins))
                .unwrap_or_default();
            if lines.len() > MOST_LINES {
                return Err(CompileError::TooManyRules {
                    pod: all.pod_of(group).to_string(),
                    direction,
                    rules: lines.len(),
                    limit: MOST_LINES,
                    policies: self.policies_of(&lines),
                });
            }
            // What both use stays in use.
            let former = self.by_group.get(&(group, direction)).copied();
            match self.begin(chain(&lines, group, numbers)) {
                Some(first) if Some(first) == former => {}
                Some(first) => drop(self.by_group.insert((group, direction), first)),
                None => drop(self.by_group.remove(&(group, direction))),
            }
            self.end(former);
        }
        Ok(())
    }

    /// Notes a use more of rule sets that go on one after the other; gives the first.
    fn begin(&mut self, links: Vec<(RuleSetId, Chain)>) -> Option<RuleSetId> {
        let first = links.first().map(|(id, _)| *id);
        for (id, chain) in links {
            if !self.rule_set_uses.begin(id) {
                // Those that go on after it are used by it.
                break;
            }
            for line in &*chain.lines {
                self.rule_uses.begin(line.id);
            }
            atoms_of(&chain.lines).for_each(|atom| _ = self.atoms.begin(atom));
            self.rule_sets.insert(id, Arc::new(chain));
        }
        first
    }

    /// Notes a use less of the rule set `first`; removes what is not used any more.
    fn end(&mut self, first: Option<RuleSetId>) {
        let mut next = first;
        while let Some(id) = next.take_if(|id| self.rule_set_uses.end(id)) {
            let Some(chain) = self.rule_sets.remove(&id) else { return };
            for line in &*chain.lines {
                if self.rule_uses.end(&line.id) {
                    self.origins.remove(&line.id);
                }
            }
            atoms_of(&chain.lines).for_each(|atom| _ = self.atoms.end(&atom));
            next = chain.next;
        }
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

/// Puts the lines of a group into rule sets that go on one after the other.
fn chain(lines: &[Line], group: usize, numbers: &mut Numbers) -> Vec<(RuleSetId, Chain)> {
    let mut links = Vec::new();
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
        links.push((id, Chain { lines, next, group }));
        next = Some(id);
    }
    links.reverse();
    links
}

/// The atoms that `lines` name, again and again.
pub(super) fn atoms_of(lines: &[Line]) -> impl Iterator<Item = AtomId> {
    let peers = lines.iter().map(|line| &*line.peers);
    peers.flat_map(|peers| peers.any_of.iter().flatten().chain(&peers.declares).copied())
}

/// What the policies of `cluster` say to `groups`.
fn tiers<'a>(
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
        let first = Name { namespace: namespace.to_owned(), name: String::new() };
        let policies = cluster.policies.iter_from(&first).take_while(|(name, _)| name.namespace == namespace);
        policies.for_each(|(_, policy)| selection.add_policy(policy, &groups));
    }
    let mut cluster_policies: Vec<_> = cluster.cluster_policies.values().collect();
    cluster_policies.sort_by_key(|policy| (policy.priority, &policy.name));
    cluster_policies.into_iter().for_each(|policy| selection.add_cluster_policy(policy, groups));
    selection.tiers
}

impl<'a> Selection<'a, '_> {
    fn add_cluster_policy(&mut self, policy: &'a ClusterNetworkPolicy, groups: &BTreeSet<usize>) {
        let is_subject = |group: &&usize| self.items.groups.is_in(**group, &policy.subject);
        let groups: Vec<_> = groups.iter().filter(is_subject).copied().collect();
        let rules = [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)];
        for (direction, rules) in rules {
            // Only what is used gets numbers: a pod that is isolated never comes to the last tier.
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
                        policy: policy.name.clone(),
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

impl Tiers<'_> {
    /// The lines in order, for pods that declare these ports. Adds what their rules come from to `origins`.
    fn lines(
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
