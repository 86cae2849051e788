//! `weir check` and `weir lint` as a user meets them: what they print, and their exit status. There is no agent.

use std::{
    fs,
    process::{Command, Output},
};

const CLUSTER: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: demo, labels: {app: web}}
spec: {nodeName: a}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: demo, labels: {app: db}}
spec: {nodeName: a}
status: {podIP: 10.0.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: demo}
spec: {podSelector: {}}
";

const CHECK: &str = "\
apiVersion: weir.dev/v1alpha1
kind: PolicyCheck
metadata: {name: shop}
expect:
- {from: demo/web, to: demo/db, port: 5432, allowed: false}
- {from: node/a, to: 10.0.0.2, port: 5432, allowed: true}
---
apiVersion: v1
kind: Node
metadata: {name: a}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

/// Runs `weir` in a directory with these files.
fn weir(files: &[(&str, &str)], args: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(args).current_dir(directory.path()).env("WEIR_RUN_DIR", directory.path().join("run"));
    weir.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_check_that_holds_is_0_and_one_that_fails_is_1_with_its_line() {
    let holds = weir(&[("cluster.yaml", CLUSTER), ("check.yaml", CHECK)], &["check", "."]);
    let wrong = CHECK.replace("allowed: false", "allowed: true");
    let fails =
        weir(&[("cluster.yaml", CLUSTER), ("check.yaml", &wrong)], &["check", "cluster.yaml", "check.yaml"]);

    assert_eq!((holds.status.code(), text(&holds.stdout).as_str()), (Some(0), "2 passed, 0 failed\n"));
    assert_eq!(fails.status.code(), Some(1));
    assert_eq!(
        text(&fails.stdout),
        "check.yaml:5:3: failed: demo/web -> demo/db port 5432/TCP: expected allowed, got denied: egress demo/web \
         allowed: no policy selects it; ingress demo/db denied: isolated by demo/db (cluster.yaml:13:1)\n\
         1 passed, 1 failed\n"
    );
}

#[test]
fn a_check_in_junit_has_a_case_for_each_expectation_and_escapes_what_it_names() {
    let wrong = CHECK.replace("allowed: false", "allowed: true");
    let output = weir(&[("a&b.yaml", CLUSTER), ("check.yaml", &wrong)], &["check", "-o", "junit", "."]);
    let xml = text(&output.stdout);

    assert_eq!(output.status.code(), Some(1));
    assert!(xml.contains("<testsuites tests=\"2\" failures=\"1\">"), "{xml}");
    assert!(
        xml.contains("<testsuite name=\"shop\" file=\"./check.yaml\" tests=\"2\" failures=\"1\">"),
        "{xml}"
    );
    assert!(
        xml.contains(
            "name=\"node/a -&gt; 10.0.0.2 port 5432/TCP allowed\" file=\"./check.yaml\" line=\"6\"/>"
        ),
        "{xml}"
    );
    assert!(xml.contains("(./a&amp;b.yaml:13:1)\"/>"), "{xml}");
}

#[test]
fn a_check_of_what_is_not_there_or_of_nothing_is_3() {
    let unknown = CHECK.replace("to: demo/db", "to: demo/dbb");
    let unknown = weir(&[("cluster.yaml", CLUSTER), ("check.yaml", &unknown)], &["check", "."]);
    let nothing = weir(&[("cluster.yaml", CLUSTER)], &["check", "."]);

    assert_eq!((unknown.status.code(), nothing.status.code()), (Some(3), Some(3)));
    let complaint = "check.yaml:5:24: error: there is no demo/dbb in these manifests";
    assert!(text(&unknown.stderr).contains(complaint), "{}", text(&unknown.stderr));
    assert!(text(&nothing.stderr).contains("no PolicyCheck"), "{}", text(&nothing.stderr));
}

#[test]
fn lint_is_1_with_each_mistake_at_its_place_and_0_without_any() {
    let cluster = CLUSTER.replace("{podSelector: {}}", "{podSelector: {matchLabels: {app: db}}}");
    let found = weir(&[("cluster.yaml", &cluster)], &["lint", "cluster.yaml"]);
    let clean = weir(&[("cluster.yaml", CLUSTER)], &["lint", "cluster.yaml"]);
    let wrong = weir(&[("cluster.yaml", "kind: Pod")], &["lint", "cluster.yaml"]);

    assert_eq!(found.status.code(), Some(1));
    let lines = text(&found.stdout);
    assert!(
        lines.starts_with("cluster.yaml:1:1: [unprotected-pod] demo/web: no policy restricts"),
        "{lines}"
    );
    assert!(lines.ends_with("\n1 mistake found\n"), "{lines}");
    assert_eq!((clean.status.code(), text(&clean.stdout).as_str()), (Some(0), "0 mistakes found\n"));
    assert_eq!(wrong.status.code(), Some(3));
}
