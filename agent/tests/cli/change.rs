//! `weir apply`, `delete` and `diff`.

use super::*;

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
