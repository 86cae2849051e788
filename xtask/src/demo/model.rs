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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{demo::load, shell};

    /// Whether the pod at the first address may open a connection to the second, with these manifests of `examples`.
    fn allows(manifests: &[&str], from: &str, to: &str) -> bool {
        let directory = tempfile::tempdir().unwrap();
        for name in manifests {
            let copy = directory.path().join(name);
            std::fs::copy(shell::root().join("examples").join(name), copy).unwrap();
        }
        for file in std::fs::read_dir(shell::root().join("examples/shop")).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
        let model = Model::of(&load(directory.path()).unwrap()).unwrap();
        model.allows(from.parse().unwrap(), to.parse().unwrap(), Protocol::Tcp)
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
        let model = Model::of(&load(&shell::root().join("examples/shop")).unwrap()).unwrap();
        let backends =
            model.backends(WEB.parse().unwrap(), "10.96.0.20:9000".parse().unwrap(), Protocol::Tcp);
        let expected = ["10.244.1.11:9000", "10.244.2.11:9000", "10.244.2.12:9000"];
        assert_eq!(backends, expected.map(|backend| (backend.parse().unwrap(), true)).into());
    }
}
