//! Frames on interfaces, as they come in before any program has seen them, and as they go out after all have.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt,
        socket, sockopt::RcvBufForce,
    },
};

/// What a packet socket says of a frame that this side sent (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;
/// Enough for the longest test.
const BUFFER: usize = 8 << 20;

/// A socket on every interface of this thread's network namespace.
#[derive(Debug)]
pub struct Tap(OwnedFd);

/// A frame that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of the interface.
    pub ifindex: u32,
    /// It was sent there, not received.
    pub is_outgoing: bool,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Tap {
    /// Begins to watch.
    pub fn open() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll);
        let socket = socket.expect("a packet socket needs root");
        setsockopt(&socket, RcvBufForce, &BUFFER).expect("root may have any buffer");
        Self(socket)
    }

    /// Sends a frame out by an interface.
    pub fn send(&self, interface: &str, frame: &[u8]) {
        let links = getifaddrs()
            .expect("the interfaces can be listed")
            .filter(|link| link.interface_name == interface);
        let link = links
            .filter_map(|link| Some(*link.address?.as_link_addr()?))
            .next()
            .expect("an interface of that name");
        sendto(self.0.as_raw_fd(), frame, &link, MsgFlags::empty()).expect("the interface is up");
    }

    /// What has been seen since the last look.
    pub fn seen(&self) -> Vec<Seen> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&self) -> Option<Seen> {
        let mut buffer = [0; 1 << 14];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return None,
                // An interface that went down is told of on the socket.
                Err(Errno::ENETDOWN) => {}
                received => {
                    let (len, from) = received.expect("the socket is open");
                    let from = from.expect("a frame has an interface");
                    let is_outgoing = from.pkttype() == OUTGOING;
                    let ifindex = from.ifindex() as u32;
                    return Some(Seen { ifindex, is_outgoing, frame: buffer[..len].to_vec() });
                }
            }
        }
    }
}
