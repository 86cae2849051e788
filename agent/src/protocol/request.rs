//! What a client asks for.

use serde::{Deserialize, Serialize};

use super::{ConnectionFilter, Filter, PolicyName};
use crate::{
    cluster::Name,
    manifest::{Key, Text},
};

/// What a client asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Change objects.
    Change {
        /// How.
        change: Change,
        /// Only say what would change.
        dry_run: bool,
    },
    /// Go back to the objects before the last change, if that one led to this revision.
    Undo {
        /// The revision to leave.
        revision: u64,
    },
    /// What a change would do, object by object and verdict by verdict.
    Diff {
        /// The change.
        change: Change,
    },
    /// List objects.
    Get {
        /// Of this kind.
        kind: Kind,
        /// Only of this name.
        name: Option<String>,
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// List live connections.
    Connections(ConnectionFilter),
    /// A service as the node handles it.
    DescribeService(Name),
    /// Describe a policy.
    DescribePolicy(PolicyName),
    /// What a change would do to the balance of services.
    Simulate {
        /// The change.
        change: Change,
    },
    /// How the agent and its datapath are.
    Status,
    /// Enforce a pod on an interface.
    Attach {
        /// The pod.
        pod: Name,
        /// Host-side interface.
        interface: String,
        /// MAC address of the pod's own end, where the kernel cannot tell.
        mac: Option<String>,
    },
    /// Take weir off interfaces.
    Detach(Detach),
    /// Why a connection is allowed or denied.
    Explain {
        /// Pod, node or address.
        source: String,
        /// Pod, node, service or address, with port and protocol.
        destination: String,
    },
    /// Send events.
    Observe {
        /// Which.
        filter: Filter,
        /// So many of the last ones first.
        last: usize,
        /// And then new ones as they come.
        follow: bool,
    },
}

/// A change of objects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Create or replace these objects.
    Apply(Vec<Text>),
    /// Delete these objects.
    Delete(Vec<Key>),
}

/// Kinds that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Pods of the whole cluster.
    #[value(alias = "pod", alias = "po")]
    Pods,
    /// Services, with the backends that this node may use.
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Network policies, with the pods they select.
    #[value(alias = "policy", alias = "netpol", alias = "networkpolicies", alias = "networkpolicy")]
    Policies,
    /// Rules of network policies, with the connections and packets they have decided.
    #[value(skip)]
    Rules,
    /// Pods of this node, with interface, addresses and rule sets.
    #[value(alias = "endpoint", alias = "ep", alias = "eps")]
    Endpoints,
    /// Nodes.
    #[value(alias = "node", alias = "no")]
    Nodes,
    /// Namespaces.
    #[value(alias = "namespace", alias = "ns")]
    Namespaces,
}

/// What to take weir off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Detach {
    /// The interface of this pod.
    Pod(Name),
    /// This interface.
    Interface(String),
    /// Everything: every program, map and pin of this agent; the agent then ends.
    All,
}
