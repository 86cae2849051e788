//! How the agent and its datapath are.

use weir_common::reason::Hook;

use super::{enforcer::Enforcer, engine::Engine, interfaces::Network};
use crate::protocol::{Dropped, Forwarded, Status};

impl<E: Enforcer, N: Network> Engine<E, N> {
    /// For `weir status`.
    pub(super) fn status(&self) -> Status {
        let mut problems = Vec::new();
        let counters = self.enforcer.counters().unwrap_or_else(|error| {
            problems.push(format!("the counters cannot be read: {error}"));
            super::enforcer::Counters::default()
        });
        let maps = self.enforcer.map_usage().unwrap_or_else(|error| {
            problems.push(format!("the maps cannot be read: {error}"));
            Vec::new()
        });
        if let Some(error) = &self.last_error {
            problems.push(format!("the watched manifests are not in force:\n{}", error.trim_end()));
        }
        if let Some(error) = &self.state_error {
            problems.push(format!("a restarted agent would not know this revision: {error}"));
        }
        problems.extend(self.enforcer.damage());
        problems.extend(self.health_problems.iter().cloned());
        let active = self.active.as_ref();
        let waiting = active.map(|active| active.resolution.waiting.clone()).unwrap_or_default();
        problems.extend(waiting.iter().map(|(pod, why)| format!("pod {pod} is not enforced: {why}")));
        let number =
            |count: fn(&crate::cluster::Cluster) -> usize| active.map_or(0, |active| count(&active.cluster));

        Status {
            node: self.settings.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            revision: self.accepted.revision,
            enforced_for: self.accepted.since.as_ref().and_then(super::accepted::Since::elapsed),
            pods_enforced: active.map_or(0, |active| active.resolution.pods.len()),
            pods_waiting: waiting.into_iter().map(|(pod, why)| (pod.to_string(), why)).collect(),
            services: number(|cluster| cluster.services.len()),
            policies: number(|cluster| cluster.policies.len() + cluster.cluster_policies.len()),
            skipped: self.accepted.skipped.clone(),
            refused: self.refused,
            repaired: self.repaired,
            last_error: self.last_error.clone(),
            forwarded: counters
                .forwarded
                .iter()
                .map(|(hook, counter)| Forwarded {
                    hook: name(*hook),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            drops: counters
                .drops
                .iter()
                .map(|(hook, reason, counter)| Dropped {
                    hook: name(*hook),
                    reason: reason.name().to_owned(),
                    explanation: reason.explanation().to_owned(),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            maps,
            programs: self.enforcer.programs(),
            edge_refused: self.enforcer.edge_refused(),
            problems,
        }
    }
}

fn name(hook: Hook) -> String {
    match hook {
        Hook::FromPod => "from_pod",
        Hook::ToPod => "to_pod",
        Hook::FromUplink => "from_uplink",
        Hook::ToUplink => "to_uplink",
        Hook::Edge => "edge",
    }
    .to_owned()
}
