//! Stable numbers: the same content has the same number from one compilation to the next.
//!
//! The kernel maps name identities, rule sets, rules and services by number. What did not change must
//! keep its number, or else every commit would rewrite everything.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::policy::{NO_POLICY, RULE_FIRST};

use super::{
    atoms::{Atom, AtomId},
    identity_numbers::IdentityNumbers,
    lines::Line,
    rules::atoms_of,
};
use crate::{
    cluster::{Name, Protocol},
    datapath::{Datapath, IdentityId, RuleOrigin, RuleSetId},
    shared_map::SharedMap,
};

/// The numbers in use on one node.
///
/// [`compile`](super::compile) only ever hands out; once a datapath is in force and its predecessor gone,
/// [`retain`](Numbers::retain) frees what it does not name. A commit that fails in between leaves the numbers
/// of the old revision untouched.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// What policies distinguish peers by.
    pub(super) atoms: Interner<Atom>,
    /// Sets of atoms.
    pub(super) identities: IdentityNumbers,
    /// Rule sets: their lines, and what goes on after them.
    pub(super) rule_sets: Interner<(Arc<[Line]>, Option<RuleSetId>)>,
    /// Rules for people.
    pub rules: Interner<RuleKey>,
    /// Service ports.
    pub services: Interner<ServicePortKey>,
}

/// What a rule is known by: its place in its policy. Its place in the file may shift without it being another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleKey {
    /// An item of a NetworkPolicy: policy, whether of its ingress list, number.
    Policy(Name, bool, usize),
    /// A rule of a ClusterNetworkPolicy: policy, whether of its ingress list, number.
    ClusterPolicy(String, bool, usize),
    /// The isolation by these NetworkPolicies, for ingress or egress.
    Isolation(bool, BTreeSet<Name>),
}

/// What a service port is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortKey {
    /// The service.
    pub service: Name,
    /// Port on the service's addresses.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Gives each content a number of its own, and takes it back when told.
#[derive(Clone, Debug)]
pub struct Interner<T> {
    numbers: SharedMap<T, u32>,
    contents: SharedMap<u32, T>,
    next: u32,
    free: VecDeque<u32>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            atoms: Interner::new(0),
            identities: IdentityNumbers::default(),
            rule_sets: Interner::new(NO_POLICY + 1),
            rules: Interner::new(RULE_FIRST),
            services: Interner::new(1),
        }
    }
}

impl Numbers {
    /// Frees every number that `datapath` does not name. To be called when `datapath` is in force and nothing
    /// older is.
    pub fn retain(&mut self, datapath: &Datapath) {
        self.retain_policy(datapath);
        let services: BTreeSet<_> = datapath.frontends.values().map(|service| service.id).collect();
        self.services.retain(|_, number| services.contains(&number));
    }

    /// The same, but for service ports.
    pub(super) fn retain_policy(&mut self, datapath: &Datapath) {
        self.rule_sets.retain(|_, number| datapath.rule_sets.contains_key(&number));
        let atoms = self.rule_sets.iter().flat_map(|((lines, _), _)| atoms_of(lines)).collect();
        self.retain_peers(&datapath.identities, &atoms);
        self.rules.retain(|_, number| datapath.rules.contains_key(&number));
    }

    /// Frees every number of atoms and identities but these.
    pub(super) fn retain_peers(
        &mut self,
        identities: &SharedMap<IpNet, IdentityId>,
        atoms: &HashSet<AtomId>,
    ) {
        self.atoms.retain(|_, number| atoms.contains(&number));
        self.identities.retain(&identities.values().copied().collect(), atoms);
    }
}

impl From<&RuleOrigin> for RuleKey {
    fn from(origin: &RuleOrigin) -> Self {
        match origin {
            RuleOrigin::Policy { policy, ingress, index, .. } => {
                Self::Policy(policy.clone(), *ingress, *index)
            }
            RuleOrigin::ClusterPolicy { policy, ingress, index, .. } => {
                Self::ClusterPolicy(policy.clone(), *ingress, *index)
            }
            RuleOrigin::Isolation { ingress, policies } => {
                Self::Isolation(*ingress, policies.iter().map(|(name, _)| name.clone()).collect())
            }
        }
    }
}

impl<T: Ord + Clone> Interner<T> {
    /// An empty one whose first number is `first`.
    pub fn new(first: u32) -> Self {
        Self {
            numbers: SharedMap::default(),
            contents: SharedMap::default(),
            next: first,
            free: VecDeque::new(),
        }
    }

    /// The number of `content`: the one it has, or else the one that was freed longest ago, or else a new one.
    pub fn number(&mut self, content: T) -> u32 {
        if let Some(number) = self.numbers.get(&content) {
            return *number;
        }
        let number = self.free.pop_front().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.contents.insert(number, content.clone());
        self.numbers.insert(content, number);
        number
    }

    /// Gives each content the number that it had. Numbers between them that nobody has are free.
    pub fn restore(&mut self, numbered: impl IntoIterator<Item = (T, u32)>) {
        let first = self.next;
        for (content, number) in numbered {
            if number >= first && self.numbers.get(&content).is_none() && !self.contents.contains_key(&number)
            {
                self.next = self.next.max(number + 1);
                self.contents.insert(number, content.clone());
                self.numbers.insert(content, number);
            }
        }
        self.free.extend((first..self.next).filter(|number| !self.contents.contains_key(number)));
    }

    /// Frees the numbers of all content that `keep` refuses.
    pub fn retain(&mut self, mut keep: impl FnMut(&T, u32) -> bool) {
        // In the order of the numbers, so that the same history gives the same ones.
        let freed: Vec<_> = self
            .contents
            .iter()
            .filter(|(number, content)| !keep(content, **number))
            .map(|(n, _)| *n)
            .collect();
        self.free(freed);
    }

    /// Frees these numbers.
    pub fn free(&mut self, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            if let Some(content) = self.contents.remove(&number) {
                self.numbers.remove(&content);
                self.free.push_back(number);
            }
        }
    }

    /// Content and number of all that is in use.
    pub fn iter(&self) -> impl Iterator<Item = (&T, u32)> {
        self.contents.iter().map(|(number, content)| (content, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_content_keeps_its_number() {
        let mut numbers = Interner::new(16);
        assert_eq!(numbers.number("a"), 16);
        assert_eq!(numbers.number("b"), 17);
        assert_eq!(numbers.number("a"), 16);
    }

    #[test]
    fn content_has_the_number_again_that_it_had_before_a_restart() {
        let mut numbers = Interner::new(16);
        // What cannot have been given out is not believed.
        numbers.restore([("b", 18), ("a", 17), ("a", 20), ("c", 18), ("d", 3)]);
        assert_eq!(["a", "b", "c", "d"].map(|content| numbers.number(content)), [17, 18, 16, 19]);
    }

    #[test]
    fn freed_numbers_come_back_oldest_first() {
        let mut numbers = Interner::new(1);
        for content in ["a", "b", "c"] {
            numbers.number(content);
        }
        numbers.retain(|content, _| *content == "a" || *content == "c");
        numbers.retain(|content, _| *content == "c");
        assert_eq!(numbers.number("c"), 3);
        assert_eq!(numbers.number("d"), 2);
        assert_eq!(numbers.number("e"), 1);
        assert_eq!(numbers.number("f"), 4);
    }
}
