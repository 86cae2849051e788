//! What programs return: actions of TC and XDP.

/// `TC_ACT_UNSPEC`: it goes on.
pub const UNSPEC: u32 = u32::MAX;
/// `TC_ACT_SHOT`: it is dropped.
pub const SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`: it goes to another interface.
pub const REDIRECT: u32 = 7;

/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`: it goes on to the stack.
pub const XDP_PASS: u32 = 2;
/// `XDP_TX`: it is sent out again.
pub const XDP_TX: u32 = 3;
