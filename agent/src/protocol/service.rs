//! What `weir describe service` and `weir lb simulate` show.

use serde::{Deserialize, Serialize};

use super::Party;
use crate::source::Source;

/// A service as a node handles it. As JSON it is what `weir describe service -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// The nodes that handle it so.
    pub nodes: Vec<String>,
    /// `spec.type`.
    pub kind: String,
    /// Where the object starts.
    pub source: Source,
    /// What it answers on: address, port and protocol.
    pub frontends: Vec<String>,
    /// The settings that decide which backends are used and how.
    pub settings: Vec<Setting>,
    /// The endpoints, port by port.
    pub backends: Vec<BackendReport>,
}

/// A setting that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// An endpoint of a service port, as a node uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    /// Port of the service, with its protocol: `80/TCP`.
    pub port: String,
    /// The endpoint.
    pub backend: Party,
    /// Its node.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// `ready`, `terminating`, `not ready`, `dead`, or `unhealthy`.
    pub state: String,
    /// Its share of new connections, in proportion to those of the others.
    pub weight: u32,
    /// Slots that it has in the ring for clients inside the cluster, and how many there are.
    pub inside: Slots,
    /// The same for clients outside.
    pub outside: Slots,
    /// Why clients inside are not sent to it.
    pub unused: Option<String>,
    /// Live connections from clients of these nodes.
    pub connections: usize,
}

/// A share of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Slots of one backend.
    pub own: usize,
    /// All slots.
    pub all: usize,
}

/// What a change would do to the balance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// The rings that would change.
    pub rings: Vec<RingChange>,
    /// Service ports whose rings would stay as they are.
    pub unchanged: usize,
    /// Live connections of the node that go through services.
    pub flows: usize,
    /// Those that would go to another backend.
    pub flows_moved: usize,
    /// Those that would end.
    pub flows_cut: usize,
}

/// What a change would do to a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingChange {
    /// `NAMESPACE/NAME` of the service.
    pub service: String,
    /// Port of the service, with its protocol.
    pub port: String,
    /// 4 or 6.
    pub family: u8,
    /// Whether it is for clients outside the cluster.
    pub outside: bool,
    /// Backends now.
    pub backends_before: usize,
    /// Backends then.
    pub backends_after: usize,
    /// Slots now.
    pub slots_before: usize,
    /// Slots then.
    pub slots_after: usize,
    /// Of 100,000 new connections, how many go elsewhere then than now.
    pub moved: usize,
    /// Those of them whose backend stays: a perfect balancer would move none of them but what new backends need.
    pub moved_from_staying: usize,
    /// Live connections of the node through it.
    pub flows: usize,
    /// Those that would go to another backend.
    pub flows_moved: usize,
    /// Those that would end.
    pub flows_cut: usize,
}
