//! From documents to objects: what each is, and whether it is for us.

use super::{
    Documents,
    diagnostics::{Diagnostics, Severity, quote},
    fields::suggest,
    kinds::{self, Kind, Value},
    node::Node,
    parse,
    text::Text,
    tree::{Origin, Tree},
};
use crate::{check::PolicyCheck, cluster::Name};

/// A validated object with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub(crate) key: Key,
    pub(crate) text: Text,
    pub(crate) value: Value,
}

/// What identifies an object in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name; the namespace is empty for kinds that have none.
    pub name: Name,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.kind.is_namespaced() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}", self.kind, self.name.name)
        }
    }
}

impl Object {
    /// What identifies it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its text.
    pub fn text(&self) -> &Text {
        &self.text
    }
}

/// Groups of Kubernetes itself end in it, or have no dot; in others a kind of the same name is something else.
const KUBERNETES: &str = ".k8s.io";
/// The group of weir's own kinds.
const OURS: &str = "weir.dev";
/// Kinds that decided traffic before ClusterNetworkPolicy did.
const REPLACED: [&str; 2] = ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];

/// Reads the objects of a text. Says for how many nodes aliases stood.
pub(super) fn read(
    origin: &Origin<'_>,
    implied: Option<(&str, &str)>,
    into: &mut Documents,
    found: &mut Diagnostics,
) -> usize {
    parse::documents(origin, found, |tree, found| {
        let root = tree.root();
        // An empty document.
        if !root.is_null() {
            visit(tree, root, implied, into, found);
        }
    })
}

fn visit(
    tree: &Tree<'_>,
    object: Node<'_>,
    implied: Option<(&str, &str)>,
    into: &mut Documents,
    found: &mut Diagnostics,
) {
    let Some(entries) = object.entries() else {
        object.error(format!("expected a Kubernetes object, found {}", object.describe()));
        return;
    };
    object.begin_object();
    let field = |name: &str| entries.iter().find(|(key, ..)| *key == name).map(|(.., value)| *value);
    let own = |name: &str| field(name).filter(|value| !value.is_null());
    let (version, kind) = match (own("apiVersion"), own("kind"), implied) {
        (None, None, Some(implied)) => implied,
        (Some(version), Some(kind), _) => match (version.string(), kind.string()) {
            (Some(version), Some(kind)) => (version, kind),
            _ => return,
        },
        (version, ..) => {
            let missing = if version.is_none() { "apiVersion" } else { "kind" };
            object.error(format!("not a Kubernetes object: {missing} is missing"));
            return;
        }
    };

    if let (Some(item_kind), Some(items)) = (kind.strip_suffix("List"), field("items")) {
        object.fields(&["apiVersion", "kind", "metadata", "items"]);
        let implied = Some((version, item_kind)).filter(|_| !item_kind.is_empty());
        for item in if items.is_null() { Vec::new() } else { items.list(usize::MAX) } {
            visit(tree, item, implied, into, found);
            object.begin_object();
        }
        return;
    }
    if (version, kind) == (PolicyCheck::API_VERSION, PolicyCheck::KIND) {
        // What was said before is about other objects.
        tree.take_found(found);
        let check = kinds::check::read(object);
        if !tree.has_errors() {
            into.checks.push(check);
            *into.skipped.entry(PolicyCheck::COUNTED_AS.to_owned()).or_default() += 1;
        }
        return;
    }
    match recognize(version, kind) {
        Ok(Some(kind)) => {
            // What was said before is about other objects.
            tree.take_found(found);
            let (name, value) = kind.read(object);
            if !tree.has_errors() {
                let implied = implied.filter(|_| own("kind").is_none());
                let text = Text::of(object, implied);
                into.objects.push(Object { key: Key { kind, name }, text, value });
            }
        }
        Ok(None) => {
            // Somebody else's policy, which its author may count on.
            if kind.ends_with("NetworkPolicy") {
                object.say_here(Severity::Warning, || {
                    format!("{version} {kind} is skipped: weir does not enforce it")
                });
            }
            *into.skipped.entry(format!("{version}/{kind}")).or_default() += 1;
        }
        Err(message) => object.say_here(Severity::Error, || message),
    }
}

/// The kind that is meant; `None` for one that does not concern weir.
fn recognize(version: &str, kind: &str) -> Result<Option<Kind>, String> {
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let is_builtin = !group.contains('.') || group.ends_with(KUBERNETES);
    if let Some(known) = Kind::ALL.into_iter().find(|known| known.name() == kind) {
        let own_group = known.api_version().rsplit_once('/').map_or("", |(group, _)| group);
        return match known.api_version() {
            right if right == version => Ok(Some(known)),
            right if is_builtin || group == own_group => {
                Err(format!("{} of {kind} is not supported; {right} is", quote(version)))
            }
            _ => Ok(None),
        };
    }
    if group == "policy.networking.k8s.io" && REPLACED.contains(&kind) {
        let policy = Kind::ClusterNetworkPolicy;
        return Err(format!("{kind} is not supported; {} {policy} takes its place", policy.api_version()));
    }
    if group == OURS {
        return Err(format!(
            "unknown kind {}; the kinds of {} are {} and {}",
            quote(kind),
            PolicyCheck::API_VERSION,
            Kind::WeirConfiguration,
            PolicyCheck::KIND
        ));
    }
    let near = Kind::from_word(kind).filter(|_| is_builtin).or_else(|| {
        // Nothing else in these groups is spelled like ours.
        let known: Vec<_> = Kind::ALL.iter().filter(|known| known.api_version() == version).collect();
        let names: Vec<_> = known.iter().map(|known| known.name()).filter(|name| name.len() > 8).collect();
        Kind::from_word(suggest(kind, &names)?)
    });
    match near {
        Some(near) => Err(format!("unknown kind {} in {version}; did you mean {near}?", quote(kind))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_decides_traffic_is_read_in_one_version_and_refused_in_others() {
        for kind in Kind::ALL {
            assert_eq!(recognize(kind.api_version(), kind.name()), Ok(Some(kind)));
        }
        for (version, kind) in [
            ("networking.k8s.io/v1beta1", "NetworkPolicy"),
            ("extensions/v1beta1", "NetworkPolicy"),
            ("v1", "NetworkPolicy"),
            ("networking/v1", "NetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
            ("discovery.k8s.io/v1beta1", "EndpointSlice"),
            ("v2", "Pod"),
            ("weir.dev/v1", "WeirConfiguration"),
            ("weir.dev/v1alpha1", "Other"),
            ("networking.k8s.io/v1", "networkpolicy"),
            ("networking.k8s.io/v1", "NetworkPolciy"),
            ("v1", "Pods"),
        ] {
            assert!(recognize(version, kind).is_err(), "{version} {kind}");
        }
    }

    #[test]
    fn other_kinds_are_none_of_ours() {
        for (version, kind) in [
            ("v1", "ConfigMap"),
            ("v1", "Endpoints"),
            ("apps/v1", "Deployment"),
            ("batch/v1", "Job"),
            ("rbac.authorization.k8s.io/v1", "Role"),
            ("networking.k8s.io/v1", "Ingress"),
            ("serving.knative.dev/v1", "Service"),
            ("cilium.io/v2", "CiliumNetworkPolicy"),
            ("crd.projectcalico.org/v1", "NetworkPolicy"),
        ] {
            assert_eq!(recognize(version, kind), Ok(None), "{version} {kind}");
        }
    }
}
