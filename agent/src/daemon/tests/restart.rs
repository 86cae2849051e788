//! Ending and starting again.

use super::*;
use crate::daemon::enforcer::EnforceError;

#[test]
fn a_restarted_agent_knows_what_clients_changed_and_makes_no_new_revision() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    engine.apply(DENY).unwrap();
    engine.delete(Kind::Pod, "demo", "web").unwrap();
    drop(engine);

    let mut engine = host.start().unwrap();

    let status = engine.ask_status();
    assert_eq!((status.revision, status.policies, status.pods_enforced), (3, 1, 1));
    assert!(status.enforced_for.is_some());
}

#[test]
fn a_restarted_agent_knows_its_rules_by_the_numbers_that_the_kernel_counts_by() {
    let policy = |name: &str| DENY.replace("name: deny", &format!("name: {name}"));
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{}", policy("b")));
    let mut engine = host.start().unwrap();
    engine.apply(&policy("c")).unwrap();
    // Compiled in one go, this one would come before the others.
    engine.apply(&policy("a")).unwrap();
    engine.delete(Kind::NetworkPolicy, "demo", "c").unwrap();
    let before = host.world().datapath.rules.clone();
    drop(engine);

    let _engine = host.start().unwrap();

    assert_eq!(host.world().adopted, before);
    assert_eq!(host.world().datapath.rules, before);
}

#[test]
fn files_that_changed_meanwhile_win_over_what_a_client_said_about_them() {
    let host = Host::new();
    host.write(&format!("{CLUSTER}---\n{DENY}"));
    let mut engine = host.start().unwrap();
    engine.delete(Kind::NetworkPolicy, "demo", "deny").unwrap();
    drop(engine);

    host.write(&format!("{CLUSTER}---\n{ALLOW_WEB}"));
    let mut engine = host.start().unwrap();

    assert_eq!((engine.policies(), engine.ask_status().revision), (1, 3));
}

#[test]
fn bad_manifests_at_the_start_are_overcome_by_the_accepted_state() {
    let host = Host::new();
    host.start().unwrap();
    host.write("kind: [");

    let mut engine = host.start().unwrap();

    let status = engine.ask_status();
    assert_eq!((status.revision, status.pods_enforced), (1, 2));
    assert!(status.problems[0].contains("cluster.yaml:1"), "{:?}", status.problems);
}

#[test]
fn bad_manifests_at_the_first_start_end_the_agent() {
    let host = Host::new();
    host.write(&CLUSTER.replace("podIP: 10.0.0.2", "podIP: 10.0.0.256"));

    let Err(StartError::Input(message)) = host.start() else { panic!("started") };

    assert!(message.contains("cluster.yaml:") && message.contains("10.0.0.256"), "{message}");
    assert!(message.contains("no revision is active"), "{message}");
    assert_eq!(host.world().commits, 0);
}

#[test]
fn a_kernel_that_refuses_at_the_start_ends_the_agent() {
    let host = Host::new();
    host.world().refuse_commit = Some(|| EnforceError::Refused("operation not permitted".into()));

    let Err(StartError::Enforce(message)) = host.start() else { panic!("started") };

    assert!(message.contains("operation not permitted"), "{message}");
}

#[test]
fn an_attached_interface_is_still_attached_after_a_restart() {
    let host = Host::new();
    let mut engine = host.start().unwrap();
    let index = host.world().link("veth-cache");
    let pod = crate::cluster::Name { namespace: "demo".into(), name: "cache".into() };
    engine.answer(Request::Attach {
        pod,
        interface: "veth-cache".into(),
        mac: Some("02:00:00:00:00:77".into()),
    });
    drop(engine);

    let mut engine = host.start().unwrap();
    engine
        .apply("apiVersion: v1\nkind: Pod\nmetadata: {name: cache, namespace: demo}\nspec: {nodeName: a, containers: [{name: c}]}\nstatus: {podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}]}\n")
        .unwrap();

    let interface = host.world().interfaces[&"10.0.0.3".parse().unwrap()];
    assert_eq!((interface.ifindex, interface.mac), (index, [2, 0, 0, 0, 0, 0x77]));
}
