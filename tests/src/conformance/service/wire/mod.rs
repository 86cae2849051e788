//! Agents on nodes of their own. Clients and backends are ends of interfaces: what comes out of a node is read off
//! them frame by frame, and answered from there. The node's own clients are sockets.

mod attempt;
mod network;
mod probe;
mod sockets;
mod tap;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_common::policy::Protocol;

use self::{
    attempt::{Attempt, Place, checked, progress},
    network::{Network, WORLD, WORLD_MAC},
    probe::{Kind, is, probe},
    tap::{Heard, Tap},
};
use super::{
    documents::{key, text},
    testbed::{Fate, State, Testbed},
};
use crate::{
    live::{Agent, file, netns, watched, weir},
    packets::{Ends, read_tuple},
};

/// Silence that says that nothing more comes.
const QUIET: Duration = Duration::from_millis(400);

/// The nodes of all cases. Needs root, and mounts of its own: see [`crate::live::isolated`].
#[derive(Default)]
pub(in crate::conformance) struct Wire {
    running: Option<Running>,
    /// What the agents were told.
    documents: BTreeMap<[String; 3], Value>,
}

struct Running {
    network: Network,
    tap: Tap,
    _agents: Vec<Agent>,
}

impl Testbed for Wire {
    fn enforce(&mut self, step: &State<'_>, _: bool) -> Result<()> {
        let wanted: BTreeMap<_, _> =
            step.documents.iter().map(|document| (key(document), document.clone())).collect();
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start(step)?),
        };
        running.network.arrange(step.cluster)?;
        running.tap.refresh()?;
        let gone = self.documents.iter().filter(|(key, _)| !wanted.contains_key(*key));
        tell("delete", gone.map(|(_, document)| document))?;
        self.documents.retain(|key, _| wanted.contains_key(key));
        let new = wanted.iter().filter(|(key, document)| self.documents.get(*key) != Some(document));
        tell("apply", new.map(|(_, document)| document))?;
        self.documents = wanted;
        Ok(())
    }

    fn open(&mut self, node: &str, protocol: Protocol, connections: &[Ends]) -> Result<Vec<Fate>> {
        let running = self.running()?;
        let Some(client) = connections.first() else { return Ok(Vec::new()) };
        if running.network.node(node)?.addresses.contains(&client.src) {
            let open = |ends| sockets::open(running, node, protocol, ends);
            return connections.iter().map(open).collect();
        }
        let client = running.client(node, client.src)?;
        let mut attempts: Vec<_> =
            connections.iter().map(|ends| Attempt::new(*ends, protocol, Kind::First)).collect();
        running.first(node, protocol, &client, &mut attempts)?;
        running.answer(protocol, &client, Kind::Answer, &mut attempts)?;
        for _ in 0..2 {
            running.again(node, protocol, &client, &mut attempts)?;
            running.answer(protocol, &client, Kind::Later, &mut attempts)?;
        }
        Ok(attempts.into_iter().map(Attempt::fate).collect())
    }

    fn go_on(&mut self, node: &str, protocol: Protocol, connection: &Ends) -> Result<Fate> {
        let running = self.running()?;
        let client = running.client(node, connection.src)?;
        let mut attempts = [Attempt::new(*connection, protocol, Kind::Later)];
        running.first(node, protocol, &client, &mut attempts)?;
        let [attempt] = attempts;
        Ok(attempt.fate())
    }

    fn health(&mut self, node: &str, service: &str, port: u16) -> Result<Option<(u16, usize)>> {
        let node = self.running()?.network.node(node)?;
        let address = *node.addresses.first().context("a node has an address")?;
        let connect = || Ok(TcpStream::connect_timeout(&SocketAddr::new(address, port), QUIET).ok());
        let Some(mut stream) = netns::within(&node.netns, connect)? else { return Ok(None) };
        stream.set_read_timeout(Some(QUIET))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).context("a status line")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
        let body: Value = serde_json::from_str(body).context("a body of JSON")?;
        let told = ["namespace", "name"].map(|field| body["service"][field].as_str().unwrap_or_default());
        ensure!(told.join("/") == service, "it answers for {}", told.join("/"));
        let count = body["localEndpoints"].as_u64().context("the number of local endpoints")?;
        Ok(Some((status, usize::try_from(count)?)))
    }
}

impl Wire {
    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("nothing is in force yet")
    }
}

impl Running {
    fn start(step: &State<'_>) -> Result<Self> {
        let nodes = step.documents.iter().filter(|document| document["kind"] == "Node");
        watched("nodes.yaml", &text(nodes));
        let network = Network::build(step.cluster)?;
        let start = |node: &network::Node| Agent::start(&node.name, &node.netns, &[]);
        let agents = network.nodes.iter().map(start).collect();
        Ok(Self { network, tap: Tap::open()?, _agents: agents })
    }

    /// Where a client is whose packets a node is to handle.
    fn client(&self, node: &str, address: IpAddr) -> Result<Place> {
        if let Some(end) = self.network.pod(node, address) {
            return Ok(Place { interface: end.name.clone(), mac: end.mac, next_hop: end.next_hop });
        }
        let next_hop = self.network.node(node)?.mac;
        Ok(Place { interface: WORLD.to_owned(), mac: WORLD_MAC, next_hop })
    }

    /// Sends first packets, and finds out what becomes of them.
    fn first(&self, node: &str, protocol: Protocol, client: &Place, attempts: &mut [Attempt]) -> Result<()> {
        let Some(Attempt { ends, .. }) = attempts.first() else { return Ok(()) };
        let to_itself = self.network.node(node)?.addresses.contains(&ends.dst);
        // A stack says in the same words that nobody listens for UDP, and that a service has no endpoint.
        let listener = (to_itself && protocol == Protocol::Udp)
            .then(|| {
                let to = SocketAddr::new(ends.dst, ends.dport);
                netns::within(&self.network.node(node)?.netns, || Ok(UdpSocket::bind(to)?))
            })
            .transpose()?;
        self.tap.flush()?;
        for attempt in attempts.iter() {
            self.send(client, &attempt.sent)?;
        }
        self.tap.listen(QUIET, |seen| {
            for attempt in attempts.iter_mut() {
                if attempt.hears(&self.network, client, protocol, to_itself, seen) {
                    break;
                }
            }
            Ok(progress(attempts.iter().map(|attempt| attempt.fate.is_some())))
        })?;
        if let Some(listener) = listener {
            listener.set_nonblocking(true)?;
            let mut number = [0; 4];
            while let Ok((4, from)) = listener.recv_from(&mut number) {
                let number = u32::from_be_bytes(number);
                let is_it = |attempt: &&mut Attempt| {
                    u32::from(attempt.ends.sport) == number && attempt.ends.src == from.ip()
                };
                if let Some(attempt) = attempts.iter_mut().find(is_it) {
                    attempt.fate = Some(Fate::Pass);
                }
            }
        }
        Ok(())
    }

    /// Lets backends answer; each answer has to come back to where the client sent to.
    fn answer(&self, protocol: Protocol, client: &Place, kind: Kind, attempts: &mut [Attempt]) -> Result<()> {
        let mut open: Vec<_> = attempts.iter_mut().filter(|attempt| attempt.there().is_some()).collect();
        for attempt in &mut open {
            let (Some(there), Some(server)) = (attempt.there(), &attempt.server) else { continue };
            self.send(server, &probe(&there.back(), protocol, kind, attempt.ends.sport))?;
            attempt.is_answered = false;
        }
        let all_are = |open: &[&mut Attempt]| progress(open.iter().map(|attempt| attempt.is_answered));
        if all_are(&open) == Heard::Last {
            return Ok(());
        }
        self.tap.listen(QUIET, |seen| {
            if seen.is_outgoing || seen.interface != client.interface || !is(&seen.frame, protocol) {
                return Ok(Heard::Noise);
            }
            let tuple = read_tuple(&seen.frame);
            if let Some(attempt) = open.iter_mut().find(|attempt| attempt.ends.back() == tuple) {
                attempt.is_answered = true;
                attempt.fate = attempt.fate.take().map(|fate| checked(&seen.frame, fate));
            }
            Ok(all_are(&open))
        })?;
        for attempt in open.into_iter().filter(|attempt| !attempt.is_answered) {
            attempt.fate = Some(Fate::Wrong(format!("the answer does not come back: {:?}", attempt.fate)));
        }
        Ok(())
    }

    /// Sends one packet more of each connection: it has to arrive where the first one did.
    fn again(&self, node: &str, protocol: Protocol, client: &Place, attempts: &mut [Attempt]) -> Result<()> {
        let open = attempts.iter_mut().filter(|attempt| attempt.there().is_some());
        let (mut open, mut again): (Vec<_>, Vec<_>) = open
            .map(|attempt| {
                let again = Attempt::new(attempt.ends, protocol, Kind::Later);
                (attempt, again)
            })
            .unzip();
        if again.is_empty() {
            return Ok(());
        }
        self.first(node, protocol, client, &mut again)?;
        for (attempt, again) in open.iter_mut().zip(again) {
            attempt.is_answered = again.is_answered;
            if (&attempt.fate, &attempt.server) != (&again.fate, &again.server) {
                attempt.fate = Some(Fate::Wrong(format!("first {:?}, then {:?}", attempt.fate, again.fate)));
            }
        }
        Ok(())
    }

    fn send(&self, from: &Place, frame: &[u8]) -> Result<()> {
        let frame = [&from.next_hop[..], &from.mac, &frame[12..]].concat();
        self.tap.send(&from.interface, &frame)
    }
}

/// `weir apply` or `weir delete` of these objects to every agent.
fn tell<'a>(command: &str, documents: impl Iterator<Item = &'a Value>) -> Result<()> {
    let text = text(documents);
    if !text.is_empty() {
        let answer = weir(&[command, "-f", &file("change.yaml", &text)]);
        ensure!(answer.status == 0, "weir {command} exits with {}: {}", answer.status, answer.err);
    }
    Ok(())
}
