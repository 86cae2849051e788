//! From what the maps hold to what they are to say: which writes, in which order.
//!
//! A [`Plan`] is a value; nothing here touches the kernel. Its order makes before it breaks:
//!
//! 1. What nothing refers to yet: vectors, port intervals, rules, rule sets, `PEERS` of new identities,
//!    rings, members, source ranges.
//! 2. Identities, in the slot that no endpoint reads (`identities.rs`).
//! 3. Endpoints: one write each switches a pod to its new rule sets and to the new identities.
//! 4. Frontends: one write each switches to the new rings. Members and source ranges that left are removed.
//! 5. The epoch, so that every live flow is decided again. A packet takes the epoch before anything else, so
//!    that a flow which it decided by what stood there before is of the epoch before.
//! 6. When no packet is under way that has read what stood there before: removal of what is no longer used.
//!
//! So after each single write every pod is judged, in each direction, by its old policy or by its new one,
//! and every frontend has its old backends or its new ones. All sizes are checked before the first write.
//! Runs of array elements are immutable while anything refers to them, and given out again only by a later
//! plan.

mod array;
mod commit;
mod encode;
mod family;
mod identities;
mod image;
#[cfg(test)]
mod model;
mod policy;
mod recover;
mod room;
mod services;
mod sizes;
mod sources;
mod space;
mod used;
mod write;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weir_common::{
    addr::{V4, V6},
    endpoint::Endpoint,
    policy::NO_POLICY,
    state::{State, flags},
};

pub use self::{
    array::TooLarge,
    commit::{CommitError, CommitReport, clean, commit, switch},
    family::{Family, PerFamily},
    image::Image,
    sizes::Sizes,
    used::in_use,
    write::{Change, MapWriter, Member, SourceRange, Write},
};
use crate::datapath::Datapath;

/// Where a pod of this node hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its host-side interface.
    pub ifindex: u32,
    /// MAC address of the pod's own end.
    pub mac: [u8; 6],
}

/// What the maps are to say.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// Policies and services.
    pub datapath: &'a Datapath,
    /// The interfaces of the pods that are attached; other pods have no endpoint yet.
    pub interfaces: &'a BTreeMap<IpAddr, Interface>,
    /// Interface towards other nodes and the outside; 0: none.
    pub uplink: u32,
    /// Bits of [`weir_common::state::events`].
    pub events: u32,
}

/// What the maps hold, and how that came about.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// The contents.
    pub image: Image,
    /// Left by a commit of this process that was complete. Otherwise there may be remains of one that was
    /// not, and flows that were decided by it.
    pub settled: bool,
    /// What that commit brought about, so that the next one visits only what differs.
    known: Option<Known>,
}

impl Layout {
    /// What the maps were found to hold, with no commit of this process behind it.
    pub fn found(image: Image) -> Self {
        Self { image, settled: false, known: None }
    }
}

/// What a complete commit brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    datapath: Datapath,
    interfaces: BTreeMap<IpAddr, Interface>,
    policy: policy::Known,
    services: services::Known,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write to a map.
    Write(Write),
    /// Wait until no program run is left that began before.
    WaitForReaders,
}

/// How to get from one layout to a desired datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps that must all be done for the new revision to be in force; none when nothing changes.
    pub steps: Vec<Step>,
    /// Writes that remove what is no longer used, once no packet is under way that has read of it.
    pub cleanup: Vec<Write>,
    known: Option<Known>,
}

impl Plan {
    /// Plans the way from `active` to `desired`.
    ///
    /// # Errors
    /// When a map is too small. Nothing is to be written then.
    pub fn between(active: &Layout, desired: &Desired<'_>, sizes: &Sizes) -> Result<Self, TooLarge> {
        let mut steps = Vec::new();
        let image = settle(active, sizes, &mut steps)?;
        let datapath = desired.datapath;
        let known = active.known.as_ref().filter(|_| active.settled);
        let services = services::place(&image, known.map(|known| &known.services), datapath, sizes)?;
        let mut writes = services.make;
        let mut cleanup = Vec::new();
        let mut slot = slot_in_force(&image);
        let policy = match known.filter(|known| known.judges_as(desired)) {
            Some(known) => known.policy.clone(),
            None => {
                let before = known.map(|known| (&known.datapath, &known.policy));
                let judged = judge(&image, before, desired, sizes)?;
                writes.extend(judged.writes);
                cleanup = judged.cleanup;
                slot = judged.slot;
                judged.known
            }
        };
        writes.extend(services.switch);
        writes.retain(|write| !write.is_empty());
        cleanup.retain(|write| !write.is_empty());
        let known = Some(Known {
            datapath: datapath.clone(),
            interfaces: desired.interfaces.clone(),
            policy,
            services: services.known,
        });
        let state = state(&image, desired, slot);
        if writes.is_empty() && active.settled && state == image.state {
            return Ok(Self { known, ..Self::default() });
        }
        steps.extend(writes.into_iter().map(Step::Write));
        steps.push(Step::Write(Write::State(State { epoch: next_epoch(image.state.epoch), ..state })));
        Ok(Self { steps, cleanup, known })
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Known {
    /// Whether pods are judged as is desired.
    fn judges_as(&self, desired: &Desired<'_>) -> bool {
        let (before, after) = (&self.datapath, desired.datapath);
        self.interfaces == *desired.interfaces
            && before.endpoints.is_same(&after.endpoints)
            && before.identities.is_same(&after.identities)
            && before.rule_sets.is_same(&after.rule_sets)
            && before.rules.is_same(&after.rules)
    }
}

/// What it takes to have pods judged otherwise.
struct Judged {
    known: policy::Known,
    /// The number of identities that is read once the plan is done: 0 or 1.
    slot: u32,
    writes: Vec<Write>,
    cleanup: Vec<Write>,
}

fn judge(
    image: &Image,
    before: Option<(&Datapath, &policy::Known)>,
    desired: &Desired<'_>,
    sizes: &Sizes,
) -> Result<Judged, TooLarge> {
    let datapath = desired.datapath;
    let slot = image.endpoints.values().next().map_or(slot_in_force(image), |endpoint| endpoint.slot);

    let attached = || {
        datapath
            .endpoints
            .iter()
            .filter_map(|(address, endpoint)| Some((*address, endpoint, desired.interfaces.get(address)?)))
    };
    let wanted: BTreeSet<_> =
        attached().flat_map(|(_, endpoint, _)| [endpoint.ingress, endpoint.egress]).flatten().collect();
    let policy = policy::place(image, before, datapath, &wanted, sizes)?;
    let identified = before.map(|(before, _)| &before.identities);
    let identities = identities::stage(image, slot, identified, &datapath.identities, sizes)?;
    let number = |id: Option<u32>| id.map_or(NO_POLICY, |id| policy.known.numbers[&id]);
    let endpoints = attached().map(|(address, endpoint, interface)| {
        let (ingress, egress) = (number(endpoint.ingress), number(endpoint.egress));
        let (ifindex, mac, slot) = (interface.ifindex, interface.mac, identities.slot);
        (address, Endpoint { ifindex, ingress, egress, slot, mac, reserved: 0 })
    });
    let endpoints = switch_endpoints(image, &endpoints.collect(), sizes)?;
    let mut writes = policy.writes;
    writes.push(identities.make);
    writes.extend(endpoints);
    let mut cleanup = identities.clean;
    cleanup.push(Write::Peers(Change::Delete(policy.stale)));
    Ok(Judged { known: policy.known, slot: identities.slot, writes, cleanup })
}

/// The active contents, with the remains of an interrupted commit removed first.
fn settle<'a>(active: &'a Layout, sizes: &Sizes, steps: &mut Vec<Step>) -> Result<Cow<'a, Image>, TooLarge> {
    let mut image = Cow::Borrowed(&active.image);
    if active.settled {
        return Ok(image);
    }
    sweep(&mut image, steps);
    let unify = recover::unify(&image, sizes)?;
    if !unify.is_empty() {
        for write in unify {
            image.to_mut().apply(&write);
            steps.push(Step::Write(write));
        }
        sweep(&mut image, steps);
    }
    Ok(image)
}

/// Removes the `PEERS` of rule sets that no endpoint names, so that their numbers can be given out.
fn sweep(image: &mut Cow<'_, Image>, steps: &mut Vec<Step>) {
    steps.push(Step::WaitForReaders);
    let orphans = policy::orphans(image);
    if !orphans.is_empty() {
        let write = Write::Peers(Change::Delete(orphans));
        image.to_mut().apply(&write);
        steps.push(Step::Write(write));
    }
}

/// The writes that switch pods. Pods that are gone go first, before their address means anything else.
fn switch_endpoints(
    image: &Image,
    desired: &BTreeMap<IpAddr, Endpoint>,
    sizes: &Sizes,
) -> Result<Vec<Write>, TooLarge> {
    for (family, map) in [(Family::V4, "ENDPOINTS_V4"), (Family::V6, "ENDPOINTS_V6")] {
        let needed = desired.keys().filter(|address| Family::of(**address) == family).count();
        array::check(map, needed, *sizes.endpoints.get(family))?;
    }
    let gone = image.endpoints.keys().filter(|address| !desired.contains_key(address));
    let changed = desired.iter().filter(|(address, endpoint)| image.endpoints.get(address) != Some(endpoint));
    Ok(vec![
        Write::Endpoints(Change::Delete(gone.copied().collect())),
        Write::Endpoints(Change::Put(changed.map(|(address, endpoint)| (*address, *endpoint)).collect())),
    ])
}

/// The number of identities that is read where no endpoint says: 0 or 1.
const fn slot_in_force(image: &Image) -> u32 {
    (image.state.flags & flags::SECOND_SLOT != 0) as u32
}

/// The element of `STATE`, of the epoch that is active, for identities that are read in `slot`.
fn state(image: &Image, desired: &Desired<'_>, slot: u32) -> State {
    let addresses = &desired.datapath.node_addresses;
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(V4::from_octets(address.octets())),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(V6::from_octets(address.octets())),
        IpAddr::V4(_) => None,
    });
    State {
        epoch: image.state.epoch,
        events: desired.events,
        node_v4: v4.unwrap_or_default(),
        node_v6: v6.unwrap_or_default(),
        uplink: desired.uplink,
        flags: flag(desired.datapath.masquerade, flags::MASQUERADE)
            | flag(desired.datapath.reset_gone, flags::RESET_GONE)
            | flag(slot == 1, flags::SECOND_SLOT),
    }
}

const fn flag(is_set: bool, bit: u32) -> u32 {
    if is_set { bit } else { 0 }
}

/// The epoch after this one. 0 is left out: it means that nothing has been committed.
const fn next_epoch(epoch: u32) -> u32 {
    match epoch.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}
