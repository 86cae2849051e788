//! What the maps hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::{
    endpoint::Endpoint,
    policy::{Identity, NO_POLICY, PeerKey, PortInterval, Rule, RuleSet},
    service::{self, Service},
    state::State,
};

use super::{Change, Family, Member, PerFamily, SourceRange, Write};
use crate::{
    datapath::{Frontend, Ring},
    shared_map::SharedMap,
};

/// The contents of the maps that a commit writes. It is read back from the kernel when an agent starts,
/// and after that follows every write; there is no other record of what is where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `STATE`.
    pub state: State,
    /// `ENDPOINTS_*`.
    pub endpoints: SharedMap<IpAddr, Endpoint>,
    /// `IDENTITIES_*`.
    pub identities: SharedMap<IpNet, Identity>,
    /// `PEERS`.
    pub peers: SharedMap<PeerKey, u32>,
    /// `RULE_SETS`; elements beyond the end are free.
    pub rule_sets: Vec<RuleSet>,
    /// `PORTS`.
    pub ports: Vec<PortInterval>,
    /// `VECTORS`.
    pub vectors: Vec<u64>,
    /// `RULES`.
    pub rules: Vec<Rule>,
    /// `FRONTENDS_*`.
    pub frontends: SharedMap<Frontend, Service>,
    /// `RINGS_*`: what was written where, as far as a frontend may name it.
    pub rings: PerFamily<BTreeMap<service::Ring, Arc<Ring>>>,
    /// `MEMBERS_*`.
    pub members: SharedMap<Member, u32>,
    /// `SOURCE_RANGES_*`.
    pub sources: SharedMap<SourceRange, ()>,
}

impl Image {
    /// The rule sets that packets are judged by: those that endpoints name, and what goes on after them.
    pub fn live_rule_sets(&self) -> BTreeSet<u32> {
        self.with_next(self.endpoints.values().flat_map(|endpoint| [endpoint.ingress, endpoint.egress]))
    }

    /// These rule sets and those that go on after them.
    pub(super) fn with_next(&self, first: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for mut number in first {
            while number != NO_POLICY && found.insert(number) {
                number = self.rule_sets.get(number as usize).map_or(NO_POLICY, |set| set.next);
            }
        }
        found
    }

    /// What `PEERS` says about a rule set: index of the vector by identity.
    pub fn peers_of(&self, rule_set: u32) -> impl Iterator<Item = (u32, u32)> {
        let first = self.peers.iter_from(&PeerKey { rule_set, identity: 0 });
        let its = first.take_while(move |(key, _)| key.rule_set == rule_set);
        its.map(|(key, vector)| (key.identity, *vector))
    }

    /// The vector of `words` words at an index; shorter when the map ends before.
    pub fn vector(&self, index: u32, words: u32) -> &[u64] {
        run(&self.vectors, index, words)
    }

    /// What stands where a frontend of the family says that a ring is; `None` for an empty ring, and where
    /// there is nothing whole.
    pub fn ring(&self, family: Family, at: service::Ring) -> Option<&Arc<Ring>> {
        self.rings.get(family).get(&at)
    }

    /// Follows a write.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Vectors(elements) => store(&mut self.vectors, elements, 0),
            Write::Ports(elements) => store(&mut self.ports, elements, PortInterval::default()),
            Write::Rules(elements) => store(&mut self.rules, elements, Rule::default()),
            Write::RuleSets(elements) => store(&mut self.rule_sets, elements, RuleSet::default()),
            Write::Rings(family, rings) => store_rings(self.rings.get_mut(*family), *family, rings),
            Write::Peers(change) => change_map(&mut self.peers, change),
            Write::Identities(change) => change_map(&mut self.identities, change),
            Write::Endpoints(change) => change_map(&mut self.endpoints, change),
            Write::Frontends(change) => change_map(&mut self.frontends, change),
            Write::Members(change) => change_map(&mut self.members, change),
            Write::Sources(change) => change_map(&mut self.sources, change),
            Write::State(state) => self.state = *state,
        }
    }

    /// What undoes a write that is about to be applied to this image, whether it then succeeds, fails, or
    /// stops half-way. Nothing for array elements: a plan only writes those that nothing refers to.
    pub fn inverse(&self, write: &Write) -> Vec<Write> {
        match write {
            Write::Vectors(_) | Write::Ports(_) | Write::Rules(_) | Write::RuleSets(_) | Write::Rings(..) => {
                Vec::new()
            }
            Write::Peers(change) => inverse(&self.peers, change).map(Write::Peers).into(),
            Write::Identities(change) => inverse(&self.identities, change).map(Write::Identities).into(),
            Write::Endpoints(change) => inverse(&self.endpoints, change).map(Write::Endpoints).into(),
            Write::Frontends(change) => inverse(&self.frontends, change).map(Write::Frontends).into(),
            Write::Members(change) => inverse(&self.members, change).map(Write::Members).into(),
            Write::Sources(change) => inverse(&self.sources, change).map(Write::Sources).into(),
            Write::State(_) => vec![Write::State(self.state)],
        }
    }
}

/// The elements `index..index + len`, as far as there are any.
pub(super) fn run<T>(elements: &[T], index: u32, len: u32) -> &[T] {
    let start = (index as usize).min(elements.len());
    let end = start.saturating_add(len as usize).min(elements.len());
    &elements[start..end]
}

fn store<T: Clone>(array: &mut Vec<T>, elements: &[(u32, T)], unused: T) {
    let end = elements.iter().map(|(index, _)| *index as usize + 1).max().unwrap_or(0);
    if end > array.len() {
        array.resize(end, unused);
    }
    for (index, value) in elements {
        array[*index as usize] = value.clone();
    }
}

/// Notes rings, and forgets those that they are written over.
fn store_rings(
    rings: &mut BTreeMap<service::Ring, Arc<Ring>>,
    family: Family,
    written: &[(service::Ring, Arc<Ring>)],
) {
    for (at, ring) in written {
        let end = service::Ring { offset: at.offset + family.elements(*at, ring), len: 0 };
        while let Some((before, content)) = rings.range(..end).next_back()
            && before.offset + family.elements(*before, content) > at.offset
        {
            let before = *before;
            rings.remove(&before);
        }
        rings.insert(*at, Arc::clone(ring));
    }
}

fn change_map<K: Ord + Copy, V: Copy>(map: &mut SharedMap<K, V>, change: &Change<K, V>) {
    match change {
        Change::Put(elements) => map.extend(elements.iter().copied()),
        Change::Delete(keys) => keys.iter().for_each(|key| {
            map.remove(key);
        }),
    }
}

/// First what was there before is put back, then what is new is removed.
fn inverse<K: Ord + Copy, V: Copy>(map: &SharedMap<K, V>, change: &Change<K, V>) -> [Change<K, V>; 2] {
    let keys: Vec<K> = match change {
        Change::Put(elements) => elements.iter().map(|(key, _)| *key).collect(),
        Change::Delete(keys) => keys.clone(),
    };
    let (old, new): (Vec<K>, Vec<K>) = keys.into_iter().partition(|key| map.contains_key(key));
    [Change::Put(old.into_iter().map(|key| (key, map[&key])).collect()), Change::Delete(new)]
}
