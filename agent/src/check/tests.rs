//! Expectations and how they fare.

use super::*;
use crate::{cluster::Objects, manifest};

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: a}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: demo, labels: {app: web}}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: demo, labels: {app: db}}
spec: {nodeName: b, containers: [{ports: [{containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.0.1.1}, {ip: 'fd00::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere, namespace: demo}
spec: {}
status: {podIP: 10.0.2.1}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: demo}
spec: {clusterIP: 10.96.0.1, ports: [{port: 1, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db, namespace: demo, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{port: 5432, protocol: TCP}]
endpoints: [{addresses: [10.0.1.1]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: demo}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}]
  - from: [{ipBlock: {cidr: 198.51.100.0/24}}]
";

/// Runs a check with these items of `expect`; a text for each that fails, or the error.
fn failures(items: &str) -> Result<Vec<String>, String> {
    let check = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: PolicyCheck\nmetadata: {{name: shop}}\nexpect:\n{items}"
    );
    let documents = manifest::Reader::default().text("cluster.yaml", CLUSTER).text("check.yaml", &check);
    let documents = documents.finish().map_err(|found| found.to_string())?;
    let checks = documents.checks.clone();
    let mut objects = Objects::default();
    objects.insert_all(documents);
    let cluster = objects.build().unwrap();
    let checked = run(&cluster, &checks).map_err(|error| error.to_string())?;
    let failed = checked.iter().filter_map(|checked| {
        let why = &checked.failure.as_ref()?.why;
        Some(format!("{} {}: {why}", checked.expectation.source, checked.expectation))
    });
    Ok(failed.collect())
}

#[test]
fn what_the_policies_say_passes_and_its_opposite_fails() {
    let items = "\
- {from: demo/web, to: demo/db, port: 5432, allowed: true}
- {from: demo/web, to: svc/demo/db, port: 1, allowed: true}
- {from: demo/web, to: demo/db, port: 5432, protocol: UDP, allowed: false}
- {from: demo/web, to: demo/db, port: 5433, allowed: false}
- {from: demo/db, to: demo/web, port: 80, allowed: true}
- {from: 198.51.100.7, to: demo/db, port: 9, allowed: true}
- {from: 203.0.113.7, to: demo/db, port: 9, allowed: false}
- {from: node/a, to: demo/web, port: 9, allowed: true}
- {from: demo/web, to: svc/demo/db, port: 2, allowed: false}
";
    assert_eq!(failures(items), Ok(Vec::new()));

    let swapped = items.replace("true", "yes").replace("false", "true").replace("yes", "false");
    assert_eq!(failures(&swapped).unwrap().len(), 9);
}

#[test]
fn a_failure_names_its_line_and_what_decided_at_each_end() {
    let failed = failures("- {from: demo/web, to: demo/db, port: 80, allowed: true}\n").unwrap();

    assert_eq!(
        failed,
        ["check.yaml:5:3 demo/web -> demo/db port 80/TCP: egress demo/web allowed: no policy selects it; \
          ingress demo/db denied: isolated by demo/db (cluster.yaml:36:1)"]
    );
    let failed = failures("- {from: demo/web, to: svc/demo/db, port: 1, allowed: false}\n").unwrap();
    assert!(failed[0].contains("backend 10.0.1.1:5432: "), "{failed:?}");
    assert!(
        failed[0].ends_with("ingress demo/db allowed: demo/db ingress[0] (cluster.yaml:42:5)"),
        "{failed:?}"
    );
}

#[test]
fn an_expectation_holds_for_both_families_or_fails() {
    let documents = manifest::from_text(
        "cluster.yaml",
        &format!(
            "{CLUSTER}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web, namespace: demo}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}]}}]
---
apiVersion: weir.dev/v1alpha1
kind: PolicyCheck
metadata: {{name: families}}
expect:
- {{from: demo/db, to: demo/web, port: 80, allowed: true}}
- {{from: demo/db, to: demo/web, port: 80, allowed: false}}
- {{from: 10.0.1.1, to: demo/web, port: 80, allowed: true}}
"
        ),
    )
    .unwrap();
    let checks = documents.checks.clone();
    let mut objects = Objects::default();
    objects.insert_all(documents);

    let checked = run(&objects.build().unwrap(), &checks).unwrap();

    let failed: Vec<_> = checked.iter().map(|checked| checked.failure.is_some()).collect();
    assert_eq!(failed, [true, true, false]);
}

#[test]
fn ends_that_are_not_there_are_errors_at_their_places() {
    let error = failures(
        "\
- {from: demo/wbe, to: demo/db, port: 1, allowed: true}
- {from: demo/nowhere, to: demo/db, port: 1, allowed: true}
- {from: demo/web, to: node/z, port: 1, allowed: true}
- {from: 'fd00::9', to: node/a, port: 1, allowed: true}
",
    )
    .unwrap_err();

    for part in [
        "check.yaml:5:10: error: there is no demo/wbe in these manifests",
        "check.yaml:6:10: error: demo/nowhere is on no node",
        "check.yaml:7:24: error: there is no node/z",
        "check.yaml:8:25: error: fd00::9 and node/a have no address of one family",
    ] {
        assert!(error.contains(part), "{part} in:\n{error}");
    }
}

#[test]
fn a_check_is_read_strictly() {
    for (item, complaint) in [
        (
            "{from: demo/web, to: demo/db, prot: 1, allowed: true}",
            "check.yaml:5:33: error: unknown field `prot`",
        ),
        ("{from: demo/web, to: demo/db, port: 0, allowed: true}", "0 is not a port"),
        ("{from: demo/web, to: demo/db, port: 1}", "expect[0].allowed is required"),
        ("{from: demo/web, to: demo/db, port: 1, allowed: maybe}", "expected true or false"),
        ("{from: web, to: demo/db, port: 1, allowed: true}", "`web` is none of NAMESPACE/POD"),
        ("{from: svc/demo/db, to: demo/db, port: 1, allowed: true}", "a service opens no connections"),
    ] {
        let error = failures(&format!("- {item}\n")).unwrap_err();
        assert!(error.contains(complaint), "{complaint} in:\n{error}");
    }
    assert!(failures("  []\n").unwrap_err().contains("expects nothing"));
}

#[test]
fn an_agent_counts_a_check_among_what_it_leaves_aside() {
    let check = "apiVersion: weir.dev/v1alpha1\nkind: PolicyCheck\nmetadata: {name: a}\nexpect:\n- {from: a/b, to: a/c, port: 1, allowed: true}\n";

    let documents = manifest::from_text("check.yaml", check).unwrap();

    assert!(documents.objects.is_empty());
    assert_eq!(documents.skipped, BTreeMap::from([(PolicyCheck::COUNTED_AS.to_owned(), 1)]));
    let misspelt = manifest::from_text("check.yaml", &check.replace("PolicyCheck", "PolicyChek"));
    assert!(misspelt.unwrap_err().to_string().contains("WeirConfiguration and PolicyCheck"));
}
