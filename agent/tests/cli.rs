//! The binary as a user meets it: what it prints, and its exit status. An agent is played by a thread.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;
use weir::{
    cluster::Name,
    protocol::{
        self, Change, Changed, ChangedObject, Column, Decider, Difference, Failure, FailureKind, Filter,
        Kind, Listing, ObjectDifference, Observation, Outcome, Owner, OwnerKind, Party, Request, Response,
        Row, Status, Verdict,
    },
    source::Source,
};

const DENY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: demo}
spec: {podSelector: {}}
";

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.file("deny.yaml", DENY);
        host
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// An agent that answers as told, for as long as the test runs.
    fn agent(&self, node: &str, answer: impl Fn(Request) -> Response + Send + 'static) {
        let state = self.path().join("run").join(node);
        fs::create_dir_all(&state).unwrap();
        let listener = UnixListener::bind(state.join(protocol::SOCKET)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = Vec::new();
                BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
                let response = answer(protocol::decode(&line).unwrap());
                stream.write_all(&protocol::encode(&response).unwrap()).unwrap();
            }
        });
    }

    fn weir(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .current_dir(self.path())
            .env("WEIR_RUN_DIR", self.path().join("run"))
            .output()
            .unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn created(revision: u64) -> Response {
    let object = "networkpolicy.networking.k8s.io/demo/deny".to_owned();
    Response::Changed(Changed {
        revision,
        objects: vec![ChangedObject { object, outcome: Outcome::Created }],
    })
}

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
fn wrong_manifests_are_3_with_every_error_at_its_place() {
    let host = Host::new();
    host.agent("a", |_| Response::Status(Box::new(Status { revision: 41, ..Status::default() })));
    host.file("bad.yaml", &DENY.replace("{podSelector: {}}", "{podSelecter: {}, policyTypes: [Both]}"));

    let output = host.weir(&["apply", "-f", "bad.yaml"]);

    let text = stderr(&output);
    assert_eq!(status(&output), 3);
    assert!(text.contains("bad.yaml:4:8: error: ") && text.contains("^^^^^^^^^^^"), "{text}");
    assert!(text.contains("Both"), "{text}");
    assert!(text.trim_end().ends_with("nothing was applied (revision 41 stays active)"), "{text}");
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_file_that_is_not_there_is_3() {
    let host = Host::new();
    host.agent("a", |_| created(1));

    let output = host.weir(&["apply", "-f", "nothing.yaml"]);

    assert_eq!(status(&output), 3);
    assert!(stderr(&output).contains("nothing.yaml: error: cannot be read"), "{}", stderr(&output));
}

#[test]
fn apply_says_what_became_of_each_object_and_which_revision_is_enforced() {
    let host = Host::new();
    host.agent("a", |_| created(42));

    let output = host.weir(&["apply", "-f", "deny.yaml"]);

    assert_eq!(status(&output), 0);
    assert_eq!(stdout(&output), "networkpolicy.networking.k8s.io/demo/deny created\nrevision 42 enforced\n");
}

#[test]
fn a_change_that_one_agent_finds_wrong_is_made_on_none() {
    let host = Host::new();
    host.agent("a", |request| match request {
        Request::Change { dry_run: true, .. } => created(1),
        other => panic!("{other:?}"),
    });
    host.agent("b", |_| Response::Failed(Failure::new(FailureKind::Input, "no; nothing was applied")));

    let output = host.weir(&["apply", "-f", "deny.yaml"]);

    assert_eq!((status(&output), stdout(&output)), (3, String::new()));
}

#[test]
fn a_change_that_the_kernel_refuses_on_one_node_is_undone_on_the_others() {
    let host = Host::new();
    host.agent("a", |request| match request {
        Request::Change { .. } => created(2),
        Request::Undo { revision: 2 } => Response::Changed(Changed { revision: 3, objects: Vec::new() }),
        other => panic!("{other:?}"),
    });
    host.agent("b", |request| match request {
        Request::Change { dry_run: true, .. } => created(1),
        _ => Response::Failed(Failure::new(FailureKind::Kernel, "map PEERS is full")),
    });

    let output = host.weir(&["apply", "-f", "deny.yaml"]);

    assert_eq!((status(&output), stdout(&output)), (6, String::new()));
    let text = stderr(&output);
    assert!(text.contains("b: map PEERS is full") && text.contains("a: back at revision 3"), "{text}");
}

#[test]
fn failures_have_their_own_statuses() {
    let kinds = [
        (FailureKind::NotFound, 1),
        (FailureKind::Usage, 2),
        (FailureKind::Input, 3),
        (FailureKind::Kernel, 5),
        (FailureKind::RolledBack, 6),
    ];
    for (kind, expected) in kinds {
        let host = Host::new();
        host.agent("a", move |_| Response::Failed(Failure::new(kind, "why")));

        let output = host.weir(&["delete", "netpol/deny", "-n", "demo"]);

        assert_eq!(status(&output), expected);
        assert_eq!(stderr(&output), "error: why\n");
    }
}

#[test]
fn delete_names_objects_by_kind_or_by_file() {
    let host = Host::new();
    host.agent("a", |request| {
        let Request::Change { change: Change::Delete(keys), .. } = request else { panic!("{request:?}") };
        assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["NetworkPolicy demo/deny"]);
        Response::Changed(Changed::default())
    });

    for args in [
        &["delete", "netpol/deny", "-n", "demo"] as &[&str],
        &["delete", "networkpolicies", "deny", "-n", "demo"],
        &["delete", "-f", "deny.yaml"],
    ] {
        assert_eq!(status(&host.weir(args)), 0, "{args:?}");
    }
}

#[test]
fn diff_is_0_without_and_1_with_a_difference() {
    let host = Host::new();
    host.agent("a", |_| Response::Difference(Difference::default()));
    let same = host.weir(&["diff", "-f", "deny.yaml"]);
    let host = Host::new();
    host.agent("a", |_| {
        let object = ObjectDifference {
            object: "pod/demo/db".into(),
            before: "a: 1\n".into(),
            after: "a: 2\n".into(),
        };
        Response::Difference(Difference { objects: vec![object], ..Difference::default() })
    });
    let differs = host.weir(&["diff", "-f", "deny.yaml"]);

    assert_eq!((status(&same), stdout(&same)), (0, String::new()));
    assert_eq!(status(&differs), 1);
    assert!(stdout(&differs).contains("-a: 1\n+a: 2\n"), "{}", stdout(&differs));
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

#[test]
fn an_agent_with_wrong_manifests_refuses_to_start_with_3() {
    let host = Host::new();
    host.file("bad.yaml", "kind: [\n");

    let output = host.weir(&["agent", "--node", "a", "--manifests", "bad.yaml", "--bpffs", "bpf"]);

    assert_eq!(status(&output), 3);
    assert!(stderr(&output).contains("bad.yaml:"), "{}", stderr(&output));
    assert!(!host.path().join("bpf").exists());
}

#[test]
fn an_agent_that_cannot_use_its_state_directory_refuses_to_start_with_5() {
    let host = Host::new();
    fs::create_dir(host.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", host.path().join("state")).unwrap();

    let output = host.weir(&[
        "agent",
        "--node",
        "a",
        "--manifests",
        "deny.yaml",
        "--state",
        "state",
        "--bpffs",
        "bpf",
    ]);

    assert_eq!(status(&output), 5);
    assert!(stderr(&output).contains("symbolic link"), "{}", stderr(&output));
}

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
            Request::Observe(filter) if filter == wanted => Response::Observed(Box::new(dropped())),
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
