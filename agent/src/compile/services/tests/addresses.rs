//! One test for each rule about the addresses that services answer on, and who may use them.

use super::*;

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
fn pod_blocks_are_the_configured_ones_else_the_nodes_and_the_pods_own_addresses() {
    let mut cluster = spread();
    cluster.nodes.get_mut("node-1").unwrap().pod_cidrs = vec!["10.65.1.0/24".parse().unwrap()];
    let configured = cluster.config.pod_cidrs.clone();
    assert_eq!(services::pod_cidrs(&cluster), configured);
    cluster.config.pod_cidrs.clear();
    for (number, address) in [POD, "10.65.1.7"].into_iter().enumerate() {
        let pod = pod(&format!("pod-{number}"), address);
        cluster.pods.insert(pod.name.clone(), pod);
    }
    let host = format!("{POD}/32");
    assert_eq!(services::pod_cidrs(&cluster), [host.parse().unwrap(), "10.65.1.0/24".parse().unwrap()]);
}

#[test]
fn an_endpoint_that_is_a_service_is_none() {
    for (address, port) in [(CLUSTER_IP, 80), (EXTERNAL, 80), (LOAD_BALANCER, 80), ("192.0.2.12", NODE_PORT)]
    {
        let mut cluster = cluster(vec![endpoint(address, "node-1")]);
        let own = cluster.slices.get_mut(&name("web-1")).unwrap();
        own.ports[0].port = Some(port);
        assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), "reject", "{address}");

        if address == CLUSTER_IP {
            // Of the services' range no port is an endpoint's.
            continue;
        }
        // Nobody is asked there.
        cluster.slices.get_mut(&name("web-1")).unwrap().ports[0].port = Some(port + 1);
        let served = format!("{address}:{}*", port + 1);
        assert_eq!(ask(&cluster, OUTSIDE, LOAD_BALANCER, 80), served, "{address}");
    }
}

#[test]
fn a_backend_that_is_a_service_is_none() {
    let mut cluster = spread();
    // Another service's address; free ones of the services' range; a node port; what a load balancer answers on.
    let mut loops = slice("web-2", ["10.96.0.99", CLUSTER_IP].map(|to| endpoint(to, "node-1")).to_vec());
    cluster.slices.insert(name("web-2"), loops.clone());
    assert_eq!(ask(&cluster, OUTSIDE, EXTERNAL, 80), BOTH_MASQUERADED);
    for (address, port) in [(NODE, NODE_PORT), (LOAD_BALANCER, 80), (EXTERNAL, 80)] {
        loops.endpoints = vec![endpoint(address, "node-1")];
        loops.ports[0].port = Some(port);
        cluster.slices.insert(name("web-2"), loops.clone());
        assert_eq!(ask(&cluster, OUTSIDE, EXTERNAL, 80), BOTH_MASQUERADED, "{address}:{port}");
    }
    // On another port it is a socket of the node.
    loops.endpoints = vec![endpoint(NODE, "node-1")];
    loops.ports[0].port = Some(8080);
    cluster.slices.insert(name("web-2"), loops);
    assert!(ask(&cluster, OUTSIDE, EXTERNAL, 80).contains("192.0.2.11:8080"));
}
