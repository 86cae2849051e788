//! The addresses of a service.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    cluster::{Service, ServiceKind},
    manifest::{
        address,
        fields::Fields,
        kinds::{UNLIMITED, refuse_duplicates, sub},
        names,
        node::Node,
    },
};

/// ClusterIPs; returns whether the service is headless.
pub(super) fn read_cluster_ips(spec: &Fields<'_>, service: &mut Service) -> bool {
    let single = spec.nonempty("clusterIP");
    let list = spec.list("clusterIPs", 2);
    if let (Some(single), Some(first)) = (single, list.first())
        && single.text() != first.text()
    {
        single.error("differs from the first of clusterIPs");
    }
    let nodes = if list.is_empty() { Vec::from_iter(single) } else { list };
    let Some(first) = nodes.first() else {
        if service.kind != ServiceKind::ExternalName {
            spec.warning("no clusterIP: the service has no address of its own, and nobody assigns one here");
        }
        return false;
    };
    if first.text() == Some("None") {
        if service.kind != ServiceKind::ClusterIp {
            first.error("None is possible only for a service of type ClusterIP");
        }
        if let Some(second) = nodes.get(1) {
            second.error("may not be set beside None");
        }
        return true;
    }
    let addresses: Vec<_> = nodes.iter().filter_map(|node| Some((*node, usable(*node)?))).collect();
    refuse_duplicates(addresses.iter().map(|(node, ip)| (*node, address::family(*ip))), "address family");
    check_families(spec, &addresses);
    if service.kind == ServiceKind::ExternalName {
        // Refused in a new service, but left behind where a service changes its type.
        first.warning("without effect: a service of type ExternalName has no address");
    } else {
        service.cluster_ips = addresses.into_iter().map(|(_, ip)| ip).collect();
    }
    false
}

fn check_families(spec: &Fields<'_>, addresses: &[(Node<'_>, IpAddr)]) {
    let words = [("IPv4", "IPv4"), ("IPv6", "IPv6")];
    let families: Vec<_> = spec
        .list("ipFamilies", 2)
        .into_iter()
        .filter_map(|node| Some((node, node.one_of(&words)?)))
        .collect();
    refuse_duplicates(families.iter().copied(), "family");
    for ((node, ip), (_, family)) in addresses.iter().zip(&families) {
        if address::family(*ip) != *family {
            node.error(format!("{ip} is not of the family {family} that ipFamilies says"));
        }
    }
    let words = [("SingleStack", true), ("PreferDualStack", false), ("RequireDualStack", false)];
    let single = spec.nonempty("ipFamilyPolicy").and_then(|node| node.one_of(&words));
    if let (Some(true), Some((node, _))) = (single, addresses.get(1)) {
        node.error("ipFamilyPolicy SingleStack allows one clusterIP");
    }
}

pub(super) fn external_ips(spec: &Fields<'_>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = spec.list("externalIPs", UNLIMITED).into_iter().filter_map(usable).collect();
    let mut seen = BTreeSet::new();
    addresses.retain(|ip| seen.insert(*ip));
    addresses
}

/// Addresses that a load balancer passes on unchanged (ipMode VIP).
pub(super) fn load_balancer_ips(status: &Fields<'_>, kind: ServiceKind) -> Vec<IpAddr> {
    let Some(balancer) = sub(status, "loadBalancer", &["ingress"]) else { return Vec::new() };
    let mut addresses = Vec::new();
    for node in balancer.list("ingress", UNLIMITED) {
        if kind != ServiceKind::LoadBalancer {
            node.error("only a service of type LoadBalancer may have one");
        }
        let fields = node.fields(&["ip", "hostname", "ipMode", "ports"]);
        if let Some(name) = fields.nonempty("hostname") {
            name.formed(names::dns_subdomain);
        }
        for port in fields.list("ports", UNLIMITED) {
            port.fields(&["port", "protocol", "error"]);
        }
        let ip = fields.nonempty("ip").and_then(|node| node.parsed(address::address));
        let mode = fields.nonempty("ipMode");
        if let (Some(mode), None) = (mode, fields.nonempty("ip")) {
            mode.error("may be set only with ip");
        }
        let is_vip = mode.is_none_or(|mode| mode.one_of(&[("VIP", true), ("Proxy", false)]) == Some(true));
        addresses.extend(ip.filter(|ip| is_vip && !addresses.contains(ip)));
    }
    addresses
}

/// An address that a service may have.
fn usable(node: Node<'_>) -> Option<IpAddr> {
    node.parsed(|text| {
        let ip = address::address(text)?;
        address::special(ip).map_or(Ok(ip), |why| Err(format!("{ip} {why}")))
    })
}
