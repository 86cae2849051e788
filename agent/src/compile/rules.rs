//! From policies to the lines of the rule sets of one node.

use std::{collections::BTreeSet, sync::Arc};

use weir_common::policy::{MAX_LINKS, MAX_RULES};

use super::{CompileError, Numbers, atoms::AtomId, groups::Groups, lines::Line, tiers::tiers};
use crate::{
    cluster::{Action, Cluster},
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
