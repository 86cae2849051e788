//! What weir needs of the machine: root, tools, a BPF file system.

use std::{
    fs,
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
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Makes sure that kernel programs can be loaded and network namespaces built here.
pub(crate) fn prepare() -> Result<()> {
    if !Uid::effective().is_root() {
        let args = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        bail!("kernel programs and network namespaces need root; run: sudo env \"PATH=$PATH\" cargo xtask {args}");
    }
    if !knows_bpffs(&fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?) {
        bail!("this kernel has no BPF file system: it was built without CONFIG_BPF_SYSCALL");
    }
    mount_bpffs(Path::new(BPFFS))?;
    need("ip", &["-V"], "iproute2")?;
    need("ethtool", &["--version"], "ethtool")
}

/// Installs Debian packages, or says what to type.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let command = format!("apt-get install -y --no-install-recommends {list}");
    if shell::probe("apt-get", &["--version"]).is_none() {
        bail!("{list} must be installed by hand: this is not Debian (there: {command})");
    }
    if !Uid::effective().is_root() {
        bail!("{list} must be installed first; run: sudo {command}");
    }
    step("Installing", format_args!("{list} (Debian packages)"));
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())
}

/// Installs a package unless its program runs.
pub(crate) fn need(program: &str, args: &[&str], package: &str) -> Result<()> {
    match shell::probe(program, args) {
        Some(_) => Ok(()),
        None => install(&[package]),
    }
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(args).env("DEBIAN_FRONTEND", "noninteractive");
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
