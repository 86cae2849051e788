//! Conformance: cases that say what Kubernetes means, and what weir makes of them.
//!
//! A case is a folder with an `expect.json`. Cases about policies and [services](service) are run at a
//! [level](Level); those about objects that an API server refuses ask only the reader of manifests.

mod level;
mod live;
mod loaded;
mod model;
mod objects;
mod policy;
mod report;
pub mod service;
mod subset;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;
use weir::{
    cluster::{Cluster, Objects},
    manifest,
};

pub use level::{Change, Level, Observation};
pub use live::Live;
pub use loaded::Loaded;
pub use model::Model;
pub use report::{Finding, Outcome, Report};
pub use subset::Subset;

/// Runs every case below `directories` that is in `subset` at `level`. A case that cannot be run has failed. After
/// each, `progress` gets the number of cases that are done and of all, and what was found in this one.
pub fn run(
    directories: &[PathBuf],
    subset: Subset,
    level: &mut dyn Level,
    progress: &mut dyn FnMut(usize, usize, &[Finding]),
) -> anyhow::Result<Report> {
    let mut cases = Vec::new();
    for directory in directories {
        let before = cases.len();
        find(directory, &mut cases)?;
        anyhow::ensure!(cases.len() > before, "{}: no case, that is no expect.json", directory.display());
    }
    let name = |case: &PathBuf| case.file_name().unwrap_or_default().to_string_lossy().into_owned();
    cases.retain(|case| subset.contains(&name(case)));
    let mut report = Report::new(level.name());
    for (done, case) in cases.iter().enumerate() {
        let name = name(case);
        let findings = run_case(&name, case, level).unwrap_or_else(|error| {
            vec![Finding {
                case: name.to_string(),
                step: String::new(),
                subject: String::new(),
                outcome: Outcome::failed("a case that runs", "an error", &format!("{error:#}")),
            }]
        });
        progress(done + 1, cases.len(), &findings);
        report.add(findings);
    }
    Ok(report)
}

fn run_case(name: &str, directory: &Path, level: &mut dyn Level) -> anyhow::Result<Vec<Finding>> {
    let text = fs::read(directory.join("expect.json")).context("expect.json")?;
    let expect: Value = serde_json::from_slice(&text).context("expect.json")?;
    let holds = |field| expect["steps"][0].get(field).is_some();
    if expect.get("valid").is_some() {
        objects::run(name, directory, &serde_json::from_value(expect)?)
    } else if holds("probes") {
        policy::run(name, directory, serde_json::from_value(expect)?, level)
    } else if holds("packets") {
        Ok(report::of_service(name, level.run_service_case(directory)?))
    } else {
        anyhow::bail!("expect.json: none of `valid`, `steps[].probes` and `steps[].packets`")
    }
}

/// Finds the cases below `directory`, in order.
fn find(directory: &Path, cases: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if directory.join("expect.json").is_file() {
        cases.push(directory.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().filter(|path| path.is_dir()).try_for_each(|path| find(&path, cases))
}

/// The cluster that a manifest file describes.
fn load(path: &Path) -> anyhow::Result<Cluster> {
    let mut objects = Objects::default();
    objects.insert_all(manifest::read(&[path.to_owned()]).map_err(refused)?);
    objects.build().map_err(refused)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(diagnostics: manifest::Diagnostics) -> anyhow::Error {
    anyhow::anyhow!("{}", diagnostics.render(false))
}
