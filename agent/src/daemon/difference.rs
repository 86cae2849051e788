//! `weir diff`: what a change does to objects and to verdicts.

use std::{collections::BTreeMap, sync::Arc};

use weir_common::policy::Protocol;

use super::answer::qualified;
use crate::{
    cluster::{self, Cluster, Name, Objects, Pod},
    datapath::{Connection, Judgement, Network},
    manifest::Object,
    protocol::{Difference, ObjectDifference, VerdictDifference},
};

/// Connections that are compared at most: some seconds of work.
const MOST_CONNECTIONS: usize = 2_000_000;

/// What leads from one set of objects to the other.
pub(super) fn difference(before: (&Objects, &Cluster), after: (&Objects, &Cluster)) -> Difference {
    let objects = objects(before.0, after.0);
    if objects.is_empty() {
        return Difference::default();
    }
    match verdicts(before.1, after.1) {
        Ok(verdicts) => Difference { objects, verdicts, ..Difference::default() },
        Err(note) => Difference { objects, note: Some(note), ..Difference::default() },
    }
}

fn objects(before: &Objects, after: &Objects) -> Vec<ObjectDifference> {
    let changed = before.differences(after).filter_map(|(old, new)| {
        let key = old.or(new)?.key();
        if old.map(|object| object.text().to_json()) == new.map(|object| object.text().to_json()) {
            return None;
        }
        let yaml =
            |object: Option<&Arc<Object>>| object.map(|object| object.text().to_yaml()).unwrap_or_default();
        Some(ObjectDifference { object: qualified(key), before: yaml(old), after: yaml(new) })
    });
    changed.collect()
}

/// Pairs of pods that are there before and after, at the ports that the receiver declares.
fn verdicts(before: &Cluster, after: &Cluster) -> Result<Vec<VerdictDifference>, String> {
    let stays = |pod: &&Arc<Pod>| {
        pod.is_networked() && before.pods.get(&pod.name).is_some_and(|pod| pod.is_networked())
    };
    let pods: BTreeMap<&Name, &Pod> =
        after.pods.values().filter(stays).map(|pod| (&pod.name, &**pod)).collect();
    let connections = pods.len() * pods.values().map(|pod| pod.ports.len()).sum::<usize>();
    if connections > MOST_CONNECTIONS {
        return Err(format!(
            "{connections} connections between pods: too many to compare their verdicts here"
        ));
    }
    let compile =
        |cluster| Network::compile(cluster, &mut BTreeMap::new()).map_err(|error| error.to_string());
    let (old, new) = (compile(before)?, compile(after)?);
    let mut changed = Vec::new();
    for source in pods.keys() {
        for (destination, pod) in &pods {
            for port in &pod.ports {
                let allowed = |network: &Network, cluster: &Cluster| {
                    let connection = connection(&cluster.pods[*source], &cluster.pods[*destination], port)?;
                    Some(matches!(network.connect(&connection), Judgement::Direct(path) if path.allowed()))
                };
                if let (Some(before), Some(after)) = (allowed(&old, before), allowed(&new, after))
                    && before != after
                {
                    changed.push(VerdictDifference {
                        source: source.to_string(),
                        destination: destination.to_string(),
                        port: format!("{}/{}", port.port, port.protocol),
                        before,
                        after,
                    });
                }
            }
        }
    }
    Ok(changed)
}

/// Over the first family that both have. `None`: there is none, or source and destination are one.
fn connection(from: &Pod, to: &Pod, port: &cluster::ContainerPort) -> Option<Connection> {
    let protocol = match port.protocol {
        cluster::Protocol::Tcp => Protocol::Tcp,
        cluster::Protocol::Udp => Protocol::Udp,
        cluster::Protocol::Sctp => Protocol::Sctp,
    };
    let (source, destination) = from
        .addresses
        .iter()
        .find_map(|from| Some((*from, *to.addresses.iter().find(|to| to.is_ipv4() == from.is_ipv4())?)))?;
    (from.name != to.name).then_some(Connection { source, destination, protocol, port: port.port })
}
