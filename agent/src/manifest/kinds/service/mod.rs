//! v1 Service.

mod addresses;
mod ports;
mod probe;

use ipnet::IpNet;

use super::{Meta, TRAFFIC_POLICIES, UNLIMITED, check_conditions, meta, sub};
use crate::{
    cluster::{Forwarding, Service, ServiceKind},
    manifest::{address, diagnostics::quote, fields::Fields, names, node::Node, scalar::Scalar},
};

const SPEC: [&str; 20] = [
    "ports",
    "selector",
    "clusterIP",
    "clusterIPs",
    "type",
    "externalIPs",
    "sessionAffinity",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "publishNotReadyAddresses",
    "sessionAffinityConfig",
    "ipFamilies",
    "ipFamilyPolicy",
    "allocateLoadBalancerNodePorts",
    "loadBalancerClass",
    "internalTrafficPolicy",
    "trafficDistribution",
];

/// How packets from outside get to a backend on another node.
const FORWARDING: &str = "weir.dev/forwarding";
const FORWARDINGS: [(&str, Forwarding); 2] = [("snat", Forwarding::Snat), ("dsr", Forwarding::Dsr)];

/// Seconds that affinity to a backend lasts unless the service says otherwise.
const AFFINITY_TIMEOUT: u32 = 10_800;

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> Service {
    let foreign = ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"];
    let mut service = Service {
        foreign: foreign.iter().any(|label| meta.labels.contains_key(*label)),
        source: meta.source,
        name: meta.name,
        annotations: meta.annotations,
        kind: ServiceKind::ClusterIp,
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        external_local: false,
        internal_local: false,
        affinity: None,
        forwarding: meta::annotation(object, FORWARDING).and_then(|node| node.one_of(&FORWARDINGS)),
        publish_not_ready: false,
        health_check_port: None,
        probe: probe::read(object).map(Into::into),
        selector: None,
        ports: Vec::new(),
    };
    let Some(node) = object.required("spec") else { return service };
    let spec = node.fields(&SPEC);
    let kinds = [
        ("ClusterIP", ServiceKind::ClusterIp),
        ("NodePort", ServiceKind::NodePort),
        ("LoadBalancer", ServiceKind::LoadBalancer),
        ("ExternalName", ServiceKind::ExternalName),
    ];
    service.kind =
        spec.nonempty("type").and_then(|kind| kind.one_of(&kinds)).unwrap_or(ServiceKind::ClusterIp);
    service.selector = spec.get("selector").map(meta::labels).filter(|labels| !labels.is_empty());
    service.publish_not_ready = spec.get("publishNotReadyAddresses").and_then(Node::boolean).unwrap_or(false);

    let headless = addresses::read_cluster_ips(&spec, &mut service);
    service.external_ips = addresses::external_ips(&spec);
    service.ports = ports::read(&spec, service.kind, headless);
    check_external_name(&spec, service.kind);
    service.affinity = affinity(&spec);
    read_traffic_policies(&spec, &mut service);
    read_load_balancer(&spec, &mut service);
    if let Some(status) = sub(object, "status", &["loadBalancer", "conditions"]) {
        check_conditions(&status);
        service.load_balancer_ips = addresses::load_balancer_ips(&status, service.kind);
    }
    service
}

fn check_external_name(spec: &Fields<'_>, kind: ServiceKind) {
    match spec.nonempty("externalName") {
        Some(name) if kind == ServiceKind::ExternalName => {
            name.parsed(|name| {
                let form = names::dns_subdomain(name.strip_suffix('.').unwrap_or(name));
                form.map_err(|expected| format!("{} is not {expected}", quote(name)))
            });
        }
        Some(name) => drop(name.string()),
        None if kind == ServiceKind::ExternalName => spec.missing("externalName"),
        None => {}
    }
}

fn affinity(spec: &Fields<'_>) -> Option<u32> {
    let words = [("None", false), ("ClientIP", true)];
    let affinity = spec.nonempty("sessionAffinity").map_or(Some(false), |node| node.one_of(&words))?;
    let config = spec.get("sessionAffinityConfig");
    if let (false, Some(config)) = (affinity, config) {
        config.error("may be set only with sessionAffinity: ClientIP");
    }
    let client =
        config.and_then(|config| sub(&config.fields(&["clientIP"]), "clientIP", &["timeoutSeconds"]));
    let seconds = client.and_then(|client| client.get("timeoutSeconds"));
    let seconds =
        seconds.map_or(Some(i64::from(AFFINITY_TIMEOUT)), |node| node.integer(1..=86_400, "a timeout"))?;
    u32::try_from(seconds).ok().filter(|_| affinity)
}

fn read_traffic_policies(spec: &Fields<'_>, service: &mut Service) {
    let internal = spec.nonempty("internalTrafficPolicy").and_then(|node| node.one_of(&TRAFFIC_POLICIES));
    service.internal_local = internal.unwrap_or(false);

    let external_node = spec.nonempty("externalTrafficPolicy");
    let external = external_node.and_then(|node| node.one_of(&TRAFFIC_POLICIES));
    service.external_local = external.unwrap_or(false);
    let is_external = match service.kind {
        ServiceKind::NodePort | ServiceKind::LoadBalancer => true,
        ServiceKind::ClusterIp => !service.external_ips.is_empty(),
        ServiceKind::ExternalName => false,
    };
    if let Some(node) = external_node.filter(|_| !is_external) {
        // Refused in a new service, but left behind where a service changes its type.
        node.warning("without effect: the service has no address for clients outside of the cluster");
    }

    if let Some(node) = set(spec, "healthCheckNodePort") {
        service.health_check_port = node.port();
        if service.kind != ServiceKind::LoadBalancer || !service.external_local {
            node.error("only a service of type LoadBalancer with externalTrafficPolicy: Local may have one");
        }
    }
    if let Some(node) = spec.nonempty("trafficDistribution") {
        node.one_of(&[("PreferClose", ()), ("PreferSameZone", ()), ("PreferSameNode", ())]);
    }
}

fn read_load_balancer(spec: &Fields<'_>, service: &mut Service) {
    service.source_ranges = spec
        .list("loadBalancerSourceRanges", UNLIMITED)
        .into_iter()
        .filter_map(|node| node.parsed(|text| address::block(text.trim())))
        .collect::<Vec<IpNet>>();
    if let Some(node) = spec.get("allocateLoadBalancerNodePorts") {
        node.boolean();
    }
    if let Some(node) = spec.nonempty("loadBalancerIP") {
        node.string();
    }
    if let Some(node) = spec.nonempty("loadBalancerClass") {
        node.formed(names::label_key);
    }
    if service.kind != ServiceKind::LoadBalancer {
        let ranges = spec.get("loadBalancerSourceRanges").filter(|_| !service.source_ranges.is_empty());
        let others = ["allocateLoadBalancerNodePorts", "loadBalancerClass"].map(|name| spec.get(name));
        for node in others.into_iter().flatten().chain(ranges) {
            node.error("only a service of type LoadBalancer may have it");
        }
    }
}

/// A number that is there and not 0, which stands for none.
fn set<'t>(fields: &Fields<'t>, name: &str) -> Option<Node<'t>> {
    fields.get(name).filter(|node| node.scalar() != Some(Scalar::Integer(0)))
}
