//! `weir describe`: a service or a policy as this node handles it.

use std::{collections::BTreeMap, net::SocketAddr};

use weir_common::policy::RuleHits;

use super::{
    enforcer::Enforcer,
    engine::{Active, Engine},
    events::{Names, protocol},
    hits::Hits,
    interfaces::Network,
    policy_report,
};
use crate::{
    cluster::{Name, ProbeKind, Service, ServiceKind},
    compile::services::view::{self, Seen},
    datapath::{self, Backend, Frontend, Ring, Target},
    protocol::{
        BackendReport, Failure, FailureKind, PolicyName, PolicyReport, RuleCounts, ServiceReport, Setting,
        Slots,
    },
};

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// For `weir describe policy`.
    pub(super) fn describe_policy(&self, name: &PolicyName) -> Result<PolicyReport, Failure> {
        let missing = || Failure::new(FailureKind::NotFound, format!("{name} is not there"));
        let active = self.active.as_ref().ok_or_else(missing)?;
        let hits = self.enforcer.rule_hits().map_err(|error| Failure::new(FailureKind::Kernel, error))?;
        let hits = Hits::new(active, &hits);
        let counts = |part| {
            let RuleHits { connections, packets } = hits.of_part(name, part)?;
            Some(RuleCounts { connections, packets })
        };
        let mut report = policy_report::describe(&active.cluster, name, &counts).ok_or_else(missing)?;
        report.nodes.push(self.settings.node.clone());
        Ok(report)
    }

    /// For `weir describe service`.
    pub(super) fn describe_service(&self, name: &Name) -> Result<ServiceReport, Failure> {
        let missing = || Failure::new(FailureKind::NotFound, format!("service {name} is not there"));
        let active = self.active.as_ref().ok_or_else(missing)?;
        let service = active.cluster.services.get(name).ok_or_else(missing)?;
        let own: BTreeMap<_, _> =
            active.datapath.frontends.iter().filter(|(_, port)| port.name == *name).collect();
        let mut connections = BTreeMap::<(Frontend, Backend), usize>::new();
        for connection in self.live()? {
            let backend = Backend { address: connection.server.ip(), port: connection.server.port() };
            if own.contains_key(&connection.to()) {
                *connections.entry((connection.to(), backend)).or_default() += 1;
            }
        }
        let names = Names::new(&active.cluster, &active.datapath.rules);
        let backends = view::endpoints(&active.cluster, &self.settings.node, service);
        let backends = backends.iter().map(|seen| {
            let ports = || own.iter().filter(|(_, port)| is_port(active, port, service, seen));
            let live = connections.iter().filter(|((frontend, backend), _)| {
                *backend == seen.backend && ports().any(|(port, _)| *port == frontend)
            });
            let target = Target { service: name.clone(), backend: seen.backend };
            let failure = self.failing.get(&target);
            let ring = |pick: fn(&datapath::Service) -> &Ring| {
                ports().map(|(_, port)| slots(pick(port), seen.backend)).max_by_key(|slots| slots.all)
            };
            let inside = ring(|port| &port.internal).unwrap_or_default();
            let unused = (inside.own == 0).then(|| match failure {
                Some(failure) => format!("it fails its checks: {failure}"),
                None => seen.reason(service).to_owned(),
            });
            BackendReport {
                port: format!("{}/{}", seen.port.port, seen.port.protocol),
                backend: names.party(seen.backend.address, seen.backend.port),
                node: seen.endpoint.node.as_deref().map(str::to_owned),
                zone: seen.endpoint.zone.as_deref().map(str::to_owned),
                state: if failure.is_some() { "unhealthy" } else { seen.state() }.to_owned(),
                weight: seen.endpoint.weight,
                inside,
                outside: ring(|port| &port.external).unwrap_or_default(),
                unused,
                connections: live.map(|(_, count)| count).sum(),
            }
        });
        Ok(ServiceReport {
            name: name.to_string(),
            nodes: vec![self.settings.node.clone()],
            kind: kind(service.kind).to_owned(),
            source: service.source.clone(),
            frontends: own.keys().map(|frontend| frontend_text(frontend)).collect(),
            backends: backends.collect(),
            settings: settings(service),
        })
    }
}

/// Whether a frontend is one of the service port, in the family of the endpoint.
fn is_port(active: &Active, port: &datapath::Service, service: &Service, seen: &Seen<'_>) -> bool {
    let at = |address| Frontend { address, port: seen.port.port, protocol: seen.port.protocol.number() };
    let mut ips = service.cluster_ips.iter().filter(|ip| ip.is_ipv6() == seen.backend.address.is_ipv6());
    // A node port and an external address have the number of the port, and rings of a family.
    ips.any(|ip| active.datapath.frontends.get(&at(*ip)).is_some_and(|own| own.id == port.id))
        && port.members.keys().all(|member| member.address.is_ipv6() == seen.backend.address.is_ipv6())
}

fn slots(ring: &Ring, backend: Backend) -> Slots {
    Slots { own: ring.iter().filter(|own| *own == backend).count(), all: ring.len() }
}

/// `80/TCP`.
pub(super) fn port_text(frontend: &Frontend) -> String {
    format!("{}/{}", frontend.port, protocol(frontend.protocol))
}

/// `10.96.0.1:80/TCP`.
pub(super) fn frontend_text(frontend: &Frontend) -> String {
    format!("{}/{}", SocketAddr::new(frontend.address, frontend.port), protocol(frontend.protocol))
}

const fn kind(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::ClusterIp => "ClusterIP",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::ExternalName => "ExternalName",
    }
}

/// What of the service decides which backends are used and how.
fn settings(service: &Service) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |name: &str, value: String| settings.push(Setting { name: name.to_owned(), value });
    let policy = |local| if local { "Local" } else { "Cluster" }.to_owned();
    add("internalTrafficPolicy", policy(service.internal_local));
    if service.kind != ServiceKind::ClusterIp || !service.external_ips.is_empty() {
        add("externalTrafficPolicy", policy(service.external_local));
    }
    if let Some(seconds) = service.affinity {
        add("sessionAffinity", format!("ClientIP, for {seconds} s"));
    }
    if !service.source_ranges.is_empty() {
        let ranges: Vec<_> = service.source_ranges.iter().map(ToString::to_string).collect();
        add("loadBalancerSourceRanges", ranges.join(", "));
    }
    if let Some(port) = service.health_check_port {
        add("healthCheckNodePort", port.to_string());
    }
    if let Some(probe) = &service.probe {
        let what = match &probe.kind {
            ProbeKind::Tcp => "TCP".to_owned(),
            ProbeKind::Http { path } => format!("HTTP GET {path}"),
        };
        add(
            "health check",
            format!(
                "{what} every {:?}, for {:?} at most; out after {} failures, back after {} successes",
                probe.interval, probe.timeout, probe.failures, probe.successes
            ),
        );
    }
    for (key, value) in &service.annotations {
        if !key.starts_with("weir.dev/health-check") {
            add(key, value.clone());
        }
    }
    settings
}
