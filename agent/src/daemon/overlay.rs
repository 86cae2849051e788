//! What `weir apply` and `weir delete` change on top of the watched manifests.
//!
//! The objects in force are those of the files, except where a client has put another object over one, or
//! removed it. The latest writer wins: when the content of that very object changes in the files, what the
//! client said about it is forgotten. Where it stands in the files does not matter.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    cluster::Objects,
    manifest::{Key, Object},
    shared_map::{Difference, SharedMap},
};

/// What clients changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overlay {
    entries: SharedMap<Key, Arc<Entry>>,
}

/// What a client said about one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// The object in place of the files' one; `None`: deleted.
    pub object: Option<Arc<Object>>,
    /// What the files said about it then.
    pub base: Option<Value>,
}

impl Overlay {
    /// Puts `object` over what `files` say. Nothing is kept of an object that the files say as well.
    pub(super) fn put(&mut self, files: &Objects, object: Arc<Object>) {
        let base = content(files, object.key());
        if base.as_ref() == Some(&object.text().to_json()) {
            self.entries.remove(object.key());
        } else {
            self.set(object.key().clone(), Some(Entry { object: Some(object), base }));
        }
    }

    /// Removes an object, whatever `files` say.
    pub(super) fn remove(&mut self, files: &Objects, key: &Key) {
        let base = content(files, key);
        self.set(key.clone(), base.is_some().then_some(Entry { object: None, base }));
    }

    /// Forgets what was said about objects that have changed in `files` since.
    pub(super) fn settle(&mut self, files: &Objects) {
        self.entries.retain(|key, entry| entry.base == content(files, key));
    }

    /// The objects in force.
    pub(super) fn over(&self, files: &Objects) -> Objects {
        self.over_again(files, &Self::default(), files)
    }

    /// The objects in force, made from those that `before` put `in_force` over the same `files`.
    pub(super) fn over_again(&self, files: &Objects, before: &Self, in_force: &Objects) -> Objects {
        let mut objects = in_force.clone();
        for change in before.changes(self) {
            let object = match change.after {
                Some(entry) => entry.object.as_ref(),
                None => files.find(change.key),
            };
            match object {
                Some(object) => drop(objects.insert(Arc::clone(object))),
                None => objects.remove_one(change.key),
            }
        }
        objects
    }

    /// What is said differently in `after`, by object; nothing where `after` says nothing.
    pub(super) fn differences<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = (&'a Key, Option<&'a Entry>)> {
        self.changes(after).into_iter().map(|found| (found.key, found.after.map(|entry| &**entry)))
    }

    fn changes<'a>(&'a self, after: &'a Self) -> Vec<Difference<'a, Key, Arc<Entry>>> {
        // Most are the very same, which need not be read.
        self.entries
            .differences_by(&after.entries, |before, after| Arc::ptr_eq(before, after) || before == after)
    }

    /// Takes over what is said about one object.
    pub(super) fn set(&mut self, key: Key, entry: Option<Entry>) {
        match entry {
            Some(entry) => drop(self.entries.insert(key, Arc::new(entry))),
            None => drop(self.entries.remove(&key)),
        }
    }

    /// What was said, by object.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key, &**entry))
    }

    /// From what was said before.
    pub(super) fn from_entries(entries: impl IntoIterator<Item = (Key, Entry)>) -> Self {
        Self { entries: entries.into_iter().map(|(key, entry)| (key, Arc::new(entry))).collect() }
    }
}

/// What `files` say about an object, whatever its form and place.
fn content(files: &Objects, key: &Key) -> Option<Value> {
    files.find(key).map(|object| object.text().to_json())
}
