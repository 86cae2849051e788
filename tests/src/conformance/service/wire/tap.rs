//! Frames put on interfaces and read off them, whatever any stack makes of them.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::LinkAddr;

use super::network::ENDS;
use crate::{
    live::netns,
    packet_socket::{self, PacketSocket, links},
};

const TICK: Duration = Duration::from_micros(300);

/// A socket on every interface of [`ENDS`].
#[derive(Debug)]
pub(super) struct Tap {
    socket: PacketSocket,
    links: BTreeMap<String, LinkAddr>,
}

/// A frame that was seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// On this interface.
    pub(super) interface: String,
    /// It was sent there, not received.
    pub(super) is_outgoing: bool,
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
        let socket = netns::within(ENDS, PacketSocket::open)?;
        let mut tap = Self { socket, links: BTreeMap::new() };
        tap.refresh()?;
        Ok(tap)
    }

    /// Learns of new interfaces.
    pub(super) fn refresh(&mut self) -> Result<()> {
        self.links = netns::within(ENDS, || Ok(links()?.collect()))?;
        Ok(())
    }

    /// Sends a frame out by an interface.
    pub(super) fn send(&self, interface: &str, frame: &[u8]) -> Result<()> {
        let link = self.links.get(interface).with_context(|| format!("no interface {interface}"))?;
        self.socket.send(link, frame).with_context(|| format!("by {interface}"))
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
        while let Some(packet_socket::Seen { ifindex, is_outgoing, frame }) = self.socket.next()? {
            if let Some((interface, _)) = self.links.iter().find(|(_, link)| link.ifindex() == ifindex) {
                return Ok(Some(Seen { interface: interface.clone(), is_outgoing, frame }));
            }
        }
        Ok(None)
    }
}
