//! Frames put on interfaces and read off them, whatever any stack makes of them.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt,
        socket, sockopt::RcvBufForce,
    },
};

use super::network::ENDS;
use crate::live::netns;

/// What a frame read by its own sender's side is (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;
/// Enough for all that a batch of connections causes.
const BUFFER: usize = 16 << 20;
const TICK: Duration = Duration::from_micros(300);

/// A socket on every interface of [`ENDS`].
#[derive(Debug)]
pub(super) struct Tap {
    socket: OwnedFd,
    links: BTreeMap<String, LinkAddr>,
}

/// A frame that was seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// On this interface.
    pub(super) interface: String,
    /// It was sent there, not received.
    pub(super) outgoing: bool,
    pub(super) frame: Vec<u8>,
}

/// What a listener says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is not of interest.
    Noise,
    /// More is to come.
    More,
    /// That was the last.
    Last,
}

impl Tap {
    pub(super) fn open() -> Result<Self> {
        let socket = netns::within(ENDS, || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            setsockopt(&socket, RcvBufForce, &BUFFER)?;
            Ok(socket)
        })?;
        let mut tap = Self { socket, links: BTreeMap::new() };
        tap.refresh()?;
        Ok(tap)
    }

    /// Learns of new interfaces.
    pub(super) fn refresh(&mut self) -> Result<()> {
        self.links = netns::within(ENDS, || {
            let links =
                getifaddrs()?.filter_map(|link| Some((link.interface_name, *link.address?.as_link_addr()?)));
            Ok(links.collect())
        })?;
        Ok(())
    }

    /// Sends a frame out by an interface.
    pub(super) fn send(&self, interface: &str, frame: &[u8]) -> Result<()> {
        let link = self.links.get(interface).with_context(|| format!("no interface {interface}"))?;
        sendto(self.socket.as_raw_fd(), frame, link, MsgFlags::empty())
            .with_context(|| format!("{} bytes by {interface}", frame.len()))?;
        Ok(())
    }

    /// Forgets what has been seen so far.
    pub(super) fn flush(&self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Shows `take` every frame, until it has seen the last or nothing of interest came for a while.
    pub(super) fn listen(&self, quiet: Duration, mut take: impl FnMut(&Seen) -> Result<Heard>) -> Result<()> {
        let mut since = Instant::now();
        while since.elapsed() < quiet {
            match self.next()? {
                None => thread::sleep(TICK),
                Some(seen) => match take(&seen)? {
                    Heard::Noise => {}
                    Heard::More => since = Instant::now(),
                    Heard::Last => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<Seen>> {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return Ok(None),
                // An interface that went down is told of on the socket.
                Err(Errno::ENETDOWN) => continue,
                received => received?,
            };
            let from = from.context("a frame has an interface")?;
            let named = self.links.iter().find(|(_, link)| link.ifindex() == from.ifindex());
            if let Some((interface, _)) = named {
                let (interface, outgoing) = (interface.clone(), from.pkttype() == OUTGOING);
                return Ok(Some(Seen { interface, outgoing, frame: buffer[..len].to_vec() }));
            }
        }
    }
}
