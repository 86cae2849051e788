//! The datapath in user space: what the kernel programs say to a packet, said by plain code.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use weir_common::policy::{IDENTITY_WORLD, MAX_RULES, Protocol, RULE_NONE, RULE_OWN_NODE, RULE_SELF};

use super::{
    Backend, Bits, Datapath, Direction, Frontend, IdentityId, Rule, RuleId, RuleSet, RuleSetId,
    services::{Packet, Verdict},
};
use crate::cluster::Action;

/// A connection to be opened, or an echo request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
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

/// What a node does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Dropped: the source is not one that this packet can come from here.
    InvalidSource,
    /// Dropped: a service, or its range, has nothing for this client.
    Dropped,
    /// Answered by an ICMP port unreachable: a service has no endpoint, or not this port.
    Rejected,
    /// Judged by policy, and passed on unchanged.
    Direct(Path),
    /// Given to one of these backends of a service, each judged by policy on its own.
    Balanced(BTreeMap<Backend, Path>),
}

/// What policy says to a packet at the ends that are on this node; `None`: that end is not a pod of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// What this node does with `connection`.
    pub fn judge(&self, origin: Origin, connection: &Connection) -> Judgement {
        let own = match origin {
            Origin::Pod => self.endpoints.contains_key(&connection.source),
            Origin::Node => true,
            Origin::Outside => {
                !self.endpoints.contains_key(&connection.source)
                    && !self.node_addresses.contains(&connection.source)
            }
        };
        if !own {
            return Judgement::InvalidSource;
        }
        let to = Frontend {
            address: connection.destination,
            port: connection.port,
            protocol: ip_protocol(connection.protocol, connection.destination),
        };
        match self.serve(&Packet { from: connection.source, sport: 0, to }) {
            Verdict::Pass => Judgement::Direct(self.path(origin, connection)),
            Verdict::Drop => Judgement::Dropped,
            Verdict::Reject => Judgement::Rejected,
            Verdict::Dnat(choice) => {
                let translated = |backend: &Backend| Connection {
                    destination: backend.address,
                    port: backend.port,
                    ..*connection
                };
                let backends = choice.ring.backends().iter();
                let judged = backends.map(|backend| (*backend, self.path(origin, &translated(backend))));
                Judgement::Balanced(judged.collect())
            }
        }
    }

    /// What policy says to `connection`, whose destination is final, at the ends that are on this node.
    pub fn path(&self, origin: Origin, connection: &Connection) -> Path {
        let end = |direction| self.decide(origin, connection, direction);
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

    /// The rule set that judges `connection` at one end, and the identity of its peer there.
    pub(super) fn judge_of(
        &self,
        connection: &Connection,
        direction: Direction,
    ) -> Option<(RuleSetId, IdentityId)> {
        let (rule_set, peer) = match direction {
            Direction::Ingress => (self.endpoints.get(&connection.destination)?.ingress?, connection.source),
            Direction::Egress => (self.endpoints.get(&connection.source)?.egress?, connection.destination),
        };
        Some((rule_set, self.identity(peer)))
    }

    fn decide(&self, origin: Origin, connection: &Connection, direction: Direction) -> Option<Decision> {
        let source = self.endpoints.get(&connection.source).filter(|_| origin == Origin::Pod);
        let destination = self.endpoints.get(&connection.destination);
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
        let Some((rule_set, identity)) = self.judge_of(connection, direction) else {
            return Some(Decision::pass(RULE_NONE));
        };
        // A rule set that is not there denies, as the kernel does.
        let Some(links) = self.links(rule_set) else {
            return Some(Decision { allowed: false, rule: RULE_NONE });
        };
        Some(match decide(&links, identity, connection.protocol, connection.port) {
            Some(rule) => Decision { allowed: rule.action == Action::Accept, rule: rule.id },
            None => Decision::pass(RULE_NONE),
        })
    }

    /// A rule set and those that go on after it; `None` when one of them is not there.
    pub fn links(&self, first: RuleSetId) -> Option<Vec<&RuleSet>> {
        let mut links = Vec::new();
        let mut next = Some(first);
        while let Some(id) = next {
            let link = self.rule_sets.get(&id)?;
            links.push(&**link);
            next = link.next;
        }
        Some(links)
    }
}

/// The rule that decides; `None`: none matches, or a Pass rule was the last word.
fn decide<'a>(
    links: &[&'a RuleSet],
    identity: IdentityId,
    protocol: Protocol,
    port: u16,
) -> Option<&'a Rule> {
    let mut first = 0;
    for link in links {
        let (peers, ports) = (link.by_peer(identity), link.by_port(protocol, port));
        while let Some(bit) = peers.first_common(ports, first) {
            let rule = &link.rules[bit];
            match rule.action {
                Action::Accept | Action::Deny => return Some(rule),
                Action::Pass => first = rule.next as usize,
            }
        }
        first = first.saturating_sub(MAX_RULES as usize);
    }
    None
}

impl RuleSet {
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

/// The IP protocol number.
fn ip_protocol(protocol: Protocol, destination: IpAddr) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Echo if destination.is_ipv4() => 1,
        Protocol::Echo => 58,
    }
}
