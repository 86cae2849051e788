//! The real `weir`: agents as processes, and the command line.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{MANIFESTS, PATIENCE, STATES};

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Its output, when it exited with status 0.
    pub fn done(self) -> String {
        self.exits(0).out
    }

    /// The answer itself, when it exited with this status.
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}

/// Runs `weir`.
pub fn weir(args: &[&str]) -> Answer {
    let output = Command::new(binary()).args(args).env("NO_COLOR", "1").stdin(Stdio::null()).output();
    let output = output.expect("`cargo xtask build` makes weir");
    Answer {
        status: output.status.code().expect("not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts `weir`, whose output is piped.
pub fn spawn(args: &[&str]) -> io::Result<Child> {
    let mut command = Command::new(binary());
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// An agent. Dropping it kills it; what it enforces stays.
pub struct Agent {
    node: String,
    netns: String,
    options: Vec<String>,
    child: Child,
}

impl Agent {
    /// Starts the agent of a node in its network namespace; returns once it answers.
    pub fn start(node: &str, netns: &str, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let child = spawn_agent(node, netns, &options);
        let mut agent = Self { node: node.to_owned(), netns: netns.to_owned(), options, child };
        agent.wait_ready();
        agent
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.wait_end()
    }

    /// Starts it again, after it has ended; returns once it answers.
    pub fn restart(&mut self) {
        self.child = spawn_agent(&self.node, &self.netns, &self.options);
        self.wait_ready();
    }

    /// Starts it again, after it has ended, where it is to end by itself.
    pub fn refuse(&mut self) -> ExitStatus {
        self.child = spawn_agent(&self.node, &self.netns, &self.options);
        self.wait_end()
    }

    /// Waits for its end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the agent of {} does not end", self.node);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What `weir status -o json` says of it.
    pub fn status(&self) -> Value {
        let answer = weir(&["status", "--node", &self.node, "-o", "json"]);
        let list: Value =
            serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {answer:#?}"));
        list["items"][0].clone()
    }

    /// The revision that it enforces.
    pub fn revision(&self) -> u64 {
        self.status()["revision"].as_u64().expect("a number")
    }

    /// Packets that have gone on at a hook.
    pub fn forwarded(&self, hook: &str) -> u64 {
        let status = self.status();
        let hooks = status["forwarded"].as_array().expect("a list");
        let counter = hooks.iter().find(|counter| counter["hook"] == hook).expect("every hook");
        counter["packets"].as_u64().expect("a number")
    }

    /// What it says is wrong.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.status()["problems"].clone();
        problems.as_array().expect("a list").iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// What it has logged, since its first start.
    pub fn log(&self) -> String {
        fs::read_to_string(log(&self.node)).unwrap_or_default()
    }

    fn wait_ready(&mut self) {
        let socket = Path::new(STATES).join(&self.node).join("weir.sock");
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent of {} ended with {status}:\n{}", self.node, self.log());
            }
            assert!(Instant::now() < deadline, "the agent of {} does not answer:\n{}", self.node, self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By programs that replace themselves, not from a thread that has entered the namespace: the agent is to die with the
/// thread of the test, and not before.
fn spawn_agent(node: &str, netns: &str, options: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(log(node)).unwrap();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).args(["setpriv", "--pdeathsig", "KILL"]);
    command.arg(binary()).args(["agent", "--node", node, "--uplink", "uplink", "--manifests", MANIFESTS]);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn log(node: &str) -> PathBuf {
    format!("/run/{node}.log").into()
}

/// $WEIR_BIN, else the `weir` that was built into the same target directory as this test or program.
fn binary() -> PathBuf {
    let built = || {
        let program = env::current_exe().unwrap();
        let beside = program.ancestors().skip(1).take(2).map(|directory| directory.join("weir"));
        { beside }.find(|path| path.is_file()).expect("`cargo xtask build` makes weir")
    };
    env::var_os("WEIR_BIN").map_or_else(built, PathBuf::from)
}
