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

/// A cluster with policies of both kinds, whose rules name ports, blocks, nodes and namespaces.
const POLICIES: &str = "\
apiVersion: v1
kind: Node
metadata: {name: a, labels: {zone: z}}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: demo, labels: {app: web}}
spec: {nodeName: a}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: demo, labels: {app: db}}
spec: {nodeName: a, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: demo}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
    ports: [{port: sql}, {port: none}, {port: 8000, endPort: 8080, protocol: UDP}]
  - {}
  egress:
  - to: [{namespaceSelector: {matchLabels: {no: such}}}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 7
  subject: {namespaces: {}}
  egress:
  - {name: nodes, action: Deny, to: [{nodes: {matchLabels: {zone: z}}}]}
  - {action: Pass, to: [{networks: [10.0.0.0/31]}], protocols: [{tcp: {destinationPort: {number: 53}}}]}
";

#[test]
fn a_policy_is_described_with_whom_it_selects_and_whom_its_rules_mean() {
    let output = weir(&[("p.yaml", POLICIES)], &["describe", "policy", "-f", "p.yaml", "demo/db"]);

    assert_eq!(
        text(&output.stdout),
        "NetworkPolicy demo/db (p.yaml:18:1)
  selects 1 pod: demo/db
  isolates them for ingress

  ingress[0] (p.yaml:25:5): Accept
    from pods app=web (p.yaml:25:12): 1 pod: demo/web
    from 192.0.2.0/24 except 192.0.2.128/25 (p.yaml:25:54): no pod; 1 node: a
    port sql/TCP: 5432/TCP at demo/db
    port none/TCP: no receiver has a port of this name
    port 8000-8080/UDP

  ingress[1] (p.yaml:27:5): Accept
    from everyone
    every port

  ingress, no rule matches (p.yaml:18:1): Deny

  egress[0] (p.yaml:29:5): Accept
    has no effect: policyTypes leaves egress out
    to pods (all) in namespaces no=such (p.yaml:29:10): no pod
    every port
"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_cluster_network_policy_is_described_by_its_name_alone() {
    let output = weir(&[("p.yaml", POLICIES)], &["describe", "policy", "-f", "p.yaml", "guard"]);

    assert_eq!(
        text(&output.stdout),
        "ClusterNetworkPolicy guard, tier Admin, priority 7 (p.yaml:31:1)
  selects 2 pods: demo/db, demo/web

  egress[0] \"nodes\" (p.yaml:39:5): Deny
    to nodes zone=z (p.yaml:39:38): no pod; 1 node: a
    every port

  egress[1] (p.yaml:40:5): Pass
    to 10.0.0.0/31 (p.yaml:40:25): 1 pod: demo/web
    port 53/TCP
"
    );
}

#[test]
fn a_description_as_json_has_every_pod_and_place_and_a_policy_that_is_not_there_is_1() {
    let json = weir(&[("p.yaml", POLICIES)], &["describe", "policy", "-f", ".", "demo/db", "-o", "json"]);
    let missing = weir(&[("p.yaml", POLICIES)], &["describe", "policy", "-f", ".", "db"]);

    let list: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let rule = &list["items"][0]["rules"][0];
    assert_eq!(rule["source"], serde_json::json!({"file": "./p.yaml", "line": 25, "column": 5}));
    assert_eq!(rule["ports"][0]["numbers"][0]["pods"], serde_json::json!(["demo/db"]));
    assert_eq!(
        (&rule["counts"], &list["items"][0]["nodes"]),
        (&serde_json::Value::Null, &serde_json::json!([]))
    );
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(text(&missing.stderr), "error: ClusterNetworkPolicy db is not there\n");
}
