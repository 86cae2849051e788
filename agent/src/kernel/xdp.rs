//! Attaching the edge, the one program at XDP.
//!
//! It is attached while a service asks for it: on some drivers its mere presence costs every packet. Where it
//! cannot be attached nothing is lost but speed, for TC serves every packet that the edge does not take.

use std::{fmt, path::PathBuf};

use aya::programs::{
    Xdp,
    links::{FdLink, PinnedLink},
};

use super::{
    KernelError,
    attach::{attach_error, is_at, pinned_link},
    netlink::Link,
    pins::{self, Pins},
};

/// How the edge is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// By the driver if it can and what it sends arrives, else generic.
    #[default]
    Auto,
    /// By the driver.
    Native,
    /// By the kernel, after the driver has made a packet of the frame.
    Generic,
    /// Not at all.
    Off,
}

impl XdpMode {
    /// What it can be once it is attached.
    pub(super) const ATTACHED: [Self; 2] = [Self::Native, Self::Generic];

    /// The name of its link's pin. The mode is part of it, since the kernel does not tell it of a link.
    pub(super) const fn pin(self) -> &'static str {
        match self {
            Self::Generic => "edge-generic",
            _ => "edge",
        }
    }

    /// What to try at an interface, in order.
    ///
    /// One end of a veth pair can have the program in its driver, but what that sends is lost unless the other end
    /// polls: has GRO on, or an XDP program of its own. That end mostly is in a network namespace that cannot be
    /// looked into.
    fn tries(self, link: &Link) -> Vec<Self> {
        match self {
            Self::Auto if link.is_veth => vec![Self::Generic],
            Self::Auto => Self::ATTACHED.to_vec(),
            Self::Off => Vec::new(),
            one => vec![one],
        }
    }

    const fn for_aya(self) -> aya::programs::XdpMode {
        match self {
            Self::Generic => aya::programs::XdpMode::Skb,
            _ => aya::programs::XdpMode::Driver,
        }
    }
}

/// The edge of one node.
#[derive(Debug)]
pub(super) struct Edge {
    mode: XdpMode,
    /// Whether a service in force asks for it.
    pub(super) wanted: bool,
    /// How it is attached, if it is.
    attached: Option<XdpMode>,
    /// Why it could not be.
    refused: Option<String>,
}

impl Edge {
    pub(super) const fn new(mode: XdpMode) -> Self {
        Self { mode, wanted: false, attached: None, refused: None }
    }

    /// Whether it is to be attached.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted && self.mode != XdpMode::Off
    }

    /// Attaches it in the best way there is, or replaces in one step the version that is attached.
    pub(super) fn attach(&mut self, program: &mut Xdp, pins: &Pins, link: &Link) -> Result<(), KernelError> {
        let former = XdpMode::ATTACHED.into_iter().find(|mode| has_link(pins, link, *mode));
        let mut tries = self.mode.tries(link);
        if let Some(former) = former {
            match tries.contains(&former) {
                true => {
                    replace(program, pins, link, former)?;
                    (self.attached, self.refused) = (Some(former), None);
                    return Ok(());
                }
                // An interface has one program, in one mode.
                false => detach(pins, link.index)?,
            }
        }
        let mut refused = None;
        for mode in tries.drain(..) {
            match attach(program, pins, link, mode) {
                Ok(()) => {
                    (self.attached, self.refused) = (Some(mode), None);
                    return Ok(());
                }
                Err(error) => refused = Some(error),
            }
        }
        self.attached = None;
        match refused {
            Some(error) => {
                self.refused = Some(error.to_string());
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Notes that it is not attached any more.
    pub(super) fn forget(&mut self) {
        (self.attached, self.refused) = (None, None);
    }

    /// Where its link at an interface is pinned, if it is attached.
    pub(super) fn pin(&self, pins: &Pins, ifindex: u32) -> Option<PathBuf> {
        self.attached.map(|mode| pins.link(ifindex, mode.pin()))
    }

    /// Why it is not attached though it is wanted.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref().filter(|_| self.is_wanted())
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.attached {
            Some(XdpMode::Generic) => "XDP generic",
            Some(_) => "XDP native",
            None => "nothing",
        })
    }
}

/// Removes the edge from an interface, in whatever mode it is there.
pub(super) fn detach(pins: &Pins, ifindex: u32) -> Result<(), KernelError> {
    // The link lives as long as its pin.
    XdpMode::ATTACHED.into_iter().try_for_each(|mode| pins::remove(&pins.link(ifindex, mode.pin())))
}

fn has_link(pins: &Pins, link: &Link, mode: XdpMode) -> bool {
    pinned_link(&pins.link(link.index, mode.pin())).is_some_and(|pinned| is_at(&pinned, link.index))
}

fn attach(program: &mut Xdp, pins: &Pins, link: &Link, mode: XdpMode) -> Result<(), KernelError> {
    let failed = |error: &(dyn std::error::Error + 'static)| attach_error("attach XDP to", link, error);
    let path = pins.link(link.index, mode.pin());
    // A link of an interface that is gone, whose number is used again.
    pins::remove(&path)?;
    let id = program.attach_to_if_index(link.index, mode.for_aya()).map_err(|error| failed(&error))?;
    let taken = program.take_link(id).map_err(|error| failed(&error))?;
    let taken = FdLink::try_from(taken).map_err(|error| failed(&error))?;
    taken.pin(&path).map(drop).map_err(|error| failed(&error))
}

fn replace(program: &mut Xdp, pins: &Pins, link: &Link, mode: XdpMode) -> Result<(), KernelError> {
    let failed = |error: &(dyn std::error::Error + 'static)| attach_error("attach XDP to", link, error);
    let pinned = PinnedLink::from_pin(pins.link(link.index, mode.pin())).map_err(|error| failed(&error))?;
    let pinned = FdLink::from(pinned).try_into().map_err(|error| failed(&error))?;
    let id = program.attach_to_link(pinned).map_err(|error| failed(&error))?;
    // Taken and dropped: the pin keeps it attached, not this process.
    program.take_link(id).map(drop).map_err(|error| failed(&error))
}
