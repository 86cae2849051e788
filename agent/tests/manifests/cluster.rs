//! What objects may not do to each other.

use super::{cluster, messages, object, objects, pod, service};

fn errors(text: &str) -> Vec<String> {
    messages(&objects(text).build().unwrap_err())
}

fn node(name: &str, address: &str) -> String {
    object("v1", "Node", name, &format!("status: {{addresses: [{{type: InternalIP, address: {address}}}]}}"))
}

fn config(spec: &str) -> String {
    object("weir.dev/v1alpha1", "WeirConfiguration", "w", &format!("spec: {spec}"))
}

#[test]
fn two_running_pods_may_not_have_one_address() {
    let text = pod("a", "{}", "{podIP: 10.0.0.1}")
        + &pod("b", "{}", "\n  podIPs: [{ip: 10.0.0.2}]\n  podIP: 10.0.0.2");
    cluster(&text);
    let said = errors(&(text + &pod("c", "{}", "{phase: Running, podIPs: [{ip: 10.0.0.1}]}")));
    let expected =
        "test.yaml:20:40: Pod default/c: address 10.0.0.1 is already used by Pod default/a (test.yaml:2:1)";
    assert_eq!(said, [expected]);
}

#[test]
fn an_address_is_free_again_when_its_pod_is_finished_and_host_pods_share_theirs() {
    let nodes = node("n", "192.0.2.1");
    let pods = pod("a", "{}", "{podIP: 10.0.0.1, phase: Succeeded}")
        + &pod("b", "{}", "{podIP: 10.0.0.1, phase: Failed}")
        + &pod("c", "{}", "{podIP: 10.0.0.1, phase: Running}")
        + &pod("d", "{hostNetwork: true}", "{podIP: 192.0.2.1}")
        + &pod("e", "{hostNetwork: true}", "{podIP: 192.0.2.1}");
    cluster(&(nodes + &pods));
}

#[test]
fn a_pod_may_not_have_the_address_of_a_node() {
    let said = errors(&(node("n", "192.0.2.1") + &pod("a", "{}", "{podIP: 192.0.2.1}")));
    assert!(said[0].contains("Pod default/a: address 192.0.2.1 is already used by Node n"), "{said:?}");
    assert!(!errors(&(node("n", "192.0.2.1") + &node("m", "192.0.2.1"))).is_empty());
}

#[test]
fn two_services_may_not_claim_one_frontend() {
    let web = service("web", "{clusterIP: 10.96.0.1, ports: [{port: 80}], externalIPs: [203.0.113.1]}");
    let other = |spec: &str| errors(&(web.clone() + &service("other", spec)));
    for (spec, words) in [
        (
            "{clusterIP: 10.96.0.1, ports: [{port: 81}]}",
            "clusterIP 10.96.0.1 is already used by Service default/web (test.yaml:2:1)",
        ),
        ("{clusterIP: 10.96.0.1, ports: [{port: 80}]}", "clusterIP 10.96.0.1"),
        (
            "{clusterIP: 10.96.0.2, externalIPs: [203.0.113.1], ports: [{port: 80}]}",
            "address 203.0.113.1, port 80/TCP",
        ),
        (
            "{clusterIP: 10.96.0.2, externalIPs: [10.96.0.1], ports: [{port: 80}]}",
            "address 10.96.0.1, port 80/TCP",
        ),
    ] {
        let said = other(spec);
        assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
    }
    cluster(
        &(web.clone()
            + &service(
                "other",
                "{clusterIP: 10.96.0.2, externalIPs: [203.0.113.1], ports: [{port: 80, protocol: UDP}]}",
            )),
    );
    cluster(
        &(web.clone()
            + &service("other", "{clusterIP: 10.96.0.2, externalIPs: [203.0.113.1], ports: [{port: 81}]}")),
    );
    cluster(&(node("n", "203.0.113.1") + &web));
}

#[test]
fn two_services_may_not_claim_one_node_port() {
    let node_port = |name: &str, ip: u8, port: &str| {
        service(name, &format!("{{type: NodePort, clusterIP: 10.96.0.{ip}, ports: [{{port: 80, {port}}}]}}"))
    };
    let said = errors(&(node_port("a", 1, "nodePort: 30080") + &node_port("b", 2, "nodePort: 30080")));
    assert!(said.len() == 1 && said[0].contains("Service default/b: node port 30080/TCP"), "{said:?}");
    cluster(&(node_port("a", 1, "nodePort: 30080") + &node_port("b", 2, "nodePort: 30080, protocol: UDP")));
    let health = "{type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30080, clusterIP: 10.96.0.3, ports: [{port: 80}]}";
    assert!(!errors(&(node_port("a", 1, "nodePort: 30080") + &service("c", health))).is_empty());
}

#[test]
fn external_addresses_stay_in_their_ranges() {
    let web = service("web", "{clusterIP: 10.96.0.1, ports: [{port: 80}], externalIPs: [203.0.113.1]}");
    cluster(&(config("{externalRanges: [203.0.113.0/24]}") + &web));
    cluster(&(config("{serviceCIDRs: [10.96.0.0/16]}") + &web));
    let said = errors(&(config("{externalRanges: []}") + &web));
    assert!(
        said[0].contains("Service default/web: address 203.0.113.1 is not of the externalRanges"),
        "{said:?}"
    );
    let said = errors(&(config("{serviceCIDRs: [10.97.0.0/16]}") + &web));
    assert!(said[0].contains("clusterIP 10.96.0.1 is not of the serviceCIDRs"), "{said:?}");
}

#[test]
fn nobody_takes_the_address_of_another_for_an_external_one() {
    let others = config("{externalRanges: [203.0.113.0/24]}")
        + &node("n", "192.0.2.11")
        + &pod("victim", "{}", "{podIP: 10.64.1.10}")
        + &service("dns", "{clusterIP: 10.96.0.10, ports: [{port: 53, protocol: UDP}]}");
    let thief = |address: &str| {
        let spec = format!("{{clusterIP: 10.96.0.1, ports: [{{port: 9153}}], externalIPs: [{address}]}}");
        others.clone() + &service("thief", &spec)
    };
    for address in ["8.8.8.8", "192.0.2.11", "10.64.1.10", "10.96.0.10"] {
        let said = errors(&thief(address));
        let expected = format!("Service default/thief: address {address} is not of the externalRanges");
        assert!(said.len() == 1 && said[0].contains(&expected), "{said:?}");
    }
    cluster(&thief("203.0.113.7"));
}

#[test]
fn there_is_one_configuration() {
    let other = object("weir.dev/v1alpha1", "WeirConfiguration", "x", "");
    let said = errors(&(config("{masquerade: true}") + &other));
    assert_eq!(
        said,
        ["test.yaml:7:1: WeirConfiguration x: there is already WeirConfiguration w (test.yaml:2:1)"]
    );
}

#[test]
fn a_configuration_says_what_it_says() {
    let text = config(
        "{podCIDRs: [10.244.0.0/16], serviceCIDRs: [10.96.0.0/16], nodePortAddresses: [192.0.2.0/24], masquerade: true, masqueradeAll: true, externalRanges: [203.0.113.0/24]}",
    );
    let config = cluster(&text).config;
    assert_eq!(config.pod_cidrs, ["10.244.0.0/16".parse().unwrap()]);
    assert_eq!(config.service_cidrs, ["10.96.0.0/16".parse().unwrap()]);
    assert_eq!(config.node_port_addresses, Some(vec!["192.0.2.0/24".parse().unwrap()]));
    assert_eq!(config.external_ranges, Some(vec!["203.0.113.0/24".parse().unwrap()]));
    assert!(config.masquerade && config.masquerade_all);
    assert_eq!(cluster(&self::config("{nodePortAddresses: primary}")).config.node_port_addresses, None);
}
