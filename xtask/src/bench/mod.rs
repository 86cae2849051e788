//! How fast weir is, by ratios that are taken in one run.
//!
//! Nothing here is compared with a number of another machine or another day: what a packet costs is measured
//! in turns with what the kernel's own maps cost, and traffic through weir in turns with traffic through
//! plain routing and through the rules that kube-proxy writes. What comes out is in `docs/performance.md`.

mod policy;
mod prog;
mod report;
mod scale;
mod scale_lab;
mod stats;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
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
    /// Compare with what an earlier run wrote.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// A bench.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Which {
    /// What a packet costs in each kernel program.
    Prog,
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

/// Measures, and prints what came out.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    machine::prepare()?;
    let object = build::kernel_programs()?;
    private_mounts()?;
    let mut report = Report::new(options.quick)?;
    report.programs = budget::measure(&object)?;
    if options.which.includes(Which::Prog) {
        report.rows.extend(prog::run(options.quick)?);
    }
    if options.which.includes(Which::Policy) {
        report.rows.extend(policy::run(options.quick)?);
    }
    if options.which.includes(Which::Scale) {
        report.rows.extend(scale::run(options.quick)?);
    }
    table::print(&report);
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    if let Some(path) = &options.against {
        table::print_change(&Report::read(path)?, &report);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is pinned and named here is gone when this process ends, however it ends, and nobody else sees it.
fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(Some("bpf"), machine::BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=700"))?;
    Ok(())
}
