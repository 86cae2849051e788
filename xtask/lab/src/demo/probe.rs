//! Probes every pair of pods on every port, and compares with what the policies say.

use std::net::{IpAddr, SocketAddr};

use tokio::task::JoinSet;
use weir::cluster::Protocol;

use super::{
    model::Model,
    plan::{Plan, Pod},
    worker::{Outcome, Worker},
};
use std::{collections::BTreeMap, sync::Arc};

/// The workers by network namespace.
pub(crate) type Workers = BTreeMap<String, Arc<Worker>>;

/// One connection between two pods.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// Number of the client in [`Plan::pods`].
    pub(crate) from: usize,
    /// Number of the server.
    pub(crate) to: usize,
    /// The server's protocol.
    pub(crate) protocol: Protocol,
    /// The server's address and port.
    pub(crate) target: SocketAddr,
    /// Whether the policies allow it.
    pub(crate) expected: bool,
}

/// A probe and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    /// The probe.
    pub(crate) probe: Probe,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Whether the right server answered.
    pub(crate) reached: bool,
}

impl Observation {
    /// Whether this must never be seen: what is allowed is answered by the pod that was asked, what is denied
    /// is silent.
    pub(crate) fn is_mismatch(&self) -> bool {
        if self.probe.expected { !self.reached } else { self.outcome != Outcome::Silence }
    }
}

/// Every pair of pods with addresses of their own, in both families.
pub(crate) fn every_pair(plan: &Plan, model: &Model) -> Vec<Probe> {
    let mut probes = Vec::new();
    let networked = || plan.pods.iter().enumerate().filter(|(_, pod)| pod.interface.is_some());
    for (from, client) in networked() {
        for (to, server) in networked().filter(|(to, _)| *to != from) {
            for (own, address) in common_families(client, server) {
                for &(protocol, port) in &server.ports {
                    let target = SocketAddr::new(address, port);
                    let expected = model.allows(own, target, protocol);
                    probes.push(Probe { from, to, protocol, target, expected });
                }
            }
        }
    }
    probes
}

/// Runs probes, all clients at the same time.
pub(crate) async fn run(plan: &Plan, workers: &Workers, probes: Vec<Probe>) -> Vec<Observation> {
    let mut running = JoinSet::new();
    for probe in probes {
        let worker = workers[&plan.pods[probe.from].netns].clone();
        let server = plan.pods[probe.to].name.to_string();
        running.spawn(async move {
            let outcome = worker.probe(probe.protocol, probe.target).await;
            let reached = outcome == Outcome::Answer(server);
            Observation { probe, outcome, reached }
        });
    }
    let mut observations = running.join_all().await;
    observations.sort_by_key(|seen| (seen.probe.from, seen.probe.to, seen.probe.protocol, seen.probe.target));
    observations
}

/// For each family that both have: the client's address and the server's.
fn common_families(client: &Pod, server: &Pod) -> Vec<(IpAddr, IpAddr)> {
    let own = |address: &IpAddr| client.addresses.iter().find(|own| own.is_ipv6() == address.is_ipv6());
    server.addresses.iter().filter_map(|address| Some((*own(address)?, *address))).collect()
}
