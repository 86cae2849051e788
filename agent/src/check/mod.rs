//! `weir check`: expectations kept beside the manifests, held against what the manifests compile to.
//!
//! No kernel and no agent is asked: the datapaths of all nodes are compiled and evaluated in user space.

mod ends;
mod outcome;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::IpAddr};

pub use self::outcome::Outcome;
use self::{ends::connections, outcome::observe};
use crate::{
    cluster::{Cluster, Name, Protocol},
    compile::CompileError,
    datapath::Network,
    manifest::Diagnostics,
    source::Source,
};

/// A document of expectations: kind `PolicyCheck` of weir.dev/v1alpha1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCheck {
    /// Where the document starts.
    pub source: Source,
    /// `metadata.name`.
    pub name: String,
    /// What it expects.
    pub expect: Vec<Expectation>,
}

impl PolicyCheck {
    /// `kind` in manifests.
    pub const KIND: &str = "PolicyCheck";
    /// `apiVersion` in manifests.
    pub const API_VERSION: &str = "weir.dev/v1alpha1";
    /// How it is counted among the objects that an agent leaves aside.
    pub const COUNTED_AS: &str = "weir.dev/v1alpha1/PolicyCheck";
}

/// Whether a connection is to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Where it stands.
    pub source: Source,
    /// Who opens the connection.
    pub from: End,
    /// Who is to receive it.
    pub to: End,
    /// Destination port.
    pub port: u16,
    /// Protocol, TCP when absent.
    pub protocol: Protocol,
    /// What is expected.
    pub allowed: bool,
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} port {}/{}", self.from.name, self.to.name, self.port, self.protocol)
    }
}

/// An end of an expected connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Where it stands.
    pub source: Source,
    /// Whom it names.
    pub name: EndName,
}

/// Whom an [`End`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndName {
    /// `NAMESPACE/POD`.
    Pod(Name),
    /// An address.
    Address(IpAddr),
    /// `node/NAME`.
    Node(String),
    /// `svc/NAMESPACE/NAME`.
    Service(Name),
}

impl fmt::Display for EndName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Service(name) => write!(f, "svc/{name}"),
        }
    }
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// An expectation names what the manifests do not have.
    #[error("{0}")]
    Ends(Diagnostics),
    /// The manifests cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// An expectation, and how it fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The document it stands in.
    pub check: &'a PolicyCheck,
    /// The expectation.
    pub expectation: &'a Expectation,
    /// Why it failed; `None`: it holds.
    pub failure: Option<Outcome>,
}

/// Holds every expectation of `checks` against `cluster`, in order.
///
/// # Errors
/// When an expectation names what is not there, with all that are wrong, or when `cluster` cannot be compiled.
pub fn run<'a>(cluster: &Cluster, checks: &'a [PolicyCheck]) -> Result<Vec<Checked<'a>>, CheckError> {
    let mut found = Diagnostics::default();
    let all =
        checks.iter().flat_map(|check| check.expect.iter().map(move |expectation| (check, expectation)));
    let resolved: Vec<_> = all
        .filter_map(|(check, expectation)| {
            let connections = connections(cluster, expectation).map_err(|error| found.push(error)).ok()?;
            Some((check, expectation, connections))
        })
        .collect();
    if !found.is_empty() {
        return Err(CheckError::Ends(found));
    }
    let network = Network::compile(cluster, &mut BTreeMap::new())?;
    let checked = resolved.into_iter().map(|(check, expectation, connections)| {
        // Each family, and each backend of a service, has to be as expected.
        let outcomes = connections.iter().flat_map(|connection| observe(&network, connection));
        let failure = outcomes.into_iter().find(|outcome| outcome.allowed != expectation.allowed);
        Checked { check, expectation, failure }
    });
    Ok(checked.collect())
}
