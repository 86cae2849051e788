//! Connections under way, and what frames tell of them.

use std::net::SocketAddr;

use weir_common::{header::tcp_flags, policy::Protocol};

use super::{
    network::{Mac, Network, WORLD},
    probe::{Kind, flags, id, is, is_icmp_error, probe},
    tap::{Heard, Seen},
};
use crate::{
    conformance::service::testbed::Fate,
    packets::{Ends, is_port_unreachable, read_tuple, wrong_checksums},
};

/// Where frames come from and go to: an interface, and the MAC addresses of its two sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) interface: String,
    pub(super) mac: Mac,
    pub(super) next_hop: Mac,
}

/// A connection under way.
pub(super) struct Attempt {
    pub(super) ends: Ends,
    pub(super) sent: Vec<u8>,
    pub(super) fate: Option<Fate>,
    /// Where its first packet arrived; none for one that a node's own stack got.
    pub(super) server: Option<Place>,
    /// Whether the answer to the last packet came.
    pub(super) is_answered: bool,
}

impl Attempt {
    /// A connection of which this packet is sent.
    pub(super) fn new(ends: Ends, protocol: Protocol, kind: Kind) -> Self {
        let sent = probe(&ends, protocol, kind, ends.sport);
        Self { ends, sent, fate: None, server: None, is_answered: false }
    }

    /// The packet as it arrived, of a connection that goes well.
    pub(super) fn there(&self) -> Option<Ends> {
        let Some(Fate::Dnat { backend, source }) = &self.fate else { return None };
        Some(Ends { src: source.ip(), sport: source.port(), dst: backend.ip(), dport: backend.port() })
    }

    /// What became of it; silence says that it was dropped.
    pub(super) fn fate(self) -> Fate {
        self.fate.unwrap_or_else(|| Fate::Drop("silence".to_owned()))
    }

    /// Takes note of a frame if it tells what became of the first packet of it.
    pub(super) fn hears(
        &mut self,
        network: &Network,
        client: &Place,
        protocol: Protocol,
        to_itself: bool,
        seen: &Seen,
    ) -> bool {
        let Seen { interface, is_outgoing, frame } = seen;
        let (is_back, ends) = (*interface == client.interface && !is_outgoing, self.ends);
        if is_icmp_error(frame) {
            let is_it = is_back && self.fate.is_none() && is_port_unreachable(frame, &self.sent);
            if is_it {
                self.fate = Some(checked(frame, Fate::Reject));
            }
            return is_it;
        }
        if !is(frame, protocol) {
            return false;
        }
        let tuple = read_tuple(frame);
        if protocol == Protocol::Tcp && flags(frame) & tcp_flags::RST != 0 {
            // The answer of a node on which nobody listens, be it the backend or the one asked.
            let is_it = is_back && tuple == ends.back();
            match &self.fate {
                _ if !is_it => {}
                None if to_itself => self.fate = Some(Fate::Pass),
                None => self.fate = Some(Fate::Wrong("reset".to_owned())),
                Some(_) => self.is_answered = true,
            }
            return is_it;
        }
        if self.fate.is_some() || id(frame, protocol) != ends.sport || tuple == ends.back() {
            return false;
        }
        let dnat = Fate::Dnat {
            backend: SocketAddr::new(tuple.dst, tuple.dport),
            source: SocketAddr::new(tuple.src, tuple.sport),
        };
        let end = network.pods.iter().find(|end| end.name == *interface);
        let (fate, server) = match end {
            _ if *is_outgoing => {
                let node = network.nodes.iter().find(|node| node.port == *interface);
                if tuple == ends || !node.is_some_and(|node| node.addresses.contains(&tuple.dst)) {
                    return false;
                }
                (dnat, None)
            }
            Some(end) if end.addresses.contains(&tuple.dst) => {
                let place = Place { interface: interface.clone(), mac: end.mac, next_hop: end.next_hop };
                (dnat, Some(place))
            }
            Some(_) => (Fate::Wrong(format!("{tuple:?} arrives at {interface}")), None),
            None if *interface == WORLD && tuple == ends => (Fate::Pass, None),
            None if *interface == WORLD => (Fate::Wrong(format!("leaves as {tuple:?}")), None),
            None => return false,
        };
        (self.fate, self.server) = (Some(checked(frame, fate)), server);
        true
    }
}

/// A fate, if the frame that tells of it is whole.
pub(super) fn checked(frame: &[u8], fate: Fate) -> Fate {
    let wrong = wrong_checksums(frame);
    if wrong.is_empty() { fate } else { Fate::Wrong(format!("{fate:?}, but {wrong:?}")) }
}

/// Whether more is to come.
pub(super) fn progress(mut done: impl Iterator<Item = bool>) -> Heard {
    if done.all(|done| done) { Heard::Last } else { Heard::More }
}
