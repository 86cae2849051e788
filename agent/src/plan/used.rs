//! What is in use of the maps.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Range,
};

use weir_common::policy::RuleSet;

use super::{Family, Image, array::Array, image::run};

/// Elements in use, by map, of all maps that an image tells about.
pub fn in_use(image: &Image) -> BTreeMap<&'static str, u64> {
    let mut used = Used::default();
    for number in image.live_rule_sets() {
        if let Some(set) = image.rule_sets.get(number as usize) {
            used.add(image, number, set);
        }
    }
    let elements = |ranges: Vec<Range<u32>>| {
        let distinct = Array::new("", u32::MAX, ranges);
        distinct.needed()
    };
    let mut in_use = BTreeMap::from([
        ("RULE_SETS", elements(used.rule_sets)),
        ("RULES", elements(used.rules)),
        ("PORTS", elements(used.ports)),
        ("VECTORS", elements(used.vectors)),
        ("PEERS", image.peers.len() as u64),
    ]);
    for (family, maps) in Family::ALL.into_iter().zip([
        ["ENDPOINTS_V4", "IDENTITIES_V4", "FRONTENDS_V4", "RINGS_V4", "MEMBERS_V4", "SOURCE_RANGES_V4"],
        ["ENDPOINTS_V6", "IDENTITIES_V6", "FRONTENDS_V6", "RINGS_V6", "MEMBERS_V6", "SOURCE_RANGES_V6"],
    ]) {
        let of = |address: IpAddr| Family::of(address) == family;
        let services = || image.frontends.iter().filter(|(key, _)| of(key.address));
        let rings = services().flat_map(|(_, service)| [service.internal, service.external]);
        let rings = rings
            .filter_map(|ring| Some(ring.offset..ring.offset + family.elements(image.ring(family, ring)?)))
            .collect();
        let counts = [
            image.endpoints.keys().filter(|address| of(**address)).count() as u64,
            image.identities.keys().filter(|net| of(net.addr())).count() as u64,
            services().count() as u64,
            elements(rings),
            image.members.keys().filter(|(_, backend)| of(backend.address)).count() as u64,
            image.sources.keys().filter(|(_, range)| of(range.addr())).count() as u64,
        ];
        in_use.extend(maps.into_iter().zip(counts));
    }
    in_use
}

/// What the live rule sets occupy.
#[derive(Default)]
pub(super) struct Used {
    pub(super) rule_sets: Vec<Range<u32>>,
    pub(super) rules: Vec<Range<u32>>,
    pub(super) ports: Vec<Range<u32>>,
    pub(super) vectors: Vec<Range<u32>>,
    /// Where each vector stands.
    pub(super) vectors_at: HashMap<Vec<u64>, u32>,
}

impl Used {
    /// Adds a rule set.
    pub(super) fn add(&mut self, image: &Image, number: u32, set: &RuleSet) {
        self.rule_sets.push(number..number + 1);
        self.vector(image, set.default_peers, set.words);
        for (_, vector) in image.peers_of(number) {
            self.vector(image, vector, set.words);
        }
        // Rules after the last one with a bit in some port vector can never decide.
        let mut rules = 1;
        for table in set.ports {
            self.ports.push(table.offset..table.offset.saturating_add(table.len));
            for interval in run(&image.ports, table.offset, table.len) {
                self.vector(image, interval.vector, set.words);
                rules = rules.max(length(image.vector(interval.vector, set.words)));
            }
        }
        self.rules.push(set.rules..set.rules.saturating_add(rules));
    }

    fn vector(&mut self, image: &Image, index: u32, words: u32) {
        let content = image.vector(index, words);
        if self.vectors_at.get(content) != Some(&index) {
            self.vectors_at.insert(content.to_vec(), index);
            self.vectors.push(index..index.saturating_add(words));
        }
    }
}

/// Bits up to the highest that is set.
fn length(vector: &[u64]) -> u32 {
    let word = vector.iter().rposition(|word| *word != 0);
    word.map_or(0, |word| word as u32 * 64 + 64 - vector[word].leading_zeros())
}
