//! How the connections to each service spread over its backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::task::JoinSet;
use weir::cluster::{Cluster, Name, Protocol, Service, ServicePort};
use xtask::style::Style;

use super::{
    model::Model,
    plan::{Plan, Pod},
    probe::Workers,
    worker::{Outcome, Worker},
};

/// Connections for each client and family.
const CONNECTIONS: usize = 30;
/// Length of a bar that stands for all connections.
const BAR: usize = 20;

/// A service port, and what became of its clients' connections.
#[derive(Debug)]
pub(crate) struct Spread {
    service: Name,
    port: u16,
    protocol: Protocol,
    /// One for each client and family.
    shares: Vec<Share>,
}

/// What became of the connections of one client in one family.
#[derive(Clone, Debug)]
struct Share {
    client: String,
    frontend: SocketAddr,
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
        self.shares.iter().flat_map(Share::faults).collect()
    }

    fn head(&self) -> String {
        format!("{} {}/{}", self.service, self.port, self.protocol)
    }
}

impl Share {
    fn faults(&self) -> Vec<String> {
        let reachable = || self.backends.iter().filter(|(_, allowed)| **allowed).map(|(name, _)| name);
        if self.silent == CONNECTIONS && reachable().next().is_some() {
            return vec![format!("from {} to {}: no answer at all", self.client, self.frontend)];
        }
        let mut faults = Vec::new();
        for name in self.answers.keys() {
            match self.backends.get(name) {
                None => faults.push(format!("{name} answered, which is no backend")),
                Some(false) => faults.push(format!("{name} answered, which policy denies")),
                Some(true) => {}
            }
        }
        for name in reachable().filter(|name| !self.answers.contains_key(*name)) {
            faults.push(format!("{name} never answered"));
        }
        if self.silent > 0 && self.backends.values().all(|&allowed| allowed) {
            faults.push(format!("{} of {CONNECTIONS} connections got no answer", self.silent));
        }
        faults.extend(self.refused.iter().map(|error| format!("refused: {error}")));
        faults
            .into_iter()
            .map(|fault| format!("from {} to {}: {fault}", self.client, self.frontend))
            .collect()
    }

    async fn measure(mut self, worker: Arc<Worker>, protocol: Protocol) -> Self {
        let mut running = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (worker, frontend) = (worker.clone(), self.frontend);
            running.spawn(async move { worker.probe(protocol, frontend).await });
        }
        for outcome in running.join_all().await {
            match outcome {
                Outcome::Answer(name) => *self.answers.entry(name).or_default() += 1,
                Outcome::Silence => self.silent += 1,
                Outcome::Refusal(error) => {
                    self.refused.insert(error);
                }
            }
        }
        self
    }
}

/// Connects to every service from a pod and from a node, in every family it has.
pub(crate) async fn measure(plan: &Plan, cluster: &Cluster, model: &Model, workers: &Workers) -> Vec<Spread> {
    let mut spreads = Vec::new();
    for service in cluster.services.values().filter(|service| !service.foreign) {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
            let mut running = JoinSet::new();
            for (share, netns) in clients(plan, model, service, port) {
                running.spawn(share.measure(workers[&netns].clone(), port.protocol));
            }
            let mut shares = running.join_all().await;
            shares.sort_by(|a, b| (&b.client, a.frontend).cmp(&(&a.client, b.frontend)));
            spreads.push(Spread {
                service: service.name.clone(),
                port: port.port,
                protocol: port.protocol,
                shares,
            });
        }
    }
    spreads.retain(|spread| !spread.shares.is_empty());
    spreads
}

/// Draws a bar for each backend and client, both families together.
pub(crate) fn draw(spreads: &[Spread], style: Style) -> String {
    let mut text = String::new();
    let names = spreads.iter().flat_map(|spread| &spread.shares).flat_map(|share| share.backends.keys());
    let heads = spreads.iter().map(|spread| spread.head().len());
    // A backend's line begins two columns further to the right than its service's.
    let width = names.map(|name| name.len() + 2).chain(heads).max().unwrap_or_default();
    for spread in spreads {
        let clients: BTreeSet<_> = spread.shares.iter().map(|share| share.client.as_str()).collect();
        let _ = write!(text, "  {}", style.bold(&format!("{:<width$}", spread.head())));
        // Pods before nodes.
        for client in clients.iter().rev() {
            let _ = write!(text, "  {:<1$}", format!("from {client}"), BAR + 6);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        let backends: BTreeSet<_> = spread.shares.iter().flat_map(|share| share.backends.keys()).collect();
        for backend in backends {
            let _ = write!(text, "    {backend:<0$}", width - 2);
            for client in clients.iter().rev() {
                let shares: Vec<_> = spread.shares.iter().filter(|share| share.client == *client).collect();
                text += &bar(&shares, backend, style);
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for fault in spread.faults() {
            let _ = writeln!(text, "    {}", style.alarm(&format!("! {fault}")));
        }
    }
    text
}

fn bar(shares: &[&Share], backend: &str, style: Style) -> String {
    let count: usize = shares.iter().filter_map(|share| share.answers.get(backend)).sum();
    let total = CONNECTIONS * shares.len().max(1);
    let denied = shares.iter().all(|share| share.backends.get(backend) == Some(&false));
    let (bar, paint): (String, fn(Style, &str) -> String) = if denied && count == 0 {
        ("denied by policy".to_owned(), Style::red)
    } else {
        ("#".repeat((count * BAR).div_ceil(total)), Style::green)
    };
    format!("  {count:>3} {}", paint(style, &format!("{bar:<0$}", BAR + 2)))
}

/// For each family: the pod that policy lets reach most backends, and the first node; each with its namespace.
fn clients(plan: &Plan, model: &Model, service: &Service, port: &ServicePort) -> Vec<(Share, String)> {
    let mut clients = Vec::new();
    for &address in &service.cluster_ips {
        let frontend = SocketAddr::new(address, port.port);
        let share = |client: String, own: &[IpAddr]| {
            let backends = backends(plan, model, own, frontend, port.protocol)?;
            Some(Share {
                client,
                frontend,
                backends,
                answers: BTreeMap::new(),
                silent: 0,
                refused: BTreeSet::new(),
            })
        };
        let pods = plan.pods.iter().filter(|pod| pod.interface.is_some());
        let pods = pods.filter_map(|pod| Some((pod, share(format!("pod {}", pod.name), &pod.addresses)?)));
        // Not itself a backend where that can be avoided. Of equals, `max_by_key` takes the last.
        let rank = |(pod, share): &(&Pod, Share)| {
            let reachable = share.backends.values().filter(|&&allowed| allowed).count();
            (reachable, !share.backends.contains_key(&pod.name.to_string()))
        };
        let pod = pods.collect::<Vec<_>>().into_iter().rev().max_by_key(rank);
        clients.extend(pod.map(|(pod, share)| (share, pod.netns.clone())));
        clients.extend(plan.nodes.first().and_then(|node| {
            Some((share(format!("node {}", node.name), &node.addresses)?, node.netns.clone()))
        }));
    }
    clients
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

#[cfg(test)]
mod tests {
    use super::*;

    fn share(client: &str, backends: &[(&str, bool)], answers: &[(&str, usize)]) -> Share {
        let answers: BTreeMap<_, _> =
            answers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Share {
            client: client.to_owned(),
            frontend: "10.96.0.1:80".parse().unwrap(),
            backends: backends.iter().map(|(name, allowed)| ((*name).to_owned(), *allowed)).collect(),
            silent: CONNECTIONS - answers.values().sum::<usize>(),
            answers,
            refused: BTreeSet::new(),
        }
    }

    fn spread(shares: &[Share]) -> Spread {
        let service = Name { namespace: "test".into(), name: "web".into() };
        Spread { service, port: 80, protocol: Protocol::Tcp, shares: shares.to_vec() }
    }

    #[test]
    fn connections_that_all_end_at_backends_are_right() {
        let share = share("pod a", &[("one", true), ("two", true)], &[("one", 10), ("two", 20)]);
        assert_eq!(spread(&[share]).faults(), [""; 0]);
    }

    #[test]
    fn silence_is_right_only_where_policy_denies_a_backend() {
        let denied = share("pod a", &[("one", true), ("two", false)], &[("one", 10)]);
        assert_eq!(spread(&[denied]).faults(), [""; 0]);
        let lost = share("pod a", &[("one", true)], &[("one", 29)]);
        assert_eq!(
            spread(&[lost]).faults(),
            ["from pod a to 10.96.0.1:80: 1 of 30 connections got no answer"]
        );
    }

    #[test]
    fn a_backend_that_is_denied_forgotten_or_none_is_a_fault() {
        let wrong = share("pod a", &[("one", false), ("two", true)], &[("one", 10), ("three", 10)]);
        assert_eq!(
            spread(&[wrong]).faults(),
            [
                "from pod a to 10.96.0.1:80: one answered, which policy denies",
                "from pod a to 10.96.0.1:80: three answered, which is no backend",
                "from pod a to 10.96.0.1:80: two never answered",
            ]
        );
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_of_both_families() {
        let pod = share("pod a", &[("one", true), ("two", true)], &[("one", 15), ("two", 15)]);
        let node = share("node n", &[("one", true), ("two", false)], &[("one", 15)]);
        let text = draw(&[spread(&[pod.clone(), pod, node])], Style::plain());
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "  test/web 80/TCP  from pod a                  from node n",
                "    one             30 ##########               15 ##########",
                "    two             30 ##########                0 denied by policy",
            ]
        );
    }
}
