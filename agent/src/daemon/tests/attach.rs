//! Pods' interfaces.

use super::*;
use crate::{
    cluster::Name,
    protocol::{Attached, Detach, FailureKind},
};

const CACHE: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: cache, namespace: demo, labels: {app: cache}}
spec: {nodeName: a, containers: [{name: c}]}
status: {podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}]}
";

fn pod(name: &str) -> Name {
    Name { namespace: "demo".into(), name: name.into() }
}

impl Engine<Fake, Fake> {
    fn attach_pod(&mut self, name: &str, interface: &str) -> Result<Attached, Failure> {
        match self.answer(Request::Attach { pod: pod(name), interface: interface.into(), mac: None }) {
            Response::Attached(attached) => Ok(attached),
            Response::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    fn detach_from(&mut self, what: Detach) -> Result<Vec<String>, Failure> {
        match self.answer(Request::Detach(what)) {
            Response::Detached(interfaces) => Ok(interfaces),
            Response::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn interfaces_are_found_by_annotation_and_by_host_route() {
    let host = Host::new();

    let mut engine = host.start().unwrap();

    assert_eq!(engine.ask_status().pods_enforced, 2);
    let world = host.world();
    assert_eq!(world.interfaces[&"10.0.0.1".parse().unwrap()].ifindex, 11);
    assert_eq!(world.interfaces[&"10.0.0.2".parse().unwrap()].ifindex, 12);
    assert_eq!(world.uplink, Some(2));
}

#[test]
fn programs_are_there_before_the_commit_names_the_pod() {
    let host = Host::new();
    host.start().unwrap();

    assert_eq!(host.world().log, ["attach veth-db", "attach veth-web", "attach uplink eth0", "commit"]);
    assert!(host.world().accepts_own, "for the node's clients of its node ports");
}

#[test]
fn a_pod_without_an_interface_waits_and_is_enforced_when_it_comes() {
    let host = Host::new();
    host.world().links.remove("veth-web");
    let mut engine = host.start().unwrap();
    let waiting = engine.ask_status();
    assert!(waiting.pods_waiting["demo/web"].contains("veth-web"), "{:?}", waiting.pods_waiting);
    assert_eq!((waiting.pods_enforced, waiting.problems.len()), (1, 1));

    host.world().links.insert("veth-web".into(), 21);
    engine.refresh().unwrap();

    let status = engine.ask_status();
    assert_eq!((status.pods_enforced, status.problems, status.revision), (2, vec![], 1));
}

#[test]
fn an_attached_pod_is_enforced_before_its_interface_comes_up() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    engine.apply(CACHE).unwrap();
    let index = host.world().link("veth-cache");
    host.world().log.clear();

    let attached = engine.attach_pod("cache", "veth-cache").unwrap();

    assert_eq!(attached.revision, Some(2));
    assert_eq!(
        host.world().log,
        ["attach veth-cache".to_owned(), "commit".to_owned(), format!("up {index}")]
    );
}

#[test]
fn an_interface_of_an_unknown_pod_is_closed_until_a_manifest_knows_it() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    let index = host.world().link("veth-cache");

    let attached = engine.attach_pod("cache", "veth-cache").unwrap();

    assert_eq!(attached.revision, None);
    assert!(host.world().attached.contains_key("veth-cache"));
    assert!(!host.world().up.contains(&index));

    engine.apply(CACHE).unwrap();

    assert_eq!(host.world().interfaces[&"10.0.0.3".parse().unwrap()].ifindex, index);
    assert!(host.world().up.contains(&index));
}

#[test]
fn an_interface_cannot_be_attached_for_two_pods() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    host.world().link("veth-cache");
    engine.attach_pod("cache", "veth-cache").unwrap();

    let failure = engine.attach_pod("other", "veth-cache").unwrap_err();

    assert_eq!(failure.kind, FailureKind::Usage);
    assert!(failure.message.contains("demo/cache"));
    assert!(engine.attach_pod("cache", "veth-cache").is_ok());
}

#[test]
fn attaching_what_is_not_there_is_a_negative_answer() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    assert_eq!(engine.attach_pod("web", "veth-none").unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn an_interface_stays_closed_when_its_pod_goes() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    engine.delete(Kind::Pod, "demo", "web").unwrap();

    assert!(host.world().attached.contains_key("veth-web"));
    assert!(!host.world().interfaces.contains_key(&"10.0.0.1".parse().unwrap()));
}

#[test]
fn a_detached_interface_is_left_alone_until_it_is_attached_again() {
    let host = Host::new();
    let mut engine = host.start().unwrap();

    assert_eq!(engine.detach_from(Detach::Pod(pod("web"))).unwrap(), ["veth-web"]);
    engine.reload().unwrap();
    engine.refresh().unwrap();
    assert!(!host.world().attached.contains_key("veth-web"));
    assert!(engine.ask_status().pods_waiting["demo/web"].contains("weir detach"));

    engine.attach_pod("web", "veth-web").unwrap();
    assert_eq!(engine.ask_status().pods_enforced, 2);
    assert_eq!(engine.detach_from(Detach::Interface("eth9".into())).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn another_interface_of_the_same_name_inherits_nothing() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    engine.apply(CACHE).unwrap();
    host.world().links.insert("veth-cache".into(), 31);
    engine.attach_pod("cache", "veth-cache").unwrap();

    host.world().links.insert("veth-cache".into(), 32);
    engine.refresh().unwrap();

    let world = host.world();
    assert!(!world.attached.contains_key("veth-cache"));
    assert!(!world.interfaces.contains_key(&"10.0.0.3".parse().unwrap()));
}

#[test]
fn a_pod_whose_interface_cannot_be_attached_waits_and_the_others_do_not() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    engine
        .apply(
            &CACHE
                .replace("namespace: demo", "namespace: demo, annotations: {weir.dev/interface: veth-cache}"),
        )
        .unwrap();
    host.world().link("veth-cache");
    host.world().refuse_attach = true;

    engine.refresh().unwrap();

    let status = engine.ask_status();
    assert_eq!(status.pods_enforced, 2);
    assert!(status.pods_waiting["demo/cache"].contains("not permitted"), "{:?}", status.pods_waiting);
}

#[test]
fn no_annotation_takes_an_interface_from_another_pod_or_the_uplink() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    let stolen = |interface: &str| {
        CACHE.replace(
            "namespace: demo",
            &format!("namespace: demo, annotations: {{weir.dev/interface: {interface}}}"),
        )
    };

    engine.apply(&stolen("eth0")).unwrap();
    assert!(engine.ask_status().pods_waiting["demo/cache"].contains("uplink"));

    host.world().link("veth-x");
    engine.attach_pod("x", "veth-x").unwrap();
    engine.apply(&stolen("veth-x")).unwrap();
    assert!(engine.ask_status().pods_waiting["demo/cache"].contains("attached for another pod"));
}

#[test]
fn the_programs_move_with_the_uplink() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    host.world().links.insert("eth1".into(), 3);
    host.world().log.clear();

    host.write(
        &CLUSTER.replace("metadata: {name: a}", "metadata: {name: a, annotations: {weir.dev/uplink: eth1}}"),
    );
    engine.reload().unwrap();
    engine.reload().unwrap();

    assert_eq!(host.world().log, ["detach 2", "attach uplink eth1", "commit"]);
}
