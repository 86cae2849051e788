//! `weir observe`.

use super::*;

/// A packet from demo/web to demo/db that a policy dropped.
fn dropped() -> Observation {
    let party = |address: &str, name: &str| {
        let owner = Owner { kind: OwnerKind::Pod, name: name.into() };
        Some(Party { address: address.parse().unwrap(), port: 80, owner: Some(owner) })
    };
    let source = Source { file: "db.yaml".into(), line: 9, column: 5 };
    Observation {
        time: "2026-01-02T03:04:05.006Z".into(),
        verdict: Verdict::Dropped,
        reason: Some("POLICY_DENY".into()),
        explanation: Some("a rule denies it".into()),
        protocol: Some("TCP".into()),
        source: party("10.0.0.1", "demo/web"),
        destination: party("10.0.0.2", "demo/db"),
        backend: None,
        egress: None,
        ingress: Some(Decider {
            text: "no-web ingress[0] (db.yaml:9:5)".into(),
            policies: vec!["no-web".into()],
            rule: Some(0),
            sources: vec![source],
        }),
    }
}

#[test]
fn observe_hands_its_conditions_to_the_agent_and_names_the_rule() {
    let host = Host::new();
    host.agent("a", |request| {
        let wanted = Filter {
            to_pod: Some(Name { namespace: "demo".into(), name: "db".into() }),
            verdict: Some(Verdict::Dropped),
            reason: Some("POLICY_DENY".into()),
            ..Filter::default()
        };
        match request {
            Request::Observe { filter, last: 0, follow: true } if filter == wanted => {
                Response::Observed(Box::new(Event::Packet(Box::new(dropped()))))
            }
            other => Response::Failed(Failure::new(FailureKind::Usage, format!("{other:?}"))),
        }
    });
    let args = ["observe", "--to-pod", "demo/db", "--verdict", "dropped", "--reason", "policy_deny"];

    let compact = host.weir(&args);
    let json = host.weir(&[&args[..], &["-o", "json"]].concat());

    assert_eq!(
        stdout(&compact),
        "03:04:05.006Z demo/web:80 -> demo/db:80/TCP DROPPED POLICY_DENY: a rule denies it; \
         ingress: no-web ingress[0] (db.yaml:9:5)\n"
    );
    assert_eq!(stdout(&json).lines().count(), 1);
    let seen: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(seen["apiVersion"], "weir.dev/v1alpha1");
    assert_eq!(seen["verdict"], "dropped");
    assert_eq!(seen["source"]["name"], "demo/web");
    assert_eq!(seen["ingress"]["sources"][0], json!({ "file": "db.yaml", "line": 9, "column": 5 }));
}

#[test]
fn observe_refuses_conditions_that_nothing_meets() {
    let host = Host::new();
    for args in [["--verdict", "denied"], ["--reason", "BAD_LUCK"], ["--pod", "web"]] {
        assert_eq!(status(&host.weir(&["observe", args[0], args[1]])), 2, "{args:?}");
    }
}

#[test]
fn the_last_events_of_all_agents_come_in_their_order_and_end() {
    let host = Host::new();
    for (node, time) in [("a", "T03:00:02Z"), ("b", "T03:00:01Z"), ("c", "T03:00:03Z")] {
        host.agent(node, move |request| {
            assert!(matches!(request, Request::Observe { last: 2, follow: false, .. }), "{request:?}");
            Response::Observed(Box::new(Event::Health(HealthChange {
                time: time.to_owned(),
                service: "demo/sql".into(),
                backend: Party { address: "10.0.0.2".parse().unwrap(), port: 80, owner: None },
                healthy: node == "a",
                failure: (node != "a").then(|| "connection refused".into()),
            })))
        });
    }

    let compact = host.weir(&["observe", "--last", "2"]);
    let json = host.weir(&["observe", "--last", "2", "-o", "json"]);

    assert_eq!(
        stdout(&compact),
        "a: 03:00:02Z service demo/sql backend 10.0.0.2:80 HEALTHY\n\
         c: 03:00:03Z service demo/sql backend 10.0.0.2:80 UNHEALTHY: connection refused\n"
    );
    assert_eq!((status(&compact), stderr(&compact)), (0, String::new()));
    let last: serde_json::Value = serde_json::from_str(stdout(&json).lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["kind"], &last["healthy"], &last["agent"]),
        (&json!("HealthChange"), &json!(false), &json!("c"))
    );
}
