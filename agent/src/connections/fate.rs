//! What another datapath does to a live connection, at its next packet.

use std::net::{IpAddr, SocketAddr};

use weir_common::{
    addr::{Be16, V4, V6},
    flow::FlowKey,
    header::protocol,
    policy::Protocol,
};

use super::Connection;
use crate::datapath::{
    self, Backend, Datapath, Direction, Frontend, Origin, Ring, RuleId,
    services::{Packet, Verdict},
};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as it is.
    Stays,
    /// It goes to this backend from now on.
    Moves(SocketAddr),
    /// It ends.
    Cut(Cause),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule denies it.
    Policy(Direction, RuleId),
    /// Its service has no backend for it.
    NoBackend,
    /// Its backend is no endpoint of the service any more.
    BackendGone,
    /// The client is no pod of this node any more.
    NoClient,
    /// The server is no pod of this node any more.
    NoServer,
}

impl Connection {
    /// What becomes of it when this node goes from `before` to `after`. It is what the programs do when a flow of
    /// an older epoch sends its next packet.
    pub fn fate(&self, before: &Datapath, after: &Datapath) -> Fate {
        let gone = |address: IpAddr| {
            before.endpoints.contains_key(&address) && !after.endpoints.contains_key(&address)
        };
        if self.origin == Origin::Pod && gone(self.client.ip()) {
            return Fate::Cut(Cause::NoClient);
        }
        if self.is_reset(after) {
            return Fate::Cut(Cause::BackendGone);
        }
        let server = match self.keeps_server(after) {
            true => self.server,
            false => match self.chosen(after) {
                Some(server) => server,
                None => return Fate::Cut(Cause::NoBackend),
            },
        };
        if gone(server.ip()) {
            return Fate::Cut(Cause::NoServer);
        }
        let opened = datapath::Connection {
            source: self.client.ip(),
            destination: server.ip(),
            protocol: policy_protocol(self.protocol),
            port: server.port(),
        };
        let path = after.path(self.origin, &opened);
        for (direction, decision) in [(Direction::Egress, path.egress), (Direction::Ingress, path.ingress)] {
            if let Some(decision) = decision.filter(|decision| !decision.allowed) {
                return Fate::Cut(Cause::Policy(direction, decision.rule));
            }
        }
        if server == self.server { Fate::Stays } else { Fate::Moves(server) }
    }

    /// Where the client sends.
    pub fn to(&self) -> Frontend {
        Frontend { address: self.frontend.ip(), port: self.frontend.port(), protocol: self.protocol }
    }

    /// UDP stays only with an endpoint that still serves. Connections stay with one that has left.
    fn keeps_server(&self, datapath: &Datapath) -> bool {
        let backend = Backend { address: self.server.ip(), port: self.server.port() };
        self.protocol != protocol::UDP
            || !self.is_translated()
            || datapath.frontends.get(&self.to()).is_some_and(|service| service.serves(backend))
    }

    /// Whether it is reset: its backend is no endpoint of the service any more.
    fn is_reset(&self, datapath: &Datapath) -> bool {
        let backend = Backend { address: self.server.ip(), port: self.server.port() };
        let service = datapath.frontends.get(&self.to());
        datapath.reset_gone
            && self.protocol == protocol::TCP
            && self.is_translated()
            && service.is_some_and(|service| !service.members.contains_key(&backend))
    }

    /// Where it would be sent if it were opened anew.
    fn chosen(&self, datapath: &Datapath) -> Option<SocketAddr> {
        let packet = Packet { from: self.client.ip(), sport: self.client.port(), to: self.to() };
        match datapath.serve(&packet) {
            Verdict::Dnat(choice) => {
                let backend = slot(choice.ring, self);
                Some(SocketAddr::new(backend.address, backend.port))
            }
            Verdict::Pass => Some(self.frontend),
            Verdict::Reject | Verdict::Drop => None,
        }
    }
}

/// The backend that the programs choose from a ring that is not empty.
fn slot(ring: &Ring, connection: &Connection) -> Backend {
    let hash = match (connection.client.ip(), connection.frontend.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            hash(connection, V4::from_octets(src.octets()), V4::from_octets(dst.octets()))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            hash(connection, V6::from_octets(src.octets()), V6::from_octets(dst.octets()))
        }
        // No packet has addresses of two families.
        _ => 0,
    };
    ring.at((hash >> 32) as usize)
}

fn hash<A: weir_common::addr::Addr>(connection: &Connection, src: A, dst: A) -> u64 {
    let (sport, dport) = (Be16::new(connection.client.port()), Be16::new(connection.frontend.port()));
    FlowKey { src, dst, sport, dport, scope: 0, protocol: connection.protocol.into() }.hash()
}

const fn policy_protocol(number: u8) -> Protocol {
    match number {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        _ => Protocol::Echo,
    }
}
