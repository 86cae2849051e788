//! Services: frontends, rings of backends.

use crate::{addr::Be16, plain};

/// Key of the `FRONTENDS_*` maps: an address, port and protocol that a service answers on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrontendKey<A> {
    /// The virtual address.
    pub addr: A,
    /// The service port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u16,
}

/// A run of the `RINGS_*` array that one group of clients chooses from: its slots, several to an element, and
/// behind them its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Index of the first element.
    pub offset: u32,
    /// Number of slots, a prime or 1; 0: there is no backend for these clients.
    pub len: u32,
}

impl Ring {
    /// Elements that its slots take.
    pub const fn slot_elements<A>(&self) -> u32 {
        // A rounded-up division without the branch that `div_ceil` has.
        (self.len + (Backend::<A>::SLOTS - 1)) >> Backend::<A>::SLOTS.ilog2()
    }
}

/// Bits of [`Service::flags`].
pub mod flags {
    /// An empty ring is answered by a drop rather than a reject: endpoints exist, but none that policy lets this node use.
    pub const EMPTY_INTERNAL_DROPS: u32 = 1 << 0;
    /// The same for outside clients.
    pub const EMPTY_EXTERNAL_DROPS: u32 = 1 << 1;
    /// Masquerade connections of pods.
    pub const MASQUERADE_POD: u32 = 1 << 2;
    /// Masquerade connections of the node itself.
    pub const MASQUERADE_NODE: u32 = 1 << 3;
    /// Masquerade connections from outside.
    pub const MASQUERADE_EXTERNAL: u32 = 1 << 4;
    /// Only clients in the service's source ranges may use the frontend; others are dropped.
    pub const SOURCE_RANGES: u32 = 1 << 5;
    /// The ring for pods and the node is of this node's endpoints only.
    pub const INTERNAL_LOCAL: u32 = 1 << 6;
    /// The same for outside clients.
    pub const EXTERNAL_LOCAL: u32 = 1 << 7;
    /// Packets from outside to a backend of another node go there as they are, through a tunnel, and the backend
    /// answers the client itself.
    pub const DSR: u32 = 1 << 8;
    /// The service's packets from outside may be sent on before the stack.
    pub const EDGE: u32 = 1 << 9;
}

/// Bits of the values of the `MEMBERS_*` maps.
pub mod member {
    /// It serves: flows of every protocol may stay with it. Without this bit it is still an endpoint of the
    /// service, and connections that it has may come to their end.
    pub const SERVES: u32 = 1 << 0;
    /// It is in the service port's ring of all nodes' endpoints.
    pub const CLUSTER: u32 = 1 << 1;
    /// It is in the service port's ring of this node's endpoints.
    pub const LOCAL: u32 = 1 << 2;
    /// It serves and its health checks do not fail: what it has not answered yet may wait for it.
    pub const SOUND: u32 = 1 << 3;
}

/// Value of the `FRONTENDS_*` maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Number of the service port for people; the key of `MEMBERS_*`. Never 0.
    pub id: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// For pods and the node itself.
    pub internal: Ring,
    /// For clients outside the cluster.
    pub external: Ring,
    /// The port of all backends of a service that is forwarded by [`flags::DSR`], whose packets do not carry it.
    pub target_port: Be16,
    /// Zero.
    pub reserved: u16,
    /// For how many seconds after a client's last connection the next one goes to the same backend; 0: the ring alone says.
    pub affinity: u32,
}

/// Element of the `RINGS_*` arrays: a backend, or [`SLOTS`](Self::SLOTS) slots of a ring, each a 16-bit number that
/// says which of the ring's backends it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend<A> {
    /// The endpoint's address.
    pub addr: A,
    /// The endpoint's port.
    pub port: Be16,
    /// Zero.
    pub reserved: u16,
}

impl<A> Backend<A> {
    /// Slots that one element holds, a power of two.
    pub const SLOTS: u32 = 1 << (size_of::<Self>() / size_of::<u16>()).ilog2();
}

/// Key of the `MEMBERS_*` maps: an endpoint of a service port, in whatever state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemberKey<A> {
    /// [`Service::id`].
    pub service: u32,
    /// The endpoint.
    pub backend: Backend<A>,
}

/// Key of the `AFFINITY_*` maps: a client of a service port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey<A> {
    /// [`Service::id`].
    pub service: u32,
    /// The client's address.
    pub client: A,
}

/// Value of the `AFFINITY_*` maps: where the client's last connection went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity<A> {
    /// When that was, the low half of the kernel's jiffies.
    pub seen: u32,
    /// The backend.
    pub backend: Backend<A>,
}

/// Key of the `SOURCE_RANGES_*` LPM tries, after the length of its prefix: a client that may use the
/// frontends of a service port that have [`flags::SOURCE_RANGES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceKey<A> {
    /// [`Service::id`], all of which belongs to every prefix.
    pub service: u32,
    /// The client.
    pub client: A,
}

/// Bits that the prefixes of [`SourceKey`] begin with: the service.
pub const SOURCE_PREFIX: u32 = u32::BITS;

plain!(
    AffinityKey<crate::addr::V4>: 8, AffinityKey<crate::addr::V6>: 20,
    Affinity<crate::addr::V4>: 12, Affinity<crate::addr::V6>: 24,
    Ring: 8, Service: 32,
    SourceKey<crate::addr::V4>: 8, SourceKey<crate::addr::V6>: 20,
    FrontendKey<crate::addr::V4>: 8, FrontendKey<crate::addr::V6>: 20,
    Backend<crate::addr::V4>: 8, Backend<crate::addr::V6>: 20,
    MemberKey<crate::addr::V4>: 12, MemberKey<crate::addr::V6>: 24,
);
