//! TEMPORARY
use std::{collections::BTreeMap, net::IpAddr, path::Path};

use tokio::runtime::Runtime;

use super::{
    enforcer::{Counters, EnforceError, Enforcer, Interface},
    run::{Options, RunError, run_with},
};
use crate::{
    datapath::Datapath,
    protocol::{MapUsage, Program},
};

#[derive(Default)]
struct Memory(BTreeMap<String, u32>);

impl Enforcer for Memory {
    fn check(&self, _: &Datapath) -> Result<(), EnforceError> {
        Ok(())
    }
    fn commit(&mut self, _: &Datapath, _: &BTreeMap<IpAddr, Interface>) -> Result<(), EnforceError> {
        Ok(())
    }
    fn attach_pod(&mut self, interface: &str) -> Result<(), EnforceError> {
        let index =
            nix::net::if_::if_nametoindex(interface).map_err(|e| EnforceError::Refused(e.to_string()))?;
        self.0.insert(interface.into(), index);
        Ok(())
    }
    fn attach_uplink(&mut self, _: &str) -> Result<(), EnforceError> {
        Ok(())
    }
    fn detach(&mut self, interface: &str) -> Result<(), EnforceError> {
        self.0.remove(interface);
        Ok(())
    }
    fn detach_all(&mut self) -> Result<(), EnforceError> {
        self.0.clear();
        Ok(())
    }
    fn attached(&self) -> BTreeMap<String, u32> {
        self.0.clone()
    }
    fn programs(&self) -> Vec<Program> {
        Vec::new()
    }
    fn counters(&self) -> Result<Counters, EnforceError> {
        Ok(Counters::default())
    }
    fn map_usage(&self) -> Result<Vec<MapUsage>, EnforceError> {
        Ok(Vec::new())
    }
}

/// Runs.
pub fn run(options: &Options) -> Result<(), RunError> {
    run_with(options, |_: &Options, _: &Runtime| Ok(Memory::default()))
}

/// Removes.
pub fn remove_pins(_: &Path) -> Result<Vec<String>, EnforceError> {
    Ok(Vec::new())
}
