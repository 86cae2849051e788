//! What a packet may meet on its way, where it begins and where it ends.

use weir::datapath::Datapath;

use crate::conformance::loaded::machine::Machine;

/// A node with what it enforces.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) datapath: &'a Datapath,
    pub(super) machine: &'a Machine,
}

/// Where a packet may begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// In a pod: the one that has the address.
    Pod,
    /// On a node itself.
    Node(&'a str),
    /// Beyond the cluster.
    Outside,
}

/// What a packet meets next.
#[derive(Clone, Copy)]
pub(super) enum Hop<'a> {
    /// It comes out of the pod that its source address says.
    FromPod(Member<'a>),
    /// It comes in by the uplink, and meets the edge.
    FromWire(Member<'a>),
    /// The edge left it to TC.
    FromUplink(Member<'a>),
    /// The node routes what came in by this interface, or what it sends itself (0).
    Stack(Member<'a>, u32),
    /// It is about to enter the pod that its destination address says; with its mark.
    ToPod(Member<'a>, u32, u32),
    /// It is about to leave by the uplink.
    ToWire(Member<'a>, u32),
    /// The node sends it to itself.
    ToItself(Member<'a>),
}

/// How far a packet is.
pub(super) enum Progress<'a> {
    On(Hop<'a>, Vec<u8>),
    Arrived(Place<'a>, Vec<u8>),
    Lost(String),
}
