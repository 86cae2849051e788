//! What the daemon needs of the kernel side, and no more, so that its logic is tested without root.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use weir_common::{
    policy::RuleHits,
    reason::{Counter, Hook, Reason},
};

use crate::{
    connections::Connection,
    datapath::{Datapath, RuleId, RuleOrigin},
    plan::Interface,
    protocol::{MapUsage, Program},
    shared_map::SharedMap,
};

/// A MAC address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub(super) struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = || format!("`{text}` is not a MAC address (aa:bb:cc:dd:ee:ff)");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && !part.starts_with('+'))
                .ok_or_else(complaint)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| complaint())?;
        }
        // A group address is no station's own.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(complaint());
        }
        Ok(Self(bytes))
    }
}

/// Why the kernel side did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// Refused before anything was changed.
    #[error("{0}")]
    Refused(String),
    /// Refused half-way, and undone.
    #[error("{0}")]
    RolledBack(String),
    /// Refused half-way, and not all of it could be undone.
    #[error("{0}")]
    Mixed(String),
}

/// Packets so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Packets that went on, by hook.
    pub forwarded: Vec<(Hook, Counter)>,
    /// Packets that were dropped; those that are not zero.
    pub drops: Vec<(Hook, Reason, Counter)>,
}

/// The kernel side of one node.
pub(super) trait Enforcer {
    /// Whether `datapath` fits into the maps.
    fn check(&self, datapath: &Datapath) -> Result<(), EnforceError>;

    /// Brings the kernel to `datapath`, as a whole or not at all. Endpoints are those whose address is in
    /// `interfaces`; all others of this node stay closed.
    fn commit(
        &mut self,
        datapath: &Datapath,
        interfaces: &BTreeMap<IpAddr, Interface>,
    ) -> Result<(), EnforceError>;

    /// Removes what the last commit left that is no longer in force. Nobody has to wait for it.
    fn finish(&mut self) -> Result<(), EnforceError>;

    /// Hangs the programs on a pod's interface. Until a commit names the pod, everything on it is dropped.
    fn attach_pod(&mut self, interface: &str) -> Result<(), EnforceError>;

    /// Hangs the programs on the uplink.
    fn attach_uplink(&mut self, interface: &str) -> Result<(), EnforceError>;

    /// Number of the interface that is attached as the uplink.
    fn uplink(&self) -> Option<u32>;

    /// Takes the programs off the interface with this number.
    fn detach(&mut self, ifindex: u32) -> Result<(), EnforceError>;

    /// Forgets interfaces that are gone, and hangs programs back on those that somebody took them off, whose
    /// numbers it gives.
    fn repair(&mut self) -> Result<BTreeSet<u32>, EnforceError>;

    /// What somebody else has removed, for people.
    fn damage(&self) -> Vec<String>;

    /// Removes every program, map and pin.
    fn detach_all(&mut self) -> Result<(), EnforceError>;

    /// Whether programs hang on the interface with this number.
    fn is_attached(&self, ifindex: u32) -> bool;

    /// Programs in place, for people.
    fn programs(&self) -> Vec<Program>;

    /// Why services at the edge are served by TC alone, where they are though XDP is wanted.
    fn edge_refused(&self) -> Option<String>;

    /// Packets so far.
    fn counters(&self) -> Result<Counters, EnforceError>;

    /// Says which rules the counters are of that an earlier agent left.
    fn adopt_rules(&mut self, rules: &SharedMap<RuleId, RuleOrigin>);

    /// What each rule in force has decided.
    fn rule_hits(&self) -> Result<BTreeMap<RuleId, RuleHits>, EnforceError>;

    /// The live connections that the programs know, those with the latest packet first.
    fn connections(&self) -> Result<Vec<Connection>, EnforceError>;

    /// How full the maps are.
    fn map_usage(&self) -> Result<Vec<MapUsage>, EnforceError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_strictly() {
        assert_eq!("02:00:5e:10:00:ff".parse::<Mac>().unwrap().to_string(), "02:00:5e:10:00:ff");
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "2:0:5e:10:0:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "zz:00:00:00:00:00",
            "+2:00:5e:10:00:ff",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
