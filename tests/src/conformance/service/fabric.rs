//! The loaded programs of all nodes, joined by a wire: every packet goes through the programs that the kernel would
//! run on its way, by `BPF_PROG_TEST_RUN`. Between them stands a stack that does nothing but route by address.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Context as _;
use weir::{compile::Numbers, datapath::Network, kernel::Program, plan::Interface};
use weir_common::{
    policy::Protocol,
    state::{LOOPBACK, MARK_JUDGED, events},
};

use super::{
    hop::{Hop, Member, Place, Progress},
    testbed::{Fate, State, Testbed},
};
use crate::{
    conformance::loaded::{
        machine::{Machine, Passage},
        packet::{frame, later},
    },
    packets::{At, Ends, is_port_unreachable, read_tuple, wrong_checksums},
};

/// Sets of the flow tables: enough for one case.
const FLOW_SETS: u32 = 1 << 10;
/// Programs and routing decisions that a packet may meet.
const HOPS: usize = 16;

/// Nodes and the wire between them. Needs root, and a network namespace of its own.
#[derive(Debug, Default)]
pub(in crate::conformance) struct Fabric {
    numbers: BTreeMap<String, Numbers>,
    network: Network,
    machines: BTreeMap<String, Machine>,
}

impl Testbed for Fabric {
    fn enforce(&mut self, step: &State<'_>, first: bool) -> anyhow::Result<()> {
        self.network = Network::compile(step.cluster, &mut self.numbers)?;
        for (name, datapath) in &self.network.nodes {
            if !self.machines.contains_key(name) {
                self.machines.insert(name.clone(), Machine::open(FLOW_SETS, events::DROPS)?);
            }
            let machine = self.machines.get_mut(name).context("it is there now")?;
            if first {
                machine.forget_flows()?;
            }
            machine.commit(datapath).with_context(|| format!("node {name}"))?;
            self.numbers.entry(name.clone()).or_default().retain(datapath);
        }
        Ok(())
    }

    fn open(&mut self, node: &str, protocol: Protocol, connections: &[Ends]) -> anyhow::Result<Vec<Fate>> {
        let open = |ends| self.exchange(node, protocol, ends);
        connections.iter().map(open).collect()
    }

    fn go_on(&mut self, node: &str, protocol: Protocol, connection: &Ends) -> anyhow::Result<Fate> {
        Ok(self.send(node, connection, &later(connection, protocol))?.0)
    }

    fn health(&mut self, node: &str, service: &str, port: u16) -> anyhow::Result<Option<(u16, usize)>> {
        let datapath = self.network.nodes.get(node).context("there is no such node")?;
        let found = datapath.health_checks.get(&port);
        let found = found.filter(|found| found.service.to_string() == service);
        Ok(found.map(|found| (if found.local_endpoints > 0 { 200 } else { 503 }, found.local_endpoints)))
    }
}

impl Fabric {
    /// Packets that the edges have sent on.
    pub(in crate::conformance) fn sent_on(&self) -> anyhow::Result<u64> {
        self.machines.values().map(Machine::sent_on).sum()
    }

    /// Sends the first packet of a connection, its answer, and one packet more each way.
    fn exchange(&self, node: &str, protocol: Protocol, ends: &Ends) -> anyhow::Result<Fate> {
        let (fate, server) = self.send(node, ends, &frame(ends, protocol, true))?;
        let (Fate::Dnat { backend, source }, Some(server)) = (&fate, server) else { return Ok(fate) };
        let there = Ends { src: source.ip(), sport: source.port(), dst: backend.ip(), dport: backend.port() };
        for answer in [frame(&there.back(), protocol, false), later(&there.back(), protocol)] {
            let client = self.place(node, ends)?;
            match self.carry(self.sender(server, &answer)?, answer)? {
                Progress::Arrived(place, frame) if place == client => {
                    let (is, bad) = (read_tuple(&frame), wrong_checksums(&frame));
                    if is != ends.back() || !bad.is_empty() {
                        return Ok(Fate::Wrong(format!("{there:?} is answered as {is:?}, {bad:?}")));
                    }
                }
                Progress::Lost(why) => return Ok(Fate::Wrong(format!("the answer of {there:?}: {why}"))),
                Progress::Arrived(place, frame) => {
                    let tuple = read_tuple(&frame);
                    return Ok(Fate::Wrong(format!(
                        "the answer of {there:?} ends at {place:?} as {tuple:?}"
                    )));
                }
                Progress::On(..) => return Ok(Fate::Wrong("the answer goes round in circles".to_owned())),
            }
            let (again, _) = self.send(node, ends, &later(ends, protocol))?;
            if again != fate {
                return Ok(Fate::Wrong(format!("first {fate:?}, then {again:?}")));
            }
        }
        Ok(fate)
    }

    /// Sends a packet of a client; for one that arrives at a backend, says where that is.
    fn send(&self, node: &str, ends: &Ends, sent: &[u8]) -> anyhow::Result<(Fate, Option<Place<'_>>)> {
        let client = self.place(node, ends)?;
        let first = match client {
            Place::Outside => Hop::FromWire(self.member(node)?),
            client => self.sender(client, sent)?,
        };
        let (place, frame) = match self.carry(first, sent.to_vec())? {
            Progress::Arrived(place, frame) => (place, frame),
            Progress::Lost(why) => return Ok((Fate::Drop(why), None)),
            Progress::On(..) => return Ok((Fate::Wrong("it goes round in circles".to_owned()), None)),
        };
        let bad = wrong_checksums(&frame);
        let tuple = read_tuple(&frame);
        let fate = if !bad.is_empty() {
            Fate::Wrong(format!("{tuple:?}: {bad:?}"))
        } else if place == client && is_port_unreachable(&frame, sent) {
            Fate::Reject
        } else if tuple == *ends {
            Fate::Pass
        } else if place == Place::Outside {
            Fate::Wrong(format!("leaves the cluster as {tuple:?}"))
        } else {
            let backend = SocketAddr::new(tuple.dst, tuple.dport);
            let source = SocketAddr::new(tuple.src, tuple.sport);
            return Ok((Fate::Dnat { backend, source }, Some(place)));
        };
        Ok((fate, None))
    }

    /// Where the client of a connection is that a node is to handle.
    fn place(&self, node: &str, ends: &Ends) -> anyhow::Result<Place<'_>> {
        let member = self.member(node)?;
        Ok(if member.machine.has(&ends.src) {
            Place::Pod
        } else if member.datapath.node_addresses.contains(&ends.src) {
            Place::Node(member.name)
        } else {
            Place::Outside
        })
    }

    /// Where a packet begins that is sent here.
    fn sender<'a>(&'a self, place: Place<'a>, frame: &[u8]) -> anyhow::Result<Hop<'a>> {
        let src = read_tuple(frame).src;
        Ok(match place {
            Place::Pod => {
                let member = self.members().find(|member| member.machine.has(&src));
                Hop::FromPod(member.with_context(|| format!("no pod has {src}"))?)
            }
            Place::Node(name) => Hop::Stack(self.member(name)?, 0),
            Place::Outside => anyhow::bail!("{src} is outside: which node does it send to?"),
        })
    }

    /// Carries a packet to where it ends.
    fn carry<'a>(&'a self, first: Hop<'a>, sent: Vec<u8>) -> anyhow::Result<Progress<'a>> {
        let mut progress = Progress::On(first, sent);
        for _ in 0..HOPS {
            let Progress::On(hop, frame) = progress else { return Ok(progress) };
            progress = self.step(hop, frame)?;
        }
        Ok(progress)
    }

    fn step<'a>(&'a self, hop: Hop<'a>, mut frame: Vec<u8>) -> anyhow::Result<Progress<'a>> {
        let dst = read_tuple(&frame).dst;
        let (member, program, at, mark) = match hop {
            Hop::Stack(member, ingress) => {
                let is_own = member.datapath.node_addresses.contains(&dst);
                return Ok(if is_own && ingress == 0 {
                    Progress::On(Hop::ToItself(member), frame)
                } else if is_own {
                    Progress::Arrived(Place::Node(member.name), frame)
                } else if member.machine.has(&dst) {
                    Progress::On(Hop::ToPod(member, ingress, 0), frame)
                } else {
                    Progress::On(Hop::ToWire(member, ingress), frame)
                });
            }
            Hop::FromPod(member) => {
                let &Interface { ifindex, mac } = member.machine.interface(&read_tuple(&frame).src)?;
                frame[6..12].copy_from_slice(&mac);
                (member, Program::FromPod, At { ifindex, ingress: ifindex }, 0)
            }
            Hop::FromWire(member) => {
                let ifindex = member.machine.uplink();
                (member, Program::Edge, At { ifindex, ingress: ifindex }, 0)
            }
            Hop::FromUplink(member) => {
                let ifindex = member.machine.uplink();
                (member, Program::FromUplink, At { ifindex, ingress: ifindex }, 0)
            }
            Hop::ToPod(member, ingress, mark) => {
                let ifindex = member.machine.interface(&dst)?.ifindex;
                (member, Program::ToPod, At { ifindex, ingress }, mark)
            }
            Hop::ToWire(member, ingress) => {
                (member, Program::ToUplink, At { ifindex: member.machine.uplink(), ingress }, 0)
            }
            Hop::ToItself(member) => (member, Program::ToUplink, At { ifindex: LOOPBACK, ingress: 0 }, 0),
        };
        Ok(match member.machine.pass(program, at, mark, &frame)? {
            Passage::Dropped(reason) => {
                Progress::Lost(format!("{} on {}: {reason}", program.name(), member.name))
            }
            Passage::Redirected(frame, mark) => self.redirected(member, frame, mark)?,
            Passage::Stack(frame) => match program {
                Program::FromPod | Program::FromUplink => Progress::On(Hop::Stack(member, at.ifindex), frame),
                Program::ToPod => Progress::Arrived(Place::Pod, frame),
                Program::ToUplink if at.ifindex == LOOPBACK => {
                    Progress::Arrived(Place::Node(member.name), frame)
                }
                Program::ToUplink => self.on_wire(member, frame),
                Program::Edge => Progress::On(Hop::FromUplink(member), frame),
            },
        })
    }

    /// A packet that a program sent past the stack. Where to, the kernel does not tell; its destination does, and
    /// the MAC address of a pod that it was handed to.
    fn redirected<'a>(
        &'a self,
        member: Member<'a>,
        frame: Vec<u8>,
        mark: u32,
    ) -> anyhow::Result<Progress<'a>> {
        let dst = read_tuple(&frame).dst;
        if !member.machine.has(&dst) {
            return Ok(if member.datapath.node_addresses.contains(&dst) {
                Progress::Arrived(Place::Node(member.name), frame)
            } else {
                self.on_wire(member, frame)
            });
        }
        if frame[..6] != member.machine.interface(&dst)?.mac {
            return Ok(Progress::Lost(format!("handed to {dst} with another MAC address")));
        }
        Ok(if mark == MARK_JUDGED {
            Progress::On(Hop::ToPod(member, 0, mark), frame)
        } else {
            Progress::Arrived(Place::Pod, frame)
        })
    }

    /// A packet that has left a node for whoever has its destination address.
    fn on_wire<'a>(&'a self, from: Member<'a>, frame: Vec<u8>) -> Progress<'a> {
        let dst = read_tuple(&frame).dst;
        let has =
            |member: &Member<'_>| member.machine.has(&dst) || member.datapath.node_addresses.contains(&dst);
        match self.members().find(has) {
            Some(member) if member.name == from.name => {
                Progress::Lost(format!("{} sends it to itself", from.name))
            }
            Some(member) => Progress::On(Hop::FromWire(member), frame),
            None => Progress::Arrived(Place::Outside, frame),
        }
    }

    fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.network
            .nodes
            .iter()
            .filter_map(|(name, datapath)| Some(Member { name, datapath, machine: self.machines.get(name)? }))
    }

    fn member(&self, name: &str) -> anyhow::Result<Member<'_>> {
        self.members().find(|member| member.name == name).with_context(|| format!("no node {name}"))
    }
}
