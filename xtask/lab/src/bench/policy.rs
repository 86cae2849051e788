//! How long policies take to be enforced, all at first and then one that changes, and how many entries they take.

use std::{collections::BTreeSet, fmt::Write as _, net::Ipv4Addr, path::Path, time::Instant};

use anyhow::{Result, anyhow};
use weir::{
    cluster::{Cluster, Objects},
    compile::{Compiler, Numbers, Unhealthy, compile},
    datapath::Datapath,
    manifest,
};

use super::{
    report::Row,
    scale_lab::{CLIENT, Lab, SERVER, node, p99, row},
};

/// Nodes that the pods are spread over.
const NODES: usize = 100;
/// Namespaces, and label sets in each.
const NAMESPACES: usize = 50;
const APPS: usize = 10;

/// Measures a cluster of 10,000 pods in 500 label sets with 1,000 policies, or a tenth of it.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    let weir = super::agent()?;
    let (pods, policies) = if quick { (1_000, 100) } else { (10_000, 1_000) };
    let setting = format!("{pods} pods, {policies} policies");
    let rounds = if quick { 20 } else { 200 };
    let text = manifests(pods, policies);
    let mut rows = compiled(&setting, &text)?;
    rows.extend(enforced(&weir, &setting, &text, pods, policies, rounds)?);
    Ok(rows)
}

/// The compiler by itself: cold, and after one policy has changed. And what it makes.
fn compiled(setting: &str, text: &str) -> Result<Vec<Row>> {
    let row = |subject: &str, unit: &str, samples: &[f64]| row("policy", setting, subject, unit, samples);
    let mut objects = Objects::default();
    objects.insert_all(read(text)?);
    let mut cluster = objects.build().map_err(|found| anyhow!("{found}"))?;
    let begun = Instant::now();
    let cold = compile(&cluster, "n0", &mut Numbers::default())?;
    let cold_ms = begun.elapsed().as_secs_f64() * 1000.0;

    let mut compiler = Compiler::new("n0");
    compiler.compile(&cluster, &Unhealthy::new())?;
    let mut changes = Vec::new();
    for round in 0..20 {
        change(&mut cluster, round)?;
        let before = compiler.clone();
        let begun = Instant::now();
        compiler.compile(&cluster, &Unhealthy::new())?;
        compiler.settle(&before);
        changes.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let (entries, multiplied) = entries(&cold);
    Ok(vec![
        row("compiled, cold", "ms", &[cold_ms]),
        row("compiled again after one policy changed", "ms", &changes),
        row("entries: peers and port intervals", "", &[entries]),
        row("endpoints × identities × ports", "", &[multiplied]),
        row("share", "%", &[100.0 * entries / multiplied]),
    ])
}

fn read(text: &str) -> Result<manifest::Documents> {
    manifest::from_text("cluster.yaml", text).map_err(|found| anyhow!("{found}"))
}

fn change(cluster: &mut Cluster, round: usize) -> Result<()> {
    let mut objects = Objects::default();
    objects.insert_all(read(&policy(round, 20_000 + round))?);
    for (name, policy) in &objects.build().map_err(|found| anyhow!("{found}"))?.policies {
        cluster.policies.insert(name.clone(), policy.clone());
    }
    Ok(())
}

/// The policy entries of a datapath, and what a table by endpoint, identity and port would have.
fn entries(datapath: &Datapath) -> (f64, f64) {
    let sets = || datapath.rule_sets.values();
    let peers: usize = sets().map(|set| set.peers.len()).sum();
    let intervals: usize = sets().flat_map(|set| &set.ports).map(|table| table.len()).sum();
    let identities: BTreeSet<_> = datapath.identities.values().collect();
    let ports: BTreeSet<_> = sets().flat_map(|set| &set.ports).flat_map(|table| table.keys()).collect();
    let multiplied = datapath.endpoints.len() * identities.len() * ports.len();
    ((peers + intervals) as f64, multiplied as f64)
}

/// The agent, with the pods of its node attached.
fn enforced(
    weir: &Path,
    setting: &str,
    text: &str,
    pods: usize,
    policies: usize,
    rounds: usize,
) -> Result<Vec<Row>> {
    let row = |subject: &str, unit: &str, samples: &[f64]| row("policy", setting, subject, unit, samples);
    let mut lab = Lab::new(pods / NODES)?;
    let loaded = lab.start(weir, text)?;
    let prober = lab.probe(format!("{SERVER}:8080").parse()?, 8080)?;
    let mut changes = Vec::new();
    for round in 0..rounds {
        // Pods of this node are in every fifth namespace: each change concerns some of them.
        changes.push(lab.apply(&policy(round * 5 % policies, 20_000 + round))?);
    }
    let (sent, lost) = prober.end();
    let rows = vec![
        row("from manifests to enforced", "s", &[loaded]),
        row("one policy changed, apply to enforced", "ms", &changes),
        row("the same, 99th percentile", "ms", &[p99(&changes)]),
        row("elements written for one change", "", &writes(&lab.log())),
        row("packets sent by the prober meanwhile", "", &[sent as f64]),
        row("packets lost", "", &[lost as f64]),
        row("agent, resident", "MB", &[lab.resident()?]),
        row("maps of the kernel", "MB", &[lab.map_memory()?.iter().map(|(_, size)| size).sum()]),
    ];
    lab.stop(weir)?;
    Ok(rows)
}

/// Elements that each commit but the first wrote, by the agent's log.
fn writes(log: &str) -> Vec<f64> {
    let written = log.lines().filter_map(|line| line.split_once("written=")?.1.split_whitespace().next());
    let mut written: Vec<f64> = written.filter_map(|number| number.parse().ok()).skip(1).collect();
    if written.is_empty() {
        written.push(0.0);
    }
    written
}

/// The whole cluster. The pods of `n0` hang on interfaces of their own.
fn manifests(pods: usize, policies: usize) -> String {
    let mut text = node();
    for index in 1..NODES {
        let _ = write!(text, "apiVersion: v1\nkind: Node\nmetadata: {{name: n{index}}}\n---\n");
    }
    for index in 0..NAMESPACES {
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{index}, labels: {{team: t{}}}}}\n---\n",
            index % 10
        );
    }
    for index in 0..pods {
        let app = index / NAMESPACES % APPS;
        let address = Ipv4Addr::from_bits(0x0a40_0100 + index as u32);
        // As many pods of each label set on this node as there are in all of them.
        let node = index / (NAMESPACES * APPS) * 5 + index % 5;
        let local = index / (NAMESPACES * APPS);
        let place = if node.is_multiple_of(NODES) {
            format!(", annotations: {{weir.dev/interface: pod{}}}", local * 100 + index % 500 / 5)
        } else {
            String::new()
        };
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod{index}, namespace: ns{}, \
             labels: {{app: a{app}, tier: l{}}}{place}}}\nspec:\n  nodeName: n{}\n  containers:\n  - name: c\n    \
             ports: [{{name: http, containerPort: 8080}}]\nstatus: {{podIP: {address}, phase: Running}}\n---\n",
            index % NAMESPACES,
            app % 3,
            node % NODES,
        );
    }
    for index in 0..policies {
        text += &policy(index, 9_090);
        text += "---\n";
    }
    // The probed pods are not isolated, but judged: each by a policy of its own.
    let _ = write!(
        text,
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: probe, namespace: probe}}\n\
         spec:\n  podSelector: {{}}\n  ingress: [{{from: [{{ipBlock: {{cidr: {CLIENT}/32}}}}]}}]\n"
    );
    text
}

/// A policy that selects an app of its namespace; its peers are of its own namespace, of a team's, and a block.
fn policy(index: usize, port: usize) -> String {
    let app = index / NAMESPACES % APPS;
    let block = format!(
        "{{ipBlock: {{cidr: 172.{}.0.0/16, except: [172.{}.{}.0/24]}}}}",
        index % 200,
        index % 200,
        index % 250
    );
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{index}, namespace: ns{}}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: a{app}}}}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
         - from:\n    - podSelector: {{matchLabels: {{app: a{}}}}}\n    - namespaceSelector: {{matchLabels: \
         {{team: t{}}}}}\n      podSelector: {{matchLabels: {{app: a{}}}}}\n    ports: [{{port: 8080}}, {{port: {port}}}]\n  \
         - from: [{block}]\n    ports: [{{port: 443}}]\n  egress:\n  - to: [{block}]\n    ports: [{{port: 53}}]\n",
        index % NAMESPACES,
        (app + 1) % APPS,
        index % 10,
        index / 7 % APPS,
    )
}
