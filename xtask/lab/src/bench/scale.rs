//! How long services take to be enforced, all at first and then one endpoint, and what they take of memory.

use std::{fmt::Write as _, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result};

use super::{
    report::Row,
    scale_lab::{Lab, SERVER, node, p99, row},
};

/// Where the probed service is.
const PROBED: &str = "10.96.255.1:80";

/// Measures clusters of several sizes: services and the endpoints of each.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    let weir = super::agent()?;
    let sizes: &[(u32, u32)] =
        if quick { &[(10_000, 4)] } else { &[(100, 4), (1_000, 4), (10_000, 4), (10_000, 10)] };
    let rounds = if quick { 30 } else { 300 };
    let mut rows = Vec::new();
    for (services, endpoints) in sizes {
        rows.extend(measure(&weir, *services, *endpoints, rounds)?);
    }
    Ok(rows)
}

fn measure(weir: &Path, services: u32, endpoints: u32, rounds: u32) -> Result<Vec<Row>> {
    let setting = format!("{services} services × {endpoints} endpoints");
    let row = |subject: &str, unit: &str, samples: &[f64]| row("scale", &setting, subject, unit, samples);
    let mut lab = Lab::new(0)?;
    let loaded = lab.start(weir, &manifests(services, endpoints))?;

    let prober = lab.probe(PROBED.parse()?, 8080)?;
    let mut changes = Vec::new();
    for round in 0..rounds {
        changes.push(lab.apply(&slice(round % services, endpoints, 1 + round / services % 200))?);
    }
    let (sent, lost) = prober.end();
    let maps = lab.map_memory()?;
    let resident = lab.resident()?;
    let mut largest = maps.clone();
    largest.sort_by(|one, other| other.1.total_cmp(&one.1));
    let largest: Vec<_> = largest.iter().take(5).map(|(name, size)| format!("{name} {size:.1}")).collect();
    let mut rows = vec![
        row("from manifests to enforced", "s", &[loaded]),
        row("one endpoint changed, apply to enforced", "ms", &changes),
        row("the same, 99th percentile", "ms", &[p99(&changes)]),
        row("packets sent by the prober meanwhile", "", &[sent as f64]),
        row("packets lost", "", &[lost as f64]),
        row("agent, resident", "MB", &[resident]),
        row("maps of the kernel", "MB", &[maps.iter().map(|(_, size)| size).sum()]),
    ];
    rows.extend(compiled_to_enforced(&lab.log()).map(|took| row("compiled to enforced", "s", &[took])));
    println!("{setting}: the largest maps, in MB: {}", largest.join(", "));
    lab.stop(weir).context("after the changes")?;
    Ok(rows)
}

/// What the agent's log says of its first commit.
fn compiled_to_enforced(log: &str) -> Option<f64> {
    let took = log.lines().find_map(|line| line.split_once("committed_ms=")?.1.split_whitespace().next())?;
    Some(took.parse::<f64>().ok()? / 1000.0)
}

/// The whole cluster.
fn manifests(services: u32, endpoints: u32) -> String {
    let mut text = node();
    let _ = write!(
        text,
        "{}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: probed-1, namespace: probe, labels: {{kubernetes.io/service-name: probed}}}}\n\
         ports: [{{port: 8080, protocol: UDP}}]\nendpoints: [{{addresses: [{SERVER}]}}]\n---\n",
        service("probed", "probe", "10.96.255.1", "UDP"),
    );
    for index in 0..services {
        let address = Ipv4Addr::from_bits(0x0a61_0000 + index);
        text += &service(&format!("s{index}"), "shop", &address.to_string(), "TCP");
        text += "---\n";
        text += &slice(index, endpoints, 0);
        text += "---\n";
    }
    text
}

fn service(name: &str, namespace: &str, address: &str, protocol: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  clusterIP: {address}\n  ports: [{{port: 80, targetPort: 8080, protocol: {protocol}}}]\n"
    )
}

/// The endpoints of a service; with another `version`, another first one.
fn slice(index: u32, endpoints: u32, version: u32) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: s{index}-1, namespace: shop, labels: {{kubernetes.io/service-name: s{index}}}}}\n\
         ports: [{{port: 8080}}]\nendpoints:\n"
    );
    for number in 0..endpoints {
        let changed = if number == 0 { version << 18 } else { 0 };
        let address = Ipv4Addr::from_bits(0x1400_0000 + (index * endpoints + number) + changed * 2);
        let _ = write!(text, "- addresses: [{address}]\n  nodeName: n{}\n", 1 + number);
    }
    text
}
