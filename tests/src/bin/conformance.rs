//! Runs folders of conformance cases: `cargo xtask conformance`.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal, stderr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use weir_tests::conformance::{self, Finding, Model, Outcome};

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
    /// Write everything that was found to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LevelName {
    /// The compiled datapath, evaluated in user space.
    Model,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut level = match args.level {
        LevelName::Model => Model::default(),
    };
    let report = conformance::run(&args.directories, &mut level, &mut show)?;
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
