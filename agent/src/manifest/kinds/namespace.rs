//! v1 Namespace.

use super::{Meta, UNLIMITED, check_conditions, sub};
use crate::{
    cluster::{NAMESPACE_NAME_LABEL, Namespace},
    manifest::fields::Fields,
};

pub(super) fn read(object: &Fields<'_>, meta: Meta) -> Namespace {
    if let Some(spec) = sub(object, "spec", &["finalizers"]) {
        spec.list("finalizers", UNLIMITED);
    }
    if let Some(status) = sub(object, "status", &["phase", "conditions"]) {
        check_conditions(&status);
    }
    let mut labels = meta.labels;
    // The API server sets it, whatever the manifest says.
    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), meta.name.name.to_string());
    Namespace { source: Some(meta.source), name: meta.name.name, labels }
}
