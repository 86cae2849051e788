//! What a run has measured, as it is kept in JSON.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use nix::sys::{sysinfo::sysinfo, utsname::uname};
use serde::{Deserialize, Serialize};

use super::stats::Spread;
use crate::budget::Costs;

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Whether it was a quick one.
    pub(crate) quick: bool,
    /// What each kernel program cost the verifier.
    #[serde(default)]
    pub(crate) programs: Costs,
    /// What was measured.
    pub(crate) rows: Vec<Row>,
}

/// What kind of machine it is; not which.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    memory_gib: u64,
    kernel: String,
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The bench: `prog`, `e2e`, `scale` or `policy`.
    pub(crate) bench: String,
    /// What was measured.
    pub(crate) subject: String,
    /// Under which circumstances.
    pub(crate) setting: String,
    /// What it is counted in.
    pub(crate) unit: String,
    /// How much it was.
    pub(crate) value: Spread,
    /// How that compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<Ratio>,
}

/// A comparison with something of the same bench and setting, round by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// The subject that is 1.
    pub(crate) to: String,
    /// The quotient.
    pub(crate) spread: Spread,
}

impl Report {
    /// An empty report of this machine.
    pub(crate) fn new(quick: bool) -> Result<Self> {
        Ok(Self { machine: Machine::this()?, quick, programs: Costs::new(), rows: Vec::new() })
    }

    /// Reads a report.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    /// Writes it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A row, where it was measured.
    pub(crate) fn row(&self, bench: &str, subject: &str, setting: &str) -> Option<&Row> {
        self.rows.iter().find(|row| (&*row.bench, &*row.subject, &*row.setting) == (bench, subject, setting))
    }
}

impl Machine {
    fn this() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let models = || cpuinfo.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = uname()?.release().to_string_lossy().into_owned();
        Ok(Self {
            cpu: models().next().map_or_else(|| std::env::consts::ARCH.into(), |(_, model)| model.into()),
            cpus: std::thread::available_parallelism()?.get(),
            memory_gib: sysinfo()?.ram_total().div_ceil(1 << 30),
            // What comes after a second dash is the name of a build.
            kernel: kernel.split('-').next().unwrap_or_default().to_owned(),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cpus, memory_gib, kernel } = self;
        write!(f, "{cpus} CPUs ({cpu}), {memory_gib} GiB, Linux {kernel}")
    }
}

/// The samples of a bench, round by round, by setting and subject.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(String, String), Vec<f64>>);

impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, setting: &str, subject: &str, sample: f64) {
        self.0.entry((setting.to_owned(), subject.to_owned())).or_default().push(sample);
    }

    /// All of one series; empty when there is none.
    pub(crate) fn of(&self, setting: &str, subject: &str) -> &[f64] {
        self.0.get(&(setting.to_owned(), subject.to_owned())).map_or(&[], Vec::as_slice)
    }
}
