//! What the edge sends on before the stack.

use weir::datapath::Frontend;
use weir_common::{reason::Reason, service::flags};

use super::{
    super::{
        facts::{ends, is_martian},
        parse::{ETH, Frame, Packet, parse},
        rewrite::{self, Change},
    },
    Flow, Oracle,
    open::choose,
};
use crate::packets::{Ends, ROUTER_MAC};

impl Oracle {
    /// How the edge changes a frame that it sends on; `None`: it leaves it to the stack.
    ///
    /// # Errors
    /// Why it drops it.
    pub fn meet_edge(&mut self, frame: &[u8]) -> Result<Option<Change>, Reason> {
        let Ok(Frame::Ip(packet)) = parse(frame) else { return Ok(None) };
        let is_plain = packet.l4 == ETH + if packet.src.is_ipv4() { 20 } else { 40 };
        if frame[0] & 1 != 0 || !is_plain || !matches!(packet.protocol, 6 | 17) {
            return Ok(None);
        }
        if packet.piece.is_some() || packet.hops <= 1 {
            return Ok(None);
        }
        let key = (ends(&packet), packet.protocol, 0);
        let flow = match self.look_up(&key, &packet) {
            Some(flow) if flow.epoch != self.epoch => return Ok(None),
            Some(flow) => flow,
            None => match self.open_at_edge(&packet, key.0)? {
                Some(flow) => flow,
                None => return Ok(None),
            },
        };
        let leaves = flow.by_uplink && flow.receiver.is_none() && !flow.from_node;
        // A pod of this node is by another interface.
        if !flow.is_tunnel && !leaves || self.pods.contains_key(&flow.to.dst) {
            return Ok(None);
        }
        self.flows.insert(key, flow);
        let change = match flow.is_tunnel {
            true => Change { tunnel: self.tunnel(&flow), ..Change::NONE },
            false => rewrite::translation(&packet, &flow.to),
        };
        Ok(Some(Change { mac: Some(ROUTER_MAC), takes_hop: true, ..change }))
    }

    /// A new flow for which nothing but the backend is to be chosen.
    fn open_at_edge(&mut self, packet: &Packet, here: Ends) -> Result<Option<Flow>, Reason> {
        let to = Frontend { address: here.dst, port: here.dport, protocol: packet.protocol };
        let Some(service) = self.datapath.frontends.get(&to) else { return Ok(None) };
        let ranges = &service.source_ranges;
        if !ranges.is_empty() && !ranges.iter().any(|range| range.contains(&here.src)) {
            return Err(Reason::SourceRange);
        }
        let is_client = !is_martian(here.src) && self.inside(here.src) == 0;
        if service.flags & flags::DSR == 0 || !is_client || service.external.is_empty() {
            return Ok(None);
        }
        let backend = choose(&mut self.affinity, service, &service.external, packet);
        Ok(Some(Flow {
            to: Ends { dst: backend.address, dport: backend.port, ..here },
            is_tunnel: true,
            ..Flow::new(here, self.epoch)
        }))
    }
}
