//! Records that leave the kernel through the `EVENTS` ring buffer.

use crate::{
    addr::{Be16, V6},
    plain,
};

/// What happened.
pub mod kind {
    /// A packet was dropped.
    pub const DROP: u8 = 0;
    /// A flow was decided for the first time.
    pub const FLOW: u8 = 1;
    /// A packet was refused, and its sender was told so.
    pub const REJECT: u8 = 2;
}

/// One record. IPv4 addresses stand in the first word, with `family` 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
    /// Source as the packet carried it.
    pub src: V6,
    /// Destination as the packet carried it.
    pub dst: V6,
    /// Backend that the flow was sent to, zero where there is none.
    pub backend: V6,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Port of the backend.
    pub backend_port: Be16,
    /// One of [`kind`].
    pub kind: u8,
    /// [`Reason`](crate::reason::Reason) of a drop or reject.
    pub reason: u8,
    /// Rule that decided for the sender.
    pub egress_rule: u32,
    /// Rule that decided for the receiver.
    pub ingress_rule: u32,
    /// Interface the packet was on.
    pub ifindex: u32,
    /// Length of the packet in bytes.
    pub len: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// 4, 6, or 0 when the packet is of neither.
    pub family: u8,
    /// [`Hook`](crate::reason::Hook).
    pub hook: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Epoch of the decision.
    pub epoch: u32,
}

plain!(Event: 88);
