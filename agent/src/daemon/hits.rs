//! What each rule has decided on this node.

use std::{collections::BTreeMap, fmt};

use weir_common::policy::RuleHits;

use super::engine::Active;
use crate::{
    cluster::Name,
    datapath::{RuleId, RuleOrigin},
    protocol::{Column, Listing, PolicyName, Row},
    shared_map::SharedMap,
    source::Source,
};

/// Connections and packets decided, by rule of the datapath in force.
#[derive(Debug)]
pub(super) struct Hits<'a> {
    rules: &'a SharedMap<RuleId, RuleOrigin>,
    counts: &'a BTreeMap<RuleId, RuleHits>,
}

/// What of a policy decides: one of its rules, or that it isolates and no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The rule at this place of its list.
    Rule { ingress: bool, index: usize },
    /// The isolation.
    Isolation { ingress: bool },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ingress| if ingress { "ingress" } else { "egress" };
        match *self {
            Self::Rule { ingress, index } => write!(f, "{}[{index}]", list(ingress)),
            Self::Isolation { ingress } => write!(f, "{}, no rule matches", list(ingress)),
        }
    }
}

impl<'a> Hits<'a> {
    /// Of the rules of `active`.
    pub(super) fn new(active: &'a Active, counts: &'a BTreeMap<RuleId, RuleHits>) -> Self {
        Self { rules: &active.datapath.rules, counts }
    }

    /// What a NetworkPolicy has decided: by its rules, and by isolating, alone or with others. `None`: it
    /// decides nothing on this node.
    pub(super) fn of_policy(&self, policy: &Name) -> Option<RuleHits> {
        self.sum(|origin| part_of(origin, policy).is_some())
    }

    /// What the rules of a ClusterNetworkPolicy have decided.
    pub(super) fn of_cluster_policy(&self, policy: &str) -> Option<RuleHits> {
        self.sum(|origin| part_of_cluster_policy(origin, policy).is_some())
    }

    /// What a part of a policy has decided.
    pub(super) fn of_part(&self, policy: &PolicyName, part: Part) -> Option<RuleHits> {
        self.sum(|origin| {
            let found = match policy {
                PolicyName::Namespaced(name) => part_of(origin, name),
                PolicyName::Cluster(name) => part_of_cluster_policy(origin, name),
            };
            found == Some(part)
        })
    }

    fn sum(&self, wanted: impl Fn(&RuleOrigin) -> bool) -> Option<RuleHits> {
        let rules = self.rules.iter().filter(|(_, origin)| wanted(origin));
        let counts = rules.map(|(rule, _)| self.counts.get(rule).copied().unwrap_or_default());
        counts.reduce(RuleHits::plus)
    }

    /// Every rule of every policy, in order, with the isolation of those that isolate.
    pub(super) fn listing(&self, active: &Active) -> Listing {
        let mut rows = Vec::new();
        for policy in active.cluster.cluster_policies.values() {
            for (ingress, rules) in [(true, &policy.ingress), (false, &policy.egress)] {
                for (index, rule) in rules.iter().enumerate() {
                    let part = Part::Rule { ingress, index };
                    let hits = self.sum(|origin| part_of_cluster_policy(origin, &policy.name) == Some(part));
                    let action = format!("{:?}", rule.action);
                    rows.push(row(None, &policy.name, part, action, hits, &rule.source));
                }
            }
        }
        for policy in active.cluster.policies.values() {
            let Name { namespace, name } = &policy.name;
            let directions = [
                (true, &policy.ingress, policy.isolates_ingress),
                (false, &policy.egress, policy.isolates_egress),
            ];
            for (ingress, rules, isolates) in directions {
                let rules = rules
                    .iter()
                    .enumerate()
                    .map(|(index, rule)| (Part::Rule { ingress, index }, "Accept", &rule.source));
                let isolation = isolates.then_some((Part::Isolation { ingress }, "Deny", &policy.source));
                for (part, action, source) in rules.chain(isolation) {
                    let hits = self.sum(|origin| part_of(origin, &policy.name) == Some(part));
                    rows.push(row(Some(namespace), name, part, action.to_owned(), hits, source));
                }
            }
        }
        let column = |header: &str, sum| Column { header: header.to_owned(), wide: false, sum };
        let columns = vec![
            column("RULE", false),
            column("ACTION", false),
            column("CONNECTIONS", true),
            column("PACKETS", true),
            column("DEFINED AT", false),
        ];
        Listing { columns, rows }
    }
}

/// Connections and packets as they stand in a table.
pub(super) fn cells(hits: Option<RuleHits>) -> [String; 2] {
    hits.map(|hits| [hits.connections.to_string(), hits.packets.to_string()]).unwrap_or_default()
}

fn part_of(origin: &RuleOrigin, name: &Name) -> Option<Part> {
    match origin {
        RuleOrigin::Policy { policy, ingress, index, .. } if policy == name => {
            Some(Part::Rule { ingress: *ingress, index: *index })
        }
        RuleOrigin::Isolation { ingress, policies } if policies.iter().any(|(policy, _)| policy == name) => {
            Some(Part::Isolation { ingress: *ingress })
        }
        _ => None,
    }
}

fn part_of_cluster_policy(origin: &RuleOrigin, name: &str) -> Option<Part> {
    match origin {
        RuleOrigin::ClusterPolicy { policy, ingress, index, .. } if policy == name => {
            Some(Part::Rule { ingress: *ingress, index: *index })
        }
        _ => None,
    }
}

fn row(
    namespace: Option<&str>,
    policy: &str,
    part: Part,
    action: String,
    hits: Option<RuleHits>,
    source: &Source,
) -> Row {
    Row {
        namespace: namespace.map(str::to_owned),
        name: policy.to_owned(),
        object: String::new(),
        cells: [part.to_string(), action]
            .into_iter()
            .chain(cells(hits))
            .chain([source.to_string()])
            .collect(),
        // A rule is no object of its own.
        manifest: serde_json::Value::Null,
    }
}
