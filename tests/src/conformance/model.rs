//! The compiled datapaths of all nodes, evaluated in user space.

use std::{collections::BTreeMap, path::Path};

use weir::{
    cluster::Cluster,
    compile::Numbers,
    datapath::{Connection, Judgement, Network},
};

use super::{Change, Level, Observation, service};

/// The level `model`.
#[derive(Debug, Default)]
pub struct Model {
    cluster: Cluster,
    numbers: BTreeMap<String, Numbers>,
    network: Network,
}

impl Model {
    fn why(&self, connection: &Connection) -> String {
        let ends = self.network.explain(connection);
        let text = ends.iter().map(|end| end.text(&self.cluster)).collect::<String>();
        text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
    }
}

impl Level for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn enforce(&mut self, change: &Change<'_>) -> anyhow::Result<BTreeMap<usize, String>> {
        let cluster = change.cluster;
        if change.first {
            self.numbers.clear();
        }
        self.cluster = cluster.clone();
        self.network = Network::compile(cluster, &mut self.numbers)?;
        for (name, node) in &self.network.nodes {
            self.numbers.entry(name.clone()).or_default().retain(node);
        }
        Ok(BTreeMap::new())
    }

    fn connect(&mut self, connection: &Connection) -> anyhow::Result<Observation> {
        Ok(match self.network.connect(connection) {
            Judgement::Direct(path) => Observation::Direct(path.allowed(), self.why(connection)),
            Judgement::Balanced(paths) => {
                let why = |to: &weir::datapath::Backend| {
                    self.why(&Connection { destination: to.address, port: to.port, ..*connection })
                };
                let observed = paths.into_iter().map(|(to, path)| (to, (path.allowed(), why(&to))));
                Observation::Balanced(observed.collect())
            }
            refused => Observation::Direct(false, format!("{refused:?}")),
        })
    }

    fn run_service_case(&mut self, directory: &Path) -> anyhow::Result<Option<service::Report>> {
        service::run(directory).map(Some)
    }
}
