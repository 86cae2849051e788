//! What a node does with a packet to a service: the datapath's own answer, in user space.
//!
//! This is the model that the programs are compared with. [`Datapath::serve`] answers for a packet without
//! history; a [`Balancer`] remembers what session affinity and live flows need.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use weir_common::{
    policy::{IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR},
    service::flags,
};

use super::{Backend, Datapath, Frontend, Ring, Service, ServiceId};

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Packet {
    /// Source address.
    pub from: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination, as sent.
    pub to: Frontend,
}

/// Who asks a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// A pod, of this node or another.
    Pod,
    /// The node itself.
    Node,
    /// Anybody else, other nodes too.
    Outside,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It goes to a backend.
    Dnat(Choice<'a>),
    /// It is answered by an ICMP port unreachable, whatever its protocol.
    Reject,
    /// It is dropped in silence.
    Drop,
    /// It is not to a service.
    Pass,
}

/// The backends that a packet may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The service port.
    pub service: &'a Service,
    /// The ring to choose from, never empty.
    pub ring: &'a Ring,
    from: IpAddr,
    masquerade: bool,
}

impl Choice<'_> {
    /// Whether the packet gets the node's address as its source when it goes to `backend`. Its own packet
    /// back at the client itself would be answered past the node.
    pub fn masquerades(&self, backend: Backend) -> bool {
        self.masquerade || backend.address == self.from
    }
}

impl Datapath {
    /// Who has this source address.
    pub fn client(&self, from: IpAddr) -> Client {
        if self.pod_cidrs.iter().any(|block| block.contains(&from)) {
            Client::Pod
        } else if self.node_addresses.contains(&from) {
            Client::Node
        } else {
            Client::Outside
        }
    }

    /// What this node does with a packet that has no history.
    pub fn serve(&self, packet: &Packet) -> Verdict<'_> {
        self.serve_client(self.client(packet.from), packet)
    }

    /// The same for a client that is known by where its packet turned up: a node may send under another's address.
    pub fn serve_client(&self, client: Client, packet: &Packet) -> Verdict<'_> {
        let Some(service) = self.frontends.get(&packet.to) else {
            return match self.identity(packet.to.address) {
                IDENTITY_SERVICE => Verdict::Reject,
                IDENTITY_SERVICE_CIDR => Verdict::Drop,
                _ => Verdict::Pass,
            };
        };
        if !service.source_ranges.is_empty()
            && !service.source_ranges.iter().any(|range| range.contains(&packet.from))
        {
            return Verdict::Drop;
        }
        let (ring, masquerade, drops) = match client {
            Client::Pod => (&service.internal, flags::MASQUERADE_POD, flags::EMPTY_INTERNAL_DROPS),
            Client::Node => (&service.internal, flags::MASQUERADE_NODE, flags::EMPTY_INTERNAL_DROPS),
            Client::Outside => (&service.external, flags::MASQUERADE_EXTERNAL, flags::EMPTY_EXTERNAL_DROPS),
        };
        if !ring.is_empty() {
            let masquerade = service.flags & masquerade != 0;
            Verdict::Dnat(Choice { service, ring, from: packet.from, masquerade })
        } else if service.flags & drops != 0 {
            Verdict::Drop
        } else {
            Verdict::Reject
        }
    }
}

/// The memory of a node that balances: session affinity and flows.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    /// The backend of a client's last connection to a service port, and when that was.
    affinity: BTreeMap<(ServiceId, IpAddr), (Backend, Duration)>,
    flows: BTreeMap<Packet, Flow>,
}

/// Where a live flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    service: ServiceId,
    backend: Backend,
}

/// Where a packet goes that a [`Balancer`] has handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// To this backend.
    Backend(Backend),
    /// Nowhere: rejected.
    Reject,
    /// Nowhere: its connection is reset.
    Reset,
    /// Nowhere: dropped.
    Drop,
    /// Its own way.
    Pass,
}

impl Balancer {
    /// Handles a packet at the time `now` after any fixed instant; `hash` chooses the slot of a ring.
    pub fn handle(&mut self, datapath: &Datapath, packet: &Packet, hash: usize, now: Duration) -> Outcome {
        if let Some(flow) = self.flows.get(packet) {
            if flow.is_cut(datapath, packet) {
                return Outcome::Reset;
            }
            if flow.stays(datapath, packet) {
                return Outcome::Backend(flow.backend);
            }
        }
        self.flows.remove(packet);
        let choice = match datapath.serve(packet) {
            Verdict::Dnat(choice) => choice,
            Verdict::Reject => return Outcome::Reject,
            Verdict::Drop => return Outcome::Drop,
            Verdict::Pass => return Outcome::Pass,
        };
        let service = choice.service;
        let backend = self.remembered(&choice, now).unwrap_or_else(|| choice.ring.at(hash));
        if service.affinity.is_some() {
            self.affinity.insert((service.id, packet.from), (backend, now));
        }
        self.flows.insert(*packet, Flow { service: service.id, backend });
        Outcome::Backend(backend)
    }

    /// The backend that the client is to stay with: not for longer than the timeout after its last connection,
    /// and only while it may be chosen.
    fn remembered(&self, choice: &Choice<'_>, now: Duration) -> Option<Backend> {
        let timeout = Duration::from_secs(choice.service.affinity?.into());
        let (backend, last) = *self.affinity.get(&(choice.service.id, choice.from))?;
        (now < last + timeout && choice.ring.backends().contains(&backend)).then_some(backend)
    }
}

impl Flow {
    /// Whether the flow's backend is gone for good: no endpoint of its service any more, in whatever state. A
    /// service that is gone as well says nothing about its backends.
    fn is_cut(&self, datapath: &Datapath, packet: &Packet) -> bool {
        const TCP: u8 = 6;
        let service = datapath.frontends.get(&packet.to).filter(|service| service.id == self.service);
        datapath.reset_gone
            && packet.to.protocol == TCP
            && service.is_some_and(|service| !service.members.contains_key(&self.backend))
    }

    /// Whether the flow stays where it goes. UDP has no end that a client would notice: it stays only with an
    /// endpoint that still serves.
    fn stays(&self, datapath: &Datapath, packet: &Packet) -> bool {
        const UDP: u8 = 17;
        packet.to.protocol != UDP
            || datapath
                .frontends
                .get(&packet.to)
                .is_some_and(|service| service.id == self.service && service.serves(self.backend))
    }
}
