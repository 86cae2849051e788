//! What the whole cluster says to a connection: the source's node judges its egress, the destination's its ingress.

use std::{
    cell::RefCell,
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    rc::Rc,
};

use crate::{
    cluster::{Cluster, Pod},
    compile::{self, CompileError, Numbers},
    datapath::{Connection, Datapath, Decision, Origin, RuleOrigin},
};

/// The datapaths of a cluster, compiled as they are needed.
pub(super) struct Verdicts<'a> {
    cluster: &'a Cluster,
    pods: BTreeMap<IpAddr, &'a Pod>,
    datapaths: RefCell<BTreeMap<String, Rc<Datapath>>>,
}

/// What one end says to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Whether it lets it pass, and by which rule.
    pub decision: Decision,
    /// What that rule comes from, unless it is one of the special ones.
    pub origin: Option<RuleOrigin>,
}

/// What both ends say; `None`: that end is not a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// The source's egress.
    pub egress: Option<End>,
    /// The destination's ingress.
    pub ingress: Option<End>,
}

impl Ends {
    /// Whether both let it pass.
    pub(super) fn allowed(&self) -> bool {
        [&self.egress, &self.ingress].into_iter().flatten().all(|end| end.decision.allowed)
    }
}

impl<'a> Verdicts<'a> {
    /// Of `cluster`.
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let networked = cluster.pods.values().filter(|pod| pod.is_networked());
        let pods =
            networked.flat_map(|pod| pod.addresses.iter().map(move |address| (*address, pod))).collect();
        Self { cluster, pods, datapaths: RefCell::default() }
    }

    /// What `node` enforces.
    pub(super) fn datapath(&self, node: &str) -> Result<Rc<Datapath>, CompileError> {
        match self.datapaths.borrow_mut().entry(node.to_owned()) {
            Entry::Occupied(known) => Ok(Rc::clone(known.get())),
            Entry::Vacant(place) => {
                let datapath = compile::compile(self.cluster, node, &mut Numbers::default())?;
                Ok(Rc::clone(place.insert(Rc::new(datapath))))
            }
        }
    }

    /// What both ends say to `connection`, whose destination is final.
    pub(super) fn ends(&self, connection: &Connection) -> Result<Ends, CompileError> {
        let (source, destination) = (self.pod(connection.source), self.pod(connection.destination));
        let node = |pod: Option<&'a Pod>| pod.and_then(|pod| pod.node.as_deref());
        let mut ends = Ends::default();
        if let Some(node) = node(source) {
            let datapath = self.datapath(node)?;
            ends.egress =
                datapath.path(Origin::Pod, connection).egress.map(|decision| end(&datapath, decision));
        }
        if let Some(here) = node(destination) {
            let datapath = self.datapath(here)?;
            let origin = match node(source) {
                Some(node) if node == here => Origin::Pod,
                _ if datapath.node_addresses.contains(&connection.source) => Origin::Node,
                _ => Origin::Outside,
            };
            ends.ingress = datapath.path(origin, connection).ingress.map(|decision| end(&datapath, decision));
        }
        Ok(ends)
    }

    /// The pod that has this address now.
    pub(super) fn pod(&self, address: IpAddr) -> Option<&'a Pod> {
        self.pods.get(&address).copied()
    }
}

fn end(datapath: &Datapath, decision: Decision) -> End {
    End { decision, origin: datapath.rules.get(&decision.rule).cloned() }
}
