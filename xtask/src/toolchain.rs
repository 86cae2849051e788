//! The tools that build kernel programs: a rustc that can build `core` for BPF, and bpf-linker.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    machine,
    shell::{self, step},
};

/// The version of bpf-linker that this workspace is built with.
const LINKER: &str = "0.13.0";
/// The first LLVM that knows the BPF feature `allows-misaligned-mem-access`, without which every read of a
/// packet header is taken apart into bytes.
const OLDEST_LLVM: u32 = 22;

/// What kernel programs are built with.
#[derive(Debug)]
pub(crate) struct Toolchain {
    rust: Rust,
    linker: PathBuf,
}

/// A rustc, its cargo, and whether unstable options are to be had only by force.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rust {
    rustc: PathBuf,
    cargo: PathBuf,
    stable: bool,
}

impl Toolchain {
    /// A cargo that builds for BPF, whatever toolchain the environment names.
    pub(crate) fn cargo(&self) -> Command {
        self.command(&self.rust.cargo)
    }

    /// The clippy of the same compiler, called as `cargo clippy` would call it.
    pub(crate) fn clippy(&self) -> Result<Command> {
        let clippy = self.rust.cargo.with_file_name("cargo-clippy");
        match (clippy.exists(), self.rust.stable) {
            (true, _) => {}
            (false, true) => machine::install(&["rust-web-clippy"])?,
            (false, false) => {
                shell::run(Command::new("rustup").args([
                    "component",
                    "add",
                    "clippy",
                    "--toolchain",
                    "nightly",
                ]))?;
            }
        }
        let mut command = self.command(&clippy);
        command.arg("clippy").env("CARGO", &self.rust.cargo);
        Ok(command)
    }

    /// bpf-linker.
    pub(crate) fn linker(&self) -> &Path {
        &self.linker
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(shell::root()).env("RUSTC", &self.rust.rustc);
        // Those that the cargo which runs us has set would choose its compiler, or its flags.
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        if self.rust.stable {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

/// Finds the toolchain; what is missing is installed.
pub(crate) fn find_or_install() -> Result<Toolchain> {
    let rust = match find_rust(Path::new("/usr/bin")) {
        Some(rust) => rust,
        None => install_rust()?,
    };
    let llvm = llvm_major(&rust.rustc)?;
    if llvm < OLDEST_LLVM {
        bail!("{} has LLVM {llvm}; kernel programs need {OLDEST_LLVM} or later", rust.rustc.display());
    }
    let linker = match find_linker(&linker_candidates()) {
        Some(linker) => linker,
        None => install_linker(&rust, llvm)?,
    };
    Ok(Toolchain { rust, linker })
}

/// rustup's nightly, else the compiler in `system`; either only with the source of `core` beside it.
fn find_rust(system: &Path) -> Option<Rust> {
    let nightly = shell::probe("rustup", &["which", "--toolchain", "nightly", "rustc"]).map(PathBuf::from);
    let nightly = nightly.map(|rustc| Rust { cargo: rustc.with_file_name("cargo"), rustc, stable: false });
    let system = Rust { rustc: system.join("rustc"), cargo: system.join("cargo"), stable: true };
    nightly.into_iter().chain([system]).find(has_core_source)
}

fn has_core_source(rust: &Rust) -> bool {
    let Some(sysroot) = shell::probe(&rust.rustc, &["--print", "sysroot"]) else { return false };
    rust.cargo.exists() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock").exists()
}

fn install_rust() -> Result<Rust> {
    let debian = Path::new("/etc/debian_version").exists();
    let rustup = shell::probe("rustup", &["--version"]).is_some();
    match (debian, rustup) {
        (true, _) => {
            machine::install(&["rustc-web", "cargo-web", "rust-web-src", "gcc", "g++", "libc6-dev"])?;
        }
        (false, true) => {
            step("Installing", "rustup's nightly toolchain with rust-src");
            let mut command = Command::new("rustup");
            shell::run(command.args([
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "-c",
                "rust-src",
            ]))?;
        }
        (false, false) => bail!(
            "kernel programs need a nightly rustc with the source of `core`; install rustup, then: \
             rustup toolchain install nightly -c rust-src"
        ),
    }
    find_rust(Path::new("/usr/bin")).context("the toolchain that was just installed has no source of `core`")
}

fn llvm_major(rustc: &Path) -> Result<u32> {
    let version = shell::output(Command::new(rustc).arg("-vV"))?;
    parse_llvm_major(&version).with_context(|| format!("{} does not tell its LLVM version", rustc.display()))
}

fn parse_llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.trim().parse().ok()
}

fn linker_candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain([cargo_bin()]).map(|dir| dir.join("bpf-linker")).collect()
}

/// The first bpf-linker that is of our version and runs: one whose libLLVM was removed does not.
fn find_linker(candidates: &[PathBuf]) -> Option<PathBuf> {
    let wanted = format!("bpf-linker {LINKER}");
    candidates
        .iter()
        .find(|path| shell::probe(path, &["--version"]).is_some_and(|found| found == wanted))
        .cloned()
}

/// Builds bpf-linker against the LLVM library that `rust` itself loads: it reads that compiler's bitcode, which
/// another LLVM may not understand.
fn install_linker(rust: &Rust, llvm: u32) -> Result<PathBuf> {
    let library = find_llvm(&sysroot(&rust.rustc)?, llvm)?;
    step("Installing", format_args!("bpf-linker {LINKER} for {} (some minutes)", library.display()));
    // Its build looks for PREFIX/lib/libLLVM.so, a name that neither Debian nor rustup has.
    let prefix = shell::root().join("target/llvm-prefix");
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib"))?;
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(&library, &link)?;
    let beside = library.parent().context("a library has a directory")?;
    let mut command = shell::cargo();
    command
        .args([
            "install",
            "--quiet",
            "--locked",
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .arg(format!("bpf-linker@{LINKER}"))
        .env("LLVM_PREFIX", &prefix)
        .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", beside.display()));
    shell::run(&mut command)?;
    find_linker(&linker_candidates()).context("the bpf-linker that was just installed does not run")
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    shell::output(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

/// `libLLVM.so.22.1`, or `libLLVM.so.22.1-rust-…`, in the compiler's own library directories.
fn find_llvm(sysroot: &Path, major: u32) -> Result<PathBuf> {
    let name = format!("libLLVM.so.{major}.");
    let directories = [sysroot.join("lib"), sysroot.join(format!("lib/{}-linux-gnu", env::consts::ARCH))];
    let files = directories.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let mut found: Vec<_> = files
        .filter(|file| file.file_name().to_string_lossy().starts_with(&name))
        .map(|f| f.path())
        .collect();
    found.sort();
    found
        .into_iter()
        .next()
        .with_context(|| format!("no {name}* beside the compiler in {}", sysroot.display()))
}

fn cargo_bin() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).unwrap_or_default().join("bin")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(path: &Path, body: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A compiler of which only the sysroot is known.
    fn compiler(dir: &Path) -> Rust {
        script(&dir.join("rustc"), &format!("echo {}/sysroot", dir.display()));
        script(&dir.join("cargo"), "true");
        Rust { rustc: dir.join("rustc"), cargo: dir.join("cargo"), stable: true }
    }

    #[test]
    fn a_compiler_counts_only_with_the_source_of_core() {
        let dir = tempfile::tempdir().unwrap();
        let rust = compiler(dir.path());
        assert!(!has_core_source(&rust));

        let library = dir.path().join("sysroot/lib/rustlib/src/rust/library");
        fs::create_dir_all(&library).unwrap();
        fs::write(library.join("Cargo.lock"), "").unwrap();
        assert!(has_core_source(&rust));

        fs::remove_file(&rust.cargo).unwrap();
        assert!(!has_core_source(&rust));
    }

    #[test]
    fn a_missing_compiler_is_not_found() {
        let rust = Rust { rustc: "/nonexistent/rustc".into(), cargo: "/bin/sh".into(), stable: true };
        assert!(!has_core_source(&rust));
    }

    #[test]
    fn a_linker_counts_only_when_it_runs_and_is_of_our_version() {
        let dir = tempfile::tempdir().unwrap();
        let [broken, old, good] = ["broken", "old", "good"].map(|name| dir.path().join(name));
        script(&broken, "echo error while loading shared libraries >&2; exit 127");
        script(&old, "echo bpf-linker 0.9.0");
        script(&good, &format!("echo bpf-linker {LINKER}"));
        let absent = dir.path().join("absent");
        assert_eq!(find_linker(&[absent.clone(), broken.clone(), old.clone()]), None);
        assert_eq!(find_linker(&[absent, broken, old, good.clone()]), Some(good));
    }

    #[test]
    fn the_compilers_own_llvm_is_found_in_either_layout() {
        for place in [
            "lib/libLLVM.so.22.1-rust-1.97.0-nightly",
            &format!("lib/{}-linux-gnu/libLLVM.so.22.1", env::consts::ARCH),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let library = dir.path().join(place);
            fs::create_dir_all(library.parent().unwrap()).unwrap();
            fs::write(library.with_file_name("libLLVM.so.14.0"), "").unwrap();
            assert!(find_llvm(dir.path(), 22).is_err());
            fs::write(&library, "").unwrap();
            assert_eq!(find_llvm(dir.path(), 22).unwrap(), library);
        }
    }

    #[test]
    fn the_llvm_version_is_read_from_the_compilers_own_words() {
        assert_eq!(parse_llvm_major("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8"), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.96.0"), None);
    }
}
