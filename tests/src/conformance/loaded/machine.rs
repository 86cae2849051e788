//! One node: interfaces for its pods, and what its programs say to a packet.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::runtime::Runtime;
use weir::{
    cluster::Name,
    datapath::Datapath,
    kernel::{Events, Program},
    plan::Interface,
};
use weir_common::reason::{Hook, Reason};

use crate::packets::{
    At, Node,
    action::{REDIRECT, SHOT, UNSPEC, XDP_DROP, XDP_PASS, XDP_TX},
    ip_command, read_tuple,
};

/// A node in the network namespace of this thread.
#[derive(Debug)]
pub(in crate::conformance) struct Machine {
    /// Dropped before the runtime that it needs.
    events: RefCell<Events>,
    runtime: Runtime,
    node: Node,
    number: usize,
    uplink: u32,
    /// Interfaces that pods may hang on.
    interfaces: Vec<u32>,
    /// Which of them a pod hangs on, for as long as it is there.
    places: BTreeMap<Name, usize>,
    pods: BTreeMap<IpAddr, Interface>,
}

/// The rules that a program named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) egress: u32,
    pub(super) ingress: u32,
}

/// Where a program sends a packet.
#[derive(Debug)]
pub(in crate::conformance) enum Passage {
    /// On through the node's stack.
    Stack(Vec<u8>),
    /// To an interface, past the stack, with this mark.
    Redirected(Vec<u8>, u32),
    /// Nowhere; with the reason.
    Dropped(String),
}

/// What a program did with a packet; with the rules, where it had to decide.
#[derive(Debug)]
pub(super) enum Step {
    Stack(Vec<u8>, Option<Rules>),
    HandedOver(Vec<u8>, Option<Rules>),
    Dropped(String, Rules),
}

impl Machine {
    /// Opens a node with flow tables of `sets` sets, which tells of `events`.
    pub(in crate::conformance) fn open(sets: u32, events: u32) -> anyhow::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut node = Node::telling_of(events, sets)?;
        ip_command(&format!("link add up{number} type veth peer name peer{number}"));
        let uplink = node.kernel_mut().attach_uplink(&format!("up{number}"))?;
        route_out(number)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let events = {
            let _within = runtime.enter();
            node.kernel().events()?
        };
        let (interfaces, places, pods) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { events: events.into(), runtime, node, number, uplink, interfaces, places, pods })
    }

    /// Brings a datapath into force, each of its pods on an interface of its own.
    pub(in crate::conformance) fn commit(&mut self, datapath: &Datapath) -> anyhow::Result<()> {
        let names: BTreeSet<_> = datapath.endpoints.values().map(|endpoint| &endpoint.pod).collect();
        self.places.retain(|name, _| names.contains(name));
        self.pods.clear();
        for (address, endpoint) in &datapath.endpoints {
            let taken: BTreeSet<_> = self.places.values().copied().collect();
            let free = (0..).find(|place| !taken.contains(place)).unwrap_or_default();
            let place = *self.places.entry(endpoint.pod.clone()).or_insert(free);
            if place == self.interfaces.len() {
                let name = format!("pod{}-{place}", self.number);
                ip_command(&format!("link add {name} type veth peer name eth{}-{place}", self.number));
                self.interfaces.push(self.node.kernel_mut().attach_pod(&name)?);
            }
            let interface = Interface {
                ifindex: self.interfaces[place],
                mac: [2, 0, 0, 1, self.number as u8, place as u8],
            };
            self.pods.insert(*address, interface);
        }
        self.node.kernel_mut().commit(datapath, &self.pods)?;
        // As the agent does; until then addresses of services that came or went may answer as before.
        self.node.kernel_mut().finish()?;
        Ok(())
    }

    /// Forgets every flow.
    pub(in crate::conformance) fn forget_flows(&self) -> anyhow::Result<()> {
        self.node.forget_all()
    }

    /// Packets that the edge has sent on.
    pub(in crate::conformance) fn sent_on(&self) -> anyhow::Result<u64> {
        let hooks = self.node.kernel().forwarded()?;
        Ok(hooks.iter().filter(|(hook, _)| *hook == Hook::Edge).map(|(_, counter)| counter.packets).sum())
    }

    /// Number of the uplink.
    pub(in crate::conformance) const fn uplink(&self) -> u32 {
        self.uplink
    }

    /// Whether a pod of this node has the address.
    pub(in crate::conformance) fn has(&self, address: &IpAddr) -> bool {
        self.pods.contains_key(address)
    }

    /// Where a pod hangs.
    pub(in crate::conformance) fn interface(&self, pod: &IpAddr) -> anyhow::Result<&Interface> {
        self.pods.get(pod).with_context(|| format!("{pod} hangs on no interface"))
    }

    /// Runs a program on a frame; `opens` says whether it is to open a flow.
    fn step(
        &self,
        program: Program,
        ifindex: u32,
        ingress: u32,
        frame: &[u8],
        opens: bool,
    ) -> anyhow::Result<Step> {
        let outcome = self.node.run(program, At { ifindex, ingress }, frame)?;
        if outcome.verdict == SHOT {
            let (reason, rules) = self.told(frame)?;
            return Ok(Step::Dropped(reason, rules));
        }
        let rules = if opens { Some(self.told(frame)?.1) } else { None };
        match outcome.verdict {
            UNSPEC => Ok(Step::Stack(outcome.data, rules)),
            REDIRECT => Ok(Step::HandedOver(outcome.data, rules)),
            verdict => bail!("{} returned {verdict}", program.name()),
        }
    }

    /// Runs a program on a frame with a mark, whatever flow it is of.
    pub(in crate::conformance) fn pass(
        &self,
        program: Program,
        at: At,
        mark: u32,
        frame: &[u8],
    ) -> anyhow::Result<Passage> {
        let outcome = self.node.run_marked(program, at, mark, frame)?;
        if program == Program::Edge {
            return match outcome.verdict {
                XDP_DROP => Ok(Passage::Dropped(self.told(frame)?.0)),
                XDP_PASS => Ok(Passage::Stack(outcome.data)),
                XDP_TX => Ok(Passage::Redirected(outcome.data, 0)),
                verdict => bail!("{} returned {verdict}", program.name()),
            };
        }
        match outcome.verdict {
            SHOT => Ok(Passage::Dropped(self.told(frame)?.0)),
            UNSPEC => Ok(Passage::Stack(outcome.data)),
            REDIRECT => Ok(Passage::Redirected(outcome.data, outcome.mark)),
            verdict => bail!("{} returned {verdict}", program.name()),
        }
    }

    /// The event about a packet that a program has just dropped, or opened a flow with: the reason, and the rules.
    fn told(&self, frame: &[u8]) -> anyhow::Result<(String, Rules)> {
        let tuple = read_tuple(frame);
        let mut events = self.events.borrow_mut();
        let told = async {
            loop {
                let event = events.next().await;
                if (event.sport.get(), event.dport.get()) == (tuple.sport, tuple.dport) {
                    let reason = Reason::from_u8(event.reason).map_or("", Reason::name);
                    let rules = Rules { egress: event.egress_rule, ingress: event.ingress_rule };
                    return anyhow::Ok((reason.to_owned(), rules));
                }
            }
        };
        let within = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, told).await });
        within.with_context(|| format!("nothing is told of {tuple:?}"))?
    }
}

/// The programs by the way that they are on. A packet that `opens` is the first of a connection.
impl Machine {
    /// The first packet of a connection leaves the node itself: a flow is opened when it is for a service.
    pub(super) fn leave(&self, frame: &[u8], to_service: bool) -> anyhow::Result<Step> {
        self.step(Program::ToUplink, self.uplink(), 0, frame, to_service)
    }

    /// A packet comes in by the uplink. That opens nothing.
    pub(super) fn arrive(&self, frame: &[u8]) -> anyhow::Result<Step> {
        self.step(Program::FromUplink, self.uplink(), self.uplink(), frame, false)
    }

    /// A packet comes in by the uplink and, when it is not handed over there, to the pod's interface.
    pub(super) fn arrive_at_pod(&self, pod: &IpAddr, frame: &[u8], opens: bool) -> anyhow::Result<Step> {
        match self.arrive(frame)? {
            Step::Stack(frame, _) => self.sent_to_pod(pod, false, &frame, opens),
            step => Ok(step),
        }
    }

    pub(super) fn sent_by_pod(&self, pod: &IpAddr, frame: &[u8], opens: bool) -> anyhow::Result<Step> {
        let ifindex = self.interface(pod)?.ifindex;
        self.step(Program::FromPod, ifindex, ifindex, frame, opens)
    }

    pub(super) fn sent_to_pod(
        &self,
        pod: &IpAddr,
        is_from_node: bool,
        frame: &[u8],
        opens: bool,
    ) -> anyhow::Result<Step> {
        let ingress = if is_from_node { 0 } else { self.uplink() };
        self.step(Program::ToPod, self.interface(pod)?.ifindex, ingress, frame, opens)
    }
}

/// Leads what came in by a node's uplink to one router behind it, so that the edge can send it on. The nodes share
/// a network namespace: each has a routing table of its own.
fn route_out(number: usize) -> anyhow::Result<()> {
    let table = 1000 + number;
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{setting}"), "1").context("the namespace's own settings")?;
    }
    ip_command("link set lo up");
    for end in ["up", "peer"] {
        // Addresses of their own would make them talk.
        fs::write(format!("/proc/sys/net/ipv6/conf/{end}{number}/addr_gen_mode"), "1")
            .context("the namespace's own settings")?;
        ip_command(&format!("link set {end}{number} up"));
    }
    for (family, router) in [("-4", "169.254.0.1"), ("-6", "fe80::1")] {
        ip_command(&format!("{family} rule add iif up{number} table {table}"));
        ip_command(&format!("{family} route add default via {router} dev up{number} onlink table {table}"));
        ip_command(&format!("neigh add {router} lladdr 02:00:00:00:02:01 dev up{number} nud permanent"));
    }
    Ok(())
}

/// Events are there when the program returns; only the waking takes a moment.
const PATIENCE: Duration = Duration::from_secs(2);
