//! The objects of a cluster, which come and go one by one.

use std::collections::BTreeMap;

use super::{Cluster, Name, build};
use crate::manifest::{Diagnostics, Documents, Key, Kind, Object, Text};

/// Objects by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    objects: BTreeMap<Key, Object>,
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
    pub fn insert(&mut self, object: Object) -> Option<Object> {
        self.objects.insert(object.key.clone(), object)
    }

    /// Removes an object, and with a namespace all that is in it. Returns what was removed, the named
    /// object first.
    pub fn remove(&mut self, key: &Key) -> Vec<Object> {
        let mut removed = Vec::from_iter(self.objects.remove(key));
        if key.kind == Kind::Namespace {
            let namespace = &key.name.name;
            let inside =
                |key: &Key, _: &mut Object| key.kind.is_namespaced() && key.name.namespace == *namespace;
            removed.extend(self.objects.extract_if(.., inside).map(|(_, object)| object));
        }
        removed
    }

    /// The object of this kind and name; the namespace is empty for kinds that have none.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        let name = Name { namespace: namespace.to_owned(), name: name.to_owned() };
        self.objects.get(&Key { kind, name })
    }

    /// All of them, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
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
        self.objects.values().map(Object::text)
    }

    /// The cluster that the objects make up, unless they contradict each other.
    pub fn build(&self) -> Result<Cluster, Diagnostics> {
        build::cluster(self.objects.values(), self.skipped.clone())
    }
}
