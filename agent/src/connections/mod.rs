//! Live connections: the two directions that the flow table holds, as one, and what becomes of them.

mod fate;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use weir_common::flow::{flags, state};

pub use self::fate::{Cause, Fate};
use crate::{
    datapath::{Origin, RuleId},
    kernel::{Clock, Flow},
};

/// A connection that a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    /// Who opened it; the port of an echo is its identifier.
    pub client: SocketAddr,
    /// Where the client sends.
    pub frontend: SocketAddr,
    /// Whom the server sees.
    pub source: SocketAddr,
    /// Where it ends: the backend, or the frontend itself.
    pub server: SocketAddr,
    /// Where this node saw it come from.
    pub origin: Origin,
    /// How far it has got.
    pub state: State,
    /// How long no packet has come, either way.
    pub idle: Duration,
    /// After how long it is forgotten, if none comes.
    pub left: Duration,
    /// Rule that decided for the client's pod.
    pub egress_rule: RuleId,
    /// Rule that decided for the server's pod.
    pub ingress_rule: RuleId,
    /// The revision in force has judged it; else that is for its next packet.
    pub judged: bool,
}

/// How far a connection has got.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not answered yet.
    Opening,
    /// Packets have gone both ways.
    Established,
    /// A FIN or RST was seen.
    Closing,
}

impl Connection {
    /// Whether it goes somewhere else than the client sends.
    pub fn is_translated(&self) -> bool {
        self.server != self.frontend
    }
}

/// What tells a connection from all others: client, frontend, source, server, protocol.
type Key = (SocketAddr, SocketAddr, SocketAddr, SocketAddr, u32);

/// The connections of a flow table, those with the latest packet first. `epoch` is the one in force.
pub fn connections(flows: impl Iterator<Item = Flow>, clock: &Clock, epoch: u32) -> Vec<Connection> {
    let mut joined = BTreeMap::<Key, Connection>::new();
    for flow in flows {
        let Some((idle, left)) = flow.times(clock) else { continue };
        let is_reply = flow.flags & flags::REPLY != 0;
        let key = match is_reply {
            false => (flow.src, flow.dst, flow.to_src, flow.to_dst, flow.protocol),
            true => (flow.to_dst, flow.to_src, flow.dst, flow.src, flow.protocol),
        };
        let (client, frontend, source, server, _) = key;
        let half = Connection {
            protocol: flow.protocol as u8,
            client,
            frontend,
            source,
            server,
            origin: origin(&flow, is_reply),
            state: state_of(flow.state),
            idle,
            left,
            egress_rule: flow.egress_rule,
            ingress_rule: flow.ingress_rule,
            judged: flow.epoch == epoch,
        };
        joined.entry(key).and_modify(|other| other.join(&half, is_reply)).or_insert(half);
    }
    let mut connections: Vec<_> = joined.into_values().collect();
    connections.sort_by_key(|connection| connection.idle);
    connections
}

impl Connection {
    /// Adds what the entry of the other direction says.
    fn join(&mut self, half: &Self, is_reply: bool) {
        self.state = self.state.max(half.state);
        self.idle = self.idle.min(half.idle);
        self.left = self.left.max(half.left);
        // Each direction is judged again for itself after a commit: the later judgement counts.
        if half.judged && !self.judged {
            (self.egress_rule, self.ingress_rule) = (half.egress_rule, half.ingress_rule);
            self.judged = true;
        }
        // An answer that goes to the node's stack may be the node's or somebody's behind it; the way there is sure.
        if !is_reply {
            self.origin = half.origin;
        }
    }
}

fn origin(flow: &Flow, is_reply: bool) -> Origin {
    // Where a packet goes out to a pod is where the client's packets come in.
    let pod = if is_reply { flow.ifindex } else { flow.scope };
    match flow.flags & flags::FROM_NODE != 0 {
        true => Origin::Node,
        false if pod != 0 => Origin::Pod,
        false => Origin::Outside,
    }
}

const fn state_of(state: u8) -> State {
    match state {
        state::OPENING => State::Opening,
        state::ESTABLISHED => State::Established,
        _ => State::Closing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock { jiffies: 100_000, hertz: 100 };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A pod's TCP connection to a service, by its two entries.
    fn balanced() -> [Flow; 2] {
        let there = Flow {
            src: at("10.0.0.1:4000"),
            dst: at("10.96.0.1:80"),
            to_src: at("10.0.0.1:4000"),
            to_dst: at("10.0.1.9:8080"),
            protocol: 6,
            scope: 7,
            ifindex: 0,
            state: state::ESTABLISHED,
            flags: flags::REWRITE,
            epoch: 4,
            seen: 99_000,
            egress_rule: 20,
            ingress_rule: 0,
        };
        let back = Flow {
            src: there.to_dst,
            dst: there.to_src,
            to_src: there.dst,
            to_dst: there.src,
            scope: 0,
            ifindex: 7,
            flags: flags::REWRITE | flags::REPLY | flags::TO_PEER,
            seen: 99_500,
            ..there
        };
        [there, back]
    }

    #[test]
    fn both_directions_are_one_connection_in_any_order() {
        let [there, back] = balanced();

        let joined = connections([there, back].into_iter(), &CLOCK, 4);

        assert_eq!(joined, connections([back, there].into_iter(), &CLOCK, 4));
        let [one] = joined.as_slice() else { panic!("{joined:?}") };
        assert_eq!((one.client, one.frontend), (at("10.0.0.1:4000"), at("10.96.0.1:80")));
        assert_eq!((one.source, one.server), (at("10.0.0.1:4000"), at("10.0.1.9:8080")));
        assert_eq!((one.origin, one.state, one.idle.as_secs()), (Origin::Pod, State::Established, 5));
        assert!(one.judged && one.is_translated());
    }

    #[test]
    fn the_half_of_a_connection_whose_other_half_was_evicted_is_one_too() {
        let [_, back] = balanced();

        let [one] = connections([back].into_iter(), &CLOCK, 4)[..] else { panic!() };

        assert_eq!((one.client, one.origin), (at("10.0.0.1:4000"), Origin::Pod));
    }

    #[test]
    fn the_rules_are_those_of_the_latest_judgement() {
        let [there, mut back] = balanced();
        back.epoch = 5;
        back.egress_rule = 31;

        let [one] = connections([there, back].into_iter(), &CLOCK, 5)[..] else { panic!() };
        let [old] = connections([there, back].into_iter(), &CLOCK, 6)[..] else { panic!() };

        assert_eq!((one.egress_rule, one.judged), (31, true));
        assert!(!old.judged);
    }

    #[test]
    fn dead_entries_are_no_connections_and_the_latest_come_first() {
        let mut flows = balanced().to_vec();
        let mut other = flows[0];
        other.src = at("10.0.0.1:4001");
        other.seen = 99_900;
        let mut dead = flows[0];
        (dead.src, dead.state, dead.seen) = (at("10.0.0.1:4002"), state::CLOSING, 100_000 - 12_001);
        flows.extend([other, dead]);

        let clients: Vec<_> =
            connections(flows.into_iter(), &CLOCK, 4).iter().map(|one| one.client.port()).collect();

        assert_eq!(clients, [4001, 4000]);
    }
}
