//! What is measured of weir: which program, on which packets, after which others.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use anyhow::{Result, ensure};
use weir::kernel::Program;

use super::{
    feeder::{At, Feeder, Kind},
    frame::{ACK, Flow, Frame, SYN, SYN_ACK},
    lab::{DIRECT, Lab, SERVICES, TARGETS},
};

/// `TC_ACT_UNSPEC`: on through the stack.
const ON: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
pub(super) const SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`: into a pod.
const REDIRECT: u32 = 7;

const CLIENT: [u8; 4] = [10, 244, 1, 10];
const SERVER: [u8; 4] = [10, 244, 1, 20];
const OTHER: [u8; 4] = [10, 244, 1, 30];
const REMOTE: [u8; 4] = [10, 244, 2, 10];

/// A program and its packets.
pub(super) struct Case {
    /// What the row is called.
    pub(super) subject: &'static str,
    /// The program.
    pub(super) program: Program,
    /// Where the packets are.
    pub(super) at: At,
    /// What it must return.
    pub(super) verdict: u32,
    /// The packets.
    pub(super) frames: Vec<Frame>,
    /// What is sent before, once.
    primes: Vec<Prime>,
}

struct Prime {
    program: Program,
    at: At,
    frames: Vec<Frame>,
}

impl Case {
    /// Opens the flows.
    pub(super) fn prime(&self, lab: &Lab, floors: &Path) -> Result<()> {
        for Prime { program, at, frames } in &self.primes {
            let program = lab.program(*program)?;
            let before = lab.drops()?;
            let feeder = Feeder::new(floors, Kind::Tc, *at, frames, &program)?;
            feeder.run(feeder.frames())?;
            ensure!(lab.drops()? == before, "{}: the flows cannot be opened", self.subject);
        }
        Ok(())
    }
}

/// Cases whose flows are all established.
pub(super) fn known(lab: &Lab, count: u32) -> Vec<Case> {
    let service: Vec<_> = shuffled(service_flows(count));
    let behind: Vec<_> = service.iter().map(|flow| translated(*flow)).collect();
    let direct: Vec<_> = shuffled(direct_flows(CLIENT, SERVER, count));
    let inbound: Vec<_> = shuffled(direct_flows(REMOTE, SERVER, count));
    let outbound: Vec<_> = shuffled(direct_flows(CLIENT, REMOTE, count));
    let prime = |program, at, flows: &[Flow], flags| Prime { program, at, frames: frames(flows, flags) };
    let back = |flows: &[Flow]| flows.iter().map(|flow| flow.back()).collect::<Vec<_>>();
    let opened = || {
        vec![
            prime(Program::FromPod, lab.at_client(), &service, SYN),
            prime(Program::FromPod, lab.at_server(), &back(&behind), SYN_ACK),
        ]
    };
    vec![
        Case {
            subject: "from_pod: to a ClusterIP",
            program: Program::FromPod,
            at: lab.at_client(),
            verdict: REDIRECT,
            frames: frames(&service, ACK),
            primes: opened(),
        },
        Case {
            subject: "from_pod: answer of a ClusterIP",
            program: Program::FromPod,
            at: lab.at_server(),
            verdict: REDIRECT,
            frames: frames(&back(&behind), ACK),
            primes: opened(),
        },
        Case {
            subject: "from_pod: to a pod",
            program: Program::FromPod,
            at: lab.at_client(),
            verdict: REDIRECT,
            frames: frames(&direct, ACK),
            primes: vec![
                prime(Program::FromPod, lab.at_client(), &direct, SYN),
                prime(Program::FromPod, lab.at_server(), &back(&direct), SYN_ACK),
            ],
        },
        Case {
            subject: "to_pod: from another node",
            program: Program::ToPod,
            at: lab.at_server_door(),
            verdict: ON,
            frames: frames(&inbound, ACK),
            primes: vec![
                prime(Program::ToPod, lab.at_server_door(), &inbound, SYN),
                prime(Program::FromPod, lab.at_server(), &back(&inbound), SYN_ACK),
            ],
        },
        Case {
            subject: "from_uplink: answer to a pod",
            program: Program::FromUplink,
            at: lab.at_uplink(),
            verdict: REDIRECT,
            frames: frames(&back(&outbound), ACK),
            primes: vec![
                prime(Program::FromPod, lab.at_client(), &outbound, SYN),
                prime(Program::FromUplink, lab.at_uplink(), &back(&outbound), SYN_ACK),
            ],
        },
    ]
}

/// Cases in which every packet is of another flow, and the table is full.
pub(super) fn new(lab: &Lab, count: u32) -> Vec<Case> {
    let case = |subject, program, at, verdict, flows: Vec<Flow>| {
        let frames = frames(&flows, SYN);
        Case { subject, program, at, verdict, frames, primes: Vec::new() }
    };
    let denied = service_flows(count).map(|flow| Flow { from: from(OTHER, flow.from.port()), ..flow });
    let (inbound, outside) = (direct_flows(REMOTE, SERVER, count), direct_flows(REMOTE, OTHER, count));
    vec![
        case(
            "from_pod: to a ClusterIP",
            Program::FromPod,
            lab.at_client(),
            REDIRECT,
            shuffled(service_flows(count)),
        ),
        case(
            "from_pod: to a pod",
            Program::FromPod,
            lab.at_client(),
            REDIRECT,
            shuffled(direct_flows(CLIENT, SERVER, count)),
        ),
        case("from_pod: denied", Program::FromPod, lab.at_other(), SHOT, shuffled(denied)),
        case("to_pod: from another node", Program::ToPod, lab.at_server_door(), ON, shuffled(inbound)),
        case("from_uplink: not ours", Program::FromUplink, lab.at_uplink(), ON, shuffled(outside)),
    ]
}

/// Flows of the client to the services.
pub(super) fn service_flows(count: u32) -> impl Iterator<Item = Flow> {
    ports(count)
        .map(|(number, port)| Flow { from: from(CLIENT, port), to: from([10, 96, 0, number as u8 + 1], 80) })
}

/// Flows to ports that no service stands before.
fn direct_flows(source: [u8; 4], target: [u8; 4], count: u32) -> impl Iterator<Item = Flow> {
    ports(count)
        .map(move |(number, port)| Flow { from: from(source, port), to: from(target, DIRECT + number) })
}

/// What the server sees of a flow to a service.
fn translated(flow: Flow) -> Flow {
    let number = u16::from(flow.to.ip().octets()[3]) - 1;
    Flow { to: from(SERVER, TARGETS + number), ..flow }
}

/// So many pairs of a service's number and a client's port.
fn ports(count: u32) -> impl Iterator<Item = (u16, u16)> {
    let services = u32::from(SERVICES);
    (0..count).map(move |number| ((number % services) as u16, (1024 + number / services) as u16))
}

fn from(address: [u8; 4], port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address), port)
}

fn frames(flows: &[Flow], flags: u8) -> Vec<Frame> {
    flows.iter().map(|flow| flow.frame(flags)).collect()
}

/// In an order that no prefetcher guesses, the same each time.
fn shuffled(flows: impl Iterator<Item = Flow>) -> Vec<Flow> {
    let mut flows: Vec<_> = flows.collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..flows.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        flows.swap(last, (state % (last as u64 + 1)) as usize);
    }
    flows
}
