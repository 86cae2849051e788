//! What is to be expected.

use std::net::{IpAddr, SocketAddr};

use weir::cluster::{Cluster, Protocol};
use anyhow::Result;

/// What the policies in force say.
pub(crate) enum Model {
    /// There are no agents, so nothing is denied.
    Open,
}

impl Model {
    pub(crate) fn of(_cluster: &Cluster) -> Result<Self> { Ok(Self::Open) }
    /// Whether a connection from an address to an address and port is allowed, by both ends.
    pub(crate) fn allows(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> bool {
        match self {
            Self::Open => true,
        }
    }
}
