//! A kernel and a network that only remember.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use weir_common::policy::RuleHits;

use crate::{
    connections::Connection,
    daemon::{
        enforcer::{Counters, EnforceError, Enforcer, Mac},
        interfaces::{Network, Snapshot},
    },
    datapath::{Datapath, RuleId, RuleOrigin},
    plan::Interface,
    protocol::{MapUsage, Program},
    shared_map::SharedMap,
};

/// What the fake kernel holds; tests look into it, and tell it what to refuse.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) links: BTreeMap<String, u32>,
    pub(super) up: BTreeSet<u32>,
    pub(super) host_routes: BTreeMap<IpAddr, u32>,
    pub(super) addresses: BTreeMap<IpAddr, u32>,
    /// The last snapshot.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) attached: BTreeMap<String, u32>,
    pub(super) uplink: Option<u32>,
    pub(super) accepts_own: bool,
    pub(super) datapath: Datapath,
    pub(super) interfaces: BTreeMap<IpAddr, Interface>,
    pub(super) commits: usize,
    pub(super) refuse_commit: Option<fn() -> EnforceError>,
    pub(super) refuse_attach: bool,
    /// How many rules there is room for.
    pub(super) room: Option<usize>,
    /// What the flow tables hold.
    pub(super) connections: Vec<Connection>,
    /// The rules whose counters were taken over.
    pub(super) adopted: SharedMap<RuleId, RuleOrigin>,
    /// What happened to interfaces, in order.
    pub(super) log: Vec<String>,
}

impl World {
    /// Adds an interface, down.
    pub(super) fn link(&mut self, name: &str) -> u32 {
        let index = 100 + self.links.len() as u32 + self.log.len() as u32;
        self.links.insert(name.to_owned(), index);
        index
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Fake(pub(super) Rc<RefCell<World>>);

impl Enforcer for Fake {
    fn check(&self, datapath: &Datapath) -> Result<(), EnforceError> {
        match self.0.borrow().room {
            Some(room) if datapath.rules.len() > room => {
                Err(EnforceError::Refused("RULES is full".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn commit(
        &mut self,
        datapath: &Datapath,
        interfaces: &BTreeMap<IpAddr, Interface>,
    ) -> Result<(), EnforceError> {
        let mut world = self.0.borrow_mut();
        if let Some(refuse) = world.refuse_commit {
            return Err(refuse());
        }
        world.commits += 1;
        world.datapath = datapath.clone();
        world.interfaces = interfaces.clone();
        world.log.push("commit".to_owned());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EnforceError> {
        Ok(())
    }

    fn attach_pod(&mut self, interface: &str) -> Result<(), EnforceError> {
        let mut world = self.0.borrow_mut();
        if world.refuse_attach {
            return Err(EnforceError::Refused("not permitted".to_owned()));
        }
        let index = world.links[interface];
        world.attached.insert(interface.to_owned(), index);
        world.log.push(format!("attach {interface}"));
        Ok(())
    }

    fn attach_uplink(&mut self, interface: &str) -> Result<(), EnforceError> {
        let mut world = self.0.borrow_mut();
        world.uplink = world.links.get(interface).copied();
        world.log.push(format!("attach uplink {interface}"));
        Ok(())
    }

    fn uplink(&self) -> Option<u32> {
        self.0.borrow().uplink
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), EnforceError> {
        let mut world = self.0.borrow_mut();
        world.attached.retain(|_, index| *index != ifindex);
        world.log.push(format!("detach {ifindex}"));
        Ok(())
    }

    fn detach_all(&mut self) -> Result<(), EnforceError> {
        self.0.borrow_mut().attached.clear();
        Ok(())
    }

    fn repair(&mut self) -> Result<BTreeSet<u32>, EnforceError> {
        let World { attached, links, .. } = &mut *self.0.borrow_mut();
        attached.retain(|name, index| links.get(name) == Some(index));
        Ok(BTreeSet::new())
    }

    fn damage(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_attached(&self, ifindex: u32) -> bool {
        self.0.borrow().attached.values().any(|index| *index == ifindex)
    }

    fn programs(&self) -> Vec<Program> {
        let program = |interface: &String| Program {
            program: "from_pod".into(),
            interface: interface.clone(),
            mode: "fake".into(),
        };
        self.0.borrow().attached.keys().map(program).collect()
    }

    fn edge_refused(&self) -> Option<String> {
        None
    }

    fn counters(&self) -> Result<Counters, EnforceError> {
        Ok(Counters::default())
    }

    fn adopt_rules(&mut self, rules: &SharedMap<RuleId, RuleOrigin>) {
        self.0.borrow_mut().adopted = rules.clone();
    }

    /// As many connections as the number of the rule, of ten packets each.
    fn rule_hits(&self) -> Result<BTreeMap<RuleId, RuleHits>, EnforceError> {
        let hits = |rule: u32| RuleHits { connections: rule.into(), packets: 10 * u64::from(rule) };
        Ok(self.0.borrow().datapath.rules.keys().map(|rule| (*rule, hits(*rule))).collect())
    }

    fn connections(&self) -> Result<Vec<Connection>, EnforceError> {
        Ok(self.0.borrow().connections.clone())
    }

    fn map_usage(&self) -> Result<Vec<MapUsage>, EnforceError> {
        Ok(Vec::new())
    }
}

impl Network for Fake {
    fn snapshot(&mut self) -> io::Result<Arc<Snapshot>> {
        let mut world = self.0.borrow_mut();
        let snapshot = Snapshot {
            links: world.links.clone(),
            host_routes: world.host_routes.clone(),
            addresses: world.addresses.clone(),
        };
        if *world.snapshot != snapshot {
            world.snapshot = Arc::new(snapshot);
        }
        Ok(Arc::clone(&world.snapshot))
    }

    fn peer_mac(&mut self, ifindex: u32, _: &[IpAddr]) -> io::Result<Option<Mac>> {
        Ok(Some(Mac([2, 0, 0, 0, 0, ifindex as u8])))
    }

    fn bring_up(&mut self, ifindex: u32) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.up.insert(ifindex);
        world.log.push(format!("up {ifindex}"));
        Ok(())
    }

    fn accept_own(&mut self) -> io::Result<()> {
        self.0.borrow_mut().accepts_own = true;
        Ok(())
    }
}
