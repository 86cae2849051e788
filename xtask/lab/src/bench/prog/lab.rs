//! A node with pods, services and policies, whose programs are measured.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use weir::{
    cluster::Objects,
    compile::{Numbers, compile},
    kernel::{Kernel, Options, Program, XdpMode, detach_all},
    manifest,
    plan::{Interface, PerFamily, Sizes},
};

use weir_common::state::events;

use super::{
    cluster::{self, NODE, PODS},
    feeder::At,
};
use crate::demo::netns;

/// MAC address of the router that the uplink leads to.
const ROUTER: &str = "02:00:00:00:02:01";

/// Labs so far, whose interfaces stay until the namespace goes.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Where a packet is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// It comes from the client.
    Client,
    /// It comes from the server.
    Server,
    /// It comes from a pod that nobody lets in.
    Other,
    /// It came by the uplink, and is about to enter the server.
    ServerDoor,
    /// It came by the uplink.
    Uplink,
}

/// A loaded node. It is gone when this is dropped.
pub(super) struct Lab {
    /// Closed before the pins are removed.
    kernel: Option<Kernel>,
    pins: PathBuf,
    /// Interface of each of [`PODS`].
    interfaces: Vec<u32>,
    uplink: u32,
}

impl Lab {
    /// Loads the programs in the network namespace of this thread, with flow tables of so many sets.
    pub(super) fn open(object: &[u8], sets: u32) -> Result<Self> {
        let name = &format!("lab{}", LABS.fetch_add(1, Ordering::Relaxed));
        let pins = PathBuf::from(format!("/sys/fs/bpf/weir-bench-{}/{name}", process::id()));
        let flows = PerFamily { v4: sets, v6: 64 };
        let options = Options {
            pins: pins.clone(),
            sizes: Sizes { flows, ..Sizes::default() },
            log_level: 0,
            attach_mode: None,
            xdp_mode: XdpMode::Off,
            // As an agent that nobody observes.
            events: events::DROPS | events::FLOWS,
        };
        let kernel = Kernel::open(object, &options)?;
        let mut lab = Self { kernel: Some(kernel), pins, interfaces: Vec::new(), uplink: 0 };
        lab.commit(name)?;
        Ok(lab)
    }

    /// A program.
    pub(super) fn program(&self, program: Program) -> Result<ProgramFd> {
        let loaded = self.kernel().programs().into_iter().find(|(found, _)| *found == program);
        let (_, info) = loaded.with_context(|| format!("there is no program {}", program.name()))?;
        Ok(info.fd()?)
    }

    /// Where packets are.
    pub(super) fn at(&self, place: Place) -> At {
        let at = |ifindex, ingress| At { ifindex, ingress };
        let pod = |pod: usize| at(self.interfaces[pod], self.interfaces[pod]);
        match place {
            Place::Client => pod(0),
            Place::Server => pod(1),
            Place::Other => pod(2),
            Place::ServerDoor => at(self.interfaces[1], self.uplink),
            Place::Uplink => at(self.uplink, self.uplink),
        }
    }

    /// Packets that were dropped so far.
    pub(super) fn drops(&self) -> Result<u64> {
        Ok(self.kernel().drops()?.iter().map(|(_, _, counter)| counter.packets).sum())
    }

    const fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().expect("it is there until the lab is dropped")
    }

    fn commit(&mut self, name: &str) -> Result<()> {
        let mut objects = Objects::default();
        objects.insert_all(manifest::from_text("bench.yaml", &cluster::manifests())?);
        let cluster = objects.build()?;
        let datapath = compile(&cluster, NODE, &mut Numbers::default())?;
        let kernel = self.kernel.as_mut().context("it is loaded")?;
        let (up, there) = (format!("{name}-up"), format!("{name}-there"));
        netns::ip(None, &[format!("link add {up} type veth peer name {there}")])?;
        self.uplink = kernel.attach_uplink(&up)?;
        let mut interfaces = BTreeMap::new();
        for (number, (_, address)) in PODS.into_iter().enumerate() {
            let (here, there) = (format!("{name}-pod{number}"), format!("{name}-eth{number}"));
            netns::ip(None, &[format!("link add {here} type veth peer name {there}")])?;
            let ifindex = kernel.attach_pod(&here)?;
            self.interfaces.push(ifindex);
            interfaces.insert(address.into(), Interface { ifindex, mac: [2, 0, 0, 0, 1, address[3]] });
        }
        kernel.commit(&datapath, &interfaces)?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot make this a router")?;
        // What comes by the uplink leaves by it: a routing table of its own, for there are several labs.
        let table = self.uplink;
        netns::ip(
            None,
            &[
                "link set lo up".to_owned(),
                format!("link set {there} up"),
                format!("link set {up} up"),
                format!("rule add iif {up} table {table}"),
                format!("route add default via 192.168.50.1 dev {up} onlink table {table}"),
                format!("neigh add 192.168.50.1 lladdr {ROUTER} dev {up} nud permanent"),
            ],
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kernel = None;
        for error in detach_all(&self.pins) {
            eprintln!("left behind: {error}");
        }
    }
}
