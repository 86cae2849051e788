//! What the node ought to do with a packet, from the compiled datapath and a memory of plain maps.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use weir::datapath::{
    Connection, Datapath, Frontend, Origin, RuleOrigin,
    services::{Packet as Call, Verdict},
};
use weir_common::{
    addr::{Addr, Be16, V4, V6},
    flow::FlowKey,
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR, Protocol},
    reason::Reason,
};

use super::{
    parse::{Frame, Kind, Packet, be16, parse},
    rewrite::{self, Change, Quoted},
};
use crate::packets::Ends;

/// Which program looks at a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A pod of this interface sends it.
    FromPod(u32),
    /// It is about to enter the pod of this interface, from elsewhere.
    ToPod(u32),
    /// The same, from the node itself.
    NodeToPod(u32),
    /// It came by the uplink.
    FromUplink,
    /// The node itself sends it by the uplink.
    ToUplink,
}

/// What ought to become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is dropped.
    Dropped(Reason),
    /// It goes on.
    Passed {
        /// Where to, when not by the stack.
        redirected: bool,
        /// How it is changed.
        change: Change,
    },
}

impl Expected {
    /// On through the stack as it came.
    const PASS: Self = Self::Passed { redirected: false, change: Change::NONE };
}

/// Packets of one direction of a flow: who speaks, the protocol, and for what a pod sends its interface.
type Key = (Ends, u8, u32);

/// One direction of a flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    to: Ends,
    is_reply: bool,
    from_node: bool,
    masqueraded: bool,
    /// Where the receiver is no pod of this node, it goes out by the uplink past the stack.
    by_uplink: bool,
    /// It goes to a socket of this node, from the node's own address.
    by_loopback: bool,
    /// Interface of the receiver, where that is a pod of this node.
    receiver: Option<u32>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Established,
    Closing,
}

/// A datagram in fragments: its ends without ports, protocol, scope, identification.
type DatagramKey = (IpAddr, IpAddr, u8, u32, u32);

/// The first fragment's ports, and where it ends.
type First = (u16, u16, usize);

/// The node.
#[derive(Debug)]
pub struct Oracle {
    datapath: Datapath,
    /// By address of a pod of this node: its interface and MAC address.
    pods: BTreeMap<IpAddr, (u32, [u8; 6])>,
    flows: HashMap<Key, Flow>,
    datagrams: HashMap<DatagramKey, First>,
}

/// The way of a packet that may pass.
struct Way {
    flow: Flow,
    is_translated: bool,
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_OR_RST: u8 = 0x05;
const TCP: u8 = 6;

impl Oracle {
    /// A node that enforces `datapath`, with its pods' interfaces.
    pub fn new(datapath: Datapath, pods: BTreeMap<IpAddr, (u32, [u8; 6])>) -> Self {
        Self { datapath, pods, flows: HashMap::new(), datagrams: HashMap::new() }
    }

    /// Forgets flows and datagrams.
    pub fn forget(&mut self) {
        self.flows.clear();
        self.datagrams.clear();
    }

    /// Number of directions of flows.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// The interface of the pod of this node that has the address.
    pub fn interface(&self, address: IpAddr) -> Option<u32> {
        self.pods.get(&address).map(|pod| pod.0)
    }

    /// What ought to become of a frame.
    pub fn judge(&mut self, hook: Hook, frame: &[u8]) -> Expected {
        let is_strict = matches!(hook, Hook::FromPod(_) | Hook::ToPod(_) | Hook::NodeToPod(_));
        let refuse = |reason| if is_strict { Expected::Dropped(reason) } else { Expected::PASS };
        let mut packet = match parse(frame) {
            Ok(Frame::Ip(packet)) => packet,
            Ok(Frame::Arp) => return self.arp(hook, frame),
            Err(reason) => return refuse(reason),
        };
        let scope = match hook {
            Hook::FromPod(ifindex) => ifindex,
            _ => 0,
        };
        if let Err(reason) = self.find_ports(&mut packet, scope) {
            return refuse(reason);
        }
        match packet.kind {
            Kind::Neighbour => self.neighbour(hook, frame, &packet),
            Kind::Error => match self.error(hook, frame, &packet, scope) {
                Ok(change) => self.hand_over(hook, &packet, &change.0, change.1),
                Err(reason) => refuse(reason),
            },
            Kind::Data | Kind::EchoRequest | Kind::EchoReply => match self.find_way(hook, &packet, scope) {
                Ok(Some(way)) => {
                    let change = if way.is_translated {
                        rewrite::translation(&packet, &way.flow.to)
                    } else {
                        Change::NONE
                    };
                    self.hand_over(hook, &packet, &way.flow, change)
                }
                Ok(None) => Expected::PASS,
                Err(reason) => Expected::Dropped(reason),
            },
        }
    }

    /// Later fragments get the ports of the first.
    fn find_ports(&mut self, packet: &mut Packet, scope: u32) -> Result<(), Reason> {
        let Some(piece) = packet.piece else { return Ok(()) };
        let key = (packet.src, packet.dst, packet.protocol, scope, piece.id);
        let known = self.datagrams.get(&key).copied();
        if piece.start == 0 {
            let first = (packet.sport, packet.dport, piece.end);
            if known.is_some_and(|known| known != first) {
                return Err(Reason::FragmentOverlap);
            }
            self.datagrams.insert(key, first);
            return Ok(());
        }
        let (sport, dport, end) = known.ok_or(Reason::FragmentNotFound)?;
        if piece.start < end {
            return Err(Reason::FragmentOverlap);
        }
        (packet.sport, packet.dport) = (sport, dport);
        Ok(())
    }

    /// The way of a packet; `None`: it is no concern of this hook's.
    fn find_way(&mut self, hook: Hook, packet: &Packet, scope: u32) -> Result<Option<Way>, Reason> {
        let here = ends(packet);
        let key = (here, packet.protocol, scope);
        if let Some(mut flow) = self.flows.get(&key).copied() {
            let reopens = flow.state == State::Closing && packet.tcp_flags & (SYN | ACK) == SYN;
            if !reopens {
                let next = if packet.tcp_flags & FIN_OR_RST != 0 {
                    State::Closing
                } else if flow.is_reply && flow.state == State::Opening {
                    State::Established
                } else {
                    flow.state
                };
                let mut is_whole = true;
                if next != flow.state {
                    flow.state = next;
                    self.flows.insert(key, flow);
                    let back = (flow.to.back(), packet.protocol, flow.receiver.unwrap_or(0));
                    match self.flows.get_mut(&back) {
                        Some(back) => back.state = next,
                        None => is_whole = false,
                    }
                }
                if is_whole || flow.is_reply || flow.masqueraded {
                    return Ok(Some(Way { flow, is_translated: flow.to != here }));
                }
            }
        }
        let Some(mut flow) = self.open(hook, packet, scope)? else { return Ok(None) };
        self.allow(packet, &flow)?;
        flow.receiver = self.interface(flow.to.dst);
        self.allot(packet, scope, &mut flow)?;
        let client = if flow.from_node { None } else { self.interface(here.src) };
        let reply = Flow {
            to: here.back(),
            is_reply: true,
            by_uplink: hook == Hook::FromUplink,
            by_loopback: hook == Hook::ToUplink && self.is_own(here.dst),
            receiver: client,
            ..flow
        };
        self.flows.insert((flow.to.back(), packet.protocol, flow.receiver.unwrap_or(0)), reply);
        self.flows.insert(key, flow);
        Ok(Some(Way { flow, is_translated: flow.to != here }))
    }

    /// Where a new flow goes.
    fn open(&self, hook: Hook, packet: &Packet, scope: u32) -> Result<Option<Flow>, Reason> {
        let here = ends(packet);
        let mut flow = Flow {
            to: here,
            is_reply: false,
            from_node: matches!(hook, Hook::ToUplink | Hook::NodeToPod(_)),
            masqueraded: false,
            by_uplink: false,
            by_loopback: false,
            receiver: None,
            state: State::Opening,
        };
        let served = match hook {
            Hook::ToPod(_) | Hook::NodeToPod(_) => None,
            _ => self.serve(hook, packet, &mut flow),
        };
        if served.is_none() && matches!(hook, Hook::FromUplink | Hook::ToUplink) {
            return Ok(None);
        }
        if packet.is_later() {
            return Err(Reason::FragmentNotFound);
        }
        if packet.kind == Kind::EchoReply {
            return Err(Reason::IcmpUnrelated);
        }
        match hook {
            Hook::ToPod(ifindex) | Hook::NodeToPod(ifindex) if self.interface(here.dst) != Some(ifindex) => {
                return Err(Reason::UnknownEndpoint);
            }
            Hook::ToPod(_) | Hook::FromUplink if !self.is_outside(here.src) => {
                return Err(Reason::InvalidSource);
            }
            Hook::FromPod(_) if self.interface(here.src) != Some(scope) => return Err(Reason::InvalidSource),
            Hook::FromPod(_) if is_martian(here.dst) || here.dst == here.src => {
                return Err(Reason::InvalidDestination);
            }
            _ => {}
        }
        served.unwrap_or(Ok(()))?;
        let is_inside = self.datapath.inside.keys().any(|net| net.contains(&IpNet::from(flow.to.dst)));
        let leaves = self.datapath.masquerade && !self.pods.contains_key(&flow.to.dst) && !is_inside;
        if matches!(hook, Hook::FromPod(_)) && leaves {
            (flow.masqueraded, flow.by_uplink) = (true, true);
        }
        Ok(Some(flow))
    }

    /// Whether an address may be that of somebody elsewhere.
    fn is_outside(&self, address: IpAddr) -> bool {
        let is_service = matches!(self.datapath.identity(address), IDENTITY_SERVICE | IDENTITY_SERVICE_CIDR);
        !self.pods.contains_key(&address) && !self.is_own(address) && !is_martian(address) && !is_service
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.datapath.node_addresses.contains(&address)
    }

    /// Sends a flow to a backend of the service that it is for; `None`: it is for none.
    fn serve(&self, hook: Hook, packet: &Packet, flow: &mut Flow) -> Option<Result<(), Reason>> {
        let here = ends(packet);
        let to = Frontend { address: here.dst, port: here.dport, protocol: packet.protocol };
        let from = if flow.from_node { self.node_address(here.src) } else { here.src };
        let frontend = self.datapath.frontends.get(&to);
        let opens = match packet.protocol {
            TCP => packet.tcp_flags & (SYN | ACK) == SYN,
            _ => packet.kind != Kind::EchoReply,
        };
        if frontend.is_none()
            && (self.pods.contains_key(&here.dst) || !opens && !matches!(hook, Hook::FromPod(_)))
        {
            return None;
        }
        Some(Err(match (self.datapath.serve(&Call { from, sport: here.sport, to }), frontend) {
            (Verdict::Pass, _) => return None,
            (Verdict::Drop, None) => Reason::ServiceUnallocated,
            (Verdict::Drop, Some(service)) => {
                let is_allowed = service.source_ranges.is_empty()
                    || service.source_ranges.iter().any(|range| range.contains(&here.src));
                if is_allowed { Reason::ServiceNotLocal } else { Reason::SourceRange }
            }
            (Verdict::Reject, None) => Reason::ServicePortUnknown,
            (Verdict::Reject, Some(_)) => Reason::ServiceNoBackend,
            (Verdict::Dnat(choice), _) => {
                let backend = choice.ring.at(slot(packet) as usize % choice.ring.len());
                (flow.to.dst, flow.to.dport) = (backend.address, backend.port);
                if !self.pods.contains_key(&backend.address) && self.is_own(backend.address) {
                    flow.by_loopback = flow.from_node;
                } else {
                    flow.masqueraded = choice.masquerades(backend) || backend.address == here.src;
                    flow.by_uplink = flow.masqueraded || flow.from_node;
                }
                return Some(Ok(()));
            }
        }))
    }
}

impl Oracle {
    /// A source port by which the flow's answers are told from those of every other; the programs' own order.
    fn allot(&self, packet: &Packet, scope: u32, flow: &mut Flow) -> Result<(), Reason> {
        const FIRST: u32 = 61000;
        const PORTS: u32 = 65536 - FIRST;
        if flow.masqueraded {
            flow.to.src = self.node_address(flow.to.dst);
        }
        let is_free = |to: &Ends| {
            let back = self.flows.get(&(to.back(), packet.protocol, flow.receiver.unwrap_or(0)));
            back.is_none_or(|back| back.to == ends(packet).back())
        };
        let first = hash(packet, scope) as u32 % PORTS;
        for step in 0..16 {
            let mut to = flow.to;
            if step > 0 || flow.masqueraded {
                to.sport = (FIRST + (first + step * 1117) % PORTS) as u16;
            }
            if is_free(&to) {
                flow.to = to;
                return Ok(());
            }
        }
        Err(Reason::NoFreePort)
    }

    /// What policy says at the ends of a flow that are pods of this node.
    fn allow(&self, packet: &Packet, flow: &Flow) -> Result<(), Reason> {
        let protocol = match packet.protocol {
            TCP => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => Protocol::Echo,
        };
        let connection =
            Connection { source: packet.src, destination: flow.to.dst, protocol, port: flow.to.dport };
        let origin = match flow.from_node {
            true => Origin::Node,
            false if self.pods.contains_key(&packet.src) => Origin::Pod,
            false => Origin::Outside,
        };
        let path = self.datapath.path(origin, &connection);
        let denied = [path.egress, path.ingress].into_iter().flatten().find(|decision| !decision.allowed);
        match denied.map(|decision| self.datapath.rules.get(&decision.rule)) {
            None => Ok(()),
            Some(None) => Err(Reason::PolicyIncomplete),
            Some(Some(RuleOrigin::Isolation { .. })) => Err(Reason::PolicyDenied),
            Some(Some(_)) => Err(Reason::PolicyDeny),
        }
    }

    fn hand_over(&self, hook: Hook, packet: &Packet, flow: &Flow, change: Change) -> Expected {
        const LOOPBACK: Option<[u8; 6]> = Some([0; 6]);
        let redirected = |change| Expected::Passed { redirected: true, change };
        match hook {
            Hook::ToPod(_) | Hook::NodeToPod(_) => Expected::Passed { redirected: false, change },
            Hook::ToUplink if change.is_none() => Expected::PASS,
            Hook::ToUplink if flow.receiver.is_some() => {
                redirected(Change { mac: Some(self.mac(flow.to.dst)), ..change })
            }
            Hook::ToUplink if flow.by_uplink => redirected(change),
            _ if packet.hops <= 1 && (flow.receiver.is_some() || flow.by_uplink) => {
                // The stack would take it for a packet to the node.
                if self.is_own(packet.dst) { Expected::Dropped(Reason::TtlExceeded) } else { Expected::PASS }
            }
            _ if flow.receiver.is_some() => {
                let mac = Some(self.mac(flow.to.dst));
                redirected(Change { mac, takes_hop: true, ..change })
            }
            // The next router's address is found by the kernel.
            _ if flow.by_uplink => redirected(Change { takes_hop: true, any_mac: true, ..change }),
            _ if flow.by_loopback => redirected(Change { mac: LOOPBACK, ..change }),
            _ => Expected::Passed { redirected: false, change },
        }
    }

    /// An ICMP error goes the way of the flow that it quotes, the other way round.
    fn error(&self, hook: Hook, frame: &[u8], packet: &Packet, scope: u32) -> Result<(Flow, Change), Reason> {
        if matches!(hook, Hook::FromPod(_)) && self.interface(packet.src) != Some(scope) {
            return Err(Reason::InvalidSource);
        }
        let quoted = quoted(frame, packet).ok_or(Reason::IcmpUnrelated)?;
        if quoted.ends.src != packet.dst {
            return Err(Reason::IcmpUnrelated);
        }
        let key = (quoted.ends.back(), quoted.protocol, scope);
        let flow = *self.flows.get(&key).ok_or(Reason::IcmpUnrelated)?;
        let change =
            if flow.to == key.0 { Change::NONE } else { rewrite::quotation(packet, &quoted, &flow.to) };
        Ok((flow, change))
    }

    fn arp(&self, hook: Hook, frame: &[u8]) -> Expected {
        let Hook::FromPod(ifindex) = hook else { return Expected::PASS };
        let Some(arp) = frame.get(14..42) else { return Expected::Dropped(Reason::InvalidPacket) };
        let address = |at: usize| IpAddr::from([arp[at], arp[at + 1], arp[at + 2], arp[at + 3]]);
        let operation = be16(arp, 6);
        let is_probe = operation == 1 && address(14) == IpAddr::from([0; 4]);
        let speaks_for = address(if is_probe { 24 } else { 14 });
        let is_right = arp[..6] == [0, 1, 8, 0, 6, 4]
            && arp[8..14] == frame[6..12]
            && matches!(operation, 1 | 2)
            && self.interface(speaks_for) == Some(ifindex);
        if is_right { Expected::PASS } else { Expected::Dropped(Reason::InvalidNeighbour) }
    }

    fn neighbour(&self, hook: Hook, frame: &[u8], packet: &Packet) -> Expected {
        let Hook::FromPod(ifindex) = hook else { return Expected::PASS };
        let is_own = |address: IpAddr| is_link_local(address) || self.interface(address) == Some(ifindex);
        let bad = Expected::Dropped(Reason::InvalidNeighbour);
        if packet.hops != 255 || !(packet.src.is_unspecified() || is_own(packet.src)) {
            return bad;
        }
        let target = |check: &dyn Fn(IpAddr) -> bool| match frame.get(packet.l4 + 8..packet.l4 + 24) {
            None => Expected::Dropped(Reason::InvalidPacket),
            Some(target) => {
                let target: [u8; 16] = target.try_into().expect("16 bytes");
                if check(IpAddr::from(target)) { Expected::PASS } else { bad.clone() }
            }
        };
        match packet.icmp_type {
            133 => Expected::PASS,
            135 => target(&|target| !packet.src.is_unspecified() || is_own(target)),
            136 => target(&is_own),
            _ => bad,
        }
    }

    /// The node's own address of the family of `like`.
    fn node_address(&self, like: IpAddr) -> IpAddr {
        let mut addresses = self.datapath.node_addresses.iter();
        *addresses.find(|address| address.is_ipv4() == like.is_ipv4()).expect("both families")
    }

    fn mac(&self, address: IpAddr) -> [u8; 6] {
        self.pods[&address].1
    }
}

/// Reads it: a transport header must follow the IP header, with eight bytes of it there.
fn quoted(frame: &[u8], packet: &Packet) -> Option<Quoted> {
    let at = packet.l4 + 8;
    let header = if packet.src.is_ipv4() { 20 } else { 40 };
    let ip = frame.get(at..at + header + 8)?;
    let (src, dst, protocol) = if header == 20 {
        if ip[0] != 0x45 || be16(ip, 6) & 0x1fff != 0 {
            return None;
        }
        let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).map(IpAddr::from);
        (address(12).ok()?, address(16).ok()?, ip[9])
    } else {
        if ip[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).map(IpAddr::from);
        (address(8).ok()?, address(24).ok()?, ip[6])
    };
    let transport = &ip[header..];
    let (sport, dport) = match (protocol, header, transport[0]) {
        (6 | 17 | 132, ..) => (be16(transport, 0), be16(transport, 2)),
        (1, 20, 8) | (58, 40, 128) => (be16(transport, 4), 0),
        (1, 20, 0) | (58, 40, 129) => (0, be16(transport, 4)),
        _ => return None,
    };
    Some(Quoted { ends: Ends { src, dst, sport, dport }, protocol })
}

/// Addresses and ports of a packet.
pub fn ends(packet: &Packet) -> Ends {
    Ends { src: packet.src, dst: packet.dst, sport: packet.sport, dport: packet.dport }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// No unicast packet crosses a router to or from it.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first == 0 || first == 127 || first >= 224 || address.is_link_local()
        }
        IpAddr::V6(address) => {
            let segments = address.segments();
            let is_embedded = segments[..4] == [0; 4] && matches!(segments[4..6], [0, 0] | [0, 0xffff]);
            address.is_multicast() || is_link_local(address.into()) || is_embedded
        }
    }
}

/// The one thing that is shared with the programs: every node and every test chooses by this hash.
fn hash(packet: &Packet, scope: u32) -> u64 {
    fn of<A: Addr>(packet: &Packet, src: A, dst: A, scope: u32) -> u64 {
        let (sport, dport) = (Be16::new(packet.sport), Be16::new(packet.dport));
        FlowKey { src, dst, sport, dport, scope, protocol: packet.protocol.into() }.hash()
    }
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            of(packet, V4::from_octets(src.octets()), V4::from_octets(dst.octets()), scope)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            of(packet, V6::from_octets(src.octets()), V6::from_octets(dst.octets()), scope)
        }
        _ => unreachable!("one packet has one family"),
    }
}

/// The number that chooses the slot of a ring.
fn slot(packet: &Packet) -> u32 {
    (hash(packet, 0) >> 32) as u32
}
