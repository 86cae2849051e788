//! Where the rings of backends go.
//!
//! Only the frontends that a change touches are visited, unless nothing is known but the maps. Equal rings
//! stand in the map once.

use std::{collections::BTreeSet, sync::Arc};

use weir_common::{
    addr::Be16,
    service::{self, Service, flags},
};

use super::{
    Change, Family, Image, Member, PerFamily, Sizes, SourceRange, TooLarge, Write,
    array::{Array, check},
    sources,
};
use crate::{
    datapath::{self, Datapath, Frontend, Ring},
    shared_map::SharedMap,
};

/// What bringing the services of a datapath about takes.
pub(super) struct Placed {
    /// Writes of what nothing refers to yet.
    pub(super) make: Vec<Write>,
    /// Writes that switch to it, in order.
    pub(super) switch: Vec<Write>,
    /// What is known about the services then.
    pub(super) known: Known,
}

/// What is in the maps, found without visiting all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The frontends of the datapath in force.
    frontends: SharedMap<Frontend, Arc<datapath::Service>>,
    /// How many they are.
    counts: PerFamily<usize>,
    rings: PerFamily<Rings>,
    /// The members that frontends list.
    members: PerFamily<Listed<Member, u32>>,
    /// The source ranges that frontends list.
    sources: PerFamily<Listed<SourceRange, ()>>,
}

/// What frontends list, and how many of them do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed<K: Ord, V>(SharedMap<K, (V, u32)>);

/// The rings of one family that frontends name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rings {
    family: Family,
    /// Where each stands, and how often it is named.
    at: SharedMap<Arc<Ring>, (service::Ring, u32)>,
    array: Array,
}

/// Finds a place for the rings of `desired`. A ring that stands in the map already is used where it is.
pub(super) fn place(
    image: &Image,
    known: Option<&Known>,
    desired: &Datapath,
    sizes: &Sizes,
) -> Result<Placed, TooLarge> {
    let changed: BTreeSet<Frontend> = match known {
        Some(known) => known.frontends.differences(&desired.frontends).into_iter().map(|f| *f.key).collect(),
        None => image.frontends.keys().chain(desired.frontends.keys()).copied().collect(),
    };
    let is_known = known.is_some();
    let mut known = known.cloned().unwrap_or_else(|| Known::of(image, sizes));
    let mut change = Changes::default();
    for frontend in &changed {
        let (before, after) = (image.frontends.get(frontend), desired.frontends.get(frontend));
        let family = Family::of(frontend.address);
        let rings = known.rings.get_mut(family);
        let new = change.rings.get_mut(family);
        let value = after.map(|service| {
            let sources = sources::in_value(service);
            Service {
                id: service.id,
                flags: service.flags | if sources.is_some() { flags::SOURCES_HERE } else { 0 },
                internal: rings.take(&service.internal, new),
                external: rings.take(&service.external, new),
                target_port: Be16::new(service.target_port),
                reserved: 0,
                affinity: service.affinity.unwrap_or(0),
                sources: sources.unwrap_or_default(),
            }
        });
        match value {
            Some(value) if before != Some(&value) => change.put.push((*frontend, value)),
            None if before.is_some() => change.gone.push(*frontend),
            _ => {}
        }
        *known.counts.get_mut(family) += usize::from(before.is_none() && after.is_some());
        if let Some(service) = after {
            known.list(service, &mut change);
        }
        if let Some(service) = known.frontends.get(frontend).cloned() {
            known.unlist(&service, &mut change);
        }
    }
    if !is_known {
        change.members.extend(image.members.keys());
        change.sources.extend(image.sources.keys());
    }
    change.check(image, &known, sizes)?;

    // After all that may be used again has been taken.
    for frontend in &changed {
        let family = Family::of(frontend.address);
        for ring in image.frontends.get(frontend).into_iter().flat_map(|old| [old.internal, old.external]) {
            if let Some(ring) = image.ring(family, ring) {
                known.rings.get_mut(family).release(ring);
            }
        }
        *known.counts.get_mut(family) -=
            usize::from(image.frontends.contains_key(frontend) && !desired.frontends.contains_key(frontend));
    }
    known.frontends = desired.frontends.clone();
    let (make, switch) = change.writes(image, &mut known);
    Ok(Placed { make, switch, known })
}

/// What is to be written.
#[derive(Default)]
struct Changes {
    put: Vec<(Frontend, Service)>,
    gone: Vec<Frontend>,
    rings: PerFamily<Vec<(service::Ring, Arc<Ring>)>>,
    /// Members that may be new, other than they were, or listed no more.
    members: BTreeSet<Member>,
    /// Source ranges that may be new, or listed no more.
    sources: BTreeSet<SourceRange>,
}

impl Changes {
    fn check(&self, image: &Image, known: &Known, sizes: &Sizes) -> Result<(), TooLarge> {
        for (family, [frontends, members, sources]) in [
            (Family::V4, ["FRONTENDS_V4", "MEMBERS_V4", "SOURCE_RANGES_V4"]),
            (Family::V6, ["FRONTENDS_V6", "MEMBERS_V6", "SOURCE_RANGES_V6"]),
        ] {
            // Those that go are still there when the others come.
            check(frontends, *known.counts.get(family), *sizes.frontends.get(family))?;
            let of_family = |(_, backend): &&Member| Family::of(backend.address) == family;
            let touched = self.members.iter().filter(of_family);
            let both = known.members.get(family).with(touched, |one| image.members.contains_key(one));
            check(members, both, *sizes.members.get(family))?;
            let of_family = |(_, range): &&SourceRange| Family::of(range.addr()) == family;
            let touched = self.sources.iter().filter(of_family);
            let both = known.sources.get(family).with(touched, |one| image.sources.contains_key(one));
            check(sources, both, *sizes.sources.get(family))?;
            known.rings.get(family).array.check()?;
        }
        Ok(())
    }

    fn writes(self, image: &Image, known: &mut Known) -> (Vec<Write>, Vec<Write>) {
        let (mut union, mut rest, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for member in self.members {
            let before = image.members.get(&member).copied();
            match known.members.get_mut(Family::of(member.1.address)).settle(&member) {
                Some(bits) => {
                    // While some frontends have their old rings and some their new ones, a member is what it
                    // was and will be.
                    let both = bits | before.unwrap_or(0);
                    union.extend((before != Some(both)).then_some((member, both)));
                    rest.extend((bits != both).then_some((member, bits)));
                }
                None => old.extend(before.map(|_| member)),
            }
        }
        let (mut new_sources, mut old_sources) = (Vec::new(), Vec::new());
        for source in self.sources {
            let is_listed = known.sources.get_mut(Family::of(source.1.addr())).settle(&source).is_some();
            match (is_listed, image.sources.contains_key(&source)) {
                (true, false) => new_sources.push((source, ())),
                (false, true) => old_sources.push(source),
                _ => {}
            }
        }
        let make = vec![
            Write::Rings(Family::V4, self.rings.v4),
            Write::Rings(Family::V6, self.rings.v6),
            Write::Members(Change::Put(union)),
            Write::Sources(Change::Put(new_sources)),
        ];
        let switch = vec![
            Write::Frontends(Change::Put(self.put)),
            Write::Frontends(Change::Delete(self.gone)),
            Write::Members(Change::Put(rest)),
            Write::Members(Change::Delete(old)),
            Write::Sources(Change::Delete(old_sources)),
        ];
        (make, switch)
    }
}

impl Known {
    /// What the maps alone tell.
    fn of(image: &Image, sizes: &Sizes) -> Self {
        let count = |family| image.frontends.keys().filter(|key| Family::of(key.address) == family).count();
        Self {
            frontends: SharedMap::default(),
            counts: PerFamily { v4: count(Family::V4), v6: count(Family::V6) },
            rings: PerFamily {
                v4: Rings::of(image, Family::V4, "RINGS_V4", sizes.rings.v4),
                v6: Rings::of(image, Family::V6, "RINGS_V6", sizes.rings.v6),
            },
            members: PerFamily::default(),
            sources: PerFamily::default(),
        }
    }

    /// Notes that a frontend lists what `service` says.
    fn list(&mut self, service: &datapath::Service, change: &mut Changes) {
        for (backend, bits) in service.members.iter() {
            let member = (service.id, *backend);
            self.members.get_mut(Family::of(backend.address)).add(member, *bits);
            change.members.insert(member);
        }
        for range in sources::in_trie(service) {
            let source = (service.id, *range);
            self.sources.get_mut(Family::of(range.addr())).add(source, ());
            change.sources.insert(source);
        }
    }

    /// Notes that a frontend does not list any more what `service` says.
    fn unlist(&mut self, service: &datapath::Service, change: &mut Changes) {
        for member in service.members.keys().map(|backend| (service.id, *backend)) {
            self.members.get_mut(Family::of(member.1.address)).take_back(&member);
            change.members.insert(member);
        }
        for source in sources::in_trie(service).iter().map(|range| (service.id, *range)) {
            self.sources.get_mut(Family::of(source.1.addr())).take_back(&source);
            change.sources.insert(source);
        }
    }
}

impl<K: Ord + Clone, V: Copy> Listed<K, V> {
    fn add(&mut self, key: K, value: V) {
        let count = self.0.get(&key).map_or(0, |(_, count)| *count);
        self.0.insert(key, (value, count + 1));
    }

    fn take_back(&mut self, key: &K) {
        if let Some((_, count)) = self.0.value_mut(key) {
            *count = count.saturating_sub(1);
        }
    }

    /// How many there are together with those of `touched` that are known elsewhere.
    fn with<'a>(&self, touched: impl Iterator<Item = &'a K>, is_there: impl Fn(&K) -> bool) -> usize
    where
        K: 'a,
    {
        self.0.len() + touched.filter(|key| is_there(key) && !self.0.contains_key(*key)).count()
    }

    /// What is listed under a key. What is not listed any more is forgotten.
    fn settle(&mut self, key: &K) -> Option<V> {
        let listed = self.0.get(key).filter(|(_, count)| *count > 0).map(|(value, _)| *value);
        if listed.is_none() {
            self.0.remove(key);
        }
        listed
    }
}

impl<K: Ord, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self(SharedMap::default())
    }
}

impl Rings {
    fn of(image: &Image, family: Family, map: &'static str, capacity: u32) -> Self {
        let services = image.frontends.iter().filter(|(key, _)| Family::of(key.address) == family);
        let named = services.flat_map(|(_, service)| [service.internal, service.external]);
        let named: Vec<_> = named.filter(|ring| ring.len > 0).collect();
        let (mut used, mut at) = (Vec::new(), SharedMap::default());
        for ring in &named {
            if let Some(content) = image.ring(family, *ring) {
                used.push(ring.offset..ring.offset + family.elements(*ring, content));
                let (place, count) = at.get(content).copied().unwrap_or((*ring, 0));
                at.insert(Arc::clone(content), (place, count + 1));
            }
        }
        Self { family, at, array: Array::new(map, capacity, used) }
    }

    /// Where a ring stands, in the map or among `new` ones.
    fn take(&mut self, ring: &Arc<Ring>, new: &mut Vec<(service::Ring, Arc<Ring>)>) -> service::Ring {
        if ring.is_empty() {
            return service::Ring::default();
        }
        if let Some((place, count)) = self.at.value_mut(ring) {
            *count += 1;
            return *place;
        }
        let mut place = service::Ring::new(0, ring.len() as u32, ring.backends().len());
        place.offset = self.array.take(self.family.elements(place, ring));
        self.at.insert(Arc::clone(ring), (place, 1));
        new.push((place, Arc::clone(ring)));
        place
    }

    /// Takes back that it is named once.
    fn release(&mut self, ring: &Arc<Ring>) {
        let Some((place, count)) = self.at.value_mut(ring) else { return };
        *count -= 1;
        if *count == 0 {
            let place = *place;
            self.at.remove(ring);
            self.array.give_back(place.offset, self.family.elements(place, ring));
        }
    }
}
