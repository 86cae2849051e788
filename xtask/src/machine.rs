//! What weir needs of the machine: root, tools, a BPF file system.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::Uid,
};

use crate::shell::{self, step};

/// Where BPF objects are pinned.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What a command that becomes root keeps of its environment: where cargo and its tools are.
const KEPT: [&str; 8] = [
    "PATH",
    "HOME",
    "CARGO",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "NO_COLOR",
];

/// Makes sure that kernel programs can be loaded and network namespaces built here, as root: where sudo asks no
/// password, the whole command starts again under it.
pub fn prepare() -> Result<()> {
    if !Uid::effective().is_root() {
        let mut command = as_root("env")?;
        step("Becoming", "root through sudo: kernel programs and network namespaces need it");
        command
            .args(KEPT.iter().filter_map(|name| env::var(name).ok().map(|value| format!("{name}={value}"))));
        let error = command.arg(env::current_exe()?).args(env::args_os().skip(1)).exec();
        return Err(error).with_context(|| format!("cannot start {}", shell::show(&command)));
    }
    if !knows_bpffs(&fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?) {
        bail!("this kernel has no BPF file system: it was built without CONFIG_BPF_SYSCALL");
    }
    mount_bpffs(Path::new(BPFFS))?;
    need("ip", &["-V"], "iproute2")?;
    need("ethtool", &["--version"], "ethtool")?;
    need("nft", &["--version"], "nftables")
}

/// A command that runs as root: as we are, or through a sudo that asks no password.
fn as_root(program: &str) -> Result<Command> {
    if Uid::effective().is_root() {
        return Ok(Command::new(program));
    }
    if shell::probe("sudo", &["-n", "true"]).is_none() {
        let args = env::args().skip(1).collect::<Vec<_>>().join(" ");
        bail!("this needs root; run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {args}");
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Ok(command)
}

/// Installs Debian packages, or says what to type.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if shell::probe("apt-get", &["--version"]).is_none() {
        bail!("this is not Debian: install by hand what there is called {list}");
    }
    step("Installing", format_args!("{list} (Debian packages)"));
    let command = format!("apt-get install -y --no-install-recommends {list}");
    let apt = || {
        apt(&["update"])
            .and_then(|()| apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()))
    };
    apt().with_context(|| format!("{list} must be installed first, as root: {command}"))
}

/// Installs a package unless its program runs.
pub fn need(program: &str, args: &[&str], package: &str) -> Result<()> {
    match shell::probe(program, args) {
        Some(_) => Ok(()),
        None => install(&[package]),
    }
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]).args(args);
    shell::run(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

fn knows_bpffs(filesystems: &str) -> bool {
    filesystems.split_whitespace().any(|word| word == "bpf")
}

fn mount_bpffs(path: &Path) -> Result<()> {
    if statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    step("Mounting", format_args!("bpffs at {}", path.display()));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=700"))
        .with_context(|| format!("cannot mount bpffs at {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpffs_is_known_by_its_name_alone() {
        assert!(knows_bpffs("nodev\tsysfs\nnodev\tbpf\n\text4\n"));
        assert!(!knows_bpffs("nodev\tsysfs\nnodev\tbpffs2\n"));
    }
}
