//! Tunnels: the other node's to a backend here, and this node's to a backend there.

use std::net::IpAddr;

use weir::datapath::{Backend, Frontend};
use weir_common::{
    reason::Reason,
    service::{flags, member},
    state::inside,
};

use super::{
    super::{
        parse::{ETH, Packet, be16},
        rewrite::Tunnel,
    },
    Expected, Flow, Hook, Oracle,
};
impl Oracle {
    /// The frame inside of a tunnel to a pod of this node, and the pod; `None`: it is none such.
    pub(super) fn leave_tunnel(&self, hook: Hook, frame: &[u8]) -> Result<Option<(Vec<u8>, IpAddr)>, Reason> {
        let Some(ip) = frame.get(ETH..).filter(|_| hook == Hook::FromUplink) else { return Ok(None) };
        let (header, src, dst, is_fragment) = match frame[12..14] {
            [0x08, 0x00] if ip.len() >= 20 && ip[0] == 0x45 && ip[9] == 4 && be16(ip, 6) & 0x1fff == 0 => {
                let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
                (20, address(12), address(16), be16(ip, 6) & 0x3fff != 0)
            }
            [0x86, 0xdd] if ip.len() >= 40 && ip[0] >> 4 == 6 && ip[6] == 41 => {
                let address =
                    |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("sixteen bytes"));
                (40, address(8), address(24), false)
            }
            _ => return Ok(None),
        };
        if !self.pods.contains_key(&dst) {
            return Ok(None);
        }
        if is_fragment || self.inside(src) & inside::NODE == 0 {
            return Err(Reason::InvalidTunnel);
        }
        // The kernel leaves no packet shorter than an IP header.
        let inner = ip.get(header..).filter(|inner| inner.len() >= header).ok_or(Reason::RewriteFailed)?;
        Ok(Some(([&frame[..ETH], inner].concat(), dst)))
    }

    /// The frame that a hook's program judges: the one inside, where a tunnel ends.
    pub fn inner(&self, hook: Hook, frame: &[u8]) -> Vec<u8> {
        match self.leave_tunnel(hook, frame) {
            Ok(Some((inner, _))) => inner,
            _ => frame.to_vec(),
        }
    }

    /// Where a new flow goes that came by a tunnel to `backend`.
    pub(super) fn accept(&self, packet: &Packet, backend: IpAddr, flow: &mut Flow) -> Result<(), Reason> {
        let to = Frontend { address: packet.dst, port: packet.dport, protocol: packet.protocol };
        let service = self.datapath.frontends.get(&to).filter(|service| service.flags & flags::DSR != 0);
        let service = service.ok_or(Reason::InvalidTunnel)?;
        if self.inside(packet.src) != 0 {
            return Err(Reason::InvalidSource);
        }
        let backend = Backend { address: backend, port: service.target_port };
        if service.members.get(&backend).is_none_or(|bits| bits & member::SERVES == 0) {
            return Err(Reason::InvalidTunnel);
        }
        (flow.to.dst, flow.to.dport) = (backend.address, backend.port);
        Ok(())
    }

    /// The tunnel that a flow goes through.
    pub(super) fn tunnel(&self, flow: &Flow) -> Option<Tunnel> {
        Some(Tunnel { from: self.node_address(flow.to.dst), to: flow.to.dst })
    }
}

impl Expected {
    /// The same of a packet from which the header of a tunnel of `header` bytes has been taken.
    pub(super) fn out_of_tunnel(self, header: usize) -> Self {
        match self {
            Self::Passed { redirected, change } => {
                Self::Passed { redirected, change: change.out_of_tunnel(header) }
            }
            dropped => dropped,
        }
    }
}
