//! Writes to the maps, as values.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use weir_common::{
    endpoint::Endpoint,
    policy::{Identity, PeerKey, PortInterval, Rule, RuleSet},
    service::{self, Service},
    state::State,
};

use super::Family;
use crate::datapath::{Backend, Frontend, Ring, ServiceId};

/// Elements of a hash map or trie that are put, or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// These elements are added or replaced.
    Put(Vec<(K, V)>),
    /// These elements are removed; those that are not there do not matter.
    Delete(Vec<K>),
}

impl<K, V> Change<K, V> {
    /// Number of elements.
    pub const fn len(&self) -> usize {
        match self {
            Self::Put(elements) => elements.len(),
            Self::Delete(keys) => keys.len(),
        }
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An endpoint of a service port: what the `MEMBERS_*` maps list.
pub type Member = (ServiceId, Backend);

/// Clients that may use the frontends of a service port with source ranges: what the `SOURCE_RANGES_*` maps list.
pub type SourceRange = (ServiceId, IpNet);

/// Writes to one map, done in order. Every element is switched by itself; nothing may rely on two
/// elements changing together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Elements of `VECTORS` by index.
    Vectors(Vec<(u32, u64)>),
    /// Elements of `PORTS` by index.
    Ports(Vec<(u32, PortInterval)>),
    /// Elements of `RULES` by index.
    Rules(Vec<(u32, Rule)>),
    /// Elements of `RULE_SETS` by index.
    RuleSets(Vec<(u32, RuleSet)>),
    /// Rings in the family's `RINGS_*`, and where they stand.
    Rings(Family, Vec<(service::Ring, Arc<Ring>)>),
    /// `PEERS`.
    Peers(Change<PeerKey, u32>),
    /// `IDENTITIES_*`.
    Identities(Change<IpNet, Identity>),
    /// `ENDPOINTS_*`.
    Endpoints(Change<IpAddr, Endpoint>),
    /// `FRONTENDS_*`.
    Frontends(Change<Frontend, Service>),
    /// `MEMBERS_*`.
    Members(Change<Member, u32>),
    /// `SOURCE_RANGES_*`.
    Sources(Change<SourceRange, ()>),
    /// The element of `STATE`.
    State(State),
}

impl Write {
    /// Number of elements written.
    pub fn len(&self) -> usize {
        match self {
            Self::Vectors(elements) => elements.len(),
            Self::Ports(elements) => elements.len(),
            Self::Rules(elements) => elements.len(),
            Self::RuleSets(elements) => elements.len(),
            Self::Rings(family, rings) => {
                rings.iter().map(|(at, ring)| family.elements(*at, ring) as usize).sum()
            }
            Self::Peers(change) => change.len(),
            Self::Identities(change) => change.len(),
            Self::Endpoints(change) => change.len(),
            Self::Frontends(change) => change.len(),
            Self::Members(change) => change.len(),
            Self::Sources(change) => change.len(),
            Self::State(_) => 1,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is written to, for people.
    pub const fn target(&self) -> &'static str {
        match self {
            Self::Vectors(_) => "VECTORS",
            Self::Ports(_) => "PORTS",
            Self::Rules(_) => "RULES",
            Self::RuleSets(_) => "RULE_SETS",
            Self::Rings(Family::V4, _) => "RINGS_V4",
            Self::Rings(Family::V6, _) => "RINGS_V6",
            Self::Peers(_) => "PEERS",
            Self::Identities(_) => "IDENTITIES",
            Self::Endpoints(_) => "ENDPOINTS",
            Self::Frontends(_) => "FRONTENDS",
            Self::Members(_) => "MEMBERS",
            Self::Sources(_) => "SOURCE_RANGES",
            Self::State(_) => "STATE",
        }
    }
}

/// Where writes go: the kernel's maps, or a model of them.
pub trait MapWriter {
    /// Why a write failed.
    type Error: std::error::Error;

    /// Writes the elements in order. After an error any number of them may have been written.
    ///
    /// # Errors
    /// When an element could not be written.
    fn write(&mut self, write: &Write) -> Result<(), Self::Error>;

    /// Returns when every program run that may still use what it read before this call has ended.
    fn wait_for_readers(&mut self);
}
