//! What comes in and goes out by interfaces of the lab.

use crate::packet_socket::{PacketSocket, Seen, links};

/// Watches every interface of this thread's network namespace.
#[derive(Debug)]
pub struct Tap(PacketSocket);

impl Tap {
    /// Begins to watch.
    pub fn open() -> Self {
        Self(PacketSocket::open().expect("a packet socket"))
    }

    /// Sends a frame out by an interface.
    pub fn send(&self, interface: &str, frame: &[u8]) {
        let mut links = links().expect("the interfaces can be listed");
        let (_, link) = links.find(|(name, _)| name == interface).expect("an interface of that name");
        self.0.send(&link, frame).expect("the interface is up");
    }

    /// The frames that have come in by an interface since the last look at any.
    pub fn came_in(&self, ifindex: u32) -> Vec<Vec<u8>> {
        self.seen(ifindex, false)
    }

    /// The frames that have gone out by an interface since the last look at any.
    pub fn went_out(&self, ifindex: u32) -> Vec<Vec<u8>> {
        self.seen(ifindex, true)
    }

    /// Forgets what has been seen so far.
    pub fn flush(&self) {
        self.all().for_each(drop);
    }

    fn seen(&self, ifindex: u32, is_outgoing: bool) -> Vec<Vec<u8>> {
        let is_there = |seen: &Seen| seen.ifindex == ifindex as usize && seen.is_outgoing == is_outgoing;
        self.all().filter(is_there).map(|seen| seen.frame).collect()
    }

    fn all(&self) -> impl Iterator<Item = Seen> {
        std::iter::from_fn(|| self.0.next().expect("the socket is open"))
    }
}
