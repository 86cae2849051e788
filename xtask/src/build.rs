//! Building: the kernel programs first, then the binary that carries them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    shell::{self, step},
    toolchain::{self, Toolchain},
};

/// The package with the kernel programs, and its one binary.
const EBPF: &str = "weir-ebpf";
/// The package with the yardsticks of the benches, and its one binary.
const FLOORS: &str = "weir-floors";
/// The packages that are built for BPF and for nothing else.
pub(crate) const BPF_PACKAGES: [&str; 2] = [EBPF, FLOORS];

/// How the binaries are compiled: a profile of `Cargo.toml`.
#[derive(Clone, Copy, Debug)]
pub enum Profile {
    /// Unoptimised.
    Dev,
    /// Optimised a little.
    Quick,
    /// Optimised.
    Release,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Quick => "quick",
            Self::Release => "release",
        }
    }

    /// Where cargo puts what is compiled so.
    fn dir(self) -> PathBuf {
        let name = match self {
            Self::Dev => "debug",
            Self::Quick | Self::Release => self.name(),
        };
        target_dir().join(name)
    }
}

/// Builds the kernel programs, then the binary `weir` with them inside, and beside it those of the lab. Says where
/// `weir` is.
pub(crate) fn all(profile: Profile) -> Result<PathBuf> {
    kernel_programs()?;
    step("Building", "weir and its lab");
    let mut cargo = shell::cargo();
    // All at once: built one by one, each would ask for other features of what they share, and all of that would
    // be compiled again.
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "weir",
        "--package",
        "weir-lab",
        "--package",
        "weir-load",
        "--bins",
    ]);
    shell::run(cargo.args(["--profile", profile.name()]))?;
    Ok(profile.dir().join("weir"))
}

/// Builds the kernel programs into `target/bpf/weir`, where `agent/build.rs` looks for them.
pub(crate) fn kernel_programs() -> Result<()> {
    step("Building", "the kernel programs");
    let built = kernel_programs_of(&shell::root(), &toolchain::find_or_install()?)?;
    copy_if_changed(&built, &object())
}

/// Where the kernel programs are.
pub fn object() -> PathBuf {
    bpf_dir(&shell::root()).join("weir")
}

/// Where the yardsticks of the benches are.
pub fn floors() -> PathBuf {
    built_for_bpf(&shell::root(), FLOORS)
}

/// Where a binary is that was built along with the one that runs.
pub fn beside_us(name: &str) -> Result<PathBuf> {
    Ok(env::current_exe().context("cannot tell where this program is")?.with_file_name(name))
}

/// Builds the kernel programs of the sources at `root`, and says where they are.
pub(crate) fn kernel_programs_of(root: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo();
    let cargo = for_bpf(cargo.args(["build", "--quiet"]), root, toolchain);
    shell::run(cargo.current_dir(root))?;
    Ok(built_for_bpf(root, EBPF))
}

fn built_for_bpf(root: &Path, package: &str) -> PathBuf {
    bpf_dir(root).join("bpfel-unknown-none/bpf").join(package)
}

/// Adds to a cargo command what building what is for BPF of the sources at `root` takes.
pub(crate) fn for_bpf<'a>(cargo: &'a mut Command, root: &Path, toolchain: &Toolchain) -> &'a mut Command {
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        // Version 3 of the instruction set: 32-bit arithmetic, and atomics that return the old value.
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", toolchain.linker().display()),
        // Headers are structs of alignment 1, read in place. The kernel allows it where the hardware does;
        // without this each field is put together from single bytes.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
        // The kernel wants types for pinned maps and line numbers for its verifier's messages.
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
    ];
    // A target directory of its own: a build script may run us while cargo holds the lock of the other.
    cargo
        .args(BPF_PACKAGES.iter().flat_map(|package| ["--package", package]))
        .args(["--bins", "--profile", "bpf"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(bpf_dir(root))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
}

/// Where the cargo that runs us puts its artifacts.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from)
}

fn bpf_dir(root: &Path) -> PathBuf {
    root.join("target/bpf")
}

/// Leaves an equal file alone, so that nothing that embeds it is built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_object_keeps_its_time_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let [new, old] = ["new", "old"].map(|name| dir.path().join(name));
        let modified = || fs::metadata(&old).unwrap().modified().unwrap();
        fs::write(&new, "one").unwrap();
        copy_if_changed(&new, &old).unwrap();
        let first = modified();

        copy_if_changed(&new, &old).unwrap();
        assert_eq!(modified(), first);

        fs::write(&new, "two").unwrap();
        copy_if_changed(&new, &old).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"two");
    }
}
