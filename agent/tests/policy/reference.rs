//! Network policy as the Kubernetes API documents it, read off the objects one by one: no identities, no
//! numbers, no sharing. Slow and plain, to compare the compiler with.

use std::net::IpAddr;

use weir::cluster::*;

/// Whether a connection opens; `protocol` is `None` for an echo request.
pub(crate) fn opens(
    cluster: &Cluster,
    from: IpAddr,
    to: IpAddr,
    protocol: Option<Protocol>,
    port: u16,
) -> bool {
    let pod_at = |address| {
        let mut pods = cluster.pods.values().map(|pod| &**pod);
        pods.find(|pod| pod.is_networked() && pod.addresses.contains(&address))
    };
    let (source, destination) = (pod_at(from), pod_at(to));
    if let (Some(source), Some(destination)) = (source, destination)
        && source.name == destination.name
    {
        return true;
    }
    let question = |pod, peer, peer_pod| Question { cluster, pod, peer, peer_pod, protocol, port };
    let sends = source.is_none_or(|source| question(source, to, destination).passes(false));
    let receives = destination.is_none_or(|destination| {
        let own_node = destination.node.as_ref().and_then(|node| cluster.nodes.get(&**node));
        own_node.is_some_and(|node| node.addresses.contains(&from))
            || question(destination, from, source).passes(true)
    });
    sends && receives
}

/// Whether `pod` may talk to `peer`, which may be a pod.
struct Question<'a> {
    cluster: &'a Cluster,
    pod: &'a Pod,
    peer: IpAddr,
    peer_pod: Option<&'a Pod>,
    protocol: Option<Protocol>,
    port: u16,
}

impl Question<'_> {
    fn passes(&self, ingress: bool) -> bool {
        match self.tier(Tier::Admin, ingress) {
            Some(Action::Accept) => return true,
            Some(Action::Deny) => return false,
            Some(Action::Pass) | None => {}
        }
        let isolating: Vec<_> = self
            .cluster
            .policies
            .values()
            .filter(|policy| policy.name.namespace == self.pod.name.namespace)
            .filter(|policy| if ingress { policy.isolates_ingress } else { policy.isolates_egress })
            .filter(|policy| policy.pod_selector.matches(&self.pod.labels))
            .collect();
        if !isolating.is_empty() {
            return isolating.iter().any(|policy| {
                let rules = if ingress { &policy.ingress } else { &policy.egress };
                rules.iter().any(|rule| {
                    let mut peers = rule.peers.iter().flatten();
                    (rule.peers.is_none()
                        || peers.any(|peer| self.is_peer(&peer.kind, &policy.name.namespace)))
                        && self.is_port(rule.ports.as_deref(), Action::Accept, ingress)
                })
            });
        }
        self.tier(Tier::Baseline, ingress) != Some(Action::Deny)
    }

    fn tier(&self, tier: Tier, ingress: bool) -> Option<Action> {
        let mut policies: Vec<_> = self
            .cluster
            .cluster_policies
            .values()
            .filter(|policy| policy.tier == tier && self.is_in(&policy.subject, self.pod))
            .collect();
        policies.sort_by_key(|policy| (policy.priority, policy.name.clone()));
        let rules =
            policies.into_iter().flat_map(|policy| if ingress { &policy.ingress } else { &policy.egress });
        rules.into_iter().find_map(|rule| {
            if rule.peers.iter().any(|peer| peer.kind == ClusterPeerKind::Unknown) {
                return (rule.action != Action::Accept).then_some(Action::Deny);
            }
            let matches = rule.peers.iter().any(|peer| self.is_cluster_peer(&peer.kind))
                && self.is_port(rule.ports.as_deref(), rule.action, ingress);
            matches.then_some(rule.action)
        })
    }

    fn is_peer(&self, peer: &PeerKind, namespace: &str) -> bool {
        match peer {
            PeerKind::Block { cidr, except } => {
                cidr.contains(&self.peer) && !except.iter().any(|except| except.contains(&self.peer))
            }
            PeerKind::Pods { namespaces, pods } => self.peer_pod.is_some_and(|pod| {
                let namespace_matches = match namespaces {
                    None => *pod.name.namespace == *namespace,
                    Some(selector) => selector.matches(&self.cluster.namespaces[&pod.name.namespace].labels),
                };
                namespace_matches && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
            }),
        }
    }

    fn is_cluster_peer(&self, peer: &ClusterPeerKind) -> bool {
        match peer {
            ClusterPeerKind::Pods(set) => self.peer_pod.is_some_and(|pod| self.is_in(set, pod)),
            ClusterPeerKind::Nodes(selector) => {
                let mut nodes = self.cluster.nodes.values();
                nodes.any(|node| selector.matches(&node.labels) && node.addresses.contains(&self.peer))
            }
            ClusterPeerKind::Networks(networks) => {
                networks.iter().any(|network| network.contains(&self.peer))
            }
            ClusterPeerKind::Unknown => unreachable!("judged with its rule"),
        }
    }

    fn is_in(&self, set: &PodSet, pod: &Pod) -> bool {
        set.namespaces.matches(&self.cluster.namespaces[&pod.name.namespace].labels)
            && set.pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
    }

    fn is_port(&self, ports: Option<&[PolicyPort]>, action: Action, ingress: bool) -> bool {
        let Some(ports) = ports else { return true };
        let Some(protocol) = self.protocol else { return action == Action::Accept };
        let destination = if ingress { Some(self.pod) } else { self.peer_pod };
        ports.iter().filter(|port| port.protocol.is_none_or(|named| named == protocol)).any(
            |port| match &port.ports {
                PortMatch::All => true,
                PortMatch::Range(first, last) => (*first..=*last).contains(&self.port),
                PortMatch::Named(name) => destination.is_some_and(|pod| {
                    pod.ports.iter().any(|declared| {
                        declared.name.as_ref() == Some(name)
                            && declared.protocol == protocol
                            && declared.port == self.port
                    })
                }),
            },
        )
    }
}
