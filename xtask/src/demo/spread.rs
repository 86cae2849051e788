//! How the connections to each service spread over its backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use tokio::task::JoinSet;
use weir::cluster::{Cluster, Name, Protocol, Service, ServicePort};

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
        for port in &service.ports {
            for &address in &service.cluster_ips {
                let backends = backends(plan, cluster, service, port, address.is_ipv6());
                if backends.is_empty() || port.protocol == Protocol::Sctp {
                    continue;
                }
                let frontend = SocketAddr::new(address, port.port);
                for client in clients(plan, model, &backends, port.protocol, address.is_ipv6()) {
                    let reachable = |(pod, target): &(&Pod, SocketAddr)| {
                        (pod.name.to_string(), model.allows(client.address, *target, port.protocol))
                    };
                    let mut spread = Spread {
                        service: service.name.clone(),
                        frontend,
                        protocol: port.protocol,
                        backends: backends.iter().map(reachable).collect(),
                        client: client.name,
                        answers: BTreeMap::new(),
                        silent: 0,
                        refused: BTreeSet::new(),
                    };
                    connect(&mut spread, workers, &client.netns).await;
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

struct Client {
    name: String,
    netns: String,
    address: IpAddr,
}

/// The pods that serve a service port, and where.
fn backends<'a>(
    plan: &'a Plan,
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    ipv6: bool,
) -> Vec<(&'a Pod, SocketAddr)> {
    let own = |slice: &&weir::cluster::EndpointSlice| {
        slice.name.namespace == service.name.namespace
            && slice.service.as_deref() == Some(&service.name.name)
            && slice.ipv6 == ipv6
    };
    let mut found = Vec::new();
    for slice in cluster.slices.values().filter(own) {
        let same = |p: &&weir::cluster::EndpointPort| p.name == port.name && p.protocol == port.protocol;
        let Some(number) = slice.ports.iter().find(same).and_then(|port| port.port) else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            if let Some(pod) = plan.pods.iter().find(|pod| pod.addresses.contains(&endpoint.address)) {
                found.push((pod, SocketAddr::new(endpoint.address, number)));
            }
        }
    }
    found
}

/// The pod that policy lets reach most backends, not one of them where that can be avoided; and the first node.
fn clients(
    plan: &Plan,
    model: &Model,
    backends: &[(&Pod, SocketAddr)],
    protocol: Protocol,
    ipv6: bool,
) -> Vec<Client> {
    let family = |addresses: &[IpAddr]| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
    let reaches = |address: IpAddr| {
        backends.iter().filter(|(_, target)| model.allows(address, *target, protocol)).count()
    };
    let pods = plan.pods.iter().filter(|pod| pod.interface.is_some());
    let pod = pods
        .filter_map(|pod| {
            let address = family(&pod.addresses)?;
            let is_backend = backends.iter().any(|(backend, _)| backend.name == pod.name);
            Some(((reaches(address), !is_backend), pod, address))
        })
        .rev()
        .max_by_key(|(rank, _, _)| *rank)
        .map(|(_, pod, address)| Client { name: format!("pod {}", pod.name), netns: pod.netns.clone(), address });
    let node = plan.nodes.first().and_then(|node| {
        let address = family(&node.addresses)?;
        Some(Client { name: format!("node {}", node.name), netns: node.netns.clone(), address })
    });
    pod.into_iter().chain(node).collect()
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
