//! How long the policy compiler takes, and how much it makes: 10,000 pods of 500 label sets, 1,000
//! policies, all on one node, which is the worst case. `cargo run --release --example compile_speed`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use weir::{
    cluster::*,
    compile::{Compiler, Numbers, Unhealthy, compile},
    datapath::Datapath,
    source::Source,
};

const PODS: usize = 10_000;
const NAMESPACES: usize = 50;
const APPS: usize = 10;
const POLICIES: usize = 1_000;

fn main() {
    let mut cluster = cluster();
    let mut numbers = Numbers::default();
    let (cold, took) = timed(|| compile(&cluster, "n1", &mut numbers).expect("it fits"));
    numbers.retain(&cold);
    println!("cold compile: {took} ms, peak memory {} MB", peak_memory());
    report(&cold);

    plan_speed(&cluster, &cold, &mut numbers.clone());
    let mut times = Vec::new();
    let mut before = cold;
    for round in 0..21 {
        let name = cluster.policies.keys().nth(round * 40).expect("1,000 policies").clone();
        let policy = cluster.policies.get_mut(&name).expect("it is there");
        policy.ingress[0].ports = Some(vec![port(9_000 + round as u16)]);
        let (after, took) = timed(|| compile(&cluster, "n1", &mut numbers).expect("it fits"));
        times.push(took);
        let (writes, rule_sets) = changes(&before, &after);
        if round == 0 {
            println!("{name} changed: {writes} entries of identities and endpoints, {rule_sets} rule sets");
        }
        numbers.retain(&after);
        before = after;
    }
    times.sort_by(f64::total_cmp);
    println!("one policy changed, whole compile again: median {} ms", times[times.len() / 2]);
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let made = work();
    (made, (start.elapsed().as_secs_f64() * 10_000.0).round() / 10.0)
}

fn report(datapath: &Datapath) {
    let identities: BTreeSet<_> = datapath.identities.values().collect();
    let sets = datapath.rule_sets.values();
    let peers: usize = sets.clone().map(|set| set.peers.len()).sum();
    let intervals: usize = sets.clone().flat_map(|set| &set.ports).map(|table| table.len()).sum();
    let rules: usize = sets.clone().map(|set| set.rules.len()).sum();
    let ports: BTreeSet<_> = sets.clone().flat_map(|set| &set.ports).flat_map(|table| table.keys()).collect();
    let multiplied = datapath.endpoints.len() * identities.len() * ports.len();
    println!(
        "{} endpoints, {} identities at {} prefixes, {} rule sets: {rules} rules, {peers} peers, {intervals} intervals",
        datapath.endpoints.len(),
        identities.len(),
        datapath.identities.len(),
        datapath.rule_sets.len(),
    );
    let entries = peers + intervals;
    let share = 100.0 * entries as f64 / multiplied as f64;
    println!("entries: {entries}; endpoints x identities x ports: {multiplied}; {share:.3} %");
}

fn changes(before: &Datapath, after: &Datapath) -> (usize, usize) {
    let identities = after.identities.iter().filter(|(prefix, id)| before.identities.get(prefix) != Some(id));
    let endpoints = after.endpoints.iter().filter(|(pod, end)| before.endpoints.get(pod) != Some(end));
    let rule_sets = after.rule_sets.iter().filter(|(id, set)| before.rule_sets.get(id) != Some(set));
    (identities.count() + endpoints.count(), rule_sets.count())
}

/// Peak resident memory in MB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for index in 0..NAMESPACES {
        let name = format!("ns{index}");
        let labels =
            labels([("kubernetes.io/metadata.name", name.clone()), ("team", format!("t{}", index % 10))]);
        cluster.namespaces.insert(name.clone(), Namespace { source: None, name, labels });
    }
    for index in 0..PODS {
        let app = index / NAMESPACES % APPS;
        let name = Name { namespace: format!("ns{}", index % NAMESPACES), name: format!("pod{index}") };
        let address = Ipv4Addr::from_bits(0x0af4_0000 + index as u32 + 2);
        let pod = Pod {
            source: source(index),
            name: name.clone(),
            labels: labels([("app", format!("a{app}")), ("tier", format!("l{}", app % 3))]),
            annotations: Default::default(),
            node: Some("n1".to_owned()),
            host_network: false,
            addresses: vec![IpAddr::V4(address)],
            finished: false,
            ready: true,
            ports: vec![ContainerPort { name: Some("http".into()), port: 8080, protocol: Protocol::Tcp }],
        };
        cluster.pods.insert(name, pod);
    }
    for index in 0..POLICIES {
        let policy = policy(index);
        cluster.policies.insert(policy.name.clone(), policy);
    }
    cluster
}

/// Every policy selects an app of its namespace; some peers are its own namespace, some teams, some blocks.
fn policy(index: usize) -> NetworkPolicy {
    let app = index / NAMESPACES % APPS;
    let pods = |app: usize| selector("app", format!("a{}", app % APPS));
    let peer = |kind| PolicyPeer { source: source(index), kind };
    let own = peer(PeerKind::Pods { namespaces: None, pods: Some(pods(app + 1)) });
    let team = selector("team", format!("t{}", index % 10));
    let others = peer(PeerKind::Pods { namespaces: Some(team), pods: Some(pods(index / 7)) });
    let block = peer(PeerKind::Block {
        cidr: format!("10.{}.0.0/16", index % 200).parse().expect("a block"),
        except: vec![format!("10.{}.{}.0/24", index % 200, index % 250).parse().expect("a block")],
    });
    let rule = |peers, ports| PolicyRule { source: source(index), peers: Some(peers), ports: Some(ports) };
    NetworkPolicy {
        source: source(index),
        name: Name { namespace: format!("ns{}", index % NAMESPACES), name: format!("p{index}") },
        pod_selector: pods(app),
        isolates_ingress: true,
        isolates_egress: index.is_multiple_of(2),
        ingress: vec![
            rule(vec![own, others], vec![port(8080), port(9090)]),
            rule(vec![block.clone()], vec![port(443)]),
        ],
        egress: vec![rule(vec![block], vec![port(53)])],
    }
}

fn port(number: u16) -> PolicyPort {
    let ports = PortMatch::Range(number, number);
    PolicyPort { source: source(0), protocol: Some(Protocol::Tcp), ports }
}

fn selector(key: &str, value: String) -> Selector {
    let requirement = Requirement { key: key.to_owned(), operator: Operator::In([value].into()) };
    Selector { requirements: [requirement].into() }
}

fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn source(line: usize) -> Source {
    Source { file: Arc::from("cluster.yaml"), line: line as u32, column: 1 }
}

struct Null;
impl weir::plan::MapWriter for Null {
    type Error = std::io::Error;
    fn write(&mut self, _: &weir::plan::Write) -> Result<(), std::io::Error> {
        Ok(())
    }
    fn wait_for_readers(&mut self) {}
}
fn plan_speed(cluster: &Cluster, cold: &Datapath, numbers: &mut Numbers) {
    use weir::plan::*;
    let mut layout = Layout::default();
    let sizes = Sizes::default().with_room_for(cold);
    let interfaces: std::collections::BTreeMap<_, _> =
        cold.endpoints.keys().map(|a| (*a, Interface { ifindex: 1, mac: [0; 6] })).collect();
    fn desired<'a>(
        datapath: &'a Datapath,
        interfaces: &'a std::collections::BTreeMap<IpAddr, Interface>,
    ) -> Desired<'a> {
        Desired { datapath, interfaces, uplink: 0, events: 0 }
    }
    let (plan, took) = timed(|| Plan::between(&layout, &desired(cold, &interfaces), &sizes).unwrap());
    println!("first plan {took} ms");
    let (_, took) = timed(|| commit(&mut layout, &plan, &mut Null).unwrap());
    println!("first commit {took} ms");
    let mut cluster = cluster.clone();
    let mut compiler = Compiler::new("n1");
    compiler.compile(&cluster, &Unhealthy::new()).unwrap();
    let mut inforce = compiler.clone();
    for round in 0..5 {
        let name = cluster.policies.keys().nth(round * 40).unwrap().clone();
        cluster.policies.get_mut(&name).unwrap().ingress[0].ports = Some(vec![port(19_000 + round as u16)]);
        let (mut c2, t0) = timed(|| inforce.clone());
        let (after, t1) = timed(|| c2.compile(&cluster).unwrap());
        let (plan, t2) = timed(|| Plan::between(&layout, &desired(&after, &interfaces), &sizes).unwrap());
        let (r, t3) = timed(|| commit(&mut layout, &plan, &mut Null).unwrap());
        let (_, t4) = timed(|| c2.settle(&inforce));
        inforce = c2;
        println!("compiler clone {t0} compile {t1} plan {t2} commit {t3} settle {t4} writes {:?}", r.writes);
    }
    let _ = numbers;
}
