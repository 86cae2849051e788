//! One test for each rule of Kubernetes services.

use super::*;

const LOCAL: &str = "10.64.1.10";
const REMOTE: &str = "10.64.2.10";
const BOTH: &str = "10.64.1.10:8080 10.64.2.10:8080";
const BOTH_MASQUERADED: &str = "10.64.1.10:8080* 10.64.2.10:8080*";

/// A service with an endpoint on each node.
fn spread() -> Cluster {
    cluster(vec![endpoint(LOCAL, "node-1"), endpoint(REMOTE, "node-2")])
}

fn web(cluster: &mut Cluster) -> &mut Service {
    cluster.services.get_mut(&name("web")).unwrap()
}

fn hinted(address: &str, nodes: &[&str], zones: &[&str]) -> Endpoint {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Endpoint { node_hints: names(nodes), zone_hints: names(zones), ..endpoint(address, "node-2") }
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
    let [first, second] = both;
    let only_zones = Endpoint { node_hints: BTreeSet::new(), ..first.clone() };
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
    let here = |address, zone| Endpoint { node: Some("node-1".to_owned()), ..hinted(address, &[], &[zone]) };
    let mut cluster = cluster(vec![here("10.64.1.1", "east"), here("10.64.1.2", "west")]);
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.1.1:8080");
    web(&mut cluster).internal_local = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "10.64.1.1:8080 10.64.1.2:8080");
}

#[test]
fn source_ranges_hold_at_load_balancer_addresses_and_before_anything_else() {
    let mut cluster = spread();
    web(&mut cluster).source_ranges =
        vec!["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), BOTH_MASQUERADED);
    for client in ["198.51.101.7", POD, NODE] {
        assert_eq!(ask(&cluster, client, LOAD_BALANCER, 80), "drop", "{client}");
        assert_eq!(ask(&cluster, client, EXTERNAL, 80), BOTH_MASQUERADED, "{client}");
        assert_eq!(ask(&cluster, client, NODE, NODE_PORT), BOTH_MASQUERADED, "{client}");
    }
    cluster.slices.clear();
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), "reject");
    assert_eq!(ask(&cluster, POD, LOAD_BALANCER, 80), "drop");
}

#[test]
fn source_ranges_of_the_other_family_restrict_nothing() {
    let mut cluster = spread();
    web(&mut cluster).source_ranges = vec!["2001:db8::/32".parse().unwrap()];
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), BOTH_MASQUERADED);
}

#[test]
fn a_node_in_the_source_ranges_may_come_from_the_load_balancers_address() {
    let mut cluster = spread();
    web(&mut cluster).source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    assert_eq!(ask(&cluster, LOAD_BALANCER, LOAD_BALANCER, 80), BOTH_MASQUERADED);
    web(&mut cluster).source_ranges = vec!["192.0.2.128/25".parse().unwrap()];
    assert_eq!(ask(&cluster, LOAD_BALANCER, LOAD_BALANCER, 80), "drop");
}

#[test]
fn an_address_that_is_external_and_a_load_balancers_is_restricted() {
    let mut cluster = spread();
    web(&mut cluster).external_ips.push(ip(LOAD_BALANCER));
    web(&mut cluster).source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), "drop");
}

#[test]
fn node_ports_are_on_the_primary_address_unless_configured() {
    let mut cluster = spread();
    let second = "192.0.2.111";
    cluster.nodes.get_mut("node-1").unwrap().addresses.extend([ip(second), ip("127.0.0.1")]);
    assert_eq!(ask(&cluster, OUTSIDE, NODE, NODE_PORT), BOTH_MASQUERADED);
    assert_eq!(ask(&cluster, OUTSIDE, second, NODE_PORT), "pass");
    cluster.config.node_port_addresses = Some(vec!["0.0.0.0/0".parse().unwrap()]);
    assert_eq!(ask(&cluster, OUTSIDE, second, NODE_PORT), BOTH_MASQUERADED);
    assert_eq!(ask(&cluster, NODE, "127.0.0.1", NODE_PORT), "pass");
    cluster.config.node_port_addresses = Some(vec!["192.0.2.111/32".parse().unwrap()]);
    assert_eq!(ask(&cluster, OUTSIDE, NODE, NODE_PORT), "pass");
}

#[test]
fn an_external_address_goes_before_a_node_port() {
    let mut cluster = spread();
    let mut other = service();
    other.name = name("a-first");
    other.cluster_ips = vec![ip("10.96.0.11")];
    (other.external_ips, other.load_balancer_ips) = (Vec::new(), Vec::new());
    cluster.services.insert(other.name.clone(), other);
    web(&mut cluster).ports[0].node_port = None;
    web(&mut cluster).ports[0].port = NODE_PORT;
    web(&mut cluster).external_ips = vec![ip(NODE)];
    assert_eq!(ask(&cluster, OUTSIDE, NODE, NODE_PORT), BOTH_MASQUERADED);
}

#[test]
fn a_wrong_port_is_rejected_and_an_unallocated_address_dropped() {
    let cluster = spread();
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 443), "reject");
    assert_eq!(ask(&cluster, POD, "10.96.0.99", 80), "drop");
    assert_eq!(ask(&cluster, POD, LOAD_BALANCER, 443), "pass");
    assert_eq!(ask(&cluster, POD, NODE, 22), "pass");
}

#[test]
fn what_is_not_ours_to_serve_has_no_frontend() {
    let mut cluster = spread();
    web(&mut cluster).foreign = true;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "drop");
    web(&mut cluster).foreign = false;
    web(&mut cluster).kind = ServiceKind::ExternalName;
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), "drop");
    web(&mut cluster).kind = ServiceKind::LoadBalancer;
    web(&mut cluster).cluster_ips.clear();
    assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), "pass");
}

#[test]
fn only_slices_of_the_service_with_its_port_count() {
    let with = |change: fn(&mut EndpointSlice)| {
        let mut cluster = cluster(vec![endpoint(LOCAL, "node-1")]);
        cluster.slices.values_mut().for_each(change);
        ask(&cluster, POD, CLUSTER_IP, 80)
    };
    assert_eq!(with(|_| ()), "10.64.1.10:8080");
    assert_eq!(with(|slice| slice.name.namespace = "other".to_owned()), "reject");
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
}

#[test]
fn families_are_served_apart() {
    let mut cluster = spread();
    let second = slice("web-2", vec![endpoint("fd64::a", "node-1")]);
    cluster.slices.insert(name("web-2"), second);
    assert_eq!(ask(&cluster, "fd64::c8", "2001:db8::1", NODE_PORT), "pass");
    web(&mut cluster).cluster_ips.push(ip("fd96::10"));
    assert_eq!(ask(&cluster, "fd64::c8", "fd96::10", 80), "fd64::a:8080");
    assert_eq!(ask(&cluster, "fd64::a", "2001:db8::1", NODE_PORT), "fd64::a:8080*");
    assert_eq!(ask(&cluster, POD, CLUSTER_IP, 80), BOTH);
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
fn pod_blocks_come_from_the_configuration_else_the_nodes_else_the_pods() {
    let mut cluster = spread();
    assert_eq!(services::pod_cidrs(&cluster).len(), 2);
    cluster.config.pod_cidrs.clear();
    assert!(services::pod_cidrs(&cluster).is_empty());
    cluster.nodes.get_mut("node-1").unwrap().pod_cidrs = vec!["10.64.1.0/24".parse().unwrap()];
    assert_eq!(services::pod_cidrs(&cluster), ["10.64.1.0/24".parse().unwrap()]);
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
