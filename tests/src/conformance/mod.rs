//! Conformance: cases that say what Kubernetes means, and what weir makes of them.

pub mod service;

use std::path::Path;

use weir::{
    cluster::{Cluster, Objects},
    manifest,
};

/// The cluster that a manifest file describes.
fn load(path: &Path) -> anyhow::Result<Cluster> {
    let refused = |diagnostics: manifest::Diagnostics| anyhow::anyhow!("{}", diagnostics.render(false));
    let mut objects = Objects::default();
    objects.insert_all(manifest::read(&[path.to_owned()]).map_err(refused)?);
    objects.build().map_err(refused)
}
