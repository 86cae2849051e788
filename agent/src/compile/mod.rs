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
mod policies;
mod rule_set;
mod rules;
pub mod services;
mod tiers;

pub use numbers::{Interner, Numbers, RuleKey, ServicePortKey};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::state::inside;

use crate::{
    cluster::Cluster,
    datapath::{Datapath, Direction, RuleId, RuleOrigin, Target},
    shared_map::SharedMap,
};

/// Why a cluster cannot be compiled. Nothing of it is in force then.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A pod has more rules than its rule sets hold.
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
///
/// # Errors
/// When the cluster is beyond a limit of the datapath.
pub fn compile(cluster: &Cluster, node: &str, numbers: &mut Numbers) -> Result<Datapath, CompileError> {
    compile_with(cluster, node, &Unhealthy::new(), numbers)
}

/// The same, where some backends are known to fail: no new connection is given to them as long as their service has
/// others.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    cluster: &Cluster,
    node: &str,
    unhealthy: &Unhealthy,
    numbers: &mut Numbers,
) -> Result<Datapath, CompileError> {
    let mut compiler = Compiler { numbers: std::mem::take(numbers), ..Compiler::new(node) };
    let datapath = compiler.compile(cluster, unhealthy);
    *numbers = compiler.numbers;
    datapath
}

/// Compiles a cluster for one node again and again. What has not changed is taken from the time before; the
/// result is that of [`compile_with`]. A copy costs next to nothing, so that a change can be tried on one.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    node: String,
    numbers: Numbers,
    services: services::Compiled,
    policies: policies::Compiled,
    last: Option<(Cluster, Datapath)>,
    /// How often it has given out numbers since all that are not in use were freed.
    unsettled: u32,
}

impl Compiler {
    /// For a node, with no number given out.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// For a node whose rules have these numbers.
    pub fn with_rules(node: &str, rules: &SharedMap<RuleId, RuleOrigin>) -> Self {
        let mut compiler = Self { unsettled: 1, ..Self::new(node) };
        compiler.numbers.rules.restore(rules.iter().map(|(rule, origin)| (RuleKey::from(origin), *rule)));
        compiler
    }

    /// The numbers that it has given out.
    pub const fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Compiles what the node is to enforce.
    ///
    /// # Errors
    /// When the cluster is beyond a limit of the datapath. This compiler is of no more use then.
    pub fn compile(&mut self, cluster: &Cluster, unhealthy: &Unhealthy) -> Result<Datapath, CompileError> {
        let last = self.last.take();
        self.unsettled = self.unsettled.saturating_add(1);
        self.services.update(cluster, &self.node, unhealthy, &mut self.numbers.services);
        let services = &self.services.services;
        self.policies.update(cluster, &self.node, &services.identities, &mut self.numbers)?;
        let policies = &self.policies;
        let hosts = match last {
            Some((before, datapath)) if has_same_hosts(&before, cluster) => datapath,
            _ => self.hosts(cluster),
        };
        let datapath = Datapath {
            endpoints: policies.endpoints.clone(),
            identities: policies.identities.by_prefix.clone(),
            rule_sets: policies.rule_sets.clone(),
            rules: policies.rules.origins.clone(),
            frontends: services.frontends.clone(),
            health_checks: services.health_checks.clone(),
            probes: services.probes.clone(),
            ..hosts
        };
        self.last = Some((cluster.clone(), datapath.clone()));
        Ok(datapath)
    }

    /// Frees the numbers that only `before` uses, which is no longer in force: its successor, compiled last by
    /// this compiler, is.
    pub fn settle(&mut self, before: &Self) {
        let gone = self.services.gone_since(&before.services);
        self.numbers.services.free(gone);
        // What differs from the time before is all that can be free, but where there was more than one change.
        if self.unsettled <= 1 {
            self.policies.settle(&before.policies, &mut self.numbers);
        } else if let Some((_, datapath)) = &self.last {
            self.numbers.retain_policy(datapath);
        }
        self.unsettled = 0;
    }

    /// What only pods and nodes have a say in.
    fn hosts(&self, cluster: &Cluster) -> Datapath {
        let node = cluster.nodes.get(&*self.node);
        let pod_cidrs = services::pod_cidrs(cluster);
        Datapath {
            node: self.node.clone(),
            node_addresses: node.map(|node| node.addresses.clone()).unwrap_or_default(),
            masquerade: cluster.config.masquerade,
            reset_gone: !cluster.config.keep_gone,
            inside: Arc::new(inside(cluster, &self.node, &pod_cidrs)),
            pod_cidrs: pod_cidrs.into(),
            ..Datapath::default()
        }
    }
}

fn has_same_hosts(before: &Cluster, after: &Cluster) -> bool {
    before.pods.is_same(&after.pods) && before.nodes.is_same(&after.nodes) && before.config == after.config
}

/// The addresses that belong to the cluster, and whose they are to `node`: bits of
/// [`weir_common::state::inside`]. The kernel takes the longest prefix, so that a node's address in a block
/// of pods has to say both.
fn inside(cluster: &Cluster, node: &str, blocks: &[IpNet]) -> BTreeMap<IpNet, u32> {
    let mut inside: BTreeMap<_, _> = blocks.iter().map(|block| (block.trunc(), inside::POD)).collect();
    for (name, other) in &cluster.nodes {
        let own = if **name == *node { inside::OWN } else { 0 };
        for address in &other.addresses {
            let pod = if blocks.iter().any(|block| block.contains(address)) { inside::POD } else { 0 };
            *inside.entry(IpNet::from(*address)).or_default() |= inside::NODE | own | pod;
        }
    }
    inside
}
