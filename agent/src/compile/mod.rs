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

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use weir_common::state::inside;

use crate::{
    cluster::{Cluster, Name, Namespace, Node, Pod},
    datapath::{Datapath, Direction, Endpoint, IdentityId, RuleId, RuleOrigin, RuleSet, RuleSetId, Target},
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
    /// The addresses of services that identities were given to.
    services_identified: SharedMap<IpNet, IdentityId>,
    last: Option<(Cluster, Datapath)>,
    pods: Option<KnownPods>,
    peers: Option<KnownPeers>,
}

/// Pods by group, and what they were found from.
#[derive(Clone, Debug)]
struct KnownPods {
    pods: SharedMap<Name, Arc<Pod>>,
    namespaces: SharedMap<String, Arc<Namespace>>,
    groups: Arc<groups::Groups>,
}

/// Identities, and what they were found from besides pods.
#[derive(Clone, Debug)]
struct KnownPeers {
    nodes: SharedMap<String, Arc<Node>>,
    services: SharedMap<IpNet, IdentityId>,
    used: HashSet<atoms::AtomId>,
    identities: Arc<identity::Identities>,
}

impl Compiler {
    /// For a node, with no number given out.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// For a node whose rules have these numbers.
    pub fn with_rules(node: &str, rules: &SharedMap<RuleId, RuleOrigin>) -> Self {
        let mut compiler = Self::new(node);
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
        self.services.update(cluster, &self.node, unhealthy, &mut self.numbers.services);
        let services = &self.services.services;
        let mut datapath = match &last {
            Some((before, datapath)) if has_same_hosts(before, cluster) => datapath.clone(),
            _ => self.hosts(cluster),
        };
        datapath.frontends = services.frontends.clone();
        datapath.health_checks.clone_from(&services.health_checks);
        datapath.probes.clone_from(&services.probes);
        let is_same = last.as_ref().is_some_and(|(before, _)| {
            has_same_policy(before, cluster) && self.services_identified.is_same(&services.identities)
        });
        if !is_same {
            let built = last.as_ref().map(|(_, datapath)| &datapath.rule_sets);
            self.judge(cluster, built, &mut datapath)?;
            self.services_identified = self.services.services.identities.clone();
        }
        self.last = Some((cluster.clone(), datapath.clone()));
        Ok(datapath)
    }

    /// Frees the numbers that only `before` uses, which is no longer in force: its successor, compiled last by
    /// this compiler, is.
    pub fn settle(&mut self, before: &Self) {
        let gone = self.services.gone_since(&before.services);
        self.numbers.services.free(gone);
        let Some((_, datapath)) = &self.last else { return };
        let is_same = before.last.as_ref().is_some_and(|(_, before)| {
            before.rule_sets.is_same(&datapath.rule_sets) && before.identities.is_same(&datapath.identities)
        });
        if !is_same {
            self.numbers.retain_policy(datapath);
        }
    }

    /// What only pods and nodes have a say in.
    fn hosts(&self, cluster: &Cluster) -> Datapath {
        let node = cluster.nodes.get(&self.node);
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

    /// Policy: endpoints with their rule sets, and identities.
    ///
    /// `built` are the rule sets of the time before.
    fn judge(
        &mut self,
        cluster: &Cluster,
        built: Option<&SharedMap<RuleSetId, Arc<RuleSet>>>,
        datapath: &mut Datapath,
    ) -> Result<(), CompileError> {
        let node = self.node.as_str();
        let same_pods = self.pods.as_ref().filter(|known| {
            known.pods.is_same(&cluster.pods) && known.namespaces.is_same(&cluster.namespaces)
        });
        let groups = match same_pods {
            Some(known) => Arc::clone(&known.groups),
            None => Arc::new(groups::Groups::new(cluster)),
        };
        let is_known = same_pods.is_some();
        self.pods = Some(KnownPods {
            pods: cluster.pods.clone(),
            namespaces: cluster.namespaces.clone(),
            groups: Arc::clone(&groups),
        });
        let rules = rules::Rules::new(cluster, node, &groups, &mut self.numbers)?;
        let used = rules.atoms();
        let services = &self.services.services.identities;
        let same_peers = self.peers.as_ref().filter(|peers| {
            is_known
                && peers.nodes.is_same(&cluster.nodes)
                && peers.services.is_same(services)
                && peers.used == used
        });
        let is_same_peers = same_peers.is_some();
        let identities = match same_peers {
            Some(peers) => Arc::clone(&peers.identities),
            None => {
                let new = identity::Identities::new(cluster, &groups, services, &used, &mut self.numbers);
                Arc::new(new)
            }
        };
        self.peers = Some(KnownPeers {
            nodes: cluster.nodes.clone(),
            services: services.clone(),
            used,
            identities: Arc::clone(&identities),
        });
        // Rule sets that judge the same identities by the same lines, which their numbers stand for.
        let known = built.filter(|_| is_same_peers);
        let mut builder = rule_set::Builder::new(&identities);
        let rule_sets = rules.rule_sets.iter().map(|(id, rules::Chain { lines, next, group })| {
            if let Some(rule_set) = known.and_then(|known| known.get(id)) {
                return Ok((*id, Arc::clone(rule_set)));
            }
            let mut rule_set = builder.build(lines).map_err(|error| CompileError::TooManyPorts {
                pod: groups.pod_of(*group).to_string(),
                protocol: error.protocol,
                intervals: error.intervals,
                limit: error.limit,
                policies: rules.policies_of(lines),
            })?;
            rule_set.next = *next;
            Ok((*id, Arc::new(rule_set)))
        });
        datapath.rule_sets = rule_sets.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
        let local = groups.pods.iter().filter(|(pod, _)| pod.node.as_deref() == Some(node));
        let endpoints = local.flat_map(|(pod, group)| {
            let rule_set = |direction| rules.by_group.get(&(*group, direction)).copied();
            let endpoint = Endpoint {
                pod: pod.name.clone(),
                ingress: rule_set(Direction::Ingress),
                egress: rule_set(Direction::Egress),
            };
            pod.addresses.iter().map(move |address| (*address, endpoint.clone()))
        });
        datapath.endpoints = endpoints.collect();
        datapath.rules = rules.origins.into_iter().collect();
        datapath.identities = identities.by_prefix.clone();
        Ok(())
    }
}

fn has_same_hosts(before: &Cluster, after: &Cluster) -> bool {
    before.pods.is_same(&after.pods) && before.nodes.is_same(&after.nodes) && before.config == after.config
}

/// Whether two clusters are the same to policy, but for the addresses of services.
fn has_same_policy(before: &Cluster, after: &Cluster) -> bool {
    has_same_hosts(before, after)
        && before.namespaces.is_same(&after.namespaces)
        && before.policies.is_same(&after.policies)
        && before.cluster_policies.is_same(&after.cluster_policies)
}

/// The addresses that belong to the cluster, and whose they are to `node`: bits of
/// [`weir_common::state::inside`]. The kernel takes the longest prefix, so that a node's address in a block
/// of pods has to say both.
fn inside(cluster: &Cluster, node: &str, blocks: &[IpNet]) -> BTreeMap<IpNet, u32> {
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
