//! The agent as a process: what it waits for, and in which order it starts and ends.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{self, Interval, MissedTickBehavior},
};
use tracing::{info, warn};

use super::{
    enforcer::Enforcer,
    engine::{Beginning, Engine, Settings, StartError},
    event_log::EventLog,
    events,
    health::{Checker, Finding, HealthServers},
    interfaces::Network,
    kernel, manifests, metrics,
    netlink::{self, Netlink},
    socket::{Command, Limits, Server},
    state::{Directory, StateError},
};
use crate::{
    kernel::{
        XdpMode,
        pins::of_node,
        sys::{allocate_from_one_heap, give_back_free_memory},
    },
    plan::Sizes,
    protocol::{Detach, Failure, FailureKind, Request, Response},
};

/// How often the agent looks whether everything is attached as it left it.
const ROUND: Duration = Duration::from_millis(500);
/// How long a client may take to read the last answer of an agent.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What an agent is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node it is the agent of.
    pub node: String,
    /// Files and directories of manifests.
    pub manifests: Vec<PathBuf>,
    /// State directory.
    pub state: PathBuf,
    /// Directory for pins.
    pub bpffs: PathBuf,
    /// Interface towards other nodes, when it is given.
    pub uplink: Option<String>,
    /// How programs are attached.
    pub attach_mode: AttachMode,
    /// How the edge is attached to the uplink.
    pub xdp_mode: XdpMode,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Whether the programs write log lines of their own.
    pub program_log: bool,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// TCX.
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
}

/// Why an agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The manifests are wrong, and there is no accepted state.
    #[error("{0}")]
    Input(String),
    /// The kernel refuses, the state directory cannot be used, or a permission is missing.
    #[error("{0}")]
    Refused(String),
}

/// The directory with one directory of pins per agent.
pub fn default_bpffs() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/weir")
}

/// The directory for the pins of a node's agent.
pub fn default_pins(node: &str) -> PathBuf {
    of_node(&default_bpffs(), node)
}

/// Runs an agent until it is told to end. What it enforces stays in force.
pub fn run(options: &Options) -> Result<(), RunError> {
    allocate_from_one_heap();
    let directory = Directory::open(&options.state)?;
    let settings = Settings {
        node: options.node.clone(),
        manifests: options.manifests.clone(),
        uplink: options.uplink.clone(),
    };
    // Before the kernel is touched: an agent that refuses to start leaves everything as it is.
    let beginning = Beginning::find(&directory, &settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _context = runtime.enter();
    let mut inbox = Inbox::new(options)?;
    let metrics = options.metrics.map(bind_metrics).transpose()?;
    let mut sizes = Sizes::default().for_memory(kernel::memory());
    if let Some(datapath) = beginning.datapath() {
        sizes = sizes.with_room_for(datapath);
    }
    let kernel = kernel::open(options, sizes).map_err(|error| RunError::Refused(error.to_string()))?;
    if let Some(log) = kernel.log {
        tokio::spawn(log.forward());
    }
    let (publish_names, names) = watch::channel(Arc::default());
    tokio::spawn(events::pump(kernel.events, names, Arc::clone(&inbox.events)));

    let mut engine =
        Engine::start(settings, directory, kernel.enforcer, Netlink::connect()?, publish_names, beginning)?;
    inbox.listen(&options.state)?;
    if let Some(listener) = metrics {
        tokio::spawn(metrics::serve(listener, inbox.send_commands.clone()));
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "cannot tell the service manager that the agent is ready");
    }
    info!(node = options.node, socket = %options.state.join(crate::protocol::SOCKET).display(), "ready");
    // Most of what it took to read all of the manifests.
    give_back_free_memory();
    inbox.attend(&runtime, &mut engine)
}

/// Early, so that an agent that cannot have its port refuses to start.
fn bind_metrics(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    });
    bound.map_err(|error| {
        RunError::Refused(format!(
            "cannot serve metrics at {address}: {error}; what was enforced before stays in force; choose another \
             address with --metrics, or leave it out"
        ))
    })
}

/// Everything that an agent waits for.
struct Inbox {
    commands: mpsc::Receiver<Command>,
    send_commands: mpsc::Sender<Command>,
    events: Arc<EventLog>,
    findings: mpsc::Receiver<Finding>,
    send_findings: mpsc::Sender<Finding>,
    manifests: mpsc::Receiver<()>,
    interfaces: mpsc::Receiver<()>,
    rounds: Interval,
    terminate: Signal,
    interrupt: Signal,
}

enum Message {
    Command(Command),
    Manifests,
    Interfaces,
    Finding(Finding),
    Round,
    End,
}

impl Inbox {
    fn new(options: &Options) -> io::Result<Self> {
        // A word that something changed says the same as two.
        let (manifests_changed, manifests) = mpsc::channel(1);
        let (interfaces_changed, interfaces) = mpsc::channel(1);
        tokio::spawn(manifests::watch(options.manifests.clone(), manifests_changed));
        netlink::watch(interfaces_changed)?;
        let mut rounds = time::interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (send_commands, commands) = mpsc::channel(16);
        let (send_findings, findings) = mpsc::channel(256);
        Ok(Self {
            commands,
            send_commands,
            events: Arc::default(),
            findings,
            send_findings,
            manifests,
            interfaces,
            rounds,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    fn listen(&self, state: &Path) -> io::Result<()> {
        let server = Server::bind(state, Limits::default())?;
        tokio::spawn(server.serve(self.send_commands.clone(), Arc::clone(&self.events)));
        Ok(())
    }

    async fn next(&mut self) -> Message {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Message::End,
            _ = self.interrupt.recv() => Message::End,
            Some(command) = self.commands.recv() => Message::Command(command),
            Some(()) = self.manifests.recv() => Message::Manifests,
            Some(()) = self.interfaces.recv() => Message::Interfaces,
            Some(finding) = self.findings.recv() => Message::Finding(finding),
            _ = self.rounds.tick() => Message::Round,
        }
    }

    fn attend<E: Enforcer, N: Network>(
        &mut self,
        runtime: &Runtime,
        engine: &mut Engine<E, N>,
    ) -> Result<(), RunError> {
        let mut servers = HealthServers::new(runtime.handle().clone());
        let mut checker = Checker::new(runtime.handle().clone(), self.send_findings.clone());
        loop {
            // With the client's answer on its way.
            engine.finish();
            if let Some(active) = &engine.active {
                servers.follow(&active.datapath.health_checks);
                checker.follow(&active.datapath.probes);
            }
            engine.health_problems = servers.problems();
            match runtime.block_on(self.next()) {
                Message::End => {
                    info!("ending; what is enforced stays in force");
                    return Ok(());
                }
                // Refusals are logged and kept for `weir status` by the engine.
                Message::Manifests => {
                    drop(engine.reload());
                    give_back_free_memory();
                }
                Message::Interfaces => {
                    if let Err(failure) = engine.refresh() {
                        warn!("interfaces have changed, but cannot be enforced: {failure}");
                    }
                }
                Message::Round => {
                    engine.look_after();
                    engine.rebalance();
                }
                Message::Finding(finding) => {
                    // Those that came at the same time are one change.
                    let others = std::iter::from_fn(|| self.findings.try_recv().ok());
                    for finding in [finding].into_iter().chain(others) {
                        engine.note(finding).into_iter().for_each(|change| self.events.tell(change));
                    }
                    engine.rebalance();
                }
                Message::Command(Command { request, answer, delivered }) => {
                    let all = matches!(request, Request::Detach(Detach::All));
                    let mut response = engine.answer(request);
                    let gone = all && matches!(response, Response::Detached(_));
                    if gone && let Err(error) = engine.remove_state() {
                        response = Response::Failed(Failure::new(FailureKind::Kernel, error));
                    }
                    // The client may be gone.
                    drop(answer.send(response));
                    if gone {
                        info!("detached; ending");
                        drop(runtime.block_on(async { time::timeout(LAST_WORD, delivered).await }));
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl From<StateError> for RunError {
    fn from(error: StateError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<StartError> for RunError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Input(message) => Self::Input(message),
            StartError::State(error) => error.into(),
            StartError::Enforce(message) => Self::Refused(message),
        }
    }
}
