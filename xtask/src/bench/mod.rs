//! How fast weir is, by ratios that are taken in one run.
//!
//! Nothing here is compared with a number of another machine or another day: what a packet costs is measured
//! in turns with what the kernel's own maps cost, and traffic through weir in turns with traffic through
//! plain routing and through the rules that kube-proxy writes. What comes out is in `docs/performance.md`.

mod document;
mod e2e;
mod figures;
pub(crate) mod kube_proxy;
mod policy;
mod prog;
mod report;
mod scale;
mod scale_lab;
mod stats;
mod svg;
mod table;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use self::report::Report;
use crate::{budget, build, machine};

/// `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which benches.
    #[arg(value_enum, default_value_t)]
    which: Which,
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Write what was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what was measured.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the tables into a document, between its marks.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Measure nothing: take what an earlier run wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["which", "quick"])]
    from: Option<PathBuf>,
    /// Compare with what an earlier run wrote.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// A bench.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Which {
    /// What a packet costs in each kernel program.
    Prog,
    /// Real traffic through network namespaces.
    E2e,
    /// How long policies take to be enforced, and how many entries they take.
    Policy,
    /// How long services take to be enforced, and what they take of memory.
    Scale,
    /// All of them.
    #[default]
    All,
}

impl Which {
    fn includes(self, bench: Self) -> bool {
        self == bench || self == Self::All
    }
}

/// Measures, and shows what came out.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let report = match &options.from {
        Some(path) => Report::read(path)?,
        None => measure(options.which, options.quick)?,
    };
    table::print(&report);
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    if let Some(path) = &options.svg {
        fs::write(path, svg::draw(&report)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.document {
        document::write(path, &report)?;
    }
    if let Some(path) = &options.against {
        table::print_change(&Report::read(path)?, &report);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(which: Which, quick: bool) -> Result<Report> {
    machine::prepare()?;
    let object = build::kernel_programs()?;
    private_mounts()?;
    let mut report = Report::new(quick)?;
    report.programs = budget::measure(&object)?;
    if which.includes(Which::Prog) {
        report.rows.extend(prog::run(quick)?);
    }
    if which.includes(Which::E2e) {
        report.rows.extend(e2e::run(quick)?);
    }
    if which.includes(Which::Policy) {
        report.rows.extend(policy::run(quick)?);
    }
    if which.includes(Which::Scale) {
        report.rows.extend(scale::run(quick)?);
    }
    Ok(report)
}

/// What is pinned and named here is gone when this process ends, however it ends, and nobody else sees it.
fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(Some("bpf"), machine::BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=700"))?;
    Ok(())
}
