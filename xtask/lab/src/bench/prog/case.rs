//! What is measured of weir: which program, on which packets, after which others.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use anyhow::{Result, ensure};
use weir::kernel::Program;

use super::{
    cluster::{CLOSED, DIRECT, Exposed, FRONTS, SERVICES, TARGETS, TRANSLATED, TUNNELLED},
    feeder::{Feeder, Kind},
    frame::{ACK, Flow, Frame, SYN, SYN_ACK},
    lab::{Lab, Place},
};

/// `TC_ACT_UNSPEC`: on through the stack.
const ON: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
pub(super) const SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`: into a pod, or out by the uplink.
const REDIRECT: u32 = 7;
/// `XDP_DROP`.
const XDP_DROP: u32 = 1;
/// `XDP_TX`.
const XDP_TX: u32 = 3;

/// A pod that calls others.
pub(super) const CLIENT: [u8; 4] = [10, 244, 1, 10];
/// A pod that the services lead to.
pub(super) const SERVER: [u8; 4] = [10, 244, 1, 20];
/// A pod that nobody lets in.
pub(super) const OTHER: [u8; 4] = [10, 244, 1, 30];
/// A pod of another node.
pub(super) const REMOTE: [u8; 4] = [10, 244, 2, 10];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];

/// A pod calls a service.
pub(in crate::bench) const TO_SERVICE: &str = "from_pod: to a ClusterIP";
/// From outside to a service by DSR: into a tunnel.
pub(in crate::bench) const TUNNEL: &str = "edge: to a service, IP in IP";
/// From outside to a service: the destination becomes the backend, the source the node.
pub(in crate::bench) const NAT: &str = "edge: to a service, DNAT and SNAT";
/// From outside to a service, by somebody who may not use it.
pub(in crate::bench) const DENIED: &str = "edge: denied source";

/// A program and its packets.
pub(super) struct Case {
    /// What the row is called.
    pub(super) subject: &'static str,
    /// The program.
    pub(super) program: Program,
    /// Where the packets are.
    pub(super) place: Place,
    /// What it must return.
    pub(super) verdict: u32,
    /// The packets.
    pub(super) frames: Vec<Frame>,
    /// What is sent before, once.
    primes: Vec<Prime>,
}

struct Prime {
    program: Program,
    place: Place,
    frames: Vec<Frame>,
}

impl Case {
    /// Opens the flows.
    pub(super) fn prime(&self, lab: &Lab, floors: &Path) -> Result<()> {
        for Prime { program, place, frames } in &self.primes {
            let (kind, program) = (kind_of(*program), lab.program(*program)?);
            let before = lab.drops()?;
            let feeder = Feeder::new(floors, kind, lab.at(*place), frames, &program)?;
            feeder.run(feeder.frames())?;
            ensure!(lab.drops()? == before, "{}: the flows cannot be opened", self.subject);
        }
        Ok(())
    }

    /// Whether its packets are to be dropped.
    pub(super) fn is_denied(&self) -> bool {
        self.verdict == if self.program == Program::Edge { XDP_DROP } else { SHOT }
    }
}

/// Where a program runs.
pub(super) fn kind_of(program: Program) -> Kind {
    if program == Program::Edge { Kind::Xdp } else { Kind::Tc }
}

/// Cases at TC whose flows are all established.
pub(super) fn known(count: u32) -> Vec<Case> {
    let service = shuffled(service_flows(count));
    let direct = shuffled(direct_flows(CLIENT, SERVER, count));
    let inbound = shuffled(direct_flows(REMOTE, SERVER, count));
    let outbound = shuffled(direct_flows(CLIENT, REMOTE, count));
    let behind: Vec<_> = service.iter().map(|flow| translated(*flow)).collect();
    let back = |flows: &[Flow]| flows.iter().map(|flow| flow.back()).collect::<Vec<_>>();
    let opened = || {
        vec![
            prime(Program::FromPod, Place::Client, &service, SYN),
            prime(Program::FromPod, Place::Server, &back(&behind), SYN_ACK),
        ]
    };
    let case = |subject, program, place, verdict, flows: &[Flow], primes| {
        let frames = frames(flows, ACK);
        Case { subject, program, place, verdict, frames, primes }
    };
    vec![
        case(TO_SERVICE, Program::FromPod, Place::Client, REDIRECT, &service, opened()),
        case(
            "from_pod: answer of a ClusterIP",
            Program::FromPod,
            Place::Server,
            REDIRECT,
            &back(&behind),
            opened(),
        ),
        case(
            "from_pod: to a pod",
            Program::FromPod,
            Place::Client,
            REDIRECT,
            &direct,
            vec![
                prime(Program::FromPod, Place::Client, &direct, SYN),
                prime(Program::FromPod, Place::Server, &back(&direct), SYN_ACK),
            ],
        ),
        case(
            "to_pod: from another node",
            Program::ToPod,
            Place::ServerDoor,
            ON,
            &inbound,
            vec![
                prime(Program::ToPod, Place::ServerDoor, &inbound, SYN),
                prime(Program::FromPod, Place::Server, &back(&inbound), SYN_ACK),
            ],
        ),
        case(
            "from_uplink: answer to a pod",
            Program::FromUplink,
            Place::Uplink,
            REDIRECT,
            &back(&outbound),
            vec![
                prime(Program::FromPod, Place::Client, &outbound, SYN),
                prime(Program::FromUplink, Place::Uplink, &back(&outbound), SYN_ACK),
            ],
        ),
    ]
}

/// Cases at XDP whose flows are all established, and one whose packets are dropped before they could open any.
pub(super) fn known_at_edge(count: u32) -> Vec<Case> {
    let tunnelled = shuffled(outside_flows(&TUNNELLED, count));
    let translated = shuffled(outside_flows(&TRANSLATED, count));
    let edge = |subject, flows: &[Flow], primes| Case {
        subject,
        program: Program::Edge,
        place: Place::Uplink,
        verdict: XDP_TX,
        frames: frames(flows, ACK),
        primes,
    };
    vec![
        edge(TUNNEL, &tunnelled, vec![prime(Program::Edge, Place::Uplink, &tunnelled, SYN)]),
        // Flows that take a port of the node are opened at TC.
        edge(NAT, &translated, vec![prime(Program::FromUplink, Place::Uplink, &translated, SYN)]),
        denied_at_edge(count),
    ]
}

/// Cases at TC in which every packet is of another flow, and the table is full.
pub(super) fn new(count: u32) -> Vec<Case> {
    let case = |subject, program, place, verdict, flows: Vec<Flow>| Case {
        subject,
        program,
        place,
        verdict,
        frames: frames(&flows, SYN),
        primes: Vec::new(),
    };
    let denied = service_flows(count).map(|flow| Flow { from: from(OTHER, flow.from.port()), ..flow });
    let (inbound, outside) = (direct_flows(REMOTE, SERVER, count), direct_flows(REMOTE, OTHER, count));
    let service = shuffled(service_flows(count));
    let direct = shuffled(direct_flows(CLIENT, SERVER, count));
    vec![
        case(TO_SERVICE, Program::FromPod, Place::Client, REDIRECT, service),
        case("from_pod: to a pod", Program::FromPod, Place::Client, REDIRECT, direct),
        case("from_pod: denied", Program::FromPod, Place::Other, SHOT, shuffled(denied)),
        case("to_pod: from another node", Program::ToPod, Place::ServerDoor, ON, shuffled(inbound)),
        case("from_uplink: not ours", Program::FromUplink, Place::Uplink, ON, shuffled(outside)),
    ]
}

/// The same at XDP.
pub(super) fn new_at_edge(count: u32) -> Vec<Case> {
    let flows = shuffled(outside_flows(&TUNNELLED, count));
    vec![Case {
        subject: TUNNEL,
        program: Program::Edge,
        place: Place::Uplink,
        verdict: XDP_TX,
        frames: frames(&flows, SYN),
        primes: Vec::new(),
    }]
}

fn denied_at_edge(count: u32) -> Case {
    Case {
        subject: DENIED,
        program: Program::Edge,
        place: Place::Uplink,
        verdict: XDP_DROP,
        frames: frames(&shuffled(outside_flows(&CLOSED, count)), SYN),
        primes: Vec::new(),
    }
}

fn prime(program: Program, place: Place, flows: &[Flow], flags: u8) -> Prime {
    Prime { program, place, frames: frames(flows, flags) }
}

/// Flows from outside to a service.
fn outside_flows(service: &Exposed, count: u32) -> impl Iterator<Item = Flow> {
    let address = service.address;
    ports(count)
        .map(move |(number, port)| Flow { from: from(OUTSIDE, port), to: from(address, FRONTS + number) })
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
pub(super) fn shuffled<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<_> = items.collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
    items
}
