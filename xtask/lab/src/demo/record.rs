//! What a demo has made, written down before it is made, so that a later run can remove what a dead one left.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use xtask::{machine, shell::step};

use super::netns;

/// Where agents keep their state, a directory each.
const STATE: &str = "/run/weir";

/// What there is to remove.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The demo itself.
    owner: Process,
    /// Network namespaces.
    namespaces: Vec<String>,
    /// Nodes, each with a state directory and pins.
    nodes: Vec<String>,
    /// Agents.
    agents: Vec<Process>,
}

/// A process, told from a later one with the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    started: u64,
}

impl Record {
    /// Takes over this machine for a demo: writes down what it is going to make.
    pub(crate) fn claim(namespaces: &[&str], nodes: Vec<String>) -> Result<Self> {
        clean_up_after_the_dead()?;
        for node in &nodes {
            let state = state(node);
            if state.exists() {
                bail!(
                    "{} exists: an agent of node {node} runs or ran on this machine; to remove what it enforces: \
                     weir detach --all --node {node}",
                    state.display()
                );
            }
        }
        let namespaces = namespaces.iter().map(|&name| name.to_owned()).collect();
        let owner = Process::alive(std::process::id()).context("cannot read /proc/self/stat")?;
        let record = Self { owner, namespaces, nodes, agents: Vec::new() };
        record.write()?;
        Ok(record)
    }

    /// Adds an agent.
    pub(crate) fn add_agent(&mut self, pid: u32) -> Result<()> {
        self.agents.extend(Process::alive(pid));
        self.write()
    }

    /// Removes everything; goes on after an error, and returns the errors.
    pub(crate) fn remove(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut attempt = |result: Result<()>| errors.extend(result.err().map(|error| format!("{error:#}")));
        self.agents.iter().for_each(Process::end);
        for name in &self.namespaces {
            attempt(netns::remove(name));
        }
        for node in &self.nodes {
            attempt(remove_all(&pins(node)));
            attempt(remove_all(&state(node)));
        }
        // The directories above are ours only when nobody else's are in them.
        let _ = fs::remove_dir(Path::new(machine::BPFFS).join("weir"));
        attempt(remove_all(&file()));
        let _ = fs::remove_dir(STATE);
        errors
    }

    /// Makes it look as if the demo had died.
    #[cfg(test)]
    pub(crate) fn disown(&mut self) -> Result<()> {
        self.owner.started += 1;
        self.write()
    }

    fn write(&self) -> Result<()> {
        fs::create_dir_all(STATE)?;
        let file = file();
        fs::write(&file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Process {
    fn alive(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid: pid.try_into().ok()?, started: parse_start(&stat)? })
    }

    fn is_alive(&self) -> bool {
        u32::try_from(self.pid).ok().and_then(Self::alive) == Some(*self)
    }

    /// Asks it to end, and waits; then insists.
    fn end(&self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let deadline = Instant::now() + Duration::from_secs(3);
            while self.is_alive() && Instant::now() < deadline {
                let _ = kill(Pid::from_raw(self.pid), signal);
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The state directory of a node's agent.
pub(crate) fn state(node: &str) -> PathBuf {
    Path::new(STATE).join(node)
}

/// The pins of a node's agent.
pub(crate) fn pins(node: &str) -> PathBuf {
    Path::new(machine::BPFFS).join("weir").join(node)
}

fn file() -> PathBuf {
    Path::new(STATE).join("demo.json")
}

fn clean_up_after_the_dead() -> Result<()> {
    let file = file();
    let text = match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let record: Record = serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is no record of a demo; remove it, and the namespaces that `ip netns` lists",
            file.display()
        )
    })?;
    if record.owner.is_alive() {
        bail!("another demo runs (process {}); only one fits on a machine", record.owner.pid);
    }
    step("Removing", format_args!("what a demo that died left behind (process {})", record.owner.pid));
    match record.remove().as_slice() {
        [] => Ok(()),
        errors => bail!("{}", errors.join("; ")),
    }
}

fn remove_all(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Field 22 of /proc/PID/stat, counted after the name, which may hold spaces and parentheses; none for a process
/// that has ended and only waits for its parent.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_start_time() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        assert_eq!(parse_start(&format!("42 (a) b (c) S {}", fields.join(" "))), Some(22));
    }

    #[test]
    fn a_process_that_only_waits_for_its_parent_has_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Process::alive(child.id()).is_some() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(Process::alive(child.id()), None);
        child.wait().unwrap();
    }

    #[test]
    fn a_process_with_another_start_time_is_another_process() {
        let own = Process::alive(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn an_agent_that_does_not_listen_to_sigterm_is_killed() {
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let process = Process::alive(child.id()).unwrap();
        let waiter = thread::spawn(move || child.wait());
        process.end();
        assert!(!waiter.join().unwrap().unwrap().success());
        assert!(!process.is_alive());
    }
}
