//! What the node ought to do with a packet, from the compiled datapath and a memory of plain maps.

mod control;
mod edge;
mod flow;
mod open;
mod revisit;
mod tunnel;
mod waiting;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use weir::datapath::{Backend, Datapath, ServiceId};
use weir_common::reason::Reason;

use self::{
    flow::{Flow, State},
    waiting::Waiting,
};
use super::{
    parse::{Frame, Kind, Packet, parse},
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

/// By service port and client: the backend of its last connection.
type Affinity = HashMap<(ServiceId, IpAddr), Backend>;

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
    affinity: Affinity,
    /// Number of the datapath.
    epoch: u32,
    /// Flows that have been decided again, and stay.
    revisited: u64,
    waiting: Waiting,
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_OR_RST: u8 = 0x05;
const TCP: u8 = 6;

impl Oracle {
    /// A node that enforces `datapath`, with its pods' interfaces.
    pub fn new(datapath: Datapath, pods: BTreeMap<IpAddr, (u32, [u8; 6])>) -> Self {
        Self {
            datapath,
            pods,
            flows: HashMap::new(),
            datagrams: HashMap::new(),
            affinity: HashMap::new(),
            epoch: 0,
            revisited: 0,
            waiting: Waiting::default(),
        }
    }

    /// The node enforces another datapath from now on, with the same pods.
    pub fn apply(&mut self, datapath: Datapath) {
        self.datapath = datapath;
        self.epoch += 1;
    }

    /// How many flows have been decided again, and stayed.
    pub const fn revisited(&self) -> u64 {
        self.revisited
    }

    /// The interface of the pod of this node that has the address.
    pub fn interface(&self, address: IpAddr) -> Option<u32> {
        self.pods.get(&address).map(|pod| pod.0)
    }

    /// What ought to become of a frame.
    pub fn judge(&mut self, hook: Hook, frame: &[u8]) -> Expected {
        match self.leave_tunnel(hook, frame) {
            Ok(None) => self.judge_packet(hook, frame, None),
            Ok(Some((inner, backend))) => {
                self.judge_packet(hook, &inner, Some(backend)).out_of_tunnel(frame.len() - inner.len())
            }
            Err(reason) => Expected::Dropped(reason),
        }
    }

    fn judge_packet(&mut self, hook: Hook, frame: &[u8], backend: Option<IpAddr>) -> Expected {
        let is_strict = !matches!(hook, Hook::FromUplink | Hook::ToUplink) || backend.is_some();
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
        // What came by a tunnel does not wait.
        if backend.is_none()
            && let Some(kept) = self.keep(frame, &packet, scope)
        {
            return kept;
        }
        if let Err(reason) = self.find_ports(&mut packet, scope) {
            return refuse(reason);
        }
        match packet.kind {
            Kind::Neighbour => self.neighbour(hook, frame, &packet),
            Kind::Error => match self.error(hook, frame, &packet, scope, backend.is_some()) {
                Ok(change) => self.hand_over(hook, &packet, &change.0, change.1),
                Err(reason) => refuse(reason),
            },
            Kind::Data | Kind::EchoRequest | Kind::EchoReply => {
                match self.find_way(hook, &packet, scope, backend) {
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
                }
            }
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

    fn hand_over(&self, hook: Hook, packet: &Packet, flow: &Flow, change: Change) -> Expected {
        const LOOPBACK: Option<[u8; 6]> = Some([0; 6]);
        let redirected = |change| Expected::Passed { redirected: true, change };
        let leaves = flow.receiver.is_some() || flow.by_uplink || flow.is_tunnel;
        let expires = packet.hops <= 1 && leaves && matches!(hook, Hook::FromPod(_) | Hook::FromUplink);
        // How a CRC changes depends on the length of the datagram, which a fragment does not say.
        if !expires && packet.piece.is_some() && change.free.is_some() {
            return Expected::Dropped(Reason::RewriteFailed);
        }
        match hook {
            Hook::ToPod(_) | Hook::NodeToPod(_) => Expected::Passed { redirected: false, change },
            Hook::ToUplink if change.is_none() => Expected::PASS,
            Hook::ToUplink if flow.receiver.is_some() => {
                redirected(Change { mac: Some(self.mac(flow.to.dst)), ..change })
            }
            Hook::ToUplink if flow.by_uplink => redirected(change),
            _ if expires => {
                // The stack would take it for a packet to the node.
                if self.is_own(packet.dst) { Expected::Dropped(Reason::TtlExceeded) } else { Expected::PASS }
            }
            _ if flow.is_tunnel => {
                redirected(Change { takes_hop: true, tunnel: self.tunnel(flow), ..change })
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

    /// The node's own address of the family of `like`.
    fn node_address(&self, like: IpAddr) -> IpAddr {
        let mut addresses = self.datapath.node_addresses.iter();
        *addresses.find(|address| address.is_ipv4() == like.is_ipv4()).expect("both families")
    }

    /// Whose an address is, if it is one of the cluster's own.
    fn inside(&self, address: IpAddr) -> u32 {
        let blocks = self.datapath.inside.iter().filter(|(block, _)| block.contains(&IpNet::from(address)));
        blocks.max_by_key(|(block, _)| block.prefix_len()).map_or(0, |(_, whose)| *whose)
    }

    fn mac(&self, address: IpAddr) -> [u8; 6] {
        self.pods[&address].1
    }
}
