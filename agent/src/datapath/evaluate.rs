//! The datapath in user space: what the kernel programs say to a packet, said by plain code.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use weir_common::{
    policy::{
        IDENTITY_SERVICE, IDENTITY_SERVICE_CIDR, IDENTITY_WORLD, Protocol, RULE_NONE, RULE_OWN_NODE,
        RULE_SELF,
    },
    reason::Reason,
    service::flags,
};

use super::{Backend, Bits, Datapath, Direction, Frontend, IdentityId, Rule, RuleId, RuleSet, RuleSetId};
use crate::cluster::Action;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port; 0 for echo requests.
    pub port: u16,
}

/// Where a packet comes from, as a node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A pod of this node.
    Pod,
    /// The node itself.
    Node,
    /// The uplink.
    Outside,
}

/// What a node does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Dropped before policy was asked.
    Dropped(Reason),
    /// Answered with an ICMP error: nobody serves it.
    Rejected(Reason),
    /// Judged by policy, and passed on unchanged.
    Direct(Path),
    /// Given to one of these backends of a service, each judged by policy on its own.
    Balanced(BTreeMap<Backend, Path>),
}

/// What policy says to a packet at the ends that are on this node; `None`: that end is not a pod of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The source's egress.
    pub egress: Option<Decision>,
    /// The destination's ingress.
    pub ingress: Option<Decision>,
}

/// What policy says to a packet at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the packet passes.
    pub allowed: bool,
    /// The rule that decided, or one of the special numbers of [`weir_common::policy`].
    pub rule: RuleId,
}

impl Decision {
    /// No rule had to decide: the packet passes for the reason that this special number stands for.
    const fn pass(rule: RuleId) -> Self {
        Self { allowed: true, rule }
    }
}

impl Path {
    /// Whether the ends of this node let the packet pass.
    pub fn allowed(&self) -> bool {
        [self.egress, self.ingress].into_iter().flatten().all(|decision| decision.allowed)
    }
}

impl Datapath {
    /// What this node does with `packet`.
    pub fn judge(&self, origin: Origin, packet: &Packet) -> Judgement {
        let own = match origin {
            Origin::Pod => self.endpoints.contains_key(&packet.source),
            Origin::Node => true,
            Origin::Outside => {
                !self.endpoints.contains_key(&packet.source) && !self.node_addresses.contains(&packet.source)
            }
        };
        if !own {
            return Judgement::Dropped(Reason::InvalidSource);
        }
        let frontend = ip_protocol(packet.protocol).and_then(|protocol| {
            let key = Frontend { address: packet.destination, port: packet.port, protocol };
            self.frontends.get(&key)
        });
        let Some(service) = frontend else {
            return match self.identity(packet.destination) {
                IDENTITY_SERVICE => Judgement::Rejected(Reason::ServicePortUnknown),
                IDENTITY_SERVICE_CIDR => Judgement::Dropped(Reason::ServiceUnallocated),
                _ => Judgement::Direct(self.path(origin, packet)),
            };
        };
        let (ring, drops) = match origin {
            Origin::Pod | Origin::Node => (&service.internal, flags::EMPTY_INTERNAL_DROPS),
            Origin::Outside => (&service.external, flags::EMPTY_EXTERNAL_DROPS),
        };
        if ring.is_empty() && service.flags & drops != 0 {
            return Judgement::Dropped(Reason::ServiceNoBackend);
        }
        if ring.is_empty() {
            return Judgement::Rejected(Reason::ServiceNoBackend);
        }
        let backends: BTreeSet<_> = ring.iter().copied().collect();
        let translated =
            |backend: Backend| Packet { destination: backend.address, port: backend.port, ..*packet };
        let judged = backends.into_iter().map(|backend| (backend, self.path(origin, &translated(backend))));
        Judgement::Balanced(judged.collect())
    }

    /// What policy says to `packet`, whose destination is final, at the ends that are on this node.
    pub fn path(&self, origin: Origin, packet: &Packet) -> Path {
        let end = |direction| self.decide(origin, packet, direction);
        Path { egress: end(Direction::Egress), ingress: end(Direction::Ingress) }
    }

    /// The identity of an address: that of the longest prefix around it.
    pub fn identity(&self, address: IpAddr) -> IdentityId {
        let host = IpNet::from(address);
        let prefixes = (0..=host.prefix_len()).rev().filter_map(|len| IpNet::new(address, len).ok());
        prefixes
            .filter_map(|prefix| self.identities.get(&prefix.trunc()))
            .next()
            .copied()
            .unwrap_or(IDENTITY_WORLD)
    }

    /// The rule set that judges `packet` at one end, and the identity of its peer there.
    pub(super) fn judge_of(&self, packet: &Packet, direction: Direction) -> Option<(RuleSetId, IdentityId)> {
        let (rule_set, peer) = match direction {
            Direction::Ingress => (self.endpoints.get(&packet.destination)?.ingress?, packet.source),
            Direction::Egress => (self.endpoints.get(&packet.source)?.egress?, packet.destination),
        };
        Some((rule_set, self.identity(peer)))
    }

    fn decide(&self, origin: Origin, packet: &Packet, direction: Direction) -> Option<Decision> {
        let source = self.endpoints.get(&packet.source).filter(|_| origin == Origin::Pod);
        let destination = self.endpoints.get(&packet.destination);
        if !direction.is_ingress() {
            source?;
        } else {
            destination?;
        }
        if let (Some(source), Some(destination)) = (source, destination)
            && source.pod == destination.pod
        {
            return Some(Decision::pass(RULE_SELF));
        }
        if direction.is_ingress() && origin == Origin::Node {
            return Some(Decision::pass(RULE_OWN_NODE));
        }
        let Some((rule_set, identity)) = self.judge_of(packet, direction) else {
            return Some(Decision::pass(RULE_NONE));
        };
        // A rule set that is not there denies, as the kernel does.
        let Some(rule_set) = self.rule_sets.get(&rule_set) else {
            return Some(Decision { allowed: false, rule: RULE_NONE });
        };
        Some(match rule_set.decide(identity, packet.protocol, packet.port) {
            Some(rule) => Decision { allowed: rule.action == Action::Accept, rule: rule.id },
            None => Decision::pass(RULE_NONE),
        })
    }
}

impl RuleSet {
    /// The rule that decides; `None`: none matches, or a Pass rule was the last word.
    pub fn decide(&self, identity: IdentityId, protocol: Protocol, port: u16) -> Option<&Rule> {
        let (peers, ports) = (self.by_peer(identity), self.by_port(protocol, port));
        let mut first = 0;
        loop {
            let rule = &self.rules[peers.first_common(ports, first)?];
            match rule.action {
                Action::Accept | Action::Deny => return Some(rule),
                Action::Pass => first = rule.next as usize,
            }
        }
    }

    /// The rules whose peer has this identity.
    pub fn by_peer(&self, identity: IdentityId) -> &Bits {
        self.peers.get(&identity).unwrap_or(&self.default_peers)
    }

    /// The rules that are about this port.
    pub fn by_port(&self, protocol: Protocol, port: u16) -> &Bits {
        let interval = self.ports[protocol as usize].range(..=port).next_back();
        interval.expect("the first interval begins at port 0").1
    }
}

/// The IP protocol number of what services serve.
fn ip_protocol(protocol: Protocol) -> Option<u8> {
    use crate::cluster::Protocol as Served;
    match protocol {
        Protocol::Tcp => Some(Served::Tcp.number()),
        Protocol::Udp => Some(Served::Udp.number()),
        Protocol::Sctp => Some(Served::Sctp.number()),
        Protocol::Echo => None,
    }
}
