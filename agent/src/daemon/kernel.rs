//! The kernel side as the daemon's [`Enforcer`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use nix::net::if_::if_indextoname;
use weir_common::{policy::RuleHits, state::events};

use super::{
    enforcer::{Counters, EnforceError, Enforcer},
    run::{AttachMode, Options},
};
use crate::{
    connections::{Connection, connections},
    datapath::{Datapath, RuleId, RuleOrigin},
    kernel::{self, Events, Kernel, KernelError, ProgramLog, pins::Pins, sys::give_back_pages},
    plan::{CommitError, Interface, Sizes},
    protocol::{MapUsage, Program},
    shared_map::SharedMap,
};

/// The programs, as `cargo xtask build` made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEIR_EBPF_OBJECT"));

/// The level of the `log` crate at which programs write everything they have to say.
const DEBUG: kernel::LogLevel = 4;

/// The kernel side, opened.
pub(super) struct Opened {
    pub(super) enforcer: KernelEnforcer,
    pub(super) events: Events,
    /// The programs' own log, when it is on.
    pub(super) log: Option<ProgramLog>,
}

/// Loads the programs and adopts what is pinned; maps that are not get these sizes. Within a tokio runtime.
pub(super) fn open(options: &Options, sizes: Sizes) -> Result<Opened, EnforceError> {
    if OBJECT.is_empty() {
        return Err(EnforceError::Refused(
            "this build of weir carries no kernel programs; build it with `cargo xtask build`".to_owned(),
        ));
    }
    let options_of_kernel = kernel::Options {
        pins: options.bpffs.clone(),
        sizes,
        log_level: if options.program_log { DEBUG } else { 0 },
        attach_mode: match options.attach_mode {
            AttachMode::Auto => None,
            AttachMode::Tcx => Some(kernel::AttachMode::Tcx),
            AttachMode::Clsact => Some(kernel::AttachMode::Clsact),
        },
        xdp_mode: options.xdp_mode,
        events: events::DROPS | events::FLOWS,
    };
    let mut kernel = Kernel::open(OBJECT, &options_of_kernel)?;
    // Most of them is what debuggers want to know, and nobody reads them again.
    give_back_pages(OBJECT);
    let log = if options.program_log { kernel.take_log()? } else { None };
    let events = kernel.events()?;
    let enforcer = KernelEnforcer { kernel: Some(kernel), pins: options.bpffs.clone() };
    Ok(Opened { enforcer, events, log })
}

/// Removes what agents with these pins have left, and names the interfaces that it frees. Needs no agent.
pub fn remove_pins(pins: &Path) -> Result<Vec<String>, EnforceError> {
    let attached = Pins::new(pins).attached();
    let attached: BTreeSet<u32> = attached.into_iter().map(|(ifindex, _)| ifindex).collect();
    let errors = kernel::detach_all(pins);
    if errors.is_empty() {
        return Ok(attached.into_iter().filter_map(name).collect());
    }
    Err(EnforceError::Refused(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// Bytes of memory of this machine; 0 where the kernel does not say.
pub(super) fn memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes =
        total.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes * 1024)
}

/// The name of an interface, as long as it is there.
fn name(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok().map(|name| name.to_string_lossy().into_owned())
}

/// A [`Kernel`], until everything is removed.
pub(super) struct KernelEnforcer {
    kernel: Option<Kernel>,
    pins: PathBuf,
}

impl KernelEnforcer {
    fn opened(&self) -> Result<&Kernel, EnforceError> {
        self.kernel.as_ref().ok_or_else(removed)
    }

    fn kernel(&mut self) -> Result<&mut Kernel, EnforceError> {
        self.kernel.as_mut().ok_or_else(removed)
    }
}

fn removed() -> EnforceError {
    EnforceError::Refused("everything was detached".to_owned())
}

impl Enforcer for KernelEnforcer {
    fn check(&self, datapath: &Datapath) -> Result<(), EnforceError> {
        Ok(self.opened()?.check(datapath)?)
    }

    fn commit(
        &mut self,
        datapath: &Datapath,
        interfaces: &BTreeMap<IpAddr, Interface>,
    ) -> Result<(), EnforceError> {
        let report = self.kernel()?.commit(datapath, interfaces)?;
        if let Some(left_over) = report.left_over {
            tracing::warn!(left_over, "what is no longer used stays until the next commit");
        }
        tracing::debug!(writes = ?report.writes, "written");
        let written: usize = report.writes.values().sum();
        let committed_ms = report.duration.as_secs_f64() * 1000.0;
        tracing::info!(epoch = report.revision, written, committed_ms, "committed");
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EnforceError> {
        // After `detach --all` nothing is left to be finished.
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        if let Some(left_over) = kernel.finish()? {
            tracing::warn!(left_over, "what is no longer used stays until the next commit");
        }
        Ok(())
    }

    fn attach_pod(&mut self, interface: &str) -> Result<(), EnforceError> {
        self.kernel()?.attach_pod(interface)?;
        Ok(())
    }

    fn attach_uplink(&mut self, interface: &str) -> Result<(), EnforceError> {
        self.kernel()?.attach_uplink(interface)?;
        Ok(())
    }

    fn uplink(&self) -> Option<u32> {
        let mut attached = self.kernel.as_ref()?.attached();
        attached.find(|(_, program)| *program == kernel::Program::FromUplink).map(|(ifindex, _)| ifindex)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), EnforceError> {
        match self.kernel()?.detach(ifindex).into_iter().next() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    fn repair(&mut self) -> Result<BTreeSet<u32>, EnforceError> {
        Ok(self.kernel()?.repair()?.into_iter().map(|(ifindex, _)| ifindex).collect())
    }

    fn damage(&self) -> Vec<String> {
        let Some(kernel) = &self.kernel else { return Vec::new() };
        let mut damage: Vec<String> = match kernel.verify() {
            Ok(missing) => {
                // An interface that is gone has taken its programs along.
                let interfaces: BTreeSet<_> =
                    missing.into_iter().filter_map(|(ifindex, _)| name(ifindex)).collect();
                interfaces
                    .iter()
                    .map(|name| format!("somebody took the programs off interface {name}"))
                    .collect()
            }
            Err(error) => vec![format!("the attached programs cannot be looked after: {error}")],
        };
        damage.extend(kernel.missing_pins().map(|path| {
            format!(
                "somebody removed the pin {}: what is enforced stays in force, but a restarted agent would not find it",
                path.display()
            )
        }));
        damage
    }

    fn detach_all(&mut self) -> Result<(), EnforceError> {
        // Closed first: it holds the lock of the pins, and descriptors of what is removed.
        self.kernel = None;
        remove_pins(&self.pins).map(drop)
    }

    fn is_attached(&self, ifindex: u32) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.is_attached(ifindex))
    }

    fn programs(&self) -> Vec<Program> {
        let Some(kernel) = &self.kernel else { return Vec::new() };
        let program = |(ifindex, program): (u32, kernel::Program)| Program {
            program: program.name().to_owned(),
            interface: name(ifindex).unwrap_or_else(|| format!("#{ifindex} (gone)")),
            mode: kernel.attached_by(program),
        };
        kernel.attached().map(program).collect()
    }

    fn edge_refused(&self) -> Option<String> {
        self.kernel.as_ref()?.edge_refused().map(str::to_owned)
    }

    fn counters(&self) -> Result<Counters, EnforceError> {
        let kernel = self.opened()?;
        let mut drops = kernel.drops()?;
        drops.retain(|(_, _, counter)| counter.packets > 0);
        Ok(Counters { forwarded: kernel.forwarded()?, drops })
    }

    fn adopt_rules(&mut self, rules: &SharedMap<RuleId, RuleOrigin>) {
        if let Some(kernel) = &mut self.kernel {
            kernel.adopt_rules(rules);
        }
    }

    fn rule_hits(&self) -> Result<BTreeMap<RuleId, RuleHits>, EnforceError> {
        Ok(self.opened()?.rule_hits()?)
    }

    fn connections(&self) -> Result<Vec<Connection>, EnforceError> {
        let kernel = self.opened()?;
        let (flows, clock, epoch) = (kernel.flows()?, kernel.clock()?, kernel.revision()?);
        Ok(connections(flows.iter(), &clock, epoch))
    }

    fn map_usage(&self) -> Result<Vec<MapUsage>, EnforceError> {
        let usage = self.opened()?.map_usage()?;
        let usage = usage.into_iter().map(|usage| MapUsage {
            map: usage.map.to_owned(),
            used: usage.entries,
            capacity: usage.capacity,
        });
        Ok(usage.collect())
    }
}

impl From<KernelError> for EnforceError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::TooLarge(why) => {
                Self::Refused(format!("{why}; larger maps take `weir detach --all` and a restart"))
            }
            // The kernel's epoch is not the revision that people see.
            KernelError::Commit(CommitError::RolledBack { map, error, .. }) => {
                Self::RolledBack(format!("cannot write {map}: {error}; rolled back"))
            }
            KernelError::Commit(CommitError::Mixed { map, error, at, second, .. }) => Self::Mixed(format!(
                "cannot write {map}: {error}; and the roll-back failed at {at}: {second}: each pod is held to the \
                 revision before or to the refused one until the next apply"
            )),
            other => Self::Refused(other.to_string()),
        }
    }
}
