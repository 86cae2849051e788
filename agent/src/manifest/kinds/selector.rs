//! `metav1.LabelSelector`.

use std::collections::BTreeSet;

use super::{UNLIMITED, meta};
use crate::{
    cluster::{Operator, Requirement, Selector},
    manifest::{names, node::Node},
};

/// A label selector.
pub(super) fn read(node: Node<'_>) -> Selector {
    let fields = node.fields(&["matchLabels", "matchExpressions"]);
    let labels = fields.get("matchLabels").map(meta::labels).unwrap_or_default();
    let equal = labels
        .into_iter()
        .map(|(key, value)| Requirement { key, operator: Operator::In(BTreeSet::from([value])) });
    let expressions = fields.list("matchExpressions", UNLIMITED).into_iter().filter_map(requirement);
    Selector { requirements: equal.chain(expressions).collect() }
}

fn requirement(node: Node<'_>) -> Option<Requirement> {
    #[derive(Clone, Copy)]
    enum Word {
        In,
        NotIn,
        Exists,
        DoesNotExist,
    }
    let words = [
        ("In", Word::In),
        ("NotIn", Word::NotIn),
        ("Exists", Word::Exists),
        ("DoesNotExist", Word::DoesNotExist),
    ];

    let fields = node.fields(&["key", "operator", "values"]);
    let key = fields.required("key").and_then(|key| key.formed(names::label_key));
    let word = fields.required("operator").and_then(|operator| operator.one_of(&words));
    let values = fields.list("values", UNLIMITED);
    let count = values.len();
    let values: BTreeSet<_> =
        values.into_iter().filter_map(|value| value.formed(names::label_value).map(str::to_owned)).collect();
    match word? {
        Word::In | Word::NotIn if count == 0 => fields.missing("values"),
        Word::Exists | Word::DoesNotExist if count > 0 => {
            fields.get("values").unwrap_or(node).error("none may be given with Exists and DoesNotExist");
        }
        _ => {}
    }
    let operator = match word? {
        Word::In => Operator::In(values),
        Word::NotIn => Operator::NotIn(values),
        Word::Exists => Operator::Exists,
        Word::DoesNotExist => Operator::DoesNotExist,
    };
    Some(Requirement { key: key?.to_owned(), operator })
}
