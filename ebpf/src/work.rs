//! What the stages of one packet hand on to one another.

use core::marker::PhantomPinned;

use weir_common::{
    addr::Be16,
    endpoint::Endpoint,
    flow::{FlowKey, elapsed},
    reason::Reason,
    service::Affinity,
};

use crate::{
    edge::fib::Fib,
    flow::{Path, Rules},
    maps,
    parse::Packet,
    words,
};

/// A packet must not pass: the number of the [`Reason`]. One word, which a function of [`slow`](crate::slow)
/// can return; the rules that had their say are in [`Work::rules`].
#[derive(Clone, Copy)]
pub struct Refused(pub u32);

/// What the program returns for a packet that is refused, counted and told of.
#[derive(Clone, Copy)]
pub struct Refusal(pub i32);

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
    pub client: End<A>,
    /// Whom it was opened to: the backend, where that is a service.
    pub server: End<A>,
    /// The backend that was chosen for a new flow, as session affinity remembers it.
    pub chosen: Affinity<A>,
    /// What the client calls it.
    pub front: Front<A>,
    /// The epoch at which the packet came: that of all that it is judged by, or of what stood there before.
    pub epoch: u32,
    /// 1 when the flow is not recorded yet.
    pub is_new: u32,
    /// An entry to be written into the flow table, or one that was looked for there.
    pub entry: Entry<A>,
    /// The packet that an ICMP error quotes, turned round: the key of what its receiver sends back.
    pub quoted: FlowKey<A>,
    /// The rules that decided its flow, as the entry says that was found.
    pub known_rules: Rules,
    /// The rules that decide it now, and that an entry is written with.
    pub rules: Rules,
    /// Where the packet came out of a tunnel: the backend that it was sent to.
    pub tunnelled_to: A,
    /// 1 when it did.
    pub is_tunnelled: u32,
    /// A question to the kernel's routing table.
    pub fib: Fib,
    /// How far a loop has come.
    pub cursor: Cursor<u32>,
    /// Which entry of its set the flow's is.
    pub at: At,
    /// What a search has found so far.
    pub best: Best,
    /// Answers that went outside.
    pub meter: Meter,
    /// Events of packets that the edge dropped.
    pub told: Meter,
    /// Tells the compiler that a reference to it is not the only one: a stage of [`slow`](crate::slow) takes
    /// its own out of the map. So only who was given all of it may call one.
    pub shared: PhantomPinned,
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

/// An entry of a set of the flow table, in memory for the same reason.
#[repr(C)]
pub struct At {
    /// Its way.
    pub way: Cursor<u32>,
    /// Its turn, when it was found.
    pub turn: Cursor<u32>,
}

/// The best of what a search has looked at.
#[repr(C)]
pub struct Best {
    /// How good it is.
    pub worth: Cursor<u64>,
    /// The tag of its way.
    pub tag: Cursor<u64>,
}

/// What this CPU has sent in a second.
#[repr(C)]
pub struct Meter {
    /// When the second began.
    pub since: u32,
    /// Packets since then.
    pub count: u32,
}

impl Meter {
    /// Counts one more; false when there have been `most` this second.
    #[inline(always)]
    pub fn admits(&mut self, most: u32) -> bool {
        let now = maps::now();
        if elapsed(now, self.since) >= maps::HZ.load() {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= most
    }
}

/// One end of a flow.
#[repr(C)]
pub struct End<A> {
    /// Its address.
    pub addr: A,
    /// Its port, 0 where it has none.
    pub port: Be16,
    /// Where it is a pod of this node, the MAC address of that.
    pub mac: [u8; 6],
    /// Where it is a pod of this node, the interface of that, else 0.
    pub ifindex: u32,
}

impl<A> End<A> {
    /// Notes that it is this pod.
    #[inline(always)]
    pub fn set_pod(&mut self, pod: &Endpoint) {
        self.ifindex = pod.ifindex;
        // SAFETY: places of one type, both in maps.
        unsafe { words::copy(&raw mut self.mac, &raw const pod.mac) };
    }
}

/// An address and port of a service.
#[repr(C)]
pub struct Front<A> {
    /// The address.
    pub addr: A,
    /// The port.
    pub port: Be16,
}

/// What an entry of the flow table says.
#[repr(C)]
pub struct Entry<A> {
    /// The packets it is for.
    pub key: FlowKey<A>,
    /// Their way.
    pub path: Path<A>,
}
