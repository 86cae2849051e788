//! Between the desired datapath and the kernel: loading, attaching, committing, reading back.
//!
//! Everything that enforces is pinned ([`pins`]) and goes on when the agent is gone; the next one adopts
//! the maps, reads from them what is in force, and replaces the programs one by one.

mod attach;
mod error;
mod family;
mod load;
pub mod map;
mod maps;
pub mod netlink;
mod observe;
pub mod pins;
pub mod probe;
pub mod sys;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs::File,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::Ebpf;
use nix::fcntl::Flock;
use weir_common::reason::{Counter, Hook, Reason};

use self::{
    attach::Attachments,
    maps::Maps,
    netlink::{Link, Netlink},
    observe::Counters,
    pins::Pins,
};
pub use self::{
    attach::{AttachMode, Program},
    error::{KernelError, WriteError},
    load::LogLevel,
    observe::{Events, Flow, Flows, HOOK_LIST, ProgramLog},
    usage::MapUsage,
};
use crate::{
    datapath::{Datapath, RuleId, RuleOrigin},
    plan::{CommitError, CommitReport, Desired, Interface, Layout, Plan, Sizes, commit},
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
    /// Rules whose hits are counted.
    rules: BTreeMap<RuleId, RuleOrigin>,
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
        let lock = pins.prepare()?;
        let (ebpf, sizes) = load::load(object, &pins, &options.sizes, options.log_level)?;
        let mode = options.attach_mode.unwrap_or(match probe::has_tcx() {
            true => AttachMode::Tcx,
            false => AttachMode::Clsact,
        });
        let mut kernel = Self {
            maps: Maps::open(&pins)?,
            counters: Counters::open(&pins)?,
            attachments: Attachments::new(mode),
            layout: None,
            uplink: 0,
            events: options.events,
            rules: BTreeMap::new(),
            pins,
            netlink,
            ebpf,
            sizes,
            _lock: lock,
        };
        kernel.adopt()?;
        Ok(kernel)
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
        let mut layout = match self.layout.take() {
            Some(layout) => layout,
            None => Layout { image: self.maps.read()?, settled: false },
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
        let result = commit(&mut layout, &plan, &mut self.maps);
        match &result {
            Ok(report) => {
                self.rules.clone_from(&datapath.rules);
                self.layout = report.left_over.is_none().then_some(layout);
            }
            Err(CommitError::RolledBack { .. }) => self.layout = Some(layout),
            // What the maps hold now is for the maps to say.
            Err(CommitError::Mixed { .. }) => {}
        }
        result.map_err(KernelError::from)
    }

    /// Whether `datapath` fits into the maps, beside what is in force.
    ///
    /// # Errors
    /// When it does not, or the maps cannot be read.
    pub fn check(
        &mut self,
        datapath: &Datapath,
        interfaces: &BTreeMap<IpAddr, Interface>,
    ) -> Result<(), KernelError> {
        let (uplink, events, sizes) = (self.uplink, self.events, self.sizes);
        Plan::between(self.layout()?, &Desired { datapath, interfaces, uplink, events }, &sizes)?;
        Ok(())
    }

    /// Attaches the programs of a pod to its host-side interface. From then on nothing passes that no
    /// commit has allowed.
    ///
    /// # Errors
    /// When there is no such interface, or one of its programs cannot be attached; then none is.
    pub fn attach_pod(&mut self, interface: &str) -> Result<Link, KernelError> {
        self.attach(interface, [Program::FromPod, Program::ToPod])
    }

    /// Attaches the programs of the uplink; the next commit tells the others about it.
    ///
    /// # Errors
    /// As [`Kernel::attach_pod`].
    pub fn attach_uplink(&mut self, interface: &str) -> Result<Link, KernelError> {
        let link = self.attach(interface, [Program::FromUplink, Program::ToUplink])?;
        self.uplink = link.index;
        Ok(link)
    }

    /// Where a pod hangs: an attached interface and the MAC address of the pod's end, as far as it can be
    /// found without being told.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn interface(&self, link: &Link, addresses: &[IpAddr]) -> Result<Option<Interface>, KernelError> {
        let mac = self.netlink.peer_mac(link, addresses)?;
        Ok(mac.map(|mac| Interface { ifindex: link.index, mac }))
    }

    /// Detaches everything from an interface. Goes on after errors.
    pub fn detach(&mut self, link: &Link) -> Vec<KernelError> {
        self.attachments.attached.retain(|(ifindex, _)| *ifindex != link.index);
        attach::detach(&self.pins, &self.netlink, link)
    }

    /// Programs that are no longer attached as they were left: interface number and program.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn verify(&mut self) -> Result<Vec<(u32, Program)>, KernelError> {
        let mut missing = Vec::new();
        for (ifindex, program) in self.attachments.attached.clone() {
            let intact =
                self.attachments.is_intact(&mut self.ebpf, &self.pins, &self.netlink, ifindex, program)?;
            if !intact {
                missing.push((ifindex, program));
            }
        }
        Ok(missing)
    }

    /// Attaches again what [`Kernel::verify`] misses, and forgets interfaces that are gone. Gives what was
    /// attached.
    ///
    /// # Errors
    /// When an interface that is there cannot be attached to.
    pub fn repair(&mut self) -> Result<Vec<(u32, Program)>, KernelError> {
        let links = self.netlink.links()?;
        let mut repaired = Vec::new();
        for (ifindex, program) in self.verify()? {
            match links.iter().find(|link| link.index == ifindex) {
                Some(link) => {
                    let (ebpf, pins) = (&mut self.ebpf, &self.pins);
                    self.attachments.attach(ebpf, pins, &self.netlink, link, program)?;
                    repaired.push((ifindex, program));
                }
                None => self.forget(ifindex, program)?,
            }
        }
        Ok(repaired)
    }

    /// Whether the programs of a pod or of the uplink are attached to an interface.
    pub fn is_attached(&self, ifindex: u32) -> bool {
        let has = |program| self.attachments.attached.contains(&(ifindex, program));
        has(Program::FromPod) && has(Program::ToPod) || has(Program::FromUplink) && has(Program::ToUplink)
    }

    /// Interfaces, and the programs that are attached to them.
    pub const fn attached(&self) -> &BTreeSet<(u32, Program)> {
        &self.attachments.attached
    }

    /// How programs are attached.
    pub const fn attach_mode(&self) -> AttachMode {
        self.attachments.mode
    }

    /// Sizes of the maps.
    pub const fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The revision in force; 0 when nothing has been committed and everything is dropped.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn revision(&mut self) -> Result<u32, KernelError> {
        Ok(self.layout()?.image.state.epoch)
    }

    /// The connection to rtnetlink.
    pub const fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// A loaded program.
    ///
    /// # Errors
    /// When the object has none of this name.
    pub fn program(&mut self, program: Program) -> Result<&mut aya::programs::SchedClassifier, KernelError> {
        load::classifier(&mut self.ebpf, program)
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

    /// Connections decided by each rule of the active revision.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn rule_hits(&self) -> Result<BTreeMap<RuleId, u64>, KernelError> {
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
    pub fn map_usage(&mut self) -> Result<Vec<MapUsage>, KernelError> {
        self.layout()?;
        let layout = self.layout.as_ref().map(|layout| &layout.image);
        layout.map_or_else(|| Ok(Vec::new()), |image| usage::of(image, &self.pins, &self.sizes))
    }

    /// The log of the programs; `None` when the object writes none, or it has been taken already. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn take_log(&mut self) -> Result<Option<ProgramLog>, KernelError> {
        ProgramLog::take(&mut self.ebpf)
    }

    fn layout(&mut self) -> Result<&Layout, KernelError> {
        if self.layout.is_none() {
            self.layout = Some(Layout { image: self.maps.read()?, settled: false });
        }
        Ok(self.layout.get_or_insert_default())
    }

    fn attach(&mut self, interface: &str, programs: [Program; 2]) -> Result<Link, KernelError> {
        let link = self.netlink.link(interface)?;
        let was_attached = self.is_attached(link.index);
        for program in programs {
            let (ebpf, pins) = (&mut self.ebpf, &self.pins);
            let result = self.attachments.attach(ebpf, pins, &self.netlink, &link, program);
            if let Err(error) = result {
                if !was_attached {
                    self.detach(&link);
                }
                return Err(error);
            }
        }
        Ok(link)
    }

    /// Replaces the programs that a predecessor left attached.
    fn adopt(&mut self) -> Result<(), KernelError> {
        let links = self.netlink.links()?;
        for (ifindex, name) in self.pins.attached() {
            let Some(program) = Program::ALL.into_iter().find(|program| program.name() == name) else {
                continue;
            };
            let Some(link) = links.iter().find(|link| link.index == ifindex) else {
                self.forget(ifindex, program)?;
                continue;
            };
            let (ebpf, pins) = (&mut self.ebpf, &self.pins);
            self.attachments.attach(ebpf, pins, &self.netlink, link, program)?;
            if program == Program::FromUplink {
                self.uplink = ifindex;
            }
        }
        Ok(())
    }

    /// Removes what is left of an attachment to an interface that is gone.
    fn forget(&mut self, ifindex: u32, program: Program) -> Result<(), KernelError> {
        self.attachments.attached.remove(&(ifindex, program));
        pins::remove(&self.pins.link(ifindex, program.name()))?;
        pins::remove(&self.pins.filter(ifindex, program.name()))?;
        pins::remove(&self.pins.clsact(ifindex))
    }
}

/// Removes everything that agents with these pins left: links, filters, the qdiscs they added, maps,
/// directories. Needs no object and no agent. Goes on after errors and gives them all.
pub fn detach_all(pins: &Path) -> Vec<KernelError> {
    let pins = Pins::new(pins);
    let mut errors = Vec::new();
    match Netlink::open().and_then(|netlink| Ok((netlink.links()?, netlink))) {
        Ok((links, netlink)) => {
            let attached: BTreeSet<u32> = pins.attached().into_iter().map(|(ifindex, _)| ifindex).collect();
            for link in links.iter().filter(|link| attached.contains(&link.index)) {
                errors.extend(attach::detach(&pins, &netlink, link));
            }
        }
        Err(error) => errors.push(error),
    }
    errors.extend(pins.remove());
    errors
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
