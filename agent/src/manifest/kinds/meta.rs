//! `metadata`, the same for every kind.

use std::collections::BTreeMap;

use super::{Kind, UNLIMITED};
use crate::{
    cluster::{Labels, Name},
    manifest::{
        diagnostics::quote,
        fields::Fields,
        names::{self, Form},
        node::Node,
    },
    source::Source,
};

const KNOWN: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// What is read of `metadata`.
#[derive(Debug)]
pub(super) struct Meta {
    /// Where the object starts.
    pub(super) source: Source,
    /// The namespace is empty for kinds that have none.
    pub(super) name: Name,
    pub(super) labels: Labels,
    /// Annotations whose keys begin with `weir.dev/`.
    pub(super) annotations: BTreeMap<String, String>,
}

impl Meta {
    pub(super) fn read(object: &Fields<'_>, kind: Kind, source: Source) -> Self {
        let namespace = if kind.is_namespaced() { "default" } else { "" };
        let mut meta = Self {
            source,
            name: Name { namespace: namespace.into(), name: "".into() },
            labels: Labels::new(),
            annotations: BTreeMap::new(),
        };
        let Some(node) = object.required("metadata") else { return meta };
        let fields = node.fields(&KNOWN);

        if let Some(name) = fields.required("name").and_then(|name| name.formed(name_form(kind))) {
            meta.name.name = name.into();
        }
        match fields.nonempty("namespace") {
            Some(node) if !kind.is_namespaced() => node.error(format!("a {kind} has no namespace")),
            Some(node) => {
                if let Some(namespace) = node.formed(names::dns_label) {
                    meta.name.namespace = namespace.into();
                }
            }
            None => {}
        }
        meta.labels = fields.get("labels").map(labels).unwrap_or_default();
        meta.annotations = fields.get("annotations").map(annotations).unwrap_or_default();
        check_bookkeeping(&fields);
        meta
    }
}

/// A mapping of label keys to label values.
pub(super) fn labels(node: Node<'_>) -> Labels {
    let mut labels = Labels::new();
    for (key, key_node, value, value_node) in node.strings() {
        if let Err(expected) = names::label_key(key) {
            key_node.error(format!("{} is not {expected}", quote(key)));
        }
        if let Err(expected) = names::label_value(value) {
            value_node.error(format!("{} is not {expected}", quote(value)));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The annotation `key` of an object, to be read as what it stands for.
pub(super) fn annotation<'t>(object: &Fields<'t>, key: &str) -> Option<Node<'t>> {
    // Both have been read, and what is wrong with them said.
    object.get("metadata")?.value_of("annotations")?.value_of(key)
}

fn annotations(node: Node<'_>) -> BTreeMap<String, String> {
    let mut ours = BTreeMap::new();
    let mut size = 0;
    for (key, key_node, value, _) in node.strings() {
        if let Err(expected) = names::annotation_key(key) {
            key_node.error(format!("{} is not {expected}", quote(key)));
        }
        size += key.len() + value.len();
        if key.starts_with("weir.dev/") {
            ours.insert(key.to_owned(), value.to_owned());
        }
    }
    if size > MAX_ANNOTATIONS {
        node.error(format!("annotations have {size} bytes; at most {MAX_ANNOTATIONS} are allowed"));
    }
    ours
}

fn name_form(kind: Kind) -> Form {
    match kind {
        Kind::Namespace => names::dns_label,
        Kind::Service => names::dns_label_1035,
        _ => names::dns_subdomain,
    }
}

/// What the API server and its clients keep there for themselves.
fn check_bookkeeping(fields: &Fields<'_>) {
    for owner in fields.list("ownerReferences", UNLIMITED) {
        owner.fields(&["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"]);
    }
    for entry in fields.list("managedFields", UNLIMITED) {
        entry.fields(&[
            "manager",
            "operation",
            "apiVersion",
            "time",
            "fieldsType",
            "fieldsV1",
            "subresource",
        ]);
    }
    for finalizer in fields.list("finalizers", UNLIMITED) {
        finalizer.string();
    }
}
