//! Nodes that can be sent packets: the loaded programs, or live agents.

use std::net::SocketAddr;

use serde_json::Value;
use weir::cluster::Cluster;
use weir_common::policy::Protocol;

use crate::packets::Ends;

/// What service cases are run on, packet by packet.
pub(in crate::conformance) trait Testbed {
    /// Brings the cluster of a step into force, which the case's `config` is part of. At the `first` step of a
    /// case no flow of an earlier one is left.
    fn enforce(&mut self, step: &State<'_>, first: bool) -> anyhow::Result<()>;

    /// Opens connections that `node` is to handle: sends first packets and, where those arrive at a backend, its
    /// answers and one packet more in both directions.
    fn open(&mut self, node: &str, protocol: Protocol, connections: &[Ends]) -> anyhow::Result<Vec<Fate>>;

    /// Sends another packet of a connection that was opened in an earlier step.
    fn go_on(&mut self, node: &str, protocol: Protocol, connection: &Ends) -> anyhow::Result<Fate>;

    /// Status and number of local endpoints that `node` answers with for a service on its `healthCheckNodePort`;
    /// `None`: nobody listens there.
    fn health(&mut self, node: &str, service: &str, port: u16) -> anyhow::Result<Option<(u16, usize)>>;
}

/// What a step has in force.
pub(in crate::conformance) struct State<'a> {
    /// The cluster, the case's configuration in it.
    pub(super) cluster: &'a Cluster,
    /// The manifests that say the same.
    pub(super) documents: &'a [Value],
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::conformance) enum Fate {
    /// A backend got it; this is what it took for the sender.
    Dnat {
        /// Address and port of the backend.
        backend: SocketAddr,
        /// Source of the packet.
        source: SocketAddr,
    },
    /// Its sender was told that the port is unreachable.
    Reject,
    /// It was dropped in silence, and why if that is known.
    Drop(String),
    /// It went its own way, unchanged.
    Pass,
    /// What may not happen: an answer that is not translated back, a checksum that is not right.
    Wrong(String),
}
