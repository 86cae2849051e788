//! Rule sets as they stand in the maps.

use weir_common::policy::{PROTOCOLS, Rule, RuleSet, action};

use super::{Image, image::run, room::length};
use crate::{
    cluster::Action,
    datapath::{self, Bits, RuleId, RuleOrigin},
    shared_map::SharedMap,
};

/// What two rule sets must share, besides their rules and peers, for one to stand for the other.
pub(super) type Base = (u32, u32, Vec<u64>, [Vec<(u32, Vec<u64>)>; PROTOCOLS], u32);

/// What a rule set that is wanted has to share.
pub(super) fn base_of(set: &datapath::RuleSet, rules: &[Rule], next: u32) -> Base {
    let words = words_of(set);
    let ports = std::array::from_fn(|protocol| {
        set.ports[protocol].iter().map(|(start, bits)| (u32::from(*start), padded(bits, words))).collect()
    });
    (words, rules[0].id, padded(&set.default_peers, words), ports, next)
}

/// What a rule set that stands in the maps shares.
pub(super) fn base_of_live(image: &Image, set: &RuleSet) -> Base {
    let ports = set.ports.map(|table| {
        let intervals = run(&image.ports, table.offset, table.len).iter();
        intervals
            .map(|interval| (interval.start, image.vector(interval.vector, set.words).to_vec()))
            .collect()
    });
    let first = image.rules.get(set.rules as usize).map_or(0, |rule| rule.id);
    (set.words, first, image.vector(set.default_peers, set.words).to_vec(), ports, set.next)
}

/// Words of a rule set's vectors; never 0, which would mean a free element.
pub(super) fn words_of(set: &datapath::RuleSet) -> u32 {
    set.rules.len().div_ceil(64).max(1) as u32
}

/// A vector of as many words.
pub(super) fn padded(bits: &Bits, words: u32) -> Vec<u64> {
    let mut vector = bits.0.clone();
    vector.resize(words as usize, 0);
    vector
}

/// The rules as they stand in `RULES`; one that never decides where there are none.
pub(super) fn encode_rules(set: &datapath::RuleSet, origins: &SharedMap<RuleId, RuleOrigin>) -> Vec<Rule> {
    let mut rules: Vec<_> = set
        .rules
        .iter()
        .map(|rule| {
            let action = match rule.action {
                Action::Accept => action::ALLOW,
                Action::Deny if isolates(origins.get(&rule.id)) => action::ISOLATED,
                Action::Deny => action::DENY,
                Action::Pass => action::PASS,
            };
            Rule { action, next: rule.next, id: rule.id, reserved: 0 }
        })
        .collect();
    if rules.is_empty() {
        rules.push(Rule { action: action::DENY, ..Rule::default() });
    }
    // One that no port matches never decides.
    let matched = set.ports.iter().flatten().map(|(_, bits)| length(&bits.0)).max();
    rules.truncate(matched.unwrap_or(0).max(1) as usize);
    rules
}

/// Whether a rule stands for "no rule allows it".
fn isolates(origin: Option<&RuleOrigin>) -> bool {
    matches!(origin, Some(RuleOrigin::Isolation { .. }))
}
