//! That objects survive being stored, and come and go.

use weir::{
    cluster::{Name, Objects},
    manifest::{Key, Kind, Reader, Text, from_text},
};

use super::{cluster, objects, policy, read};

const LIST: &str = "\
# a comment
apiVersion: v1
kind: List
items:
- apiVersion: v1            # more
  kind: Namespace
  metadata:
    name: a
    labels: &labels {team: 'red'}
-   kind: NetworkPolicy
    apiVersion: networking.k8s.io/v1
    metadata:
      name: p
      namespace: a
      annotations:
        note: |
          # not a comment
            indented
    spec:
      podSelector:
      ingress:
      - from:
        - ipBlock: {cidr: 10.0.0.0/8,
  except: [10.1.0.0/16]}
# the end
";

fn keep(objects: &Objects) -> Objects {
    let stored: Vec<_> = objects.texts().map(|text| serde_json::to_string(text).unwrap()).collect();
    let texts = stored.iter().map(|text| serde_json::from_str::<Text>(text).unwrap());
    let texts: Vec<_> = texts.collect();
    let reader = Reader::default().kept(&texts);
    let mut again = Objects::default();
    again.insert_all(reader.finish().unwrap());
    again
}

#[test]
fn a_kept_object_is_the_same_down_to_every_line_and_column() {
    let aliased =
        "{apiVersion: v1, kind: Namespace, metadata: {name: b, labels: &l {a: b}, annotations: *l}}";
    let typed =
        "{apiVersion: v1, kind: NamespaceList, items: [{metadata: {name: c}}, {metadata: {name: d}}]}";
    for text in [LIST, &policy("\n  egress:\n  - {}\n  -\n    ports: [{}, {port: 5}]"), aliased, typed] {
        let objects = objects(text);
        assert!(!objects.is_empty());
        assert_eq!(keep(&objects), objects);
    }
}

#[test]
fn what_refers_to_another_object_is_kept_expanded() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- &a\n  apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: a\n    labels: &l {x: 'y'}\n- <<: *a\n  metadata: {name: b, labels: *l}\n";
    let kept = keep(&objects(text)).build().unwrap();
    assert_eq!(kept.namespaces["b"].labels["x"], "y");
    assert_eq!(kept.namespaces["b"].source.as_ref().unwrap().line, 10);
}

#[test]
fn a_kept_object_is_printed_at_the_left_margin() {
    let objects = objects(LIST);
    let text = objects.get(Kind::NetworkPolicy, "a", "p").unwrap().text();
    assert!(
        text.to_yaml()
            .starts_with("kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata:\n  name: p\n")
    );
    let printed = from_text("printed", &text.to_yaml()).unwrap();
    assert_eq!(printed.objects[0].text().to_json(), text.to_json());
    assert_eq!(text.to_json()["metadata"]["annotations"]["note"], "# not a comment\n  indented\n");
    let typed = read("apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata:\n    name: c\n");
    let printed = typed.objects[0].text().to_yaml();
    assert_eq!(printed, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: c\n");
}

#[test]
fn an_object_takes_the_place_of_its_predecessor() {
    let mut objects =
        objects("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: old, gone: x}}}");
    objects.insert_all(read("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: new}}}"));
    let cluster = objects.build().unwrap();
    let labels: Vec<_> = cluster.namespaces["a"].labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["a", "new"]);
}

#[test]
fn a_namespace_takes_with_it_what_is_in_it() {
    let mut objects = objects(LIST);
    let key = |kind, name: &str| {
        let name = Name { namespace: "".into(), name: name.into() };
        Key { kind, name }
    };
    assert!(objects.remove(&key(Kind::Namespace, "other")).is_empty());
    assert!(objects.remove(&key(Kind::Node, "a")).is_empty());
    assert_eq!(objects.remove(&key(Kind::Namespace, "a")).len(), 2);
    assert!(objects.is_empty());
}

#[test]
fn a_namespace_that_is_only_mentioned_has_the_label_of_its_name() {
    let cluster = cluster(&policy("{}"));
    let labels: Vec<_> = cluster.namespaces["default"].labels.iter().collect();
    assert_eq!(labels, [(&"kubernetes.io/metadata.name".to_owned(), &"default".to_owned())]);
    assert!(cluster.namespaces["default"].source.is_none());
}
