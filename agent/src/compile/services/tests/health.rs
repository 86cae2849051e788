//! Backends that fail their checks.

use std::time::Duration;

use super::*;
use crate::{
    cluster::{Probe, ProbeKind},
    compile::{Unhealthy, compile_with},
    datapath::{Backend, Target},
};

fn target(address: &str) -> Target {
    Target { service: name("web"), backend: Backend { address: ip(address), port: 8080 } }
}

/// The backends for a pod and for the outside, and how many a load balancer is told of.
fn with_failing(cluster: &mut Cluster, failing: &[&str]) -> (String, String, usize) {
    let second = Duration::from_secs(1);
    let probe = Probe { kind: ProbeKind::Tcp, interval: second, timeout: second, failures: 3, successes: 2 };
    web(cluster).probe = Some(probe.into());
    web(cluster).external_local = true;
    let unhealthy: Unhealthy = failing.iter().map(|address| target(address)).collect();
    let datapath = compile_with(cluster, "node-1", &unhealthy, &mut Numbers::default()).unwrap();
    let ask = |from, to| describe(&datapath, &packet(from, to, 80));
    (ask(POD, CLUSTER_IP), ask(OUTSIDE, LOAD_BALANCER), datapath.health_checks[&32000].local_endpoints)
}

#[test]
fn a_failing_backend_gets_nothing_new() {
    let (inside, outside, told) = with_failing(&mut spread(), &[REMOTE]);
    assert_eq!((inside.as_str(), outside.as_str(), told), ("10.64.1.10:8080", "10.64.1.10:8080", 1));
}

#[test]
fn where_all_backends_of_a_policy_fail_all_of_them_are_used() {
    let (inside, outside, told) = with_failing(&mut spread(), &[LOCAL]);
    // The one on this node is all that the outside may have here; the load balancer is told to go elsewhere.
    assert_eq!((inside.as_str(), outside.as_str(), told), ("10.64.2.10:8080", "10.64.1.10:8080", 0));

    let (inside, ..) = with_failing(&mut spread(), &[LOCAL, REMOTE]);
    assert_eq!(inside, BOTH);
}

#[test]
fn clients_of_a_zone_whose_backends_fail_go_to_another() {
    let hinted = |address, node, zone: &str| Endpoint {
        hints: Some(Hints { zones: BTreeSet::from([zone.to_owned()]), ..Hints::default() }.into()),
        ..endpoint(address, node)
    };
    let mut cluster = cluster(vec![hinted(LOCAL, "node-1", "east"), hinted(REMOTE, "node-2", "west")]);

    assert_eq!(with_failing(&mut cluster, &[]).0, "10.64.1.10:8080");
    assert_eq!(with_failing(&mut cluster, &[LOCAL]).0, "10.64.2.10:8080");
}

#[test]
fn what_may_come_to_be_used_is_checked_over_tcp() {
    let mut cluster =
        cluster(vec![endpoint(LOCAL, "node-1"), draining(REMOTE, "node-2"), dead("10.64.1.11", "node-1")]);
    assert!(compile(&cluster, "node-1").probes.is_empty(), "nobody asked for checks");

    with_failing(&mut cluster, &[]);
    let probed: Vec<_> = compile(&cluster, "node-1").probes.into_keys().collect();
    assert_eq!(probed, [target(LOCAL), target(REMOTE)]);

    web(&mut cluster).ports[0].protocol = Protocol::Udp;
    cluster.slices.get_mut(&name("web-1")).unwrap().ports[0].protocol = Protocol::Udp;
    assert!(compile(&cluster, "node-1").probes.is_empty());
}

#[test]
fn live_flows_may_stay_with_a_failing_backend() {
    let mut cluster = spread();
    with_failing(&mut cluster, &[]);
    let unhealthy = Unhealthy::from([target(REMOTE)]);
    let datapath = compile_with(&cluster, "node-1", &unhealthy, &mut Numbers::default()).unwrap();

    let frontend = Frontend { address: ip(CLUSTER_IP), port: 80, protocol: 6 };
    let service = &datapath.frontends[&frontend];
    assert!(service.serves(target(REMOTE).backend));
    // But one that it has not answered waits no longer.
    assert!(!service.is_sound(target(REMOTE).backend) && service.is_sound(target(LOCAL).backend));
}
