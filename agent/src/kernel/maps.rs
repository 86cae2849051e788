//! The maps that commits write and read back.

use std::collections::BTreeMap;

use ipnet::IpNet;
use weir_common::{
    addr::{V4, V6},
    plain::Plain,
    policy::{PeerKey, PortInterval, Rule, RuleSet},
    state::State,
};

use super::{
    KernelError,
    error::WriteError,
    family::{FamilyMaps, failed, typed},
    map::Map,
    pins::Pins,
    sys,
};
use crate::plan::{Change, Image, MapWriter, Write};

/// The maps that commits write.
#[derive(Debug)]
pub(super) struct Maps {
    state: Map<u32, State>,
    rule_sets: Map<u32, RuleSet>,
    peers: Map<PeerKey, u32>,
    ports: Map<u32, PortInterval>,
    vectors: Map<u32, u64>,
    rules: Map<u32, Rule>,
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
}

impl Maps {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            state: typed(pins, "STATE")?,
            rule_sets: typed(pins, "RULE_SETS")?,
            peers: typed(pins, "PEERS")?,
            ports: typed(pins, "PORTS")?,
            vectors: typed(pins, "VECTORS")?,
            rules: typed(pins, "RULES")?,
            v4: FamilyMaps::open(pins)?,
            v6: FamilyMaps::open(pins)?,
        })
    }

    /// Adds the addresses of the cluster that are new; before a commit, so that nothing is masqueraded that
    /// should not be.
    pub(super) fn add_inside(&self, inside: &BTreeMap<IpNet, u32>) -> Result<(), KernelError> {
        self.v4.add_inside(inside)?;
        self.v6.add_inside(inside)
    }

    /// Removes the addresses that are no longer the cluster's; after a commit.
    pub(super) fn keep_inside(&self, inside: &BTreeMap<IpNet, u32>) -> Result<(), KernelError> {
        self.v4.keep_inside(inside)?;
        self.v6.keep_inside(inside)
    }

    /// Everything that they hold.
    pub(super) fn read(&self) -> Result<Image, KernelError> {
        let mut image = Image {
            state: self.state.get(&0).map_err(failed("STATE"))?.unwrap_or_default(),
            peers: self.peers.entries().map_err(failed("PEERS"))?.into_iter().collect(),
            rule_sets: array(&self.rule_sets, "RULE_SETS")?,
            ports: array(&self.ports, "PORTS")?,
            vectors: array(&self.vectors, "VECTORS")?,
            rules: array(&self.rules, "RULES")?,
            ..Image::default()
        };
        self.v4.read(&mut image)?;
        self.v6.read(&mut image)?;
        Ok(image)
    }
}

impl MapWriter for Maps {
    type Error = WriteError;

    fn write(&mut self, write: &Write) -> Result<(), WriteError> {
        match write {
            Write::State(state) => self.state.put(&[(0, *state)])?,
            Write::Vectors(elements) => self.vectors.put(elements)?,
            Write::Ports(elements) => self.ports.put(elements)?,
            Write::Rules(elements) => self.rules.put(elements)?,
            Write::RuleSets(elements) => self.rule_sets.put(elements)?,
            Write::Peers(Change::Put(elements)) => self.peers.put(elements)?,
            Write::Peers(Change::Delete(keys)) => self.peers.delete(keys)?,
            Write::Rings(..)
            | Write::Identities(_)
            | Write::Endpoints(_)
            | Write::Frontends(_)
            | Write::Members(_)
            | Write::Sources(_) => {
                self.v4.write(write)?;
                self.v6.write(write)?;
            }
        }
        Ok(())
    }

    fn wait_for_readers(&mut self) {
        sys::wait_for_programs();
    }
}

/// The elements of an array in order, but for those at its end that nobody has written to.
fn array<V: Plain + Default + PartialEq>(
    map: &Map<u32, V>,
    name: &'static str,
) -> Result<Vec<V>, KernelError> {
    let mut elements = map.elements().map_err(failed(name))?;
    let used = elements.iter().rposition(|element| *element != V::default());
    elements.truncate(used.map_or(0, |last| last + 1));
    elements.shrink_to_fit();
    Ok(elements)
}
