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
    cluster::{Protocol, Tier},
    compile::{Numbers, compile},
    datapath::{Connection, Datapath, Judgement, Network},
};
use weir_common::policy::{IDENTITY_WORLD, Protocol as Judged};

/// A connection between two of a cluster's addresses.
fn probe() -> impl Strategy<Value = (Index, Index, Option<Protocol>, u16)> {
    let protocol = select(vec![Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Sctp), None]);
    (any::<Index>(), any::<Index>(), protocol, select(&generate::PORTS[..]))
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
        before.policies.pop_last();
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
