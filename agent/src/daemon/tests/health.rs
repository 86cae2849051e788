//! Active checks: what the engine makes of what they find.

use super::*;
use crate::{
    daemon::{enforcer::EnforceError, health::Finding},
    datapath::{Backend, Frontend, Target},
    protocol::Event,
};

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: sql, namespace: demo, annotations: {weir.dev/health-check: tcp}}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sql, namespace: demo, labels: {kubernetes.io/service-name: sql}}
addressType: IPv4
ports: [{port: 5432}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]
";

fn host() -> Host {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{SERVICE}"));
    host
}

fn target(address: &str) -> Target {
    Target {
        service: crate::cluster::Name { namespace: "demo".into(), name: "sql".into() },
        backend: Backend { address: address.parse().unwrap(), port: 5432 },
    }
}

fn fails(address: &str) -> Finding {
    Finding { target: target(address), failure: Some("connection refused".into()) }
}

fn recovers(address: &str) -> Finding {
    Finding { target: target(address), failure: None }
}

/// The backends in the ring that the kernel has.
fn ring(host: &Host) -> Vec<String> {
    let frontend = Frontend { address: "10.96.0.1".parse().unwrap(), port: 80, protocol: 6 };
    let world = host.world();
    world.datapath.frontends[&frontend].internal.backends().iter().map(|b| b.address.to_string()).collect()
}

fn found(engine: &mut Engine<Fake, Fake>, finding: Finding) -> Option<Event> {
    let event = engine.note(finding);
    engine.rebalance();
    event
}

#[test]
fn a_failing_backend_leaves_the_ring_and_comes_back() {
    let host = host();
    let mut engine = host.start().unwrap();
    assert_eq!(host.world().datapath.probes.len(), 2);
    assert_eq!(ring(&host), ["10.0.0.1", "10.0.0.2"]);

    let Some(Event::Health(down)) = found(&mut engine, fails("10.0.0.2")) else { panic!() };
    assert_eq!(ring(&host), ["10.0.0.1"]);
    assert_eq!((down.healthy, down.service.as_str()), (false, "demo/sql"));
    assert!(
        down.to_string().ends_with("service demo/sql backend demo/db:5432 UNHEALTHY: connection refused")
    );

    let Some(Event::Health(up)) = found(&mut engine, recovers("10.0.0.2")) else { panic!() };
    assert_eq!(ring(&host), ["10.0.0.1", "10.0.0.2"]);
    assert!(up.healthy);
    assert_eq!(engine.ask_status().revision, 1, "health is no revision of the manifests");
}

#[test]
fn when_all_backends_fail_all_are_used() {
    let host = host();
    let mut engine = host.start().unwrap();

    found(&mut engine, fails("10.0.0.1"));
    found(&mut engine, fails("10.0.0.2"));
    assert_eq!(ring(&host), ["10.0.0.1", "10.0.0.2"]);

    found(&mut engine, recovers("10.0.0.1"));
    assert_eq!(ring(&host), ["10.0.0.1"]);
}

#[test]
fn a_change_of_manifests_keeps_what_is_known_of_health() {
    let host = host();
    let mut engine = host.start().unwrap();
    found(&mut engine, fails("10.0.0.2"));

    engine.apply(DENY).unwrap();
    assert_eq!(ring(&host), ["10.0.0.1"]);
    engine.refresh().unwrap();
    assert_eq!(ring(&host), ["10.0.0.1"]);
}

#[test]
fn a_check_that_changes_or_goes_starts_anew() {
    for changed in [
        SERVICE.replace("tcp}", "tcp, weir.dev/health-check-failures: \"1\"}"),
        SERVICE.replace("weir.dev/health-check: tcp", ""),
    ] {
        let host = host();
        let mut engine = host.start().unwrap();
        found(&mut engine, fails("10.0.0.2"));

        engine.apply(&changed).unwrap();
        engine.rebalance();

        assert_eq!(ring(&host), ["10.0.0.1", "10.0.0.2"], "{changed}");
    }
}

#[test]
fn what_is_said_of_a_backend_that_is_not_checked_is_nothing() {
    let host = host();
    let mut engine = host.start().unwrap();
    let commits = host.world().commits;

    assert_eq!(found(&mut engine, fails("10.0.0.9")), None);

    assert_eq!(host.world().commits, commits);
}

#[test]
fn what_the_kernel_refuses_is_tried_again() {
    let host = host();
    let mut engine = host.start().unwrap();
    host.world().refuse_commit = Some(|| EnforceError::RolledBack("busy".into()));
    found(&mut engine, fails("10.0.0.2"));
    assert_eq!(ring(&host), ["10.0.0.1", "10.0.0.2"]);

    host.world().refuse_commit = None;
    engine.rebalance();

    assert_eq!(ring(&host), ["10.0.0.1"]);
}
