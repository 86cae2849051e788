//! The datapaths of all nodes of a cluster together: what becomes of a connection from end to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Connection, Datapath, Direction, Judgement, Origin, Path, explain::Explanation};
use crate::{
    cluster::Cluster,
    compile::{CompileError, Numbers, compile},
};

/// A datapath per node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// By the node's name.
    pub nodes: BTreeMap<String, Datapath>,
}

impl Network {
    /// Compiles every node of `cluster`. Each has its `numbers`, which may be empty at first.
    pub fn compile(cluster: &Cluster, numbers: &mut BTreeMap<String, Numbers>) -> Result<Self, CompileError> {
        let of_pods = cluster.pods.values().filter_map(|pod| pod.node.as_deref());
        let names: BTreeSet<_> = cluster.nodes.keys().map(AsRef::as_ref).chain(of_pods).collect();
        let compiled = names.into_iter().map(|name| {
            let numbers = numbers.entry(name.to_owned()).or_default();
            Ok((name.to_owned(), compile(cluster, name, numbers)?))
        });
        Ok(Self { nodes: compiled.collect::<Result<_, _>>()? })
    }

    /// What becomes of `connection`, judged at both ends wherever they are.
    pub fn connect(&self, connection: &Connection) -> Judgement {
        let Some((node, origin)) = self.entry(connection) else {
            return Judgement::Direct(Path::default());
        };
        match self.nodes[node].judge(origin, connection) {
            Judgement::Direct(path) => Judgement::Direct(self.completed(node, connection, path)),
            Judgement::Balanced(paths) => {
                let completed = paths.into_iter().map(|(backend, path)| {
                    let to = Connection { destination: backend.address, port: backend.port, ..*connection };
                    (backend, self.completed(node, &to, path))
                });
                Judgement::Balanced(completed.collect())
            }
            refused @ (Judgement::InvalidSource | Judgement::Dropped | Judgement::Rejected) => refused,
        }
    }

    /// Why the ends of `connection`, whose destination is final, say what they say: the source's egress, then
    /// the destination's ingress, as far as they are pods.
    pub fn explain(&self, connection: &Connection) -> Vec<Explanation<'_>> {
        let end = |direction, pod| {
            let node = self.nodes.values().find(|node| node.endpoints.contains_key(pod))?;
            let origin = node.owns(connection.source).unwrap_or(Origin::Outside);
            node.explain(origin, connection, direction)
        };
        let ends =
            [end(Direction::Egress, &connection.source), end(Direction::Ingress, &connection.destination)];
        ends.into_iter().flatten().collect()
    }

    /// The node that sees `connection` first, and where it sees it come from. What comes from outside goes
    /// to the destination's node, or to any for an address that is on none.
    fn entry(&self, connection: &Connection) -> Option<(&str, Origin)> {
        let owner =
            |address: IpAddr| self.nodes.iter().find_map(|(name, node)| Some((name, node.owns(address)?)));
        let entry = match owner(connection.source) {
            Some(found) => found,
            None => match owner(connection.destination) {
                Some((name, _)) => (name, Origin::Outside),
                None => (self.nodes.keys().next()?, Origin::Outside),
            },
        };
        Some((entry.0, entry.1))
    }

    /// `path` with the destination's ingress, when that is on another node than the one that was asked.
    fn completed(&self, asked: &str, connection: &Connection, path: Path) -> Path {
        let mut others = self.nodes.iter().filter(|(name, _)| *name != asked);
        let there = others.find(|(_, node)| node.endpoints.contains_key(&connection.destination));
        match there {
            Some((_, node)) => Path { ingress: node.path(Origin::Outside, connection).ingress, ..path },
            None => path,
        }
    }
}

impl Datapath {
    /// Whether packets from `address` start on this node, and where.
    fn owns(&self, address: IpAddr) -> Option<Origin> {
        if self.endpoints.contains_key(&address) {
            Some(Origin::Pod)
        } else {
            self.node_addresses.contains(&address).then_some(Origin::Node)
        }
    }
}
