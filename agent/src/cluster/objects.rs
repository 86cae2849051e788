//! The objects of a cluster, which come and go one by one.

use std::{collections::BTreeMap, sync::Arc};

use super::{Built, Cluster, Name};
use crate::{
    manifest::{Diagnostics, Documents, Key, Kind, Object, Text},
    shared_map::SharedMap,
};

/// Objects by kind and name. A copy shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    objects: SharedMap<Key, Arc<Object>>,
    skipped: BTreeMap<String, usize>,
}

impl Objects {
    /// Adds all that was read, each object in the place of its predecessor.
    pub fn insert_all(&mut self, documents: Documents) {
        for object in documents.objects {
            self.insert(object);
        }
        for (kind, count) in documents.skipped {
            *self.skipped.entry(kind).or_default() += count;
        }
    }

    /// Adds an object; returns the one it replaces.
    pub fn insert(&mut self, object: impl Into<Arc<Object>>) -> Option<Arc<Object>> {
        let object = object.into();
        self.objects.insert(object.key.clone(), object)
    }

    /// Removes an object, and with a namespace all that is in it. Returns what was removed, the named
    /// object first.
    pub fn remove(&mut self, key: &Key) -> Vec<Arc<Object>> {
        let inside: Vec<Key> = match key.kind {
            Kind::Namespace => self.inside(&key.name.name).map(|object| object.key.clone()).collect(),
            _ => Vec::new(),
        };
        [key].into_iter().chain(&inside).filter_map(|key| self.objects.remove(key)).collect()
    }

    /// Removes one object and nothing else.
    pub fn remove_one(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    /// The objects in a namespace.
    pub(super) fn inside(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        Kind::ALL.into_iter().filter(|kind| kind.is_namespaced()).flat_map(move |kind| {
            let first = Key { kind, name: Name { namespace: namespace.into(), name: "".into() } };
            let from_there = self.objects.iter_from(&first).map(|(_, object)| object);
            from_there
                .take_while(move |object| object.key.kind == kind && *object.key.name.namespace == *namespace)
        })
    }

    /// The objects that differ from these in `after`: before and after.
    pub fn differences<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Object>>, Option<&'a Arc<Object>>)> {
        self.objects.differences(&after.objects).into_iter().map(|found| (found.before, found.after))
    }

    /// The object of this kind and name; the namespace is empty for kinds that have none.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        let name = Name { namespace: namespace.into(), name: name.into() };
        self.find(&Key { kind, name })
    }

    /// The object with this key.
    pub fn find(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All of them, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> + Clone {
        self.objects.values()
    }

    /// These objects brought to those of `after`: what is equal is shared with this one.
    #[must_use]
    pub fn updated(&self, after: &Self) -> Self {
        if self.is_empty() {
            return after.clone();
        }
        let mut updated = self.clone();
        updated.skipped.clone_from(&after.skipped);
        for (before, after) in self.differences(after) {
            match (before, after) {
                (_, Some(object)) => drop(updated.insert(Arc::clone(object))),
                (Some(object), None) => updated.remove_one(object.key()),
                (None, None) => {}
            }
        }
        updated
    }

    /// Whether the two are one, at the cost of a comparison of addresses. Equal ones may be two.
    pub fn is_same(&self, other: &Self) -> bool {
        self.objects.is_same(&other.objects)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The texts of all objects, from which [`crate::manifest::Reader::kept`] makes them again.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        self.objects.values().map(|object| object.text())
    }

    /// The cluster that the objects make up, unless they contradict each other.
    pub fn build(&self) -> Result<Cluster, Diagnostics> {
        Ok(Built::new(self)?.cluster)
    }

    /// Objects of other kinds that were read: how many of each `apiVersion/kind`.
    pub(super) fn skipped(&self) -> &BTreeMap<String, usize> {
        &self.skipped
    }
}
