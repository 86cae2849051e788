//! What policies make of the pods of one node.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    CompileError, Numbers,
    groups::Groups,
    identity::Identities,
    rule_set::Builder,
    rules::{Chain, Rules},
};
use crate::{
    cluster::Cluster,
    datapath::{Direction, Endpoint, IdentityId, RuleSet, RuleSetId},
    shared_map::SharedMap,
};

/// What policies make of the pods of one node. A change of policies visits the groups of pods that those select which
/// have changed; a change of pods, of namespaces, or of what tells peers apart visits all. A copy costs next to nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Compiled {
    /// Endpoints by address.
    pub(super) endpoints: SharedMap<IpAddr, Endpoint>,
    /// Whom peers are.
    pub(super) identities: Arc<Identities>,
    /// The rule sets that endpoints name.
    pub(super) rule_sets: SharedMap<RuleSetId, Arc<RuleSet>>,
    /// The rule sets before identities are known, and what their rules come from.
    pub(super) rules: Rules,
    groups: Arc<Groups>,
    /// What it was compiled from.
    cluster: Cluster,
    services: SharedMap<IpNet, IdentityId>,
}

impl Compiled {
    /// Follows a change of the cluster. `services` are the addresses of services that have an identity.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        node: &str,
        services: &SharedMap<IpNet, IdentityId>,
        numbers: &mut Numbers,
    ) -> Result<(), CompileError> {
        let before = self.clone();
        let is_same_pods = before.cluster.pods.is_same(&cluster.pods)
            && before.cluster.namespaces.is_same(&cluster.namespaces);
        let touched = if is_same_pods {
            self.groups.touched(&before.cluster, cluster)
        } else {
            self.groups = Arc::new(Groups::new(cluster, node));
            self.rules = Rules::default();
            self.groups.local.clone()
        };
        self.rules.update(cluster, &self.groups, &touched, numbers)?;

        let is_same_peers = is_same_pods
            && before.cluster.nodes.is_same(&cluster.nodes)
            && before.services.is_same(services)
            && before.rules.atoms.are_of_same(&self.rules.atoms);
        if is_same_peers {
            self.build(&before.rules.rule_sets)?;
        } else {
            let atoms = self.rules.atoms.iter().copied().collect();
            let identities = Identities::new(cluster, &self.groups, services, &atoms, numbers);
            self.identities = Arc::new(identities);
            self.rule_sets.clear();
            self.build(&SharedMap::default())?;
        }
        if !is_same_pods || !before.rules.by_group.is_same(&self.rules.by_group) {
            self.endpoints = self.endpoints();
        }
        self.cluster = cluster.clone();
        self.services = services.clone();
        Ok(())
    }

    /// Frees the numbers that only `before` uses, when nothing was compiled between the two.
    pub(super) fn settle(&self, before: &Self, numbers: &mut Numbers) {
        numbers.rule_sets.free(gone(&before.rules.rule_sets, &self.rules.rule_sets));
        numbers.rules.free(gone(&before.rules.origins, &self.rules.origins));
        if !Arc::ptr_eq(&before.identities, &self.identities) {
            numbers.retain_peers(&self.identities.by_prefix, &self.rules.atoms.iter().copied().collect());
        }
    }

    /// Builds the rule sets that are new since there were those of `before`, whose numbers stand for their lines.
    fn build(&mut self, before: &SharedMap<RuleSetId, Arc<Chain>>) -> Result<(), CompileError> {
        let mut builder = Builder::new(&self.identities);
        for change in before.differences_by(&self.rules.rule_sets, |_, _| true) {
            let Some(chain) = change.after else {
                self.rule_sets.remove(change.key);
                continue;
            };
            let mut rule_set = builder.build(&chain.lines).map_err(|error| CompileError::TooManyPorts {
                pod: self.groups.pod_of(chain.group).to_string(),
                protocol: error.protocol,
                intervals: error.intervals,
                limit: error.limit,
                policies: self.rules.policies_of(&chain.lines),
            })?;
            rule_set.next = chain.next;
            self.rule_sets.insert(*change.key, Arc::new(rule_set));
        }
        Ok(())
    }

    fn endpoints(&self) -> SharedMap<IpAddr, Endpoint> {
        let endpoints = self.groups.local_pods.iter().flat_map(|(pod, group)| {
            let rule_set = |direction| self.rules.by_group.get(&(*group, direction)).copied();
            let endpoint = Endpoint {
                pod: pod.name.clone(),
                ingress: rule_set(Direction::Ingress),
                egress: rule_set(Direction::Egress),
            };
            pod.addresses.iter().map(move |address| (*address, endpoint.clone()))
        });
        endpoints.collect()
    }
}

/// The keys that are only in the first map.
fn gone<K: Ord + Clone, V>(before: &SharedMap<K, V>, after: &SharedMap<K, V>) -> Vec<K> {
    let changes = before.differences_by(after, |_, _| true).into_iter();
    changes.filter(|change| change.after.is_none()).map(|change| change.key.clone()).collect()
}
