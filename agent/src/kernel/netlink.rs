//! What attaching asks of rtnetlink: interfaces, clsact qdiscs, filters. Blocking, a few messages each.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::KernelError;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number in this network namespace.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// Whether it is one end of a veth pair.
    pub(super) is_veth: bool,
}

/// A filter at a clsact hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Its interface.
    pub(super) ifindex: u32,
    /// At the egress hook, not at the ingress hook.
    pub(super) egress: bool,
    /// Priority.
    pub(super) priority: u16,
    /// Handle.
    pub(super) handle: u32,
}

/// A connection to rtnetlink in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Connects.
    pub(super) fn open() -> Result<Self, KernelError> {
        let socket = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket })
        };
        socket().map_err(|error| KernelError::Netlink { action: "open a netlink socket", error })
    }

    /// Every interface.
    pub(super) fn links(&self) -> Result<Vec<Link>, KernelError> {
        let answers = self.dump("list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// An interface by its name.
    pub(super) fn link(&self, name: &str) -> Result<Link, KernelError> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| KernelError::NoInterface { interface: name.to_owned() })
    }

    /// Whether an interface has a clsact qdisc.
    pub(super) fn has_clsact(&self, ifindex: u32) -> Result<bool, KernelError> {
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
    pub(super) fn remove_clsact(&self, link: &Link) -> Result<(), KernelError> {
        let mut request = TcMessage::with_index(link.index as i32);
        request.header.parent = TcHandle::CLSACT;
        request.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        request.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let request = RouteNetlinkMessage::DelQueueDiscipline(request);
        self.change("remove the clsact qdisc of", &link.name, request)
    }

    /// The BPF filters at an interface's clsact hooks.
    pub(super) fn filters(&self, ifindex: u32) -> Result<Vec<Filter>, KernelError> {
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
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let is_veth = message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    Some(Link { index: message.header.index, name, is_veth })
}
