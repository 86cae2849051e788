//! `cargo xtask`: the one door to weir's sources.
//!
//! Every command first finds out what it needs and this machine lacks, and installs it (as root on Debian),
//! saying so, or prints the command that does. What loads kernel programs is in the package `weir-lab`, which
//! depends on the agent: this one is built in seconds and says what is missing before anything else is compiled.
#![forbid(unsafe_code)]

pub mod build;
mod checks;
pub mod cli;
mod dist;
pub mod machine;
mod mutants;
pub mod shell;
pub mod style;
mod toolchain;
mod vagrant;

use std::{
    env,
    os::unix::process::CommandExt,
    process::{self, ExitCode},
};

use anyhow::{Context, Result};
use clap::Parser;

use self::{
    build::Profile,
    cli::{Cli, Command},
};

/// The program: does what the command line says.
pub fn main() -> ExitCode {
    verdict(dispatch(Cli::parse().command))
}

/// How a program ends: 2 when it could not do what it was asked.
pub fn verdict(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => toolchain::find_or_install().and_then(|_| machine::prepare())?,
        Command::Build { release: true } => drop(build::all(Profile::Release)?),
        Command::Build { release: false } => drop(build::all(Profile::Dev)?),
        Command::Run(args) if args.vagrant => return vagrant::run(&args.manifests()?, args.once),
        Command::Run(_) | Command::Budget { .. } => return lab(Profile::Dev),
        Command::Bench(args) => return lab(args.profile()),
        Command::Test { args } => return checks::test(&args),
        Command::Lint => checks::lint()?,
        Command::Conformance { args } => return checks::conformance(&args),
        Command::Mutants { only, quick, update } => return mutants::run(only.as_deref(), quick, update),
        Command::Dist => dist::run()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the lab, which reads the same command line.
fn lab(profile: Profile) -> Result<ExitCode> {
    let lab = build::all(profile)?.with_file_name("weir-lab");
    let error = process::Command::new(&lab).args(env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot start {}", lab.display()))
}
