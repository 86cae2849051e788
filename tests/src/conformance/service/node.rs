//! A node of a case: its datapath, and the memory that outlives a step.

use std::{collections::BTreeSet, time::Duration};

use weir::{
    cluster::Cluster,
    compile::{Numbers, compile},
    datapath::{
        Datapath,
        services::{Balancer, Outcome, Packet},
    },
};

use super::text;

/// A node under test.
#[derive(Default)]
pub(super) struct NodeModel {
    pub(super) datapath: Datapath,
    numbers: Numbers,
    balancer: Balancer,
    now: Duration,
    connections: u16,
}

impl NodeModel {
    /// Goes on with another state of the cluster.
    pub(super) fn apply(&mut self, cluster: &Cluster, name: &str) -> anyhow::Result<()> {
        self.datapath = compile(cluster, name, &mut self.numbers)?;
        self.numbers.retain(&self.datapath);
        Ok(())
    }

    /// Opens a flow to this backend; false when no hash leads there.
    pub(super) fn open(&mut self, packet: &Packet, backend: &str) -> bool {
        let slots = self
            .datapath
            .frontends
            .get(&packet.to)
            .map_or(0, |service| service.internal.len().max(service.external.len()));
        let opened = (0..slots).find_map(|hash| {
            let mut balancer = self.balancer.clone();
            let outcome = balancer.handle(&self.datapath, packet, hash, self.now);
            matches!(outcome, Outcome::Backend(chosen) if text(chosen) == backend).then_some(balancer)
        });
        let found = opened.is_some();
        self.balancer = opened.unwrap_or_else(|| self.balancer.clone());
        found
    }

    /// The next packet of a flow.
    pub(super) fn next(&mut self, packet: &Packet) -> Outcome {
        self.balancer.handle(&self.datapath, packet, 0, self.now)
    }

    /// Opens connections one after the other, each from a new port and `apart` after the one before, and says where they went.
    pub(super) fn connect(&mut self, packet: &Packet, count: usize, apart: Duration) -> BTreeSet<Outcome> {
        let connections = (0..count).map(|_| {
            self.now += apart;
            self.connections += 1;
            let packet = Packet { sport: self.connections, ..*packet };
            self.balancer.handle(&self.datapath, &packet, usize::from(self.connections), self.now)
        });
        connections.collect()
    }
}
