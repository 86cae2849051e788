//! The network of a run: nodes, a pool of places for pods, and a router that is the rest of the world.
//!
//! A place is a network namespace with the addresses of one pod on one node. It stays for the whole run; which pod
//! lives there is for the manifests to say, and whether anything leads there for the routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use weir::cluster::{Cluster, Name, Pod};

use crate::live::{Plan, netns, network, plan};

/// Namespaces, and what is in them now.
pub(super) struct World {
    plan: Plan,
    /// Numbers in `plan.pods` by node and addresses.
    places: BTreeMap<(usize, Vec<IpAddr>), usize>,
    /// Routes to pods by namespace and address, as `ip` takes them.
    routes: BTreeMap<(String, IpAddr), String>,
    /// Namespaces by the addresses that are in use now.
    owners: BTreeMap<IpAddr, String>,
    outside: BTreeSet<IpAddr>,
}

impl World {
    /// Builds nodes of these names, without addresses, and the router between them.
    pub(super) fn open<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self> {
        let node = |(number, name): (usize, &str)| plan::Node {
            name: name.to_owned(),
            netns: format!("weir-node-{name}"),
            port: format!("node{number}"),
            addresses: Vec::new(),
            pod_routes: Vec::new(),
        };
        let nodes = names.enumerate().map(node).collect();
        let plan = Plan { nodes, ..Plan::default() };
        network::build(&plan)?;
        let router = [
            "address add 169.254.1.1/32 dev br0",
            "address add fe80::1/64 dev br0 nodad",
            // What nobody has is silent.
            "route add blackhole 0.0.0.0/0",
            "route add blackhole ::/0",
        ];
        netns::ip(Some(plan::UNDERLAY), &router.map(str::to_owned))?;
        let (places, routes, owners) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { plan, places, routes, owners, outside: BTreeSet::new() })
    }

    /// Names and namespaces of the nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.plan.nodes.iter().map(|node| (node.name.as_str(), node.netns.as_str()))
    }

    /// Gives the nodes of `cluster` their addresses, and its pods their places and routes; takes the routes of
    /// all others away.
    pub(super) fn arrange(&mut self, cluster: &Cluster) -> Result<()> {
        self.owners.clear();
        for node in cluster.nodes.values() {
            let number = self.node(&node.name)?;
            for &address in &node.addresses {
                self.add_node_address(number, address)?;
                self.owners.insert(address, self.plan.nodes[number].netns.clone());
            }
        }
        let mut routes = BTreeMap::new();
        for pod in cluster.pods.values().filter(|pod| pod.is_networked() && !pod.addresses.is_empty()) {
            let place = self.place(pod)?;
            let place = &self.plan.pods[place];
            for &address in &place.addresses {
                self.owners.insert(address, place.netns.clone());
                routes.extend(self.routes_to(place, address));
            }
        }
        self.reroute(routes)
    }

    /// The namespace in which an address is: of a pod, a node, or the rest of the world, which has every address
    /// that was never a pod's.
    pub(super) fn netns(&mut self, address: IpAddr) -> Result<Option<String>> {
        if let Some(netns) = self.owners.get(&address) {
            return Ok(Some(netns.clone()));
        }
        if self.places.keys().any(|(_, addresses)| addresses.contains(&address)) {
            return Ok(None);
        }
        if self.outside.insert(address) {
            netns::ip(Some(plan::UNDERLAY), &[add_address(address, "lo")])?;
        }
        Ok(Some(plan::UNDERLAY.to_owned()))
    }

    fn node(&self, name: &str) -> Result<usize> {
        let found = self.plan.nodes.iter().position(|node| node.name == name);
        found.with_context(|| format!("the run began without a node {name}"))
    }

    fn add_node_address(&mut self, number: usize, address: IpAddr) -> Result<()> {
        let node = &mut self.plan.nodes[number];
        if node.addresses.contains(&address) {
            return Ok(());
        }
        node.addresses.push(address);
        let mut lines = vec![add_address(address, "uplink")];
        let gateway = if address.is_ipv6() { "fe80::1" } else { "169.254.1.1" };
        if address.is_ipv4() {
            lines.push(format!("route replace {gateway} dev uplink scope link src {address}"));
        }
        lines.push(format!("route replace default via {gateway} dev uplink src {address}"));
        netns::ip(Some(&node.netns), &lines)?;
        netns::ip(Some(plan::UNDERLAY), &[format!("route add {address} dev br0")])?;
        for other in self.plan.nodes.iter().enumerate().filter(|(other, _)| *other != number) {
            netns::ip(Some(&other.1.netns), &[format!("route add {address} dev uplink")])?;
        }
        Ok(())
    }

    /// The place for a pod, made when there is none.
    fn place(&mut self, pod: &Pod) -> Result<usize> {
        let node = self.node(pod.node.as_deref().context("a pod with addresses is on a node")?)?;
        let key = (node, pod.addresses.clone());
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        let number = self.plan.pods.len();
        let place = plan::Pod {
            name: Name { namespace: "places".into(), name: number.to_string().into() },
            node,
            netns: format!("weir-place-{number}"),
            interface: Some(format!("place{number}")),
            addresses: pod.addresses.clone(),
            ports: BTreeSet::new(),
        };
        netns::ip(None, &[format!("netns add {}", place.netns)])?;
        network::build_pod(&self.plan.nodes[node], &place)?;
        network::bring_up(&self.plan, &place)?;
        self.plan.pods.push(place);
        self.places.insert(key, number);
        Ok(number)
    }

    fn routes_to(&self, place: &plan::Pod, address: IpAddr) -> BTreeMap<(String, IpAddr), String> {
        let own = &self.plan.nodes[place.node];
        let interface = place.interface.as_deref().expect("a place has one");
        let mut routes = BTreeMap::from([(
            (own.netns.clone(), address),
            format!("route add {address} dev {interface} scope link"),
        )]);
        let Some(via) = own.addresses.iter().find(|other| other.is_ipv6() == address.is_ipv6()) else {
            return routes;
        };
        let others = self.plan.nodes.iter().filter(|node| node.name != own.name);
        let others = others.map(|node| (node.netns.as_str(), "uplink"));
        for (netns, device) in others.chain([(plan::UNDERLAY, "br0")]) {
            let route = format!("route add {address} via {via} dev {device} onlink");
            routes.insert((netns.to_owned(), address), route);
        }
        routes
    }

    fn reroute(&mut self, wanted: BTreeMap<(String, IpAddr), String>) -> Result<()> {
        let mut lines = BTreeMap::<&str, Vec<String>>::new();
        for ((netns, address), _) in self.routes.iter().filter(|(key, line)| wanted.get(key) != Some(line)) {
            lines.entry(netns).or_default().push(format!("route delete {address}"));
        }
        for ((netns, _), line) in wanted.iter().filter(|(key, line)| self.routes.get(key) != Some(line)) {
            lines.entry(netns).or_default().push(line.clone());
        }
        for (netns, lines) in lines {
            netns::ip(Some(netns), &lines)?;
        }
        self.routes = wanted;
        Ok(())
    }
}

/// Addresses are unique: none waits for duplicate detection.
fn add_address(address: IpAddr, device: &str) -> String {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {address} dev {device}{nodad}")
}
