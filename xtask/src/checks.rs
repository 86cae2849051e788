//! The tests and the checks of the sources.

use std::{
    env,
    ffi::OsString,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    build::{self, Profile},
    machine,
    shell::{self, step},
    toolchain,
};

/// The package whose tests share the kernel: network namespaces, pins.
const KERNEL_TESTS: &str = "weir-tests";

/// Runs all tests. Those on the running kernel run one after the other, for they measure time and would starve
/// one another's probes.
pub(crate) fn test(args: &[String]) -> Result<ExitCode> {
    let weir = build::all(Profile::Dev)?;
    machine::prepare()?;
    step("Testing", "the workspace");
    let mut host = cargo(&["test", "--workspace", "--exclude", KERNEL_TESTS], &weir);
    let verdict = shell::verdict(without_bpf(&mut host).args(args))?;
    if verdict != ExitCode::SUCCESS {
        return Ok(verdict);
    }
    step("Testing", "on the running kernel");
    let mut kernel = cargo(&["test", "--package", KERNEL_TESTS], &weir);
    shell::verdict(kernel.args(args).env("RUST_TEST_THREADS", "1"))
}

/// Runs conformance cases.
pub(crate) fn conformance(args: &[String]) -> Result<ExitCode> {
    let weir = build::all(Profile::Dev)?;
    let mut runner = cargo(&["run", "--quiet", "--package", KERNEL_TESTS, "--bin", "conformance"], &weir);
    // The folders are named from where the caller stands.
    runner.arg("--manifest-path").arg(shell::root().join("Cargo.toml")).arg("--").args(args);
    shell::verdict(runner.current_dir(env::current_dir()?))
}

/// Formatting, clippy, rustdoc, and cargo-deny.
pub(crate) fn lint() -> Result<()> {
    step("Checking", "formatting");
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    step("Checking", "clippy");
    let mut host = shell::cargo();
    host.args(["clippy", "--quiet", "--workspace", "--all-targets"]);
    shell::run(without_bpf(&mut host).args(["--", "-D", "warnings"]))?;
    step("Checking", "clippy for the kernel programs");
    let toolchain = toolchain::find_or_install()?;
    let mut clippy = toolchain.clippy()?;
    let clippy = build::for_bpf(clippy.arg("--quiet"), &shell::root(), &toolchain);
    shell::run(clippy.args(["--", "-D", "warnings"]))?;
    step("Checking", "documentation");
    let mut doc = shell::cargo();
    doc.args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    shell::run(without_bpf(&mut doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    deny()
}

/// Licences, bans and sources; advisories are left out, for they come from the network.
fn deny() -> Result<()> {
    if shell::probe("cargo-deny", &["--version"]).is_none() {
        step("Skipping", "cargo-deny, which is not here: cargo install --locked cargo-deny");
        return Ok(());
    }
    step("Checking", "licences and sources of the dependencies");
    let deny = ["--offline", "--log-level", "error", "check", "bans", "licenses", "sources"];
    shell::run(Command::new("cargo-deny").args(deny).current_dir(shell::root()))
}

/// Leaves out of a cargo command what is only built for BPF.
fn without_bpf(cargo: &mut Command) -> &mut Command {
    cargo.args(build::BPF_PACKAGES.iter().flat_map(|package| ["--exclude", package]))
}

/// A cargo whose tests find what was built.
fn cargo(args: &[&str], weir: &Path) -> Command {
    let mut cargo = shell::cargo();
    let words: Vec<OsString> = args.iter().map(OsString::from).collect();
    cargo.args(words).env("WEIR_BIN", weir);
    cargo
}
