//! Traffic: which kinds there are, and how one is sent through a way of forwarding.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use xtask::shell;

use super::{
    cluster::PORT,
    network::{Network, PODS},
    variant::Set,
};
use crate::demo::netns;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// TCP connect, request, response, close.
    Connect,
    /// The same, from outside, by the node's port.
    NodePort,
    /// Requests on connections that stay.
    Request,
    /// A UDP request from a new socket.
    Datagram,
    /// UDP datagrams of 64 bytes.
    Flood,
    /// One TCP stream.
    Stream,
}

impl Load {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Connect, Self::NodePort, Self::Request, Self::Datagram, Self::Flood, Self::Stream];
    /// Those that have a figure to reach.
    pub(super) const WITH_A_GOAL: [Self; 5] =
        [Self::Connect, Self::NodePort, Self::Request, Self::Datagram, Self::Flood];

    /// What its rows are called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "TCP connect/request/close",
            Self::NodePort => "the same by NodePort",
            Self::Request => "TCP request/response",
            Self::Datagram => "UDP request, new socket",
            Self::Flood => "UDP 64 B datagrams",
            Self::Stream => "TCP stream",
        }
    }

    /// What it is counted in.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Stream => "MB/s",
            _ => "/s",
        }
    }

    const fn mode(self) -> &'static str {
        match self {
            Self::Connect | Self::NodePort => "connect",
            Self::Request => "request",
            Self::Datagram => "datagram",
            Self::Flood => "flood",
            Self::Stream => "stream",
        }
    }

    const fn sockets(self) -> usize {
        match self {
            Self::Connect | Self::NodePort | Self::Datagram => 32,
            Self::Request | Self::Flood => 16,
            Self::Stream => 1,
        }
    }
}

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Operations, packets or megabytes a second.
    pub(super) rate: f64,
    /// 99th percentile of an operation's time in microseconds, 0 where there are no operations.
    pub(super) p99: f64,
    /// Median of the same.
    pub(super) p50: f64,
}

/// The servers of a network. Dropping them ends them.
pub(super) struct Servers(Vec<Child>);

impl Servers {
    /// Starts them; returns once they listen.
    pub(super) fn start(load: &Path, network: &Network, cpu: usize) -> Result<Self> {
        let mut servers = Self(Vec::new());
        for (pod, _) in &PODS[1..] {
            let mut command = Command::new(load);
            command.args([&cpu.to_string(), "server", &PORT.to_string()]).stdin(Stdio::null());
            let mut child = netns::within(&network.netns(pod), || {
                command.stdout(Stdio::piped()).spawn().context("cannot start the load generator")
            })?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
            servers.0.push(child);
            ensure!(line == "ready\n", "a server does not listen");
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Sends traffic for a time; `None` where this way does not take it.
pub(super) fn send(
    load: Load,
    generator: &Path,
    set: &Set,
    cpu: usize,
    seconds: f64,
) -> Result<Option<Sample>> {
    let (from, targets) = match load {
        Load::NodePort => (set.network.outside(), set.targets_from_outside()),
        _ => (set.network.netns(PODS[0].0), Some(set.targets())),
    };
    let Some((addresses, port)) = targets else { return Ok(None) };
    let addresses = addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(generator);
    command.args([&cpu.to_string(), load.mode(), &addresses]);
    command.args([port.to_string(), load.sockets().to_string(), seconds.to_string()]);
    let before = received(&set.network)?;
    let output = netns::within(&from, || shell::output(&mut command))?;
    if load == Load::Flood {
        let rate = (received(&set.network)? - before) as f64 / seconds;
        return Ok(Some(Sample { rate, p50: 0.0, p99: 0.0 }));
    }
    let numbers = output.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [rate, failures, p50, p99] = numbers[..] else { anyhow::bail!("the load generator said {output}") };
    let name = set.way.name();
    ensure!(rate > 0.0, "{name}: nothing got through of {}", load.name());
    ensure!(failures <= rate * seconds / 100.0, "{name}: {failures} of {} failed", load.name());
    let rate = if load == Load::Stream { rate / 1e6 } else { rate };
    Ok(Some(Sample { rate, p50, p99 }))
}

/// Datagrams that the servers have read.
fn received(network: &Network) -> Result<u64> {
    PODS[1..].iter().map(|(pod, _)| netns::within(&network.netns(pod), datagrams)).sum()
}

fn datagrams() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("no counters")?, lines.next().context("no counters")?);
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, value) = both.find(|(name, _)| *name == "InDatagrams").context("no InDatagrams")?;
    Ok(value.parse()?)
}
