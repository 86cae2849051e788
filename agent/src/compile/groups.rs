//! Pods by what policies can tell apart: namespace, labels, and the ports they declare by name.
//!
//! Selectors are evaluated once per group. A cluster has far fewer groups than pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::cluster::{Cluster, ContainerPort, Labels, Name, Pod, PodSet, Protocol, Selector};

/// Networked pods with the same namespace, labels and named ports.
#[derive(Debug)]
pub(super) struct Group {
    /// One of them; the others have the same labels.
    pub(super) example: Arc<Pod>,
    /// The ports they declare by name.
    pub(super) ports: BTreeSet<NamedPort>,
}

/// A port that a pod declares by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NamedPort {
    /// The name.
    pub(super) name: String,
    /// Protocol.
    pub(super) protocol: Protocol,
    /// Number.
    pub(super) number: u16,
}

/// Every networked pod of a cluster, by group. A group is known by its index.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The groups.
    pub(super) all: Vec<Group>,
    /// Networked pods by name, each with its group.
    pub(super) pods: Vec<(Arc<Pod>, usize)>,
    /// Those that are on the node.
    pub(super) local_pods: Vec<(Arc<Pod>, usize)>,
    /// Their groups.
    pub(super) local: BTreeSet<usize>,
    /// The ports that any of them declares by name.
    pub(super) declared: BTreeSet<NamedPort>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
}

/// A namespace that has networked pods.
#[derive(Debug)]
struct Namespace {
    labels: Labels,
    groups: Vec<usize>,
}

impl Groups {
    /// Groups the pods of `cluster`, and finds those that are on `node`.
    pub(super) fn new(cluster: &Cluster, node: &str) -> Self {
        let mut groups = Self::default();
        let mut known = HashMap::new();
        for (name, pod) in cluster.pods.iter().filter(|(_, pod)| pod.is_networked()) {
            let ports = named_ports(pod);
            let index = *known.entry((&name.namespace, &pod.labels, ports)).or_insert_with_key(|key| {
                groups.declared.extend(key.2.iter().cloned());
                groups.all.push(Group { example: Arc::clone(pod), ports: key.2.clone() });
                let namespace = groups.namespaces.entry(name.namespace.clone());
                let namespace = namespace.or_insert_with(|| {
                    let listed = cluster.namespaces.get(&name.namespace);
                    // One that the cluster does not list has no labels.
                    let labels = listed.map(|found| found.labels.clone()).unwrap_or_default();
                    Namespace { labels, groups: Vec::new() }
                });
                namespace.groups.push(groups.all.len() - 1);
                groups.all.len() - 1
            });
            if pod.node.as_deref() == Some(node) {
                groups.local_pods.push((Arc::clone(pod), index));
                groups.local.insert(index);
            }
            groups.pods.push((Arc::clone(pod), index));
        }
        groups
    }

    /// The first pod of a group, as an example.
    pub(super) fn pod_of(&self, group: usize) -> &Name {
        &self.all[group].example.name
    }

    /// The labels of the pods of a group.
    pub(super) fn labels_of(&self, group: usize) -> &Labels {
        &self.all[group].example.labels
    }

    /// Whether a group is of `set`.
    pub(super) fn is_in(&self, group: usize, set: &PodSet) -> bool {
        let namespace = &self.namespaces[&self.pod_of(group).namespace];
        let selects = |pods: &Selector| pods.matches(self.labels_of(group));
        set.namespaces.matches(&namespace.labels) && set.pods.as_ref().is_none_or(selects)
    }

    /// The groups on the node that are selected by a policy that the clusters do not have in common.
    pub(super) fn touched(&self, before: &Cluster, after: &Cluster) -> BTreeSet<usize> {
        let mut touched = BTreeSet::new();
        for change in before.policies.differences(&after.policies) {
            for policy in change.before.into_iter().chain(change.after) {
                let is_selected = |group: &&usize| {
                    self.pod_of(**group).namespace == policy.name.namespace
                        && policy.pod_selector.matches(self.labels_of(**group))
                };
                touched.extend(self.local.iter().filter(is_selected));
            }
        }
        for change in before.cluster_policies.differences(&after.cluster_policies) {
            for policy in change.before.into_iter().chain(change.after) {
                touched.extend(self.local.iter().filter(|group| self.is_in(**group, &policy.subject)));
            }
        }
        touched
    }

    /// The groups of one namespace that `pods` selects.
    pub(super) fn in_namespace(&self, namespace: &str, pods: &Selector) -> Vec<usize> {
        self.namespaces.get(namespace).map_or_else(Vec::new, |found| self.selected(found, pods).collect())
    }

    /// The groups that `pods` selects in the namespaces that `namespaces` selects.
    pub(super) fn in_namespaces(&self, namespaces: &Selector, pods: &Selector) -> Vec<usize> {
        let found = self.namespaces.values().filter(|namespace| namespaces.matches(&namespace.labels));
        found.flat_map(|namespace| self.selected(namespace, pods)).collect()
    }

    /// The groups that declare `port`.
    pub(super) fn declaring(&self, port: &NamedPort) -> Vec<usize> {
        (0..self.all.len()).filter(|group| self.all[*group].ports.contains(port)).collect()
    }

    fn selected(&self, namespace: &Namespace, pods: &Selector) -> impl Iterator<Item = usize> {
        namespace.groups.iter().copied().filter(|group| pods.matches(&self.all[*group].example.labels))
    }
}

fn named_ports(pod: &Pod) -> BTreeSet<NamedPort> {
    let named = |port: &ContainerPort| {
        let ContainerPort { name, port: number, protocol } = port;
        Some(NamedPort { name: name.clone()?, protocol: *protocol, number: *number })
    };
    pod.ports.iter().filter_map(named).collect()
}
