//! The accepted state: all that an agent has to know to go on after a restart.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    interfaces::Attachment,
    overlay::{Entry, Overlay},
};
use crate::{
    cluster::{Name, Objects},
    datapath::{RuleId, RuleOrigin},
    manifest::{Documents, Key, Object, Reader, Text},
    shared_map::SharedMap,
};

/// The accepted state in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Accepted {
    /// Number of the objects in force; 0: there are none yet.
    pub revision: u64,
    /// Objects of the watched manifests.
    pub files: Objects,
    /// Objects of other kinds in them: how many of each `apiVersion/kind`.
    pub skipped: BTreeMap<String, usize>,
    /// What clients changed on top of them.
    pub overlay: Overlay,
    /// Interfaces that `weir attach` named.
    pub attachments: BTreeMap<Name, Attachment>,
    /// Interfaces that `weir detach` freed, with their numbers: they are left alone.
    pub freed: BTreeMap<String, u32>,
    /// The rules that the kernel counts for, by their numbers.
    pub rules: SharedMap<RuleId, RuleOrigin>,
    /// Since when something has been enforced without a gap.
    pub since: Option<Since>,
}

/// A time that a restart of the agent does not change and a restart of the machine ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Since {
    boot: String,
    seconds: u64,
}

/// The accepted state on disk: objects as they were written, so that messages still name their places.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    revision: u64,
    files: Vec<Cow<'a, Text>>,
    skipped: BTreeMap<String, usize>,
    overlay: Vec<StoredEntry>,
    attachments: Vec<(Name, Attachment)>,
    freed: BTreeMap<String, u32>,
    #[serde(default)]
    rules: Vec<(RuleId, RuleOrigin)>,
    since: Option<Since>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEntry {
    key: Key,
    object: Option<Text>,
    base: Option<Value>,
}

/// What a change makes of a state on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredChange {
    revision: u64,
    files: Vec<(Key, Option<Text>)>,
    overlay: Vec<(Key, Option<StoredEntry>)>,
    skipped: BTreeMap<String, usize>,
    attachments: Vec<(Name, Attachment)>,
    freed: BTreeMap<String, u32>,
    #[serde(default)]
    rules: Vec<(RuleId, Option<RuleOrigin>)>,
    since: Option<Since>,
}

/// Objects that may differ for a change to be stored as one.
const MOST_CHANGES: usize = 1000;

impl Accepted {
    /// What leads from this state to `after`, for the disk; `None` when that is better stored as a whole.
    pub(super) fn change_to(&self, after: &Self) -> Option<StoredChange> {
        let text = |object: &Arc<Object>| object.text().clone();
        let files: Vec<_> = self
            .files
            .differences(&after.files)
            .filter_map(|(before, after)| Some((before.or(after)?.key().clone(), after.map(text))))
            .collect();
        let stored = |(key, entry): (&Key, Option<&Entry>)| {
            (key.clone(), entry.map(|entry| StoredEntry::of(key, entry)))
        };
        let overlay: Vec<_> = self.overlay.differences(&after.overlay).map(stored).collect();
        let rules = self.rules.differences(&after.rules).into_iter();
        let rules = rules.map(|rule| (*rule.key, rule.after.cloned())).collect();
        (files.len() + overlay.len() <= MOST_CHANGES).then(|| StoredChange {
            revision: after.revision,
            files,
            overlay,
            skipped: after.skipped.clone(),
            attachments: after.attachments.clone().into_iter().collect(),
            freed: after.freed.clone(),
            rules,
            since: after.since.clone(),
        })
    }

    /// Follows a change from the disk.
    pub(super) fn follow(&mut self, change: StoredChange) -> Result<(), String> {
        for (key, text) in change.files {
            match text {
                Some(text) => drop(self.files.insert(kept(&text)?)),
                None => self.files.remove_one(&key),
            }
        }
        for (key, entry) in change.overlay {
            self.overlay.set(key, entry.map(StoredEntry::restore).transpose()?);
        }
        self.revision = change.revision;
        self.skipped = change.skipped;
        self.attachments = change.attachments.into_iter().collect();
        self.freed = change.freed;
        for (rule, origin) in change.rules {
            match origin {
                Some(origin) => drop(self.rules.insert(rule, origin)),
                None => drop(self.rules.remove(&rule)),
            }
        }
        self.since = change.since.filter(Since::is_of_this_boot);
        Ok(())
    }

    /// For the disk.
    pub(super) fn to_stored(&self) -> Stored<'_> {
        Stored {
            revision: self.revision,
            files: self.files.texts().map(Cow::Borrowed).collect(),
            skipped: self.skipped.clone(),
            overlay: self.overlay.entries().map(|(key, entry)| StoredEntry::of(key, entry)).collect(),
            attachments: self.attachments.clone().into_iter().collect(),
            freed: self.freed.clone(),
            rules: self.rules.iter().map(|(rule, origin)| (*rule, origin.clone())).collect(),
            since: self.since.clone(),
        }
    }

    /// From the disk. Objects that are among `read` too are shared with it. The text says what another release of
    /// weir refuses of it.
    pub(super) fn restore(stored: Stored<'_>, read: &Objects) -> Result<Self, String> {
        let overlay = stored.overlay.into_iter().map(|entry| Ok((entry.key.clone(), entry.restore()?)));
        Ok(Self {
            revision: stored.revision,
            files: restored(&stored.files, read)?,
            skipped: stored.skipped,
            overlay: Overlay::from_entries(overlay.collect::<Result<Vec<_>, String>>()?),
            attachments: stored.attachments.into_iter().collect(),
            freed: stored.freed,
            rules: stored.rules.into_iter().collect(),
            since: stored.since.filter(Since::is_of_this_boot),
        })
    }
}

impl StoredEntry {
    fn of(key: &Key, entry: &Entry) -> Self {
        let object = entry.object.as_ref().map(|object| object.text().clone());
        Self { key: key.clone(), object, base: entry.base.clone() }
    }

    fn restore(self) -> Result<Entry, String> {
        let object = self.object.as_ref().map(kept).transpose()?;
        Ok(Entry { object: object.map(Arc::new), base: self.base })
    }
}

impl Since {
    fn is_of_this_boot(&self) -> bool {
        Some(&self.boot) == boot().as_ref()
    }

    /// From now on.
    pub(super) fn now() -> Option<Self> {
        Some(Self { boot: boot()?, seconds: uptime()? })
    }

    /// Seconds since then.
    pub(super) fn elapsed(&self) -> Option<u64> {
        uptime().map(|now| now.saturating_sub(self.seconds))
    }
}

/// The objects with these texts: those of `read`, where they are among them.
fn restored(texts: &[Cow<'_, Text>], read: &Objects) -> Result<Objects, String> {
    let known: HashMap<&str, &Arc<Object>> =
        read.iter().map(|object| (&*object.text().text, object)).collect();
    let find = |text: &Text| known.get(&*text.text).filter(|object| object.text() == text);
    let others = texts.iter().map(AsRef::as_ref).filter(|text| find(text).is_none());
    let mut restored = objects(all_kept(others)?);
    for object in texts.iter().filter_map(|text| find(text)) {
        restored.insert(Arc::clone(object));
    }
    Ok(restored)
}

/// The objects of what was read.
pub(super) fn objects(documents: Documents) -> Objects {
    let mut objects = Objects::default();
    objects.insert_all(documents);
    objects
}

fn kept(text: &Text) -> Result<Object, String> {
    all_kept([text])?.objects.into_iter().next().ok_or_else(|| format!("{}: there is no object", text.source))
}

fn all_kept<'t>(texts: impl IntoIterator<Item = &'t Text>) -> Result<Documents, String> {
    let reader = Reader::default().kept(texts);
    reader.finish().map_err(|found| found.render(false))
}

fn boot() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|boot| boot.trim().to_owned())
}

/// Seconds since the machine started.
fn uptime() -> Option<u64> {
    std::fs::read_to_string("/proc/uptime").ok()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn read(names: &[&str]) -> Objects {
        let object = |name| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        let texts: Vec<_> = names.iter().map(object).collect();
        objects(manifest::from_text("a.yaml", &texts.join("---\n")).unwrap())
    }

    #[test]
    fn what_the_manifests_still_say_is_in_memory_once() {
        let accepted = Accepted { files: read(&["same", "former"]), ..Accepted::default() };
        let now = read(&["same", "latter"]);

        let restored = Accepted::restore(accepted.to_stored(), &now).unwrap();

        assert_eq!(restored.files, accepted.files);
        let shared =
            |object: &&Arc<Object>| now.find(object.key()).is_some_and(|own| Arc::ptr_eq(own, object));
        assert_eq!(restored.files.iter().filter(shared).count(), 1);
    }
}
