//! A node with pods in network namespaces, and the released agent on it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use weir::{
    kernel::sys::{MapFd, object_get},
    manifest,
    protocol::{Change, Envelope, Request, Response, SOCKET, encode},
};
use xtask::machine;

use super::{report::Row, stats::Spread};
use crate::demo::netns;

/// The node's namespace, and those of the pods that send.
const NODE: &str = "weir-scale-node";
const PODS: [&str; 2] = ["weir-scale-a", "weir-scale-b"];
/// Addresses of these pods.
pub(super) const CLIENT: &str = "10.64.0.2";
pub(super) const SERVER: &str = "10.64.0.3";
/// How long an agent may take to start.
const PATIENCE: Duration = Duration::from_secs(180);

/// The node. Dropping it removes all of it.
pub(super) struct Lab {
    directory: tempfile::TempDir,
    agent: Option<Child>,
}

impl Lab {
    /// A node with two pods that are on the network, and interfaces `pod0`, `pod1`, … for as many others.
    pub(super) fn new(others: usize) -> Result<Self> {
        let lab = Self {
            directory: tempfile::Builder::new().prefix("weir-scale").tempdir_in("/run")?,
            agent: None,
        };
        remove();
        for name in PODS.into_iter().chain([NODE]) {
            netns::ip(None, &[format!("netns add {name}")])?;
            netns::ip(Some(name), &["link set lo up".to_owned()])?;
        }
        for (index, (pod, address)) in PODS.into_iter().zip([CLIENT, SERVER]).enumerate() {
            netns::ip(
                Some(NODE),
                &[
                    format!("link add v{index} type veth peer name eth0 netns {pod}"),
                    format!("link set v{index} up"),
                    format!("address add 169.254.1.1/32 dev v{index}"),
                    format!("route add {address}/32 dev v{index}"),
                ],
            )?;
            netns::ip(
                Some(pod),
                &[
                    "link set eth0 up".to_owned(),
                    format!("address add {address}/32 dev eth0"),
                    "route add 169.254.1.1/32 dev eth0".to_owned(),
                    "route add default via 169.254.1.1 dev eth0".to_owned(),
                ],
            )?;
        }
        let pairs: Vec<_> =
            (0..others).map(|index| format!("link add pod{index} type veth peer name end{index}")).collect();
        netns::ip(Some(NODE), &pairs)?;
        netns::sysctl(NODE, &[("ipv4/ip_forward", "1")])?;
        Ok(lab)
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn pins(&self) -> PathBuf {
        Path::new(machine::BPFFS).join("weir-scale")
    }

    /// Starts the released agent with these manifests; says how many seconds it took until they were enforced.
    pub(super) fn start(&mut self, weir: &Path, manifests: &str) -> Result<f64> {
        let file = self.directory.path().join("cluster.yaml");
        fs::write(&file, manifests)?;
        let log = File::create(self.directory.path().join("log"))?;
        let mut command = Command::new(weir);
        command.args(["agent", "--node", "n0", "--manifests"]).arg(&file);
        command.arg("--state").arg(self.state()).arg("--bpffs").arg(self.pins());
        let begun = Instant::now();
        let child = netns::within(NODE, || {
            Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
        })?;
        self.agent = Some(child);
        // It listens once it enforces.
        while UnixStream::connect(self.state().join(SOCKET)).is_err() {
            let ended = self.agent.as_mut().and_then(|agent| agent.try_wait().ok().flatten());
            if ended.is_some() || begun.elapsed() > PATIENCE {
                bail!("the agent did not start:\n{}", fs::read_to_string(self.directory.path().join("log"))?);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// What the agent's log says.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Applies manifests; says how many milliseconds it took until they were enforced. The agent is idle before:
    /// it is done with removing what the change before has left.
    pub(super) fn apply(&self, text: &str) -> Result<f64> {
        thread::sleep(Duration::from_millis(40));
        let documents =
            manifest::from_text("change.yaml", text).map_err(|found| anyhow::anyhow!("{found}"))?;
        let texts = documents.objects.iter().map(|object| object.text().clone()).collect();
        let request = encode(&Request::Change { change: Change::Apply(texts), dry_run: false })?;
        let mut socket = UnixStream::connect(self.state().join(SOCKET))?;
        let begun = Instant::now();
        socket.write_all(&request)?;
        let mut answer = String::new();
        BufReader::new(&socket).read_line(&mut answer)?;
        let took = begun.elapsed();
        match serde_json::from_str::<Envelope<Response>>(&answer)?.body {
            Response::Changed(_) => Ok(took.as_secs_f64() * 1000.0),
            other => bail!("the agent refused: {other:?}"),
        }
    }

    /// Megabytes of memory that the agent holds.
    pub(super) fn resident(&self) -> Result<f64> {
        let agent = self.agent.as_ref().context("it runs")?;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }

    /// Megabytes that the kernel accounts for each pinned map.
    pub(super) fn map_memory(&self) -> Result<Vec<(String, f64)>> {
        let mut maps = Vec::new();
        for entry in fs::read_dir(self.pins().join("v1/maps"))? {
            let path = entry?.path();
            let map = MapFd::new(object_get(&path)?)?;
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
            let bytes =
                info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<f64>().ok());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            maps.push((name, bytes.unwrap_or(0.0) / 1e6));
        }
        Ok(maps)
    }

    /// Ends the agent and removes what it enforces.
    pub(super) fn stop(&mut self, weir: &Path) -> Result<()> {
        let status = Command::new(weir)
            .args(["detach", "--all", "--state"])
            .arg(self.state())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "`weir detach --all` failed");
        if let Some(mut agent) = self.agent.take() {
            agent.wait()?;
        }
        Ok(())
    }

    /// Sends datagrams from one pod to `service`, which the other answers at `port`, 10,000 a second.
    pub(super) fn probe(&self, service: SocketAddr, port: u16) -> Result<Prober> {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let server = netns::within(PODS[1], || Ok(UdpSocket::bind(("0.0.0.0", port))?))?;
        let client = netns::within(PODS[0], || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(service)?;
            Ok(socket)
        })?;
        let answers = client.try_clone()?;
        for socket in [&server, &answers] {
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            // Half a minute of packets: a thread that has to wait for a processor is not to lose any.
            setsockopt(socket, RcvBufForce, &(256 << 20))?;
        }
        let mut threads = Vec::new();
        let ended = Arc::clone(&stop);
        threads.push(thread::spawn(move || {
            let mut buffer = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((len, from)) = server.recv_from(&mut buffer) {
                    drop(server.send_to(&buffer[..len], from));
                }
            }
        }));
        let (ended, received) = (Arc::clone(&stop), Arc::clone(&counts));
        threads.push(thread::spawn(move || {
            let mut buffer = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                if answers.recv(&mut buffer).is_ok() {
                    received[1].fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
        let (enough, sent) = (Arc::new(AtomicBool::new(false)), Arc::clone(&counts));
        let ended = Arc::clone(&enough);
        let sender = thread::spawn(move || {
            let begun = Instant::now();
            let mut number = 0_u32;
            while !ended.load(Ordering::Relaxed) {
                if client.send(&number.to_be_bytes()).is_ok() {
                    sent[0].fetch_add(1, Ordering::Relaxed);
                }
                number += 1;
                let due = begun + Duration::from_micros(100) * number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Ok(Prober { enough, stop, counts, sender, threads })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            drop(agent.kill());
            drop(agent.wait());
            drop(weir::daemon::remove_pins(&self.pins()));
        }
        remove();
    }
}

fn remove() {
    for name in PODS.into_iter().chain([NODE]) {
        drop(netns::remove(name));
    }
}

/// Packets under way.
pub(super) struct Prober {
    /// Ends the sender.
    enough: Arc<AtomicBool>,
    /// Ends those that receive.
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    sender: JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Prober {
    /// Stops sending; says how many were sent and how many were not answered.
    pub(super) fn end(self) -> (u64, u64) {
        self.enough.store(true, Ordering::Relaxed);
        drop(self.sender.join());
        // The last answers come in.
        thread::sleep(Duration::from_millis(500));
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let [sent, received] = [0, 1].map(|index| self.counts[index].load(Ordering::Relaxed));
        (sent, sent.saturating_sub(received))
    }
}

/// The manifests of the node `n0`, its namespace, and the two pods that are on the network.
pub(super) fn node() -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n0}\nspec: {podCIDR: 10.64.0.0/16}\n\
         status: {addresses: [{type: InternalIP, address: 192.168.77.1}]}\n---\n",
    );
    for (index, (name, address)) in [("client", CLIENT), ("server", SERVER)].into_iter().enumerate() {
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: probe, labels: {{app: {name}}}, \
             annotations: {{weir.dev/interface: v{index}}}}}\n\
             spec: {{nodeName: n0, containers: [{{name: c}}]}}\nstatus: {{podIP: {address}, phase: Running}}\n---\n"
        );
    }
    text
}

/// A row of a bench.
pub(super) fn row(bench: &str, setting: &str, subject: &str, unit: &str, samples: &[f64]) -> Row {
    Row {
        bench: bench.to_owned(),
        subject: subject.to_owned(),
        setting: setting.to_owned(),
        unit: unit.to_owned(),
        value: Spread::of(samples),
        ratio: None,
    }
}

/// The 99th percentile.
pub(super) fn p99(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}
