//! From a cluster to the desired datapath of one node: a pure function.
//!
//! Pods are put into groups that policies cannot tell apart. The policies that select a group of
//! this node become the lines of a rule set. What the lines distinguish among peers are
//! atoms; the atoms that an address matches are its identity. With the identities
//! known, lines become bit vectors.

mod atoms;
mod groups;
mod identity;
mod identity_numbers;
mod items;
mod lines;
mod numbers;
mod rule_set;
mod rules;
pub mod services;

pub use numbers::{Interner, Numbers, RuleKey, ServicePortKey};

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_common::state::inside;

use crate::{
    cluster::Cluster,
    datapath::{Datapath, Direction, Endpoint, Target},
};

/// Why a cluster cannot be compiled. Nothing of it is in force then.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A pod has more rules than a rule set holds.
    #[error(
        "pod {pod}: its policies make {rules} {direction} rules, {limit} are possible; policies: {policies}"
    )]
    TooManyRules {
        /// One of the pods.
        pod: String,
        /// Direction.
        direction: Direction,
        /// Number of rules.
        rules: usize,
        /// Largest possible number.
        limit: usize,
        /// The policies that select the pod.
        policies: String,
    },
    /// The rules of a pod cut the ports into more intervals than a rule set holds.
    #[error(
        "pod {pod}: its policies cut the {protocol} ports into {intervals} intervals, {limit} are possible; policies: {policies}"
    )]
    TooManyPorts {
        /// One of the pods.
        pod: String,
        /// Protocol.
        protocol: &'static str,
        /// Number of intervals.
        intervals: usize,
        /// Largest possible number.
        limit: usize,
        /// The policies that select the pod.
        policies: String,
    },
}

/// Backends that fail their checks.
pub type Unhealthy = BTreeSet<Target>;

/// Compiles what `node` is to enforce. What has a number in `numbers` keeps it.
pub fn compile(cluster: &Cluster, node: &str, numbers: &mut Numbers) -> Result<Datapath, CompileError> {
    compile_with(cluster, node, &Unhealthy::new(), numbers)
}

/// The same, where some backends are known to fail: no new connection is given to them as long as their service has
/// others.
pub fn compile_with(
    cluster: &Cluster,
    node: &str,
    unhealthy: &Unhealthy,
    numbers: &mut Numbers,
) -> Result<Datapath, CompileError> {
    let groups = groups::Groups::new(cluster);
    let rules = rules::Rules::new(cluster, node, &groups, numbers)?;
    let used = rules.atoms();
    let services = services::compile(cluster, node, unhealthy, &mut numbers.services);
    let identities = identity::Identities::new(cluster, &groups, &services.identities, &used, numbers);
    let mut rule_sets = rule_set::Builder::new(&identities);

    let mut datapath = Datapath {
        node: node.to_owned(),
        node_addresses: cluster.nodes.get(node).map(|node| node.addresses.clone()).unwrap_or_default(),
        pod_cidrs: services::pod_cidrs(cluster),
        masquerade: cluster.config.masquerade,
        inside: inside(cluster, node),
        rules: rules.origins.clone(),
        frontends: services.frontends,
        health_checks: services.health_checks,
        probes: services.probes,
        ..Datapath::default()
    };
    for (id, (lines, group)) in &rules.rule_sets {
        let rule_set = rule_sets.build(lines).map_err(|error| CompileError::TooManyPorts {
            pod: groups.pod_of(*group).to_string(),
            protocol: error.protocol,
            intervals: error.intervals,
            limit: error.limit,
            policies: rules.policies_of(lines),
        })?;
        datapath.rule_sets.insert(*id, rule_set);
    }
    for (name, pod, group) in groups.pods.iter().filter(|(_, pod, _)| pod.node.as_deref() == Some(node)) {
        let rule_set = |direction| rules.by_group.get(&(*group, direction)).copied();
        let endpoint = Endpoint {
            pod: (*name).clone(),
            ingress: rule_set(Direction::Ingress),
            egress: rule_set(Direction::Egress),
        };
        datapath.endpoints.extend(pod.addresses.iter().map(|address| (*address, endpoint.clone())));
    }
    datapath.identities = identities.by_prefix;
    Ok(datapath)
}

/// The addresses that belong to the cluster, and whose they are to `node`: bits of
/// [`weir_common::state::inside`]. The kernel takes the longest prefix, so that a node's address in a block
/// of pods has to say both.
fn inside(cluster: &Cluster, node: &str) -> BTreeMap<IpNet, u32> {
    let blocks = services::pod_cidrs(cluster);
    let mut inside: BTreeMap<_, _> = blocks.iter().map(|block| (block.trunc(), inside::POD)).collect();
    for (name, other) in &cluster.nodes {
        let own = if name == node { inside::OWN } else { 0 };
        for address in &other.addresses {
            let pod = if blocks.iter().any(|block| block.contains(address)) { inside::POD } else { 0 };
            *inside.entry(IpNet::from(*address)).or_default() |= inside::NODE | own | pod;
        }
    }
    inside
}
