//! Which endpoints of a service port a node may use.
//!
//! The rules are those of kube-proxy: ready endpoints, or, when there is none, those that terminate but
//! still serve; for the cluster-wide set, only the ones hinted for this node or zone.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use weir_common::service::member;

use super::{super::Unhealthy, Doors, Place};
use crate::{
    cluster::{Endpoint, EndpointSlice, Name, Probe, Protocol, Service, ServicePort},
    datapath::{Backend, Members, Target},
    shared_map::SharedMap,
};

/// The endpoints of a service port that one node may use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usable {
    /// By the policy Cluster; empty only when no node has an endpoint to use.
    pub(super) cluster: Vec<Weighted>,
    /// By the policy Local: those on this node.
    pub(super) local: Vec<Weighted>,
    /// All of them, with bits of [`member`].
    pub(super) members: Members,
}

/// A backend with its weight, which is not 0.
pub(super) type Weighted = (Backend, u32);

impl Usable {
    /// Sorts the endpoints of a service port in one family, as seen from a node.
    pub(super) fn new(
        slices: &[Arc<EndpointSlice>],
        port: &ServicePort,
        ipv6: bool,
        place: &Place<'_>,
        failing: &Failing<'_>,
    ) -> Self {
        let all = gather(each(slices), port, ipv6, place);
        let (mut cluster, mut local) = choose(&all, place);
        if all.keys().any(|backend| failing.has(*backend)) {
            let sound = all.iter().filter(|(backend, _)| !failing.has(**backend));
            let (sound_cluster, sound_local) =
                choose(&sound.map(|(key, value)| (*key, *value)).collect(), place);
            // Where all of them fail, the check is as likely to be wrong as they are: then all are used.
            cluster = if sound_cluster.is_empty() { cluster } else { sound_cluster };
            local = if sound_local.is_empty() { local } else { sound_local };
        }
        let serves = |endpoint: &Endpoint| if endpoint.serving { member::SERVES } else { 0 };
        let mut members: BTreeMap<_, _> =
            all.iter().map(|(backend, endpoint)| (*backend, serves(endpoint))).collect();
        for (backends, bit) in [(&cluster, member::CLUSTER), (&local, member::LOCAL)] {
            for (backend, _) in backends {
                *members.entry(*backend).or_default() |= bit | member::SERVES;
            }
        }
        for (backend, bits) in &mut members {
            if *bits & member::SERVES != 0 && !failing.has(*backend) {
                *bits |= member::SOUND;
            }
        }
        Self { cluster, local, members: members.into() }
    }
}

/// The backends that are used by the policy Cluster, and by the policy Local.
fn choose(all: &BTreeMap<Backend, &Endpoint>, place: &Place<'_>) -> (Vec<Weighted>, Vec<Weighted>) {
    let ready: Vec<_> = all.values().copied().filter(|endpoint| endpoint.ready).collect();
    let hint = Hint::of(&ready, place);
    let cluster = ready_or_draining(all, |endpoint| hint.admits(endpoint, place));
    (cluster, ready_or_draining(all, |endpoint| place.is_local(endpoint)))
}

/// Which backends of a service fail their checks.
pub(super) struct Failing<'a> {
    pub(super) service: &'a Name,
    pub(super) unhealthy: &'a Unhealthy,
}

impl Failing<'_> {
    fn has(&self, backend: Backend) -> bool {
        !self.unhealthy.is_empty()
            && self.unhealthy.contains(&Target { service: self.service.clone(), backend })
    }
}

/// The backends of a service port that are checked: over TCP, every one that may come to be used.
pub(super) fn probed(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    port: &ServicePort,
    ipv6: bool,
    place: &Place<'_>,
) -> Vec<(Target, Probe)> {
    let Some(probe) = service.probe.as_ref().filter(|_| port.protocol == Protocol::Tcp) else {
        return Vec::new();
    };
    let all = gather(each(slices), port, ipv6, place);
    let usable = all.into_iter().filter(|(_, endpoint)| endpoint.ready || is_draining(endpoint));
    let target = |backend| Target { service: service.name.clone(), backend };
    usable.map(|(backend, _)| (target(backend), Probe::clone(probe))).collect()
}

/// EndpointSlices by the service they belong to, in the order of their names.
#[derive(Clone, Debug, Default)]
pub(super) struct SlicesOf(SharedMap<Name, Vec<Arc<EndpointSlice>>>);

impl SlicesOf {
    /// Goes from one set of slices to another; gives the services whose slices are not the same.
    pub(super) fn update(
        &mut self,
        before: &SharedMap<Name, Arc<EndpointSlice>>,
        after: &SharedMap<Name, Arc<EndpointSlice>>,
    ) -> BTreeSet<Name> {
        let mut services = BTreeSet::new();
        for found in before.differences(after) {
            if let Some(service) = found.before.and_then(service_of) {
                let mut slices = self.0.remove(&service).unwrap_or_default();
                slices.retain(|slice| slice.name != *found.key);
                if !slices.is_empty() {
                    self.0.insert(service.clone(), slices);
                }
                services.insert(service);
            }
            if let Some((slice, service)) = found.after.and_then(|slice| Some((slice, service_of(slice)?))) {
                let mut slices = self.0.remove(&service).unwrap_or_default();
                let position = slices.partition_point(|other| other.name < slice.name);
                slices.insert(position, Arc::clone(slice));
                self.0.insert(service.clone(), slices);
                services.insert(service);
            }
        }
        services
    }

    /// The services with an endpoint that is a door by one of the two, and none by the other.
    pub(super) fn with_endpoints_between(&self, before: &Doors, after: &Doors) -> BTreeSet<Name> {
        if before == after {
            return BTreeSet::new();
        }
        let differs = |slice: &EndpointSlice| {
            let ports = || slice.ports.iter().filter_map(|port| Some((port.port?, port.protocol)));
            slice.endpoints.iter().any(|endpoint| {
                let is_door =
                    |doors: &Doors, (number, protocol)| doors.contains(endpoint.address, number, protocol);
                ports().any(|port| is_door(before, port) != is_door(after, port))
            })
        };
        let found = self.0.iter().filter(|(_, slices)| each(slices).any(differs));
        found.map(|(service, _)| service.clone()).collect()
    }

    pub(super) fn of(&self, service: &Name) -> &[Arc<EndpointSlice>] {
        self.0.get(service).map_or(&[], Vec::as_slice)
    }
}

fn service_of(slice: &Arc<EndpointSlice>) -> Option<Name> {
    Some(Name { namespace: slice.name.namespace.clone(), name: slice.service.clone()? })
}

fn each(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = &EndpointSlice> {
    slices.iter().map(|slice| &**slice)
}

/// Number of addresses on this node with a ready endpoint that does not fail, whichever port: what a health check
/// reports.
pub(super) fn local_ready(
    slices: &[Arc<EndpointSlice>],
    ports: &[ServicePort],
    ipv6: bool,
    place: &Place<'_>,
    failing: &Failing<'_>,
) -> usize {
    let endpoints = ports.iter().flat_map(|port| gather(each(slices), port, ipv6, place));
    let ready = endpoints
        .filter(|(backend, endpoint)| endpoint.ready && place.is_local(endpoint) && !failing.has(*backend));
    ready.map(|(backend, _)| backend.address).collect::<BTreeSet<_>>().len()
}

/// All endpoints of a service port in one family. Slices may overlap, as while an endpoint moves from one
/// to another: an entry that says the endpoint is on this node counts, then the one in the best state.
pub(super) fn gather<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    ipv6: bool,
    place: &Place<'_>,
) -> BTreeMap<Backend, &'a Endpoint> {
    let mut all = BTreeMap::new();
    for slice in slices.filter(|slice| slice.ipv6 == ipv6) {
        let ports = slice.ports.iter().filter(|own| own.name == port.name && own.protocol == port.protocol);
        for number in ports.filter_map(|own| own.port) {
            let may_be = |endpoint: &&Endpoint| {
                endpoint.address.is_ipv6() == ipv6
                    && !place.doors.contains(endpoint.address, number, port.protocol)
            };
            for endpoint in slice.endpoints.iter().filter(may_be) {
                match all.entry(Backend { address: endpoint.address, port: number }) {
                    Entry::Vacant(entry) => {
                        entry.insert(endpoint);
                    }
                    Entry::Occupied(mut entry) if rank(endpoint, place) > rank(entry.get(), place) => {
                        entry.insert(endpoint);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    all
}

/// Which of two entries for one endpoint counts; the hints are there to leave nothing to the order of slices.
fn rank<'a>(endpoint: &'a Endpoint, place: &Place<'_>) -> impl Ord + use<'a> {
    let hints = Reverse(endpoint.hints());
    (place.is_local(endpoint), endpoint.ready, is_draining(endpoint), endpoint.serving, hints)
}

/// Terminating, but still serving.
pub(super) fn is_draining(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// Those of the eligible endpoints that are ready, or else those that are draining. Without a ready one
/// there is no hint, so that all draining ones are eligible for the cluster-wide set. One without weight holds its
/// place, and is not used.
fn ready_or_draining(
    all: &BTreeMap<Backend, &Endpoint>,
    eligible: impl Fn(&Endpoint) -> bool,
) -> Vec<Weighted> {
    let select = |state: fn(&Endpoint) -> bool| {
        let selected = all.iter().filter(|(_, endpoint)| state(endpoint) && eligible(endpoint));
        selected.map(|(backend, endpoint)| (*backend, endpoint.weight)).collect::<Vec<_>>()
    };
    let ready = select(|endpoint| endpoint.ready);
    let mut selected = if ready.is_empty() { select(is_draining) } else { ready };
    selected.retain(|(_, weight)| *weight > 0);
    selected
}

/// Which topology hint holds for a service port on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    Node,
    Zone,
    None,
}

impl Hint {
    /// A level of hints holds when every ready endpoint has one and some are for this place.
    fn of(ready: &[&Endpoint], place: &Place<'_>) -> Self {
        let holds = |hint: Self, given: fn(&Endpoint) -> bool| {
            ready.iter().copied().all(given) && ready.iter().any(|endpoint| hint.admits(endpoint, place))
        };
        if holds(Self::Node, |endpoint| !endpoint.hints().nodes.is_empty()) {
            Self::Node
        } else if holds(Self::Zone, |endpoint| !endpoint.hints().zones.is_empty()) {
            Self::Zone
        } else {
            Self::None
        }
    }

    fn admits(self, endpoint: &Endpoint, place: &Place<'_>) -> bool {
        match self {
            Self::Node => endpoint.hints().nodes.contains(place.node),
            Self::Zone => place.zone.is_some_and(|zone| endpoint.hints().zones.contains(zone)),
            Self::None => true,
        }
    }
}
