//! weir.dev/v1alpha1 PolicyCheck: what `weir check` expects of the policies.
//!
//! ```yaml
//! apiVersion: weir.dev/v1alpha1
//! kind: PolicyCheck
//! metadata:
//!   name: shop
//! expect:
//! - {from: demo/web-0, to: svc/demo/db, port: 5432, allowed: true}
//! - {from: 203.0.113.9, to: demo/db-0, port: 53, protocol: UDP, allowed: false}
//! ```

use super::{PROTOCOLS, UNLIMITED};
use crate::{
    check::{End, EndName, Expectation, PolicyCheck},
    cluster::{Name, Protocol},
    manifest::{address, diagnostics::quote, names, node::Node},
};

pub(in crate::manifest) fn read(object: Node<'_>) -> PolicyCheck {
    let fields = object.fields(&["apiVersion", "kind", "metadata", "expect"]);
    let name = fields
        .required("metadata")
        .and_then(|metadata| metadata.fields(&["name", "labels", "annotations"]).required("name"))
        .and_then(|name| name.formed(names::dns_subdomain));
    let items = fields.required("expect").map(|expect| (expect, expect.list(UNLIMITED)));
    if let Some((expect, items)) = &items
        && items.is_empty()
    {
        expect.error("expects nothing");
    }
    let items = items.map(|(_, items)| items).unwrap_or_default();
    PolicyCheck {
        source: object.source(),
        name: name.unwrap_or_default().to_owned(),
        expect: items.into_iter().filter_map(expectation).collect(),
    }
}

fn expectation(node: Node<'_>) -> Option<Expectation> {
    let fields = node.fields(&["from", "to", "port", "protocol", "allowed"]);
    let from = fields.required("from").and_then(end);
    let to = fields.required("to").and_then(end);
    let port = fields.required("port").and_then(Node::port);
    let protocol = fields.get("protocol").map_or(Some(Protocol::Tcp), |word| word.one_of(&PROTOCOLS));
    let allowed = fields.required("allowed").and_then(Node::boolean);
    if let Some(End { name: EndName::Service(_), .. }) = from {
        fields.get("from")?.error("a service opens no connections; name a pod, a node or an address");
    }
    Some(Expectation {
        source: node.source(),
        from: from?,
        to: to?,
        port: port?,
        protocol: protocol?,
        allowed: allowed?,
    })
}

fn end(node: Node<'_>) -> Option<End> {
    Some(End { source: node.source(), name: node.parsed(end_name)? })
}

fn end_name(text: &str) -> Result<EndName, String> {
    let formed = |namespace: &str, name: &str| {
        (names::dns_label(namespace).is_ok() && names::dns_subdomain(name).is_ok())
            .then(|| Name { namespace: namespace.into(), name: name.into() })
    };
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        ["node", name] => names::dns_subdomain(name).is_ok().then(|| EndName::Node(name.to_owned())),
        [namespace, name] => formed(namespace, name).map(EndName::Pod),
        ["svc", namespace, name] => formed(namespace, name).map(EndName::Service),
        [_] if text.contains(['.', ':']) => return address::address(text).map(EndName::Address),
        _ => None,
    };
    name.ok_or_else(|| {
        format!("{} is none of NAMESPACE/POD, node/NAME, svc/NAMESPACE/NAME and an address", quote(text))
    })
}
