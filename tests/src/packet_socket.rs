//! Frames on interfaces, as they come in before any program has seen them, and as they go out after all have.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
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
/// Enough for all that a test causes before it looks.
const BUFFER: usize = 16 << 20;

/// A socket on every interface of the network namespace in which it was opened.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// A frame that was seen.
#[derive(Debug)]
pub struct Seen {
    /// Number of the interface.
    pub ifindex: usize,
    /// It was sent there, not received.
    pub is_outgoing: bool,
    /// The frame.
    pub frame: Vec<u8>,
}

impl PacketSocket {
    /// Begins to watch.
    pub fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll);
        let socket = socket.context("a packet socket needs root")?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        Ok(Self(socket))
    }

    /// Sends a frame out by an interface.
    pub fn send(&self, link: &LinkAddr, frame: &[u8]) -> Result<()> {
        let sent = sendto(self.0.as_raw_fd(), frame, link, MsgFlags::empty());
        sent.with_context(|| format!("cannot send {} bytes", frame.len())).map(drop)
    }

    /// The next frame that has been seen, if any.
    pub fn next(&self) -> Result<Option<Seen>> {
        let mut buffer = [0; 1 << 14];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return Ok(None),
                // An interface that went down is told of on the socket.
                Err(Errno::ENETDOWN) => {}
                received => {
                    let (len, from) = received?;
                    let from = from.context("a frame has an interface")?;
                    let is_outgoing = from.pkttype() == OUTGOING;
                    return Ok(Some(Seen {
                        ifindex: from.ifindex(),
                        is_outgoing,
                        frame: buffer[..len].to_vec(),
                    }));
                }
            }
        }
    }
}

/// The interfaces of this thread's network namespace, and how to send by them.
pub fn links() -> Result<impl Iterator<Item = (String, LinkAddr)>> {
    Ok(getifaddrs()?.filter_map(|link| Some((link.interface_name, *link.address?.as_link_addr()?))))
}
