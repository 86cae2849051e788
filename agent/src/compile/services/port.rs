//! What a frontend of a service port does for each kind of client: which backends, which flags.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use weir_common::service::flags;

use super::{Place, endpoints::Usable, frontends::Kind, maglev::Rings};
use crate::{
    cluster::{Config, Forwarding, Service},
    datapath::{self, Ring, ServiceId},
};

/// A port of a service in one address family, on one node.
pub(super) struct PortInFamily<'a> {
    pub(super) config: &'a Config,
    pub(super) service: &'a Service,
    pub(super) id: ServiceId,
    pub(super) place: &'a Place<'a>,
    pub(super) usable: Usable,
    pub(super) rings: &'a mut Rings,
}

impl PortInFamily<'_> {
    /// The service port at one of its frontends.
    pub(super) fn at(&mut self, kind: Kind, address: IpAddr) -> datapath::Service {
        let internal_local = kind == Kind::Internal && self.service.internal_local;
        let external_local = internal_local || self.is_local_to_outside(kind);
        let forwarding = self.forwarding(kind);
        let internal = self.ring(internal_local);
        let external = if forwarding.is_some() {
            self.rings.at_edge(if external_local { &self.usable.local } else { &self.usable.cluster })
        } else {
            self.ring(external_local)
        };
        let source_ranges =
            if kind == Kind::LoadBalancer { self.source_ranges(address.is_ipv6()) } else { Vec::new() };
        let mut flags = self.masquerade(kind);
        if forwarding.is_some() {
            flags |= flags::EDGE;
        }
        if forwarding == Some(Forwarding::Dsr) {
            // The backend answers the client itself, and so has to know it.
            flags = flags & !flags::MASQUERADE_EXTERNAL | flags::DSR;
        }
        // A set without backends is a policy's doing when some node has an endpoint.
        if !self.usable.cluster.is_empty() {
            flags |= if internal.is_empty() { flags::EMPTY_INTERNAL_DROPS } else { 0 };
            flags |= if external.is_empty() { flags::EMPTY_EXTERNAL_DROPS } else { 0 };
        }
        flags |= if internal_local { flags::INTERNAL_LOCAL } else { 0 };
        flags |= if external_local { flags::EXTERNAL_LOCAL } else { 0 };
        flags |= if source_ranges.is_empty() { 0 } else { flags::SOURCE_RANGES };
        datapath::Service {
            id: self.id,
            name: self.service.name.clone(),
            flags,
            internal,
            external,
            target_port: self.target_port().unwrap_or(0),
            members: self.usable.members.clone(),
            source_ranges,
            affinity: self.service.affinity,
        }
    }

    fn ring(&mut self, local: bool) -> Arc<Ring> {
        self.rings.get(if local { &self.usable.local } else { &self.usable.cluster })
    }

    /// How packets from outside to a frontend are forwarded, where the service says so. What is tunnelled does
    /// not name its target port: a service whose backends have several cannot be.
    fn forwarding(&self, kind: Kind) -> Option<Forwarding> {
        let asked = self.service.forwarding.filter(|_| kind != Kind::Internal)?;
        let is_possible = asked != Forwarding::Dsr || self.target_port().is_some();
        Some(if is_possible { asked } else { Forwarding::Snat })
    }

    /// The port of every backend, when they have but one.
    fn target_port(&self) -> Option<u16> {
        let mut ports = self.usable.members.keys().map(|backend| backend.port);
        let first = ports.next()?;
        ports.all(|port| port == first).then_some(first)
    }

    /// Whether `externalTrafficPolicy: Local` governs the frontend: only local endpoints for the outside, whose
    /// address stays. Pods and the node use all of them, as if they had gone out to the load balancer and back.
    fn is_local_to_outside(&self, kind: Kind) -> bool {
        kind != Kind::Internal && self.service.external_local
    }

    fn masquerade(&self, kind: Kind) -> u32 {
        const OUTSIDE: u32 = flags::MASQUERADE_NODE | flags::MASQUERADE_EXTERNAL;
        const ALL: u32 = flags::MASQUERADE_POD | OUTSIDE;
        match kind {
            Kind::Internal if self.config.masquerade_all => ALL,
            // Who routes a ClusterIP to this node from outside may get a backend of another: replies must come back here.
            Kind::Internal if self.config.pods_unknown => 0,
            Kind::Internal => OUTSIDE,
            _ if self.service.external_local => flags::MASQUERADE_NODE,
            _ => ALL,
        }
    }

    /// `loadBalancerSourceRanges` of the family. A node whose own address is in them may use the load balancer's
    /// address also where that is an address of the node, and so the source of its packets.
    fn source_ranges(&self, ipv6: bool) -> Vec<IpNet> {
        let of_family = |address: IpAddr| address.is_ipv6() == ipv6;
        let mut ranges: BTreeSet<_> = self
            .service
            .source_ranges
            .iter()
            .filter(|range| of_family(range.addr()))
            .map(IpNet::trunc)
            .collect();
        if self
            .place
            .primary_addresses
            .iter()
            .any(|address| ranges.iter().any(|range| range.contains(address)))
        {
            ranges.extend(
                self.service.load_balancer_ips.iter().copied().filter(|ip| of_family(*ip)).map(IpNet::from),
            );
        }
        ranges.into_iter().collect()
    }
}
