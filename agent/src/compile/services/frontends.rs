//! Where a service answers on one node.

use std::net::IpAddr;

use super::Place;
use crate::cluster::{Service, ServicePort};

/// What kind of address a frontend has: which traffic policy it is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A ClusterIP: `internalTrafficPolicy`.
    Internal,
    /// An address for the outside: `externalTrafficPolicy`.
    External,
    /// The address of a load balancer: the same, and `loadBalancerSourceRanges`.
    LoadBalancer,
    /// A port of the node: `externalTrafficPolicy`.
    NodePort,
}

/// The addresses and ports of a service port in the family of its ClusterIP, strongest first: an address
/// given twice is what it is given as first.
pub(super) fn of<'a>(
    service: &'a Service,
    port: &'a ServicePort,
    cluster_ip: IpAddr,
    place: &'a Place<'_>,
) -> impl Iterator<Item = (Kind, IpAddr, u16)> {
    let each =
        |kind, addresses: &'a [IpAddr]| addresses.iter().map(move |address| (kind, *address, port.port));
    let node_port = port.node_port.into_iter();
    let node_ports = node_port.flat_map(|port| {
        place.node_port_addresses.iter().map(move |address| (Kind::NodePort, *address, port))
    });
    std::iter::once((Kind::Internal, cluster_ip, port.port))
        .chain(each(Kind::LoadBalancer, &service.load_balancer_ips))
        .chain(each(Kind::External, &service.external_ips))
        .chain(node_ports)
        .filter(move |(_, address, _)| address.is_ipv6() == cluster_ip.is_ipv6())
}
