//! How many elements each map holds.

use std::{collections::BTreeSet, sync::Arc};

use weir_common::{flow::WAYS, service};

use super::{Family, PerFamily};
use crate::datapath::Datapath;

/// Capacities of the maps, fixed when they are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pods of this node, per family.
    pub endpoints: PerFamily<u32>,
    /// Prefixes with an identity. These maps grow on demand; the number is only a bound.
    pub identities: PerFamily<u32>,
    /// Rule sets, the one of number 0 that means "no policy" included.
    pub rule_sets: u32,
    /// Pairs of a rule set and an identity.
    pub peers: u32,
    /// Port intervals.
    pub ports: u32,
    /// Words of bit vectors.
    pub vectors: u32,
    /// Rules in rule sets.
    pub rules: u32,
    /// Counters of rules; a rule whose number lies beyond is enforced but not counted.
    pub rule_hits: u32,
    /// Frontends of services.
    pub frontends: PerFamily<u32>,
    /// Elements of all rings: slots, several to an element, and backends.
    pub rings: PerFamily<u32>,
    /// Pairs of a service port and an endpoint.
    pub members: PerFamily<u32>,
    /// Clients that are remembered for session affinity. These maps take their memory at once.
    pub affinity: PerFamily<u32>,
    /// Pairs of a service port and a source range. These maps grow on demand too.
    pub sources: PerFamily<u32>,
    /// Sets of the flow table, a power of two; each holds [`WAYS`] flows.
    pub flows: PerFamily<u32>,
    /// Datagrams whose fragments are under way.
    pub fragments: PerFamily<u32>,
    /// Bytes of the event ring buffer: a power of two, at least a page.
    pub events: u32,
}

/// Clients that are remembered at least, where some service asks for session affinity when the maps are made.
const AFFINITY_WHERE_ASKED: PerFamily<usize> = PerFamily { v4: 1 << 16, v6: 1 << 15 };

impl Default for Sizes {
    fn default() -> Self {
        Self {
            endpoints: PerFamily { v4: 4096, v6: 4096 },
            identities: PerFamily { v4: 1 << 18, v6: 1 << 18 },
            rule_sets: 8192,
            peers: 1 << 17,
            ports: 1 << 16,
            vectors: 1 << 19,
            rules: 1 << 17,
            rule_hits: 1 << 16,
            frontends: PerFamily { v4: 1 << 14, v6: 1 << 13 },
            rings: PerFamily { v4: 1 << 18, v6: 1 << 16 },
            members: PerFamily { v4: 1 << 16, v6: 1 << 15 },
            affinity: PerFamily { v4: 1 << 15, v6: 1 << 14 },
            sources: PerFamily { v4: 1 << 16, v6: 1 << 16 },
            flows: PerFamily { v4: 1 << 14, v6: 1 << 13 },
            fragments: PerFamily { v4: 4096, v6: 4096 },
            events: 1 << 20,
        }
    }
}

impl Sizes {
    /// For a machine with this much memory: the flow tables take a thousandth of it or so, but never
    /// less than the default (131,072 and 65,536 flows, 17 MB).
    #[must_use]
    pub fn for_memory(mut self, bytes: u64) -> Self {
        let budget = usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
        let set = size_of::<weir_common::flow::FlowSet<weir_common::addr::V4>>();
        let sets = u32::try_from(budget / set).unwrap_or(u32::MAX).clamp(self.flows.v4, 1 << 20);
        self.flows = PerFamily { v4: power_of_two_below(sets), v6: power_of_two_below(sets) / 2 };
        self
    }

    /// With room for this datapath and for it to grow, where that is more.
    ///
    /// A commit holds the old and the new at the same time. Maps that allocate elements as they come have a
    /// bound of four times the need. An array takes its memory at once: policy's, which are small, get twice
    /// the need, and those of rings an eighth more, but two of the longest at least. So what replaces more than
    /// that of all rings in one change is refused. Where a service asks for session affinity, twice as many
    /// clients are remembered.
    #[must_use]
    pub fn with_room_for(mut self, datapath: &Datapath) -> Self {
        let at_least = |size: &mut u32, room: usize| {
            *size = (*size).max(u32::try_from(room).unwrap_or(u32::MAX).min(1 << 31));
        };
        let grow = |size: &mut u32, needed: usize| at_least(size, needed.saturating_mul(4));
        let double = |size: &mut u32, needed: usize| at_least(size, needed.saturating_mul(2));
        for family in Family::ALL {
            let frontends = || datapath.frontends.iter().filter(|(key, _)| Family::of(key.address) == family);
            let endpoints = datapath.endpoints.keys().filter(|address| Family::of(**address) == family);
            let identities = datapath.identities.keys().filter(|net| Family::of(net.addr()) == family);
            grow(self.endpoints.get_mut(family), endpoints.count());
            grow(self.identities.get_mut(family), identities.count());
            grow(self.frontends.get_mut(family), frontends().count());
            let rings = frontends().flat_map(|(_, service)| [&service.internal, &service.external]);
            // Most are shared.
            let rings = rings.collect::<BTreeSet<_>>();
            let each = || {
                rings.iter().map(|ring| {
                    let at = service::Ring::new(0, ring.len() as u32, ring.backends().len());
                    family.elements(at, ring) as usize
                })
            };
            let all: usize = each().sum();
            let longest = each().max().unwrap_or(0);
            at_least(self.rings.get_mut(family), all.saturating_add((all / 8).max(2 * longest)));
            grow(self.members.get_mut(family), frontends().map(|(_, service)| service.members.len()).sum());
            let sources = frontends().map(|(_, service)| service.source_ranges.len());
            grow(self.sources.get_mut(family), sources.sum());
            if frontends().any(|(_, service)| service.affinity.is_some()) {
                at_least(self.affinity.get_mut(family), *AFFINITY_WHERE_ASKED.get(family));
            }
        }
        let sets = || datapath.rule_sets.values();
        let intervals =
            |set: &Arc<crate::datapath::RuleSet>| set.ports.iter().map(|table| table.len()).sum::<usize>();
        double(&mut self.rule_sets, sets().count());
        grow(&mut self.peers, sets().map(|set| set.peers.len()).sum());
        double(&mut self.ports, sets().map(intervals).sum());
        double(&mut self.rules, sets().map(|set| set.rules.len()).sum());
        let vectors = |set: &Arc<crate::datapath::RuleSet>| set.peers.len() + intervals(set) + 1;
        double(&mut self.vectors, sets().map(|set| vectors(set) * set.rules.len().div_ceil(64).max(1)).sum());
        double(&mut self.rule_hits, datapath.rules.keys().next_back().map_or(0, |last| *last as usize));
        self
    }

    /// Name and `max_entries` of every map whose size is chosen here.
    pub fn by_map(&self) -> Vec<(&'static str, u32)> {
        let mut sizes = *self;
        sizes.fields().into_iter().map(|(name, size)| (name, *size)).collect()
    }

    /// The same sizes, with those of `actual` where it knows one: the maps that are pinned already.
    #[must_use]
    pub fn adopting(mut self, actual: impl Fn(&str) -> Option<u32>) -> Self {
        for (name, size) in self.fields() {
            *size = actual(name).unwrap_or(*size);
        }
        self
    }

    /// How many flows the tables hold.
    pub fn flow_capacity(&self) -> PerFamily<u64> {
        let flows = |sets: u32| u64::from(sets) * WAYS as u64;
        PerFamily { v4: flows(self.flows.v4), v6: flows(self.flows.v6) }
    }

    fn fields(&mut self) -> [(&'static str, &mut u32); 25] {
        [
            ("ENDPOINTS_V4", &mut self.endpoints.v4),
            ("ENDPOINTS_V6", &mut self.endpoints.v6),
            ("IDENTITIES_V4", &mut self.identities.v4),
            ("IDENTITIES_V6", &mut self.identities.v6),
            ("RULE_SETS", &mut self.rule_sets),
            ("PEERS", &mut self.peers),
            ("PORTS", &mut self.ports),
            ("VECTORS", &mut self.vectors),
            ("RULES", &mut self.rules),
            ("RULE_HITS", &mut self.rule_hits),
            ("FRONTENDS_V4", &mut self.frontends.v4),
            ("FRONTENDS_V6", &mut self.frontends.v6),
            ("RINGS_V4", &mut self.rings.v4),
            ("RINGS_V6", &mut self.rings.v6),
            ("MEMBERS_V4", &mut self.members.v4),
            ("MEMBERS_V6", &mut self.members.v6),
            ("AFFINITY_V4", &mut self.affinity.v4),
            ("AFFINITY_V6", &mut self.affinity.v6),
            ("SOURCE_RANGES_V4", &mut self.sources.v4),
            ("SOURCE_RANGES_V6", &mut self.sources.v6),
            ("FLOWS_V4", &mut self.flows.v4),
            ("FLOWS_V6", &mut self.flows.v6),
            ("FRAGMENTS_V4", &mut self.fragments.v4),
            ("FRAGMENTS_V6", &mut self.fragments.v6),
            ("EVENTS", &mut self.events),
        ]
    }
}

/// The greatest power of two that is not above `number`.
fn power_of_two_below(number: u32) -> u32 {
    1 << number.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::Name,
        datapath::{Frontend, Service},
    };

    #[test]
    fn flow_tables_grow_with_memory_and_stay_powers_of_two() {
        let small = Sizes::default().for_memory(1 << 30);
        let large = Sizes::default().for_memory(64 << 30);
        assert_eq!(small.flows, Sizes::default().flows);
        assert!(large.flows.v4 > small.flows.v4);
        assert!(large.flows.v4.is_power_of_two() && large.flows.v6.is_power_of_two());
        assert_eq!(Sizes::default().flow_capacity(), PerFamily { v4: 131_072, v6: 65_536 });
    }

    #[test]
    fn there_is_room_for_more_clients_where_a_service_asks_for_affinity() {
        let service = Service {
            id: 1,
            name: Name { namespace: "test".into(), name: "web".into() },
            flags: 0,
            internal: Arc::default(),
            external: Arc::default(),
            target_port: 0,
            members: crate::datapath::Members::default(),
            source_ranges: Vec::new(),
            affinity: None,
        };
        let frontend = Frontend { address: "10.96.0.1".parse().unwrap(), port: 80, protocol: 6 };
        let mut datapath = Datapath::default();
        datapath.frontends.insert(frontend, Arc::new(service.clone()));
        assert_eq!(Sizes::default().with_room_for(&datapath).affinity, Sizes::default().affinity);
        datapath.frontends.insert(frontend, Arc::new(Service { affinity: Some(10_800), ..service }));
        let affinity = Sizes::default().with_room_for(&datapath).affinity;
        assert_eq!(affinity, PerFamily { v4: 1 << 16, ..Sizes::default().affinity });
    }

    #[test]
    fn sizes_of_maps_that_exist_are_adopted() {
        let sizes = Sizes::default().adopting(|name| (name == "PEERS").then_some(7));
        assert_eq!(sizes, Sizes { peers: 7, ..Sizes::default() });
    }
}
