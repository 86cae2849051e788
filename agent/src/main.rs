//! `weir`: agent and command line client in one file.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::cli::run()
}
