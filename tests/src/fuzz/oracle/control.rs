//! What has no flow of its own: ICMP errors, address resolution, neighbour discovery.

use std::net::IpAddr;

use weir_common::reason::Reason;

use super::{
    super::{
        facts::{is_link_local, quoted},
        parse::{Packet, be16},
        rewrite::{self, Change},
    },
    Expected, Flow, Hook, Oracle,
};

impl Oracle {
    /// An ICMP error goes the way of the flow that it quotes, the other way round.
    pub(super) fn error(
        &self,
        hook: Hook,
        frame: &[u8],
        packet: &Packet,
        scope: u32,
        is_tunnelled: bool,
    ) -> Result<(Flow, Change), Reason> {
        if matches!(hook, Hook::FromPod(_)) && self.interface(packet.src) != Some(scope) {
            return Err(Reason::InvalidSource);
        }
        let quoted = quoted(frame, packet).ok_or(Reason::IcmpUnrelated)?;
        if quoted.ends.src != packet.dst {
            return Err(Reason::IcmpUnrelated);
        }
        let key = (quoted.ends.back(), quoted.protocol, scope);
        let flow = *self.flows.get(&key).ok_or(Reason::IcmpUnrelated)?;
        // Either direction has been decided by what is in force.
        let is_current = |flow: &Flow| flow.epoch == self.epoch;
        let other = self.flows.get(&flow.other_way(quoted.protocol));
        if !is_current(&flow) && !other.is_some_and(is_current) {
            return Err(Reason::IcmpUnrelated);
        }
        if is_tunnelled && flow.is_tunnel && packet.hops > 1 {
            return Err(Reason::InvalidTunnel);
        }
        let change = if flow.is_tunnel || flow.to == key.0 {
            Change::NONE
        } else {
            rewrite::quotation(packet, &quoted, &flow.to)
        };
        Ok((flow, change))
    }

    pub(super) fn arp(&self, hook: Hook, frame: &[u8]) -> Expected {
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

    pub(super) fn neighbour(&self, hook: Hook, frame: &[u8], packet: &Packet) -> Expected {
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
}
