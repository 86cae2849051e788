//! Room for rule sets, beside those that stand in the maps.

use weir_common::policy::{NO_POLICY, RuleSet};

use super::{Image, Sizes, array::Array, image::run};
use crate::{shared_map::SharedMap, uses::Uses};

/// Room for rule sets in the array maps. A copy follows a change without visiting the rule sets that stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) rule_sets: Array,
    pub(super) rules: Array,
    pub(super) ports: Array,
    pub(super) vectors: Array,
    /// Where each vector stands.
    vectors_at: SharedMap<Vec<u64>, u32>,
    /// How often each is named, by its index.
    vector_uses: Uses<u32>,
}

impl Room {
    /// Beside the live rule sets of `image`.
    pub(super) fn beside(image: &Image, sizes: &Sizes) -> Self {
        let (mut rule_sets, mut rules, mut ports, mut vectors) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        rule_sets.push(NO_POLICY..NO_POLICY + 1);
        let (mut vectors_at, mut vector_uses) = (SharedMap::default(), Uses::default());
        for number in image.live_rule_sets() {
            let Some(set) = image.rule_sets.get(number as usize) else { continue };
            rule_sets.push(number..number + 1);
            rules.push(set.rules..set.rules.saturating_add(rules_of(image, set)));
            ports.extend(set.ports.map(|table| table.offset..table.offset.saturating_add(table.len)));
            for index in vectors_of(image, set).chain(peers_of(image, number)) {
                if vector_uses.begin(index) {
                    vectors.push(index..index.saturating_add(set.words));
                    vectors_at.insert(image.vector(index, set.words).to_vec(), index);
                }
            }
        }
        Self {
            rule_sets: Array::new("RULE_SETS", sizes.rule_sets, rule_sets),
            rules: Array::new("RULES", sizes.rules, rules),
            ports: Array::new("PORTS", sizes.ports, ports),
            vectors: Array::new("VECTORS", sizes.vectors, vectors),
            vectors_at,
            vector_uses,
        }
    }

    /// Where a vector stands that is named once more; what has to be written for that is added to `new`.
    pub(super) fn name(&mut self, vector: &[u64], new: &mut Vec<(u32, u64)>) -> u32 {
        if let Some(index) = self.vectors_at.get(vector) {
            self.vector_uses.begin(*index);
            return *index;
        }
        let index = self.vectors.take(vector.len() as u32);
        new.extend((index..).zip(vector.iter().copied()));
        self.vectors_at.insert(vector.to_vec(), index);
        self.vector_uses.begin(index);
        index
    }

    /// Frees what a rule set of `image` occupies, for a later plan: this one must be done with taking.
    pub(super) fn release(&mut self, image: &Image, number: u32) {
        self.release_peers(image, number);
        let Some(set) = image.rule_sets.get(number as usize) else { return };
        self.rule_sets.give_back(number, 1);
        self.rules.give_back(set.rules, rules_of(image, set));
        for table in set.ports {
            self.ports.give_back(table.offset, table.len);
        }
        vectors_of(image, set).for_each(|index| self.release_vector(image, index, set.words));
    }

    /// The same, but for all that its peers do not say.
    pub(super) fn release_peers(&mut self, image: &Image, number: u32) {
        let Some(set) = image.rule_sets.get(number as usize) else { return };
        peers_of(image, number).for_each(|index| self.release_vector(image, index, set.words));
    }

    fn release_vector(&mut self, image: &Image, index: u32, words: u32) {
        if self.vector_uses.end(&index) {
            self.vectors.give_back(index, words);
            let vector = image.vector(index, words);
            if self.vectors_at.get(vector) == Some(&index) {
                self.vectors_at.remove(vector);
            }
        }
    }
}

/// The vectors that a rule set names, but for those of its peers, each as often as it is named.
fn vectors_of<'a>(image: &'a Image, set: &'a RuleSet) -> impl Iterator<Item = u32> + 'a {
    let tables = set.ports.iter().flat_map(|table| run(&image.ports, table.offset, table.len));
    tables.map(|interval| interval.vector).chain([set.default_peers])
}

/// The vectors that the peers of a rule set name, each as often as it is named.
fn peers_of(image: &Image, number: u32) -> impl Iterator<Item = u32> + '_ {
    image.peers_of(number).map(|(_, vector)| vector)
}

/// How many rules of a rule set can decide: those up to the last that some port matches, and at least one.
fn rules_of(image: &Image, set: &RuleSet) -> u32 {
    let tables = set.ports.iter().flat_map(|table| run(&image.ports, table.offset, table.len));
    let lengths = tables.map(|interval| length(image.vector(interval.vector, set.words)));
    lengths.max().unwrap_or(0).max(1)
}

/// Bits up to the highest that is set.
pub(super) fn length(vector: &[u64]) -> u32 {
    let word = vector.iter().rposition(|word| *word != 0);
    word.map_or(0, |word| word as u32 * 64 + 64 - vector[word].leading_zeros())
}
