//! Rules of policies as lines of rule sets.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Numbers,
    atoms::Atom,
    groups::{Groups, NamedPort},
    lines::{Peers, Ports},
};
use crate::{
    cluster::{Action, ClusterRule, NetworkPolicy, PolicyPort, PolicyRule, PortMatch, Protocol},
    datapath::{Direction, RuleOrigin},
};

/// A rule of a policy, or the isolation by policies.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// What it comes from.
    pub(super) origin: RuleOrigin,
    /// What it says.
    pub(super) action: Action,
    /// Its lines, without what named ports add for ingress.
    lines: Vec<(Arc<Peers>, Arc<Ports>)>,
    /// For ingress: its ports, when there is a name among them. It is the rule set's own pods that resolve it.
    named: Option<&'a [PolicyPort]>,
}

/// Makes items. Whom they name gets numbers.
pub(super) struct Items<'n> {
    /// The pods.
    pub(super) groups: &'n Groups,
    /// The numbers.
    pub(super) numbers: &'n mut Numbers,
}

impl<'a> Item<'a> {
    /// The catch-all that stands behind the rules of NetworkPolicies.
    pub(super) fn isolation(policies: &[&NetworkPolicy], direction: Direction) -> Self {
        let origin = RuleOrigin::Isolation {
            ingress: direction.is_ingress(),
            policies: policies.iter().map(|policy| (policy.name.clone(), policy.source.clone())).collect(),
        };
        let lines = vec![(Arc::new(Peers::ANYONE), Arc::new(Ports::all()))];
        Self { origin, action: Action::Deny, lines, named: None }
    }

    /// Its lines in the rule set of pods that declare these ports.
    pub(super) fn resolved(
        &self,
        declared: &BTreeSet<NamedPort>,
    ) -> impl Iterator<Item = (Arc<Peers>, Arc<Ports>)> {
        let own = self.named.map(|ports| {
            let ports = ports_of(Some(ports), &resolve(ports, declared), self.action);
            (Arc::clone(&self.lines[0].0), Arc::new(ports))
        });
        let given = if own.is_some() { &[] } else { &self.lines[..] };
        own.into_iter().chain(given.iter().cloned())
    }
}

impl Items<'_> {
    /// A rule of a NetworkPolicy in `namespace`.
    pub(super) fn of_policy<'a>(
        &mut self,
        rule: &'a PolicyRule,
        namespace: &str,
        direction: Direction,
        origin: RuleOrigin,
    ) -> Item<'a> {
        let atoms = rule.peers.as_ref().map(|peers| {
            let atoms = peers.iter().map(|peer| Atom::of_peer(&peer.kind, namespace));
            atoms.collect()
        });
        self.item(origin, Action::Accept, atoms, rule.ports.as_deref(), direction)
    }

    /// A rule of a ClusterNetworkPolicy.
    pub(super) fn of_cluster_policy<'a>(
        &mut self,
        rule: &'a ClusterRule,
        direction: Direction,
        origin: RuleOrigin,
    ) -> Item<'a> {
        let atoms: Option<Vec<_>> = rule.peers.iter().map(|peer| Atom::of_cluster_peer(&peer.kind)).collect();
        let ports = rule.ports.as_deref();
        match (atoms, rule.action) {
            (Some(atoms), action) => {
                self.item(origin, action, Some(atoms.into_iter().flatten().collect()), ports, direction)
            }
            // A peer of a kind that is not known. The API asks to fail closed: such an Accept rule matches
            // nothing, and such a Deny or Pass rule denies everything.
            (None, Action::Accept) => self.item(origin, Action::Accept, Some(Vec::new()), ports, direction),
            (None, Action::Deny | Action::Pass) => self.item(origin, Action::Deny, None, None, direction),
        }
    }

    /// A rule for `peers`, or everyone.
    fn item<'a>(
        &mut self,
        origin: RuleOrigin,
        action: Action,
        peers: Option<Vec<Atom>>,
        ports: Option<&'a [PolicyPort]>,
        direction: Direction,
    ) -> Item<'a> {
        let any_of: Option<Box<[_]>> = peers.map(|atoms| {
            let numbers = atoms.into_iter().map(|atom| self.numbers.atoms.number(atom));
            numbers.collect::<BTreeSet<_>>().into_iter().collect()
        });
        let first = Peers { any_of: any_of.clone(), declares: None };
        let mut lines = vec![(Arc::new(first), Arc::new(ports_of(ports, &BTreeSet::new(), action)))];
        let named = ports.filter(|ports| ports.iter().any(|port| matches!(port.ports, PortMatch::Named(_))));
        if direction == Direction::Ingress {
            return Item { origin, action, lines, named };
        }
        for port in resolve(named.unwrap_or_default(), &self.groups.declared) {
            let atom = Atom::Declares(port.name.clone(), port.protocol, port.number);
            let peers = Peers { any_of: any_of.clone(), declares: Some(self.numbers.atoms.number(atom)) };
            let ports = Ports::new([(port.protocol, (port.number, port.number))]);
            lines.push((Arc::new(peers), Arc::new(ports)));
        }
        Item { origin, action, lines, named: None }
    }
}

/// What the names among `ports` stand for where `declared` is declared.
fn resolve(ports: &[PolicyPort], declared: &BTreeSet<NamedPort>) -> BTreeSet<NamedPort> {
    let names = |port: &PolicyPort, declared: &NamedPort| {
        let PortMatch::Named(name) = &port.ports else { return false };
        *name == declared.name && protocols(port).contains(&declared.protocol)
    };
    declared.iter().filter(|declared| ports.iter().any(|port| names(port, declared))).cloned().collect()
}

/// The ports of a rule, its names already `resolved`. Echo requests have no port: what allows includes them,
/// what denies or passes does when it names no port.
fn ports_of(ports: Option<&[PolicyPort]>, resolved: &BTreeSet<NamedPort>, action: Action) -> Ports {
    let Some(ports) = ports else { return Ports::all() };
    let numbered = ports.iter().flat_map(|port| {
        let range = match port.ports {
            PortMatch::All => Some((0, u16::MAX)),
            PortMatch::Range(first, last) => Some((first, last)),
            PortMatch::Named(_) => None,
        };
        protocols(port).iter().filter_map(move |protocol| Some((*protocol, range?)))
    });
    let named = resolved.iter().map(|port| (port.protocol, (port.number, port.number)));
    let ports = Ports::new(numbered.chain(named));
    if action == Action::Accept { ports.with_echo() } else { ports }
}

/// The protocols of a port: its own, or each.
fn protocols(port: &PolicyPort) -> &[Protocol] {
    port.protocol.as_ref().map_or(&Protocol::ALL, std::slice::from_ref)
}
