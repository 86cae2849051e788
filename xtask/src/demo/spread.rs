//! How the connections to each service spread over its backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use tokio::task::JoinSet;
use weir::cluster::{Cluster, Name, Protocol, ServicePort};

use super::{
    model::Model,
    plan::{Plan, Pod},
    probe::Workers,
    style::Style,
    worker::Outcome,
};

/// Connections for each client.
const CONNECTIONS: usize = 60;
/// Length of a bar that stands for all of them.
const BAR: usize = 40;

/// A client of a service, and what its connections came to.
#[derive(Debug)]
pub(crate) struct Spread {
    service: Name,
    frontend: SocketAddr,
    protocol: Protocol,
    client: String,
    /// The pods behind the service, and whether policy lets this client reach them.
    backends: BTreeMap<String, bool>,
    /// How often each server answered.
    answers: BTreeMap<String, usize>,
    /// Connections that no server answered.
    silent: usize,
    /// What answered without being a server.
    refused: BTreeSet<String>,
}

impl Spread {
    /// What must never be seen.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for name in self.answers.keys() {
            match self.backends.get(name) {
                None => faults.push(format!("{name} answered, which is no backend")),
                Some(false) => faults.push(format!("{name} answered, which policy denies")),
                Some(true) => {}
            }
        }
        let reachable = self.backends.iter().filter(|(_, allowed)| **allowed);
        for (name, _) in reachable.filter(|(name, _)| !self.answers.contains_key(*name)) {
            faults.push(format!("{name} never answered"));
        }
        if self.silent > 0 && self.backends.values().all(|&allowed| allowed) {
            faults.push(format!("{} connections got no answer", self.silent));
        }
        faults.extend(self.refused.iter().map(|error| format!("refused: {error}")));
        faults
    }
}

/// Connects to every service from a pod and from a node.
pub(crate) async fn measure(plan: &Plan, cluster: &Cluster, model: &Model, workers: &Workers) -> Vec<Spread> {
    let mut spreads = Vec::new();
    for service in cluster.services.values().filter(|service| !service.foreign) {
        let probed = |port: &&ServicePort| port.protocol != Protocol::Sctp;
        for port in service.ports.iter().filter(probed) {
            for &address in &service.cluster_ips {
                let frontend = SocketAddr::new(address, port.port);
                let pod = best_pod(plan, model, frontend, port.protocol);
                for client in pod.into_iter().chain(first_node(plan, model, frontend, port.protocol)) {
                    let mut spread = Spread {
                        service: service.name.clone(),
                        frontend,
                        protocol: port.protocol,
                        backends: client.backends,
                        client: client.name,
                        answers: BTreeMap::new(),
                        silent: 0,
                        refused: BTreeSet::new(),
                    };
                    connect(&mut spread, workers, client.netns).await;
                    spreads.push(spread);
                }
            }
        }
    }
    spreads
}

/// Draws a bar for each backend.
pub(crate) fn draw(spreads: &[Spread], style: Style) -> String {
    let mut text = String::new();
    for spread in spreads {
        let Spread { service, frontend, protocol, client, .. } = spread;
        let _ = writeln!(text, "  {} {frontend}/{protocol} from {client}", style.bold(&service.to_string()));
        let width = spread.backends.keys().map(String::len).max().unwrap_or_default();
        for (name, &allowed) in &spread.backends {
            let count = spread.answers.get(name).copied().unwrap_or_default();
            let bar = "#".repeat((count * BAR).div_ceil(CONNECTIONS));
            let note = if allowed { String::new() } else { style.red("denied by policy") };
            let _ = writeln!(text, "    {name:width$} {count:>4} {}{note}", style.green(&bar));
        }
        for fault in spread.faults() {
            let _ = writeln!(text, "    {}", style.alarm(&format!("! {fault}")));
        }
    }
    text
}

/// Who asks a service.
struct Client<'a> {
    name: String,
    netns: &'a str,
    backends: BTreeMap<String, bool>,
}

/// The first of the pods that policy lets reach most backends, not itself one of them where that can be avoided.
fn best_pod<'a>(
    plan: &'a Plan,
    model: &Model,
    frontend: SocketAddr,
    protocol: Protocol,
) -> Option<Client<'a>> {
    let pods = plan.pods.iter().filter(|pod| pod.interface.is_some());
    let clients = pods.filter_map(|pod| {
        let backends = backends(plan, model, &pod.addresses, frontend, protocol)?;
        Some((pod, Client { name: format!("pod {}", pod.name), netns: &pod.netns, backends }))
    });
    let rank = |(pod, client): &(&Pod, Client<'_>)| {
        let reachable = client.backends.values().filter(|&&allowed| allowed).count();
        (reachable, !client.backends.contains_key(&pod.name.to_string()))
    };
    // Of equals, `max_by_key` takes the last.
    clients.collect::<Vec<_>>().into_iter().rev().max_by_key(rank).map(|(_, client)| client)
}

fn first_node<'a>(
    plan: &'a Plan,
    model: &Model,
    frontend: SocketAddr,
    protocol: Protocol,
) -> Option<Client<'a>> {
    let node = plan.nodes.first()?;
    let backends = backends(plan, model, &node.addresses, frontend, protocol)?;
    Some(Client { name: format!("node {}", node.name), netns: &node.netns, backends })
}

/// The pods behind a frontend as a client sees them, and whether policy lets it; `None` when there are none.
fn backends(
    plan: &Plan,
    model: &Model,
    client: &[IpAddr],
    frontend: SocketAddr,
    protocol: Protocol,
) -> Option<BTreeMap<String, bool>> {
    let own = client.iter().find(|address| address.is_ipv6() == frontend.is_ipv6())?;
    let name = |(backend, allowed): (SocketAddr, bool)| {
        let pod = plan.pods.iter().find(|pod| pod.addresses.contains(&backend.ip()));
        (pod.map_or_else(|| backend.to_string(), |pod| pod.name.to_string()), allowed)
    };
    let backends: BTreeMap<_, _> = model.backends(*own, frontend, protocol).into_iter().map(name).collect();
    (!backends.is_empty()).then_some(backends)
}

async fn connect(spread: &mut Spread, workers: &Workers, netns: &str) {
    let mut running = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (worker, protocol, frontend) = (workers[netns].clone(), spread.protocol, spread.frontend);
        running.spawn(async move { worker.probe(protocol, frontend).await });
    }
    for outcome in running.join_all().await {
        match outcome {
            Outcome::Answer(name) => *spread.answers.entry(name).or_default() += 1,
            Outcome::Silence => spread.silent += 1,
            Outcome::Refusal(error) => {
                spread.refused.insert(error);
            }
        }
    }
}
