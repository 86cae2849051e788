//! This host's network over rtnetlink.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::sync::mpsc;

use super::{
    enforcer::Mac,
    interfaces::{Network, Snapshot},
};
use crate::kernel::{
    netlink::{Link, Netlink},
    sys,
};

/// How long a burst of changes is waited for: a pod comes with several messages.
const QUIET: Duration = Duration::from_millis(20);
/// Multicast groups of rtnetlink: `RTMGRP_LINK`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x40 | 0x400;

/// The network of the namespace the agent runs in.
#[derive(Debug)]
pub(super) struct HostNetwork {
    netlink: Netlink,
    /// Interfaces at the last snapshot.
    links: Vec<Link>,
}

impl HostNetwork {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open().map_err(io::Error::other)?, links: Vec::new() })
    }

    fn link(&self, ifindex: u32) -> io::Result<&Link> {
        let found = self.links.iter().find(|link| link.index == ifindex);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the interface is gone"))
    }
}

impl Network for HostNetwork {
    fn snapshot(&mut self) -> io::Result<Snapshot> {
        self.links = self.netlink.links().map_err(io::Error::other)?;
        Ok(Snapshot {
            links: self.links.iter().map(|link| (link.name.clone(), link.index)).collect(),
            host_routes: self.netlink.host_routes().map_err(io::Error::other)?,
            addresses: self.netlink.addresses().map_err(io::Error::other)?,
        })
    }

    fn peer_mac(&mut self, ifindex: u32, addresses: &[IpAddr]) -> io::Result<Option<Mac>> {
        let mac = self.netlink.peer_mac(self.link(ifindex)?, addresses).map_err(io::Error::other)?;
        Ok(mac.map(Mac))
    }

    fn bring_up(&mut self, ifindex: u32) -> io::Result<()> {
        self.netlink.set_up(self.link(ifindex)?, true).map_err(io::Error::other)
    }
}

/// Sends a word whenever an interface or a route of this network comes or goes, until the receiver is gone.
pub(super) async fn watch(changed: mpsc::Sender<()>) -> io::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    let waiting = sys::when_readable(socket.as_fd())?;
    loop {
        let mut ready = waiting.readable().await?;
        tokio::time::sleep(QUIET).await;
        let mut message = [0; 8192];
        loop {
            match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
                // What the messages say is asked anew; those that were lost change nothing.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        ready.clear_ready();
        if changed.send(()).await.is_err() {
            return Ok(());
        }
    }
}
