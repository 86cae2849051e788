//! A node with pods, services and policies, whose programs are measured.

use std::{collections::BTreeMap, path::PathBuf, process};

use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use weir::{
    cluster::Objects,
    compile::{Numbers, compile},
    kernel::{Kernel, Options, Program, XdpMode, detach_all},
    manifest,
    plan::{Interface, PerFamily, Sizes},
};

use weir_common::state::events;

use super::feeder::At;
use crate::demo::netns;

/// Services, each of which leads to a port of its own.
pub(super) const SERVICES: u16 = 16;
/// First of the ports that the services lead to.
pub(super) const TARGETS: u16 = 8000;
/// First of the ports that are reached without a service.
pub(super) const DIRECT: u16 = 9000;

const NODE: &str = "n1";
/// Pods of this node, with the last byte of their addresses.
const PODS: [(&str, u8); 3] = [("client", 10), ("server", 20), ("other", 30)];

/// A loaded node. It is gone when this is dropped.
pub(super) struct Lab {
    /// Closed before the pins are removed.
    kernel: Option<Kernel>,
    pins: PathBuf,
    /// Interface of each of [`PODS`].
    interfaces: Vec<u32>,
    uplink: u32,
}

impl Lab {
    /// Loads the programs in the network namespace of this thread, with flow tables of so many sets.
    pub(super) fn open(object: &[u8], name: &str, sets: u32) -> Result<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/weir-bench-{}/{name}", process::id()));
        let flows = PerFamily { v4: sets, v6: 64 };
        let options = Options {
            pins: pins.clone(),
            sizes: Sizes { flows, ..Sizes::default() },
            log_level: 0,
            attach_mode: None,
            xdp_mode: XdpMode::Off,
            // As an agent that nobody observes.
            events: events::DROPS | events::FLOWS,
        };
        let kernel = Kernel::open(object, &options)?;
        let mut lab = Self { kernel: Some(kernel), pins, interfaces: Vec::new(), uplink: 0 };
        lab.commit(name)?;
        Ok(lab)
    }

    /// A program.
    pub(super) fn program(&self, program: Program) -> Result<ProgramFd> {
        let loaded = self.kernel().programs().into_iter().find(|(found, _)| *found == program);
        let (_, info) = loaded.with_context(|| format!("there is no program {}", program.name()))?;
        Ok(info.fd()?)
    }

    /// Where packets of a pod are, by its place in the list of pods.
    fn at_pod(&self, pod: usize) -> At {
        At { ifindex: self.interfaces[pod], ingress: self.interfaces[pod] }
    }

    /// Where a packet of the client is.
    pub(super) fn at_client(&self) -> At {
        self.at_pod(0)
    }

    /// Where a packet of the server is.
    pub(super) fn at_server(&self) -> At {
        self.at_pod(1)
    }

    /// Where a packet of a pod is that nobody lets in.
    pub(super) fn at_other(&self) -> At {
        self.at_pod(2)
    }

    /// Where a packet is that came by the uplink.
    pub(super) const fn at_uplink(&self) -> At {
        At { ifindex: self.uplink, ingress: self.uplink }
    }

    /// Where a packet is that came by the uplink and is about to enter the server.
    pub(super) fn at_server_door(&self) -> At {
        At { ifindex: self.interfaces[1], ingress: self.uplink }
    }

    /// Packets that were dropped so far.
    pub(super) fn drops(&self) -> Result<u64> {
        Ok(self.kernel().drops()?.iter().map(|(_, _, counter)| counter.packets).sum())
    }

    const fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().expect("it is there until the lab is dropped")
    }

    fn commit(&mut self, name: &str) -> Result<()> {
        let mut objects = Objects::default();
        objects.insert_all(manifest::from_text("bench.yaml", &manifests())?);
        let cluster = objects.build()?;
        let datapath = compile(&cluster, NODE, &mut Numbers::default())?;
        let kernel = self.kernel.as_mut().context("it is loaded")?;
        let (up, there) = (format!("{name}-up"), format!("{name}-there"));
        netns::ip(None, &[format!("link add {up} type veth peer name {there}")])?;
        self.uplink = kernel.attach_uplink(&up)?;
        let mut interfaces = BTreeMap::new();
        for (number, (_, host)) in PODS.into_iter().enumerate() {
            let (here, there) = (format!("{name}-pod{number}"), format!("{name}-eth{number}"));
            netns::ip(None, &[format!("link add {here} type veth peer name {there}")])?;
            let ifindex = kernel.attach_pod(&here)?;
            self.interfaces.push(ifindex);
            let interface = Interface { ifindex, mac: [2, 0, 0, 0, 1, host] };
            interfaces.insert([10, 244, 1, host].into(), interface);
        }
        kernel.commit(&datapath, &interfaces)?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kernel = None;
        for error in detach_all(&self.pins) {
            eprintln!("left behind: {error}");
        }
    }
}

/// The cluster: policy is in force on both ends of every flow.
fn manifests() -> String {
    let pods: String = PODS.iter().map(|(name, host)| pod(name, NODE, 1, *host)).collect();
    let services: String = (0..SERVICES).map(service).collect();
    [CLUSTER, &pods, &pod("remote", "n2", 2, 10), &services].concat()
}

fn pod(name: &str, node: &str, third: u8, host: u8) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: t, labels: {{app: {name}}}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: i}}]}}
status: {{phase: Running, podIPs: [{{ip: 10.244.{third}.{host}}}]}}
"
    )
}

fn service(number: u16) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: s{number}, namespace: t}}
spec: {{clusterIP: 10.96.0.{}, clusterIPs: [10.96.0.{}], ports: [{{name: p, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number}, namespace: t, labels: {{kubernetes.io/service-name: s{number}}}}}
addressType: IPv4
ports: [{{name: p, port: {}, protocol: TCP}}]
endpoints:
  - {{addresses: [10.244.1.20], nodeName: n1, targetRef: {{kind: Pod, namespace: t, name: server}}}}
",
        number + 1,
        number + 1,
        TARGETS + number,
    )
}

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.50.11}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status: {addresses: [{type: InternalIP, address: 192.168.50.12}]}
---
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {name: cluster}
spec: {podCIDRs: [10.244.0.0/16], serviceCIDRs: [10.96.0.0/16]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in, namespace: t}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [client, remote]}]}}]
      ports: [{port: 8000, endPort: 9100, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: t}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [server, remote]}]}}]
      ports: [{port: 8000, endPort: 9100, protocol: TCP}]
";
