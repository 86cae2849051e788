//! The kinds of objects that weir reads, each with its fields and with the rules an API server has for it.
//!
//! A reader returns a value whatever it finds; what is wrong is collected in the tree, and an object with
//! errors never leaves this module.

pub(super) mod check;
mod cluster_policy;
mod config;
mod meta;
mod namespace;
mod node;
mod pod;
mod policy;
mod selector;
mod service;
mod slice;

use std::{fmt, sync::Arc};

use self::meta::Meta;
use super::{fields::Fields, node::Node};
use crate::cluster;

/// A kind of object that weir reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Cluster-wide settings.
    WeirConfiguration,
    /// A node.
    Node,
    /// A namespace.
    Namespace,
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// Endpoints of a service.
    EndpointSlice,
    /// A policy of a namespace.
    NetworkPolicy,
    /// A policy of the cluster.
    ClusterNetworkPolicy,
}

/// A validated object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Config(Box<cluster::Config>),
    Node(Arc<cluster::Node>),
    Namespace(Arc<cluster::Namespace>),
    Pod(Arc<cluster::Pod>),
    Service(Arc<cluster::Service>),
    EndpointSlice(Arc<cluster::EndpointSlice>),
    NetworkPolicy(Arc<cluster::NetworkPolicy>),
    ClusterNetworkPolicy(Arc<cluster::ClusterNetworkPolicy>),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WeirConfiguration,
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// `kind` in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WeirConfiguration => "WeirConfiguration",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// The one `apiVersion` that is read.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::WeirConfiguration => "weir.dev/v1alpha1",
            Self::Node | Self::Namespace | Self::Pod | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// Whether its objects live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::Pod | Self::Service | Self::EndpointSlice | Self::NetworkPolicy)
    }

    /// The kind that a user of kubectl means: singular, plural or short, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let short = match &*word {
            "no" => Some(Self::Node),
            "ns" => Some(Self::Namespace),
            "po" => Some(Self::Pod),
            "svc" => Some(Self::Service),
            "eps" => Some(Self::EndpointSlice),
            "netpol" => Some(Self::NetworkPolicy),
            "cnp" => Some(Self::ClusterNetworkPolicy),
            _ => None,
        };
        short.or_else(|| {
            Self::ALL.into_iter().find(|kind| {
                let name = kind.name().to_ascii_lowercase();
                let plural =
                    name.strip_suffix('y').map_or_else(|| format!("{name}s"), |stem| format!("{stem}ies"));
                word == name || word == plural
            })
        })
    }

    /// Reads an object of it.
    pub(super) fn read(self, object: Node<'_>) -> (cluster::Name, Value) {
        let fields = object.fields(self.known_fields());
        let meta = Meta::read(&fields, self, object.source());
        let name = meta.name.clone();
        let value = match self {
            Self::WeirConfiguration => Value::Config(config::read(&fields, meta).into()),
            Self::Node => Value::Node(node::read(&fields, meta).into()),
            Self::Namespace => Value::Namespace(namespace::read(&fields, meta).into()),
            Self::Pod => Value::Pod(pod::read(&fields, meta).into()),
            Self::Service => Value::Service(service::read(&fields, meta).into()),
            Self::EndpointSlice => Value::EndpointSlice(slice::read(&fields, meta).into()),
            Self::NetworkPolicy => Value::NetworkPolicy(policy::read(&fields, meta).into()),
            Self::ClusterNetworkPolicy => {
                Value::ClusterNetworkPolicy(cluster_policy::read(&fields, meta).into())
            }
        };
        (name, value)
    }

    fn known_fields(self) -> &'static [&'static str] {
        match self {
            Self::EndpointSlice => &["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"],
            Self::WeirConfiguration => &["apiVersion", "kind", "metadata", "spec"],
            _ => &["apiVersion", "kind", "metadata", "spec", "status"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The words for protocols.
const PROTOCOLS: [(&str, cluster::Protocol); 3] =
    [("TCP", cluster::Protocol::Tcp), ("UDP", cluster::Protocol::Udp), ("SCTP", cluster::Protocol::Sctp)];

/// The words `Local` and `Cluster` of traffic policies; true is Local.
const TRAFFIC_POLICIES: [(&str, bool); 2] = [("Cluster", false), ("Local", true)];

/// More than any list of the API may hold, where the API itself sets no limit.
const UNLIMITED: usize = usize::MAX;

/// Fields of the object in a field; none of them when it is absent.
fn sub<'t>(fields: &Fields<'t>, name: &str, known: &[&str]) -> Option<Fields<'t>> {
    fields.get(name).map(|node| node.fields(known))
}

/// `conditions` of a status.
fn check_conditions(status: &Fields<'_>) {
    for condition in status.list("conditions", UNLIMITED) {
        condition.fields(&[
            "type",
            "status",
            "observedGeneration",
            "lastTransitionTime",
            "reason",
            "message",
        ]);
    }
}

/// Says of a value that equals one before it that it does. `what` both are.
fn refuse_duplicates<'t, T: Ord>(items: impl IntoIterator<Item = (Node<'t>, T)>, what: &str) {
    let mut seen = std::collections::BTreeMap::new();
    for (node, value) in items {
        match seen.entry(value) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(node);
            }
            std::collections::btree_map::Entry::Occupied(first) => {
                node.error(format!("the same {what} as {}", first.get().path()));
            }
        }
    }
}
