//! A node with pods, on which packets are judged one by one, each checked against the counters.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use weir::{
    cluster::{Cluster, Objects},
    compile::{Numbers, Unhealthy, compile_with},
    datapath::{Datapath, RuleOrigin},
    kernel::{Flow, Program, sys::Outcome},
    manifest,
    plan::Interface,
};
use weir_common::{
    event::Event,
    policy::RuleHits,
    reason::{Hook, Reason},
    state::LOOPBACK,
};

use super::{At, Node, in_namespace, ip_command};

/// What becomes of a packet.
pub type Verdict = Result<Passed, Reason>;

/// A packet that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whether it was handed to another interface, past the node's stack.
    pub is_redirected: bool,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
}

/// A packet that was refused, and its sender told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Why it was refused.
    pub reason: Reason,
    /// The frame that goes back.
    pub frame: Vec<u8>,
}

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
const UNSPEC: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// `XDP_DROP`, `XDP_PASS` and `XDP_TX`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

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

/// Packets by hook, and by the reason for which they were dropped, if they were.
type Counters = BTreeMap<(Hook, Option<Reason>), u64>;

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
        self.node.kernel_mut().finish()?;
        numbers.retain(&datapath);
        (self.numbers, self.datapath, self.interfaces) = (numbers, datapath, interfaces);
        Ok(())
    }

    /// What each rule has decided, by what it comes from; those that have decided something.
    pub fn hits(&self) -> Vec<(RuleOrigin, RuleHits)> {
        let hits = self.node.kernel().rule_hits().expect("the counters").into_iter();
        hits.filter(|(_, hits)| *hits != RuleHits::default())
            .map(|(rule, hits)| (self.datapath.rules[&rule].clone(), hits))
            .collect()
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

    /// A frame comes in by the uplink, before the stack: what the edge sends out again, `None` when it leaves
    /// the frame, unchanged, to the stack.
    #[track_caller]
    pub fn meet_edge(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.judge_at_edge(frame).expect("the edge drops it")
    }

    /// The same, where the edge may drop it.
    pub fn judge_at_edge(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        let at = At { ifindex: self.uplink, ingress: self.uplink };
        let outcome = self.node.run(Program::Edge, at, frame).expect("the program runs");
        let mut counted = self.newly_counted();
        // The kernel reports its multicast groups by an interface that is up.
        counted.retain(|((hook, _), _)| *hook == Hook::Edge);
        match (outcome.verdict, &counted[..]) {
            (XDP_TX, [((_, None), 1)]) => Ok(Some(outcome.data)),
            (XDP_DROP, [((_, Some(reason)), 1)]) => Err(*reason),
            (XDP_PASS, []) => {
                assert_eq!(outcome.data, frame, "left to the stack");
                Ok(None)
            }
            (verdict, _) => panic!("the program returned {verdict}, counted {counted:?}"),
        }
    }

    /// What has been counted since the last look.
    fn newly_counted(&self) -> Vec<((Hook, Option<Reason>), u64)> {
        let before = self.counters.replace(counters(&self.node));
        let after = self.counters.borrow();
        let counted = after.iter().map(|(key, packets)| (*key, packets - before[key]));
        counted.filter(|(_, packets)| *packets != 0).collect()
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

    /// A pod sends a frame.
    pub fn send(&self, pod: &str, frame: &[u8]) -> Verdict {
        let ifindex = self.pod(pod).ifindex;
        self.judge(Program::FromPod, At { ifindex, ingress: ifindex }, frame)
    }

    /// A frame that came by the uplink is about to enter a pod.
    pub fn receive(&self, pod: &str, frame: &[u8]) -> Verdict {
        self.judge(Program::ToPod, At { ifindex: self.pod(pod).ifindex, ingress: self.uplink }, frame)
    }

    /// A frame of the node itself is about to enter a pod.
    pub fn receive_from_node(&self, pod: &str, frame: &[u8]) -> Verdict {
        self.judge(Program::ToPod, At { ifindex: self.pod(pod).ifindex, ingress: 0 }, frame)
    }

    /// A frame comes in by the uplink.
    pub fn arrive(&self, frame: &[u8]) -> Verdict {
        self.judge(Program::FromUplink, At { ifindex: self.uplink, ingress: self.uplink }, frame)
    }

    /// What the kernel put together from TCP segments with so many bytes of data comes in by the uplink.
    pub fn arrive_merged(&self, segment: u32, frame: &[u8]) -> Verdict {
        self.judge_merged(Program::FromUplink, self.uplink, segment, frame)
    }

    /// A pod sends a frame that is to be cut into segments with so many bytes of data.
    pub fn send_merged(&self, pod: &str, segment: u32, frame: &[u8]) -> Verdict {
        self.judge_merged(Program::FromPod, self.pod(pod).ifindex, segment, frame)
    }

    fn judge_merged(&self, program: Program, ifindex: u32, segment: u32, frame: &[u8]) -> Verdict {
        let at = At { ifindex, ingress: ifindex };
        let outcome = self.node.run_merged(program, at, segment, frame).expect("the program runs");
        self.verdict(program, outcome).expect("judged at once")
    }

    /// The node itself sends a frame by the uplink.
    pub fn leave(&self, frame: &[u8]) -> Verdict {
        self.judge(Program::ToUplink, At { ifindex: self.uplink, ingress: 0 }, frame)
    }

    /// The node itself sends a frame to an address of its own.
    pub fn loop_back(&self, frame: &[u8]) -> Verdict {
        self.judge(Program::ToUplink, At { ifindex: LOOPBACK, ingress: 0 }, frame)
    }

    /// What the last packet was answered with; `None`: it was dropped in silence, or it passed.
    pub fn answer(&self) -> Option<Answered> {
        self.answer.borrow().clone()
    }

    /// Runs a program on a frame, which is judged at once.
    pub fn judge(&self, program: Program, at: At, frame: &[u8]) -> Verdict {
        self.offer(program, at, frame).expect("kept, or sent once more")
    }

    /// Runs a program on a frame. A packet that passes counts once as passed; one that does not counts
    /// once under the one reason that is returned. One that is answered does not pass. `None`, and no count:
    /// the program keeps it, or sends it and what it has kept once more. At an ingress that goes by the
    /// interface; at an egress the program has run on all of them by now.
    pub fn offer(&self, program: Program, at: At, frame: &[u8]) -> Option<Verdict> {
        self.verdict(program, self.node.run(program, at, frame).expect("the program runs"))
    }

    fn verdict(&self, program: Program, outcome: Outcome) -> Option<Verdict> {
        let hook = match program {
            Program::FromPod => Hook::FromPod,
            Program::ToPod => Hook::ToPod,
            Program::FromUplink => Hook::FromUplink,
            Program::ToUplink => Hook::ToUplink,
            Program::Edge => Hook::Edge,
        };
        let mut counted = self.newly_counted();
        if hook != Hook::ToUplink {
            // As before.
            counted.retain(|((hook, _), _)| *hook != Hook::ToUplink);
        }
        self.answer.replace(None);
        let is_again = match hook {
            // The interfaces of pods are down, and lose what is to come in once more.
            Hook::FromPod | Hook::Edge => false,
            _ => counted.iter().map(|(_, packets)| packets).sum::<u64>() > 1,
        };
        Some(match outcome.verdict {
            SHOT if counted.is_empty() || is_again => return None,
            REDIRECT if let [((at, Some(reason)), 1)] = counted[..] => {
                assert_eq!(at, hook);
                self.answer.replace(Some(Answered { reason, frame: outcome.data }));
                Err(reason)
            }
            SHOT => {
                let [((at, Some(reason)), 1)] = counted[..] else {
                    panic!("dropped, counted as {counted:?}")
                };
                assert_eq!(at, hook);
                Err(reason)
            }
            UNSPEC | REDIRECT => {
                assert_eq!(counted, [((hook, None), 1)], "passed, but counted otherwise");
                Ok(Passed { is_redirected: outcome.verdict == REDIRECT, frame: outcome.data })
            }
            verdict => panic!("the program returned {verdict}"),
        })
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

    /// What has been counted since the last packet, by hook and reason.
    pub fn counted(&self) -> Vec<((Hook, Option<Reason>), u64)> {
        self.newly_counted()
    }

    /// The node, for packets that are judged by several threads and checked otherwise.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Takes what is recorded of IPv4 packets like these out of the flow table, as another flow may.
    pub fn forget(&self, packets: &super::Ends) {
        self.node.forget(packets).expect("the table can be written");
    }

    /// Writes what is recorded of IPv4 packets like these into every way of its set, as writers that did not
    /// see one another may do with two.
    pub fn multiply(&self, packets: &super::Ends) {
        self.node.multiply(packets).expect("the table can be written");
    }

    /// Empties the flow tables, and those of fragments.
    pub fn forget_all(&self) {
        self.node.forget_all().expect("the tables can be written");
    }

    /// Empties the tables of clients that services remember.
    pub fn forget_clients(&self) {
        self.node.forget_clients().expect("the tables can be written");
    }

    /// Empties the table of fragments that wait for their first.
    pub fn forget_waiting(&self) {
        self.node.forget_waiting().expect("the table can be written");
    }

    /// Every flow in the table.
    pub fn flows(&self) -> Vec<Flow> {
        self.node.kernel().flows().expect("the flow table").iter().collect()
    }

    /// Every event since the last look. Ends when none came for a while.
    pub fn events(&self) -> Vec<Event> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let end = Instant::now() + Duration::from_secs(5);
        runtime.block_on(async {
            let mut reader = self.node.kernel().events().expect("the ring buffer");
            let mut events = Vec::new();
            while Instant::now() < end {
                match tokio::time::timeout(Duration::from_millis(200), reader.next()).await {
                    Ok(event) => events.push(event),
                    Err(_) => break,
                }
            }
            events
        })
    }
}

fn counters(node: &Node) -> Counters {
    let dropped = node.kernel().drops().expect("counters").into_iter();
    let dropped = dropped.map(|(hook, reason, counter)| ((hook, Some(reason)), counter.packets));
    let passed = node.kernel().forwarded().expect("counters").into_iter();
    dropped.chain(passed.map(|(hook, counter)| ((hook, None), counter.packets))).collect()
}

fn cluster(manifest: &str) -> Cluster {
    let mut objects = Objects::default();
    let documents = manifest::from_text("cluster.yaml", manifest);
    objects.insert_all(documents.unwrap_or_else(|found| panic!("{}", found.render(false))));
    objects.build().unwrap_or_else(|found| panic!("{}", found.render(false)))
}
