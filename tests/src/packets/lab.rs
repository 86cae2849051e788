//! A node with pods, on which packets are judged one by one, each checked against the counters.

mod judge;
mod tables;

use std::{cell::RefCell, collections::BTreeMap, fs, net::IpAddr};

use weir::{
    cluster::{Cluster, Objects},
    compile::{Numbers, Unhealthy, compile_with},
    datapath::Datapath,
    manifest,
    plan::Interface,
};

pub use self::judge::{Answered, Passed, Verdict};
use self::tables::{Counters, counters};
use super::{Node, in_namespace, ip_command};

/// MAC address of the router that the lab's uplink leads to.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// A node, its pods by `namespace/name`, and an uplink.
pub struct Lab {
    node: Node,
    name: String,
    numbers: Numbers,
    /// What is in force.
    datapath: Datapath,
    interfaces: BTreeMap<IpAddr, Interface>,
    /// Host-side interface and MAC address by pod.
    pods: BTreeMap<String, Interface>,
    uplink: u32,
    /// As of the last packet.
    counters: RefCell<Counters>,
    /// What the last packet was answered with, if it was.
    answer: RefCell<Option<Answered>>,
}

/// Runs `test` on the node `name` of the cluster that `manifest` describes.
pub fn in_lab<T: Send>(name: &str, manifest: &str, test: impl FnOnce(&mut Lab) -> T + Send) -> T {
    in_lab_of(512, name, manifest, test)
}

/// The same with flow tables of so many sets.
pub fn in_lab_of<T: Send>(
    sets: u32,
    name: &str,
    manifest: &str,
    test: impl FnOnce(&mut Lab) -> T + Send,
) -> T {
    in_namespace(|| test(&mut Lab::open(sets, name, manifest)))
}

impl Lab {
    fn open(sets: u32, name: &str, manifest: &str) -> Self {
        let mut node = Node::open(sets).expect("the programs load");
        ip_command("link add up0 type veth peer name up1");
        let uplink = node.kernel_mut().attach_uplink("up0").expect("the uplink");
        let counters = RefCell::new(counters(&node));
        let mut lab = Self {
            node,
            name: name.to_owned(),
            numbers: Numbers::default(),
            datapath: Datapath::default(),
            interfaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            uplink,
            counters,
            answer: RefCell::default(),
        };
        lab.commit(manifest);
        lab
    }

    /// Brings the cluster that a manifest describes into force.
    pub fn commit(&mut self, manifest: &str) {
        self.try_commit(manifest).expect("a commit");
    }

    /// The same, where it may be refused: then it is as if it had not been tried.
    pub fn try_commit(&mut self, manifest: &str) -> anyhow::Result<()> {
        self.try_commit_with(manifest, &Unhealthy::default())
    }

    /// Brings a cluster into force while these backends fail their checks.
    pub fn commit_with(&mut self, manifest: &str, unhealthy: &Unhealthy) {
        self.try_commit_with(manifest, unhealthy).expect("a commit");
    }

    fn try_commit_with(&mut self, manifest: &str, unhealthy: &Unhealthy) -> anyhow::Result<()> {
        self.switch(manifest, unhealthy)?;
        self.end_commit()
    }

    /// Brings a cluster into force, and leaves the commit's end, [`end_commit`](Self::end_commit), to the caller.
    pub fn begin_commit(&mut self, manifest: &str) {
        self.switch(manifest, &Unhealthy::default()).expect("a commit");
    }

    /// Takes away what a commit has replaced.
    pub fn end_commit(&mut self) -> anyhow::Result<()> {
        self.node.kernel_mut().finish()?;
        Ok(())
    }

    fn switch(&mut self, manifest: &str, unhealthy: &Unhealthy) -> anyhow::Result<()> {
        let cluster = cluster(manifest);
        let mut interfaces = BTreeMap::new();
        for (name, pod) in &cluster.pods {
            if pod.node.as_ref() != Some(&self.name) {
                continue;
            }
            let interface = self.interface(&name.to_string());
            interfaces.extend(pod.addresses.iter().map(|address| (*address, interface)));
        }
        let mut numbers = self.numbers.clone();
        let datapath = compile_with(&cluster, &self.name, unhealthy, &mut numbers)?;
        self.node.kernel_mut().commit(&datapath, &interfaces)?;
        numbers.retain(&datapath);
        (self.numbers, self.datapath, self.interfaces) = (numbers, datapath, interfaces);
        Ok(())
    }

    /// Brings the uplink up, and leads everything that is not of this node to one router behind it.
    pub fn route_out(&self) {
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/up0/addr_gen_mode"] {
            fs::write(format!("/proc/sys/net/{setting}"), "1").expect("the namespace's own settings");
        }
        fs::write("/proc/sys/net/ipv6/conf/up1/disable_ipv6", "1").expect("the namespace's own settings");
        let router = ROUTER_MAC.map(|byte| format!("{byte:02x}")).join(":");
        for command in [
            "link set lo up",
            "link set up1 up",
            "link set up0 up",
            "addr add 192.168.50.11/32 dev lo",
            "route add default via 192.168.50.1 dev up0 onlink",
            "route add default via fd00:50::1 dev up0 onlink",
            &format!("neigh add 192.168.50.1 lladdr {router} dev up0 nud permanent"),
            &format!("neigh add fd00:50::1 lladdr {router} dev up0 nud permanent"),
        ] {
            ip_command(command);
        }
    }

    /// The interface of a pod, made when there is none.
    fn interface(&mut self, pod: &str) -> Interface {
        if let Some(interface) = self.pods.get(pod) {
            return *interface;
        }
        let number = self.pods.len() as u8;
        ip_command(&format!("link add pod{number} type veth peer name eth{number}"));
        let ifindex = self.node.kernel_mut().attach_pod(&format!("pod{number}")).expect("a pod's interface");
        let interface = Interface { ifindex, mac: [2, 0, 0, 0, 1, number] };
        self.pods.insert(pod.to_owned(), interface);
        interface
    }

    /// Where a pod hangs.
    pub fn pod(&self, pod: &str) -> Interface {
        self.pods[pod]
    }

    /// What is in force.
    pub const fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// The addresses of the pods of this node, and where they hang.
    pub fn interfaces(&self) -> impl Iterator<Item = (IpAddr, Interface)> {
        self.interfaces.iter().map(|(address, interface)| (*address, *interface))
    }

    /// Number of the uplink.
    pub const fn uplink(&self) -> u32 {
        self.uplink
    }

    /// Brings the interfaces of the pods and the uplink up, without a word from the node's own stack.
    pub fn wake_up(&self) {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("the namespace's own settings");
        for number in 0..self.pods.len() {
            ip_command(&format!("link set eth{number} up"));
            ip_command(&format!("link set pod{number} up"));
        }
        ip_command("link set up1 up");
        ip_command("link set up0 up");
    }

    /// The node, for packets that are judged by several threads and checked otherwise.
    pub const fn node(&self) -> &Node {
        &self.node
    }
}

fn cluster(manifest: &str) -> Cluster {
    let mut objects = Objects::default();
    let documents = manifest::from_text("cluster.yaml", manifest);
    objects.insert_all(documents.unwrap_or_else(|found| panic!("{}", found.render(false))));
    objects.build().unwrap_or_else(|found| panic!("{}", found.render(false)))
}
