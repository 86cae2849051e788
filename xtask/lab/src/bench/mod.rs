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

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use self::report::Report;
use xtask::{
    build,
    cli::{Bench, BenchArgs},
    machine,
};

use crate::budget;

/// Measures, and shows what came out.
pub(crate) fn run(options: &BenchArgs) -> Result<ExitCode> {
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

fn measure(which: Bench, quick: bool) -> Result<Report> {
    machine::prepare()?;
    private_mounts()?;
    let mut report = Report::new(quick)?;
    report.programs = budget::measure(&build::object())?;
    if which.includes(Bench::Prog) {
        report.rows.extend(prog::run(quick)?);
    }
    if which.includes(Bench::E2e) {
        report.rows.extend(e2e::run(quick)?);
    }
    if which.includes(Bench::Policy) {
        report.rows.extend(policy::run(quick)?);
    }
    if which.includes(Bench::Scale) {
        report.rows.extend(scale::run(quick)?);
    }
    Ok(report)
}

/// The agent that is measured: the one that `WEIR_BIN` names, or that of these sources.
fn agent() -> Result<PathBuf> {
    env::var_os("WEIR_BIN").map_or_else(|| build::beside_us("weir"), |path| Ok(path.into()))
}

/// What is pinned and named here is gone when this process ends, however it ends, and nobody else sees it.
fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(Some("bpf"), machine::BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=700"))?;
    Ok(())
}
