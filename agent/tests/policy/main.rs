//! The policy compiler against a plain reading of the Kubernetes API.

mod cases;
mod generate;
mod reference;

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use weir::{
    cluster::{Built, Cluster, Objects, Protocol, Tier},
    compile::{Compiler, Numbers, Unhealthy, compile},
    datapath::{Connection, Datapath, Judgement, Network},
    manifest,
    shared_map::SharedMap,
};
use weir_common::policy::{IDENTITY_WORLD, Protocol as Judged};

/// A connection between two of a cluster's addresses.
fn probe() -> impl Strategy<Value = (Index, Index, Option<Protocol>, u16)> {
    let protocol = select(vec![Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Sctp), None]);
    (any::<Index>(), any::<Index>(), protocol, select(&generate::PORTS[..]))
}

/// Makes one object of `cluster` what it is in `other`.
fn take_over(cluster: &mut Cluster, other: &Cluster, which: Index, kind: u8) {
    fn one<K: Ord + Clone, V: Clone>(here: &mut SharedMap<K, V>, there: &SharedMap<K, V>, which: Index) {
        let keys: Vec<_> = here.keys().chain(there.keys()).cloned().collect();
        if let Some(key) = (!keys.is_empty()).then(|| which.get(&keys)) {
            match there.get(key).cloned() {
                Some(value) => drop(here.insert(key.clone(), value)),
                None => drop(here.remove(key)),
            }
        }
    }
    match kind {
        0 => one(&mut cluster.pods, &other.pods, which),
        1 => one(&mut cluster.policies, &other.policies, which),
        2 => one(&mut cluster.cluster_policies, &other.cluster_policies, which),
        3 => one(&mut cluster.namespaces, &other.namespaces, which),
        _ => one(&mut cluster.nodes, &other.nodes, which),
    }
}

/// Whether the compiled cluster lets a connection open.
fn opens(network: &Network, from: IpAddr, to: IpAddr, protocol: Option<Protocol>, port: u16) -> bool {
    let (protocol, port) = match protocol {
        Some(Protocol::Tcp) => (Judged::Tcp, port),
        Some(Protocol::Udp) => (Judged::Udp, port),
        Some(Protocol::Sctp) => (Judged::Sctp, port),
        None => (Judged::Echo, 0),
    };
    match network.connect(&Connection { source: from, destination: to, protocol, port }) {
        Judgement::Direct(path) => path.allowed(),
        other => panic!("{other:?} without services"),
    }
}

/// What a commit relies on when it goes from one datapath to the next; see [`weir::datapath`].
fn check_transition(old: &Datapath, new: &Datapath) {
    let both = |id| {
        let given = |datapath: &Datapath| datapath.identities.values().any(|given| *given == id);
        id == IDENTITY_WORLD || given(old) && given(new)
    };
    for (id, before) in &old.rule_sets {
        let Some(after) = new.rule_sets.get(id) else { continue };
        assert_eq!((&before.rules, &before.ports), (&after.rules, &after.ports));
        assert_eq!(before.default_peers, after.default_peers);
        for identity in before.peers.keys().chain(after.peers.keys()).filter(|id| both(**id)) {
            assert_eq!(before.by_peer(*identity), after.by_peer(*identity), "identity {identity}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_compiled_cluster_says_what_its_policies_say(
        cluster in generate::cluster(),
        probes in prop::collection::vec(probe(), 400),
    ) {
        let network = Network::compile(&cluster, &mut BTreeMap::new()).unwrap();
        let addresses = generate::addresses(&cluster);
        for (from, to, protocol, port) in probes {
            let (from, to) = (*from.get(&addresses), *to.get(&addresses));
            if from.is_ipv4() == to.is_ipv4() && from != to {
                prop_assert_eq!(
                    opens(&network, from, to, protocol, port),
                    reference::opens(&cluster, from, to, protocol, port),
                    "{} -> {}:{}/{:?}", from, to, port, protocol
                );
            }
        }
    }

    #[test]
    fn numbers_of_the_past_change_no_verdict_and_allow_a_commit_in_order(
        history in prop::collection::vec((generate::cluster(), any::<bool>()), 2..5),
        probes in prop::collection::vec(probe(), 100),
    ) {
        let mut numbers = BTreeMap::new();
        let mut in_force = Network::default();
        for (cluster, committed) in history {
            let network = Network::compile(&cluster, &mut numbers).unwrap();
            let fresh = Network::compile(&cluster, &mut BTreeMap::new()).unwrap();
            let addresses = generate::addresses(&cluster);
            for (from, to, protocol, port) in &probes {
                let (from, to) = (*from.get(&addresses), *to.get(&addresses));
                if from.is_ipv4() == to.is_ipv4() && from != to {
                    prop_assert_eq!(
                        opens(&network, from, to, *protocol, *port),
                        opens(&fresh, from, to, *protocol, *port)
                    );
                }
            }
            for (name, node) in &network.nodes {
                if let Some(before) = in_force.nodes.get(name) {
                    check_transition(before, node);
                }
                if committed {
                    numbers.get_mut(name).unwrap().retain(node);
                }
            }
            if committed {
                in_force = network;
            }
        }
    }

    #[test]
    fn a_compiler_that_follows_changes_says_what_one_says_that_starts_anew(
        clusters in proptest::collection::vec(generate::cluster(), 2..4),
        steps in proptest::collection::vec((any::<Index>(), any::<Index>(), 0..5_u8), 1..12),
    ) {
        let mut cluster = clusters[0].clone();
        let mut compiler = Compiler::new("n1");
        for (from, which, kind) in steps {
            // One object comes, goes or changes, as it is in another cluster.
            take_over(&mut cluster, from.get(&clusters), which, kind);
            let in_force = compiler.clone();
            let datapath = compiler.compile(&cluster, &Unhealthy::new()).unwrap();
            compiler.settle(&in_force);

            let anew = compile(&cluster, "n1", &mut compiler.numbers().clone()).unwrap();
            prop_assert_eq!(&datapath, &anew);
            let mut used = compiler.numbers().clone();
            used.retain(&datapath);
            prop_assert_eq!(format!("{:?}", compiler.numbers()), format!("{used:?}"), "a number is not free");
        }
    }

    #[test]
    fn the_same_cluster_compiles_to_the_same_datapath(cluster in generate::cluster()) {
        let mut numbers = Numbers::default();
        let first = compile(&cluster, "n1", &mut numbers).unwrap();
        numbers.retain(&first);
        prop_assert_eq!(&first, &compile(&cluster, "n1", &mut numbers).unwrap());
        prop_assert_eq!(&first, &compile(&cluster, "n1", &mut Numbers::default()).unwrap());
    }

    #[test]
    fn a_new_policy_splits_identities_and_renames_none(mut cluster in generate::cluster()) {
        // A pod that becomes isolated leaves the Baseline tier, which may unite identities.
        cluster.cluster_policies.retain(|_, policy| policy.tier == Tier::Admin);
        let mut before = cluster.clone();
        let last = before.policies.keys().next_back().cloned();
        last.into_iter().for_each(|last| drop(before.policies.remove(&last)));
        let mut numbers = Numbers::default();
        let first = compile(&before, "n1", &mut numbers).unwrap();
        numbers.retain(&first);
        let second = compile(&cluster, "n1", &mut numbers).unwrap();
        check_transition(&first, &second);
        for identity in first.identities.values().filter(|identity| **identity != IDENTITY_WORLD) {
            prop_assert!(second.identities.values().any(|kept| kept == identity), "{} is gone", identity);
        }
    }
}

/// Two pods in two namespaces, each on a node of its own.
const TWO_NODES: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: here, namespace: a}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.0.1.1}
---
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: b}
spec: {nodeName: n2, containers: [{name: c}]}
status: {podIP: 10.0.2.1}
";

fn policy(namespace: &str, port: u16) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: one, namespace: {namespace}}}\n\
         spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}\n"
    )
}

#[test]
fn a_policy_of_other_nodes_pods_changes_nothing_here() {
    let read = |text: &str| {
        let mut objects = Objects::default();
        objects.insert_all(manifest::from_text("cluster.yaml", text).unwrap());
        objects
    };
    let mut objects = read(&(TWO_NODES.to_owned() + &policy("a", 80) + &policy("b", 80)));
    let built = Built::new(&objects).unwrap();
    let mut here = Compiler::new("n1");
    let mut there = Compiler::new("n2");
    let before = [&mut here, &mut there].map(|node| node.compile(&built.cluster, &Unhealthy::new()).unwrap());

    objects.insert_all(manifest::from_text("change.yaml", &policy("b", 81)).unwrap());
    let built = built.changed(&objects).unwrap();
    let after = [&mut here, &mut there].map(|node| node.compile(&built.cluster, &Unhealthy::new()).unwrap());
    let is_same = |node: usize| after[node].rule_sets.is_same(&before[node].rule_sets);
    assert_eq!([is_same(0), is_same(1)], [true, false]);
    assert!(after[0].endpoints.is_same(&before[0].endpoints));
    assert!(after[0].rules.is_same(&before[0].rules));
}
