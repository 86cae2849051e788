//! The accepted state: all that an agent has to know to go on after a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    interfaces::Attachment,
    overlay::{Entry, Overlay},
};
use crate::{
    cluster::{Name, Objects},
    manifest::{Documents, Key, Object, Reader, Text},
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
pub(super) struct Stored {
    revision: u64,
    files: Vec<Text>,
    skipped: BTreeMap<String, usize>,
    overlay: Vec<StoredEntry>,
    attachments: Vec<(Name, Attachment)>,
    freed: BTreeMap<String, u32>,
    since: Option<Since>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEntry {
    key: Key,
    object: Option<Text>,
    base: Option<Value>,
}

impl Accepted {
    /// For the disk.
    pub(super) fn to_stored(&self) -> Stored {
        let entry = |(key, entry): (&Key, &Entry)| StoredEntry {
            key: key.clone(),
            object: entry.object.as_ref().map(|object| object.text().clone()),
            base: entry.base.clone(),
        };
        Stored {
            revision: self.revision,
            files: self.files.texts().cloned().collect(),
            skipped: self.skipped.clone(),
            overlay: self.overlay.entries().map(entry).collect(),
            attachments: self.attachments.clone().into_iter().collect(),
            freed: self.freed.clone(),
            since: self.since.clone(),
        }
    }

    /// From the disk. The text says what another release of weir refuses of it.
    pub(super) fn restore(stored: Stored) -> Result<Self, String> {
        let overlay = stored.overlay.into_iter().map(|entry| {
            let object = entry.object.as_ref().map(kept).transpose()?;
            Ok((entry.key, Entry { object, base: entry.base }))
        });
        Ok(Self {
            revision: stored.revision,
            files: objects(all_kept(&stored.files)?),
            skipped: stored.skipped,
            overlay: Overlay::from_entries(overlay.collect::<Result<Vec<_>, String>>()?),
            attachments: stored.attachments.into_iter().collect(),
            freed: stored.freed,
            since: stored.since.filter(|since| Some(&since.boot) == boot().as_ref()),
        })
    }
}

impl Since {
    /// From now on.
    pub(super) fn now() -> Option<Self> {
        Some(Self { boot: boot()?, seconds: uptime()? })
    }

    /// Seconds since then.
    pub(super) fn elapsed(&self) -> Option<u64> {
        uptime().map(|now| now.saturating_sub(self.seconds))
    }
}

/// The objects of what was read.
pub(super) fn objects(documents: Documents) -> Objects {
    let mut objects = Objects::default();
    objects.insert_all(documents);
    objects
}

fn kept(text: &Text) -> Result<Object, String> {
    all_kept(std::slice::from_ref(text))?
        .objects
        .into_iter()
        .next()
        .ok_or_else(|| format!("{}: there is no object", text.source))
}

fn all_kept(texts: &[Text]) -> Result<Documents, String> {
    let reader = texts.iter().fold(Reader::default(), Reader::kept);
    reader.finish().map_err(|found| found.render(false))
}

fn boot() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|boot| boot.trim().to_owned())
}

/// Seconds since the machine started.
fn uptime() -> Option<u64> {
    std::fs::read_to_string("/proc/uptime").ok()?.split('.').next()?.parse().ok()
}
