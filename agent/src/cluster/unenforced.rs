//! What the manifests may say and the kernel programs do not do yet.
//!
//! Compiling and modelling know all of it. An agent that enforces refuses it, so that nothing is accepted in
//! silence and left undone. The list shrinks as the programs grow.

use super::{Cluster, Objects, Service, ServiceKind};
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
        Kind::Service => {
            cluster.services.get(&key.name).map(|service| of_service(service)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn of_service(service: &Service) -> Vec<(&'static str, IsIt)> {
    if service.foreign || service.kind == ServiceKind::ExternalName || service.cluster_ips.is_empty() {
        return Vec::new();
    }
    let settings: [(bool, _, IsIt); 2] = [
        (service.affinity.is_some(), "session affinity is", |name, text| {
            name == "sessionAffinity" && text == "ClientIP"
        }),
        (service.health_check_port.is_some(), "a healthCheckNodePort is", |name, _| {
            name == "healthCheckNodePort"
        }),
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

    const EVERYTHING: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [203.0.113.0/24]
  externalIPs: [203.0.113.7]
  ports: [{port: 80, nodePort: 30080, protocol: SCTP}]
";

    #[test]
    fn a_service_for_the_outside_is_enforced() {
        assert_eq!(unenforced(EVERYTHING), [""; 0]);
    }

    #[test]
    fn what_the_programs_do_not_do_is_named_where_it_stands() {
        let affinity = EVERYTHING.replace("  type:", "  sessionAffinity: ClientIP\n  type:");
        let found = unenforced(&affinity);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("cluster.yaml:5:20 Service demo/web: session affinity is"), "{found:?}");

        let health = EVERYTHING.replace("  type:", "  healthCheckNodePort: 30081\n  type:");
        let found = unenforced(&health);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("cluster.yaml:5:24"), "{found:?}");
    }

    #[test]
    fn every_setting_of_the_configuration_is_enforced() {
        let text = "\
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {name: cluster}
spec:
  podCIDRs: [10.244.0.0/16]
  nodePortAddresses: [192.0.2.0/24]
  masqueradeAll: true
";
        assert_eq!(unenforced(text), [""; 0]);
    }
}
