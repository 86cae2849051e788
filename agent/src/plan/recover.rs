//! After an agent died between two endpoints.
//!
//! A commit that was cut off while endpoints switched leaves some that read identities from one slot and
//! some that read them from the other. The next commit needs a slot that nobody reads. Both readings are
//! therefore merged into one: each pair of differing identities becomes one new identity, which every rule
//! set takes for what its own readers saw before. No verdict changes on the way.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::policy::{IDENTITY_FIRST, Identity, NO_POLICY, PeerKey, RuleSet};

use super::{
    Change, Image, Sizes, TooLarge, Write,
    array::{Array, check},
};

/// The writes after which all endpoints read slot 0; none when they do not differ.
pub(super) fn unify(image: &Image, sizes: &Sizes) -> Result<Vec<Write>, TooLarge> {
    let readers = |slot: u32| image.endpoints.iter().filter(move |(_, endpoint)| endpoint.slot == slot);
    if readers(0).next().is_none() || readers(1).next().is_none() {
        return Ok(Vec::new());
    }
    let merged = merge_identities(image);
    let sets_of = |slot: u32| -> BTreeSet<u32> {
        image.with_next(readers(slot).flat_map(|(_, endpoint)| [endpoint.ingress, endpoint.egress]))
    };

    // What readers of slot 0 see is added to their rule sets; readers of slot 1 get copies of theirs, for
    // a rule set that has readers of both cannot say both.
    let mut peers = Vec::new();
    for rule_set in sets_of(0) {
        peers.extend(merged_peers(image, rule_set, rule_set, 0, &merged));
    }
    let in_use = image.live_rule_sets().into_iter().chain([NO_POLICY]).map(|number| number..number + 1);
    let mut numbers = Array::new("RULE_SETS", sizes.rule_sets, in_use.collect());
    let mut copies = BTreeMap::from([(NO_POLICY, NO_POLICY)]);
    copies.extend(sets_of(1).into_iter().map(|rule_set| (rule_set, numbers.take(1))));
    let mut rule_sets = Vec::new();
    for rule_set in sets_of(1) {
        let copy = copies[&rule_set];
        let value = image.rule_sets.get(rule_set as usize).copied().unwrap_or_default();
        rule_sets
            .push((copy, RuleSet { next: copies.get(&value.next).copied().unwrap_or(NO_POLICY), ..value }));
        peers.extend(
            image.peers_of(rule_set).map(|(identity, vector)| (PeerKey { rule_set: copy, identity }, vector)),
        );
        peers.extend(merged_peers(image, rule_set, copy, 1, &merged));
    }
    numbers.check()?;
    check("PEERS", image.peers.len() + peers.len(), sizes.peers)?;

    let identities = image.identities.iter().filter_map(|(net, identity)| {
        let number = *merged.get(&identity.slots)?;
        Some((*net, Identity { slots: [number; 2] }))
    });
    let copied = |slot: u32| {
        let switched = readers(1).map(|(address, endpoint)| {
            let (ingress, egress) = (copies[&endpoint.ingress], copies[&endpoint.egress]);
            (*address, weir_common::endpoint::Endpoint { ingress, egress, slot, ..*endpoint })
        });
        Write::Endpoints(Change::Put(switched.collect()))
    };
    Ok(vec![
        Write::RuleSets(rule_sets),
        Write::Peers(Change::Put(peers)),
        copied(1),
        Write::Identities(Change::Put(identities.collect())),
        copied(0),
    ])
}

/// A new identity for each pair of identities that differ.
fn merge_identities(image: &Image) -> BTreeMap<[u32; 2], u32> {
    let pairs: BTreeSet<_> = image.identities.values().map(|identity| identity.slots).collect();
    let listed = image.peers.keys().map(|key| key.identity);
    let used: BTreeSet<_> = pairs.iter().flatten().copied().chain(listed).collect();
    let differing = pairs.into_iter().filter(|[first, second]| first != second);
    differing.zip((IDENTITY_FIRST..).filter(|number| !used.contains(number))).collect()
}

/// `PEERS` entries that give `to` for the merged identities what `from` has for those of `slot`.
fn merged_peers(
    image: &Image,
    from: u32,
    to: u32,
    slot: usize,
    merged: &BTreeMap<[u32; 2], u32>,
) -> Vec<(PeerKey, u32)> {
    let entry = |(pair, identity): (&[u32; 2], &u32)| {
        let vector = image.peers.get(&PeerKey { rule_set: from, identity: pair[slot] })?;
        Some((PeerKey { rule_set: to, identity: *identity }, *vector))
    };
    merged.iter().filter_map(entry).collect()
}
