//! Atoms: what policies distinguish peers by. A peer's identity is the set of atoms that it matches.

use std::collections::HashSet;

use ipnet::IpNet;

use super::{
    Numbers,
    groups::{Groups, NamedPort},
};
use crate::cluster::{ClusterPeerKind, Labels, PeerKind, PodSet, Protocol, Selector};

/// Number of an atom.
pub(super) type AtomId = u32;

/// One thing that is true or not of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Atom {
    /// A pod that the selector selects, in this namespace.
    PodsOf(String, Selector),
    /// A pod in namespaces that the first selector selects; the second selects the pod.
    PodsIn(Selector, Selector),
    /// In the block and in none of its exceptions.
    Block(IpNet, Vec<IpNet>),
    /// A node that the selector selects.
    Nodes(Selector),
    /// A pod that declares this name for this port.
    Declares(String, Protocol, u16),
}

impl Atom {
    /// What a peer of a NetworkPolicy in `namespace` says.
    pub(super) fn of_peer(peer: &PeerKind, namespace: &str) -> Self {
        match peer {
            PeerKind::Pods { namespaces: None, pods } => {
                Self::PodsOf(namespace.to_owned(), pods.clone().unwrap_or_default())
            }
            PeerKind::Pods { namespaces: Some(namespaces), pods } => {
                Self::PodsIn(namespaces.clone(), pods.clone().unwrap_or_default())
            }
            PeerKind::Block { cidr, except } => Self::block(cidr, except),
        }
    }

    /// What a peer of a ClusterNetworkPolicy says; `None` for one with no field that is known.
    pub(super) fn of_cluster_peer(peer: &ClusterPeerKind) -> Option<Vec<Self>> {
        Some(match peer {
            ClusterPeerKind::Pods(PodSet { namespaces, pods }) => {
                vec![Self::PodsIn(namespaces.clone(), pods.clone().unwrap_or_default())]
            }
            ClusterPeerKind::Nodes(nodes) => vec![Self::Nodes(nodes.clone())],
            ClusterPeerKind::Networks(networks) => {
                networks.iter().map(|network| Self::block(network, &[])).collect()
            }
            ClusterPeerKind::Unknown => return None,
        })
    }

    fn block(cidr: &IpNet, except: &[IpNet]) -> Self {
        let mut except: Vec<_> = except.iter().map(IpNet::trunc).collect();
        except.sort_unstable();
        except.dedup();
        Self::Block(cidr.trunc(), except)
    }
}

/// The atoms that one compilation uses, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Atoms<'a>(pub(super) Vec<(AtomId, &'a Atom)>);

impl<'a> Atoms<'a> {
    /// Those whose numbers are `used`.
    pub(super) fn new(numbers: &'a Numbers, used: &HashSet<AtomId>) -> Self {
        let mut atoms: Vec<_> = numbers
            .atoms
            .iter()
            .filter(|(_, number)| used.contains(number))
            .map(|(atom, number)| (number, atom))
            .collect();
        atoms.sort_unstable_by_key(|(number, _)| *number);
        Self(atoms)
    }

    /// For each group of pods the atoms that it matches by what it is; by its addresses it may match more.
    pub(super) fn by_group(&self, groups: &Groups) -> Vec<Vec<AtomId>> {
        let mut matching = vec![Vec::new(); groups.all.len()];
        for (id, atom) in &self.0 {
            let matched = match atom {
                Atom::PodsOf(namespace, pods) => groups.in_namespace(namespace, pods),
                Atom::PodsIn(namespaces, pods) => groups.in_namespaces(namespaces, pods),
                Atom::Declares(name, protocol, number) => {
                    groups.declaring(&NamedPort { name: name.clone(), protocol: *protocol, number: *number })
                }
                Atom::Block(..) | Atom::Nodes(_) => continue,
            };
            for group in matched {
                matching[group].push(*id);
            }
        }
        matching
    }

    /// The atoms that a node with these labels matches; by its addresses it may match more.
    pub(super) fn of_node(&self, labels: &Labels) -> Vec<AtomId> {
        let nodes = self.0.iter().filter_map(|(id, atom)| match atom {
            Atom::Nodes(selector) => Some((*id, selector)),
            _ => None,
        });
        nodes.filter(|(_, selector)| selector.matches(labels)).map(|(id, _)| id).collect()
    }
}
