//! What is in use of the maps.

use std::{collections::BTreeMap, net::IpAddr, ops::Range};

use super::{Family, Image, Sizes, array::Array, room::Room};

/// Elements in use, by map, of all maps that an image tells about.
pub fn in_use(image: &Image) -> BTreeMap<&'static str, u64> {
    let unbounded = Sizes {
        rule_sets: u32::MAX,
        rules: u32::MAX,
        ports: u32::MAX,
        vectors: u32::MAX,
        ..Sizes::default()
    };
    let room = Room::beside(image, &unbounded);
    let elements = |ranges: Vec<Range<u32>>| {
        let distinct = Array::new("", u32::MAX, ranges);
        distinct.needed()
    };
    let mut in_use = BTreeMap::from([
        // The one that means "no policy" is none.
        ("RULE_SETS", room.rule_sets.needed() - 1),
        ("RULES", room.rules.needed()),
        ("PORTS", room.ports.needed()),
        ("VECTORS", room.vectors.needed()),
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
            .filter_map(|at| Some(at.offset..at.offset + family.elements(at, image.ring(family, at)?)))
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
