//! Pods by what policies can tell apart: namespace, labels, and the ports they declare by name.
//!
//! Selectors are evaluated once per group. A cluster has far fewer groups than pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cluster::{Cluster, ContainerPort, Labels, Name, Pod, Protocol, Selector};

/// Networked pods with the same namespace, labels and named ports.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// Labels of all of them.
    pub(super) labels: &'a Labels,
    /// The ports they declare by name.
    pub(super) ports: BTreeSet<NamedPort<'a>>,
}

/// A port that a pod declares by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NamedPort<'a> {
    /// The name.
    pub(super) name: &'a str,
    /// Protocol.
    pub(super) protocol: Protocol,
    /// Number.
    pub(super) number: u16,
}

/// Every networked pod of a cluster, by group. A group is known by its index.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    /// The groups.
    pub(super) all: Vec<Group<'a>>,
    /// Networked pods by name, each with its group.
    pub(super) pods: Vec<(&'a Name, &'a Pod, usize)>,
    /// The ports that any of them declares by name.
    pub(super) declared: BTreeSet<NamedPort<'a>>,
    namespaces: BTreeMap<&'a str, Namespace<'a>>,
}

/// A namespace that has networked pods.
#[derive(Debug)]
struct Namespace<'a> {
    labels: &'a Labels,
    groups: Vec<usize>,
}

/// Labels of a namespace that the cluster does not list.
static NO_LABELS: Labels = Labels::new();

impl<'a> Groups<'a> {
    /// Groups the pods of `cluster`.
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut groups = Self::default();
        let mut known = HashMap::new();
        for (name, pod) in cluster.pods.iter().filter(|(_, pod)| pod.is_networked()) {
            let ports = named_ports(pod);
            let index = *known.entry((&name.namespace, &pod.labels, ports)).or_insert_with_key(|key| {
                groups.declared.extend(&key.2);
                groups.all.push(Group { labels: &pod.labels, ports: key.2.clone() });
                let labels =
                    cluster.namespaces.get(&name.namespace).map_or(&NO_LABELS, |found| &found.labels);
                let namespace = groups.namespaces.entry(&name.namespace);
                let namespace = namespace.or_insert(Namespace { labels, groups: Vec::new() });
                namespace.groups.push(groups.all.len() - 1);
                groups.all.len() - 1
            });
            groups.pods.push((name, pod, index));
        }
        groups
    }

    /// The first pod of a group, as an example.
    pub(super) fn pod_of(&self, group: usize) -> &'a Name {
        self.pods.iter().find(|pod| pod.2 == group).expect("no group is empty").0
    }

    /// The groups of one namespace that `pods` selects.
    pub(super) fn in_namespace(&self, namespace: &str, pods: &Selector) -> Vec<usize> {
        self.namespaces.get(namespace).map_or_else(Vec::new, |found| self.selected(found, pods).collect())
    }

    /// The groups that `pods` selects in the namespaces that `namespaces` selects.
    pub(super) fn in_namespaces(&self, namespaces: &Selector, pods: &Selector) -> Vec<usize> {
        let found = self.namespaces.values().filter(|namespace| namespaces.matches(namespace.labels));
        found.flat_map(|namespace| self.selected(namespace, pods)).collect()
    }

    /// The groups that declare `port`.
    pub(super) fn declaring(&self, port: NamedPort<'_>) -> Vec<usize> {
        (0..self.all.len()).filter(|group| self.all[*group].ports.contains(&port)).collect()
    }

    fn selected(&self, namespace: &Namespace<'_>, pods: &Selector) -> impl Iterator<Item = usize> {
        namespace.groups.iter().copied().filter(|group| pods.matches(self.all[*group].labels))
    }
}

fn named_ports<'a>(pod: &'a Pod) -> BTreeSet<NamedPort<'a>> {
    let named = |port: &'a ContainerPort| {
        let ContainerPort { name, port: number, protocol } = port;
        Some(NamedPort { name: name.as_deref()?, protocol: *protocol, number: *number })
    };
    pod.ports.iter().filter_map(named).collect()
}
