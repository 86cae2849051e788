//! What live flows and session affinity do as endpoints come and go.

use std::time::Duration;

use super::*;
use crate::datapath::{
    Backend,
    services::{Balancer, Outcome},
};

const UDP: u8 = 17;
const NOW: Duration = Duration::from_secs(1000);

fn to(address: &str) -> Outcome {
    Outcome::Backend(Backend { address: ip(address), port: 8080 })
}

/// The service over UDP.
fn udp(endpoints: Vec<Endpoint>) -> Datapath {
    let mut cluster = cluster(endpoints);
    cluster.services.get_mut(&name("web")).unwrap().ports[0].protocol = Protocol::Udp;
    cluster.slices.get_mut(&name("web-1")).unwrap().ports[0].protocol = Protocol::Udp;
    compile(&cluster, "node-1")
}

fn udp_packet() -> Packet {
    let mut packet = packet(POD, CLUSTER_IP, 80);
    packet.to.protocol = UDP;
    packet
}

#[test]
fn udp_stays_with_an_endpoint_that_serves_and_leaves_one_that_does_not() {
    let mut balancer = Balancer::default();
    let mut send = |endpoints| balancer.handle(&udp(endpoints), &udp_packet(), 7, NOW);
    assert_eq!(send(vec![endpoint("10.64.1.10", "node-1")]), to("10.64.1.10"));
    let other = endpoint("10.64.2.10", "node-2");
    assert_eq!(send(vec![draining("10.64.1.10", "node-1"), other.clone()]), to("10.64.1.10"));
    assert_eq!(send(vec![dead("10.64.1.10", "node-1"), other.clone()]), to("10.64.2.10"));
    assert_eq!(send(vec![endpoint("10.64.1.10", "node-1"), other]), to("10.64.2.10"));
    assert_eq!(send(vec![]), Outcome::Reject);
}

#[test]
fn udp_leaves_when_its_service_goes() {
    let mut balancer = Balancer::default();
    let datapath = udp(vec![endpoint("10.64.1.10", "node-1")]);
    assert_eq!(balancer.handle(&datapath, &udp_packet(), 7, NOW), to("10.64.1.10"));
    assert_eq!(balancer.handle(&Datapath::default(), &udp_packet(), 7, NOW), Outcome::Pass);
}

#[test]
fn tcp_stays_when_its_service_goes() {
    let mut balancer = Balancer::default();
    let datapath = compile(&cluster(vec![endpoint("10.64.1.10", "node-1")]), "node-1");
    let packet = packet(POD, CLUSTER_IP, 80);
    assert_eq!(balancer.handle(&datapath, &packet, 7, NOW), to("10.64.1.10"));
    assert_eq!(balancer.handle(&Datapath::default(), &packet, 7, NOW), to("10.64.1.10"));
    let new = Packet { sport: 40001, ..packet };
    assert_eq!(balancer.handle(&Datapath::default(), &new, 7, NOW), Outcome::Pass);
}

#[test]
fn tcp_is_reset_when_its_endpoint_is_gone_and_not_before() {
    let at = |endpoints| compile(&cluster(endpoints), "node-1");
    let other = endpoint("10.64.2.10", "node-2");
    let mut balancer = Balancer::default();
    let mut next = |datapath: &Datapath| balancer.handle(datapath, &packet(POD, CLUSTER_IP, 80), 7, NOW);
    assert_eq!(next(&at(vec![endpoint("10.64.1.10", "node-1")])), to("10.64.1.10"));
    for state in [draining, dead] {
        assert_eq!(next(&at(vec![state("10.64.1.10", "node-1"), other.clone()])), to("10.64.1.10"));
    }
    assert_eq!(next(&at(vec![other.clone()])), Outcome::Reset);
    assert_eq!(next(&at(vec![])), Outcome::Reset, "without another one as well");
    assert_eq!(
        next(&Datapath { reset_gone: false, ..at(vec![other]) }),
        to("10.64.1.10"),
        "kube-proxy's way"
    );
}

/// A service with affinity for 10 seconds and this many endpoints.
fn sticky(endpoints: u8) -> Datapath {
    let mut cluster = cluster((1..=endpoints).map(|n| endpoint(&format!("10.64.1.{n}"), "node-1")).collect());
    cluster.services.get_mut(&name("web")).unwrap().affinity = Some(10);
    compile(&cluster, "node-1")
}

#[test]
fn affinity_is_by_client_and_service_port_at_all_its_addresses() {
    let datapath = sticky(20);
    let mut balancer = Balancer::default();
    let first = balancer.handle(&datapath, &packet(POD, CLUSTER_IP, 80), 0, NOW);
    for (hash, address) in (1..).zip([LOAD_BALANCER, EXTERNAL, CLUSTER_IP]) {
        assert_eq!(balancer.handle(&datapath, &packet(POD, address, 80), hash, NOW), first);
    }
    let clients = (1..100).map(|n| format!("10.64.3.{n}"));
    let others = clients.zip(1..).filter(|(client, hash)| {
        balancer.handle(&datapath, &packet(client, CLUSTER_IP, 80), *hash, NOW) != first
    });
    assert!(others.count() > 50);
}

#[test]
fn affinity_lapses_after_its_timeout_since_the_last_connection() {
    let datapath = sticky(20);
    let mut balancer = Balancer::default();
    let mut connect = |sport, second| {
        let packet = Packet { sport, ..packet(POD, CLUSTER_IP, 80) };
        balancer.handle(&datapath, &packet, usize::from(sport), NOW + Duration::from_secs(second))
    };
    let first = connect(0, 0);
    assert!((1..50).all(|n| connect(n, u64::from(n) * 9) == first));
    assert!((50..100).any(|n| connect(n, u64::from(n) * 10) != first));
}

#[test]
fn affinity_survives_new_endpoints_and_ends_with_its_own() {
    let mut balancer = Balancer::default();
    let mut connect = |datapath: &Datapath, sport: u16| {
        balancer.handle(datapath, &Packet { sport, ..packet(POD, CLUSTER_IP, 80) }, usize::from(sport), NOW)
    };
    assert_eq!(connect(&sticky(1), 0), to("10.64.1.1"));
    assert!((1..100).all(|sport| connect(&sticky(20), sport) == to("10.64.1.1")));
    let without_first = compile(&cluster(vec![endpoint("10.64.1.2", "node-1")]), "node-1");
    assert_eq!(connect(&without_first, 100), to("10.64.1.2"));
}
