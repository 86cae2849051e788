//! The few things that are asked of rtnetlink, blocking: interfaces, host routes, neighbours, clsact.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::KernelError;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; none for an interface without a link layer.
    pub mac: Option<[u8; 6]>,
    /// Whether it is administratively up.
    pub up: bool,
    /// The other end of a veth pair in another namespace: number there, and number of that namespace here.
    peer: Option<(u32, i32)>,
}

/// A filter at a clsact hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its interface.
    pub ifindex: u32,
    /// At the egress hook, not at the ingress hook.
    pub egress: bool,
    /// Priority.
    pub priority: u16,
    /// Handle.
    pub handle: u32,
}

/// A connection to rtnetlink in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Connects.
    ///
    /// # Errors
    /// When the kernel refuses a socket.
    pub fn open() -> Result<Self, KernelError> {
        let socket = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket })
        };
        socket().map_err(|error| KernelError::Netlink { action: "open a netlink socket", error })
    }

    /// Every interface.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn links(&self) -> Result<Vec<Link>, KernelError> {
        let answers = self.dump("list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// An interface by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn link(&self, name: &str) -> Result<Link, KernelError> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| KernelError::NoInterface { interface: name.to_owned() })
    }

    /// The interfaces that /32 and /128 routes go out of, by their addresses: host-side interfaces of pods.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn host_routes(&self) -> Result<BTreeMap<IpAddr, u32>, KernelError> {
        let mut routes = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let answers = self.dump("list routes", RouteNetlinkMessage::GetRoute(request))?;
            routes.extend(answers.iter().filter_map(host_route));
        }
        Ok(routes)
    }

    /// This host's addresses, and the interfaces that hold them.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn addresses(&self) -> Result<BTreeMap<IpAddr, u32>, KernelError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump("list addresses", request)?;
        let held = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Some(message),
            _ => None,
        });
        let own = held.flat_map(|message| {
            message.attributes.iter().filter_map(|attribute| match attribute {
                // At a point-to-point interface, `Address` is the other end.
                AddressAttribute::Local(address) => Some((*address, message.header.index)),
                AddressAttribute::Address(address @ IpAddr::V6(_)) => Some((*address, message.header.index)),
                _ => None,
            })
        });
        Ok(own.collect())
    }

    /// The MAC address of the other end of a veth pair, also in another namespace; else what the neighbour
    /// table says of `addresses` at that interface.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn peer_mac(&self, link: &Link, addresses: &[IpAddr]) -> Result<Option<[u8; 6]>, KernelError> {
        if let Some((index, namespace)) = link.peer {
            let mut request = LinkMessage::default();
            request.header.index = index;
            // The attribute is also named IFLA_TARGET_NETNSID: which namespace the question is about.
            request.attributes.push(LinkAttribute::IfNetnsId(namespace));
            // A namespace that may not be looked into, or is gone, leaves the neighbour table.
            let answers =
                self.request("look at a veth peer", RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST);
            let peer = answers.ok().and_then(|answers| answers.iter().find_map(link_of));
            if let Some(mac) = peer.and_then(|peer| peer.mac) {
                return Ok(Some(mac));
            }
        }
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.dump("list neighbours", request)?;
        Ok(answers.iter().find_map(|answer| neighbour_mac(answer, link.index, addresses)))
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_up(&self, link: &Link, up: bool) -> Result<(), KernelError> {
        let mut request = LinkMessage::default();
        request.header.index = link.index;
        request.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        request.header.change_mask = LinkFlags::Up;
        self.change(
            if up { "bring up" } else { "bring down" },
            &link.name,
            RouteNetlinkMessage::SetLink(request),
        )
    }

    /// Whether an interface has a clsact qdisc.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn has_clsact(&self, ifindex: u32) -> Result<bool, KernelError> {
        let request = TcMessage::with_index(ifindex as i32);
        let answers = self.dump("list qdiscs", RouteNetlinkMessage::GetQueueDiscipline(request))?;
        Ok(answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) => {
                qdisc.header.index == ifindex as i32
                    && qdisc.attributes.contains(&TcAttribute::Kind("clsact".to_owned()))
            }
            _ => false,
        }))
    }

    /// Removes an interface's clsact qdisc.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn remove_clsact(&self, link: &Link) -> Result<(), KernelError> {
        let mut request = TcMessage::with_index(link.index as i32);
        request.header.parent = TcHandle::CLSACT;
        request.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        request.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let request = RouteNetlinkMessage::DelQueueDiscipline(request);
        self.change("remove the clsact qdisc of", &link.name, request)
    }

    /// The BPF filters at an interface's clsact hooks.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn filters(&self, ifindex: u32) -> Result<Vec<Filter>, KernelError> {
        let mut filters = Vec::new();
        for egress in [false, true] {
            let mut request = TcMessage::with_index(ifindex as i32);
            let minor = if egress { TcHandle::MIN_EGRESS } else { TcHandle::MIN_INGRESS };
            request.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor };
            let answers = self.dump("list filters", RouteNetlinkMessage::GetTrafficFilter(request))?;
            filters.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewTrafficFilter(filter)
                    if filter.attributes.contains(&TcAttribute::Kind("bpf".to_owned())) =>
                {
                    let priority = (filter.header.info >> 16) as u16;
                    Some(Filter { ifindex, egress, priority, handle: filter.header.handle.into() })
                }
                _ => None,
            }));
        }
        // A filter without a handle is the head of a priority.
        filters.retain(|filter| filter.handle != 0);
        Ok(filters)
    }

    fn change(
        &self,
        action: &'static str,
        interface: &str,
        request: RouteNetlinkMessage,
    ) -> Result<(), KernelError> {
        match self.request(action, request, NLM_F_REQUEST | NLM_F_ACK) {
            Err(KernelError::Netlink { action, error }) => {
                Err(KernelError::Attach { action, interface: interface.to_owned(), error })
            }
            result => result.map(drop),
        }
    }

    fn dump(
        &self,
        action: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.request(action, request, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn request(
        &self,
        action: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.exchange(request, flags).map_err(|error| KernelError::Netlink { action, error })
    }

    /// Sends a request and collects the answers: until "done" of a dump, else the one answer or the
    /// acknowledgement.
    fn exchange(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while rest.len() >= HEADER {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let (message, next) = rest.split_at(length.next_multiple_of(4).clamp(HEADER, rest.len()));
                rest = next;
                // What this crate cannot read is an interface or route of a kind that is not ours.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                    continue;
                };
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
            if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                return Ok(answers);
            }
        }
    }
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

fn link_of(answer: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let (mut name, mut mac, mut peer, mut namespace) = (String::new(), None, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name.clone_from(value),
            LinkAttribute::Address(value) => mac = value.as_slice().try_into().ok(),
            LinkAttribute::Link(value) => peer = Some(*value),
            LinkAttribute::LinkNetNsId(value) => namespace = Some(*value),
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up);
    Some(Link { index: message.header.index, name, mac, up, peer: peer.zip(namespace) })
}

fn host_route(answer: &RouteNetlinkMessage) -> Option<(IpAddr, u32)> {
    let RouteNetlinkMessage::NewRoute(route) = answer else { return None };
    let full = if route.header.address_family == AddressFamily::Inet { 32 } else { 128 };
    // The node's own addresses have routes of the type Local.
    if route.header.destination_prefix_length != full || route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut address, mut interface) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(index) => interface = Some(*index),
            // Behind a gateway: the address is not at this interface.
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    address.zip(interface)
}

fn neighbour_mac(answer: &RouteNetlinkMessage, ifindex: u32, addresses: &[IpAddr]) -> Option<[u8; 6]> {
    let RouteNetlinkMessage::NewNeighbour(neighbour) = answer else { return None };
    let is_one_of_them = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            addresses.contains(&IpAddr::V4(*address))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            addresses.contains(&IpAddr::V6(*address))
        }
        _ => false,
    };
    if neighbour.header.ifindex != ifindex || !neighbour.attributes.iter().any(is_one_of_them) {
        return None;
    }
    neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}
