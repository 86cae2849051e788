//! Compiled services against the rules as kube-proxy walks them for one packet: no rings, no flags,
//! everything looked up in the manifests anew.

use proptest::prelude::*;

use super::*;

/// What kube-proxy does with a new TCP connection that `node-1` handles, written as [`ask`] writes it.
fn walk(cluster: &Cluster, from: IpAddr, to: IpAddr, port: u16) -> String {
    let service = &cluster.services[&name("web")];
    let node = &cluster.nodes["node-1"];
    let is_pod = cluster.config.pod_cidrs.iter().any(|cidr| cidr.contains(&from));
    let is_node = node.addresses.contains(&from);
    let external = (port == 80 && (to == ip(EXTERNAL) || to == ip(LOAD_BALANCER)))
        || (port == NODE_PORT && to == ip(NODE));
    let internal = port == 80 && to == ip(CLUSTER_IP);
    if !external && !internal {
        return if to == ip(CLUSTER_IP) { "reject" } else { "pass" }.to_owned();
    }
    let ranges: Vec<_> = service.source_ranges.iter().filter(|range| range.addr().is_ipv4()).collect();
    if to == ip(LOAD_BALANCER) && !ranges.is_empty() && !ranges.iter().any(|range| range.contains(&from)) {
        return "drop".to_owned();
    }
    let endpoints: Vec<_> = cluster.slices.values().flat_map(|slice| &slice.endpoints).collect();
    let usable = |endpoint: &&Endpoint| endpoint.ready || (endpoint.serving && endpoint.terminating);
    if !endpoints.iter().any(usable) {
        return "reject".to_owned();
    }
    let short_circuit = external && (is_pod || is_node);
    let local = if internal { service.internal_local } else { service.external_local && !short_circuit };
    let mut candidates: Vec<_> = if local {
        endpoints.iter().copied().filter(|endpoint| endpoint.node.as_deref() == Some("node-1")).collect()
    } else {
        endpoints.clone()
    };
    if candidates.iter().any(|endpoint| endpoint.ready) {
        candidates.retain(|endpoint| endpoint.ready);
        if !local {
            candidates = by_topology(candidates);
        }
    } else {
        candidates.retain(usable);
    }
    if candidates.is_empty() {
        return "drop".to_owned();
    }
    let masquerade = match (internal, service.external_local) {
        (true, _) => cluster.config.masquerade_all || !is_pod,
        (false, false) => true,
        (false, true) => is_node,
    };
    let mut backends: Vec<_> = candidates.iter().map(|endpoint| endpoint.address).collect();
    backends.sort();
    let star = |address| if masquerade || address == from { "*" } else { "" };
    backends
        .into_iter()
        .map(|address| format!("{address}:8080{}", star(address)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The ready endpoints that hints leave to `node-1` in the zone `east`.
fn by_topology(ready: Vec<&Endpoint>) -> Vec<&Endpoint> {
    for (hints, here) in [
        ((|endpoint| &endpoint.hints().nodes) as fn(&Endpoint) -> &BTreeSet<String>, "node-1"),
        (|endpoint| &endpoint.hints().zones, "east"),
    ] {
        let hinted: Vec<_> =
            ready.iter().copied().filter(|endpoint| hints(endpoint).contains(here)).collect();
        if !hinted.is_empty() && !ready.iter().any(|endpoint| hints(endpoint).is_empty()) {
            return hinted;
        }
    }
    ready
}

fn any_hints(names: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<String>> {
    prop_oneof![
        1 => Just(BTreeSet::new()),
        4 => proptest::sample::subsequence(names, 1..=names.len()).prop_map(|names| names.iter().map(|&name| name.to_owned()).collect()),
    ]
}

fn any_endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let node = proptest::sample::select(vec![None, Some("node-1"), Some("node-2")]);
    let hints = prop_oneof![
        Just((BTreeSet::new(), BTreeSet::new())).boxed(),
        (any_hints(&["node-1", "node-2"]), any_hints(&["east", "west"])).boxed(),
    ];
    let state = prop_oneof![Just((true, true, false)), any::<(bool, bool, bool)>()];
    proptest::collection::vec((node, state, hints), 0..6).prop_map(|endpoints| {
        let endpoints = endpoints.into_iter().zip(10..).map(
            |((node, (ready, serving, terminating), (nodes, zones)), n)| {
                let address = format!("10.64.1.{n}");
                let node = node.map(Into::into);
                Endpoint {
                    ready,
                    serving,
                    terminating,
                    node,
                    hints: Some(Hints { nodes, zones }.into()),
                    ..endpoint(&address, "")
                }
            },
        );
        endpoints.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_packet_fares_as_with_kube_proxy(
        endpoints in any_endpoints(),
        (external_local, internal_local, masquerade_all) in any::<(bool, bool, bool)>(),
        ranges in proptest::sample::subsequence(vec!["198.51.100.0/24", "10.64.0.0/16", "2001:db8::/32"], 0..=3),
    ) {
        let mut cluster = cluster(endpoints);
        cluster.config.masquerade_all = masquerade_all;
        let service = cluster.services.get_mut(&name("web")).unwrap();
        (service.external_local, service.internal_local) = (external_local, internal_local);
        service.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let datapath = compile(&cluster, "node-1");
        for from in [POD, "10.64.1.10", "10.64.2.10", NODE, OUTSIDE, "192.0.2.12"] {
            for (to, port) in [(CLUSTER_IP, 80), (CLUSTER_IP, 81), (LOAD_BALANCER, 80), (EXTERNAL, 80), (EXTERNAL, 81), (NODE, NODE_PORT), (NODE, 80)] {
                prop_assert_eq!(describe(&datapath, &packet(from, to, port)), walk(&cluster, ip(from), ip(to), port), "{} to {}:{}", from, to, port);
            }
        }
    }

    #[test]
    fn the_order_of_endpoints_and_slices_changes_nothing(endpoints in any_endpoints(), split in 0..6_usize) {
        let mut one = cluster(endpoints.clone());
        let mut other = cluster(Vec::new());
        let mut endpoints = endpoints;
        endpoints.reverse();
        let rest = endpoints.split_off(split.min(endpoints.len()));
        other.slices.insert(name("web-1"), slice("web-1", rest));
        other.slices.insert(name("web-2"), slice("web-2", endpoints));
        for local in [false, true] {
            for cluster in [&mut one, &mut other] {
                cluster.services.get_mut(&name("web")).unwrap().external_local = local;
            }
            prop_assert_eq!(compile(&one, "node-1"), compile(&other, "node-1"));
        }
    }
}
