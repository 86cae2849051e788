//! Where the rings of backends go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

use weir_common::{
    addr::Be16,
    service::{Ring, Service},
};

use super::{
    Change, Family, Image, Member, PerFamily, Sizes, SourceRange, TooLarge, Write,
    array::{Array, check},
    image::run,
};
use crate::datapath::{Backend, Datapath, Frontend};

/// What bringing the services of a datapath about takes.
pub(super) struct Placed {
    /// Writes of what nothing refers to yet.
    pub(super) make: Vec<Write>,
    /// Writes that switch to it, in order.
    pub(super) switch: Vec<Write>,
}

/// Finds a place for the rings of `desired`. A ring that stands in the map already is used where it is.
pub(super) fn place(image: &Image, desired: &Datapath, sizes: &Sizes) -> Result<Placed, TooLarge> {
    let mut rings = PerFamily {
        v4: Rings::new(image, Family::V4, "RINGS_V4", sizes.rings.v4),
        v6: Rings::new(image, Family::V6, "RINGS_V6", sizes.rings.v6),
    };
    let mut frontends: BTreeMap<Frontend, Service> = BTreeMap::new();
    let mut members: BTreeSet<Member> = BTreeSet::new();
    let mut sources: BTreeSet<SourceRange> = BTreeSet::new();
    for (frontend, service) in &desired.frontends {
        let family = Family::of(frontend.address);
        let rings = rings.get_mut(family);
        let active = image.frontends.get(frontend);
        let value = Service {
            id: service.id,
            flags: service.flags,
            internal: rings
                .place(&service.internal.iter().collect::<Vec<_>>(), active.map(|active| active.internal)),
            external: rings
                .place(&service.external.iter().collect::<Vec<_>>(), active.map(|active| active.external)),
            target_port: Be16::new(service.target_port),
            reserved: 0,
        };
        frontends.insert(*frontend, value);
        members.extend(service.members.iter().map(|backend| (service.id, *backend)));
        sources.extend(service.source_ranges.iter().map(|range| (service.id, *range)));
    }
    check_sizes(image, &frontends, &members, sizes)?;
    check_sources(image, &sources, sizes)?;
    rings.v4.array.check()?;
    rings.v6.array.check()?;

    let new_members = members.iter().filter(|member| !image.members.contains_key(member));
    let old_members = image.members.keys().filter(|member| !members.contains(member));
    let new_sources = sources.iter().filter(|source| !image.sources.contains_key(source));
    let old_sources = image.sources.keys().filter(|source| !sources.contains(source));
    let changed = frontends.iter().filter(|(key, value)| image.frontends.get(key) != Some(value));
    let gone = image.frontends.keys().filter(|key| !frontends.contains_key(key));
    Ok(Placed {
        switch: vec![
            Write::Frontends(Change::Put(changed.map(|(key, value)| (*key, *value)).collect())),
            Write::Frontends(Change::Delete(gone.copied().collect())),
            Write::Members(Change::Delete(old_members.copied().collect())),
            Write::Sources(Change::Delete(old_sources.copied().collect())),
        ],
        make: vec![
            Write::Rings(Family::V4, rings.v4.new),
            Write::Rings(Family::V6, rings.v6.new),
            Write::Members(Change::Put(new_members.map(|member| (*member, ())).collect())),
            Write::Sources(Change::Put(new_sources.map(|source| (*source, ())).collect())),
        ],
    })
}

fn check_sizes(
    image: &Image,
    frontends: &BTreeMap<Frontend, Service>,
    members: &BTreeSet<Member>,
    sizes: &Sizes,
) -> Result<(), TooLarge> {
    for (family, frontends_map, members_map) in
        [(Family::V4, "FRONTENDS_V4", "MEMBERS_V4"), (Family::V6, "FRONTENDS_V6", "MEMBERS_V6")]
    {
        let both: BTreeSet<_> = frontends.keys().chain(image.frontends.keys()).collect();
        let count = both.into_iter().filter(|key| Family::of(key.address) == family).count();
        check(frontends_map, count, *sizes.frontends.get(family))?;
        let both: BTreeSet<_> = members.iter().chain(image.members.keys()).collect();
        let count = both.into_iter().filter(|(_, backend)| Family::of(backend.address) == family).count();
        check(members_map, count, *sizes.members.get(family))?;
    }
    Ok(())
}

fn check_sources(image: &Image, sources: &BTreeSet<SourceRange>, sizes: &Sizes) -> Result<(), TooLarge> {
    for (family, map) in [(Family::V4, "SOURCE_RANGES_V4"), (Family::V6, "SOURCE_RANGES_V6")] {
        let both: BTreeSet<_> = sources.iter().chain(image.sources.keys()).collect();
        let count = both.into_iter().filter(|(_, range)| Family::of(range.addr()) == family).count();
        check(map, count, *sizes.sources.get(family))?;
    }
    Ok(())
}

/// The rings of one family.
struct Rings<'a> {
    active: &'a [Backend],
    array: Array,
    /// Where live rings stand, by content; filled at the first ring that has changed.
    live: Vec<Range<u32>>,
    at: Option<HashMap<Vec<Backend>, u32>>,
    new: Vec<(u32, Backend)>,
}

impl<'a> Rings<'a> {
    fn new(image: &'a Image, family: Family, map: &'static str, capacity: u32) -> Self {
        let services = image.frontends.iter().filter(|(key, _)| Family::of(key.address) == family);
        let rings = services.flat_map(|(_, service)| [service.internal, service.external]);
        let live: Vec<_> =
            rings.filter(|ring| ring.len > 0).map(|ring| ring.offset..ring.offset + ring.len).collect();
        let array = Array::new(map, capacity, live.clone());
        Self { active: image.rings.get(family), array, live, at: None, new: Vec::new() }
    }

    /// Where a ring stands, old or new; `active` is the one that it replaces.
    fn place(&mut self, ring: &[Backend], active: Option<Ring>) -> Ring {
        if ring.is_empty() {
            return Ring::default();
        }
        if let Some(active) = active
            && run(self.active, active.offset, active.len) == ring
        {
            return active;
        }
        let len = ring.len() as u32;
        let at = self.at.get_or_insert_with(|| {
            let content =
                |range: &Range<u32>| run(self.active, range.start, range.end - range.start).to_vec();
            self.live.iter().map(|range| (content(range), range.start)).collect()
        });
        if let Some(offset) = at.get(ring) {
            return Ring { offset: *offset, len };
        }
        let offset = self.array.take(len);
        self.new.extend((offset..).zip(ring.iter().copied()));
        at.insert(ring.to_vec(), offset);
        Ring { offset, len }
    }
}
