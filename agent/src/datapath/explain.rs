//! Why a datapath says what it says.

mod text;

use weir_common::policy::{MAX_RULES, RULE_OWN_NODE, RULE_SELF};

pub use text::rule_text;
pub(crate) use text::{cluster_peer_text, peer_text, port_text};

use super::{Connection, Datapath, Decision, Direction, IdentityId, Origin, Rule, RuleOrigin, RuleSet};
use crate::cluster::{Action, Name};

/// Why one end lets a connection pass or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Which end.
    pub direction: Direction,
    /// The pod there.
    pub pod: &'a Name,
    /// What was decided.
    pub decision: Decision,
    /// Why.
    pub cause: Cause<'a>,
    /// The other rules of the pod in this direction, in their order.
    pub others: Vec<Other<'a>>,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<'a> {
    /// A rule, or the isolation by policies none of whose rules matches.
    Rule(&'a RuleOrigin),
    /// No policy selects the pod in this direction.
    NoPolicy,
    /// Policies select the pod, none of their rules matches, and none of them isolates it.
    NoRule,
    /// A pod's own node always reaches it.
    OwnNode,
    /// A pod always reaches itself.
    Itself,
    /// The pod's rule set is missing: it is closed.
    Incomplete,
}

/// A rule that did not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<'a> {
    /// What it comes from.
    pub origin: &'a RuleOrigin,
    /// What it says.
    pub action: Action,
    /// Why it did not decide.
    pub reason: Reason,
}

/// Why a rule did not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is about other peers.
    Peer,
    /// It is about the peer, but about other ports; a port name may stand for another number at this peer.
    Port,
    /// It is about other peers and other ports.
    PeerAndPort,
    /// It matches, and left the decision to the next tier.
    Passed,
    /// It matches, but the decision fell before it, or it was passed over.
    Unreached,
}

impl Other<'_> {
    /// Whether the rule matches at least in part: worth showing to who asks why.
    pub fn came_near(&self) -> bool {
        self.reason != Reason::PeerAndPort
    }
}

impl Datapath {
    /// Explains what [`Datapath::path`] says at one end; `None`: that end is not a pod of this node.
    pub fn explain(
        &self,
        origin: Origin,
        connection: &Connection,
        direction: Direction,
    ) -> Option<Explanation<'_>> {
        let path = self.path(origin, connection);
        let (decision, address) = match direction {
            Direction::Ingress => (path.ingress?, connection.destination),
            Direction::Egress => (path.egress?, connection.source),
        };
        let pod = &self.endpoints.get(&address)?.pod;
        let judge = self.judge_of(connection, direction);
        let rule_set = judge.and_then(|(rule_set, _)| self.links(rule_set));
        let cause = match decision.rule {
            RULE_SELF => Cause::Itself,
            RULE_OWN_NODE => Cause::OwnNode,
            rule => match (self.rules.get(&rule), judge, &rule_set) {
                (Some(origin), ..) => Cause::Rule(origin),
                (None, Some(_), None) => Cause::Incomplete,
                (None, Some(_), Some(_)) => Cause::NoRule,
                (None, None, _) => Cause::NoPolicy,
            },
        };
        let others = match (judge, rule_set) {
            (Some((_, identity)), Some(links)) if !matches!(cause, Cause::Itself | Cause::OwnNode) => {
                self.others(&lines(&links, identity, connection), decision)
            }
            _ => Vec::new(),
        };
        Some(Explanation { direction, pod, decision, cause, others })
    }

    /// The rules of `lines` but the one that decided and the isolation, each once: a rule with named ports has
    /// several lines.
    fn others(&self, lines: &[Line<'_>], decision: Decision) -> Vec<Other<'_>> {
        let mut others = Vec::new();
        // Where the search goes on after the Pass rules so far, and whether it has ended.
        let (mut from, mut decided) = (0, false);
        for lines in lines.chunk_by(|one, next| one.rule.id == next.rule.id) {
            let Line { rule, number, next, .. } = lines[0];
            let any = |matches: &dyn Fn(&Line<'_>) -> bool| lines.iter().any(matches);
            let both = any(&|line| line.peer && line.port);
            let reason = match (both, any(&|line| line.peer), any(&|line| line.port)) {
                (true, ..) if rule.action == Action::Pass && number >= from && !decided => {
                    from = next;
                    Reason::Passed
                }
                (true, ..) => Reason::Unreached,
                (false, true, _) => Reason::Port,
                (false, false, true) => Reason::Peer,
                (false, false, false) => Reason::PeerAndPort,
            };
            decided |= rule.id == decision.rule;
            match self.rules.get(&rule.id) {
                Some(RuleOrigin::Isolation { .. }) | None => {}
                Some(_) if rule.id == decision.rule => {}
                Some(origin) => others.push(Other { origin, action: rule.action, reason }),
            }
        }
        others
    }
}

/// A bit of rule sets that go on one after the other, and whether a connection matches it.
#[derive(Clone, Copy)]
struct Line<'a> {
    rule: &'a Rule,
    /// Its number among all of them.
    number: usize,
    /// For Pass: the number of the line that the search goes on with.
    next: usize,
    peer: bool,
    port: bool,
}

fn lines<'a>(links: &[&'a RuleSet], identity: IdentityId, connection: &Connection) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (base, link) in (0..).step_by(MAX_RULES as usize).zip(links) {
        let (peers, ports) = (link.by_peer(identity), link.by_port(connection.protocol, connection.port));
        lines.extend(link.rules.iter().enumerate().map(|(bit, rule)| Line {
            rule,
            number: base + bit,
            next: base + rule.next as usize,
            peer: peers.contains(bit),
            port: ports.contains(bit),
        }));
    }
    lines
}
