//! Runs folders of conformance cases: `cargo xtask conformance`.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal, stderr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use weir_tests::{
    conformance::{self, Finding, Level, Live, Loaded, Model, Outcome, Subset},
    live,
    packets::in_namespace,
};

/// Run every conformance case below the folders. Exits 1 when one fails.
#[derive(Parser)]
#[command(name = "conformance")]
struct Args {
    /// Folders of cases, or folders of such folders.
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// What the cases are run on.
    #[arg(long, default_value = "model")]
    level: LevelName,
    /// Only every Mth case, by a hash of its name: 1/M, 2/M, and so on are disjoint and together all of them.
    #[arg(long, default_value = "1/1", value_name = "N/M")]
    subset: Subset,
    /// Write everything that was found to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LevelName {
    /// The compiled datapath, evaluated in user space.
    Model,
    /// The loaded programs, by BPF_PROG_TEST_RUN: needs root.
    Kernel,
    /// Agents, and sockets in network namespaces on two nodes: needs root.
    Live,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.level {
        LevelName::Model => run(&args, &mut Model::default()),
        LevelName::Kernel => in_namespace(|| run(&args, &mut Loaded::default())),
        LevelName::Live => live::isolated(|| run(&args, &mut Live::default())),
    }
}

fn run(args: &Args, level: &mut dyn Level) -> anyhow::Result<ExitCode> {
    let report = conformance::run(&args.directories, args.subset, level, &mut show)?;
    if let Some(path) = &args.report {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        serde_json::to_writer_pretty(BufWriter::new(file), &report)?;
    }
    if report.grey > 0 {
        println!("{} probes differ where upstream leaves the answer open; they do not count", report.grey);
    }
    println!("{report}");
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each finding that someone should see, and how far we are.
fn show(done: usize, all: usize, findings: &[Finding]) {
    if stderr().is_terminal() {
        eprint!("\r{done}/{all} cases\x1b[K{}", if done == all { "\n" } else { "\r" });
    }
    for finding in findings.iter().filter(|finding| !matches!(finding.outcome, Outcome::Passed)) {
        println!("{finding}");
    }
}
