//! What the node ought to do with a packet, from the compiled datapath and a memory of plain maps.

mod open;
mod waiting;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use weir::datapath::Datapath;
use weir_common::reason::Reason;

use self::waiting::Waiting;
use super::{
    facts::{ends, is_link_local, quoted},
    parse::{Frame, Kind, Packet, be16, parse},
    rewrite::{self, Change},
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
    /// It is kept until the first fragment of its datagram comes.
    Waits,
    /// It and what has waited for it are judged once more, from the first on.
    Again(Vec<Vec<u8>>),
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
    waiting: Waiting,
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
        Self { datapath, pods, flows: HashMap::new(), datagrams: HashMap::new(), waiting: Waiting::default() }
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
        if let Some(kept) = self.keep(frame, &packet, scope) {
            return kept;
        }
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

    /// The datagram that a fragment is of.
    fn datagram(packet: &Packet, scope: u32) -> Option<DatagramKey> {
        Some((packet.src, packet.dst, packet.protocol, scope, packet.piece?.id))
    }

    /// Later fragments get the ports of the first.
    fn find_ports(&mut self, packet: &mut Packet, scope: u32) -> Result<(), Reason> {
        let (Some(piece), Some(key)) = (packet.piece, Self::datagram(packet, scope)) else { return Ok(()) };
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
