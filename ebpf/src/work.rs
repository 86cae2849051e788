//! What the stages of one packet hand on to one another.

use weir_common::{endpoint::Endpoint, flow::FlowKey, reason::Reason};

use crate::{
    flow::{Path, Rules},
    parse::Packet,
};

/// A packet must not pass: the number of the [`Reason`]. One word, which a function of [`slow`](crate::slow)
/// can return; the rules that had their say are in [`Work::rules`].
#[derive(Clone, Copy)]
pub struct Refused(pub u32);

impl From<Reason> for Refused {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(reason as u32)
    }
}

/// A packet's working memory: more than the stack holds, hence an element of a per-CPU map. Programs at TC
/// run with softirqs off and are never interrupted by one another.
#[repr(C)]
pub struct Work<A> {
    /// The packet.
    pub packet: Packet<A>,
    /// Its way.
    pub path: Path<A>,
    /// Who opened the flow.
    pub client: End,
    /// Whom it was opened to.
    pub server: End,
    /// 1 when the flow is not recorded yet.
    pub is_new: u32,
    /// The way back of a flow that is opened.
    pub reply: Reply<A>,
    /// The rules that decided it.
    pub rules: Rules,
    /// How far a loop has come.
    pub cursor: Cursor<u32>,
    /// What a search has found so far.
    pub best: Best,
}

/// A number that a loop over a packet or a table counts by.
///
/// In map memory the verifier forgets what it knows of a number; on the stack every range that the loop can
/// be at would be a state of its own to it.
#[repr(C)]
pub struct Cursor<T>(T);

impl<T> Cursor<T> {
    /// Reads it.
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: a valid reference; volatile, so that the compiler reads it where it says.
        unsafe { (&raw const self.0).read_volatile() }
    }

    /// Writes it.
    #[inline(always)]
    pub fn set(&mut self, to: T) {
        // SAFETY: as in `get`.
        unsafe { (&raw mut self.0).write_volatile(to) }
    }
}

/// The best of what a search has looked at.
#[repr(C)]
pub struct Best {
    /// How good it is.
    pub worth: Cursor<u64>,
    /// The tag of its way.
    pub tag: Cursor<u64>,
}

/// One end of a flow, where it is a pod of this node.
#[repr(C)]
pub struct End {
    /// Its interface; 0: it is none.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl End {
    /// Makes it this pod.
    #[inline(always)]
    pub fn set(&mut self, pod: &Endpoint) {
        self.ifindex = pod.ifindex;
        self.mac = pod.mac;
    }
}

/// An entry to be recorded for the other direction.
#[repr(C)]
pub struct Reply<A> {
    /// The packets it is for.
    pub key: FlowKey<A>,
    /// Their way.
    pub path: Path<A>,
}
