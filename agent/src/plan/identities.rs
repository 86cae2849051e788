//! How addresses change identity while packets are judged.
//!
//! Every prefix has two numbers, and endpoints say which they read. A commit writes the new identities
//! into the number that nobody reads, and for prefixes that are new, the old identity of their address
//! into the other; then endpoints switch, one by one; then both numbers become the new one.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weir_common::policy::{IDENTITY_WORLD, Identity};

use super::{Change, Image, Sizes, TooLarge, Write, array::check, family::Family};
use crate::{datapath::IdentityId, shared_map::SharedMap};

/// What changing the identities takes.
pub(super) struct Staged {
    /// The number that endpoints read after the switch: 0 or 1.
    pub(super) slot: u32,
    /// The write before endpoints switch.
    pub(super) make: Write,
    /// The writes after it.
    pub(super) clean: Vec<Write>,
}

/// Stages the change from the identities that endpoints read in `slot` to `desired`: of all of them, unless they
/// are those that a commit of this process has brought about, `before`.
pub(super) fn stage(
    image: &Image,
    slot: u32,
    before: Option<&SharedMap<IpNet, IdentityId>>,
    desired: &SharedMap<IpNet, IdentityId>,
    sizes: &Sizes,
) -> Result<Staged, TooLarge> {
    let active = |net: &IpNet| image.identities.get(net).map(|identity| identity.slots[slot as usize]);
    // Where a commit of ours has ended, both numbers of what does not change are the same.
    let prefixes: BTreeSet<IpNet> = match before {
        Some(before) => before.differences(desired).into_iter().map(|found| *found.key).collect(),
        None => image.identities.keys().chain(desired.keys()).copied().collect(),
    };
    for (family, map) in [(Family::V4, "IDENTITIES_V4"), (Family::V6, "IDENTITIES_V6")] {
        let is_new = |net: &&IpNet| Family::of(net.addr()) == family && !image.identities.contains_key(net);
        let new = prefixes.iter().filter(is_new).count();
        if new > 0 {
            let there = image.identities.keys().filter(|net| Family::of(net.addr()) == family).count();
            check(map, there + new, *sizes.identities.get(family))?;
        }
    }

    // Before the first commit nobody reads either number, and there is nothing to stage.
    let unread = image.state.epoch == 0;
    let mut switch = false;
    let (mut make, mut settle, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for net in prefixes {
        let new = longest_match(|net| desired.get(net).copied(), net);
        let old = if unread { new } else { longest_match(active, net) };
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
fn longest_match(identity: impl Fn(&IpNet) -> Option<IdentityId>, net: IpNet) -> IdentityId {
    let mut covering = Some(net);
    while let Some(net) = covering {
        if let Some(identity) = identity(&net) {
            return identity;
        }
        covering = net.supernet();
    }
    IDENTITY_WORLD
}
