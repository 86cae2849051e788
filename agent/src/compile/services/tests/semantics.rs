//! One test for each rule about endpoints, traffic policies and masquerade.

use weir_common::service::member;

use super::*;

fn hinted(address: &str, nodes: &[&str], zones: &[&str]) -> Endpoint {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let hints = Hints { nodes: names(nodes), zones: names(zones) };
    Endpoint { hints: Some(hints.into()), ..endpoint(address, "node-2") }
}

#[test]
fn a_cluster_ip_masquerades_only_clients_that_are_no_pods() {
    let cluster = spread();
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), BOTH);
    assert_eq!(ask(&cluster, NODE, CLUSTER_IP, 80), BOTH_MASQUERADED);
    assert_eq!(ask(&cluster, OUTSIDE, CLUSTER_IP, 80), BOTH_MASQUERADED);
}

#[test]
fn masquerade_all_takes_in_pods_at_cluster_ips() {
    let mut cluster = spread();
    cluster.config.masquerade_all = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), BOTH_MASQUERADED);
}

#[test]
fn a_pod_that_reaches_itself_is_masqueraded() {
    assert_eq!(ask(&spread(), LOCAL, CLUSTER_IP, 80), "10.64.1.10:8080* 10.64.2.10:8080");
}

#[test]
fn external_addresses_masquerade_everyone_under_the_policy_cluster() {
    let cluster = spread();
    for (address, port) in [(LOAD_BALANCER, 80), (EXTERNAL, 80), (NODE, NODE_PORT)] {
        for client in [POD, NODE, OUTSIDE] {
            assert_eq!(ask(&cluster, client, address, port), BOTH_MASQUERADED, "{client} to {address}");
        }
    }
}

#[test]
fn external_policy_local_keeps_outside_clients_here_with_their_address() {
    let mut cluster = spread();
    web(&mut cluster).external_local = true;
    for (address, port) in [(LOAD_BALANCER, 80), (EXTERNAL, 80), (NODE, NODE_PORT)] {
        assert_eq!(ask(&cluster, OUTSIDE, address, port), "10.64.1.10:8080", "{address}");
        assert_eq!(ask(&cluster, POD, address, port), BOTH, "{address}");
        assert_eq!(ask(&cluster, NODE, address, port), BOTH_MASQUERADED, "{address}");
    }
    assert_eq!(ask(&cluster, OUTSIDE, CLUSTER_IP, 80), BOTH_MASQUERADED);
}

#[test]
fn external_policy_local_without_local_endpoints_drops_outside_clients() {
    let mut cluster = cluster(vec![endpoint(REMOTE, "node-2")]);
    web(&mut cluster).external_local = true;
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), "drop");
    assert_eq!(ask(&cluster, POD, LOAD_BALANCER, 80), "10.64.2.10:8080");
}

#[test]
fn internal_policy_local_touches_the_cluster_ip_alone() {
    let mut cluster = spread();
    web(&mut cluster).internal_local = true;
    for (client, backends) in
        [(POD, "10.64.1.10:8080"), (NODE, "10.64.1.10:8080*"), (OUTSIDE, "10.64.1.10:8080*")]
    {
        assert_eq!(ask(&cluster, client, CLUSTER_IP, 80), backends);
        assert_eq!(ask(&cluster, client, LOAD_BALANCER, 80), BOTH_MASQUERADED);
    }
    cluster.slices.clear();
    cluster.slices.insert(name("web-1"), slice("web-1", vec![endpoint(REMOTE, "node-2")]));
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "drop");
}

#[test]
fn without_any_usable_endpoint_every_address_rejects() {
    let mut cluster =
        cluster(vec![dead(LOCAL, "node-1"), Endpoint { serving: true, ..dead(REMOTE, "node-2") }]);
    for local in [false, true] {
        web(&mut cluster).external_local = local;
        web(&mut cluster).internal_local = local;
        for (address, port) in [(CLUSTER_IP, 80), (LOAD_BALANCER, 80), (EXTERNAL, 80), (NODE, NODE_PORT)] {
            for client in [POD, NODE, OUTSIDE] {
                assert_eq!(ask(&cluster, client, address, port), "reject", "{client} to {address}");
            }
        }
    }
}

#[test]
fn terminating_endpoints_serve_when_none_is_ready() {
    let cluster = cluster(vec![draining(LOCAL, "node-1"), dead(REMOTE, "node-2")]);
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.1.10:8080");
}

#[test]
fn the_local_set_falls_back_on_its_own() {
    let mut cluster = cluster(vec![draining(LOCAL, "node-1"), endpoint(REMOTE, "node-2")]);
    web(&mut cluster).external_local = true;
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), "10.64.1.10:8080");
    assert_eq!(ask(&cluster, POD, LOAD_BALANCER, 80), "10.64.2.10:8080");
}

#[test]
fn hints_for_the_node_go_before_hints_for_the_zone() {
    let both = [hinted("10.64.2.1", &["node-1"], &["west"]), hinted("10.64.2.2", &["node-2"], &["east"])];
    assert_eq!(ask(&cluster(both.to_vec()), POD, CLUSTER_IP, 80), "10.64.2.1:8080");
    let [_, second] = both;
    let only_zones = hinted("10.64.2.1", &[], &["west"]);
    assert_eq!(ask(&cluster(vec![only_zones, second.clone()]), POD, CLUSTER_IP, 80), "10.64.2.2:8080");
    let elsewhere = hinted("10.64.2.1", &["node-2"], &["west"]);
    assert_eq!(ask(&cluster(vec![elsewhere, second]), POD, CLUSTER_IP, 80), "10.64.2.2:8080");
}

#[test]
fn one_ready_endpoint_without_a_hint_switches_hints_off() {
    let zoned = hinted("10.64.2.1", &[], &["east"]);
    let bare = endpoint("10.64.2.2", "node-2");
    let other = hinted("10.64.2.3", &[], &["west"]);
    let unready = dead("10.64.2.2", "node-2");
    assert_eq!(
        ask(&cluster(vec![zoned.clone(), unready, other.clone()]), POD, CLUSTER_IP, 80),
        "10.64.2.1:8080"
    );
    let all = "10.64.2.1:8080 10.64.2.2:8080 10.64.2.3:8080";
    assert_eq!(ask(&cluster(vec![zoned, bare, other]), POD, CLUSTER_IP, 80), all);
}

#[test]
fn hints_do_not_thin_out_local_endpoints() {
    let here = |address, zone| Endpoint { node: Some("node-1".into()), ..hinted(address, &[], &[zone]) };
    let mut cluster = cluster(vec![here("10.64.1.1", "east"), here("10.64.1.2", "west")]);
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.1.1:8080");
    web(&mut cluster).internal_local = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.1.1:8080 10.64.1.2:8080");
}

#[test]
fn only_slices_of_the_service_with_its_port_count() {
    let with = |change: fn(&mut EndpointSlice)| {
        let mut cluster = cluster(vec![endpoint(LOCAL, "node-1")]);
        cluster.slices.values_mut().for_each(change);
        ask(&cluster, POD, CLUSTER_IP, 80)
    };
    assert_eq!(with(|_| ()), "10.64.1.10:8080");
    assert_eq!(with(|slice| slice.name.namespace = "other".into()), "reject");
    assert_eq!(with(|slice| slice.service = None), "reject");
    assert_eq!(with(|slice| slice.ports[0].name = "web".to_owned()), "reject");
    assert_eq!(with(|slice| slice.ports[0].protocol = Protocol::Udp), "reject");
    assert_eq!(with(|slice| slice.ports[0].port = None), "reject");
    assert_eq!(with(|slice| slice.ipv6 = true), "reject");
}

#[test]
fn overlapping_slices_count_an_endpoint_once_and_as_local_where_one_says_so() {
    let elsewhere = Endpoint { node: None, ..endpoint(LOCAL, "") };
    let mut cluster = cluster(vec![elsewhere]);
    cluster.slices.insert(name("web-2"), slice("web-2", vec![endpoint(LOCAL, "node-1")]));
    cluster.slices.insert(name("web-3"), slice("web-3", vec![dead(LOCAL, "node-1")]));
    web(&mut cluster).internal_local = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.1.10:8080");
    cluster.slices.remove(&name("web-2"));
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "reject");
}

#[test]
fn pods_that_cannot_be_told_apart_are_outside_clients() {
    let mut cluster = spread();
    web(&mut cluster).external_local = true;
    cluster.config.pods_unknown = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), BOTH);
    assert_eq!(ask(&cluster, OUTSIDE, CLUSTER_IP, 80), BOTH);
    assert_eq!(ask(&cluster, POD, LOAD_BALANCER, 80), "10.64.1.10:8080");
    assert_eq!(ask(&cluster, NODE, LOAD_BALANCER, 80), BOTH_MASQUERADED);
}

#[test]
fn a_health_check_counts_ready_pods_of_this_node() {
    let mut cluster = cluster(vec![
        endpoint(LOCAL, "node-1"),
        endpoint("10.64.1.11", "node-1"),
        draining("10.64.1.12", "node-1"),
        endpoint(REMOTE, "node-2"),
    ]);
    assert!(compile(&cluster, "node-1").health_checks.is_empty());
    web(&mut cluster).external_local = true;
    let second = ServicePort { name: "admin".to_owned(), port: 81, ..service().ports.remove(0) };
    web(&mut cluster).ports.push(second);
    cluster.slices.get_mut(&name("web-1")).unwrap().ports.push(EndpointPort {
        name: "admin".to_owned(),
        protocol: Protocol::Tcp,
        port: Some(8081),
    });
    assert_eq!(compile(&cluster, "node-1").health_checks[&32000].local_endpoints, 2);
    assert_eq!(compile(&cluster, "node-2").health_checks[&32000].local_endpoints, 1);
    assert_eq!(compile(&cluster, "node-3").health_checks[&32000].local_endpoints, 0);
}

#[test]
fn endpoints_without_weight_get_no_connection_and_keep_theirs() {
    let weighted = |address, node, weight| Endpoint { weight, ..endpoint(address, node) };
    let mut cluster = cluster(vec![weighted(LOCAL, "node-1", 0), weighted(REMOTE, "node-2", 1)]);
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.2.10:8080");
    let bits: Vec<_> = served(&cluster).members.values().copied().collect();
    assert_eq!(bits[0], member::SERVES | member::SOUND, "it keeps what it has");
    assert_ne!(bits[1] & member::CLUSTER, 0);

    web(&mut cluster).internal_local = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "drop", "another node has one");
    let none = cluster_of(&[(LOCAL, "node-1", 0), (REMOTE, "node-2", 0)]);
    assert_eq!(ask(&none, POD, CLUSTER_IP, 80), "reject", "nobody has one");
}

#[test]
fn rings_follow_the_weights() {
    let cluster = cluster_of(&[(LOCAL, "node-1", 150), (REMOTE, "node-2", 50)]);
    let ring = Arc::clone(&served(&cluster).internal);
    let local = ring.iter().filter(|backend| backend.address == ip(LOCAL)).count() as f64;
    assert!((local / ring.len() as f64 - 0.75).abs() < 0.01, "{local} of {}", ring.len());
}

/// The service at its ClusterIP, on the first node.
fn served(cluster: &Cluster) -> Arc<datapath::Service> {
    let frontend = Frontend { address: ip(CLUSTER_IP), port: 80, protocol: Protocol::Tcp.number() };
    compile(cluster, "node-1").frontends[&frontend].clone()
}

fn cluster_of(endpoints: &[(&str, &str, u32)]) -> Cluster {
    let weighted =
        |(address, node, weight): &(&str, &str, u32)| Endpoint { weight: *weight, ..endpoint(address, node) };
    cluster(endpoints.iter().map(weighted).collect())
}
