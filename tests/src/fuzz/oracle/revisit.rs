//! Flows that an earlier datapath decided.

use weir::datapath::{Backend, Frontend};
use weir_common::{reason::Reason, service::member};

use super::{
    super::{facts::ends, parse::Packet},
    ACK, Flow, Key, Oracle, SYN, State, TCP,
};

const UDP: u8 = 17;

impl Oracle {
    /// What becomes of a flow at a packet of it; `None`: it is opened anew.
    pub(super) fn revisit(
        &mut self,
        key: &Key,
        packet: &Packet,
        mut flow: Flow,
    ) -> Result<Option<Flow>, Reason> {
        let goes_on = packet.protocol == TCP && packet.tcp_flags & (SYN | ACK) != SYN;
        if !self.is_served(packet, &flow, goes_on) {
            if !goes_on && !flow.is_reply {
                return Ok(None);
            }
            if packet.protocol == TCP {
                flow.state = State::Closing;
                self.flows.insert(*key, flow);
                if let Some(other) = self.flows.get_mut(&flow.other_way(packet.protocol)) {
                    other.state = State::Closing;
                }
            }
            return Err(Reason::ServiceBackendGone);
        }
        self.allow(packet, &flow)?;
        flow.receiver = match flow.from_node && flow.is_reply {
            true => None,
            false => self.interface(flow.to.dst),
        };
        flow.epoch = self.epoch;
        self.revisited += 1;
        self.flows.insert(*key, flow);
        Ok(Some(flow))
    }

    /// Whether the service that the flow was opened through, if it was, lets it stay with its backend.
    fn is_served(&self, packet: &Packet, flow: &Flow, goes_on: bool) -> bool {
        let here = ends(packet);
        let (front, back) = match flow.is_reply {
            true => ((flow.to.src, flow.to.sport), (here.src, here.sport)),
            false => ((here.dst, here.dport), (flow.to.dst, flow.to.dport)),
        };
        let needed = if flow.state == State::Opening && !goes_on {
            member::SOUND
        } else if packet.protocol == UDP {
            member::SERVES
        } else if packet.protocol == TCP && self.datapath.reset_gone {
            0
        } else {
            return true;
        };
        if front == back {
            return true;
        }
        let to = Frontend { address: front.0, port: front.1, protocol: packet.protocol };
        let Some(service) = self.datapath.frontends.get(&to) else { return needed == 0 };
        let backend = Backend { address: back.0, port: back.1 };
        service.members.get(&backend).is_some_and(|bits| bits & needed == needed)
    }
}
