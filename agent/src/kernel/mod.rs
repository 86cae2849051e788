//! Between the desired datapath and the kernel: loading, attaching, committing, reading back.
//!
//! Everything that enforces is pinned ([`pins`]) and goes on when the agent is gone; the next one adopts
//! the maps, reads from them what is in force, and replaces the programs one by one.

mod attach;
mod error;
mod family;
mod flows;
mod interfaces;
mod load;
pub mod map;
mod maps;
mod netlink;
mod observe;
pub mod pins;
pub mod probe;
mod rings;
pub mod sys;
#[cfg(test)]
mod tests;
mod usage;
mod xdp;

use std::{
    borrow::Cow, collections::BTreeMap, error::Error, fs::File, io, net::IpAddr, path::PathBuf, sync::Arc,
};

use aya::{Ebpf, programs::ProgramInfo};
use ipnet::IpNet;
use nix::fcntl::Flock;
use weir_common::{
    policy::RuleHits,
    reason::{Counter, Hook, Reason},
};

use self::{attach::Attachments, maps::Maps, netlink::Netlink, observe::Counters, pins::Pins};
pub use self::{
    attach::{AttachMode, Program},
    error::{KernelError, WriteError},
    flows::{Clock, Flow, Flows},
    interfaces::detach_all,
    load::LogLevel,
    observe::{Events, HOOK_LIST, ProgramLog},
    usage::MapUsage,
    xdp::XdpMode,
};
use crate::{
    datapath::{Datapath, RuleId, RuleOrigin},
    plan::{CommitError, CommitReport, Desired, Image, Interface, Layout, Plan, Sizes, Write, clean, switch},
    shared_map::SharedMap,
};

/// How the kernel side is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where pins go, a directory on a BPF file system.
    pub pins: PathBuf,
    /// Sizes of the maps that are not pinned yet.
    pub sizes: Sizes,
    /// Level of the programs' own log, 0 for none.
    pub log_level: LogLevel,
    /// How programs are attached; `None`: by TCX where the kernel has it.
    pub attach_mode: Option<AttachMode>,
    /// How the edge is attached to the uplink.
    pub xdp_mode: XdpMode,
    /// Which events are wanted: bits of [`weir_common::state::events`].
    pub events: u32,
}

/// The kernel side of one node, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Kernel {
    pins: Pins,
    netlink: Netlink,
    ebpf: Ebpf,
    maps: Maps,
    counters: Counters,
    sizes: Sizes,
    /// `None` when it must be read from the maps.
    layout: Option<Layout>,
    attachments: Attachments,
    uplink: u32,
    events: u32,
    /// Maps and programs that a later agent is to find.
    pinned: Vec<PathBuf>,
    /// Rules whose hits are counted.
    rules: SharedMap<RuleId, RuleOrigin>,
    /// What the last commit left to be removed.
    cleanup: Option<Vec<Write>>,
    /// What the maps of the cluster's own addresses say, where that is known.
    inside: Option<Arc<BTreeMap<IpNet, u32>>>,
    wanted_inside: Arc<BTreeMap<IpNet, u32>>,
    /// Keeps other agents out.
    _lock: Flock<File>,
}

impl Kernel {
    /// Loads `object`, adopts what is pinned, and replaces the programs that are attached.
    ///
    /// # Errors
    /// When it cannot be loaded. What was attached before stays as it was.
    pub fn open(object: &[u8], options: &Options) -> Result<Self, KernelError> {
        let netlink = Netlink::open()?;
        let pins = Pins::new(&options.pins);
        let fresh = !options.pins.exists();
        let lock = pins.prepare()?;
        // Maps that nobody has written to yet hold nothing.
        let layout = pins.pinned().is_empty().then(|| Layout::found(Image::default()));
        let loaded = load::load(object, &pins, &options.sizes, options.log_level);
        let (ebpf, sizes) = loaded.inspect_err(|_| {
            if fresh {
                // Whatever it did get pinned enforces nothing. The error that matters is the first.
                pins.remove();
            }
        })?;
        let mode = options.attach_mode.unwrap_or(match probe::has_tcx() {
            true => AttachMode::Tcx,
            false => AttachMode::Clsact,
        });
        let mut kernel = Self {
            maps: Maps::open(&pins)?,
            counters: Counters::open(&pins)?,
            attachments: Attachments::new(mode, options.xdp_mode),
            layout,
            uplink: 0,
            events: options.events,
            pinned: pins.pinned(),
            rules: SharedMap::default(),
            cleanup: None,
            inside: None,
            wanted_inside: Arc::default(),
            pins,
            netlink,
            ebpf,
            sizes,
            _lock: lock,
        };
        kernel.adopt()?;
        Ok(kernel)
    }

    /// Whether `datapath` fits into the maps beside what is in force, with all its pods attached.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, datapath: &Datapath) -> Result<(), KernelError> {
        let somewhere = |address: &IpAddr| (*address, Interface { ifindex: 0, mac: [0; 6] });
        let interfaces = datapath.endpoints.keys().map(somewhere).collect();
        let desired = Desired { datapath, interfaces: &interfaces, uplink: self.uplink, events: self.events };
        Plan::between(&*self.layout()?, &desired, &self.sizes)?;
        Ok(())
    }

    /// Brings the maps to `datapath`. Pods are judged once their interface is attached; `interfaces` says
    /// where they hang.
    ///
    /// # Errors
    /// When it does not fit, or a write fails. Then the revision before stays in force.
    pub fn commit(
        &mut self,
        datapath: &Datapath,
        interfaces: &BTreeMap<IpAddr, Interface>,
    ) -> Result<CommitReport, KernelError> {
        let left_over = self.finish()?;
        let mut layout = match self.layout.take() {
            Some(layout) => layout,
            None => self.layout()?.into_owned(),
        };
        let mut interfaces = interfaces.clone();
        interfaces.retain(|_, interface| self.is_attached(interface.ifindex));
        let desired = Desired { datapath, interfaces: &interfaces, uplink: self.uplink, events: self.events };
        let plan = match Plan::between(&layout, &desired, &self.sizes) {
            Ok(plan) => plan,
            Err(too_large) => {
                self.layout = Some(layout);
                return Err(too_large.into());
            }
        };
        self.counters.reset(&self.rules, &datapath.rules)?;
        let is_inside_known = self.inside.as_ref() == Some(&datapath.inside);
        if !is_inside_known {
            self.inside = None;
            self.maps.add_inside(&datapath.inside)?;
        }
        let mut result = switch(&mut layout, &plan, &mut self.maps);
        match &mut result {
            Ok(report) => {
                self.rules.clone_from(&datapath.rules);
                self.attachments.edge.wanted = has_edge(datapath);
                self.follow_edge();
                self.layout = Some(layout);
                report.left_over = left_over;
                self.cleanup = (!plan.is_empty() || !is_inside_known).then_some(plan.cleanup);
                self.wanted_inside = Arc::clone(&datapath.inside);
            }
            Err(CommitError::RolledBack { .. }) => self.layout = Some(layout),
            // What the maps hold now is for the maps to say.
            Err(CommitError::Mixed { .. }) => {}
        }
        result.map_err(KernelError::from)
    }

    /// Removes what the last commit left that is no longer in force, which takes the time until no packet is
    /// under way that may have read of it. The next commit does it otherwise. Says what could not be removed;
    /// the commit after it tries again.
    ///
    /// # Errors
    /// When the maps of the cluster's own addresses cannot be written.
    pub fn finish(&mut self) -> Result<Option<String>, KernelError> {
        let Some(cleanup) = self.cleanup.take() else { return Ok(None) };
        let left_over = match &mut self.layout {
            Some(layout) => clean(layout, &cleanup, &mut self.maps),
            None => None,
        };
        if left_over.is_some() {
            self.layout = None;
        }
        if self.inside.is_none() {
            self.maps.keep_inside(&self.wanted_inside)?;
            self.inside = Some(Arc::clone(&self.wanted_inside));
        }
        Ok(left_over)
    }

    /// Sizes of the maps.
    pub const fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The revision in force; 0 when nothing has been committed and everything is dropped.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn revision(&self) -> Result<u32, KernelError> {
        Ok(self.layout()?.image.state.epoch)
    }

    /// The loaded programs.
    pub fn programs(&self) -> Vec<(Program, ProgramInfo)> {
        let info = |program| Some((program, load::program_info(&self.ebpf, program)?));
        Program::ALL.into_iter().filter_map(info).collect()
    }

    /// Dropped packets by hook and reason.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn drops(&self) -> Result<Vec<(Hook, Reason, Counter)>, KernelError> {
        self.counters.drops()
    }

    /// Packets passed on by hook.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn forwarded(&self) -> Result<Vec<(Hook, Counter)>, KernelError> {
        self.counters.forwarded()
    }

    /// Says which rules the counters are of that an earlier agent left: of those that stay, they go on.
    pub fn adopt_rules(&mut self, rules: &SharedMap<RuleId, RuleOrigin>) {
        self.rules.clone_from(rules);
    }

    /// What each rule of the active revision has decided.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn rule_hits(&self) -> Result<BTreeMap<RuleId, RuleHits>, KernelError> {
        self.counters.rule_hits(self.rules.keys().copied())
    }

    /// Events that were lost because nobody read the ring buffer.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn lost_events(&self) -> Result<u64, KernelError> {
        self.counters.lost_events()
    }

    /// The flow tables.
    ///
    /// # Errors
    /// When they cannot be mapped.
    pub fn flows(&self) -> Result<Flows, KernelError> {
        Flows::open(&self.pins)
    }

    /// The clock that the flow tables go by.
    ///
    /// # Errors
    /// When the kernel does not say what time it is.
    pub fn clock(&self) -> Result<Clock, KernelError> {
        Clock::read()
    }

    /// The ring buffer of events. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn events(&self) -> Result<Events, KernelError> {
        Events::open(&self.pins)
    }

    /// How full each map is.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn map_usage(&self) -> Result<Vec<MapUsage>, KernelError> {
        usage::of(&self.layout()?.image, &self.pins, &self.sizes)
    }

    /// The log of the programs; `None` when the object writes none, or it has been taken already. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn take_log(&mut self) -> Result<Option<ProgramLog>, KernelError> {
        ProgramLog::take(&mut self.ebpf)
    }

    /// What the maps hold, read from them where that is not known.
    fn layout(&self) -> Result<Cow<'_, Layout>, KernelError> {
        match &self.layout {
            Some(layout) => Ok(Cow::Borrowed(layout)),
            None => Ok(Cow::Owned(Layout::found(self.maps.read()?))),
        }
    }
}

/// Whether a service of the datapath gains by being served before the stack.
fn has_edge(datapath: &Datapath) -> bool {
    datapath.frontends.values().any(|service| service.flags & weir_common::service::flags::EDGE != 0)
}

/// An error with its causes, which aya keeps apart.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent errors repeat what they wrap.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The system error at the bottom of an error of aya's, or its text where there is none.
fn io_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(number);
        }
        cause = error.source();
    }
    io::Error::other(chain(error))
}
