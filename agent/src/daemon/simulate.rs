//! `weir lb simulate`: which connections a change would send elsewhere.

use std::collections::BTreeMap;

use super::{describe, enforcer::Enforcer, engine::Engine, interfaces::Network};
use crate::{
    connections::{Connection, Fate},
    datapath::{Datapath, Frontend, Ring, Service, ServiceId},
    protocol::{Change, Failure, RingChange, Simulation},
};

/// New connections that rings are asked about.
const SAMPLES: usize = 100_000;

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// For `weir lb simulate`.
    pub(super) fn simulate(&self, change: &Change) -> Result<Simulation, Failure> {
        let after = self.candidate_of(change)?.datapath;
        let nothing = Datapath::default();
        let before = self.active.as_ref().map_or(&nothing, |active| &active.datapath);
        Ok(simulation(before, &after, &self.live()?))
    }
}

/// A service port in one family.
type Key = (ServiceId, bool);

fn simulation(before: &Datapath, after: &Datapath, live: &[Connection]) -> Simulation {
    let mut simulation = Simulation::default();
    let mut flows = BTreeMap::<Key, [usize; 3]>::new();
    for connection in live {
        let to = connection.to();
        let Some(service) = before.frontends.get(&to) else { continue };
        let counts = flows.entry((service.id, to.address.is_ipv6())).or_default();
        counts[0] += 1;
        match connection.fate(before, after) {
            Fate::Stays => {}
            Fate::Moves(_) => counts[1] += 1,
            Fate::Cut(_) => counts[2] += 1,
        }
    }
    for counts in flows.values() {
        simulation.flows += counts[0];
        simulation.flows_moved += counts[1];
        simulation.flows_cut += counts[2];
    }
    let (old, new) = (ports(before), ports(after));
    let mut keys: Vec<_> = old.keys().chain(new.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let (old, new) = (old.get(&key), new.get(&key));
        let Some((frontend, service)) = new.or(old) else { continue };
        let counts = flows.get(&key).copied().unwrap_or_default();
        let mut changed = false;
        for outside in [false, true] {
            let empty = Ring::default();
            let ring = |port: Option<&(Frontend, &Service)>| match (port, outside) {
                (None, _) => empty.clone(),
                (Some((_, port)), false) => (*port.internal).clone(),
                (Some((_, port)), true) => (*port.external).clone(),
            };
            let is_own = |port: Option<&(Frontend, &Service)>| {
                port.is_some_and(|(_, port)| port.internal != port.external)
            };
            let (from, to) = (ring(old), ring(new));
            // Most services have one ring for all.
            if from == to || outside && !is_own(old) && !is_own(new) {
                continue;
            }
            changed = true;
            let (moved, moved_from_staying) = moved(&from, &to);
            simulation.rings.push(RingChange {
                service: service.name.to_string(),
                port: describe::port_text(frontend),
                family: if key.1 { 6 } else { 4 },
                outside,
                backends_before: from.backends().len(),
                backends_after: to.backends().len(),
                slots_before: from.len(),
                slots_after: to.len(),
                moved,
                moved_from_staying,
                flows: counts[0],
                flows_moved: counts[1],
                flows_cut: counts[2],
            });
        }
        simulation.unchanged += usize::from(!changed);
    }
    let place = |ring: &RingChange| (ring.service.clone(), ring.port.clone(), ring.family, ring.outside);
    simulation.rings.sort_by_key(place);
    simulation
}

/// Each service port in each family, at a frontend of its own: the strongest answer comes from the ClusterIP, which
/// every service has, and whose port is that of the service.
fn ports(datapath: &Datapath) -> BTreeMap<Key, (Frontend, &Service)> {
    let mut ports = BTreeMap::new();
    for (frontend, service) in &datapath.frontends {
        let key = (service.id, frontend.address.is_ipv6());
        let is_cluster_ip = datapath.identities.contains_key(&frontend.address.into());
        if is_cluster_ip || !ports.contains_key(&key) {
            ports.insert(key, (*frontend, &**service));
        }
    }
    ports
}

/// Of [`SAMPLES`] connections, how many go elsewhere, and how many of these although their backend stays.
fn moved(from: &Ring, to: &Ring) -> (usize, usize) {
    if from.is_empty() {
        return (0, 0);
    }
    let (mut moved, mut staying) = (0, 0);
    // Hashes are even: these are.
    for sample in 0..SAMPLES as u64 {
        let hash = (sample.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let old = from.at(hash);
        if to.is_empty() || to.at(hash) != old {
            moved += 1;
            staying += usize::from(to.backends().binary_search(&old).is_ok());
        }
    }
    (moved, staying)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::services::maglev::{ring, size_for},
        datapath::Backend,
    };

    fn of(count: u8) -> Ring {
        let backend = |n| (Backend { address: [10, 0, 0, n].into(), port: 80 }, 1);
        ring(&(0..count).map(backend).collect::<Vec<_>>(), size_for(count.into()))
    }

    #[test]
    fn a_ring_that_stays_moves_nothing_and_one_that_goes_moves_all() {
        assert_eq!(moved(&of(5), &of(5)), (0, 0));
        assert_eq!(moved(&of(5), &of(0)), (SAMPLES, 0));
        assert_eq!(moved(&of(0), &of(5)), (0, 0));
    }

    #[test]
    fn one_backend_less_moves_its_share_and_little_more() {
        let (all, staying) = moved(&of(10), &of(9));
        assert!((9_000..18_000).contains(&all), "{all}");
        assert!(staying < 8_000 && all - staying > 9_000, "{staying} of {all}");
    }

    #[test]
    fn a_ring_that_is_resized_moves_nearly_everything() {
        // Five backends have 509 slots, six 1,021.
        assert!(moved(&of(5), &of(6)).0 > 60_000);
    }
}
