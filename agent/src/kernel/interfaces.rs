//! Attaching to interfaces: what [`Kernel`] does about them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use weir_common::state::LOOPBACK;

use super::{
    Kernel, KernelError, Program, attach,
    netlink::Netlink,
    pins::{self, Pins},
    xdp::{self, XdpMode},
};

impl Kernel {
    /// Attaches the programs of a pod to its host-side interface; gives its number. From then on nothing passes that no
    /// commit has allowed.
    ///
    /// # Errors
    /// When there is no such interface, or one of its programs cannot be attached; then none is.
    pub fn attach_pod(&mut self, interface: &str) -> Result<u32, KernelError> {
        self.attach(interface, &[Program::FromPod, Program::ToPod])
    }

    /// Attaches the programs of the uplink; the next commit tells the others about it. What the node sends to
    /// its own addresses goes by the loopback interface, and so that has one of them too.
    ///
    /// # Errors
    /// As [`Kernel::attach_pod`].
    pub fn attach_uplink(&mut self, interface: &str) -> Result<u32, KernelError> {
        self.uplink = self.attach(interface, &[Program::FromUplink, Program::ToUplink])?;
        self.attach("lo", &[Program::ToUplink])?;
        self.follow_edge();
        Ok(self.uplink)
    }

    /// Detaches everything from an interface, which need not be there any more; from the loopback interface
    /// as well when it is the uplink. Goes on after errors.
    pub fn detach(&mut self, ifindex: u32) -> Vec<KernelError> {
        let is_uplink = self.attachments.attached.contains_key(&(ifindex, Program::FromUplink));
        let mut errors = self.detach_from(ifindex);
        if is_uplink {
            errors.extend(self.detach_from(LOOPBACK));
        }
        errors
    }

    fn detach_from(&mut self, ifindex: u32) -> Vec<KernelError> {
        self.attachments.attached.retain(|(attached, _), _| *attached != ifindex);
        match self.netlink.links() {
            Ok(links) => match links.iter().find(|link| link.index == ifindex) {
                Some(link) => attach::detach(&self.pins, &self.netlink, link),
                None => Program::ALL
                    .into_iter()
                    .filter_map(|program| self.forget(ifindex, program).err())
                    .collect(),
            },
            Err(error) => vec![error],
        }
    }

    /// The programs that are attached, by interface number.
    pub fn attached(&self) -> impl ExactSizeIterator<Item = (u32, Program)> {
        self.attachments.attached.keys().copied()
    }

    /// Programs that are no longer attached as they were left: interface number and program.
    ///
    /// # Errors
    /// When netlink fails.
    pub fn verify(&self) -> Result<Vec<(u32, Program)>, KernelError> {
        let mut missing = Vec::new();
        for (ifindex, program) in self.attached() {
            if !self.attachments.is_intact(&self.ebpf, &self.pins, &self.netlink, ifindex, program)? {
                missing.push((ifindex, program));
            }
        }
        Ok(missing)
    }

    /// Maps and programs whose pins somebody removed.
    pub fn missing_pins(&self) -> impl Iterator<Item = &Path> {
        self.pinned.iter().map(PathBuf::as_path).filter(|path| !path.exists())
    }

    /// Attaches again what [`Kernel::verify`] misses, and forgets interfaces that are gone. Gives what was
    /// attached.
    ///
    /// # Errors
    /// When an interface that is there cannot be attached to.
    pub fn repair(&mut self) -> Result<Vec<(u32, Program)>, KernelError> {
        let missing = self.verify()?;
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.netlink.links()?;
        let mut repaired = Vec::new();
        for (ifindex, program) in missing {
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
        let has = |program| self.attachments.attached.contains_key(&(ifindex, program));
        has(Program::FromPod) && has(Program::ToPod) || has(Program::FromUplink) && has(Program::ToUplink)
    }

    /// How a program is attached, for people.
    pub fn attached_by(&self, program: Program) -> String {
        match program {
            Program::Edge => self.attachments.edge.to_string(),
            _ => self.attachments.mode.to_string(),
        }
    }

    /// Why the edge is not attached though a service asks for it; its services are served at TC meanwhile.
    pub fn edge_refused(&self) -> Option<&str> {
        self.attachments.edge.refused()
    }

    /// Attaches the edge to the uplink, or takes it off, as the services in force want it.
    pub(super) fn follow_edge(&mut self) {
        let is_at = |ifindex| self.attachments.attached.contains_key(&(ifindex, Program::Edge));
        let wanted = self.attachments.edge.is_wanted() && self.uplink != 0;
        match (wanted, is_at(self.uplink)) {
            (true, false) => {
                let links = self.netlink.links().unwrap_or_default();
                if let Some(link) = links.iter().find(|link| link.index == self.uplink) {
                    let (ebpf, pins) = (&mut self.ebpf, &self.pins);
                    // The edge keeps the reason. It only makes faster what TC does all the same.
                    let _ = self.attachments.attach(ebpf, pins, &self.netlink, link, Program::Edge);
                }
            }
            (false, true) => {
                let uplink = self.uplink;
                self.attachments.edge.forget();
                let _ = self.forget(uplink, Program::Edge);
            }
            _ => {}
        }
    }

    fn attach(&mut self, interface: &str, programs: &[Program]) -> Result<u32, KernelError> {
        let link = self.netlink.link(interface)?;
        let was_attached = self.is_attached(link.index);
        for &program in programs {
            let (ebpf, pins) = (&mut self.ebpf, &self.pins);
            let result = self.attachments.attach(ebpf, pins, &self.netlink, &link, program);
            if let Err(error) = result {
                if !was_attached {
                    self.detach(link.index);
                }
                return Err(error);
            }
        }
        Ok(link.index)
    }

    /// Replaces the programs that a predecessor left attached.
    pub(super) fn adopt(&mut self) -> Result<(), KernelError> {
        let links = self.netlink.links()?;
        for (ifindex, name) in self.pins.attached() {
            let Some(program) = Program::ALL.into_iter().find(|program| has_pin(*program, &name)) else {
                continue;
            };
            let Some(link) = links.iter().find(|link| link.index == ifindex) else {
                self.forget(ifindex, program)?;
                continue;
            };
            let (ebpf, pins) = (&mut self.ebpf, &self.pins);
            let attached = self.attachments.attach(ebpf, pins, &self.netlink, link, program);
            if program != Program::Edge {
                // Without the edge nothing is lost but speed, and it says itself why it is not there.
                attached?;
            }
            if program == Program::FromUplink {
                self.uplink = ifindex;
            }
        }
        Ok(())
    }

    /// Removes what is left of an attachment to an interface that is gone.
    fn forget(&mut self, ifindex: u32, program: Program) -> Result<(), KernelError> {
        self.attachments.attached.remove(&(ifindex, program));
        if program == Program::Edge {
            return xdp::detach(&self.pins, ifindex);
        }
        pins::remove(&self.pins.link(ifindex, program.name()))?;
        pins::remove(&self.pins.filter(ifindex, program.name()))?;
        pins::remove(&self.pins.clsact(ifindex))
    }
}

/// Whether a link of the program may be pinned under this name.
fn has_pin(program: Program, name: &str) -> bool {
    program.name() == name
        || program == Program::Edge && XdpMode::ATTACHED.iter().any(|mode| mode.pin() == name)
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
