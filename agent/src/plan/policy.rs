//! Where rule sets go.
//!
//! A rule set that stands in the maps with the same content stays where it is; only the `PEERS` entries of
//! identities that are new are added to it. Any other gets a new number and new runs. Equal rule sets
//! share a number, and equal bit vectors stand in `VECTORS` once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weir_common::policy::{
    IDENTITY_WORLD, MAX_PORT_STEPS, MAX_RULES, NO_POLICY, PeerKey, PortInterval, PortTable, Rule, RuleSet,
};

use super::{
    Change, Image, Sizes, TooLarge, Write,
    array::check,
    encode::{Base, base_of, base_of_live, encode_rules, padded, words_of},
    image::run,
    room::Room,
};
use crate::{
    datapath::{self, Datapath, IdentityId, RuleId, RuleOrigin, RuleSetId},
    shared_map::SharedMap,
};

/// What placing the rule sets of a datapath takes.
pub(super) struct Placed {
    /// What is known about them then.
    pub(super) known: Known,
    /// Writes that complete them, in order.
    pub(super) writes: Vec<Write>,
    /// `PEERS` entries that nothing uses after the switch.
    pub(super) stale: Vec<PeerKey>,
}

/// What a commit of this process has placed, so that the next one visits only what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Number in `RULE_SETS` of each rule set that was wanted.
    pub(super) numbers: BTreeMap<RuleSetId, u32>,
    /// Identities that packets are judged by.
    identities: Arc<BTreeSet<IdentityId>>,
    /// What is left beside them.
    room: Room,
}

/// Finds a place for the rule sets `wanted` of `desired`, where `before` is in force, as far as it is known.
pub(super) fn place(
    image: &Image,
    before: Option<(&Datapath, &Known)>,
    desired: &Datapath,
    wanted: &BTreeSet<RuleSetId>,
    sizes: &Sizes,
) -> Result<Placed, TooLarge> {
    let links = |first: &RuleSetId| std::iter::successors(Some(*first), |id| desired.rule_sets[id].next);
    // What goes on after a rule set stands before it does.
    let wanted: Vec<_> =
        wanted.iter().flat_map(|first| links(first).collect::<Vec<_>>().into_iter().rev()).collect();
    // What an identity says may have changed with the addresses that have it.
    let is_same = |before: &Datapath| before.identities == desired.identities;
    let same = before.filter(|(before, _)| is_same(before));
    let kept = same.map(|(before, known)| known.kept(before, desired, &wanted)).unwrap_or_default();
    let after = match same {
        Some((_, known)) => Arc::clone(&known.identities),
        None => identities(desired.identities.values().copied()),
    };
    let known = match before {
        Some((_, known)) => known.clone(),
        None => {
            let slots = image.identities.values().flat_map(|identity| identity.slots);
            Known {
                numbers: BTreeMap::new(),
                identities: identities(slots),
                room: Room::beside(image, sizes),
            }
        }
    };
    let mut placer = Placer::new(image, [known.identities, after], known.room, kept);
    for id in wanted {
        placer.place(id, &desired.rule_sets[&id], &desired.rules)?;
    }
    placer.finish(sizes)
}

/// Identities, and that of all other addresses.
fn identities(all: impl Iterator<Item = IdentityId>) -> Arc<BTreeSet<IdentityId>> {
    Arc::new(all.chain([IDENTITY_WORLD]).collect())
}

impl Known {
    /// What is left beside the rule sets.
    #[cfg(test)]
    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    /// The rule sets of `before` that stay what and where they are, by number.
    fn kept(&self, before: &Datapath, desired: &Datapath, wanted: &[RuleSetId]) -> BTreeMap<RuleSetId, u32> {
        let mut kept = BTreeMap::new();
        for id in wanted {
            let set = &desired.rule_sets[id];
            let is_whole = set.next.is_none_or(|next| kept.contains_key(&next));
            if let Some(number) = self.numbers.get(id)
                && is_whole
                && before.rule_sets.get(id) == Some(set)
            {
                kept.insert(*id, *number);
            }
        }
        kept
    }
}

/// `PEERS` entries of rule sets that no endpoint names.
pub(super) fn orphans(image: &Image) -> Vec<PeerKey> {
    let live = image.live_rule_sets();
    image.peers.keys().filter(|key| !live.contains(&key.rule_set)).copied().collect()
}

/// Which rules match, by identity, where that is not the default.
type Peers = BTreeMap<IdentityId, Vec<u64>>;

struct Placer<'a> {
    image: &'a Image,
    /// Identities that packets may be judged by before the switch, and after.
    identities: [Arc<BTreeSet<IdentityId>>; 2],
    /// Live rule sets that no wanted one has claimed.
    unclaimed: HashMap<Base, Vec<u32>>,
    /// Those that one has, but for its peers.
    claimed: Vec<u32>,
    /// The wanted rule sets so far: rules, peers and number by what else they share.
    placed: HashMap<Base, Vec<(Vec<Rule>, Peers, u32)>>,
    room: Room,
    /// `PEERS` as far as the wanted rule sets go.
    peers: BTreeMap<PeerKey, u32>,
    numbers: BTreeMap<RuleSetId, u32>,
    new_vectors: Vec<(u32, u64)>,
    new_ports: Vec<(u32, PortInterval)>,
    new_rules: Vec<(u32, Rule)>,
    new_rule_sets: Vec<(u32, RuleSet)>,
}

impl<'a> Placer<'a> {
    fn new(
        image: &'a Image,
        identities: [Arc<BTreeSet<IdentityId>>; 2],
        room: Room,
        kept: BTreeMap<RuleSetId, u32>,
    ) -> Self {
        let stays: BTreeSet<u32> = kept.values().copied().collect();
        let mut unclaimed: HashMap<Base, Vec<u32>> = HashMap::new();
        for number in image.live_rule_sets().difference(&stays) {
            if let Some(set) = image.rule_sets.get(*number as usize) {
                unclaimed.entry(base_of_live(image, set)).or_default().push(*number);
            }
        }
        Self {
            image,
            identities,
            unclaimed,
            claimed: Vec::new(),
            placed: HashMap::new(),
            room,
            peers: BTreeMap::new(),
            numbers: kept,
            new_vectors: Vec::new(),
            new_ports: Vec::new(),
            new_rules: Vec::new(),
            new_rule_sets: Vec::new(),
        }
    }

    fn place(
        &mut self,
        id: RuleSetId,
        set: &datapath::RuleSet,
        origins: &SharedMap<RuleId, RuleOrigin>,
    ) -> Result<(), TooLarge> {
        if self.numbers.contains_key(&id) {
            return Ok(());
        }
        let next = set.next.map_or(NO_POLICY, |next| self.numbers[&next]);
        check("one rule set (rules)", set.rules.len(), MAX_RULES)?;
        for table in &set.ports {
            check("one rule set (port intervals of a protocol)", table.len(), 1 << MAX_PORT_STEPS)?;
        }
        let words = words_of(set);
        let default = padded(&set.default_peers, words);
        let listed = set.peers.iter().filter(|(identity, _)| self.identities[1].contains(identity));
        let listed = listed.map(|(identity, bits)| (*identity, padded(bits, words)));
        let peers: Peers = listed.filter(|(_, vector)| *vector != default).collect();
        let rules = encode_rules(set, origins);
        let base = base_of(set, &rules, next);
        let same = self.placed.get(&base).into_iter().flatten();
        let same =
            same.filter(|(placed, of, _)| (placed, of) == (&rules, &peers)).map(|(.., number)| *number);
        let number = match same.min() {
            Some(number) => number,
            None => {
                let number =
                    self.claim(&base, &rules, &peers).unwrap_or_else(|| self.build(set, &rules, next));
                for (identity, vector) in &peers {
                    let vector = self.vector(vector);
                    self.peers.insert(PeerKey { rule_set: number, identity: *identity }, vector);
                }
                self.placed.entry(base).or_default().push((rules, peers, number));
                number
            }
        };
        self.numbers.insert(id, number);
        Ok(())
    }

    /// A live rule set that says the same, also to packets that are judged by the old identities.
    fn claim(&mut self, base: &Base, rules: &[Rule], peers: &Peers) -> Option<u32> {
        let image = self.image;
        let [before, after] = &self.identities;
        let candidates = self.unclaimed.get_mut(base)?;
        let position = candidates.iter().position(|number| {
            let live = &image.rule_sets[*number as usize];
            let default = image.vector(live.default_peers, live.words);
            let listed: BTreeMap<u32, u32> = image.peers_of(*number).collect();
            let same_peers = listed.keys().chain(peers.keys()).all(|identity| {
                // What readers of before cannot meet may differ if it is overwritten before the switch; what
                // readers after it cannot meet may differ anyway.
                let overwritten = !before.contains(identity) && peers.contains_key(identity);
                let old = listed.get(identity).map_or(default, |vector| image.vector(*vector, live.words));
                let new = peers.get(identity).map_or(default, Vec::as_slice);
                overwritten || !after.contains(identity) || old == new
            });
            same_peers && run(&image.rules, live.rules, rules.len() as u32) == rules
        })?;
        let number = candidates.remove(position);
        self.claimed.push(number);
        Some(number)
    }

    fn build(&mut self, set: &datapath::RuleSet, rules: &[Rule], next: u32) -> u32 {
        let words = words_of(set);
        let mut value = RuleSet {
            words,
            default_peers: self.vector(&padded(&set.default_peers, words)),
            rules: self.room.rules.take(rules.len() as u32),
            next,
            ..RuleSet::default()
        };
        self.new_rules.extend((value.rules..).zip(rules.iter().copied()));
        for (table, intervals) in value.ports.iter_mut().zip(&set.ports) {
            let len = intervals.len() as u32;
            *table = PortTable { offset: self.room.ports.take(len), len };
            for (index, (start, bits)) in (table.offset..).zip(intervals) {
                let vector = self.vector(&padded(bits, words));
                self.new_ports.push((index, PortInterval { start: u32::from(*start), vector }));
            }
        }
        let number = self.room.rule_sets.take(1);
        self.new_rule_sets.push((number, value));
        number
    }

    /// Where a vector stands, old or new.
    fn vector(&mut self, vector: &[u64]) -> u32 {
        self.room.name(vector, &mut self.new_vectors)
    }

    fn finish(mut self, sizes: &Sizes) -> Result<Placed, TooLarge> {
        for array in [&self.room.rule_sets, &self.room.rules, &self.room.ports, &self.room.vectors] {
            array.check()?;
        }
        let live = &self.image.peers;
        let new = self.peers.keys().filter(|key| !live.contains_key(key)).count();
        check("PEERS", live.len() + new, sizes.peers)?;
        // After all that may be used again has been taken.
        let gone: Vec<u32> = self.unclaimed.values().flatten().copied().collect();
        for number in &self.claimed {
            self.room.release_peers(self.image, *number);
        }
        for number in &gone {
            self.room.release(self.image, *number);
        }
        let former = self.claimed.iter().chain(&gone).flat_map(|number| {
            self.image.peers_of(*number).map(|(identity, _)| PeerKey { rule_set: *number, identity })
        });
        let stale: BTreeSet<_> = former.filter(|key| !self.peers.contains_key(key)).collect();
        let added = self.peers.into_iter().filter(|(key, vector)| live.get(key) != Some(vector)).collect();
        let writes = vec![
            Write::Vectors(self.new_vectors),
            Write::Ports(self.new_ports),
            Write::Rules(self.new_rules),
            Write::RuleSets(self.new_rule_sets),
            Write::Peers(Change::Put(added)),
        ];
        let [_, identities] = self.identities;
        let known = Known { numbers: self.numbers, identities, room: self.room };
        Ok(Placed { known, writes, stale: stale.into_iter().collect() })
    }
}
