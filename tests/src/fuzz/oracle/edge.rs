//! What the edge sends on before the stack.

use weir::datapath::Frontend;
use weir_common::service::flags;

use super::{
    super::{
        facts::{ends, is_martian, slot},
        parse::{ETH, Frame, Packet, parse},
        rewrite::{self, Change},
    },
    Flow, Oracle,
};
use crate::packets::{Ends, ROUTER_MAC};

impl Oracle {
    /// How the edge changes a frame that it sends on; `None`: it leaves it to the stack.
    pub fn meet_edge(&mut self, frame: &[u8]) -> Option<Change> {
        let Ok(Frame::Ip(packet)) = parse(frame) else { return None };
        let is_plain = packet.l4 == ETH + if packet.src.is_ipv4() { 20 } else { 40 };
        if frame[0] & 1 != 0 || !is_plain || !matches!(packet.protocol, 6 | 17) {
            return None;
        }
        if packet.piece.is_some() || packet.hops <= 1 {
            return None;
        }
        let key = (ends(&packet), packet.protocol, 0);
        let flow = match self.look_up(&key, &packet) {
            Some(flow) if flow.epoch != self.epoch => return None,
            Some(flow) => flow,
            None => self.open_at_edge(&packet, key.0)?,
        };
        let leaves = flow.by_uplink && flow.receiver.is_none() && !flow.from_node;
        // A pod of this node is by another interface.
        if !flow.is_tunnel && !leaves || self.pods.contains_key(&flow.to.dst) {
            return None;
        }
        self.flows.insert(key, flow);
        let change = match flow.is_tunnel {
            true => Change { tunnel: self.tunnel(&flow), ..Change::NONE },
            false => rewrite::translation(&packet, &flow.to),
        };
        Some(Change { mac: Some(ROUTER_MAC), takes_hop: true, ..change })
    }

    /// A new flow for which nothing but the backend is to be chosen.
    fn open_at_edge(&self, packet: &Packet, here: Ends) -> Option<Flow> {
        let to = Frontend { address: here.dst, port: here.dport, protocol: packet.protocol };
        let service = self.datapath.frontends.get(&to)?;
        let is_simple =
            service.affinity.is_none() && service.source_ranges.is_empty() && service.flags & flags::DSR != 0;
        let is_client = !is_martian(here.src) && self.inside(here.src) == 0;
        if !is_simple || !is_client || service.external.is_empty() {
            return None;
        }
        let backend = service.external.at(slot(packet) as usize % service.external.len());
        Some(Flow {
            to: Ends { dst: backend.address, dport: backend.port, ..here },
            is_tunnel: true,
            ..Flow::new(here, self.epoch)
        })
    }
}
