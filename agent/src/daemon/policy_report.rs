//! `weir describe policy`: whom a policy selects, and what each of its rules says of the pods that are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::hits::Part;
use crate::{
    cluster::{
        Cluster, ClusterNetworkPolicy, ClusterPeerKind, ContainerPort, Name, NetworkPolicy, PeerKind, Pod,
        PodSet, PolicyPeer, PolicyPort, PortMatch, Protocol, Selector,
    },
    datapath::explain::{cluster_peer_text, peer_text, port_text},
    protocol::{NamedPortReport, PeerReport, PolicyName, PolicyReport, PortReport, RuleCounts, RuleReport},
    source::Source,
};

/// A policy of `cluster`, if it is there. `counts` says what a part of it has decided.
pub(crate) fn describe(
    cluster: &Cluster,
    name: &PolicyName,
    counts: &dyn Fn(Part) -> Option<RuleCounts>,
) -> Option<PolicyReport> {
    let view = View { cluster, counts };
    match name {
        PolicyName::Namespaced(name) => Some(view.policy(cluster.policies.get(name)?)),
        PolicyName::Cluster(name) => Some(view.cluster_policy(cluster.cluster_policies.get(&**name)?)),
    }
}

struct View<'a> {
    cluster: &'a Cluster,
    counts: &'a dyn Fn(Part) -> Option<RuleCounts>,
}

/// What a rule of either kind of policy says.
struct Rule<'a> {
    part: Part,
    name: Option<String>,
    action: String,
    source: &'a Source,
    idle: Option<String>,
    /// Each peer with its words and place.
    peers: Option<Vec<(Peer<'a>, String, &'a Source)>>,
    ports: Option<&'a [PolicyPort]>,
}

/// Whom a peer names.
enum Peer<'a> {
    Pods { namespaces: Namespaces<'a>, pods: Option<&'a Selector> },
    Blocks { blocks: &'a [IpNet], except: &'a [IpNet] },
    Nodes(&'a Selector),
    Nobody,
}

enum Namespaces<'a> {
    This(&'a str),
    Those(&'a Selector),
}

impl<'a> View<'a> {
    fn policy(&self, policy: &NetworkPolicy) -> PolicyReport {
        let namespace = &policy.name.namespace;
        let own = |pods| Peer::Pods { namespaces: Namespaces::This(namespace), pods: Some(pods) };
        let selected = self.pods(&own(&policy.pod_selector));
        let mut rules = Vec::new();
        let mut isolates = Vec::new();
        for (ingress, list, isolates_them) in [
            (true, &policy.ingress, policy.isolates_ingress),
            (false, &policy.egress, policy.isolates_egress),
        ] {
            let direction = direction(ingress);
            let idle = (!isolates_them).then(|| format!("policyTypes leaves {direction} out"));
            rules.extend(list.iter().enumerate().map(|(index, rule)| {
                let rule = Rule {
                    part: Part::Rule { ingress, index },
                    name: None,
                    action: "Accept".to_owned(),
                    source: &rule.source,
                    idle: idle.clone(),
                    peers: rule
                        .peers
                        .as_ref()
                        .map(|peers| peers.iter().map(|peer| named(peer, namespace)).collect()),
                    ports: rule.ports.as_deref(),
                };
                self.rule(&rule, ingress, &selected)
            }));
            if isolates_them {
                isolates.push(direction.to_owned());
                let rule = Rule {
                    part: Part::Isolation { ingress },
                    name: None,
                    action: "Deny".to_owned(),
                    source: &policy.source,
                    idle: None,
                    peers: None,
                    ports: None,
                };
                rules.push(self.rule(&rule, ingress, &selected));
            }
        }
        PolicyReport {
            name: policy.name.to_string(),
            kind: "NetworkPolicy".to_owned(),
            nodes: Vec::new(),
            source: policy.source.clone(),
            tier: None,
            priority: None,
            pods: names(&selected),
            isolates,
            rules,
        }
    }

    fn cluster_policy(&self, policy: &ClusterNetworkPolicy) -> PolicyReport {
        let selected = self.pods(&Peer::of_set(&policy.subject));
        let lists = [(true, &policy.ingress), (false, &policy.egress)];
        let rules = lists.into_iter().flat_map(|(ingress, list)| {
            let selected = &selected;
            list.iter().enumerate().map(move |(index, rule)| {
                let peers = rule.peers.iter().map(|found| {
                    (Peer::of_cluster(&found.kind), cluster_peer_text(&found.kind), &found.source)
                });
                let rule = Rule {
                    part: Part::Rule { ingress, index },
                    name: rule.name.clone(),
                    action: format!("{:?}", rule.action),
                    source: &rule.source,
                    idle: None,
                    peers: Some(peers.collect()),
                    ports: rule.ports.as_deref(),
                };
                self.rule(&rule, ingress, selected)
            })
        });
        PolicyReport {
            name: policy.name.to_string(),
            kind: "ClusterNetworkPolicy".to_owned(),
            nodes: Vec::new(),
            source: policy.source.clone(),
            tier: Some(format!("{:?}", policy.tier)),
            priority: Some(policy.priority),
            rules: rules.collect(),
            pods: names(&selected),
            isolates: Vec::new(),
        }
    }

    fn rule(&self, rule: &Rule<'_>, ingress: bool, selected: &[&'a Pod]) -> RuleReport {
        // Whose ports a name is looked up among: the receiver's.
        let mut receivers = selected.to_vec();
        if !ingress {
            let anyone = || self.networked().collect();
            receivers = rule
                .peers
                .as_ref()
                .map_or_else(anyone, |peers| peers.iter().flat_map(|(peer, ..)| self.pods(peer)).collect());
        }
        let peers = rule.peers.as_ref().map(|peers| {
            let peers = peers.iter().map(|(peer, text, source)| PeerReport {
                peer: text.clone(),
                source: (*source).clone(),
                pods: names(&self.pods(peer)),
                nodes: self.nodes(peer),
            });
            peers.collect()
        });
        let ports = rule.ports.map(|ports| {
            let ports = ports.iter().map(|port| PortReport {
                port: port_text(port),
                source: port.source.clone(),
                numbers: numbers(port, &receivers),
            });
            ports.collect()
        });
        RuleReport {
            rule: rule.part.to_string(),
            name: rule.name.clone(),
            action: rule.action.clone(),
            source: rule.source.clone(),
            idle: rule.idle.clone(),
            peers,
            ports,
            counts: (self.counts)(rule.part),
        }
    }

    fn networked(&self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.cluster.pods.values().map(|pod| &**pod).filter(|pod| pod.is_networked())
    }

    /// The pods that `peer` matches.
    fn pods(&self, peer: &Peer<'_>) -> Vec<&'a Pod> {
        self.networked().filter(|pod| self.is_pod(peer, pod)).collect()
    }

    fn is_pod(&self, peer: &Peer<'_>, pod: &Pod) -> bool {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let namespace = &pod.name.namespace;
                let is_there = match namespaces {
                    Namespaces::This(name) => **name == **namespace,
                    Namespaces::Those(selector) => {
                        let found = self.cluster.namespaces.get(namespace);
                        found.is_some_and(|found| selector.matches(&found.labels))
                    }
                };
                is_there && pods.is_none_or(|pods| pods.matches(&pod.labels))
            }
            Peer::Blocks { blocks, except } => {
                pod.addresses.iter().any(|address| is_in(*address, blocks, except))
            }
            Peer::Nodes(_) | Peer::Nobody => false,
        }
    }

    /// The nodes that `peer` matches.
    fn nodes(&self, peer: &Peer<'_>) -> Vec<String> {
        let nodes = self.cluster.nodes.values().filter(|node| match peer {
            Peer::Nodes(selector) => selector.matches(&node.labels),
            Peer::Blocks { blocks, except } => {
                node.addresses.iter().any(|address| is_in(*address, blocks, except))
            }
            Peer::Pods { .. } | Peer::Nobody => false,
        });
        nodes.map(|node| node.name.to_string()).collect()
    }
}

impl<'a> Peer<'a> {
    fn of(kind: &'a PeerKind, namespace: &'a str) -> Self {
        match kind {
            PeerKind::Pods { namespaces, pods } => Self::Pods {
                namespaces: namespaces.as_ref().map_or(Namespaces::This(namespace), Namespaces::Those),
                pods: pods.as_ref(),
            },
            PeerKind::Block { cidr, except } => Self::Blocks { blocks: std::slice::from_ref(cidr), except },
        }
    }

    fn of_cluster(kind: &'a ClusterPeerKind) -> Self {
        match kind {
            ClusterPeerKind::Pods(set) => Self::of_set(set),
            ClusterPeerKind::Nodes(selector) => Self::Nodes(selector),
            ClusterPeerKind::Networks(blocks) => Self::Blocks { blocks, except: &[] },
            ClusterPeerKind::Unknown => Self::Nobody,
        }
    }

    fn of_set(set: &'a PodSet) -> Self {
        Self::Pods { namespaces: Namespaces::Those(&set.namespaces), pods: set.pods.as_ref() }
    }
}

/// A peer of a NetworkPolicy, with its words and place.
fn named<'a>(peer: &'a PolicyPeer, namespace: &'a str) -> (Peer<'a>, String, &'a Source) {
    let PolicyPeer { source, kind } = peer;
    (Peer::of(kind, namespace), peer_text(kind), source)
}

/// The numbers that a named port has among `receivers`.
fn numbers(port: &PolicyPort, receivers: &[&Pod]) -> Option<Vec<NamedPortReport>> {
    let PortMatch::Named(name) = &port.ports else { return None };
    let mut numbers = BTreeMap::<(u16, Protocol), BTreeSet<&Name>>::new();
    for pod in receivers {
        let is_meant = |declared: &&ContainerPort| {
            declared.name.as_ref() == Some(name)
                && port.protocol.is_none_or(|protocol| protocol == declared.protocol)
        };
        for declared in pod.ports.iter().filter(is_meant) {
            numbers.entry((declared.port, declared.protocol)).or_default().insert(&pod.name);
        }
    }
    let report = |((number, protocol), pods): (_, BTreeSet<&Name>)| NamedPortReport {
        port: format!("{number}/{protocol}"),
        pods: pods.iter().map(ToString::to_string).collect(),
    };
    Some(numbers.into_iter().map(report).collect())
}

fn is_in(address: IpAddr, blocks: &[IpNet], except: &[IpNet]) -> bool {
    let among = |blocks: &[IpNet]| blocks.iter().any(|block| block.contains(&address));
    among(blocks) && !among(except)
}

fn names(pods: &[&Pod]) -> Vec<String> {
    pods.iter().map(|pod| pod.name.to_string()).collect()
}

const fn direction(ingress: bool) -> &'static str {
    if ingress { "ingress" } else { "egress" }
}
