//! Pods that are born and die (attack tests 12 and 16).

use std::time::Duration;

use weir_tests::live::{
    Live, Outcome, Plan, Pod, apply, delete, isolated, manifests, name, netns, network,
    traffic::{Sender, Sink},
    wait_until,
};

const ALLOWED: u16 = 7001;
const DENIED: u16 = 7002;

/// A namespace with a veth to node 1, for a pod that no manifest knows.
fn newborn(plan: &Plan, pod_name: &str, host: u8) -> Pod {
    let pod = Pod {
        name: name(pod_name),
        node: 0,
        netns: format!("newborn-{pod_name}"),
        interface: Some(format!("new{host}")),
        addresses: vec![
            format!("10.244.1.{host}").parse().unwrap(),
            format!("fd00:10:244:1::{host}").parse().unwrap(),
        ],
        ports: [].into(),
    };
    netns::ip(None, &[format!("netns add {}", pod.netns)]).unwrap();
    network::build_pod(&plan.nodes[pod.node], &pod).unwrap();
    pod
}

fn is_up(live: &Live, pod: &Pod) -> bool {
    let link = live.command("node-1", "ip", &["-o", "link", "show", pod.interface.as_ref().unwrap()]);
    link.contains(",UP") || link.contains("<UP")
}

/// Lets any pod send to `server` on one port alone, and only `client` into the newborn.
fn policies(newborn: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: birth-server, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  policyTypes: [Ingress]
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app: {newborn}}}}}}}]
      ports: [{{port: {ALLOWED}, protocol: UDP}}]
{}",
        manifests::ingress("birth-newborn", newborn, &["client"])
    )
}

#[test]
fn nothing_leaks_at_the_birth_of_a_pod() {
    isolated(|| {
        let cluster = [manifests::cluster(), policies("newborn")].concat();
        let live = Live::start(&cluster);
        let server = [ALLOWED, DENIED].map(|port| Sink::open(live.netns("server"), port));
        for birth in 0..40 {
            let host = 100 + birth;
            let pod = newborn(&live.plan, "newborn", host);
            let pace = Duration::from_micros(200);
            let send = |from: &str, target| Sender::with_pace(from, target, pace);
            let sink = Sink::open(&pod.netns, ALLOWED);
            let own = (pod.addresses[usize::from(birth % 2)], ALLOWED).into();
            let family = usize::from(birth % 2);
            let mut out_denied = send(&pod.netns, live.at("server", DENIED)[family]);
            let mut out_allowed = send(&pod.netns, live.at("server", ALLOWED)[family]);
            let mut in_denied = send(live.netns("denied"), own);
            let mut in_allowed = send(live.netns("client"), own);

            // Half of them are known before they are attached, half are attached first.
            let manifest = manifests::pod("newborn", 1, host);
            let attach = || live.attach(&pod).done();
            if birth % 4 < 2 {
                apply(&manifest).done();
                assert!(!is_up(&live, &pod));
                assert!(attach().contains("enforced"));
            } else {
                attach();
                assert!(!is_up(&live, &pod), "up before a manifest knows the pod");
                assert_eq!(server[0].from(&out_allowed).len(), 0);
                apply(&manifest).done();
            }
            assert!(is_up(&live, &pod));
            network::route_to(&live.plan, &pod).unwrap();
            // The legal twins are delivered, in both directions.
            wait_until("the newborn is heard", || !out_allowed.answered().is_empty());
            wait_until("the newborn hears", || !in_allowed.answered().is_empty());

            delete(&manifest).done();
            let interface = pod.interface.as_deref().unwrap();
            netns::ip(Some(live.netns("node-1")), &[format!("link delete {interface}")]).unwrap();
            netns::remove(&pod.netns).unwrap();
            for sender in [&mut out_denied, &mut out_allowed, &mut in_denied, &mut in_allowed] {
                sender.finish();
            }
            assert_eq!(server[1].from(&out_denied).len(), 0, "birth {birth}: leaked out");
            assert_eq!(sink.from(&in_denied).len(), 0, "birth {birth}: leaked in");
        }
    });
}

#[test]
fn an_interface_for_a_pod_that_no_manifest_knows_is_closed_even_when_somebody_brings_it_up() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let pod = newborn(&live.plan, "newborn", 100);
        assert!(live.attach(&pod).done().contains("attached"));
        network::bring_up(&live.plan, &pod).unwrap();
        network::route_to(&live.plan, &pod).unwrap();
        let (out, into) = (Sink::open(live.netns("client"), ALLOWED), Sink::open(&pod.netns, ALLOWED));
        let pairs = [0, 1].map(|family| {
            let own = (pod.addresses[family], ALLOWED).into();
            let out = Sender::start(&pod.netns, live.at("client", ALLOWED)[family]);
            (out, Sender::start(live.netns("client"), own))
        });
        pairs.iter().for_each(|(out, _)| out.advance(100));
        for (mut sending, mut receiving) in pairs {
            sending.finish_empty(&out);
            receiving.finish_empty(&into);
        }

        apply(&manifests::pod("newborn", 1, 100)).done();

        let mut sender = Sender::start(&pod.netns, live.at("client", ALLOWED)[0]);
        sender.advance(50);
        sender.finish_whole(&out);
    });
}

#[test]
fn a_recycled_address_inherits_nothing() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let heir = manifests::pod("heir", 1, 10);
        let server = Sink::open(live.netns("server"), ALLOWED);
        let mut before = live.at("server", ALLOWED).map(|to| Sender::start(live.netns("client"), to));
        before.iter().for_each(|sender| sender.advance(50));

        // The same namespace, addresses and sockets, so also the same ports: only the pod is another.
        delete(&manifests::pod("client", 1, 10)).done();
        let marks = [0, 1].map(|family| before[family].sent());
        apply(&heir).done();
        let interface = live.pod("client").interface.clone().unwrap();
        let heir_name = name("heir").to_string();
        weir_tests::live::weir(&["detach", "--interface", &interface, "--node", "node-1"]).done();
        weir_tests::live::weir(&[
            "attach",
            "--node",
            "node-1",
            "--pod",
            &heir_name,
            "--interface",
            &interface,
        ])
        .done();
        before.iter().for_each(|sender| sender.advance(50));

        for (sender, mark) in before.iter_mut().zip(marks) {
            sender.finish();
            let arrived = server.from(sender);
            assert!((1..=mark.min(40)).all(|number| arrived.contains(&number)), "client itself was allowed");
            let late: Vec<_> = arrived.range(mark + 1..).collect();
            assert!(late.is_empty(), "after the client was gone: {late:?}");
        }
        // It is the policy that keeps the heir out, not that nothing works.
        assert_eq!(
            live.probe("client", weir::cluster::Protocol::Tcp, live.at("denied", manifests::TCP)[0]),
            Outcome::Answer("shop/denied".to_owned())
        );
        assert_eq!(live.reaches("client", &["server", "far"]), [""; 0]);
    });
}
