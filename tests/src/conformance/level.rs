//! What a case is run on.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use weir::{
    cluster::{Cluster, Objects},
    datapath::{Backend, Connection},
};

use super::service;

/// Something that enforces a cluster and can be asked: the compiled datapath, the loaded programs, or live
/// nodes.
pub trait Level {
    /// Its name, as `--level` takes it.
    fn name(&self) -> &'static str;

    /// Brings a state into force; after that, [`Level::connect`] sees no other. Returns what was wrong on
    /// the way there, by number in [`Change::steady`].
    fn enforce(&mut self, change: &Change<'_>) -> anyhow::Result<BTreeMap<usize, String>>;

    /// Opens a connection, waiting for its reply.
    fn connect(&mut self, connection: &Connection) -> anyhow::Result<Observation>;

    /// Opens connections; at once, where that makes a difference.
    fn connect_all(&mut self, connections: &[Connection]) -> anyhow::Result<Vec<Observation>> {
        let connect = |connection| self.connect(connection).with_context(|| format!("{connection:?}"));
        connections.iter().map(connect).collect()
    }

    /// Runs a service case; `None`: this level cannot.
    fn run_service_case(&mut self, directory: &Path) -> anyhow::Result<Option<service::Report>>;
}

/// The way to a state of a case.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The objects to be in force.
    pub objects: &'a Objects,
    /// The cluster that they make up.
    pub cluster: &'a Cluster,
    /// The first state of a case has nothing to do with what was before.
    pub first: bool,
    /// Connections that open before and after, or do neither, and so must all the way. A level that knows
    /// nothing between two states has nothing to check.
    pub steady: &'a [(Connection, bool)],
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Whether it opened, and what decided that.
    Direct(bool, String),
    /// The same for each backend of the service that it was made to.
    Balanced(BTreeMap<Backend, (bool, String)>),
    /// Neither the answer of who was asked nor silence: a refusal, or another's answer.
    Neither(String),
    /// This level cannot try it, and why.
    Skipped(String),
}
