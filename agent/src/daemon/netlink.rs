//! This host's network over rtnetlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use rtnetlink::{
    Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
    sys::AsyncSocket as _,
};
use tokio::{
    runtime::{self, Runtime},
    sync::mpsc,
};

use super::{
    announcements::{Announcements, other_end},
    enforcer::Mac,
    interfaces::{Network, Snapshot},
    memory::Memory,
};

/// How long a burst of changes is waited for.
const QUIET: Duration = Duration::from_millis(20);

/// Whether the loopback interface takes in what has a source of this host's own: of the namespace that looks.
const ACCEPT_OWN: &str = "/proc/sys/net/ipv4/conf/lo/accept_local";

/// The network of the namespace the agent started in.
///
/// Its calls wait: they are for a thread of their own, never for a task. That thread sends, and receives the answers,
/// itself: to hand each request to another thread would cost more than the request.
#[derive(Debug)]
pub(super) struct Netlink {
    runtime: Runtime,
    handle: Handle,
    announcements: Announcements,
    memory: Memory,
    /// The interfaces of the last reading, by number.
    links: BTreeMap<u32, LinkMessage>,
}

impl Netlink {
    /// Connects.
    pub(super) fn connect() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let (connection, handle, _) = {
            let _context = runtime.enter();
            rtnetlink::new_connection()?
        };
        runtime.spawn(connection);
        let announcements = Announcements::listen()?;
        let memory = Memory::new(Instant::now());
        Ok(Self { runtime, handle, announcements, memory, links: BTreeMap::new() })
    }
}

/// Sends a word whenever an interface or a route of this network comes or goes, or a pod's own end of an interface
/// changes. Within a tokio runtime.
pub(super) fn watch(changed: mpsc::Sender<()>) -> io::Result<()> {
    let groups = [MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (routes, _, of_routes) = rtnetlink::new_multicast_connection(&groups)?;
    let (mut links, _, of_links) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    // Where that is not permitted, the pods' ends are looked at with the next change.
    drop(links.socket_mut().socket_mut().set_listen_all_namespaces(true));
    tokio::spawn(routes);
    tokio::spawn(links);
    let mut messages = stream::select(of_routes, of_links);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            // A pod comes with a burst of messages.
            tokio::time::sleep(QUIET).await;
            while messages.next().now_or_never().flatten().is_some() {}
            // A full channel already says that something changed.
            if let Err(mpsc::error::TrySendError::Closed(())) = changed.try_send(()) {
                return;
            }
        }
    });
    Ok(())
}

impl Network for Netlink {
    fn snapshot(&mut self) -> io::Result<Arc<Snapshot>> {
        let now = Instant::now();
        self.memory.hear(&self.announcements.news(), now);
        if let Some(snapshot) = self.memory.snapshot() {
            return Ok(snapshot);
        }
        let snapshot = Arc::new(self.read()?);
        self.memory.keep(&snapshot, now);
        Ok(snapshot)
    }

    fn peer_mac(&mut self, ifindex: u32, addresses: &[IpAddr]) -> io::Result<Option<Mac>> {
        if let Some(mac) = self.memory.mac(ifindex) {
            return Ok(Some(mac));
        }
        let Some(link) = self.links.get(&ifindex) else { return Ok(None) };
        let Some(other) = self.runtime.block_on(self.other_end(link))? else {
            return self.runtime.block_on(self.neighbour(ifindex, addresses));
        };
        let mac = mac(&other);
        if let Some(mac) = mac.filter(|_| self.announcements.would_tell(&other, ifindex)) {
            self.memory.keep_mac(ifindex, mac);
        }
        Ok(mac)
    }

    fn bring_up(&mut self, ifindex: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        self.runtime.block_on(self.handle.link().set(message).execute()).map_err(io_error)
    }

    fn accept_own(&mut self) -> io::Result<()> {
        fs::write(ACCEPT_OWN, "1")
    }
}

impl Netlink {
    /// Everything as it is now.
    fn read(&mut self) -> io::Result<Snapshot> {
        self.runtime.block_on(async {
            let mut snapshot = Snapshot::default();
            let mut loopbacks = BTreeSet::new();
            self.links.clear();
            for link in all(self.handle.link().get().execute()).await? {
                if link.header.flags.contains(LinkFlags::Loopback) {
                    loopbacks.insert(link.header.index);
                }
                if let Some(name) = name(&link) {
                    snapshot.links.insert(name, link.header.index);
                }
                self.links.insert(link.header.index, link);
            }
            for address in all(self.handle.address().get().execute()).await? {
                let own = |attribute: &AddressAttribute| match attribute {
                    AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                };
                // A node address on the loopback interface does not say where the other nodes are.
                if loopbacks.contains(&address.header.index) {
                    continue;
                }
                let held = address.attributes.iter().filter_map(own);
                snapshot.addresses.extend(held.map(|held| (held, address.header.index)));
            }
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
            for request in [v4, v6] {
                let routes = all(self.handle.route().get(request).execute()).await?;
                snapshot.host_routes.extend(routes.iter().filter_map(host_route));
            }
            Ok(snapshot)
        })
    }

    /// The other end of a veth or netkit pair, in whatever namespace it is.
    async fn other_end(&self, link: &LinkMessage) -> io::Result<Option<LinkMessage>> {
        let Some(index) = other_end(link) else { return Ok(None) };
        let mut request = self.handle.link().get().match_index(index);
        let namespace = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkNetNsId(id) => Some(*id),
            _ => None,
        });
        if let Some(id) = namespace {
            request.message_mut().attributes.push(LinkAttribute::IfNetnsId(id));
        }
        first(request.execute()).await
    }

    /// The MAC address that this host knows for one of `addresses` behind an interface: of a virtual machine
    /// behind a tap device, for one.
    async fn neighbour(&self, ifindex: u32, addresses: &[IpAddr]) -> io::Result<Option<Mac>> {
        let neighbours = all(self.handle.neighbours().get().execute()).await?;
        let known =
            neighbours.iter().filter(|neighbour| neighbour.header.ifindex == ifindex).find_map(|neighbour| {
                let (mut address, mut mac) = (None, None);
                for attribute in &neighbour.attributes {
                    match attribute {
                        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                            address = Some(IpAddr::V4(*v4));
                        }
                        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                            address = Some(IpAddr::V6(*v6));
                        }
                        NeighbourAttribute::LinkLayerAddress(bytes) => {
                            mac = bytes.as_slice().try_into().ok().map(Mac);
                        }
                        _ => {}
                    }
                }
                mac.filter(|_| address.is_some_and(|address| addresses.contains(&address)))
            });
        Ok(known)
    }
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn mac(link: &LinkMessage) -> Option<Mac> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn host_route(route: &RouteMessage) -> Option<(IpAddr, u32)> {
    let full = match route.header.address_family {
        AddressFamily::Inet => 32,
        AddressFamily::Inet6 => 128,
        _ => return None,
    };
    // The host's own addresses have routes of type Local.
    if route.header.destination_prefix_length != full || route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut address, mut link) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(index) => link = Some(*index),
            // Over a gateway: the address is not on this interface.
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    Some((address?, link?))
}

async fn all<T>(answers: impl Stream<Item = Result<T, rtnetlink::Error>>) -> io::Result<Vec<T>> {
    let mut answers = std::pin::pin!(answers);
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        found.push(answer.map_err(io_error)?);
    }
    Ok(found)
}

/// The first answer; `None` when what was asked for is not there.
async fn first<T>(answers: impl Stream<Item = Result<T, rtnetlink::Error>>) -> io::Result<Option<T>> {
    match all(answers).await {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests;
