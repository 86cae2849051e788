//! How addresses change identity while packets are judged.
//!
//! Every prefix has two numbers, and endpoints say which they read. A commit writes the new identities
//! into the number that nobody reads, and for prefixes that are new, the old identity of their address
//! into the other; then endpoints switch, one by one; then both numbers become the new one.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_common::policy::{IDENTITY_WORLD, Identity};

use super::{Change, Image, Sizes, TooLarge, Write, array::check, family::Family};
use crate::datapath::IdentityId;

/// What changing the identities takes.
pub(super) struct Staged {
    /// The number that endpoints read after the switch: 0 or 1.
    pub(super) slot: u32,
    /// The write before endpoints switch.
    pub(super) make: Write,
    /// The writes after it.
    pub(super) clean: Vec<Write>,
}

/// Stages the change from the identities that endpoints read in `slot` to `desired`.
pub(super) fn stage(
    image: &Image,
    slot: u32,
    desired: &BTreeMap<IpNet, IdentityId>,
    sizes: &Sizes,
) -> Result<Staged, TooLarge> {
    let active: BTreeMap<IpNet, IdentityId> =
        image.identities.iter().map(|(net, identity)| (*net, identity.slots[slot as usize])).collect();
    let prefixes: BTreeSet<IpNet> = active.keys().chain(desired.keys()).copied().collect();
    for (family, map) in [(Family::V4, "IDENTITIES_V4"), (Family::V6, "IDENTITIES_V6")] {
        let needed = prefixes.iter().filter(|net| Family::of(net.addr()) == family).count();
        check(map, needed, *sizes.identities.get(family))?;
    }

    // Without endpoints nobody reads either number, and there is nothing to stage.
    let unread = image.endpoints.is_empty();
    let mut switch = false;
    let (mut make, mut settle, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for net in prefixes {
        let new = longest_match(desired, net);
        let old = if unread { new } else { longest_match(&active, net) };
        switch |= old != new;
        let mut staged = Identity { slots: [new; 2] };
        staged.slots[slot as usize] = old;
        if image.identities.get(&net) != Some(&staged) {
            make.push((net, staged));
        }
        if !desired.contains_key(&net) {
            gone.push(net);
        } else if old != new {
            settle.push((net, Identity { slots: [new; 2] }));
        }
    }
    Ok(Staged {
        slot: if switch { 1 - slot } else { slot },
        make: Write::Identities(Change::Put(make)),
        clean: vec![Write::Identities(Change::Put(settle)), Write::Identities(Change::Delete(gone))],
    })
}

/// The identity of the addresses of a prefix.
fn longest_match(identities: &BTreeMap<IpNet, IdentityId>, net: IpNet) -> IdentityId {
    let mut covering = Some(net);
    while let Some(net) = covering {
        if let Some(identity) = identities.get(&net) {
            return *identity;
        }
        covering = net.supernet();
    }
    IDENTITY_WORLD
}
