//! Service cases: [`run`] has every packet answered by the compiled datapath's own model, `run_on` sends packets.

mod case;
mod documents;
mod fabric;
mod hop;
mod node;
mod testbed;
#[cfg(test)]
mod tests;
mod traffic;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use weir::{
    cluster::Cluster,
    datapath::{
        Backend, Frontend,
        services::{Choice, Outcome, Packet, Verdict},
    },
};

use self::{
    case::{Case, Others},
    node::NodeModel,
};
pub(in crate::conformance) use self::{fabric::Fabric, traffic::run_on, wire::Wire};

/// What a case came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of expectations.
    pub checks: usize,
    /// Those that were not met, in words.
    pub failures: Vec<String>,
    /// Fields of the case that nothing was done with.
    pub unknown: BTreeSet<String>,
}

impl Report {
    fn note(&mut self, subject: &str, result: Result<(), String>, others: &Others) {
        // Prose, and what other implementations or other levels do.
        const NO_EXPECTATION: [&str; 3] = ["note", "alt", "kernel"];
        self.checks += 1;
        self.failures.extend(result.err().map(|failure| format!("{subject}: {failure}")));
        let unknown = others.keys().filter(|key| !NO_EXPECTATION.contains(&key.as_str()));
        self.unknown.extend(unknown.cloned());
    }
}

/// Runs the case in this directory.
pub fn run(directory: &Path) -> anyhow::Result<Report> {
    let expect = std::fs::read(directory.join("expect.json")).context("expect.json")?;
    run_case(directory, &serde_json::from_slice(&expect).context("expect.json")?)
}

fn run_case(directory: &Path, case: &Case) -> anyhow::Result<Report> {
    let mut runner = Runner::default();
    for (number, step) in case.steps.iter().enumerate() {
        let cluster = cluster(&directory.join(&step.cluster), &case.config)?;
        runner.step = format!("step {number} ({})", step.title);
        runner.open_flows(&step.flows);
        runner.nodes.retain(|name, _| cluster.nodes.contains_key(&**name));
        for name in cluster.nodes.keys() {
            runner.nodes.entry(name.to_string()).or_default().apply(&cluster, name)?;
        }
        runner.run(step)?;
    }
    Ok(runner.report)
}

/// The cluster of a step, with the case's configuration.
fn cluster(manifest: &Path, config: &case::Config) -> anyhow::Result<Cluster> {
    let mut cluster = super::load(manifest)?;
    cluster.config.pod_cidrs.clone_from(&config.cluster_cidrs);
    cluster.config.service_cidrs.clone_from(&config.service_cidrs);
    cluster.config.masquerade_all = config.masquerade_all;
    // The cases are kube-proxy's.
    cluster.config.keep_gone = true;
    cluster.config.pods_unknown = !config.detect_local;
    cluster.config.node_port_addresses = match &config.node_port_addresses {
        case::NodePortAddresses::Primary(_) => None,
        case::NodePortAddresses::Blocks(blocks) => Some(blocks.clone()),
    };
    for (name, addresses) in &config.local_addresses {
        let node =
            cluster.nodes.get_mut(&**name).with_context(|| format!("localAddresses: no node {name}"))?;
        node.addresses.extend(addresses);
    }
    Ok(cluster)
}

/// The nodes of a case, and what was found out.
#[derive(Default)]
struct Runner {
    nodes: BTreeMap<String, NodeModel>,
    step: String,
    report: Report,
}

impl Runner {
    fn run(&mut self, step: &case::Step) -> anyhow::Result<()> {
        for expected in &step.packets {
            let subject = format!(
                "{}: {}: {} to {} port {} {:?}",
                self.step, expected.node, expected.from, expected.to, expected.port, expected.protocol
            );
            let node = node(&mut self.nodes, &expected.node)?;
            let result = check_packet(node, expected);
            self.report.note(&subject, result, &expected.others);
        }
        for flow in &step.flows {
            let subject = format!("{}: flow {} to {}", self.step, flow.from, flow.to);
            let result = check_flow(node(&mut self.nodes, &flow.node)?, flow);
            self.report.note(&subject, result, &flow.others);
        }
        for health in &step.healthz {
            let subject = format!("{}: {}: health check of {}", self.step, health.node, health.service);
            let result = check_health(node(&mut self.nodes, &health.node)?, health);
            self.report.note(&subject, result, &health.others);
        }
        Ok(())
    }

    /// Opens the flows that the next step asks about, while the step before is in force.
    fn open_flows(&mut self, flows: &[case::Flow]) {
        for flow in flows {
            let opened = self
                .nodes
                .get_mut(&flow.node)
                .is_some_and(|node| node.open(&packet_of(flow), &flow.established_with));
            let result = if opened { Ok(()) } else { Err("cannot be opened in the step before".to_owned()) };
            self.report.note(
                &format!("{}: flow {} to {}", self.step, flow.from, flow.to),
                result,
                &Others::new(),
            );
        }
    }
}

fn node<'a>(nodes: &'a mut BTreeMap<String, NodeModel>, name: &str) -> anyhow::Result<&'a mut NodeModel> {
    nodes.get_mut(name).with_context(|| format!("no node {name}"))
}

fn check_packet(node: &mut NodeModel, expected: &case::Packet) -> Result<(), String> {
    let to = Frontend { address: expected.to, port: expected.port, protocol: expected.protocol.number() };
    let packet = Packet { from: expected.from, sport: 0, to };
    let verdict = node.datapath.serve(&packet);
    let found = match &verdict {
        Verdict::Dnat(_) => case::Verdict::Dnat,
        Verdict::Reject => case::Verdict::Reject,
        Verdict::Drop => case::Verdict::Drop,
        Verdict::Pass => case::Verdict::Pass,
    };
    equal("verdict", &expected.expect, &found)?;
    if let Some(answer) = &expected.reject_with {
        let unreachable =
            if packet.from.is_ipv6() { "icmp6-port-unreachable" } else { "icmp-port-unreachable" };
        equal("answer", answer.as_str(), unreachable)?;
    }
    if let Verdict::Dnat(choice) = &verdict {
        check_choice(choice, expected)?;
        check_connections(node, &packet, expected)?;
    }
    Ok(())
}

/// The backends without regard to history, and for which of them the source is rewritten.
fn check_choice(choice: &Choice<'_>, expected: &case::Packet) -> Result<(), String> {
    let expected_backends: BTreeSet<_> = expected.backends.iter().map(String::as_str).collect();
    let found: BTreeMap<_, _> =
        choice.ring.backends().iter().map(|backend| (text(*backend), *backend)).collect();
    if !expected.needs_state {
        equal("backends", &expected_backends, &found.keys().map(String::as_str).collect())?;
    }
    for name in &expected.backends {
        let Some(backend) = found.get(name) else { return Err(format!("{name} is not among the backends")) };
        if let Some(snat) = expected.snat_by_backend.get(name).copied().or(expected.snat) {
            equal(&format!("masquerade to {name}"), &snat, &choice.masquerades(*backend))?;
        }
    }
    match expected.distribution.as_deref() {
        None => {}
        Some("uniform") => {
            let slots = |backend| choice.ring.iter().filter(|slot| *slot == backend).count();
            let shares: BTreeSet<_> = choice.ring.backends().iter().map(|backend| slots(*backend)).collect();
            let (least, most) = (shares.first().copied(), shares.last().copied());
            if most > least.map(|least| least + 1) {
                return Err(format!("backends have between {least:?} and {most:?} slots"));
            }
        }
        Some(other) => return Err(format!("unknown distribution {other}")),
    }
    if let Some(timeout) = expected.sticky_timeout_s {
        equal("affinity timeout", &Some(timeout), &choice.service.affinity)?;
    }
    Ok(())
}

/// Where connections go that the node remembers.
fn check_connections(node: &mut NodeModel, packet: &Packet, expected: &case::Packet) -> Result<(), String> {
    const CONNECTIONS: usize = 32;
    let soon = Duration::from_millis(1);
    let seen = node.connect(packet, CONNECTIONS, soon);
    let stray = seen.iter().find(|outcome| !expected.backends.contains(&describe(**outcome)));
    if let Some(stray) = stray {
        return Err(format!("a connection went to {}", describe(*stray)));
    }
    if expected.sticky {
        equal("backends of one client", &1, &seen.len())?;
    }
    if let Some(timeout) = expected.sticky_timeout_s {
        let idle = Duration::from_secs(timeout.into());
        equal("backends just before the timeout", &1, &node.connect(packet, CONNECTIONS, idle - soon).len())?;
        if expected.backends.len() > 1 && node.connect(packet, CONNECTIONS, idle).len() == 1 {
            return Err("the client stays with its backend after the timeout".to_owned());
        }
    }
    Ok(())
}

fn check_flow(node: &mut NodeModel, flow: &case::Flow) -> Result<(), String> {
    let outcome = describe(node.next(&packet_of(flow)));
    let allowed = flow.after.as_deref().unwrap_or_default();
    let ends = allowed.is_empty() && outcome.parse::<SocketAddr>().is_err();
    if ends || allowed.contains(&outcome) {
        Ok(())
    } else {
        Err(format!("goes to {outcome}, expected {allowed:?}"))
    }
}

fn check_health(node: &NodeModel, health: &case::Health) -> Result<(), String> {
    let check = node.datapath.health_checks.get(&health.port);
    let check = check.filter(|check| check.service.to_string() == health.service);
    equal("status", &health.status, &check.map(|check| if check.local_endpoints > 0 { 200 } else { 503 }))?;
    match health.local_endpoints {
        Some(count) => equal("local endpoints", &Some(count), &check.map(|check| check.local_endpoints)),
        None => Ok(()),
    }
}

fn packet_of(flow: &case::Flow) -> Packet {
    let to = Frontend { address: flow.to, port: flow.port, protocol: flow.protocol.number() };
    Packet { from: flow.from, sport: flow.sport, to }
}

fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

fn text(backend: Backend) -> String {
    SocketAddr::new(backend.address, backend.port).to_string()
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Backend(backend) => text(backend),
        Outcome::Reject => "reject".to_owned(),
        Outcome::Reset => "reset".to_owned(),
        Outcome::Drop => "drop".to_owned(),
        Outcome::Pass => "pass".to_owned(),
    }
}
