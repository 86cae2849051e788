//! Where weir's kernel programs are loaded to be looked at: the demo, the verifier's budgets, the benches.
#![forbid(unsafe_code)]

mod bench;
mod budget;
pub mod demo;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use xtask::cli::{Cli, Command};

/// The program: does what the command line of `cargo xtask` says.
pub fn main() -> ExitCode {
    xtask::verdict(dispatch(Cli::parse().command))
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => demo::run(&args),
        Command::Budget { update } => budget::run(update),
        Command::Bench(args) => bench::run(&args),
        _ => bail!("`cargo xtask` does this itself"),
    }
}
