//! What all commands have in common.

use super::*;

#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    let host = Host::new();
    for args in
        [&[] as &[&str], &["frobnicate"], &["apply"], &["get", "unicorns"], &["delete", "pod"], &["detach"]]
    {
        assert_eq!(status(&host.weir(args)), 2, "{args:?}");
    }
    assert_eq!(status(&host.weir(&["--help"])), 0);
    assert_eq!(status(&host.weir(&["version"])), 0);
    assert!(stdout(&host.weir(&["completion", "bash"])).contains("weir"));
}

#[test]
fn no_agent_is_4() {
    let host = Host::new();

    let none = host.weir(&["status"]);
    let no_such = host.weir(&["get", "pods", "--node", "a"]);

    assert_eq!((status(&none), status(&no_such)), (4, 4));
    assert!(stderr(&none).starts_with("error: no agent runs on this host"), "{}", stderr(&none));
}

#[test]
fn a_file_beside_the_state_directories_is_no_agent() {
    let host = Host::new();
    fs::create_dir(host.path().join("run")).unwrap();
    host.file("run/demo.json", "{}");

    let none = host.weir(&["status"]);

    assert!(stderr(&none).starts_with("error: no agent runs on this host"), "{}", stderr(&none));
}

#[test]
fn a_dead_agent_is_4_and_the_living_are_still_read() {
    let host = Host::new();
    host.agent("a", |_| Response::Status(Box::new(Status { node: "a".into(), ..Status::default() })));
    fs::create_dir_all(host.path().join("run/b")).unwrap();
    drop(UnixListener::bind(host.path().join("run/b").join(protocol::SOCKET)).unwrap());

    let output = host.weir(&["status"]);

    assert_eq!(status(&output), 4);
    assert!(stdout(&output).starts_with("a: ok"), "{}", stdout(&output));
    assert!(stderr(&output).contains("stays in force"), "{}", stderr(&output));
}

#[test]
fn status_is_1_when_something_is_wrong() {
    let host = Host::new();
    host.agent("a", |_| {
        Response::Status(Box::new(Status { problems: vec!["pod demo/db waits".into()], ..Status::default() }))
    });

    let output = host.weir(&["status"]);

    assert_eq!(status(&output), 1);
    assert!(stdout(&output).contains("pod demo/db waits"));
}

#[test]
fn nothing_that_an_agent_says_can_steer_the_terminal() {
    let host = Host::new();
    let evil = "demo\u{1b}]0;owned\u{7}\u{202e}\n";
    host.agent("a", move |request| match request {
        Request::Get { .. } => Response::Listing(Listing {
            columns: vec![Column { header: evil.into(), wide: false, sum: false }],
            rows: vec![Row {
                namespace: Some(evil.into()),
                name: evil.into(),
                object: evil.into(),
                cells: vec![evil.into()],
                manifest: json!({ evil: evil }),
            }],
        }),
        Request::Status => Response::Status(Box::new(Status {
            node: evil.into(),
            version: evil.into(),
            problems: vec![evil.into()],
            last_error: Some(evil.into()),
            edge_refused: Some(evil.into()),
            ..Status::default()
        })),
        Request::Explain { .. } => Response::Explained { allowed: true, text: evil.into() },
        _ => Response::Failed(Failure::new(FailureKind::Input, evil)),
    });

    for args in [
        &["get", "pods"] as &[&str],
        &["get", "pods", "-o", "json"],
        &["get", "pods", "-o", "yaml"],
        &["get", "pods", "-o", "name"],
        &["status"],
        &["status", "-o", "json"],
        &["explain", "a", "b:1"],
        &["apply", "-f", "deny.yaml"],
    ] {
        let output = host.weir(args);
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("owned"), "{args:?}: {text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{args:?}: {text:?}");
    }
}

#[test]
fn status_says_why_the_edge_is_served_by_tc() {
    let host = Host::new();
    host.agent("a", |_| {
        let why = Some("cannot attach XDP to `eth0`: not supported".to_owned());
        Response::Status(Box::new(Status { node: "a".into(), edge_refused: why, ..Status::default() }))
    });
    let output = host.weir(&["status"]);
    // It is slower, and right all the same.
    assert_eq!(status(&output), 0);
    let line = "services at the edge are served by TC, slower: cannot attach XDP to `eth0`: not supported";
    assert!(stdout(&output).contains(line), "{}", stdout(&output));
    let json = stdout(&host.weir(&["status", "-o", "json"]));
    assert!(json.contains("\"edgeRefused\""), "{json}");
}

#[test]
fn explain_works_on_files_without_an_agent() {
    let host = Host::new();
    let pod = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: demo}}\n\
             spec: {{nodeName: a, containers: [{{name: c, image: i}}]}}\n\
             status: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n---\n"
        )
    };
    let pods = pod("web", "10.0.0.1") + &pod("db", "10.0.0.2");
    host.file("open.yaml", &pods);
    host.file("closed.yaml", &(pods + DENY));

    let open = host.weir(&["explain", "-f", "open.yaml", "demo/web", "demo/db:5432"]);
    let closed = host.weir(&["explain", "-f", "closed.yaml", "demo/web", "demo/db:5432"]);
    let unknown = host.weir(&["explain", "-f", "open.yaml", "demo/web", "demo/nobody:5432"]);

    assert_eq!((status(&open), status(&closed), status(&unknown)), (0, 1, 2));
    assert!(stdout(&closed).contains("isolated by demo/deny (closed.yaml:"), "{}", stdout(&closed));
}
