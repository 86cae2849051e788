//! Each mistake with its innocent twin: the smallest change after which nothing is found.

use super::*;
use crate::{cluster::Objects, manifest};

/// Two pods that a policy of their namespace protects, one that none does, and DNS by a named port.
const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: demo, labels: {app: web}}
spec: {nodeName: a, containers: [{ports: [{name: http, containerPort: 80}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: demo, labels: {app: db}}
spec: {nodeName: a, containers: [{ports: [{name: sql, containerPort: 5432}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default, namespace: demo}
spec: {podSelector: {}}
";

/// What is found in a cluster of [`PODS`] and `others`, as `LINE:COLUMN CODE` in the text of `others`.
fn found(others: &str) -> Vec<String> {
    let documents = manifest::Reader::default().text("pods.yaml", PODS).text("others.yaml", others);
    let mut objects = Objects::default();
    objects.insert_all(documents.finish().unwrap_or_else(|found| panic!("{found}")));
    let findings = lint(&objects.build().unwrap());
    findings
        .iter()
        .map(|Finding { source, code, .. }| {
            let file = if &*source.file == "others.yaml" { "" } else { "pods " };
            format!("{file}{}:{} {}", source.line, source.column, code.name())
        })
        .collect()
}

/// A policy of namespace `demo` for the pods `app: db`, whose spec goes on with `spec`.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: demo}}\nspec:\n  podSelector: {{matchLabels: {{app: db}}}}\n{spec}"
    )
}

/// ClusterNetworkPolicies from tier, priority, namespaces of the subject, and rules.
fn cluster_policies(policies: &[(&str, u16, &str, &str)]) -> String {
    let one = |(tier, priority, namespaces, rules): &(&str, u16, &str, &str)| {
        format!(
            "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
             metadata: {{name: {}-{priority}}}\nspec:\n  tier: {tier}\n  priority: {priority}\n  \
             subject: {{namespaces: {namespaces}}}\n  ingress:\n{rules}",
            tier.to_lowercase()
        )
    };
    policies.iter().map(one).collect()
}

#[test]
fn a_cluster_without_mistakes_has_no_findings() {
    assert_eq!(found(""), [""; 0]);
}

#[test]
fn selectors_as_separate_peers_are_told_from_selectors_of_one_peer() {
    let rule = |peers: &str| policy(&format!("  ingress:\n  - from:\n{peers}"));
    let namespaces = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: demo}}";
    let pods = "podSelector: {matchLabels: {app: web}}";

    assert_eq!(found(&rule(&format!("    - {namespaces}\n    - {pods}\n"))), ["9:7 or-instead-of-and"]);
    assert_eq!(found(&rule(&format!("    - {pods}\n    - {namespaces}\n"))), ["9:7 or-instead-of-and"]);
    assert_eq!(found(&rule(&format!("    - {namespaces}\n      {pods}\n"))), [""; 0]);
    assert_eq!(
        found(&rule(&format!("    - {pods}\n    - podSelector: {{matchLabels: {{app: db}}}}\n"))),
        [""; 0]
    );
}

#[test]
fn a_rule_whose_peers_are_nobody_is_told_from_one_with_somebody() {
    let rule = |app: &str| {
        policy(&format!("  ingress:\n  - from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]\n"))
    };

    assert_eq!(found(&rule("wbe")), ["7:5 rule-matches-nothing"]);
    assert_eq!(found(&rule("web")), [""; 0]);
}

#[test]
fn a_port_name_is_looked_for_at_the_pods_that_receive() {
    let ingress = |port: &str| policy(&format!("  ingress:\n  - ports: [{{port: {port}}}]\n"));
    assert_eq!(found(&ingress("http")), ["7:5 rule-matches-nothing"]);
    assert_eq!(found(&ingress("sql")), [""; 0]);

    let egress = |port: &str| {
        policy(&format!(
            "  policyTypes: [Egress]\n  egress:\n  - ports: [{{port: 53, protocol: UDP}}]\n  \
             - to: [{{podSelector: {{matchLabels: {{app: web}}}}}}]\n    ports: [{{port: {port}}}]\n"
        ))
    };
    assert_eq!(found(&egress("sql")), ["9:5 rule-matches-nothing"]);
    assert_eq!(found(&egress("http")), [""; 0]);
}

#[test]
fn a_block_that_is_excepted_whole_is_told_from_one_of_which_something_is_left() {
    let rule = |except: &str| {
        policy(&format!("  ingress:\n  - from: [{{ipBlock: {{cidr: 192.0.2.0/24, except: [{except}]}}}}]\n"))
    };

    assert_eq!(found(&rule("192.0.2.0/25, 192.0.2.128/25")), ["7:5 rule-matches-nothing"]);
    assert_eq!(found(&rule("192.0.2.0/25, 192.0.2.128/26")), [""; 0]);
}

#[test]
fn a_policy_that_selects_no_pod_is_told_from_one_that_does() {
    assert_eq!(found(&policy("").replace("app: db", "app: bd")), ["1:1 policy-selects-nothing"]);
    assert_eq!(found(&policy("")), [""; 0]);

    let subject = |name: &str| {
        let namespaces = format!("{{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}");
        let rule = "  - {action: Accept, from: [{namespaces: {}}]}\n";
        found(&cluster_policies(&[("Admin", 1, &namespaces, rule)]))
    };
    assert_eq!(subject("dmeo"), ["2:1 policy-selects-nothing"]);
    assert_eq!(subject("demo"), [""; 0]);
}

#[test]
fn a_rule_that_another_covers_is_told_from_one_that_adds_something() {
    let rules =
        |first: &str, second: &str| found(&policy(&format!("  ingress:\n  - {first}\n  - {second}\n")));
    let web =
        |ports: &str| format!("{{from: [{{podSelector: {{matchLabels: {{app: web}}}}}}], ports: [{ports}]}}");
    let all = |ports: &str| format!("{{from: [{{podSelector: {{}}}}], ports: [{ports}]}}");

    assert_eq!(rules(&all("{port: 1, endPort: 9}"), &web("{port: 5}")), ["8:5 rule-shadowed"]);
    assert_eq!(rules(&web("{port: 5}"), &all("{port: 1, endPort: 9}")), ["7:5 rule-shadowed"]);
    assert_eq!(rules(&web("{port: 5}"), &web("{port: 5}")), ["8:5 rule-shadowed"]);
    assert_eq!(rules(&all("{port: 1, endPort: 9}"), &web("{port: 10}")), [""; 0]);
    assert_eq!(rules(&all("{port: 5}"), &web("{port: 5, protocol: UDP}")), [""; 0]);
    assert_eq!(
        rules(
            &web("{port: 5}"),
            &all("{port: 5}").replace("podSelector: {}", "podSelector: {matchLabels: {app: db}}")
        ),
        [""; 0]
    );
}

#[test]
fn an_exception_of_the_wider_block_keeps_the_narrower_rule_alive() {
    let rules = |except: &str, narrow: &str| {
        found(&policy(&format!(
            "  ingress:\n  - from: [{{ipBlock: {{cidr: 192.0.2.0/24, except: [{except}]}}}}]\n  \
             - from: [{{ipBlock: {{cidr: {narrow}}}}}]\n"
        )))
    };

    assert_eq!(rules("192.0.2.0/28", "192.0.2.64/28"), ["8:5 rule-shadowed"]);
    assert_eq!(rules("192.0.2.64/30", "192.0.2.64/28"), [""; 0]);
    assert_eq!(rules("192.0.2.0/25", "192.0.2.64/28"), [""; 0]);
}

#[test]
fn a_cluster_rule_behind_a_stronger_one_is_told_from_one_that_is_reached() {
    let any = "  - {action: Deny, from: [{namespaces: {}}]}\n";
    let pass = "  - {action: Pass, from: [{namespaces: {}}]}\n";
    let own =
        "  - {action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: demo}}}]}\n";
    let found = |policies: &[_]| found(&cluster_policies(policies));

    assert_eq!(found(&[("Admin", 1, "{}", any), ("Admin", 2, "{}", own)]), ["20:5 cluster-rule-shadowed"]);
    assert_eq!(found(&[("Admin", 2, "{}", any), ("Admin", 1, "{}", own)]), [""; 0]);
    // A Pass ends the search in its own tier only.
    assert_eq!(found(&[("Admin", 1, "{}", pass), ("Admin", 2, "{}", own)]), ["20:5 cluster-rule-shadowed"]);
    assert_eq!(found(&[("Admin", 1, "{}", pass), ("Baseline", 2, "{}", own)]), [""; 0]);
    assert_eq!(found(&[("Admin", 1, "{}", any), ("Baseline", 2, "{}", own)]), ["20:5 cluster-rule-shadowed"]);
    // A stronger rule for other pods leaves it alone.
    let some = "{matchLabels: {kubernetes.io/metadata.name: demo}}";
    assert_eq!(found(&[("Admin", 1, some, any), ("Admin", 2, "{}", own)]), [""; 0]);
}

#[test]
fn pods_without_dns_are_told_from_pods_that_may_ask() {
    let egress =
        |ports: &str| found(&policy(&format!("  policyTypes: [Egress]\n  egress: [{{ports: [{ports}]}}]\n")));

    assert_eq!(egress("{port: 5432}"), ["1:1 no-dns-egress"]);
    assert_eq!(egress("{port: 53}"), ["1:1 no-dns-egress"]);
    assert_eq!(egress("{port: 5432}, {port: 53, protocol: UDP}"), [""; 0]);
    assert_eq!(egress("{port: 1, endPort: 100, protocol: UDP}"), [""; 0]);
    assert_eq!(found(&policy("  policyTypes: [Egress]\n  egress: [{}]\n")), [""; 0]);
}

#[test]
fn a_pod_that_no_policy_protects_is_told_from_one_that_is_isolated() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: free, namespace: other}\nspec: {nodeName: a}\nstatus: {podIP: 10.0.0.3}\n";
    let isolated = format!(
        "{pod}---\n{}",
        policy("").replace("demo", "other").replace("{matchLabels: {app: db}}", "{}")
    );
    let egress_alone = isolated.clone() + "  policyTypes: [Egress]\n  egress: [{}]\n";
    let denied = pod.to_owned()
        + &cluster_policies(&[("Admin", 1, "{}", "  - {action: Deny, from: [{namespaces: {}}]}\n")]);

    assert_eq!(found(pod), ["1:1 unprotected-pod"]);
    assert_eq!(found(&isolated), [""; 0]);
    assert_eq!(found(&egress_alone), ["1:1 unprotected-pod"]);
    assert_eq!(found(&denied), [""; 0]);
}

#[test]
fn rules_without_their_type_are_told_from_rules_with_it() {
    let spec = |types: &str| found(&policy(&format!("  policyTypes: [{types}]\n  egress:\n  - {{}}\n")));

    assert_eq!(spec("Ingress"), ["8:5 type-missing"]);
    assert_eq!(spec("Ingress, Egress"), [""; 0]);
}

#[test]
fn a_block_that_holds_pods_is_told_from_one_that_leaves_them_out() {
    let rule = |block: &str| found(&policy(&format!("  ingress:\n  - from: [{{ipBlock: {block}}}]\n")));

    assert_eq!(rule("{cidr: 0.0.0.0/0}"), ["7:12 block-covers-pods"]);
    assert_eq!(rule("{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}"), [""; 0]);
}

#[test]
fn policies_without_pods_are_not_said_to_select_nothing() {
    let mut objects = Objects::default();
    let rule = "  ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}]\n";
    objects.insert_all(manifest::from_text("p.yaml", &policy(rule)).unwrap());

    assert_eq!(lint(&objects.build().unwrap()), []);
}

#[test]
fn every_mistake_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len());
}
