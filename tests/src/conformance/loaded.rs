//! The loaded programs of all nodes: each connection is a first packet and its answer, by `BPF_PROG_TEST_RUN`.
//!
//! What decides is compared with the compiled datapath: the programs may never name another rule.

pub(super) mod machine;
pub(super) mod packet;

use std::{collections::BTreeMap, net::IpAddr, path::Path as FilePath};

use anyhow::{Context as _, ensure};
use weir::{
    compile::Numbers,
    datapath::{Backend, Connection, Decision, Frontend, Judgement, Network, Path},
};

use weir_common::state::events;

pub(super) use self::packet::{hash, number};
use self::{
    machine::{Machine, Rules, Step},
    packet::frame,
};
use super::{Change, Level, Observation, service};
use crate::packets::{Ends, read_tuple};

/// Ports tried to reach a certain backend.
const TRIES: usize = 10_000;
/// So many that no set of the flow tables gets full in a run of all cases.
const FLOW_SETS: u32 = 1 << 15;

/// The level `kernel`. Needs root, and a network namespace of its own: see [`crate::packets::in_namespace`].
#[derive(Debug, Default)]
pub struct Loaded {
    numbers: BTreeMap<String, Numbers>,
    network: Network,
    machines: BTreeMap<String, Machine>,
    /// Nodes of their own for cases about services.
    fabric: service::Fabric,
}

/// Who has an address.
#[derive(Clone, Copy)]
enum Owner<'a> {
    /// A pod of this machine.
    Pod(&'a Machine),
    /// This machine itself.
    Node(&'a Machine),
    /// Nobody in the cluster.
    Outside,
}

/// What became of a first packet and its answer.
struct Ran {
    /// Whether both arrived, or what went wrong.
    arrived: Result<(), String>,
    /// What the first packet was when it arrived.
    tuple: Option<Ends>,
    /// The rules that the programs named, of the sender's end and of the receiver's.
    rules: Rules,
}

impl Level for Loaded {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn enforce(&mut self, change: &Change<'_>) -> anyhow::Result<BTreeMap<usize, String>> {
        // Numbers go on from case to case, as do the maps: what they stand for changes like in any commit.
        self.network = Network::compile(change.cluster, &mut self.numbers)?;
        for (name, datapath) in &self.network.nodes {
            if !self.machines.contains_key(name) {
                let machine = Machine::open(FLOW_SETS, events::DROPS | events::FLOWS)?;
                self.machines.insert(name.clone(), machine);
            }
            let machine = self.machines.get_mut(name).context("it is there now")?;
            machine.commit(datapath).with_context(|| format!("node {name}"))?;
            self.numbers.entry(name.clone()).or_default().retain(datapath);
        }
        Ok(BTreeMap::new())
    }

    fn connect(&mut self, connection: &Connection) -> anyhow::Result<Observation> {
        Ok(match self.network.connect(connection) {
            Judgement::Direct(_) if self.is_loopback(connection) => {
                Observation::Direct(true, "it does not leave the pod".to_owned())
            }
            Judgement::Direct(path) => {
                let (open, why) = self.compare(connection, &path, &self.ends(connection))?;
                Observation::Direct(open, why)
            }
            Judgement::Balanced(paths) => {
                let observe = |(backend, path): (Backend, Path)| {
                    let ends = self.ends_to(connection, &backend)?;
                    Ok((backend, self.compare(connection, &path, &ends)?))
                };
                Observation::Balanced(paths.into_iter().map(observe).collect::<anyhow::Result<_>>()?)
            }
            Judgement::InvalidSource | Judgement::Dropped | Judgement::Rejected => {
                let ran = self.run(connection, &self.ends(connection))?;
                Observation::Direct(ran.arrived.is_ok(), ran.arrived.err().unwrap_or_default())
            }
        })
    }

    fn run_service_case(&mut self, directory: &FilePath) -> anyhow::Result<Option<service::Report>> {
        service::run_on(&mut self.fabric, directory).map(Some)
    }
}

impl Loaded {
    /// Packets of service cases that the edge has sent on, before there was an skb.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn sent_on_at_edge(&self) -> anyhow::Result<u64> {
        self.fabric.sent_on()
    }

    /// Runs a connection and compares the rules that decided with those of the datapath.
    fn compare(&self, connection: &Connection, path: &Path, ends: &Ends) -> anyhow::Result<(bool, String)> {
        let ran = self.run(connection, ends)?;
        let differs =
            |expected: Option<Decision>, found| expected.is_some_and(|decision| found != decision.rule);
        let egress_denies = path.egress.is_some_and(|decision| !decision.allowed);
        ensure!(
            !differs(path.egress, ran.rules.egress)
                && (egress_denies || !differs(path.ingress, ran.rules.ingress)),
            "the programs name the rules {:?}, the datapath says {path:?}; {:?}",
            ran.rules,
            ran.arrived
        );
        let why = format!("rules {:?}; {}", ran.rules, ran.arrived.as_ref().err().map_or("", |text| text));
        Ok((ran.arrived.is_ok(), why))
    }

    /// The ends of a connection, from a new port.
    #[expect(clippy::unused_self, reason = "beside `ends_to`")]
    fn ends(&self, connection: &Connection) -> Ends {
        let (src, dst) = (connection.source.to_string(), connection.destination.to_string());
        Ends::new(&src, &dst, connection.port)
    }

    /// The same, from a port whose connections go to this backend of the service.
    fn ends_to(&self, connection: &Connection, backend: &Backend) -> anyhow::Result<Ends> {
        let asked = self.network.nodes.iter().find(|(name, _)| match self.owner(connection.source) {
            Owner::Pod(machine) | Owner::Node(machine) => {
                std::ptr::eq(&raw const self.machines[*name], machine)
            }
            Owner::Outside => true,
        });
        let (_, datapath) = asked.context("there is no node")?;
        let frontend = Frontend {
            address: connection.destination,
            port: connection.port,
            protocol: number(connection.protocol),
        };
        let ring = &datapath.frontends.get(&frontend).context("there is no such service")?.internal;
        let ends = (0..TRIES).map(|_| self.ends(connection));
        let mut found =
            ends.filter(|ends| ring.at((hash(ends, frontend.protocol) >> 32) as usize) == *backend);
        found.next().context("no port leads to the backend")
    }

    /// Sends the first packet of a connection through the programs of the nodes that it crosses, then its answer.
    fn run(&self, connection: &Connection, ends: &Ends) -> anyhow::Result<Ran> {
        let mut ran = Ran { arrived: Ok(()), tuple: None, rules: Rules::default() };
        let first = frame(ends, connection.protocol, true);
        let Some(tuple) = self.carry(ends, first, &mut ran)? else { return Ok(ran) };
        ran.tuple = Some(tuple);
        let answer = frame(&tuple.back(), connection.protocol, false);
        let mut back = Ran { arrived: Ok(()), tuple: None, rules: Rules::default() };
        match self.carry_back(&tuple.back(), ends, answer, &mut back)? {
            Some(arrived) => {
                ensure!(arrived == ends.back(), "the answer arrives as {arrived:?} for {ends:?}");
            }
            None => ran.arrived = back.arrived.map_err(|why| format!("the answer: {why}")),
        }
        Ok(ran)
    }

    /// Carries a first packet from its source to where it goes; gives what it is there.
    fn carry(&self, ends: &Ends, frame: Vec<u8>, ran: &mut Ran) -> anyhow::Result<Option<Ends>> {
        let source = self.owner(ends.src);
        let step = match source {
            Owner::Pod(machine) => Some(machine.sent_by_pod(&ends.src, &frame, true)?),
            Owner::Node(machine) if !machine.has(&ends.dst) => {
                Some(machine.leave(&frame, self.is_service(&ends.dst))?)
            }
            Owner::Node(_) | Owner::Outside => None,
        };
        let frame = match step {
            None => frame,
            Some(Step::Stack(frame, rules)) => {
                ran.rules = rules.unwrap_or_default();
                frame
            }
            Some(Step::HandedOver(frame, rules)) => {
                ran.rules = rules.unwrap_or_default();
                return Ok(Some(read_tuple(&frame)));
            }
            Some(Step::Dropped(reason, rules)) => {
                (ran.arrived, ran.rules) = (Err(reason), rules);
                return Ok(None);
            }
        };
        let tuple = read_tuple(&frame);
        let Owner::Pod(there) = self.owner(tuple.dst) else { return Ok(Some(tuple)) };
        let step = match source {
            Owner::Node(machine) if std::ptr::eq(machine, there) => {
                there.sent_to_pod(&tuple.dst, true, &frame, true)?
            }
            _ => there.arrive_at_pod(&tuple.dst, &frame, true)?,
        };
        match step {
            Step::Dropped(reason, rules) => {
                (ran.arrived, ran.rules.ingress) = (Err(reason), rules.ingress);
                Ok(None)
            }
            Step::Stack(frame, rules) | Step::HandedOver(frame, rules) => {
                ran.rules.ingress = rules.unwrap_or_default().ingress;
                Ok(Some(read_tuple(&frame)))
            }
        }
    }

    /// Carries an answer from `tuple.src` to who opened the connection with `ends`.
    fn carry_back(
        &self,
        tuple: &Ends,
        ends: &Ends,
        frame: Vec<u8>,
        ran: &mut Ran,
    ) -> anyhow::Result<Option<Ends>> {
        let client = self.owner(ends.src);
        let mut frame = frame;
        let sender = self.owner(tuple.src);
        if let Owner::Pod(machine) = sender {
            match machine.sent_by_pod(&tuple.src, &frame, false)? {
                Step::Dropped(reason, _) => {
                    ran.arrived = Err(reason);
                    return Ok(None);
                }
                Step::HandedOver(frame, _) => return Ok(Some(read_tuple(&frame))),
                Step::Stack(passed, _) => frame = passed,
            }
        }
        let step = match (client, sender) {
            (Owner::Pod(machine), Owner::Pod(here) | Owner::Node(here)) if std::ptr::eq(machine, here) => {
                machine.sent_to_pod(&ends.src, matches!(sender, Owner::Node(_)), &frame, false)?
            }
            (Owner::Pod(machine), _) => machine.arrive_at_pod(&ends.src, &frame, false)?,
            (Owner::Node(machine), Owner::Pod(sender)) if std::ptr::eq(machine, sender) => {
                return Ok(Some(read_tuple(&frame)));
            }
            (Owner::Node(machine), _) => machine.arrive(&frame)?,
            (Owner::Outside, _) => return Ok(Some(read_tuple(&frame))),
        };
        match step {
            Step::Dropped(reason, _) => {
                ran.arrived = Err(reason);
                Ok(None)
            }
            Step::Stack(frame, _) | Step::HandedOver(frame, _) => Ok(Some(read_tuple(&frame))),
        }
    }

    /// Whether both ends are one pod: no program sees what its own kernel loops back.
    fn is_loopback(&self, connection: &Connection) -> bool {
        let nodes = || self.network.nodes.values();
        let pod = |address| nodes().find_map(|node| Some(&node.endpoints.get(address)?.pod));
        let from = pod(&connection.source);
        from.is_some() && from == pod(&connection.destination)
    }

    fn is_service(&self, address: &IpAddr) -> bool {
        let mut frontends = self.network.nodes.values().flat_map(|datapath| datapath.frontends.keys());
        frontends.any(|frontend| frontend.address == *address)
    }

    fn owner(&self, address: IpAddr) -> Owner<'_> {
        for (name, datapath) in &self.network.nodes {
            if datapath.endpoints.contains_key(&address) {
                return Owner::Pod(&self.machines[name]);
            }
            if datapath.node_addresses.contains(&address) {
                return Owner::Node(&self.machines[name]);
            }
        }
        Owner::Outside
    }
}
