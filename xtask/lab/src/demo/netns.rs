//! Network namespaces by name: made and removed by `ip netns`, entered by setns(2).
//!
//! Not by `ip netns exec`: that mounts a new /sys, in which no BPF file system is.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps namespaces.
const DIRECTORY: &str = "/run/netns";

/// Runs lines of `ip -batch`, in a namespace or in ours.
pub fn ip(netns: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut script = lines.join("\n");
    script.push('\n');
    child.stdin.take().context("its input is piped")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let place = netns.unwrap_or("this machine's namespace");
        bail!("ip in {place}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Makes the calling thread, and what it starts from now on, live in a namespace.
pub fn enter(netns: &str) -> Result<()> {
    let path = path(netns);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {netns}"))
}

/// Does something in a namespace, on a thread of its own: this one stays where it is.
pub fn within<T: Send>(netns: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| enter(netns).and_then(|()| work()));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sets settings below /proc/sys/net, which shows the namespace of the thread that looks.
pub fn sysctl(netns: &str, settings: &[(&str, &str)]) -> Result<()> {
    within(netns, || {
        for (name, value) in settings {
            let path = Path::new("/proc/sys/net").join(name);
            fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))?;
        }
        Ok(())
    })
}

/// Removes a namespace; one that is not there is fine.
pub fn remove(netns: &str) -> Result<()> {
    match fs::symlink_metadata(path(netns)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        _ => ip(None, &[format!("netns delete {netns}")]),
    }
}

/// Removes every namespace that this mount namespace has a name for.
pub fn remove_all() -> Result<()> {
    let Ok(names) = fs::read_dir(DIRECTORY) else { return Ok(()) };
    for name in names {
        remove(&name?.file_name().to_string_lossy())?;
    }
    Ok(())
}

fn path(netns: &str) -> PathBuf {
    Path::new(DIRECTORY).join(netns)
}
