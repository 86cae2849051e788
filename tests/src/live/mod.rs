//! A live cluster for a test: network namespaces, real agents, real traffic.
//!
//! The network is the demo's. A test runs with mounts of its own, an empty /run and an empty BPF file system: what it
//! makes there is gone when it ends, however it ends, and it neither sees nor touches what else is on the machine.

mod agent;
pub mod crowd;
pub mod edge;
pub mod kernel;
pub mod manifests;
pub mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use weir::{
    cluster::{Cluster, Name, Objects, Protocol},
    manifest,
};
pub use weir_lab::demo::{
    netns, network,
    plan::{self, Plan, Pod},
    worker::{Outcome, Worker},
};

pub use self::agent::{Agent, Answer, spawn, weir};

/// The directory that the agents watch.
pub const MANIFESTS: &str = "/run/manifests";
/// The directory with one directory of state for each agent.
pub const STATES: &str = "/run/weir";
/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Live tests share two processors and their clock.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs a test with mounts of its own, alone among the live tests of this process.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            private_mounts();
            test()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A cluster with its agents, every pod attached and listening on its ports.
pub struct Live {
    /// Its topology.
    pub plan: Plan,
    /// Its agents by node.
    pub agents: BTreeMap<String, Agent>,
    workers: BTreeMap<String, Worker>,
}

impl Live {
    /// Builds the cluster of these manifests, which the agents watch.
    pub fn start(manifests: &str) -> Self {
        Self::with_options(manifests, &[])
    }

    /// The same, with more options for `weir agent`.
    pub fn with_options(manifests: &str, options: &[&str]) -> Self {
        watched("cluster.yaml", manifests);
        let plan = Plan::new(&cluster(Path::new(MANIFESTS))).unwrap();
        network::build(&plan).unwrap();
        let start = |node: &plan::Node| (node.name.clone(), Agent::start(&node.name, &node.netns, options));
        let agents = plan.nodes.iter().map(start).collect();
        let mut live = Self { plan, agents, workers: BTreeMap::new() };
        for pod in &live.plan.pods {
            live.attach(pod).done();
            network::route_to(&live.plan, pod).unwrap();
        }
        for netns in live.plan.namespaces() {
            let pods: Vec<_> = live.plan.pods.iter().filter(|pod| pod.netns == netns).collect();
            live.workers.insert(netns.to_owned(), Worker::start(netns, &pods).unwrap());
        }
        live
    }

    /// Runs `weir attach` for a pod.
    pub fn attach(&self, pod: &Pod) -> Answer {
        let node = &self.plan.nodes[pod.node].name;
        let interface = pod.interface.as_deref().expect("a pod of its own network");
        weir(&["attach", "--node", node, "--pod", &pod.name.to_string(), "--interface", interface])
    }

    /// A pod of namespace `shop`.
    pub fn pod(&self, name: &str) -> &Pod {
        self.plan.pods.iter().find(|pod| *pod.name.name == *name).expect("a pod of the plan")
    }

    /// The network namespace of a pod of namespace `shop`, or of a node.
    pub fn netns(&self, name: &str) -> &str {
        match self.plan.nodes.iter().find(|node| node.name == name) {
            Some(node) => &node.netns,
            None => &self.pod(name).netns,
        }
    }

    /// Where a pod listens on a port: over IPv4 and over IPv6.
    pub fn at(&self, pod: &str, port: u16) -> [SocketAddr; 2] {
        let addresses = &self.pod(pod).addresses;
        let address =
            |ipv6| *addresses.iter().find(|address| IpAddr::is_ipv6(address) == ipv6).expect("both families");
        [SocketAddr::new(address(false), port), SocketAddr::new(address(true), port)]
    }

    /// Opens a connection, or sends a datagram, from a pod or a node to a server that gives its name.
    pub fn probe(&self, from: &str, protocol: Protocol, to: SocketAddr) -> Outcome {
        let worker = &self.workers[self.netns(from)];
        block_on(worker.probe(protocol, to))
    }

    /// Which of these pods answer `from` on their own ports, over TCP and UDP and both families; the answer must not
    /// depend on any of these.
    pub fn reaches(&self, from: &str, to: &[&str]) -> Vec<String> {
        let worker = &self.workers[self.netns(from)];
        let answers = |pod: &&str| {
            let ([tcp, tcp6], [udp, udp6]) = (self.at(pod, manifests::TCP), self.at(pod, manifests::UDP));
            let outcomes: [Outcome; 4] = block_on(async {
                tokio::join!(
                    worker.probe(Protocol::Tcp, tcp),
                    worker.probe(Protocol::Tcp, tcp6),
                    worker.probe(Protocol::Udp, udp),
                    worker.probe(Protocol::Udp, udp6),
                )
            })
            .into();
            let yes = Outcome::Answer(format!("{}/{pod}", manifests::NAMESPACE));
            match &outcomes[0] {
                first if outcomes.iter().any(|other| other != first) => {
                    panic!("{from} to {pod}: {outcomes:?}")
                }
                first if *first == yes => true,
                Outcome::Silence => false,
                other => panic!("{from} to {pod}: {other:?}"),
            }
        };
        to.iter().filter(|pod| answers(pod)).map(|pod| (*pod).to_owned()).collect()
    }

    /// Runs a program in the namespace of a pod or a node.
    pub fn command(&self, at: &str, program: &str, args: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns(at))).arg(program).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The agent of a node.
    pub fn agent(&mut self, node: &str) -> &mut Agent {
        self.agents.get_mut(node).expect("a node of the plan")
    }

    /// The revision that every node enforces, which must be one.
    pub fn revision(&self) -> u64 {
        let revisions: Vec<_> = self.agents.values().map(Agent::revision).collect();
        assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
        revisions[0]
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if thread::panicking() {
            for (node, agent) in &self.agents {
                eprintln!("--- log of the agent of {node}\n{}", agent.log());
            }
        }
    }
}

/// Writes a file into the watched directory, in one step.
pub fn watched(name: &str, text: &str) -> PathBuf {
    fs::create_dir_all(MANIFESTS).unwrap();
    let (path, new) = (Path::new(MANIFESTS).join(name), Path::new("/run").join(name));
    fs::write(&new, text).unwrap();
    fs::rename(&new, &path).unwrap();
    path
}

/// Writes a file that nobody watches.
pub fn file(name: &str, text: &str) -> String {
    let path = format!("/run/{name}");
    fs::write(&path, text).unwrap();
    path
}

/// `weir apply` of a manifest to every agent.
pub fn apply(text: &str) -> Answer {
    weir(&["apply", "-f", &file("change.yaml", text)])
}

/// `weir delete` of what a manifest names.
pub fn delete(text: &str) -> Answer {
    weir(&["delete", "-f", &file("change.yaml", text)])
}

/// The name of a pod of [`manifests::NAMESPACE`].
pub fn name(pod: &str) -> Name {
    Name { namespace: manifests::NAMESPACE.into(), name: pod.into() }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn cluster(path: &Path) -> Cluster {
    let mut objects = Objects::default();
    objects.insert_all(manifest::read(&[path.to_owned()]).unwrap());
    objects.build().unwrap()
}

fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("live tests need root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mount(Some("bpf"), kernel::BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=700")).unwrap();
}
