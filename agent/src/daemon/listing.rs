//! `weir get`: objects as they are in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use weir_common::policy::RuleHits;

use super::{
    answer::qualified,
    enforcer::Mac,
    engine::Active,
    hits::{self, Hits},
};
use crate::{
    cluster::{Name, NetworkPolicy, PeerKind, Pod, PodSet, PolicyPeer, Service},
    datapath::{Datapath, Endpoint, RuleId},
    manifest::{self, Key},
    protocol::{Column, Kind, Listing, Row},
};

/// The objects of a kind.
pub(super) fn list(active: &Active, node: &str, hits: &BTreeMap<RuleId, RuleHits>, kind: Kind) -> Listing {
    let view = View { active, node, hits: Hits::new(active, hits) };
    match kind {
        Kind::Pods => view.pods(),
        Kind::Services => view.services(),
        Kind::Policies => view.policies(),
        Kind::Rules => view.hits.listing(active),
        Kind::Endpoints => view.endpoints(),
        Kind::Nodes => view.nodes(),
        Kind::Namespaces => view.namespaces(),
    }
}

struct View<'a> {
    active: &'a Active,
    node: &'a str,
    hits: Hits<'a>,
}

impl View<'_> {
    fn pods(&self) -> Listing {
        let rows = self.active.cluster.pods.values().map(|pod| {
            let ports: Vec<String> =
                pod.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
            let cells = vec![
                pod.node.clone().unwrap_or_default(),
                joined(&pod.addresses),
                self.state(pod),
                self.active.resolution.pods.get(&pod.name).cloned().unwrap_or_default(),
                ports.join(","),
                labels(&pod.labels),
            ];
            self.row(manifest::Kind::Pod, Some(&pod.name), cells)
        });
        listing(&["NODE", "ADDRESSES", "STATE", "+INTERFACE", "+PORTS", "+LABELS"], rows)
    }

    /// Only its own node knows whether a pod is enforced.
    fn state(&self, pod: &Pod) -> String {
        let state = if pod.host_network {
            "host network"
        } else if pod.finished {
            "finished"
        } else if pod.addresses.is_empty() {
            "no address"
        } else if pod.node.as_deref() != Some(self.node) {
            ""
        } else if self.active.resolution.pods.contains_key(&pod.name) {
            "enforced"
        } else {
            "waiting"
        };
        state.to_owned()
    }

    fn services(&self) -> Listing {
        let rows = self.active.cluster.services.values().map(|service| {
            let ports: Vec<String> = service.ports.iter().map(port).collect();
            let external: Vec<_> =
                service.external_ips.iter().chain(&service.load_balancer_ips).copied().collect();
            let backends = self.backends(service);
            let cells = vec![
                format!("{:?}", service.kind).replace("ClusterIp", "ClusterIP"),
                joined(&service.cluster_ips),
                ports.join(","),
                backends.len().to_string(),
                joined(&external),
                backends.into_iter().collect::<Vec<_>>().join(","),
            ];
            self.row(manifest::Kind::Service, Some(&service.name), cells)
        });
        listing(&["TYPE", "CLUSTER-IP", "PORTS", "BACKENDS", "+EXTERNAL-IP", "+BACKEND ADDRESSES"], rows)
    }

    /// Endpoints that clients on this node may be sent to.
    fn backends(&self, service: &Service) -> BTreeSet<String> {
        let ports = self.active.datapath.frontends.values().filter(|port| port.name == service.name);
        let backends = ports.flat_map(|port| port.internal.backends().iter());
        backends.map(|backend| std::net::SocketAddr::new(backend.address, backend.port).to_string()).collect()
    }

    fn policies(&self) -> Listing {
        let cluster = &self.active.cluster;
        let namespaced = cluster.policies.values().map(|policy| {
            let selected = |pod: &&Arc<Pod>| {
                pod.is_networked()
                    && pod.name.namespace == policy.name.namespace
                    && policy.pod_selector.matches(&pod.labels)
            };
            let [connections, packets] = hits::cells(self.hits.of_policy(&policy.name));
            let cells = vec![
                cluster.pods.values().filter(selected).count().to_string(),
                rules(policy.isolates_ingress, policy.ingress.len()),
                rules(policy.isolates_egress, policy.egress.len()),
                connections,
                packets,
                String::new(),
                peers(policy),
                policy.source.to_string(),
            ];
            self.row(manifest::Kind::NetworkPolicy, Some(&policy.name), cells)
        });
        let cluster_wide = cluster.cluster_policies.values().map(|policy| {
            let selected = |pod: &&Arc<Pod>| pod.is_networked() && self.is_in(&policy.subject, pod);
            let [connections, packets] = hits::cells(self.hits.of_cluster_policy(&policy.name));
            let cells = vec![
                cluster.pods.values().filter(selected).count().to_string(),
                policy.ingress.len().to_string(),
                policy.egress.len().to_string(),
                connections,
                packets,
                format!("{:?} {}", policy.tier, policy.priority),
                String::new(),
                policy.source.to_string(),
            ];
            let name = Name { namespace: "".into(), name: policy.name.clone() };
            self.row(manifest::Kind::ClusterNetworkPolicy, Some(&name), cells)
        });
        let headers = [
            "PODS",
            "INGRESS RULES",
            "EGRESS RULES",
            "#CONNECTIONS",
            "#PACKETS",
            "+TIER",
            "+PEERS",
            "+DEFINED AT",
        ];
        listing(&headers, cluster_wide.chain(namespaced))
    }

    fn is_in(&self, set: &PodSet, pod: &Pod) -> bool {
        let namespace = self.active.cluster.namespaces.get(&pod.name.namespace);
        namespace.is_some_and(|namespace| set.namespaces.matches(&namespace.labels))
            && set.pods.as_ref().is_none_or(|pods| pods.matches(&pod.labels))
    }

    /// What the kernel knows of the pods of this node. The object is weir's own view: there is no manifest of it.
    fn endpoints(&self) -> Listing {
        let Active { datapath, resolution, cluster, .. } = self.active;
        let rows = super::interfaces::local_pods(cluster, self.node).map(|pod| {
            let interface = resolution.pods.get(&pod.name).cloned().unwrap_or_default();
            let endpoints: Vec<(_, &Endpoint)> = pod
                .addresses
                .iter()
                .filter_map(|address| Some((*address, datapath.endpoints.get(address)?)))
                .collect();
            let first = endpoints.first().map(|(_, endpoint)| *endpoint);
            let mac = pod.addresses.first().and_then(|address| resolution.interfaces.get(address));
            let waiting = resolution.waiting.get(&pod.name);
            let state = if waiting.is_some() { "waiting" } else { "enforced" };
            let identities: Vec<u32> =
                endpoints.iter().map(|(address, _)| datapath.identity(*address)).collect();
            let cells = vec![
                self.node.to_owned(),
                interface.clone(),
                joined(&pod.addresses),
                identities.first().map(u32::to_string).unwrap_or_default(),
                rule_set(datapath, first.and_then(|endpoint| endpoint.ingress)),
                rule_set(datapath, first.and_then(|endpoint| endpoint.egress)),
                state.to_owned(),
                mac.map(|interface| Mac(interface.mac).to_string()).unwrap_or_default(),
                waiting.cloned().unwrap_or_default(),
            ];
            let view = json!({
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "Endpoint",
                "metadata": { "namespace": pod.name.namespace, "name": pod.name.name },
                "status": {
                    "node": self.node,
                    "interface": interface,
                    "mac": mac.map(|interface| Mac(interface.mac).to_string()),
                    "addresses": pod.addresses,
                    "identities": identities,
                    "ingressRuleSet": first.and_then(|endpoint| endpoint.ingress),
                    "egressRuleSet": first.and_then(|endpoint| endpoint.egress),
                    "state": state,
                    "reason": waiting,
                },
            });
            Row {
                namespace: Some(pod.name.namespace.to_string()),
                name: pod.name.name.to_string(),
                object: format!("endpoint.weir.dev/{}", pod.name),
                cells,
                manifest: view,
            }
        });
        let headers =
            ["NODE", "INTERFACE", "ADDRESSES", "IDENTITY", "INGRESS", "EGRESS", "STATE", "+MAC", "+REASON"];
        listing(&headers, rows)
    }

    fn nodes(&self) -> Listing {
        let rows = self.active.cluster.nodes.values().map(|node| {
            let pods = super::interfaces::local_pods(&self.active.cluster, &node.name).count();
            let uplink = self.active.resolution.uplink.clone().filter(|_| *node.name == *self.node);
            let cells = vec![
                joined(&node.addresses),
                joined(&node.pod_cidrs),
                pods.to_string(),
                node.zone().unwrap_or_default().to_owned(),
                uplink.unwrap_or_default(),
            ];
            let name = Name { namespace: "".into(), name: node.name.clone() };
            self.row(manifest::Kind::Node, Some(&name), cells)
        });
        listing(&["ADDRESSES", "POD CIDRS", "PODS", "+ZONE", "+UPLINK"], rows)
    }

    fn namespaces(&self) -> Listing {
        let cluster = &self.active.cluster;
        let rows = cluster.namespaces.values().map(|namespace| {
            let pods = cluster.pods.keys().filter(|pod| pod.namespace == namespace.name).count();
            let policies =
                cluster.policies.keys().filter(|policy| policy.namespace == namespace.name).count();
            let cells = vec![pods.to_string(), policies.to_string(), labels(&namespace.labels)];
            let name = Name { namespace: "".into(), name: namespace.name.clone() };
            self.row(manifest::Kind::Namespace, Some(&name), cells)
        });
        listing(&["PODS", "POLICIES", "+LABELS"], rows)
    }

    fn row(&self, kind: manifest::Kind, name: Option<&Name>, cells: Vec<String>) -> Row {
        let name = name.cloned().unwrap_or(Name { namespace: "".into(), name: "".into() });
        let key = Key { kind, name };
        let object = self.active.objects.find(&key);
        Row {
            namespace: kind.is_namespaced().then(|| key.name.namespace.to_string()),
            object: qualified(&key),
            // A namespace that is only mentioned has no manifest.
            manifest: object.map_or(Value::Null, |object| object.text().to_json()),
            name: key.name.name.to_string(),
            cells,
        }
    }
}

/// Headers that begin with `+` are for wide tables; what stands under those with `#` is added up.
fn listing(headers: &[&str], rows: impl Iterator<Item = Row>) -> Listing {
    let column = |header: &&str| Column {
        header: header.trim_start_matches(['+', '#']).to_owned(),
        wide: header.starts_with('+'),
        sum: header.starts_with('#'),
    };
    Listing { columns: headers.iter().map(column).collect(), rows: rows.collect() }
}

fn joined(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn labels(labels: &crate::cluster::Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn port(port: &crate::cluster::ServicePort) -> String {
    let node_port = port.node_port.map(|number| format!(":{number}")).unwrap_or_default();
    format!("{}{node_port}/{}", port.port, port.protocol)
}

/// Number of rules; an empty cell: the policy does not isolate in this direction.
fn rules(isolates: bool, number: usize) -> String {
    if isolates { number.to_string() } else { String::new() }
}

/// What the rules name: how many pod selectors and blocks.
fn peers(policy: &NetworkPolicy) -> String {
    let peers: Vec<&PolicyPeer> = policy
        .ingress
        .iter()
        .chain(&policy.egress)
        .filter_map(|rule| rule.peers.as_ref())
        .flatten()
        .collect();
    let blocks = peers.iter().filter(|peer| matches!(peer.kind, PeerKind::Block { .. })).count();
    format!("{} selectors, {blocks} blocks", peers.len() - blocks)
}

/// A rule set's number and rules.
fn rule_set(datapath: &Datapath, id: Option<u32>) -> String {
    match id.and_then(|id| Some((id, datapath.rule_sets.get(&id)?))) {
        Some((id, rule_set)) => format!("#{id} ({} rules)", rule_set.rules.len()),
        None => "open".to_owned(),
    }
}
