//! What is to be expected: the compiled datapath, evaluated in user space.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};
use weir::{
    cluster::{Cluster, Protocol},
    compile::{Numbers, compile},
    datapath::{
        Backend, Connection, Datapath, Frontend, Judgement, Origin,
        services::{Packet, Verdict},
    },
};
use weir_common::policy;

/// What the manifests say.
pub(crate) enum Model {
    /// There are no agents, so nothing is denied.
    Open,
    /// Every node's datapath.
    Compiled(Vec<Datapath>),
}

/// A way from outside to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The backend.
    pub(crate) backend: SocketAddr,
    /// Whom it sees.
    pub(crate) source: IpAddr,
    /// Whether policy lets the connection reach it.
    pub(crate) allowed: bool,
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

    /// Where a connection from outside to a service may end that comes in by this node, which has this address.
    pub(crate) fn ways(
        &self,
        node: usize,
        own: IpAddr,
        client: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Vec<Way> {
        let Self::Compiled(nodes) = self else { return Vec::new() };
        let to = Frontend { address: to.ip(), port: to.port(), protocol: protocol.number() };
        let Verdict::Dnat(choice) = nodes[node].serve(&Packet { from: client, sport: 0, to }) else {
            return Vec::new();
        };
        let way = |backend: &Backend| {
            let source = if choice.masquerades(*backend) { own } else { client };
            // The first node that knows the backend judges; what is masqueraded comes to another one as the node's.
            let judged = if nodes[node].endpoints.contains_key(&backend.address) { client } else { source };
            let backend = SocketAddr::new(backend.address, backend.port);
            Way { backend, source, allowed: self.allows(judged, backend, protocol) }
        };
        choice.ring.backends().iter().map(way).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use xtask::shell;

    use crate::demo::load;

    /// What the shop's manifests say with these of `examples` beside them.
    fn model(manifests: &[&str]) -> Model {
        let directory = tempfile::tempdir().unwrap();
        for name in manifests {
            let copy = directory.path().join(name);
            std::fs::copy(shell::root().join("examples").join(name), copy).unwrap();
        }
        for file in std::fs::read_dir(shell::root().join("examples/shop")).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
        Model::of(&load(directory.path()).unwrap()).unwrap()
    }

    /// Whether the pod at the first address may open a connection to the second.
    fn allows(manifests: &[&str], from: &str, to: &str) -> bool {
        model(manifests).allows(from.parse().unwrap(), to.parse().unwrap(), Protocol::Tcp)
    }

    /// The ways from outside to a service, by the first node, with these manifests beside the shop's.
    fn ways(manifests: &[&str], to: &str) -> Vec<(String, String, bool)> {
        let [own, client] = ["172.18.0.11", "203.0.113.9"].map(|address| address.parse().unwrap());
        let ways = model(manifests).ways(0, own, client, to.parse().unwrap(), Protocol::Tcp);
        ways.into_iter().map(|way| (way.backend.to_string(), way.source.to_string(), way.allowed)).collect()
    }

    const WEB: &str = "10.244.1.10";
    const WEB_6: &str = "fd00:10:244:1::10";
    const API: &str = "10.244.2.11:9000";
    const API_6: &str = "[fd00:10:244:2::11]:9000";
    const API_METRICS: &str = "10.244.2.11:9100";
    const DB: &str = "10.244.1.12:5432";

    #[test]
    fn the_shops_own_policies_let_the_front_end_reach_the_api_and_not_the_database() {
        for (from, to) in [(WEB, API), (WEB_6, API_6)] {
            assert!(allows(&[], from, to), "{from} {to}");
        }
        assert!(!allows(&[], WEB, DB));
        assert!(!allows(&[], WEB, API_METRICS));
    }

    #[test]
    fn the_example_policies_cut_the_front_end_off_and_connect_it_again() {
        for (from, to) in [(WEB, API), (WEB_6, API_6)] {
            assert!(!allows(&["deny-all.yaml"], from, to), "{from} {to}");
            assert!(allows(&["deny-all.yaml", "allow-api.yaml"], from, to), "{from} {to}");
        }
        assert!(!allows(&["deny-all.yaml", "allow-api.yaml"], WEB, API_METRICS));
    }

    #[test]
    fn a_service_ends_at_its_backends() {
        let backends =
            model(&[]).backends(WEB.parse().unwrap(), "10.96.0.20:9000".parse().unwrap(), Protocol::Tcp);
        let expected = ["10.244.1.11:9000", "10.244.2.11:9000", "10.244.2.12:9000"];
        assert_eq!(backends, expected.map(|backend| (backend.parse().unwrap(), true)).into());
    }

    #[test]
    fn a_backend_sees_the_client_of_a_dsr_service_and_else_the_node_that_took_the_connection() {
        let way = |backend: &str, source: &str, allowed| (backend.to_owned(), source.to_owned(), allowed);
        let web = |allowed| {
            ["10.244.1.10:8080", "10.244.2.10:8080"].map(|web| way(web, "203.0.113.9", allowed)).to_vec()
        };
        assert_eq!(ways(&[], "198.51.100.10:80"), web(true));
        assert_eq!(ways(&["deny-all.yaml"], "198.51.100.10:80"), web(false));
        let dns = ["10.244.1.13:5353", "10.244.2.15:5353"];
        assert_eq!(ways(&[], "198.51.100.53:53"), dns.map(|dns| way(dns, "172.18.0.11", true)));
        assert_eq!(ways(&[], "198.51.100.53:54"), []);
    }
}
