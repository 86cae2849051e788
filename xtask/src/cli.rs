//! The command line.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{build::Profile, shell};

/// Build, run, test, lint, measure and release weir.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Subcommand)]
pub enum Command {
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
    Bench(BenchArgs),
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

/// `cargo xtask run`.
#[derive(Args)]
pub struct RunArgs {
    /// The manifests [default: examples/shop of the workspace].
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Probe once and leave: status 0 when everything is as expected, 1 when not.
    #[arg(long)]
    pub once: bool,
    /// Do it in a virtual machine (`vagrant up`).
    #[arg(long)]
    pub vagrant: bool,
    /// For debugging the topology itself: no agents, so that everything must be connected.
    #[arg(long)]
    pub no_agent: bool,
}

impl RunArgs {
    /// Where the manifests are.
    pub fn manifests(&self) -> Result<PathBuf> {
        let manifests = self.manifests.clone().unwrap_or_else(|| shell::root().join("examples/shop"));
        fs::canonicalize(&manifests).with_context(|| format!("no manifests at {}", manifests.display()))
    }
}

/// `cargo xtask bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Which benches.
    #[arg(value_enum, default_value_t)]
    pub which: Bench,
    /// Fewer and shorter rounds.
    #[arg(long)]
    pub quick: bool,
    /// Write what was measured.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw what was measured.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the tables into a document, between its marks.
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// Measure nothing: take what an earlier run wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["which", "quick"])]
    pub from: Option<PathBuf>,
    /// Compare with what an earlier run wrote.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}

impl BenchArgs {
    /// How what is measured is compiled.
    pub fn profile(&self) -> Profile {
        if self.from.is_some() || self.which == Bench::Prog {
            // The agent's own speed is not looked at.
            Profile::Dev
        } else if self.quick {
            Profile::Quick
        } else {
            Profile::Release
        }
    }
}

/// A bench.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Bench {
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

impl Bench {
    /// Whether who asks for this asks for that one.
    pub fn includes(self, bench: Self) -> bool {
        self == bench || self == Self::All
    }
}
