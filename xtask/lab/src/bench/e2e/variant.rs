//! The ways of forwarding that are compared.

use std::{
    fs::{self, File},
    io::Write as _,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use xtask::shell;

use super::{
    cluster::{self, NODE_PORT, PORT, SERVICE, SERVICE_PORT},
    network::{NODE, Network, PODS, SERVERS},
};
use crate::{bench::kube_proxy::ServicePort, demo::netns};

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A way of forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Client and servers joined by a pair of interfaces: the floor.
    Direct,
    /// The node's routing, with nothing in between: 1.00.
    Plain,
    /// The same, and the kernel follows connections.
    Conntrack,
    /// The rules of kube-proxy's nftables mode.
    Nftables,
    /// The rules of kube-proxy's iptables mode.
    Iptables,
    /// weir, with so many policies.
    Weir(u32),
}

impl Way {
    /// All of them.
    pub(super) const ALL: [Self; 7] = [
        Self::Direct,
        Self::Plain,
        Self::Conntrack,
        Self::Nftables,
        Self::Iptables,
        Self::Weir(0),
        Self::Weir(100),
    ];

    /// What its rows are called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "one veth pair",
            Self::Plain => "plain routing",
            Self::Conntrack => "routing with conntrack",
            Self::Nftables => "kube-proxy, nftables",
            Self::Iptables => "kube-proxy, iptables",
            Self::Weir(0) => "weir",
            Self::Weir(_) => "weir, 100 policies",
        }
    }

    /// A word for namespaces.
    pub(super) fn word(self) -> String {
        match self {
            Self::Weir(policies) => format!("weir{policies}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// Whether the client calls the servers by the service's address.
    const fn has_services(self) -> bool {
        !matches!(self, Self::Direct | Self::Plain | Self::Conntrack)
    }
}

/// A way that is set up. Dropping it removes it.
pub(super) struct Set {
    /// Which it is.
    pub(super) way: Way,
    /// Before the network, which it watches.
    agent: Option<Agent>,
    /// Its namespaces.
    pub(super) network: Network,
    /// How long its rules, or its agent, took to be there.
    pub(super) loading: Duration,
}

impl Set {
    /// Sets a way up for a cluster of these services, in namespaces whose names begin with `word`.
    pub(super) fn up(way: Way, word: &str, ports: &[ServicePort], weir: &Path, cpu: usize) -> Result<Self> {
        let network = match way {
            Way::Direct => Network::direct(word)?,
            _ => Network::routed(word)?,
        };
        let mut set = Self { way, agent: None, network, loading: Duration::ZERO };
        let start = Instant::now();
        match way {
            Way::Weir(policies) => {
                let node = format!("bench-{word}");
                let text = cluster::manifests(&node, ports, policies);
                set.agent = Some(Agent::start(weir, &node, &set.network, &text, cpu)?);
            }
            Way::Conntrack => set.rules(&["nft", "-f", "-"], CONNTRACK)?,
            Way::Nftables => set.rules(&["nft", "-f", "-"], &cluster::kube_proxy(ports).nftables())?,
            Way::Iptables => set.rules(&["iptables-restore"], &cluster::kube_proxy(ports).iptables())?,
            Way::Direct | Way::Plain => {}
        }
        set.loading = start.elapsed();
        if way != Way::Direct {
            set.network.bring_up()?;
        }
        Ok(set)
    }

    /// Whom the client in a pod calls.
    pub(super) fn targets(&self) -> (Vec<Ipv4Addr>, u16) {
        match self.way.has_services() {
            true => (vec![SERVICE], SERVICE_PORT),
            false => (SERVERS.to_vec(), PORT),
        }
    }

    /// Whom the client outside calls; `None` where it reaches nobody.
    pub(super) fn targets_from_outside(&self) -> Option<(Vec<Ipv4Addr>, u16)> {
        match self.way {
            Way::Direct => None,
            Way::Plain | Way::Conntrack => Some((SERVERS.to_vec(), PORT)),
            Way::Nftables | Way::Iptables | Way::Weir(_) => Some((vec![NODE], NODE_PORT)),
        }
    }

    /// Feeds a program in the node's namespace.
    fn rules(&self, command: &[&str], text: &str) -> Result<()> {
        netns::within(&self.network.node(), || {
            let mut child = Command::new(command[0])
                .args(&command[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", command[0]))?;
            child.stdin.take().context("its input is piped")?.write_all(text.as_bytes())?;
            let status = child.wait()?;
            ensure!(status.success(), "{} ended with {status}", command[0]);
            Ok(())
        })
    }
}

const CONNTRACK: &str = "\
add table ip bench
add chain ip bench forward { type filter hook forward priority 0 ; }
add rule ip bench forward ct state invalid drop
";

/// An agent, on the CPU of the traffic, so that what it costs counts.
struct Agent {
    process: Child,
    weir: PathBuf,
    node: String,
}

impl Agent {
    fn start(weir: &Path, node: &str, network: &Network, manifests: &str, cpu: usize) -> Result<Self> {
        let directory = Path::new("/run/bench").join(node);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("cluster.yaml"), manifests)?;
        let log = Path::new("/run/bench").join(format!("{node}.log"));
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &cpu.to_string()]).arg(weir);
        command.args(["agent", "--node", node, "--uplink", "uplink", "--manifests"]).arg(&directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let process = netns::within(&network.node(), || command.spawn().context("cannot start weir agent"))?;
        let mut agent = Self { process, weir: weir.to_owned(), node: node.to_owned() };
        agent.wait(&Path::new("/run/weir").join(node).join("weir.sock"), &log)?;
        for (pod, _) in PODS {
            let name = format!("bench/{pod}");
            let arguments = ["attach", "--node", node, "--pod", &name, "--interface", pod];
            shell::output(Command::new(weir).args(arguments))?;
        }
        Ok(agent)
    }

    fn wait(&mut self, socket: &Path, log: &Path) -> Result<()> {
        let start = Instant::now();
        while UnixStream::connect(socket).is_err() {
            let status = self.process.try_wait()?;
            if status.is_some() || start.elapsed() > PATIENCE {
                bail!("the agent does not answer:\n{}", fs::read_to_string(log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut detach = Command::new(&self.weir);
        if let Err(error) = shell::output(detach.args(["detach", "--all", "--node", &self.node])) {
            eprintln!("left behind: {error:#}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
