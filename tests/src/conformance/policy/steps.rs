//! The objects of a case, as its steps change them.

use std::{collections::VecDeque, path::Path};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use weir::{
    cluster::{Cluster, Name, Objects},
    manifest::{self, Key, Kind},
};

use super::super::refused;

/// What is in force, and what is to come.
#[derive(Debug)]
pub(super) struct Steps {
    objects: Objects,
    next: VecDeque<Step>,
}

/// A change: deletions, then objects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    #[serde(default)]
    delete: Vec<Reference>,
    #[serde(default)]
    apply: Vec<Value>,
}

/// An object by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    kind: Kind,
    #[serde(default)]
    namespace: String,
    name: String,
}

impl Steps {
    /// The state before the first step.
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let mut objects = Objects::default();
        objects.insert_all(manifest::read(&[directory.join("cluster.yaml")]).map_err(refused)?);
        let path = directory.join("steps.yaml");
        let mut next = VecDeque::new();
        if path.is_file() {
            let documents =
                manifest::to_json("steps.yaml", &std::fs::read_to_string(path)?).map_err(refused)?;
            let [mut document] =
                <[Value; 1]>::try_from(documents).ok().context("steps.yaml: not one document")?;
            next = serde_json::from_value(document["steps"].take()).context("steps.yaml")?;
        }
        Ok(Self { objects, next })
    }

    /// Takes the next step, which has this name.
    pub(super) fn apply(&mut self, name: &str) -> anyhow::Result<()> {
        let step = self.next.pop_front().with_context(|| format!("steps.yaml has no step {name}"))?;
        anyhow::ensure!(step.name == name, "steps.yaml: the next step is {}, not {name}", step.name);
        for Reference { kind, namespace, name } in step.delete {
            let key = Key { kind, name: Name { namespace: namespace.into(), name: name.into() } };
            anyhow::ensure!(!self.objects.remove(&key).is_empty(), "there is no {key} to delete");
        }
        for object in step.apply {
            let text = serde_json::to_string_pretty(&object)?;
            self.objects
                .insert_all(manifest::from_text(&format!("steps.yaml, {name}"), &text).map_err(refused)?);
        }
        Ok(())
    }

    /// The objects now.
    pub(super) const fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The cluster now.
    pub(super) fn cluster(&self) -> anyhow::Result<Cluster> {
        self.objects.build().map_err(refused)
    }

    /// Whether no step is left.
    pub(super) fn is_done(&self) -> bool {
        self.next.is_empty()
    }
}
