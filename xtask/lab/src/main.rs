//! The commands of `cargo xtask` that load kernel programs. It builds this program and becomes it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_lab::main()
}
