//! What `weir apply` and `weir delete` change on top of the watched manifests.
//!
//! The objects in force are those of the files, except where a client has put another object over one, or
//! removed it. The latest writer wins: when the content of that very object changes in the files, what the
//! client said about it is forgotten. Where it stands in the files does not matter.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    cluster::Objects,
    manifest::{Key, Object},
};

/// What clients changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overlay {
    entries: BTreeMap<Key, Entry>,
}

/// What a client said about one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// The object in place of the files' one; `None`: deleted.
    pub object: Option<Object>,
    /// What the files said about it then.
    pub base: Option<Value>,
}

impl Overlay {
    /// Puts `object` over what `files` say. Nothing is kept of an object that the files say as well.
    pub(super) fn put(&mut self, files: &Objects, object: Object) {
        let base = content(files, object.key());
        if base.as_ref() == Some(&object.text().to_json()) {
            self.entries.remove(object.key());
        } else {
            self.entries.insert(object.key().clone(), Entry { object: Some(object), base });
        }
    }

    /// Removes an object, whatever `files` say.
    pub(super) fn remove(&mut self, files: &Objects, key: &Key) {
        match content(files, key) {
            None => self.entries.remove(key),
            base => self.entries.insert(key.clone(), Entry { object: None, base }),
        };
    }

    /// Forgets what was said about objects that have changed in `files` since.
    pub(super) fn settle(&mut self, files: &Objects) {
        self.entries.retain(|key, entry| entry.base == content(files, key));
    }

    /// The objects in force.
    pub(super) fn over(&self, files: &Objects) -> Objects {
        let untouched = files.iter().filter(|object| !self.entries.contains_key(object.key()));
        let put = self.entries.values().filter_map(|entry| entry.object.as_ref());
        let mut objects = Objects::default();
        for object in untouched.chain(put) {
            objects.insert(object.clone());
        }
        objects
    }

    /// What was said, by object.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// From what was said before.
    pub(super) fn from_entries(entries: impl IntoIterator<Item = (Key, Entry)>) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

/// What `files` say about an object, whatever its form and place.
fn content(files: &Objects, key: &Key) -> Option<Value> {
    find(files, key).map(|object| object.text().to_json())
}

/// The object of this kind and name.
pub(super) fn find<'a>(objects: &'a Objects, key: &Key) -> Option<&'a Object> {
    objects.get(key.kind, &key.name.namespace, &key.name.name)
}
