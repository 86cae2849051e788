//! Services from outside: by which node each connection comes in, which backend answers, and whom that sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use tokio::task::JoinSet;
use weir::{
    cluster::{Cluster, Forwarding, Name, Protocol, Service},
    protocol::Connection,
};

use super::{
    agents::Agents,
    model::{Model, Way},
    outside::CLIENT,
    plan::Plan,
    worker::{Outcome, Reply, Worker},
};

/// Connections to each address.
const CONNECTIONS: usize = 30;

/// A service port, and what became of connections from outside.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(super) service: Name,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) forwarding: Option<Forwarding>,
    /// One for each address.
    pub(super) doors: Vec<Door>,
}

/// What became of the connections to one address.
#[derive(Debug)]
pub(crate) struct Door {
    pub(super) frontend: SocketAddr,
    /// What is right: by node and backend, whom the backend sees and whether policy lets the connection in.
    pub(super) ways: BTreeMap<(String, String), (IpAddr, bool)>,
    pub(super) visits: Vec<Visit>,
    /// Connections that nobody answered.
    pub(super) silent: usize,
    /// What answered without being a server.
    pub(super) refused: BTreeSet<String>,
}

/// A connection that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// The node that took it.
    pub(super) node: String,
    /// Who answered.
    pub(super) backend: String,
    /// Whom that saw.
    pub(super) source: IpAddr,
}

/// The addresses of services for the outside.
pub(crate) fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    cluster.services.values().filter(|service| !service.foreign).flat_map(|service| own(service)).collect()
}

/// Connects to every service that has an address for the outside.
pub(crate) async fn measure(
    plan: &Plan,
    cluster: &Cluster,
    model: &Model,
    agents: &Agents,
    client: &Arc<Worker>,
) -> Result<Vec<Entrance>> {
    let mut entrances = Vec::new();
    for service in cluster.services.values().filter(|service| !service.foreign) {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
            let mut doors = Vec::new();
            for address in own(service) {
                let frontend = SocketAddr::new(address, port.port);
                let ways = ways(plan, model, frontend, port.protocol);
                if !ways.is_empty() {
                    doors.push(knock(plan, service, frontend, port.protocol, ways, agents, client).await?);
                }
            }
            if !doors.is_empty() {
                entrances.push(Entrance {
                    service: service.name.clone(),
                    port: port.port,
                    protocol: port.protocol,
                    forwarding: service.forwarding,
                    doors,
                });
            }
        }
    }
    Ok(entrances)
}

impl Entrance {
    /// What must never be seen.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.doors.iter().flat_map(Door::faults).collect()
    }
}

impl Door {
    fn faults(&self) -> Vec<String> {
        let mut faults = BTreeSet::new();
        for Visit { node, backend, source } in &self.visits {
            match self.ways.get(&(node.clone(), backend.clone())) {
                None => drop(faults.insert(format!("{backend} answered by {node}, which is no way there"))),
                Some((_, false)) => drop(faults.insert(format!("{backend} answered, which policy denies"))),
                Some((right, true)) if right != source => {
                    faults.insert(format!("{backend} saw {source} by {node}, not {right}"));
                }
                Some(_) => {}
            }
        }
        let open = || self.ways.iter().filter(|(_, (_, allowed))| *allowed).map(|(way, _)| way);
        for node in open().map(|(node, _)| node).collect::<BTreeSet<_>>() {
            if !self.visits.iter().any(|visit| visit.node == *node) {
                faults.insert(format!("{node} took no connection"));
            }
        }
        for backend in open().map(|(_, backend)| backend).collect::<BTreeSet<_>>() {
            if !self.visits.iter().any(|visit| visit.backend == *backend) {
                faults.insert(format!("{backend} never answered"));
            }
        }
        if self.silent > 0 && self.ways.values().all(|(_, allowed)| *allowed) {
            faults.insert(format!("{} of {CONNECTIONS} connections got no answer", self.silent));
        }
        faults.extend(self.refused.iter().map(|error| format!("refused: {error}")));
        faults.into_iter().map(|fault| format!("from outside to {}: {fault}", self.frontend)).collect()
    }
}

/// A service's own addresses for the outside.
fn own(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.load_balancer_ips.iter().chain(&service.external_ips).copied()
}

/// Opens connections to an address, and asks the nodes which of them took each.
async fn knock(
    plan: &Plan,
    service: &Service,
    frontend: SocketAddr,
    protocol: Protocol,
    ways: BTreeMap<(String, String), (IpAddr, bool)>,
    agents: &Agents,
    client: &Arc<Worker>,
) -> Result<Door> {
    let mut running = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = client.clone();
        running.spawn(async move { client.ask(protocol, frontend).await });
    }
    let (mut replies, mut silent, mut refused) = (Vec::new(), 0, BTreeSet::new());
    for outcome in running.join_all().await {
        match outcome {
            Ok(reply) => replies.push(reply),
            Err(Outcome::Silence) => silent += 1,
            Err(Outcome::Refusal(error) | Outcome::Answer(error)) => drop(refused.insert(error)),
        }
    }
    let live = agents.connections(&service.name)?;
    let visit = |reply: Reply| Visit {
        node: taker(plan, &live, &reply, frontend, protocol).unwrap_or("no node that knows it").to_owned(),
        backend: reply.server,
        source: reply.client,
    };
    Ok(Door { frontend, ways, visits: replies.into_iter().map(visit).collect(), silent, refused })
}

/// The node that took a connection: of those that know it the one that is not the backend's, which knows it too when
/// it comes there through a tunnel.
fn taker<'a>(
    plan: &Plan,
    live: &'a [Connection],
    reply: &Reply,
    frontend: SocketAddr,
    protocol: Protocol,
) -> Option<&'a str> {
    let this = live.iter().find(|connection| {
        connection.protocol == protocol.name()
            && connection.client.port == reply.port
            && SocketAddr::new(connection.frontend.address, connection.frontend.port) == frontend
    })?;
    let home = plan.pods.iter().find(|pod| pod.name.to_string() == reply.server);
    let home = home.map(|pod| plan.nodes[pod.node].name.as_str());
    let away = this.nodes.iter().find(|node| Some(node.as_str()) != home);
    away.or(this.nodes.first()).map(String::as_str)
}

/// Every way that a connection may take to a backend, by the names of node and backend.
fn ways(
    plan: &Plan,
    model: &Model,
    frontend: SocketAddr,
    protocol: Protocol,
) -> BTreeMap<(String, String), (IpAddr, bool)> {
    let mut ways = BTreeMap::new();
    let client = CLIENT[usize::from(frontend.is_ipv6())];
    for (number, node) in plan.nodes.iter().enumerate() {
        let Some(own) = node.addresses.iter().find(|own| own.is_ipv6() == frontend.is_ipv6()) else {
            continue;
        };
        for Way { backend, source, allowed } in model.ways(number, *own, client, frontend, protocol) {
            let pod = plan.pods.iter().find(|pod| pod.addresses.contains(&backend.ip()));
            let name = pod.map_or_else(|| backend.to_string(), |pod| pod.name.to_string());
            ways.insert((node.name.clone(), name), (source, allowed));
        }
    }
    ways
}
