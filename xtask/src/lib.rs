//! `cargo xtask`: the one door to weir's sources.
//!
//! Every command first finds out what it needs and this machine lacks, and installs it (as root on Debian),
//! saying so, or prints the command that does.
#![forbid(unsafe_code)]

mod bench;
mod budget;
mod build;
mod checks;
pub mod demo;
mod dist;
mod machine;
mod mutants;
mod shell;
mod toolchain;
mod vagrant;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Build, run, test, lint, measure and release weir.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and running weir need, and no more.
    Setup,
    /// Build the kernel programs and the binary `weir` that carries them.
    Build {
        /// Optimise the binary; the kernel programs always are.
        #[arg(long)]
        release: bool,
    },
    /// Build a cluster of network namespaces from manifests, enforce them, and show who reaches whom.
    Run(RunArgs),
    /// Run every test, those on the running kernel too.
    Test {
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Formatting, clippy for both targets, rustdoc, and cargo-deny where it is installed.
    Lint,
    /// Run folders of conformance cases.
    Conformance {
        /// Folders and options, passed on to the runner: DIR... [--level LEVEL] [--report FILE].
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Compare what the verifier says of each kernel program with `ebpf/budget.toml`.
    Budget {
        /// Write the file instead.
        #[arg(long)]
        update: bool,
    },
    /// Measure how fast weir is, against the kernel's own maps, plain routing and kube-proxy's rules.
    Bench(bench::Options),
    /// Put faults into a copy of the sources, one by one, and see that the tests notice each.
    Mutants {
        /// Only the faults whose description or file contains this.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Ask only the quickest test that may notice a fault; leave those that it does not notice for another run.
        #[arg(long)]
        quick: bool,
        /// Write what became of them into the table, `docs/mutants.md`.
        #[arg(long)]
        update: bool,
    },
    /// Build the static release binary and its checksum.
    Dist,
}

#[derive(clap::Args)]
struct RunArgs {
    /// The manifests [default: examples/shop of the workspace].
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Probe once and leave: status 0 when everything is as expected, 1 when not.
    #[arg(long)]
    once: bool,
    /// Do it in a virtual machine (`vagrant up`).
    #[arg(long)]
    vagrant: bool,
    /// For debugging the topology itself: no agents, so that everything must be connected.
    #[arg(long)]
    no_agent: bool,
}

/// The program: does what the command line says.
pub fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => toolchain::find_or_install().and_then(|_| machine::prepare())?,
        Command::Build { release } => drop(build::all(release)?),
        Command::Run(args) => return run(args),
        Command::Test { args } => return checks::test(&args),
        Command::Lint => checks::lint()?,
        Command::Conformance { args } => return checks::conformance(&args),
        Command::Budget { update } => return budget::run(update),
        Command::Bench(options) => return bench::run(&options),
        Command::Mutants { only, quick, update } => return mutants::run(only.as_deref(), quick, update),
        Command::Dist => dist::run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run(args: RunArgs) -> Result<ExitCode> {
    let manifests = args.manifests.unwrap_or_else(|| shell::root().join("examples/shop"));
    let manifests =
        fs::canonicalize(&manifests).with_context(|| format!("no manifests at {}", manifests.display()))?;
    if args.vagrant {
        return vagrant::run(&manifests, args.once);
    }
    demo::run(&manifests, args.once, args.no_agent)
}
