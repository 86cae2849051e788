//! Flows: what is known of each direction, and how a packet finds its own.

use std::net::IpAddr;

use weir_common::reason::Reason;

use super::{
    super::{facts::ends, parse::Packet},
    ACK, FIN_OR_RST, Hook, Key, Oracle, SYN,
};
use crate::packets::Ends;

/// One direction of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) to: Ends,
    pub(super) is_reply: bool,
    pub(super) from_node: bool,
    pub(super) masqueraded: bool,
    /// Where the receiver is no pod of this node, it goes out by the uplink past the stack.
    pub(super) by_uplink: bool,
    /// It goes to a socket of this node, from the node's own address.
    pub(super) by_loopback: bool,
    /// It goes as it is through a tunnel to the backend's node, and has no other direction.
    pub(super) is_tunnel: bool,
    /// Interface of the receiver, where that is a pod of this node.
    pub(super) receiver: Option<u32>,
    pub(super) state: State,
    /// Number of the datapath that it was last decided by.
    pub(super) epoch: u32,
}

impl Flow {
    /// A new one, whose packets go on as they are.
    pub(super) const fn new(to: Ends, epoch: u32) -> Self {
        Self {
            to,
            is_reply: false,
            from_node: false,
            masqueraded: false,
            by_uplink: false,
            by_loopback: false,
            is_tunnel: false,
            receiver: None,
            state: State::Opening,
            epoch,
        }
    }

    /// What it says of a packet with these ends.
    fn way(self, here: &Ends) -> Way {
        Way { is_translated: !self.is_tunnel && self.to != *here, flow: self }
    }

    /// The key of its other direction.
    pub(super) fn other_way(&self, protocol: u8) -> Key {
        (self.to.back(), protocol, self.receiver.unwrap_or(0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening,
    Established,
    Closing,
}

/// The way of a packet that may pass.
pub(super) struct Way {
    pub(super) flow: Flow,
    pub(super) is_translated: bool,
}

impl Oracle {
    /// The way of a packet; `None`: it is no concern of this hook's. `backend`: the end of the tunnel that it came by.
    pub(super) fn find_way(
        &mut self,
        hook: Hook,
        packet: &Packet,
        scope: u32,
        backend: Option<IpAddr>,
    ) -> Result<Option<Way>, Reason> {
        let key = (ends(packet), packet.protocol, scope);
        if let Some(flow) = self.look_up(&key, packet)
            && !(flow.is_tunnel && backend.is_some())
        {
            if flow.epoch == self.epoch {
                return Ok(Some(flow.way(&key.0)));
            }
            if let Some(flow) = self.revisit(&key, packet, flow)? {
                return Ok(Some(flow.way(&key.0)));
            }
        }
        let Some(mut flow) = self.open(hook, packet, scope, backend)? else { return Ok(None) };
        self.allow(packet, &flow)?;
        if flow.is_tunnel {
            self.flows.insert(key, flow);
            return Ok(Some(flow.way(&key.0)));
        }
        flow.receiver = self.interface(flow.to.dst);
        self.allot(packet, scope, &mut flow)?;
        let client = if flow.from_node { None } else { self.interface(packet.src) };
        let reply = Flow {
            to: key.0.back(),
            is_reply: true,
            by_uplink: hook == Hook::FromUplink,
            by_loopback: hook == Hook::ToUplink && self.is_own(packet.dst),
            receiver: client,
            ..flow
        };
        self.flows.insert(flow.other_way(packet.protocol), reply);
        self.flows.insert(key, flow);
        Ok(Some(flow.way(&key.0)))
    }

    /// The live flow of a packet, and what the packet does to its state.
    pub(super) fn look_up(&mut self, key: &Key, packet: &Packet) -> Option<Flow> {
        let mut flow = self.flows.get(key).copied()?;
        if flow.state == State::Closing && packet.tcp_flags & (SYN | ACK) == SYN {
            return None;
        }
        // Of a tunnelled flow no answers are seen: that the client goes on says that there are some.
        let is_answered = flow.is_reply || flow.is_tunnel && packet.tcp_flags & SYN == 0;
        let next = if packet.tcp_flags & FIN_OR_RST != 0 {
            State::Closing
        } else if is_answered && flow.state == State::Opening {
            State::Established
        } else {
            flow.state
        };
        let mut is_whole = true;
        if next != flow.state {
            flow.state = next;
            self.flows.insert(*key, flow);
            if !flow.is_tunnel {
                match self.flows.get_mut(&flow.other_way(packet.protocol)) {
                    Some(back) => back.state = next,
                    None => is_whole = false,
                }
            }
        }
        (is_whole || flow.is_reply || flow.masqueraded).then_some(flow)
    }
}
