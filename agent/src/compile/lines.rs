//! The lines of a rule set before identities are known: what one bit stands for.

use std::sync::Arc;

use weir_common::policy::{PROTOCOLS, Protocol as Judged};

use super::atoms::AtomId;
use crate::{
    cluster::{Action, Protocol},
    datapath::RuleId,
};

/// One bit of a rule set. A rule may need several: one whose port is named needs one per number that it
/// stands for among the peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) action: Action,
    /// For Pass: the line that the search goes on with.
    pub(super) next: u32,
    pub(super) id: RuleId,
    pub(super) peers: Arc<Peers>,
    pub(super) ports: Arc<Ports>,
}

/// Whose packets a line is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Peers {
    /// Those that match one of these atoms; `None`: everyone.
    pub(super) any_of: Option<Box<[AtomId]>>,
    /// And this one as well.
    pub(super) declares: Option<AtomId>,
}

/// Which packets a line is about: disjoint ranges, in order, for each of [`Judged`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ports(pub(super) [Vec<(u16, u16)>; PROTOCOLS]);

impl Peers {
    /// Everyone.
    pub(super) const ANYONE: Self = Self { any_of: None, declares: None };
}

impl Ports {
    /// Everything.
    pub(super) fn all() -> Self {
        Self(std::array::from_fn(|_| vec![(0, u16::MAX)]))
    }

    /// These ranges of these protocols.
    pub(super) fn new(ranges: impl IntoIterator<Item = (Protocol, (u16, u16))>) -> Self {
        let mut ports = Self::default();
        for (protocol, range) in ranges {
            ports.0[judged(protocol) as usize].push(range);
        }
        ports.0.iter_mut().for_each(merge);
        ports
    }

    /// These, and echo requests.
    pub(super) fn with_echo(mut self) -> Self {
        self.0[Judged::Echo as usize] = vec![(0, u16::MAX)];
        self
    }
}

/// As the kernel side counts protocols.
fn judged(protocol: Protocol) -> Judged {
    match protocol {
        Protocol::Tcp => Judged::Tcp,
        Protocol::Udp => Judged::Udp,
        Protocol::Sctp => Judged::Sctp,
    }
}

/// Sorts ranges and joins those that overlap or touch.
fn merge(ranges: &mut Vec<(u16, u16)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joins = u32::from(next.0) <= u32::from(kept.1) + 1;
        if joins {
            kept.1 = kept.1.max(next.1);
        }
        joins
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let mut ranges = vec![(80, 90), (1, 5), (6, 9), (85, 100), (102, 102), (65535, 65535), (102, 65535)];
        merge(&mut ranges);
        assert_eq!(ranges, [(1, 9), (80, 100), (102, 65535)]);
    }
}
