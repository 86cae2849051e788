//! What the kernel announces of this host's network, and of the pods' own ends of its interfaces.

use std::{collections::BTreeSet, io};

use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// What addresses and routes depend on, but for interfaces.
const OWN: [MulticastGroup; 5] = [
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Nexthop,
];

/// What has been announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing: all is as it was.
    Nothing,
    /// Something; of interfaces, of those with these numbers, or of the other ends of those.
    Some(BTreeSet<u32>),
    /// More than there was room for.
    Lost,
}

/// Sockets on which the kernel announces what changes. It does so before the system call that changed it returns:
/// where they are empty, nothing has.
#[derive(Debug)]
pub(super) struct Announcements {
    /// Addresses and routes.
    own: Socket,
    /// Interfaces.
    links: Socket,
    /// `links` tells of those in other namespaces too. The kernel does that for each namespace that has a number here,
    /// which it gets when an interface is listed whose other end is there.
    everywhere: bool,
}

impl Announcements {
    /// Listens from now on, in the network namespace of this thread.
    pub(super) fn listen() -> io::Result<Self> {
        let own = socket(&OWN)?;
        let links = socket(&[MulticastGroup::Link])?;
        // Takes CAP_NET_BROADCAST.
        let everywhere = links.set_listen_all_namespaces(true).is_ok();
        Ok(Self { own, links, everywhere })
    }

    /// What has been announced since the last call.
    pub(super) fn news(&self) -> News {
        let (Some(own), Some(links)) = (waiting(&self.own), waiting(&self.links)) else { return News::Lost };
        if own.is_empty() && links.is_empty() {
            return News::Nothing;
        }
        match links.iter().map(|datagram| named(datagram)).collect::<Option<Vec<_>>>() {
            Some(named) => News::Some(named.into_iter().flatten().collect()),
            None => News::Lost,
        }
    }

    /// Whether a change of `other`, the other end of interface `ifindex`, would name that interface.
    pub(super) fn would_tell(&self, other: &LinkMessage, ifindex: u32) -> bool {
        let elsewhere = other.attributes.iter().any(|of| matches!(of, LinkAttribute::LinkNetNsId(_)));
        other_end(other) == Some(ifindex) && (self.everywhere || !elsewhere)
    }
}

/// Number of the interface that this one is paired with, or lies on.
pub(super) fn other_end(link: &LinkMessage) -> Option<u32> {
    let index = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    });
    index.filter(|&index| index != 0)
}

fn socket(groups: &[MulticastGroup]) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    for group in groups {
        socket.add_membership(*group as u32)?;
    }
    Ok(socket)
}

/// Every datagram that waits; `None` when others were lost.
fn waiting(socket: &Socket) -> Option<Vec<Vec<u8>>> {
    let (mut datagrams, mut lost) = (Vec::new(), false);
    loop {
        match socket.recv_from_full() {
            Ok((datagram, _)) => datagrams.push(datagram),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (!lost).then_some(datagrams),
            // The kernel adds nothing more until all that is there has been read.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
            Err(_) => return None,
        }
    }
}

/// The interface that a datagram is about, and its other end; whatever namespace a number belongs to.
fn named(datagram: &[u8]) -> Option<Vec<u32>> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).ok()?;
    Some(match message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
        ) => [Some(link.header.index), other_end(&link)].into_iter().flatten().collect(),
        _ => Vec::new(),
    })
}
