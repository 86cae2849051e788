//! From single objects to a cluster in which they do not contradict each other.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Cluster, Config, NAMESPACE_NAME_LABEL, Namespace, Node, Objects, Pod, Protocol, Service};
use crate::{
    manifest::{Diagnostics, Kind, Object, Value},
    shared_map::SharedMap,
};

/// A cluster with what it takes to change a few of its objects without visiting the others.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The cluster.
    pub cluster: Cluster,
    objects: Objects,
    claims: SharedMap<Claim, Arc<Object>>,
}

impl Built {
    /// The cluster that `objects` make up.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn new(objects: &Objects) -> Result<Self, Diagnostics> {
        let mut cluster = Cluster { skipped: objects.skipped().clone(), ..Cluster::default() };
        for object in objects.iter() {
            cluster.add(object);
        }
        // Whoever comes later in the files is in the wrong.
        let mut ordered: Vec<_> = objects.iter().collect();
        ordered.sort_by_key(|object| (object.key.kind, &object.text.source));
        let mut check = Check { cluster: &cluster, claims: BTreeMap::new(), found: Diagnostics::default() };
        ordered.into_iter().for_each(|object| check.object(object));
        let Check { claims, mut found, .. } = check;
        if !found.is_empty() {
            found.sort();
            return Err(found);
        }
        Ok(Self { cluster, objects: objects.clone(), claims: claims.into_iter().collect() })
    }

    /// The cluster that `objects` make up, found by visiting only those that are not the same as before.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn changed(&self, objects: &Objects) -> Result<Self, Diagnostics> {
        let differences: Vec<_> = self.objects.differences(objects).collect();
        let is_setting = |object: &&Arc<Object>| object.key.kind == Kind::WeirConfiguration;
        // Settings change what is said of all other objects.
        if differences.iter().any(|(before, after)| before.iter().chain(after).any(is_setting)) {
            return Self::new(objects);
        }
        let mut cluster = self.cluster.clone();
        cluster.skipped.clone_from(objects.skipped());
        differences
            .iter()
            .filter_map(|(before, _)| *before)
            .for_each(|object| cluster.remove(object, objects));
        differences.iter().filter_map(|(_, after)| *after).for_each(|object| cluster.add(object));

        let mut claims = self.claims.clone();
        for object in differences.iter().filter_map(|(before, _)| *before) {
            claims_of(object).iter().for_each(|claim| drop(claims.remove(claim)));
        }
        let mut check = Check { cluster: &cluster, claims, found: Diagnostics::default() };
        differences.iter().filter_map(|(_, after)| *after).for_each(|object| check.object(object));
        let Check { claims, found, .. } = check;
        if !found.is_empty() {
            // Who is in the wrong is for the order of all to say.
            return Self::new(objects);
        }
        Ok(Self { cluster, objects: objects.clone(), claims })
    }
}

impl Cluster {
    fn add(&mut self, object: &Object) {
        if object.key.kind.is_namespaced() {
            let name = &object.key.name.namespace;
            if !self.namespaces.contains_key(name) {
                self.namespaces.insert(name.clone(), implicit(name));
            }
        }
        let name = object.key.name.clone();
        match object.value.clone() {
            Value::Config(config) => self.config = *config,
            Value::Node(node) => drop(self.nodes.insert(name.name, node)),
            Value::Namespace(namespace) => drop(self.namespaces.insert(name.name, namespace)),
            Value::Pod(pod) => drop(self.pods.insert(name, pod)),
            Value::Service(service) => drop(self.services.insert(name, service)),
            Value::EndpointSlice(slice) => drop(self.slices.insert(name, slice)),
            Value::NetworkPolicy(policy) => drop(self.policies.insert(name, policy)),
            Value::ClusterNetworkPolicy(policy) => drop(self.cluster_policies.insert(name.name, policy)),
        }
    }

    /// Removes what `object` said; `left` are the objects that stay.
    fn remove(&mut self, object: &Object, left: &Objects) {
        let name = &object.key.name;
        match object.key.kind {
            Kind::WeirConfiguration => self.config = Config::default(),
            Kind::Node => drop(self.nodes.remove(&name.name)),
            Kind::Namespace => drop(self.namespaces.remove(&name.name)),
            Kind::Pod => drop(self.pods.remove(name)),
            Kind::Service => drop(self.services.remove(name)),
            Kind::EndpointSlice => drop(self.slices.remove(name)),
            Kind::NetworkPolicy => drop(self.policies.remove(name)),
            Kind::ClusterNetworkPolicy => drop(self.cluster_policies.remove(&name.name)),
        }
        let namespace = if object.key.kind == Kind::Namespace { &name.name } else { &name.namespace };
        let is_mentioned = left.inside(namespace).next().is_some();
        match self.namespaces.get(namespace) {
            None if is_mentioned => drop(self.namespaces.insert(namespace.clone(), implicit(namespace))),
            Some(found) if found.source.is_none() && !is_mentioned => drop(self.namespaces.remove(namespace)),
            _ => {}
        }
    }
}

/// A namespace that is only mentioned.
fn implicit(name: &Arc<str>) -> Arc<Namespace> {
    let labels = BTreeMap::from([(NAMESPACE_NAME_LABEL.to_owned(), name.as_ref().to_owned())]);
    Arc::new(Namespace { source: None, name: Arc::clone(name), labels })
}

/// Everything that the object may claim.
fn claims_of(object: &Object) -> Vec<Claim> {
    let hosts = |addresses: &[IpAddr]| addresses.iter().copied().map(Claim::Host).collect();
    match &object.value {
        Value::Config(_) => vec![Claim::Configuration],
        Value::Node(node) => hosts(&node.addresses),
        Value::Pod(pod) if pod.is_networked() => hosts(&pod.addresses),
        Value::Service(service) => {
            let outside = service.external_ips.iter().chain(&service.load_balancer_ips);
            let addresses = || service.cluster_ips.iter().chain(outside.clone()).copied();
            let mut claims: Vec<_> = service.cluster_ips.iter().copied().map(Claim::ClusterIp).collect();
            if service.foreign {
                return claims;
            }
            for port in &service.ports {
                claims.extend(addresses().map(|address| Claim::Frontend(address, port.protocol, port.port)));
                claims.extend(port.node_port.map(|number| Claim::NodePort(port.protocol, number)));
            }
            claims.extend(service.health_check_port.map(|port| Claim::NodePort(Protocol::Tcp, port)));
            claims
        }
        _ => Vec::new(),
    }
}

/// What only one object may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// There is one WeirConfiguration.
    Configuration,
    /// An address of a node or of a pod.
    Host(IpAddr),
    /// A ClusterIP.
    ClusterIp(IpAddr),
    /// What a service answers on.
    Frontend(IpAddr, Protocol, u16),
    /// A port of every node.
    NodePort(Protocol, u16),
}

struct Check<'c, C> {
    cluster: &'c Cluster,
    claims: C,
    found: Diagnostics,
}

/// Who has what.
trait Claims {
    /// Whoever claimed it first, which may be `object` now.
    fn first(&mut self, claim: Claim, object: &Arc<Object>) -> Arc<Object>;
}

impl Claims for BTreeMap<Claim, Arc<Object>> {
    fn first(&mut self, claim: Claim, object: &Arc<Object>) -> Arc<Object> {
        Arc::clone(self.entry(claim).or_insert_with(|| Arc::clone(object)))
    }
}

impl Claims for SharedMap<Claim, Arc<Object>> {
    fn first(&mut self, claim: Claim, object: &Arc<Object>) -> Arc<Object> {
        if let Some(first) = self.get(&claim) {
            return Arc::clone(first);
        }
        self.insert(claim, Arc::clone(object));
        Arc::clone(object)
    }
}

impl<C: Claims> Check<'_, C> {
    fn object(&mut self, object: &Arc<Object>) {
        match &object.value {
            Value::Config(_) => {
                self.claim(object, Claim::Configuration, |_, _| false);
            }
            Value::Node(node) => self.node(object, node),
            Value::Pod(pod) => self.pod(object, pod),
            Value::Service(service) => self.service(object, service),
            Value::Namespace(_)
            | Value::EndpointSlice(_)
            | Value::NetworkPolicy(_)
            | Value::ClusterNetworkPolicy(_) => {}
        }
    }

    fn node(&mut self, object: &Arc<Object>, node: &Node) {
        for address in &node.addresses {
            self.claim(object, Claim::Host(*address), is_address(*address));
        }
    }

    fn pod(&mut self, object: &Arc<Object>, pod: &Pod) {
        if pod.is_networked() {
            for address in &pod.addresses {
                self.claim(object, Claim::Host(*address), is_address(*address));
            }
        }
    }

    fn service(&mut self, object: &Arc<Object>, service: &Service) {
        let config = &self.cluster.config;
        let outside =
            |ranges: &[IpNet], address: &IpAddr| !ranges.iter().any(|range| range.contains(address));
        let mut addresses = Vec::new();
        for address in &service.cluster_ips {
            if !config.service_cidrs.is_empty() && outside(&config.service_cidrs, address) {
                self.error(
                    object,
                    is_address(*address),
                    format!("clusterIP {address} is not of the serviceCIDRs"),
                );
            }
            if self.claim(object, Claim::ClusterIp(*address), is_address(*address)) {
                addresses.push(*address);
            }
        }
        for address in service.external_ips.iter().chain(&service.load_balancer_ips) {
            if config.external_ranges.as_deref().is_some_and(|ranges| outside(ranges, address)) {
                self.error(
                    object,
                    is_address(*address),
                    format!("address {address} is not of the externalRanges"),
                );
            }
            addresses.push(*address);
        }
        // What another proxy serves takes nothing from us.
        if service.foreign {
            return;
        }
        for port in &service.ports {
            for address in &addresses {
                let frontend = Claim::Frontend(*address, port.protocol, port.port);
                self.claim(object, frontend, is_address(*address));
            }
            if let Some(node_port) = port.node_port {
                self.claim(
                    object,
                    Claim::NodePort(port.protocol, node_port),
                    is_number("nodePort", node_port),
                );
            }
        }
        if let Some(port) = service.health_check_port {
            let claim = Claim::NodePort(Protocol::Tcp, port);
            self.claim(object, claim, is_number("healthCheckNodePort", port));
        }
    }

    /// Notes that the object has it, or says that another one had it first: then it returns false.
    fn claim(&mut self, object: &Arc<Object>, claim: Claim, is_it: impl Fn(&str, &str) -> bool) -> bool {
        let first = self.claims.first(claim, object);
        if first.key == object.key {
            return true;
        }
        let message = match claim {
            Claim::Configuration => format!("there is already {} ({})", first.key, first.text.source),
            Claim::Host(address) => used(&format_args!("address {address}"), &first),
            Claim::ClusterIp(address) => used(&format_args!("clusterIP {address}"), &first),
            Claim::Frontend(address, protocol, port) => {
                used(&format_args!("address {address}, port {port}/{protocol}"), &first)
            }
            Claim::NodePort(protocol, port) => used(&format_args!("node port {port}/{protocol}"), &first),
        };
        self.error(object, is_it, message);
        false
    }

    fn error(&mut self, object: &Object, is_it: impl Fn(&str, &str) -> bool, message: impl Display) {
        self.found.push(object.text.error(is_it, &format!("{}: {message}", object.key)));
    }
}

fn used(what: &dyn Display, first: &Object) -> String {
    format!("{what} is already used by {} ({})", first.key, first.text.source)
}

/// Recognizes an address however it is written.
fn is_address(address: IpAddr) -> impl Fn(&str, &str) -> bool {
    move |_, text| text.parse() == Ok(address)
}

fn is_number(field: &'static str, number: u16) -> impl Fn(&str, &str) -> bool {
    move |name, text| name == field && text.parse() == Ok(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest;

    /// Objects that come and go: some contradict each other, some mention a namespace, one is a setting.
    fn universe() -> Vec<Arc<Object>> {
        let mut texts = vec![
            "apiVersion: weir.dev/v1alpha1\nkind: WeirConfiguration\nmetadata: {name: default}\n\
             spec: {serviceCIDRs: [10.96.0.0/16]}\n"
                .to_owned(),
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {team: red}}\n".to_owned(),
            "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n\
             status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n"
                .to_owned(),
        ];
        for (namespace, name, address) in [
            ("a", "one", "10.0.0.1"),
            ("a", "two", "10.0.0.2"),
            ("b", "three", "10.0.0.2"),
            ("b", "one", "10.0.0.3"),
        ] {
            texts.push(format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{nodeName: n, containers: [{{name: c}}]}}\nstatus: {{podIP: {address}}}\n"
            ));
        }
        for (namespace, address, port) in
            [("a", "10.96.0.1", 80), ("b", "10.96.0.1", 81), ("c", "10.97.0.1", 80), ("c", "10.96.0.2", 80)]
        {
            texts.push(format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: {namespace}}}\n\
                 spec: {{clusterIP: {address}, ports: [{{port: {port}}}]}}\n"
            ));
        }
        let objects = texts
            .iter()
            .enumerate()
            .flat_map(|(number, text)| manifest::from_text(&format!("{number}.yaml"), text).unwrap().objects);
        objects.map(Arc::new).collect()
    }

    proptest! {
        #[test]
        fn what_follows_changes_is_what_is_built_anew(
            changes in proptest::collection::vec((0_usize..64, any::<bool>()), 1..60),
        ) {
            let universe = universe();
            let (mut built, mut objects) = (Built::default(), Objects::default());
            for (number, comes) in changes {
                let object = &universe[number % universe.len()];
                if comes {
                    objects.insert(Arc::clone(object));
                } else {
                    objects.remove_one(object.key());
                }
                match (built.changed(&objects), Built::new(&objects)) {
                    (Ok(changed), Ok(anew)) => {
                        prop_assert_eq!(&changed.cluster, &anew.cluster);
                        prop_assert_eq!(&changed.claims, &anew.claims);
                        built = changed;
                    }
                    (Err(changed), Err(anew)) => prop_assert_eq!(changed.to_string(), anew.to_string()),
                    (changed, anew) => panic!("{changed:?} and {anew:?}"),
                }
            }
        }
    }
}
