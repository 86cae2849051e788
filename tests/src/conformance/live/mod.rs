//! Real sockets in network namespaces on two nodes, whose agents are told each step by `weir delete` and `weir apply`.
//!
//! What is allowed is answered by the server that was asked; what is denied, an agent says that it dropped. Nothing is
//! concluded from silence, but where nobody has the address.

mod batch;
mod drops;
mod flips;
mod server;
mod socket;
mod world;

use std::{
    collections::BTreeMap,
    iter,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use weir::{
    cluster::{Cluster, Objects},
    compile::Numbers,
    datapath::{Backend, Connection, Frontend, Judgement, Network},
    manifest::{Kind, Object},
};

use self::{
    batch::{Attempt, Batch, Outcome},
    drops::Drops,
    server::{Port, Servers},
    world::World,
};
use super::{
    Change, Level, Observation,
    loaded::{hash, number},
    service,
};
use crate::{
    live::{Agent, STATES, file, netns, watched, weir},
    packets::Ends,
};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);
/// Ports tried to reach a certain backend.
const TRIES: usize = 10_000;

/// The level `live`. Needs root, and mounts of its own: see [`crate::live::isolated`].
#[derive(Default)]
pub struct Live {
    running: Option<Running>,
    /// What the agents were told.
    objects: Objects,
    /// The same compiled: it tells which port leads to which backend of a service.
    numbers: BTreeMap<String, Numbers>,
    network: Network,
    /// Nodes of their own for cases about services.
    wire: service::Wire,
}

/// What runs from the first case to the last.
struct Running {
    /// Ended before the agents are.
    drops: Drops,
    servers: Servers,
    world: World,
    _agents: Vec<Agent>,
}

/// Connections that stand for one, by the backends of a service or alone.
enum Tried {
    Direct(Attempt),
    Balanced(BTreeMap<Backend, Attempt>),
    /// Nobody has the source.
    Nowhere,
}

impl Level for Live {
    fn name(&self) -> &'static str {
        "live"
    }

    fn enforce(&mut self, change: &Change<'_>) -> Result<BTreeMap<usize, String>> {
        self.network = Network::compile(change.cluster, &mut self.numbers)?;
        for (name, datapath) in &self.network.nodes {
            self.numbers.entry(name.clone()).or_default().retain(datapath);
        }
        if self.running.is_none() {
            self.wire = service::Wire::default();
            remove_others()?;
            self.objects = nodes(change.objects);
            self.running = Some(Running::start(&self.objects, change.cluster)?);
        }
        let running = self.running.as_mut().context("it runs now")?;
        let steady =
            change.steady.iter().map(|(connection, open)| Ok((running.attempt(connection, 0)?, *open)));
        let steady: Vec<_> = steady.collect::<Result<_>>()?;
        let Running { drops, world, .. } = running;
        let flips = flips::during(&steady, drops, || apply(&self.objects, change, world))?;
        self.objects = change.objects.clone();
        Ok(flips)
    }

    fn connect(&mut self, connection: &Connection) -> Result<Observation> {
        self.connect_all(&[*connection])?.pop().context("one for one")
    }

    fn connect_all(&mut self, connections: &[Connection]) -> Result<Vec<Observation>> {
        let running = self.running.as_mut().context("nothing is in force yet")?;
        let tried = connections.iter().map(|connection| running.tried(connection, &self.network));
        let tried: Vec<_> = tried.collect::<Result<_>>()?;
        let attempts: Vec<_> = tried.iter().flat_map(Tried::attempts).cloned().collect();
        running.drops.forget();
        let mut outcomes = open(&attempts, &running.drops)?.into_iter();
        tried.iter().map(|tried| tried.observation(&mut outcomes)).collect()
    }

    fn run_service_case(&mut self, directory: &Path) -> Result<Option<service::Report>> {
        if self.running.take().is_some() {
            remove_others()?;
        }
        service::run_on(&mut self.wire, directory).map(Some)
    }
}

/// Removes what the nodes of other cases left behind: agents, which would be told what those of these cases are told,
/// and namespaces of the same names.
fn remove_others() -> Result<()> {
    if Path::new(STATES).is_dir() {
        let answer = weir(&["detach", "--all"]);
        ensure!(answer.status == 0, "weir detach exits with {}: {}", answer.status, answer.err);
    }
    netns::remove_all()
}

impl Running {
    fn start(objects: &Objects, cluster: &Cluster) -> Result<Self> {
        watched("nodes.yaml", &text(objects.iter()));
        let world = World::open(cluster.nodes.keys().map(AsRef::as_ref))?;
        let agents = world.nodes().map(|(name, netns)| Agent::start(name, netns, &[])).collect();
        Ok(Self { drops: Drops::follow()?, servers: Servers::start()?, world, _agents: agents })
    }

    /// What is to be tried for a connection, servers ready.
    fn tried(&mut self, connection: &Connection, network: &Network) -> Result<Tried> {
        if self.world.netns(connection.source)?.is_none() {
            return Ok(Tried::Nowhere);
        }
        let Judgement::Balanced(paths) = network.connect(connection) else {
            self.serve(connection.destination, connection)?;
            return Ok(Tried::Direct(self.attempt(connection, 0)?));
        };
        let attempts = paths.into_keys().map(|backend| {
            self.serve(backend.address, &Connection { port: backend.port, ..*connection })?;
            let port = port_to(&backend, connection, network)?;
            Ok((backend, self.attempt(connection, port)?))
        });
        Ok(Tried::Balanced(attempts.collect::<Result<_>>()?))
    }

    /// Sees that a server listens where a connection leads to.
    fn serve(&mut self, address: IpAddr, connection: &Connection) -> Result<()> {
        let Some(netns) = self.world.netns(address)? else { return Ok(()) };
        let address = SocketAddr::new(address, connection.port);
        self.servers.open([Port { netns, protocol: number(connection.protocol), address }])
    }

    fn attempt(&mut self, connection: &Connection, port: u16) -> Result<Attempt> {
        Ok(Attempt {
            netns: self.world.netns(connection.source)?.context("nobody has the source address")?,
            protocol: number(connection.protocol),
            from: SocketAddr::new(connection.source, port),
            to: SocketAddr::new(connection.destination, connection.port),
        })
    }
}

impl Tried {
    fn attempts(&self) -> Vec<&Attempt> {
        match self {
            Self::Direct(attempt) => vec![attempt],
            Self::Balanced(attempts) => attempts.values().collect(),
            Self::Nowhere => Vec::new(),
        }
    }

    /// What the next of `outcomes`, which are those of its attempts, come to.
    fn observation(&self, outcomes: &mut impl Iterator<Item = Outcome>) -> Result<Observation> {
        let mut next = || outcomes.next().context("one for one");
        match self {
            Self::Nowhere => Ok(Observation::Direct(false, "nobody has the source address".to_owned())),
            Self::Direct(attempt) => Ok(match opened(next()?, attempt.to.ip()) {
                Ok((open, why)) => Observation::Direct(open, why),
                Err(neither) => Observation::Neither(neither),
            }),
            Self::Balanced(attempts) => {
                let opened = attempts
                    .keys()
                    .map(|backend| Ok(opened(next()?, backend.address).map(|seen| (*backend, seen))));
                let opened: Result<BTreeMap<_, _>, String> =
                    opened.collect::<Result<Vec<_>>>()?.into_iter().collect();
                Ok(opened.map_or_else(Observation::Neither, Observation::Balanced))
            }
        }
    }
}

/// Whether a connection to `server` opened, and why; an error when it neither did nor was silent.
fn opened(outcome: Outcome, server: IpAddr) -> Result<(bool, String), String> {
    match outcome {
        Outcome::Answer(name) if name == server.to_string() => Ok((true, name)),
        Outcome::Answer(name) => Err(format!("{name} answered for {server}")),
        Outcome::Dropped(why) => Ok((false, why)),
        Outcome::Silence => Ok((false, "no answer, and no word of a drop".to_owned())),
        Outcome::Refused(why) => Err(why),
    }
}

/// The outcomes of connections that are opened at once.
fn open(attempts: &[Attempt], drops: &Drops) -> Result<Vec<Outcome>> {
    // A thread that enters namespaces is good for nothing else.
    let work = || {
        let mut batch = Batch::open(attempts)?;
        batch.wait(drops, PATIENCE)?;
        Ok(batch.outcomes())
    };
    thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
}

/// Tells the agents of a change, and lays the network out for it.
fn apply(in_force: &Objects, change: &Change<'_>, world: &mut World) -> Result<()> {
    let find = |objects: &Objects, object: &Object| {
        let key = object.key();
        objects.get(key.kind, &key.name.namespace, &key.name.name).map(|found| found.text().to_json())
    };
    let gone: Vec<_> = in_force.iter().filter(|object| find(change.objects, object).is_none()).collect();
    let new: Vec<_> = change
        .objects
        .iter()
        .filter(|object| find(in_force, object).as_ref() != Some(&object.text().to_json()))
        .collect();
    if !gone.is_empty() {
        tell("delete", &text(gone.into_iter()))?;
    }
    world.arrange(change.cluster)?;
    if !new.is_empty() {
        tell("apply", &text(new.into_iter()))?;
    }
    Ok(())
}

fn tell(command: &str, manifest: &str) -> Result<()> {
    let answer = weir(&[command, "-f", &file("change.yaml", manifest)]);
    if answer.status != 0 {
        bail!("weir {command} exits with {}: {}", answer.status, answer.err);
    }
    Ok(())
}

fn nodes(objects: &Objects) -> Objects {
    let mut nodes = Objects::default();
    for object in objects.iter().filter(|object| object.key().kind == Kind::Node) {
        nodes.insert(object.clone());
    }
    nodes
}

/// A manifest of these objects.
fn text<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> String {
    objects.map(|object| format!("---\n{}\n", object.text().to_json())).collect()
}

/// A source port whose connections go to this backend of a service.
fn port_to(backend: &Backend, connection: &Connection, network: &Network) -> Result<u16> {
    let Connection { source, destination, port, protocol } = *connection;
    let frontend = Frontend { address: destination, port, protocol: number(protocol) };
    let mut nodes = network.nodes.values();
    let node = nodes.clone().find(|node| node.endpoints.contains_key(&source)).or_else(|| nodes.next());
    let node = node.context("there is no node")?;
    let ring = &node.frontends.get(&frontend).context("there is no such service")?.internal;
    let leads_there = |sport: &u16| {
        let ends = Ends { src: source, dst: destination, sport: *sport, dport: port };
        ring.at((hash(&ends, frontend.protocol) >> 32) as usize) == *backend
    };
    // Never twice: an attempt that was not answered leaves a flow behind, which would be found again.
    let mut ports = iter::repeat_with(socket::next_port).take(TRIES);
    ports.find(leads_there).context("no port leads to the backend")
}
