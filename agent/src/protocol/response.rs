//! What the agent answers.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Connections, Event, FlowDifference, PolicyReport, ServiceReport, Simulation};
use crate::cluster::Name;

/// What the agent answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// To [`Request::Change`](super::Request::Change) and [`Request::Undo`](super::Request::Undo).
    Changed(Changed),
    /// To [`Request::Diff`](super::Request::Diff).
    Difference(Difference),
    /// To [`Request::Get`](super::Request::Get).
    Listing(Listing),
    /// To [`Request::Connections`](super::Request::Connections).
    Connections(Connections),
    /// To [`Request::DescribeService`](super::Request::DescribeService).
    Service(Box<ServiceReport>),
    /// To [`Request::DescribePolicy`](super::Request::DescribePolicy).
    Policy(Box<PolicyReport>),
    /// To [`Request::Simulate`](super::Request::Simulate).
    Simulation(Simulation),
    /// To [`Request::Status`](super::Request::Status).
    Status(Box<Status>),
    /// To [`Request::Attach`](super::Request::Attach).
    Attached(Attached),
    /// To [`Request::Detach`](super::Request::Detach): the interfaces that were freed.
    Detached(Vec<String>),
    /// To [`Request::Explain`](super::Request::Explain).
    Explained {
        /// Whether the connection is allowed.
        allowed: bool,
        /// The explanation, in lines.
        text: String,
    },
    /// To [`Request::Observe`](super::Request::Observe), again and again.
    Observed(Box<Event>),
    /// Among them: how many events were lost, because the reader was too slow.
    Missed(u64),
    /// The request could not be granted.
    Failed(Failure),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What sort of failure, and so the client's exit status.
    pub kind: FailureKind,
    /// For people; may be several lines.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }
}

/// Sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The request itself makes no sense.
    Usage,
    /// The manifests are wrong.
    Input,
    /// What was asked for is not there.
    NotFound,
    /// The kernel refused, or the agent may not.
    Kernel,
    /// The kernel refused half-way; the old revision was restored.
    RolledBack,
}

/// What a change did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The revision that is enforced now.
    pub revision: u64,
    /// What became of each object that the request names, in its order.
    pub objects: Vec<ChangedObject>,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedObject {
    /// Its name as kubectl writes it: `networkpolicy.networking.k8s.io/demo/db`.
    pub object: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It was there and said something else.
    Configured,
    /// It was there and said the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}

/// What a change would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The objects that would change.
    pub objects: Vec<ObjectDifference>,
    /// The connections whose verdict would change.
    pub verdicts: Vec<VerdictDifference>,
    /// The live connections of the node that would not go on as they are.
    pub flows: Vec<FlowDifference>,
    /// What could not be compared, if so.
    pub note: Option<String>,
}

/// An object before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDifference {
    /// Its name as kubectl writes it.
    pub object: String,
    /// As YAML, empty when it is not there.
    pub before: String,
    /// As YAML, empty when it will not be there.
    pub after: String,
}

/// A connection whose verdict changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictDifference {
    /// Sending pod.
    pub source: String,
    /// Receiving pod.
    pub destination: String,
    /// Port and protocol: `5432/TCP`.
    pub port: String,
    /// Whether it is allowed now.
    pub before: bool,
    /// Whether it will be.
    pub after: bool,
}

/// A list of objects, ready for a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Columns after the name's own.
    pub columns: Vec<Column>,
    /// Rows, sorted.
    pub rows: Vec<Row>,
}

/// A column of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Header.
    pub header: String,
    /// Shown only in wide tables.
    pub wide: bool,
    /// Numbers that each node counts for itself: those of several nodes are added up.
    #[serde(default)]
    pub sum: bool,
}

/// A row of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Namespace, for kinds that have one.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Its name as kubectl writes it.
    pub object: String,
    /// A cell per column; empty: there is no value.
    pub cells: Vec<String>,
    /// The object as it is in force.
    pub manifest: serde_json::Value,
}

/// How the agent and its datapath are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Process number of the agent.
    pub pid: u32,
    /// Revision that is enforced; 0: none yet.
    pub revision: u64,
    /// For how many seconds, without a gap, something has been enforced.
    pub enforced_for: Option<u64>,
    /// Pods of this node that are enforced.
    pub pods_enforced: usize,
    /// Pods of this node that are not enforced, and why.
    pub pods_waiting: BTreeMap<String, String>,
    /// Services in force.
    pub services: usize,
    /// Policies in force.
    pub policies: usize,
    /// Objects of kinds that do not concern weir: how many of each `apiVersion/kind`.
    pub skipped: BTreeMap<String, usize>,
    /// Changes that were refused since the agent started.
    pub refused: u64,
    /// Interfaces whose programs somebody took off, and the agent attached again, since it started.
    pub repaired: u64,
    /// Why the last change from the watched manifests was refused, if that is still so.
    pub last_error: Option<String>,
    /// Packets that went on, by hook.
    pub forwarded: Vec<Forwarded>,
    /// Packets that were dropped.
    pub drops: Vec<Dropped>,
    /// How full the maps are.
    pub maps: Vec<MapUsage>,
    /// Interfaces that weir's programs hang on.
    pub programs: Vec<Program>,
    /// Why services at the edge are served by TC alone, where they are though XDP is wanted.
    pub edge_refused: Option<String>,
    /// What is wrong, in lines; empty when all is well.
    pub problems: Vec<String>,
}

/// Packets that went on from a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// Hook.
    pub hook: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets that were dropped at a hook for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Hook.
    pub hook: String,
    /// Name of the reason.
    pub reason: String,
    /// What the reason means.
    pub explanation: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapUsage {
    /// Map.
    pub map: String,
    /// Elements in use.
    pub used: u64,
    /// Elements there is room for.
    pub capacity: u64,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Program.
    pub program: String,
    /// Interface.
    pub interface: String,
    /// `tcx` or `clsact`.
    pub mode: String,
}

/// What became of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The pod.
    pub pod: Name,
    /// The interface.
    pub interface: String,
    /// Revision that is enforced on it; `None`: the pod is not known yet, and everything is dropped.
    pub revision: Option<u64>,
}
