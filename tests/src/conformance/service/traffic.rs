//! Runs a case with packets: every expectation is compared with what becomes of connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use weir::cluster::Cluster;
use weir_common::policy::Protocol;

use super::{
    Report,
    case::{self, Case, Others},
    documents,
    testbed::{Fate, State, Testbed},
};
use crate::packets::Ends;

/// Connections that one expectation is tried with: so many that each of a few backends gets some.
const CONNECTIONS: usize = 48;
/// Connections that shares are measured with.
const MANY: usize = 600;
/// How often a client comes back after its affinity has lapsed, until it gets another backend.
const RETURNS: usize = 12;
/// How far a clock may be off.
const MARGIN: Duration = Duration::from_millis(500);

/// Runs the case in this directory on `bed`.
pub(in crate::conformance) fn run_on(bed: &mut dyn Testbed, directory: &Path) -> anyhow::Result<Report> {
    let expect = std::fs::read(directory.join("expect.json")).context("expect.json")?;
    let case: Case = serde_json::from_slice(&expect).context("expect.json")?;
    let mut runner = Runner { bed, cluster: Cluster::default(), report: Report::default() };
    let mut documents = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let name = format!("step {number} ({})", step.title);
        runner.open_flows(&name, &step.flows)?;
        let before = documents;
        documents = documents::read(&directory.join(&step.cluster), &case.config)?;
        documents::keep_servers(&mut documents, before, &step.flows);
        runner.cluster = documents::cluster(&documents)?;
        runner.cluster.config.pods_unknown = !case.config.detect_local;
        let state = State { cluster: &runner.cluster, documents: &documents };
        runner.bed.enforce(&state, number == 0).context(name.clone())?;
        runner.run(&name, step)?;
    }
    Ok(runner.report)
}

struct Runner<'a> {
    bed: &'a mut dyn Testbed,
    cluster: Cluster,
    report: Report,
}

impl Runner<'_> {
    fn run(&mut self, name: &str, step: &case::Step) -> anyhow::Result<()> {
        for expected in &step.packets {
            let subject = format!(
                "{name}: {}: {} to {} port {} {:?}",
                expected.node, expected.from, expected.to, expected.port, expected.protocol
            );
            let result = self.packet(expected).context(subject.clone())?;
            self.report.note(&subject, result, &expected.others);
        }
        for flow in &step.flows {
            let subject = format!("{name}: flow {} to {}", flow.from, flow.to);
            let fate = self.bed.go_on(&flow.node, protocol(flow.protocol), &ends_of(flow))?;
            self.report.note(&subject, check_flow(&fate, flow), &flow.others);
        }
        for health in &step.healthz {
            let subject = format!("{name}: {}: health check of {}", health.node, health.service);
            let answer = self.bed.health(&health.node, &health.service, health.port)?;
            self.report.note(&subject, check_health(answer, health), &health.others);
        }
        Ok(())
    }

    /// Opens the flows that the next step asks about, while the step before is in force.
    fn open_flows(&mut self, name: &str, flows: &[case::Flow]) -> anyhow::Result<()> {
        for flow in flows {
            let fates = self.bed.open(&flow.node, protocol(flow.protocol), &[ends_of(flow)])?;
            let result = match &fates[..] {
                [Fate::Dnat { backend, .. }] if backend.to_string() == flow.established_with => Ok(()),
                other => Err(format!("in the step before it opens as {other:?}")),
            };
            self.report.note(&format!("{name}: flow {} to {}", flow.from, flow.to), result, &Others::new());
        }
        Ok(())
    }

    fn packet(&mut self, expected: &case::Packet) -> anyhow::Result<Result<(), String>> {
        let count = match (expected.expect, &expected.distribution) {
            (case::Verdict::Dnat, None) => CONNECTIONS,
            (case::Verdict::Dnat, Some(_)) => MANY,
            _ => 3,
        };
        let used = match self.connect(expected, count)? {
            Ok(used) => used,
            Err(failure) => return Ok(Err(failure)),
        };
        if expected.expect != case::Verdict::Dnat {
            return Ok(Ok(()));
        }
        if expected.sticky {
            return self.stays(expected, &used);
        }
        Ok(check_backends(expected, &used))
    }

    /// Opens connections, and compares what becomes of each with what is expected of all. Gives the number of
    /// connections by backend.
    fn connect(&mut self, expected: &case::Packet, count: usize) -> anyhow::Result<Result<Used, String>> {
        let (from, to) = (expected.from.to_string(), expected.to.to_string());
        let connections: Vec<_> = (0..count).map(|_| Ends::new(&from, &to, expected.port)).collect();
        let fates = self.bed.open(&expected.node, protocol(expected.protocol), &connections)?;
        let mut used = Used::new();
        for (ends, fate) in connections.iter().zip(fates) {
            if let Err(failure) = self.check(expected, ends, &fate) {
                return Ok(Err(format!("port {}: {failure}", ends.sport)));
            }
            if let Fate::Dnat { backend, .. } = fate {
                *used.entry(backend.to_string()).or_default() += 1;
            }
        }
        Ok(Ok(used))
    }

    fn check(&self, expected: &case::Packet, ends: &Ends, fate: &Fate) -> Result<(), String> {
        let is_expected = matches!(
            (fate, expected.expect),
            (Fate::Dnat { .. }, case::Verdict::Dnat)
                | (Fate::Reject, case::Verdict::Reject)
                | (Fate::Drop(_), case::Verdict::Drop)
                | (Fate::Pass, case::Verdict::Pass)
        );
        if !is_expected {
            return Err(format!("expected {:?}, found {fate:?}", expected.expect));
        }
        let Fate::Dnat { backend, source } = fate else { return Ok(()) };
        let name = backend.to_string();
        if !expected.backends.contains(&name) {
            return Err(format!("goes to {name}"));
        }
        let Some(snat) = expected.snat_by_backend.get(&name).copied().or(expected.snat) else {
            return Ok(());
        };
        let address = if snat { self.node_address(&expected.node, &ends.src)? } else { ends.src };
        if source.ip() != address {
            return Err(format!("arrives at {name} from {source} instead of {address}"));
        }
        if !snat && source.port() != ends.sport {
            return Err(format!("arrives at {name} from port {} instead of {}", source.port(), ends.sport));
        }
        Ok(())
    }

    /// The address that a node masquerades with.
    fn node_address(&self, node: &str, like: &IpAddr) -> Result<IpAddr, String> {
        let mut addresses = self.cluster.nodes.get(node).into_iter().flat_map(|node| &node.addresses);
        let address = addresses.find(|address| address.is_ipv4() == like.is_ipv4());
        address.copied().ok_or_else(|| format!("{node} has no address to masquerade with"))
    }

    /// A client stays with one backend for as long as the case says.
    fn stays(&mut self, expected: &case::Packet, used: &Used) -> anyhow::Result<Result<(), String>> {
        if used.len() != 1 {
            return Ok(Err(format!("one client went to {used:?}")));
        }
        let Some(timeout) = expected.sticky_timeout_s else { return Ok(Ok(())) };
        anyhow::ensure!(timeout <= 5, "nobody waits for {timeout} s");
        let timeout = Duration::from_secs(timeout.into());
        // Twice, for a new connection begins the time anew.
        for _ in 0..2 {
            thread::sleep(timeout - MARGIN);
            let now = self.connect(expected, 1)?;
            if now.as_ref().map(Used::keys).ok().is_none_or(|keys| !keys.eq(used.keys())) {
                return Ok(Err(format!("from {used:?} to {now:?} before the timeout")));
            }
        }
        for _ in 0..RETURNS {
            thread::sleep(timeout + MARGIN);
            match self.connect(expected, 1)? {
                Ok(now) if now.keys().eq(used.keys()) => {}
                other => return Ok(other.map(drop)),
            }
        }
        let left = expected.backends.len() > 1;
        Ok(if left { Err("the client stays with its backend after the timeout".to_owned()) } else { Ok(()) })
    }
}

/// Number of connections by backend.
type Used = BTreeMap<String, usize>;

/// Many connections use every backend, and evenly where the case says so.
fn check_backends(expected: &case::Packet, used: &Used) -> Result<(), String> {
    let backends: BTreeSet<_> = expected.backends.iter().collect();
    if !expected.needs_state && !backends.iter().copied().eq(used.keys()) {
        return Err(format!("expected {backends:?}, used {used:?}"));
    }
    if expected.distribution.is_some() {
        let fair = used.values().sum::<usize>() / backends.len().max(1);
        if used.values().any(|count| *count < fair * 3 / 4 || *count > fair * 5 / 4) {
            return Err(format!("uneven shares: {used:?}"));
        }
    }
    Ok(())
}

fn check_flow(fate: &Fate, flow: &case::Flow) -> Result<(), String> {
    let allowed = flow.after.as_deref().unwrap_or_default();
    let is_met = match fate {
        Fate::Dnat { backend, .. } => allowed.contains(&backend.to_string()),
        Fate::Reject | Fate::Drop(_) => allowed.is_empty(),
        Fate::Pass | Fate::Wrong(_) => false,
    };
    if is_met { Ok(()) } else { Err(format!("its next packet: {fate:?}, expected {allowed:?}")) }
}

fn check_health(answer: Option<(u16, usize)>, expected: &case::Health) -> Result<(), String> {
    let (status, count) = answer.unzip();
    if status != expected.status || expected.local_endpoints.is_some() && count != expected.local_endpoints {
        return Err(format!(
            "expected {:?} with {:?} endpoints, found {status:?} with {count:?}",
            expected.status, expected.local_endpoints
        ));
    }
    Ok(())
}

fn ends_of(flow: &case::Flow) -> Ends {
    Ends { src: flow.from, dst: flow.to, sport: flow.sport, dport: flow.port }
}

fn protocol(protocol: case::Protocol) -> Protocol {
    match protocol {
        case::Protocol::Tcp => Protocol::Tcp,
        case::Protocol::Udp => Protocol::Udp,
        case::Protocol::Sctp => Protocol::Sctp,
        case::Protocol::Icmp | case::Protocol::Icmpv6 => Protocol::Echo,
    }
}
