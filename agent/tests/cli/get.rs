//! `weir get`.

use super::*;

#[test]
fn wide_policies_come_with_their_rules() {
    let host = Host::new();
    host.agent("a", |request| {
        let Request::Get { kind, name, .. } = request else { panic!("another request") };
        let listing = |header: &str, cell: &str| Listing {
            columns: vec![Column { header: header.into(), wide: false, sum: false }],
            rows: vec![Row {
                namespace: Some("demo".into()),
                name: name.clone().unwrap(),
                object: String::new(),
                cells: vec![cell.into()],
                manifest: json!(null),
            }],
        };
        Response::Listing(match kind {
            Kind::Rules => listing("DEFINED AT", "db.yaml:9:5"),
            _ => listing("PODS", "2"),
        })
    });

    let wide = host.weir(&["get", "policy", "db", "-o", "wide"]);
    let plain = host.weir(&["get", "policy", "db"]);

    assert_eq!(stdout(&plain), "NAMESPACE   NAME   PODS\ndemo        db     2\n");
    assert_eq!(
        stdout(&wide),
        stdout(&plain) + "\nNAMESPACE   NAME   DEFINED AT\ndemo        db     db.yaml:9:5\n"
    );
}

/// A connection from demo/web to a service whose backend is demo/db.
fn connection() -> Connection {
    let party = |address: &str, kind, name: &str| Party {
        address: address.parse().unwrap(),
        port: 80,
        owner: Some(Owner { kind, name: name.into() }),
    };
    Connection {
        nodes: vec!["a".into()],
        protocol: "TCP".into(),
        client: party("10.0.0.1", OwnerKind::Pod, "demo/web"),
        frontend: party("10.96.0.1", OwnerKind::Service, "demo/sql"),
        masqueraded: None,
        server: party("10.0.0.2", OwnerKind::Pod, "demo/db"),
        state: State::Established,
        idle: 3,
        expires_in: 60,
        judged: true,
        egress: None,
        ingress: None,
    }
}

#[test]
fn connections_are_asked_for_by_conditions_and_listed() {
    let host = Host::new();
    host.agent("a", |request| {
        let name = |name: &str| Some(Name { namespace: "demo".into(), name: name.into() });
        let wanted = ConnectionFilter {
            pod: name("web"),
            service: name("sql"),
            protocol: Some("TCP".into()),
            state: Some(State::Established),
            address: Some("10.0.0.2/32".parse().unwrap()),
            limit: Some(1),
            namespace: None,
        };
        match request {
            Request::Connections(filter) if filter == wanted => {
                Response::Connections(Connections { items: vec![connection()], total: 7 })
            }
            other => Response::Failed(Failure::new(FailureKind::Usage, format!("{other:?}"))),
        }
    });
    let conditions = "--pod demo/web --service demo/sql --protocol tcp --in-state established --address 10.0.0.2 --limit 1";
    let args: Vec<_> = ["get", "connections"].into_iter().chain(conditions.split(' ')).collect();

    let plain = host.weir(&args);
    let json = host.weir(&[&args[..], &["-o", "json"]].concat());

    assert_eq!(
        stdout(&plain),
        "PROTOCOL   CLIENT        FRONTEND              SERVER       STATE         IDLE\n\
         TCP        demo/web:80   service demo/sql:80   demo/db:80   established   3s\n"
    );
    assert_eq!(stderr(&plain), "1 of 7 connections are shown; --limit 0 shows all\n");
    let list: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&list["apiVersion"], &list["kind"]), (&json!("weir.dev/v1alpha1"), &json!("ConnectionList")));
    assert_eq!(list["items"][0]["frontend"]["name"], "demo/sql");
}

#[test]
fn conditions_for_connections_make_no_sense_elsewhere() {
    let host = Host::new();
    host.agent("a", |request| panic!("{request:?}"));

    for args in [
        &["get", "pods", "--pod", "demo/web"] as &[&str],
        &["get", "services", "--limit", "3"],
        &["get", "connections", "web"],
        &["get", "connections", "-o", "name"],
        &["get", "connections", "--address", "10.0.0.0/33"],
        &["get", "connections", "--protocol", "quic"],
    ] {
        assert_eq!(status(&host.weir(args)), 2, "{args:?}");
    }
}

#[test]
fn diff_names_the_live_connections_that_a_change_would_end() {
    let host = Host::new();
    host.agent("a", |_| {
        let flow = FlowDifference { connection: connection(), effect: Effect::Cut("ingress: no".into()) };
        Response::Difference(Difference { flows: vec![flow], ..Difference::default() })
    });

    let output = host.weir(&["diff", "-f", "deny.yaml"]);

    assert_eq!(status(&output), 1);
    assert_eq!(
        stdout(&output),
        "LIVE CONNECTION   SERVER       PROTOCOL   EFFECT\n\
         demo/web:80       demo/db:80   TCP        cut: ingress: no\n"
    );
}

/// A service of two backends, as a node handles it.
fn report(node: &str, connections: [usize; 2]) -> ServiceReport {
    let backend = |last: u8, own, unused: Option<&str>, connections| BackendReport {
        port: "80/TCP".into(),
        backend: Party { address: [10, 0, 0, last].into(), port: 5432, owner: None },
        node: Some("a".into()),
        zone: None,
        state: if unused.is_none() { "ready" } else { "unhealthy" }.into(),
        weight: 100,
        inside: Slots { own, all: 251 },
        outside: Slots { own, all: 251 },
        unused: unused.map(Into::into),
        connections,
    };
    ServiceReport {
        name: "demo/sql".into(),
        nodes: vec![node.into()],
        kind: "ClusterIP".into(),
        source: Source { file: "sql.yaml".into(), line: 1, column: 1 },
        frontends: vec!["10.96.0.1:80/TCP".into()],
        settings: vec![Setting { name: "internalTrafficPolicy".into(), value: "Cluster".into() }],
        backends: vec![
            backend(1, 251, None, connections[0]),
            backend(2, 0, Some("it fails"), connections[1]),
        ],
    }
}

#[test]
fn a_service_is_described_once_for_nodes_that_handle_it_alike() {
    let host = Host::new();
    for (node, connections) in [("a", [2, 1]), ("b", [1, 0])] {
        host.agent(node, move |request| match request {
            Request::DescribeService(name) if name.to_string() == "demo/sql" => {
                Response::Service(Box::new(report(node, connections)))
            }
            other => panic!("{other:?}"),
        });
    }

    let output = host.weir(&["describe", "service", "demo/sql"]);

    assert_eq!(
        stdout(&output),
        "service demo/sql, ClusterIP (sql.yaml:1:1), as node a, b handles it\n\
        \x20 answers on: 10.96.0.1:80/TCP\n\
        \x20 internalTrafficPolicy: Cluster\n\
         \n\
         PORT     BACKEND         NODE   ZONE   STATE       WEIGHT   SLOTS        CONNECTIONS   SHARE                        NOT USED BECAUSE\n\
         80/TCP   10.0.0.1:5432   a      -      ready       100      251 of 251   3             ███████████████░░░░░  75 %   -\n\
         80/TCP   10.0.0.2:5432   a      -      unhealthy   100      -            1             █████░░░░░░░░░░░░░░░  25 %   it fails\n"
    );
}

#[test]
fn a_simulation_is_1_when_something_would_move() {
    let ring = RingChange {
        service: "demo/sql".into(),
        port: "80/TCP".into(),
        family: 4,
        outside: false,
        backends_before: 2,
        backends_after: 1,
        slots_before: 251,
        slots_after: 1,
        moved: 50_000,
        moved_from_staying: 100,
        flows: 3,
        flows_moved: 1,
        flows_cut: 0,
    };
    let moves = Simulation { rings: vec![ring], unchanged: 1, flows: 3, flows_moved: 1, flows_cut: 0 };
    for (simulation, expected) in [(moves, 1), (Simulation { unchanged: 2, ..Simulation::default() }, 0)] {
        let host = Host::new();
        host.agent("a", move |_| Response::Simulation(simulation.clone()));

        let output = host.weir(&["lb", "simulate", "-f", "deny.yaml"]);

        assert_eq!(status(&output), expected, "{}", stderr(&output));
        let text = stdout(&output);
        assert!(
            expected == 0
                || text.contains("2 -> 1     251 -> 1   50.0 %   0.1 %        3      1            0\n"),
            "{text}"
        );
        assert!(text.contains("live connection"), "{text}");
    }
}

#[test]
fn a_policy_is_one_report_with_what_the_nodes_have_counted_together() {
    let host = Host::new();
    for (node, counts) in [
        ("a", Some(RuleCounts { connections: 3, packets: 1200 })),
        ("b", Some(RuleCounts { connections: 4, packets: 50 })),
        ("c", None),
    ] {
        host.agent(node, move |request| {
            let name = PolicyName::Namespaced(Name { namespace: "demo".into(), name: "db".into() });
            assert_eq!(format!("{request:?}"), format!("{:?}", Request::DescribePolicy(name)));
            let source = Source { file: "db.yaml".into(), line: 9, column: 5 };
            Response::Policy(Box::new(PolicyReport {
                name: "demo/db".into(),
                kind: "NetworkPolicy".into(),
                nodes: vec![node.into()],
                source: source.clone(),
                tier: None,
                priority: None,
                pods: (0..12).map(|pod| format!("demo/db-{pod}")).collect(),
                isolates: vec!["ingress".into()],
                rules: vec![RuleReport {
                    rule: "ingress, no rule matches".into(),
                    name: None,
                    action: "Deny".into(),
                    source,
                    idle: None,
                    peers: None,
                    ports: None,
                    counts,
                }],
            }))
        });
    }

    let described = host.weir(&["describe", "policy", "demo/db"]);

    assert_eq!(
        stdout(&described),
        "NetworkPolicy demo/db (db.yaml:9:5)
  selects 12 pods: demo/db-0, demo/db-1, demo/db-2, demo/db-3, demo/db-4, demo/db-5, demo/db-6, demo/db-7, \
         demo/db-8, demo/db-9 and 2 more
  isolates them for ingress
  counted on a, b, c

  ingress, no rule matches (db.yaml:9:5): Deny, 7 connections, 1_250 packets
"
    );
}
