//! Identities of addresses.
//!
//! Every prefix that anything is known about is visited, the shorter before the longer inside it. What
//! blocks an address matches is that of the prefix around it, changed by the blocks that begin or are
//! excepted here; a pod's or node's address matches what the pod or node matches as well.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use weir_common::policy::IDENTITY_WORLD;

use super::{
    Numbers,
    atoms::{Atom, AtomId, Atoms},
    groups::Groups,
};
use crate::{cluster::Cluster, datapath::IdentityId, shared_map::SharedMap};

/// Who has which identity, and what each is.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Identity by prefix, longest match. A prefix that would say what the one around it says has no entry.
    pub(super) by_prefix: SharedMap<IpNet, IdentityId>,
    /// The identities that match something.
    pub(super) all: Vec<IdentityId>,
    /// By atom: the identities that match it, by index in `all`, ascending.
    pub(super) matching: HashMap<AtomId, Vec<usize>>,
}

/// What is known about a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// A block begins.
    Block(AtomId),
    /// An exception of a block.
    Except(AtomId),
    /// A pod or node, with its set of atoms.
    Owner(usize),
    /// Addresses of services, with their identity.
    Service(IdentityId),
}

/// What an address is; a set of atoms by its index in [`Sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Set(usize),
    Service(IdentityId),
}

/// A prefix around the one that is visited.
#[derive(Clone, Copy, Debug)]
struct Around {
    prefix: IpNet,
    blocks: usize,
    service: Option<IdentityId>,
    class: Class,
}

impl Identities {
    /// Identifies the addresses of `cluster` by the atoms that are `used`; those of `services` that no pod or
    /// node has are known.
    pub(super) fn new(
        cluster: &Cluster,
        groups: &Groups,
        services: &SharedMap<IpNet, IdentityId>,
        used: &HashSet<AtomId>,
        numbers: &mut Numbers,
    ) -> Self {
        let mut sets = Sets::default();
        let mut marks = marks(cluster, groups, &Atoms::new(numbers, used), &mut sets);
        marks.extend(services.iter().map(|(prefix, identity)| (*prefix, Mark::Service(*identity))));
        marks.sort_unstable();
        let classes = visit(&marks, &mut sets);

        let mut prefixes: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, class) in &classes {
            if let Class::Set(set) = class
                && *set != Sets::EMPTY
            {
                *prefixes.entry(*set).or_default() += 1;
            }
        }
        let counted: Vec<_> = prefixes.iter().map(|(set, count)| (sets.sets[*set].clone(), *count)).collect();
        let all = numbers.identities.assign(&counted, used);

        let mut matching: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (set, _)) in counted.iter().enumerate() {
            set.iter().for_each(|atom| matching.entry(*atom).or_default().push(index));
        }
        let number: HashMap<_, _> = prefixes.keys().copied().zip(all.iter().copied()).collect();
        let identity = |class| match class {
            Class::Set(Sets::EMPTY) => IDENTITY_WORLD,
            Class::Set(set) => number[&set],
            Class::Service(identity) => identity,
        };
        let by_prefix = classes.into_iter().map(|(prefix, class)| (prefix, identity(class))).collect();
        Self { by_prefix, all, matching }
    }
}

/// What policies and their peers say about prefixes.
fn marks(cluster: &Cluster, groups: &Groups, atoms: &Atoms<'_>, sets: &mut Sets) -> Vec<(IpNet, Mark)> {
    let mut marks = Vec::new();
    for (id, atom) in &atoms.0 {
        if let Atom::Block(cidr, except) = atom {
            marks.push((*cidr, Mark::Block(*id)));
            marks.extend(except.iter().map(|except| (*except, Mark::Except(*id))));
        }
    }
    let of_group: Vec<_> = atoms.by_group(groups).into_iter().map(|set| sets.number(set)).collect();
    for (pod, group) in &groups.pods {
        let owner = Mark::Owner(of_group[*group]);
        marks.extend(pod.addresses.iter().map(|address| (IpNet::from(*address), owner)));
    }
    for node in cluster.nodes.values() {
        let owner = Mark::Owner(sets.number(atoms.of_node(&node.labels)));
        marks.extend(node.addresses.iter().map(|address| (IpNet::from(*address), owner)));
    }
    marks
}

/// The class of each prefix that differs from the one around it.
fn visit(marks: &[(IpNet, Mark)], sets: &mut Sets) -> Vec<(IpNet, Class)> {
    let mut classes = Vec::new();
    let mut around: Vec<Around> = Vec::new();
    for here in marks.chunk_by(|a, b| a.0 == b.0) {
        let prefix = here[0].0;
        while around.last().is_some_and(|around| !around.prefix.contains(&prefix)) {
            around.pop();
        }
        let outer = around.last().copied().unwrap_or(Around {
            prefix,
            blocks: Sets::EMPTY,
            service: None,
            class: Class::Set(Sets::EMPTY),
        });
        let (mut begin, mut except) = (Vec::new(), Vec::new());
        let (mut owned, mut service) = (None, outer.service);
        for (_, mark) in here {
            match *mark {
                Mark::Block(atom) => begin.push(atom),
                Mark::Except(atom) => except.push(atom),
                Mark::Owner(set) => owned = Some(owned.map_or(set, |other| sets.union(set, other))),
                Mark::Service(identity) => service = Some(identity),
            }
        }
        let blocks = sets.changed(outer.blocks, &begin, &except);
        let class = match (owned, service) {
            (Some(owned), _) => Class::Set(sets.union(blocks, owned)),
            (None, Some(identity)) => Class::Service(identity),
            (None, None) => Class::Set(blocks),
        };
        if class != outer.class {
            classes.push((prefix, class));
        }
        around.push(Around { prefix, blocks, service, class });
    }
    classes
}

/// Sets of atoms, sorted, each by its index.
#[derive(Debug)]
struct Sets {
    sets: Vec<Vec<AtomId>>,
    numbers: HashMap<Vec<AtomId>, usize>,
    unions: HashMap<(usize, usize), usize>,
}

impl Default for Sets {
    fn default() -> Self {
        let mut sets = Self { sets: Vec::new(), numbers: HashMap::new(), unions: HashMap::new() };
        sets.number(Vec::new());
        sets
    }
}

impl Sets {
    const EMPTY: usize = 0;

    fn number(&mut self, set: Vec<AtomId>) -> usize {
        if let Some(number) = self.numbers.get(&set) {
            return *number;
        }
        self.sets.push(set.clone());
        self.numbers.insert(set, self.sets.len() - 1);
        self.sets.len() - 1
    }

    fn union(&mut self, one: usize, other: usize) -> usize {
        if let Some(union) = self.unions.get(&(one, other)) {
            return *union;
        }
        let union: BTreeSet<_> = self.sets[one].iter().chain(&self.sets[other]).copied().collect();
        let union = self.number(union.into_iter().collect());
        self.unions.insert((one, other), union);
        union
    }

    /// The blocks of a prefix where these blocks begin and are excepted, inside one with the blocks `outer`.
    fn changed(&mut self, outer: usize, begin: &[AtomId], except: &[AtomId]) -> usize {
        if begin.is_empty() && except.is_empty() {
            return outer;
        }
        let mut blocks: BTreeSet<_> = self.sets[outer].iter().chain(begin).copied().collect();
        blocks.retain(|block| !except.contains(block));
        self.number(blocks.into_iter().collect())
    }
}
