//! Attaching programs to interfaces, so that they stay when the agent is gone.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle},
    },
};

use super::{
    KernelError,
    load::{self, classifier, program_info},
    netlink::{Link, Netlink},
    pins::{self, Pins},
    sys::{self, LinkInfo},
    xdp::{self, Edge, XdpMode},
};

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// At the ingress hook of a pod's host-side interface: what the pod sends.
    FromPod,
    /// At its egress hook: what the node's stack sends to the pod.
    ToPod,
    /// At the ingress hook of the uplink.
    FromUplink,
    /// At its egress hook.
    ToUplink,
    /// Before the stack, at XDP on the uplink.
    Edge,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::FromPod, Self::ToPod, Self::FromUplink, Self::ToUplink, Self::Edge];
    /// Those at TC.
    pub(super) const CLASSIFIERS: [Self; 4] = [Self::FromPod, Self::ToPod, Self::FromUplink, Self::ToUplink];

    /// The name in the object and in pins.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromUplink => "from_uplink",
            Self::ToUplink => "to_uplink",
            Self::Edge => "edge",
        }
    }

    /// Where it is attached at TC; XDP has no egress.
    const fn hook(self) -> TcAttachType {
        match self {
            Self::FromPod | Self::FromUplink | Self::Edge => TcAttachType::Ingress,
            Self::ToPod | Self::ToUplink => TcAttachType::Egress,
        }
    }
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX links (Linux 6.6).
    Tcx,
    /// Filters at a clsact qdisc.
    Clsact,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        })
    }
}

/// Priority of the clsact filters: before all others, as TCX programs go before all others.
const PRIORITY: u16 = 1;
/// Handle of the clsact filters: fixed, so that an agent finds the one of its predecessor.
const HANDLE: TcHandle = TcHandle::new(0, 0x7765);

/// What is attached where.
#[derive(Debug)]
pub(super) struct Attachments {
    pub(super) mode: AttachMode,
    /// By interface and program: the TCX link, held open so that it outlives its pin; filters have none.
    pub(super) attached: BTreeMap<(u32, Program), Option<OwnedFd>>,
    pub(super) edge: Edge,
}

impl Attachments {
    pub(super) const fn new(mode: AttachMode, edge: XdpMode) -> Self {
        Self { mode, attached: BTreeMap::new(), edge: Edge::new(edge) }
    }

    /// Attaches a program, or replaces in one step the version of it that is attached.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Pins,
        netlink: &Netlink,
        link: &Link,
        program: Program,
    ) -> Result<(), KernelError> {
        if program == Program::Edge {
            self.edge.attach(load::xdp(ebpf)?, pins, link)?;
            if self.edge.pin(pins, link.index).is_some() {
                self.attached.insert((link.index, program), None);
            }
            return Ok(());
        }
        let classifier = classifier(ebpf, program)?;
        let key = (link.index, program);
        // What a predecessor attached in the other way goes only after this way is in place.
        match self.mode {
            AttachMode::Tcx => {
                let held = self.attached.remove(&key).flatten();
                let held = attach_tcx(classifier, pins, link, program, held)?;
                self.attached.insert(key, Some(held));
                detach_clsact(pins, netlink, link, program)
            }
            AttachMode::Clsact => {
                attach_clsact(classifier, pins, netlink, link, program)?;
                self.attached.insert(key, None);
                pins::remove(&pins.link(link.index, program.name()))
            }
        }
    }

    /// Whether a program is attached as it was left: its own link or filter, with its current version.
    pub(super) fn is_intact(
        &self,
        ebpf: &Ebpf,
        pins: &Pins,
        netlink: &Netlink,
        ifindex: u32,
        program: Program,
    ) -> Result<bool, KernelError> {
        if self.mode == AttachMode::Clsact && program != Program::Edge {
            return has_filter(netlink, ifindex, program);
        }
        let loaded = program_info(ebpf, program).map(|info| info.id());
        let link = match program {
            Program::Edge => self.edge.pin(pins, ifindex),
            _ => Some(pins.link(ifindex, program.name())),
        };
        let link = link.and_then(|path| pinned_link(&path)).as_ref().and_then(link_info);
        Ok(matches!((loaded, link), (Some(id), Some(link)) if link.ifindex == ifindex && link.program == id))
    }
}

/// Removes what is attached to an interface, and the qdisc when it was weir's. Goes on after errors.
pub(super) fn detach(pins: &Pins, netlink: &Netlink, link: &Link) -> Vec<KernelError> {
    let mut errors = Vec::new();
    errors.extend(xdp::detach(pins, link.index).err());
    for program in Program::CLASSIFIERS {
        // The link lives as long as its pin, and the descriptor that an agent holds.
        errors.extend(pins::remove(&pins.link(link.index, program.name())).err());
        errors.extend(detach_clsact(pins, netlink, link, program).err());
    }
    let marker = pins.clsact(link.index);
    if marker.exists() {
        match netlink.has_clsact(link.index) {
            Ok(true) => errors.extend(netlink.remove_clsact(link).err()),
            Ok(false) => {}
            Err(error) => errors.push(error),
        }
        errors.extend(pins::remove(&marker).err());
    }
    errors
}

/// Gives the link, to be held open. `held` is the link of before, whose pin may be gone.
fn attach_tcx(
    classifier: &mut SchedClassifier,
    pins: &Pins,
    link: &Link,
    program: Program,
    held: Option<OwnedFd>,
) -> Result<OwnedFd, KernelError> {
    let path = pins.link(link.index, program.name());
    let failed = |error: &(dyn std::error::Error + 'static)| attach_error("attach a program to", link, error);
    if let Some(held) = held {
        if !path.exists() && is_at(&held, link.index) {
            sys::object_pin(held.as_fd(), &path).map_err(|error| failed(&error))?;
        }
        // Else two links would hold the one place, or none.
        drop(held);
    }
    if pinned_link(&path).is_some_and(|pinned| is_at(&pinned, link.index)) {
        let pinned = PinnedLink::from_pin(&path).map_err(|error| failed(&error))?;
        let pinned = FdLink::from(pinned).try_into().map_err(|error| failed(&error))?;
        let id = classifier.attach_to_link(pinned).map_err(|error| failed(&error))?;
        // Taken and dropped: the pin keeps it attached.
        drop(classifier.take_link(id).map_err(|error| failed(&error))?);
    } else {
        // A link of an interface that is gone, whose number is used again.
        pins::remove(&path)?;
        let id = attach_new_tcx(classifier, link, program).map_err(|error| failed(&error))?;
        let taken = classifier.take_link(id).map_err(|error| failed(&error))?;
        let taken = FdLink::try_from(taken).map_err(|error| failed(&error))?;
        taken.pin(&path).map(drop).map_err(|error| failed(&error))?;
    }
    match pinned_link(&path) {
        Some(pinned) if is_at(&pinned, link.index) => Ok(pinned),
        _ => {
            pins::remove(&path)?;
            Err(failed(&io::Error::other("another interface took its name meanwhile")))
        }
    }
}

/// The kernel frees a link a moment after its pin is removed, and refuses the same program twice till then.
fn attach_new_tcx(
    classifier: &mut SchedClassifier,
    link: &Link,
    program: Program,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let mut tries = 0;
    loop {
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match classifier.attach_with_options(&link.name, program.hook(), order) {
            Err(error) if tries < 50 && super::io_error(&error).kind() == io::ErrorKind::AlreadyExists => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn attach_clsact(
    classifier: &mut SchedClassifier,
    pins: &Pins,
    netlink: &Netlink,
    link: &Link,
    program: Program,
) -> Result<(), KernelError> {
    let failed = |error: &(dyn std::error::Error + 'static)| attach_error("attach a filter to", link, error);
    if !netlink.has_clsact(link.index)? {
        pins::create(&pins.clsact(link.index))?;
        tc::qdisc_add_clsact(&link.name).map_err(|error| failed(&error))?;
    }
    pins::create(&pins.filter(link.index, program.name()))?;
    let id = if has_filter(netlink, link.index, program)? {
        let old = SchedClassifierLink::attached(&link.name, program.hook(), PRIORITY, HANDLE, None);
        classifier.attach_to_link(old.map_err(|error| failed(&error))?)
    } else {
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        classifier.attach_with_options(&link.name, program.hook(), TcAttachOptions::Netlink(options))
    };
    let taken = id.and_then(|id| classifier.take_link(id)).map_err(|error| failed(&error))?;
    // A filter has no pin: it stays as long as nobody removes it, and dropping this would.
    std::mem::forget(taken);
    Ok(())
}

/// Removes the filter that [`attach_clsact`] made, if it did.
fn detach_clsact(pins: &Pins, netlink: &Netlink, link: &Link, program: Program) -> Result<(), KernelError> {
    let marker = pins.filter(link.index, program.name());
    if !marker.exists() {
        return Ok(());
    }
    if has_filter(netlink, link.index, program)? {
        let filter = SchedClassifierLink::attached(&link.name, program.hook(), PRIORITY, HANDLE, None)
            .map_err(|error| attach_error("detach the filter from", link, &error))?;
        filter.detach().map_err(|error| attach_error("detach the filter from", link, &error))?;
    }
    pins::remove(&marker)
}

fn has_filter(netlink: &Netlink, ifindex: u32, program: Program) -> Result<bool, KernelError> {
    let egress = program.hook() == TcAttachType::Egress;
    let ours = (egress, PRIORITY, u32::from(HANDLE));
    Ok(netlink.filters(ifindex)?.iter().any(|filter| (filter.egress, filter.priority, filter.handle) == ours))
}

pub(super) fn pinned_link(path: &Path) -> Option<OwnedFd> {
    sys::object_get(path).ok()
}

/// Whether a link holds its program at this interface.
pub(super) fn is_at(link: &OwnedFd, ifindex: u32) -> bool {
    link_info(link).is_some_and(|info| info.ifindex == ifindex)
}

fn link_info(link: &OwnedFd) -> Option<LinkInfo> {
    sys::object_info(link.as_fd()).ok()
}

pub(super) fn attach_error(
    action: &'static str,
    link: &Link,
    error: &(dyn std::error::Error + 'static),
) -> KernelError {
    let error = super::io_error(error);
    KernelError::Attach { action, interface: link.name.clone(), error }
}
