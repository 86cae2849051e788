//! The engine on a fake kernel: every way that a change can go.

mod attach;
mod change;
mod fake;
mod flows;
mod health;
mod restart;
mod services;

use std::{fs, path::PathBuf, sync::Arc};

use self::fake::{Fake, World};
use super::{
    engine::{Beginning, Engine, Settings, StartError},
    state::Directory,
};
use crate::{
    manifest::{Key, Kind, Reader},
    protocol::{Change, Changed, Failure, Outcome, Request, Response, Status},
};

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: a}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: demo, labels: {app: web}, annotations: {weir.dev/interface: veth-web}}
spec: {nodeName: a, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: demo, labels: {app: db}}
spec: {nodeName: a, containers: [{name: c, ports: [{containerPort: 5432}]}]}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
";

const DENY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: demo}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
";

const ALLOW_WEB: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: demo}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]
";

/// A host with a manifest file, a state directory and two pods' interfaces.
struct Host {
    root: tempfile::TempDir,
    fake: Fake,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap(), fake: Fake::default() };
        host.write(CLUSTER);
        let mut world = host.fake.0.borrow_mut();
        world.links.insert("eth0".into(), 2);
        world.links.insert("veth-web".into(), 11);
        world.links.insert("veth-db".into(), 12);
        world.addresses.insert("192.0.2.1".parse().unwrap(), 2);
        world.host_routes.insert("10.0.0.2".parse().unwrap(), 12);
        drop(world);
        host
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("cluster.yaml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn start(&self) -> Result<Engine<Fake, Fake>, StartError> {
        let settings = Settings { node: "a".into(), manifests: vec![self.file()], uplink: None };
        let directory = Directory::open(&self.root.path().join("state"))?;
        let (names, _) = tokio::sync::watch::channel(Arc::default());
        let beginning = Beginning::find(&directory, &settings)?;
        Engine::start(settings, directory, self.fake.clone(), self.fake.clone(), names, beginning)
    }

    fn world(&self) -> std::cell::RefMut<'_, World> {
        self.fake.0.borrow_mut()
    }
}

impl Engine<Fake, Fake> {
    fn change_objects(&mut self, change: Change) -> Result<Changed, Failure> {
        match self.answer(Request::Change { change, dry_run: false }) {
            Response::Changed(changed) => Ok(changed),
            Response::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, text: &str) -> Result<Changed, Failure> {
        self.change_objects(applied(text))
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Result<Changed, Failure> {
        self.change_objects(Change::Delete(vec![key(kind, namespace, name)]))
    }

    fn ask_status(&mut self) -> Status {
        match self.answer(Request::Status) {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn policies(&mut self) -> usize {
        self.ask_status().policies
    }
}

fn applied(text: &str) -> Change {
    let documents = Reader::default().text("cli.yaml", text).finish().unwrap();
    Change::Apply(documents.objects.iter().map(|object| object.text().clone()).collect())
}

fn key(kind: Kind, namespace: &str, name: &str) -> Key {
    Key { kind, name: crate::cluster::Name { namespace: namespace.into(), name: name.into() } }
}

fn outcomes(changed: &Changed) -> Vec<(&str, Outcome)> {
    changed.objects.iter().map(|object| (object.object.as_str(), object.outcome)).collect()
}
