//! What the agent tells the programs while they run, and what it fixes when it loads them.

use crate::{
    addr::{V4, V6},
    plain,
};

/// The one element of the `STATE` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Revision of policy and services. Written last in a commit: a flow that was decided in another
    /// epoch is decided again at its next packet. 0 before the first commit: everything is dropped.
    pub epoch: u32,
    /// Bits of [`events`].
    pub events: u32,
    /// This node's own IPv4 address, all zero when it has none.
    pub node_v4: V4,
    /// This node's own IPv6 address, all zero when it has none.
    pub node_v6: V6,
    /// Interface towards other nodes and the outside.
    pub uplink: u32,
    /// Bits of [`flags`].
    pub flags: u32,
}

/// What the programs act on: settings of the cluster, and where to read.
pub mod flags {
    /// What pods send outside of the cluster leaves under the node's address.
    pub const MASQUERADE: u32 = 1 << 0;
    /// TCP connections to services whose backend is gone are reset.
    pub const RESET_GONE: u32 = 1 << 1;
    /// The commit in force wrote the second number of identities: what no pod is asked about reads that one.
    pub const SECOND_SLOT: u32 = 1 << 2;
}

/// Bits of the values of the `INSIDE_*` LPM tries: whose a cluster's own address is.
pub mod inside {
    /// A pod's.
    pub const POD: u32 = 1 << 0;
    /// A node's.
    pub const NODE: u32 = 1 << 1;
    /// This node's own.
    pub const OWN: u32 = 1 << 2;
}

/// Which events go to the ring buffer.
pub mod events {
    /// Dropped packets.
    pub const DROPS: u32 = 1 << 0;
    /// New flows.
    pub const FLOWS: u32 = 1 << 1;
}

/// Mark of a packet that was judged before it is handed to a pod's interface from the node's side.
pub const MARK_JUDGED: u32 = 0x7765_6972;

/// Number of the loopback interface of every network namespace.
pub const LOOPBACK: u32 = 1;

plain!(State: 36);
