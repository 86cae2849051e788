//! That every error is told, at its place.

use super::{errors, policy, read};

#[test]
fn every_error_of_every_document_is_told_in_order() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: Db
spec:
  podselector: {}
  ingress:
  - ports:
    - port: 70000
    - protocol: tcp
  polcyTypes: [Ingress]
---
broken: [1
---
apiVersion: v1
kind: Namespace
metadata:
  name: x
  labels: {a: 1}
";
    let said = errors(text);
    let begins = [
        "test.yaml:4:9: metadata.name: `Db` is not a DNS name",
        "test.yaml:6:3: unknown field `podselector` in NetworkPolicy.spec; did you mean `podSelector`?",
        "test.yaml:9:13: spec.ingress[0].ports[0].port: 70000 is not a port (1-65535)",
        "test.yaml:10:17: spec.ingress[0].ports[1].protocol: unsupported value `tcp`; it is one of TCP, UDP, SCTP",
        "test.yaml:11:3: unknown field `polcyTypes` in NetworkPolicy.spec; did you mean `policyTypes`?",
        "test.yaml:13:9: syntax error: unclosed bracket",
        "test.yaml:19:15: metadata.labels.a: expected a string, found a number `1`; put it in quotes",
    ];
    assert_eq!(said.len(), begins.len(), "{said:#?}");
    for (said, begin) in said.iter().zip(begins) {
        assert!(said.starts_with(begin), "{said}\n{begin}");
    }
}

#[test]
fn the_place_in_a_list_is_that_in_the_file() {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata:
    name: a
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: p}
  spec:
    podSelector: {}
    egress:
    - to:
      - ipBlock: {cidr: 10.0.0.0/33}
";
    let expected = "test.yaml:15:25: spec.egress[0].to[0].ipBlock.cidr: `10.0.0.0/33` is not a CIDR block: bad prefix length";
    assert_eq!(errors(text), [expected]);
}

#[test]
fn a_key_that_is_set_twice_is_an_error_wherever_it_stands() {
    let said = errors("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  name: b\n");
    assert_eq!(said, ["test.yaml:5:3: `name` is already set in line 4"]);
    let said = errors("apiVersion: v1\nkind: ConfigMap\ndata: {a: b, a: b}\n");
    assert_eq!(said, ["test.yaml:3:14: `a` is already set in line 3"]);
}

#[test]
fn what_would_be_a_boolean_or_a_number_to_kubectl_is_not_taken_for_a_string() {
    for value in ["yes", "on", "1", "1.5", "0x10", "1e3", "true"] {
        let said = errors(&policy(&format!("{{podSelector: {{matchLabels: {{a: {value}}}}}}}")));
        assert!(said[0].contains("put it in quotes"), "{said:?}");
        read(&policy(&format!("{{podSelector: {{matchLabels: {{a: '{value}'}}}}}}")));
    }
    read(&policy("{podSelector: {matchLabels: {a: y, b: 2024-01-01, c: 10.0.0.1}}}"));
}

#[test]
fn null_equals_absent() {
    let absent = read(&policy("{podSelector: {}, ingress: [{}]}"));
    let null =
        read(&policy("{podSelector: {}, ingress: [{from: null, ports: ~}], egress: null, policyTypes: }"));
    let build = |documents| {
        let mut objects = weir::cluster::Objects::default();
        objects.insert_all(documents);
        objects.build().unwrap()
    };
    assert_eq!(build(absent), build(null));
}

#[test]
fn an_object_defined_twice_is_told_with_both_places() {
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let said = errors(&namespace.repeat(2));
    assert_eq!(said, ["test.yaml:6:1: Namespace a is already defined at test.yaml:2:1"]);
}

#[test]
fn what_is_not_an_object_of_kubernetes_is_an_error_and_other_kinds_are_counted() {
    for (text, words) in [
        ("services: {web: {}}", "apiVersion is missing"),
        ("apiVersion: v1", "kind is missing"),
        ("[1, 2]", "expected a Kubernetes object, found a list"),
        ("hello", "expected a Kubernetes object, found a string"),
        ("{apiVersion: v1, kind: 5}", "kind: expected a string"),
        ("{apiVersion: v1, kind: List, items: {}}", "items: expected a list"),
        ("{apiVersion: v1, kind: List, items: [null]}", "items[0]"),
    ] {
        let said = errors(text);
        assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
    }
    let others =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, anything: [1]}\n---\n".repeat(3);
    let documents = read(&others);
    assert_eq!(documents.skipped, [("apps/v1/Deployment".to_owned(), 3)].into());
    assert!(documents.warnings.is_empty());
    let other = read("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: a}}");
    assert_eq!(other.warnings.warnings(), 1);
}

#[test]
fn nothing_of_the_input_acts_on_the_terminal() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: \"a\\u001b]0;x\\a\"\n  \"\\u202eb\": 1\n  labels: {x: \u{202e}é}\n";
    let diagnostics = weir::manifest::from_text("\u{1b}[2J.yaml", text).unwrap_err();
    let rendered = diagnostics.render(false);
    assert!(rendered.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{rendered:?}");
    assert!(diagnostics.errors() >= 3, "{rendered}");
    let sent = serde_json::to_string(&diagnostics).unwrap();
    assert_eq!(serde_json::from_str::<weir::manifest::Diagnostics>(&sent).unwrap(), diagnostics);
}
