//! What is to be expected: the compiled datapath, evaluated in user space.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};
use weir::{
    cluster::{Cluster, Protocol},
    compile::{Numbers, compile},
    datapath::{Connection, Datapath, Judgement, Origin},
};
use weir_common::policy;

/// What the manifests say.
pub(crate) enum Model {
    /// There are no agents, so nothing is denied.
    Open,
    /// Every node's datapath.
    Compiled(Vec<Datapath>),
}

impl Model {
    /// What a cluster says.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let datapath = |node| compile(cluster, node, &mut Numbers::default());
        let datapaths: Result<_, _> = cluster.nodes.keys().map(|node| datapath(node)).collect();
        Ok(Self::Compiled(datapaths.context("the manifests cannot be compiled")?))
    }

    /// Whether a connection between two addresses is allowed, by both ends.
    pub(crate) fn allows(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> bool {
        let connection = connection(from, to, protocol);
        let nodes = match self {
            Self::Open => return true,
            Self::Compiled(nodes) => nodes,
        };
        nodes.iter().all(|node| node.path(origin(node, from), &connection).allowed())
    }

    /// Where a connection to a service may end, and whether policy lets it. Asks the client's own node.
    pub(crate) fn backends(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> BTreeMap<SocketAddr, bool> {
        let nodes = match self {
            Self::Open => return BTreeMap::new(),
            Self::Compiled(nodes) => nodes,
        };
        let own = nodes
            .iter()
            .map(|node| (node, origin(node, from)))
            .find(|(_, origin)| *origin != Origin::Outside);
        let judgement = own.map(|(node, origin)| node.judge(origin, &connection(from, to, protocol)));
        let backends: BTreeSet<_> = match judgement {
            Some(Judgement::Balanced(backends)) => backends.into_keys().collect(),
            _ => return BTreeMap::new(),
        };
        let addresses = backends.into_iter().map(|backend| SocketAddr::new(backend.address, backend.port));
        addresses.map(|backend| (backend, self.allows(from, backend, protocol))).collect()
    }
}

fn connection(source: IpAddr, to: SocketAddr, protocol: Protocol) -> Connection {
    let protocol = match protocol {
        Protocol::Tcp => policy::Protocol::Tcp,
        Protocol::Udp => policy::Protocol::Udp,
        Protocol::Sctp => policy::Protocol::Sctp,
    };
    Connection { source, destination: to.ip(), protocol, port: to.port() }
}

fn origin(node: &Datapath, from: IpAddr) -> Origin {
    if node.endpoints.contains_key(&from) {
        Origin::Pod
    } else if node.node_addresses.contains(&from) {
        Origin::Node
    } else {
        Origin::Outside
    }
}
