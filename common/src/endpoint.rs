//! Local pods as the datapath sees them.

use crate::plain;

/// Value of the `ENDPOINTS_*` maps, keyed by a pod's address: where a pod of this node hangs, and its
/// rule sets. A change of policy for a pod is one write of this value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Host-side interface of the pod.
    pub ifindex: u32,
    /// Rule set for what the pod receives; [`NO_POLICY`](crate::policy::NO_POLICY): no policy selects it.
    pub ingress: u32,
    /// Rule set for what the pod sends; [`NO_POLICY`](crate::policy::NO_POLICY): no policy selects it.
    pub egress: u32,
    /// Which of the two numbers of an [`Identity`](crate::policy::Identity) the rule sets are written in: 0 or 1.
    pub slot: u32,
    /// MAC address of the pod's own end of the interface.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

plain!(Endpoint: 24);
