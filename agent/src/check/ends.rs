//! From the ends that an expectation names to the connections it is about.

use std::net::IpAddr;

use super::{End, EndName, Expectation};
use crate::{
    cluster::{self, Cluster, Pod},
    datapath::Connection,
    manifest::{Diagnostic, Severity},
};

/// The connections that `expectation` is about: one for each family that both ends have.
pub(super) fn connections(
    cluster: &Cluster,
    expectation: &Expectation,
) -> Result<Vec<Connection>, Diagnostic> {
    let wrong = |end: &End, message| Diagnostic {
        source: end.source.clone(),
        severity: Severity::Error,
        message,
        excerpt: None,
    };
    let resolve = |end: &End| addresses(cluster, &end.name).map_err(|message| wrong(end, message));
    let (from, to) = (resolve(&expectation.from)?, resolve(&expectation.to)?);
    let protocol = match expectation.protocol {
        cluster::Protocol::Tcp => weir_common::policy::Protocol::Tcp,
        cluster::Protocol::Udp => weir_common::policy::Protocol::Udp,
        cluster::Protocol::Sctp => weir_common::policy::Protocol::Sctp,
    };
    let first = |ends: &[IpAddr], v4: bool| ends.iter().copied().find(|address| address.is_ipv4() == v4);
    let connections: Vec<_> = [true, false]
        .into_iter()
        .filter_map(|v4| {
            let (source, destination) = (first(&from, v4)?, first(&to, v4)?);
            Some(Connection { source, destination, protocol, port: expectation.port })
        })
        .collect();
    if connections.is_empty() {
        let message =
            format!("{} and {} have no address of one family", expectation.from.name, expectation.to.name);
        return Err(wrong(&expectation.to, message));
    }
    Ok(connections)
}

fn addresses(cluster: &Cluster, end: &EndName) -> Result<Vec<IpAddr>, String> {
    let found = match end {
        EndName::Address(address) => Some(vec![*address]),
        EndName::Node(name) => cluster.nodes.get(&**name).map(|node| node.addresses.clone()),
        EndName::Service(name) => cluster.services.get(name).map(|service| service.cluster_ips.clone()),
        EndName::Pod(name) => match cluster.pods.get(name) {
            Some(pod) => Some(judged(pod)?.addresses.clone()),
            None => None,
        },
    };
    match found {
        None => Err(format!("there is no {end} in these manifests")),
        Some(addresses) if addresses.is_empty() => Err(format!("{end} has no address in these manifests")),
        Some(addresses) => Ok(addresses),
    }
}

/// A pod that no agent enforces would look open, which says nothing about the policies.
fn judged(pod: &Pod) -> Result<&Pod, String> {
    if pod.finished {
        return Err(format!("{} has finished: its address is no longer its own", pod.name));
    }
    if pod.node.is_none() {
        return Err(format!("{} is on no node (spec.nodeName), so that nothing enforces it", pod.name));
    }
    Ok(pod)
}
