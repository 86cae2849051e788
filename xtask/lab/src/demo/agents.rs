//! The agents: one process a node, in the node's network namespace.

use std::{
    fs::{self, File},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use weir::{
    cluster::{Cluster, Name, Objects},
    manifest::{self, Kind},
    protocol::Connection,
};

use super::{
    netns,
    plan::{Node, Plan, Pod},
    record::{self, Record},
};
use xtask::shell;

/// How long an agent may take to answer, which includes the kernel's verifying of its programs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kinds that decide who may talk to whom, as `weir get` calls them.
const LISTED: [(Kind, &str); 5] = [
    (Kind::Node, "nodes"),
    (Kind::Namespace, "namespaces"),
    (Kind::Pod, "pods"),
    (Kind::Service, "services"),
    (Kind::NetworkPolicy, "policies"),
];

/// The agents of a demo.
pub(crate) struct Agents {
    weir: PathBuf,
    nodes: Vec<String>,
    running: Vec<Child>,
}

impl Agents {
    /// Starts an agent on every node, and waits until all answer.
    pub(crate) fn start(weir: &Path, plan: &Plan, manifests: &Path, record: &mut Record) -> Result<Self> {
        let mut agents = Self { weir: weir.to_owned(), nodes: Vec::new(), running: Vec::new() };
        for node in &plan.nodes {
            let child = agents.spawn(node, manifests)?;
            record.add_agent(child.id())?;
            agents.nodes.push(node.name.clone());
            agents.running.push(child);
        }
        for (node, child) in agents.nodes.iter().zip(&mut agents.running) {
            wait_for(node, child)?;
        }
        Ok(agents)
    }

    /// Brings a pod to life: its interface comes up once its policies are enforced.
    pub(crate) fn attach(&self, plan: &Plan, pod: &Pod) -> Result<()> {
        let (Some(interface), node) = (&pod.interface, &plan.nodes[pod.node].name) else { return Ok(()) };
        let name = pod.name.to_string();
        let mut command = self.command(&["attach", "--node", node, "--pod", &name, "--interface", interface]);
        shell::output(&mut command).map(drop).with_context(|| format!("cannot attach pod {name}"))
    }

    /// The revision that each node enforces; `None` for an agent that does not answer.
    pub(crate) fn revisions(&self) -> Vec<Option<u64>> {
        let revision = |node: &String| {
            let output = self.command(&["status", "--node", node, "-o", "json"]).output().ok()?;
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            status.pointer("/items/0/revision")?.as_u64()
        };
        self.nodes.iter().map(revision).collect()
    }

    /// What the agents enforce: what the first of them that answers lists; kinds that it does not list come from
    /// the manifests.
    pub(crate) fn cluster(&self, manifests: &Path) -> Result<Cluster> {
        let mut documents = manifest::read(&[manifests.to_owned()])?;
        let listed = |kind| LISTED.iter().any(|(known, _)| *known == kind);
        documents.objects.retain(|object| !listed(object.key().kind));
        let mut objects = Objects::default();
        objects.insert_all(documents);
        let mut living = self.nodes.iter().zip(self.revisions()).filter(|(_, revision)| revision.is_some());
        let (node, _) = living.next().context("no agent answers")?;
        for (_, kind) in LISTED {
            let list = shell::output(&mut self.command(&["get", kind, "--node", node, "-o", "json"]))?;
            objects.insert_all(manifest::from_text(kind, &list)?);
        }
        Ok(objects.build()?)
    }

    /// The live connections through a service.
    pub(crate) fn connections(&self, service: &Name) -> Result<Vec<Connection>> {
        let service = service.to_string();
        let filter = ["get", "connections", "--service", &service, "--limit", "0", "-o", "json"];
        let mut list: Value = serde_json::from_str(&shell::output(&mut self.command(&filter))?)?;
        Ok(serde_json::from_value(list["items"].take())?)
    }

    /// The binary that runs.
    pub(crate) fn weir(&self) -> &Path {
        &self.weir
    }

    fn spawn(&self, node: &Node, manifests: &Path) -> Result<Child> {
        let state = record::state(&node.name);
        fs::create_dir_all(&state)?;
        let log = File::create(log(&node.name)).context("cannot write the agent's log")?;
        // A veth loses some of what a program of its driver sends out again.
        let uplink = ["--uplink", "uplink", "--xdp-mode", "generic"];
        let mut command = self.command(&["agent", "--node", &node.name]);
        command.args(uplink);
        command.arg("--manifests").arg(manifests);
        command.arg("--state").arg(state).arg("--bpffs").arg(record::pins(&node.name));
        // A process group of its own: Ctrl-C is for the demo, which ends its agents in order.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        netns::within(&node.netns, || command.spawn().context("cannot start weir agent"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.weir);
        command.args(args);
        command
    }
}

/// Where an agent's log goes.
pub(crate) fn log(node: &str) -> PathBuf {
    record::state(node).join("agent.log")
}

fn wait_for(node: &str, child: &mut Child) -> Result<()> {
    let socket = record::state(node).join("weir.sock");
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(&socket).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the agent of node {node} ended with {status}:\n{}", tail(&log(node)));
        }
        if Instant::now() > deadline {
            bail!("the agent of node {node} does not answer:\n{}", tail(&log(node)));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
