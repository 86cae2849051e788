//! The endpoints of a service as one node sees them: for people who ask why.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Doors, Place,
    endpoints::{gather, is_draining},
};
use crate::{
    cluster::{Cluster, Endpoint, EndpointSlice, Service, ServicePort},
    datapath::Backend,
};

/// An endpoint of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The port of the service.
    pub port: &'a ServicePort,
    /// Address and port of the endpoint.
    pub backend: Backend,
    /// What the slices say of it.
    pub endpoint: &'a Endpoint,
    /// It is on this node.
    pub is_local: bool,
    /// A ready endpoint of the port is there: those that terminate are not needed.
    pub others_ready: bool,
}

/// Every endpoint of `service` in the families of its ClusterIPs, port by port.
pub fn endpoints<'a>(cluster: &'a Cluster, node: &'a str, service: &'a Service) -> Vec<Seen<'a>> {
    let doors = Doors::new(cluster);
    let place = Place::new(cluster, node, &doors);
    let is_its = |slice: &&EndpointSlice| {
        slice.name.namespace == service.name.namespace && slice.service.as_ref() == Some(&service.name.name)
    };
    let slices: Vec<_> = cluster.slices.values().map(|slice| &**slice).filter(is_its).collect();
    let mut seen = Vec::new();
    for port in &service.ports {
        for ipv6 in service.cluster_ips.iter().map(IpAddr::is_ipv6) {
            let all: BTreeMap<Backend, &Endpoint> = gather(slices.iter().copied(), port, ipv6, &place);
            let others_ready = all.values().any(|endpoint| endpoint.ready);
            seen.extend(all.into_iter().map(|(backend, endpoint)| Seen {
                port,
                backend,
                endpoint,
                is_local: place.is_local(endpoint),
                others_ready,
            }));
        }
    }
    seen
}

impl Seen<'_> {
    /// Its state, in a word.
    pub fn state(&self) -> &'static str {
        match self.endpoint {
            Endpoint { ready: true, .. } => "ready",
            endpoint if is_draining(endpoint) => "terminating",
            Endpoint { terminating: true, .. } => "dead",
            _ => "not ready",
        }
    }

    /// Why its state, its node or its hints keep it out of what clients inside the cluster choose from; it does not
    /// say whether they do.
    pub fn reason(&self, service: &Service) -> &'static str {
        match self.endpoint {
            Endpoint { ready: true, .. } => {}
            endpoint if is_draining(endpoint) && self.others_ready => {
                return "it terminates, and others are ready";
            }
            endpoint if is_draining(endpoint) => {}
            Endpoint { terminating: true, .. } => return "it terminates, and serves no more",
            _ => return "it is not ready",
        }
        if self.endpoint.weight == 0 {
            return "its weight is 0";
        }
        match service.internal_local && !self.is_local {
            true => "internalTrafficPolicy is Local, and it is on another node",
            false => "its hints are for other zones or nodes",
        }
    }
}
