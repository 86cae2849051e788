//! What a case is run on.

use std::{collections::BTreeMap, path::Path};

use weir::{
    cluster::Cluster,
    datapath::{Backend, Connection},
};

use super::service;

/// Something that enforces a cluster and can be asked: the compiled datapath, the loaded programs, or live
/// nodes.
pub trait Level {
    /// Its name, as `--level` takes it.
    fn name(&self) -> &'static str;

    /// Brings `cluster` into force; after that, [`Level::connect`] sees no other. The first cluster of a
    /// case has nothing to do with what was before.
    fn enforce(&mut self, cluster: &Cluster, first: bool) -> anyhow::Result<()>;

    /// Opens a connection, waiting for its reply.
    fn connect(&mut self, connection: &Connection) -> anyhow::Result<Observation>;

    /// Runs a service case; `None`: this level cannot.
    fn run_service_case(&mut self, directory: &Path) -> anyhow::Result<Option<service::Report>>;
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Whether it opened, and what decided that.
    Direct(bool, String),
    /// The same for each backend of the service that it was made to.
    Balanced(BTreeMap<Backend, (bool, String)>),
    /// This level cannot try it, and why.
    Skipped(String),
}
