//! What the manifests may say and the kernel programs do not do yet.
//!
//! Compiling and modelling know all of it. An agent that enforces refuses it, so that nothing is accepted in
//! silence and left undone. The list shrinks as the programs grow.

use super::{Cluster, Objects, Protocol, Service, ServiceKind};
use crate::manifest::{Diagnostics, Key, Kind};

/// Recognizes a value by the name of its field and its text.
type IsIt = fn(&str, &str) -> bool;

impl Objects {
    /// An error for everything in these objects, which make up `cluster`, that the programs do not enforce.
    pub fn unenforced(&self, cluster: &Cluster) -> Diagnostics {
        self.unenforced_since(&Self::default(), cluster)
    }

    /// The same, where all of `before` has been found enforceable.
    pub fn unenforced_since(&self, before: &Self, cluster: &Cluster) -> Diagnostics {
        let mut found = Diagnostics::default();
        for object in before.differences(self).filter_map(|(_, after)| after) {
            for (what, is_it) in unenforced(object.key(), cluster) {
                let message = format!("{}: {what} not enforced yet, and so not accepted", object.key());
                found.push(object.text().error(is_it, &message));
            }
        }
        found
    }
}

fn unenforced(key: &Key, cluster: &Cluster) -> Vec<(&'static str, IsIt)> {
    match key.kind {
        Kind::WeirConfiguration => of_configuration(cluster),
        Kind::Service => {
            cluster.services.get(&key.name).map(|service| of_service(service)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn of_configuration(cluster: &Cluster) -> Vec<(&'static str, IsIt)> {
    let config = &cluster.config;
    let settings: [(bool, _, IsIt); 2] = [
        (config.masquerade_all, "masqueradeAll is", |name, text| name == "masqueradeAll" && text == "true"),
        (config.node_port_addresses.is_some(), "nodePortAddresses are", |name, _| {
            name == "nodePortAddresses"
        }),
    ];
    chosen(settings)
}

fn of_service(service: &Service) -> Vec<(&'static str, IsIt)> {
    if service.foreign || service.kind == ServiceKind::ExternalName || service.cluster_ips.is_empty() {
        return Vec::new();
    }
    let has_node_port = service.ports.iter().any(|port| port.node_port.is_some());
    let has_sctp = service.ports.iter().any(|port| port.protocol == Protocol::Sctp);
    let settings: [(bool, _, IsIt); 6] = [
        (service.kind != ServiceKind::ClusterIp, "this type is", |name, _| name == "type"),
        (has_node_port && service.kind == ServiceKind::ClusterIp, "a nodePort is", |name, _| {
            name == "nodePort"
        }),
        (!service.external_ips.is_empty(), "externalIPs are", |name, _| name == "externalIPs"),
        (!service.source_ranges.is_empty(), "loadBalancerSourceRanges are", |name, _| {
            name == "loadBalancerSourceRanges"
        }),
        (service.affinity.is_some(), "session affinity is", |name, text| {
            name == "sessionAffinity" && text == "ClientIP"
        }),
        (has_sctp, "a service port of SCTP is", |name, text| name == "protocol" && text == "SCTP"),
    ];
    chosen(settings)
}

fn chosen<const N: usize>(settings: [(bool, &'static str, IsIt); N]) -> Vec<(&'static str, IsIt)> {
    settings.into_iter().filter(|(is_set, ..)| *is_set).map(|(_, what, is_it)| (what, is_it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn unenforced(text: &str) -> Vec<String> {
        let mut objects = Objects::default();
        objects.insert_all(manifest::from_text("cluster.yaml", text).unwrap());
        let cluster = objects.build().unwrap();
        let found = objects.unenforced(&cluster);
        found.iter().map(|one| format!("{} {}", one.source, one.message)).collect()
    }

    #[test]
    fn a_plain_service_is_enforced() {
        let plain = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  clusterIP: 10.96.0.10
  ports: [{port: 80}]
";
        assert_eq!(unenforced(plain), [""; 0]);
    }

    #[test]
    fn what_a_service_asks_beyond_its_cluster_ip_is_named_where_it_stands() {
        let text = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  sessionAffinity: ClientIP
  externalIPs: [203.0.113.7]
  ports: [{port: 80, nodePort: 30080}]
";
        let found = unenforced(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].starts_with("cluster.yaml:5:9 Service demo/web: this type is not enforced yet"),
            "{found:?}"
        );
        assert!(
            found.iter().any(|one| one.contains("cluster.yaml:7:20") && one.contains("affinity")),
            "{found:?}"
        );
        assert!(
            found.iter().any(|one| one.contains("cluster.yaml:8:17") && one.contains("externalIPs")),
            "{found:?}"
        );
    }

    #[test]
    fn settings_that_nothing_acts_on_are_refused() {
        let text = "\
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {name: cluster}
spec:
  podCIDRs: [10.244.0.0/16]
  masqueradeAll: true
";
        let found = unenforced(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("cluster.yaml:6:18"), "{found:?}");
        assert_eq!(unenforced(&text.replace("true", "false")), [""; 0]);
    }
}
