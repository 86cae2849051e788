//! Opening a flow: where it goes, under which source, and whether policy lets it.

use std::net::IpAddr;

use weir::datapath::{
    Backend, Connection, Frontend, Origin, Ring, RuleOrigin, Service,
    services::{Client, Packet as Call, Verdict},
};
use weir_common::{
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR, Protocol},
    reason::Reason,
    service::flags,
};

use super::{
    super::{
        facts::{ends, hash, is_martian, slot},
        parse::{Kind, Packet},
    },
    ACK, Affinity, Flow, Hook, Oracle, SYN, TCP,
};
use crate::packets::Ends;

impl Oracle {
    /// Where a new flow goes; `backend`: the end of the tunnel that its packet came by.
    pub(super) fn open(
        &mut self,
        hook: Hook,
        packet: &Packet,
        scope: u32,
        backend: Option<IpAddr>,
    ) -> Result<Option<Flow>, Reason> {
        let from_node = matches!(hook, Hook::ToUplink | Hook::NodeToPod(_));
        let mut flow = Flow { from_node, ..Flow::new(ends(packet), self.epoch) };
        let refused = self.check_ends(hook, packet, scope);
        let served = match (hook, backend) {
            (Hook::ToPod(_) | Hook::NodeToPod(_), _) => None,
            (_, Some(backend)) => Some(self.accept(packet, backend, &mut flow)),
            // A service remembers nothing of who may not ask it.
            (_, None) => self.serve(hook, packet, &mut flow, refused.is_ok()),
        };
        if served.is_none() && matches!(hook, Hook::FromUplink | Hook::ToUplink) {
            return Ok(None);
        }
        refused?;
        served.unwrap_or(Ok(()))?;
        let leaves = self.datapath.masquerade
            && !self.pods.contains_key(&flow.to.dst)
            && self.inside(flow.to.dst) == 0;
        if matches!(hook, Hook::FromPod(_)) && leaves {
            (flow.masqueraded, flow.by_uplink) = (true, true);
        }
        Ok(Some(flow))
    }

    /// Whether a packet may open a flow, and between these ends.
    fn check_ends(&self, hook: Hook, packet: &Packet, scope: u32) -> Result<(), Reason> {
        if packet.is_later() {
            return Err(Reason::FragmentNotFound);
        }
        if packet.kind == Kind::EchoReply {
            return Err(Reason::IcmpUnrelated);
        }
        let (src, dst) = (packet.src, packet.dst);
        match hook {
            Hook::ToPod(ifindex) | Hook::NodeToPod(ifindex) if self.interface(dst) != Some(ifindex) => {
                Err(Reason::UnknownEndpoint)
            }
            Hook::ToPod(_) | Hook::FromUplink if !self.is_outside(packet) => Err(Reason::InvalidSource),
            Hook::FromPod(_) if self.interface(src) != Some(scope) => Err(Reason::InvalidSource),
            Hook::FromPod(_) if is_martian(dst) || dst == src => Err(Reason::InvalidDestination),
            _ => Ok(()),
        }
    }

    /// Whether a packet may be of somebody elsewhere.
    fn is_outside(&self, packet: &Packet) -> bool {
        let address = packet.src;
        let front = Frontend { address, port: packet.sport, protocol: packet.protocol };
        let is_service = matches!(self.datapath.identity(address), IDENTITY_SERVICE | IDENTITY_SERVICE_CIDR)
            || self.datapath.frontends.get(&front).is_some();
        !self.pods.contains_key(&address) && !self.is_own(address) && !is_martian(address) && !is_service
    }

    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.datapath.node_addresses.contains(&address)
    }

    /// Sends a flow to a backend of the service that it is for; `None`: it is for none.
    fn serve(
        &mut self,
        hook: Hook,
        packet: &Packet,
        flow: &mut Flow,
        may_ask: bool,
    ) -> Option<Result<(), Reason>> {
        let here = ends(packet);
        let to = Frontend { address: here.dst, port: here.dport, protocol: packet.protocol };
        let client = if flow.from_node { Client::Node } else { self.datapath.client(here.src) };
        let call = Call { from: here.src, sport: here.sport, to };
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
        Some(Err(match (self.datapath.serve_client(client, &call), frontend) {
            (Verdict::Pass, _) => return None,
            (Verdict::Drop, None) => Reason::ServiceUnallocated,
            (Verdict::Drop, Some(service)) => {
                let is_allowed = service.source_ranges.is_empty()
                    || service.source_ranges.iter().any(|range| range.contains(&here.src));
                if is_allowed { Reason::ServiceNotLocal } else { Reason::SourceRange }
            }
            (Verdict::Reject, None) => Reason::ServicePortUnknown,
            (Verdict::Reject, Some(_)) => Reason::ServiceNoBackend,
            (Verdict::Dnat(_), _) if !may_ask => return Some(Ok(())),
            (Verdict::Dnat(choice), _) => {
                let backend = choose(&mut self.affinity, choice.service, choice.ring, packet);
                (flow.to.dst, flow.to.dport) = (backend.address, backend.port);
                if !self.pods.contains_key(&backend.address) && self.is_own(backend.address) {
                    flow.by_loopback = flow.from_node;
                } else {
                    flow.masqueraded = choice.masquerades(backend);
                    flow.is_tunnel = !flow.masqueraded
                        && client == Client::Outside
                        && choice.service.flags & flags::DSR != 0
                        && !self.pods.contains_key(&backend.address);
                    flow.by_uplink = flow.masqueraded || flow.from_node;
                }
                return Some(Ok(()));
            }
        }))
    }

    /// A source port by which the flow's answers are told from those of every other; the programs' own order.
    pub(super) fn allot(&self, packet: &Packet, scope: u32, flow: &mut Flow) -> Result<(), Reason> {
        const FIRST: u32 = 10_000;
        const PORTS: u32 = 20_000;
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
    pub(super) fn allow(&self, packet: &Packet, flow: &Flow) -> Result<(), Reason> {
        let protocol = match packet.protocol {
            TCP => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => Protocol::Echo,
        };
        let (source, destination, port) = match flow.is_reply {
            true => (flow.to.dst, packet.src, packet.sport),
            false => (packet.src, flow.to.dst, flow.to.dport),
        };
        let connection = Connection { source, destination, protocol, port };
        let origin = match flow.from_node {
            true => Origin::Node,
            false if self.pods.contains_key(&source) => Origin::Pod,
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
}

/// The backend of a new flow: that of the client's last one, where the service asks for affinity and it may still be
/// chosen, else the ring's.
pub(super) fn choose(affinity: &mut Affinity, service: &Service, ring: &Ring, packet: &Packet) -> Backend {
    let chosen = ring.at(slot(packet) as usize % ring.len());
    if service.affinity.is_none() {
        return chosen;
    }
    let last = affinity.entry((service.id, packet.src)).or_insert(chosen);
    if !ring.backends().contains(last) {
        *last = chosen;
    }
    *last
}
