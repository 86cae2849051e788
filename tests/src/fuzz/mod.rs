//! Differential fuzzing: random packets through the loaded programs and through an [`Oracle`] that shares
//! nothing with them but the compiled datapath. Verdict, reason and every byte must be the same.

mod answer;
mod epochs;
mod facts;
mod generate;
mod oracle;
mod parse;
mod rewrite;

use std::{
    fmt::Write as _,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use weir::kernel::Program;

use self::rewrite::Change;
pub use self::{
    epochs::CLUSTER,
    generate::{Generator, Sent},
    oracle::{Expected, Hook, Oracle},
};
use self::{
    epochs::clusters,
    facts::ends,
    parse::{Frame, parse},
};
use crate::packets::{At, Lab, ip_command};

/// After so many packets the flow tables are emptied, before a set of theirs may be full.
const ROUND: u64 = 4_000;
/// And after so long, before a flow may end by itself: the model knows no time. Shorter, and a slow machine would send
/// other packets than a quick one. A flow looks whether its other direction is still there after five seconds, which
/// a round must not take for long runs.
const ROUND_TIME: Duration = Duration::from_secs(20);
/// Packets from one change of the cluster to the next.
const EPOCH: u64 = 900;
/// Packets from one line about a long run to the next.
const REPORT: u64 = 100_000;
/// How long the kernel takes to report the multicast groups of an interface that comes up.
const REPORTS: Duration = Duration::from_secs(3);

/// Where a packet turns up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A pod of this node sends it.
    Pod(&'static str),
    /// It comes in by the uplink.
    Uplink,
    /// The node itself sends it.
    Node,
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Judged by a program.
    pub judged: u64,
    /// Dropped, by both.
    pub dropped: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Handed over past the stack, by both.
    pub redirected: u64,
    /// Changed on the way.
    pub changed: u64,
    /// Sent on at the edge.
    pub edge: u64,
    /// Put into a tunnel, or taken out of one.
    pub tunnelled: u64,
    /// Of flows that an earlier datapath decided, by both.
    pub revisited: u64,
    /// Kept until their first fragment came.
    pub waited: u64,
    /// Sent once more, with what waited for them.
    pub again: u64,
}

/// Sends `count` packets of this seed, in a laboratory on the first node of [`CLUSTER`].
///
/// # Errors
/// The first difference, with all that is needed to see it again.
pub fn run(lab: &mut Lab, seed: u64, count: u64) -> Result<Tally, String> {
    connect(lab);
    let mut fuzz = Fuzz {
        lab,
        oracle: None,
        generator: Generator::new(seed),
        tally: Tally::default(),
        begun: Instant::now(),
    };
    let clusters = clusters();
    for number in 0..count {
        if number % ROUND == 0 || fuzz.begun.elapsed() > ROUND_TIME {
            fuzz.start_over();
        }
        if number % EPOCH == 0 {
            fuzz.apply(&clusters[(number / EPOCH) as usize % clusters.len()]);
        }
        if number % REPORT == 0 && number != 0 {
            println!("{number} packets: {:?}", fuzz.tally);
        }
        let sent = fuzz.generator.packet();
        fuzz.send(&sent).map_err(|difference| describe(seed, number, &sent, &difference))?;
    }
    fuzz.tally.revisited += fuzz.oracle().revisited();
    Ok(fuzz.tally)
}

/// Gives the node a way to everybody: the edge asks for it.
fn connect(lab: &Lab) {
    lab.route_out();
    for (address, _) in lab.interfaces() {
        // Not by the uplink.
        ip_command(&format!("route add {address} dev lo"));
    }
    thread::sleep(REPORTS);
    // Those of the node's stack are not the first packet's.
    lab.counted();
}

struct Fuzz<'l> {
    lab: &'l mut Lab,
    oracle: Option<Oracle>,
    generator: Generator,
    tally: Tally,
    /// When the round began.
    begun: Instant,
}

impl Fuzz<'_> {
    fn start_over(&mut self) {
        self.lab.forget_all();
        self.lab.forget_clients();
        let pods = self.lab.interfaces().map(|(address, pod)| (address, (pod.ifindex, pod.mac))).collect();
        let old = self.oracle.replace(Oracle::new(self.lab.datapath().clone(), pods));
        self.tally.revisited += old.map_or(0, |old| old.revisited());
        self.begun = Instant::now();
    }

    fn apply(&mut self, cluster: &str) {
        self.lab.commit(cluster);
        let datapath = self.lab.datapath().clone();
        self.oracle().apply(datapath);
    }

    const fn oracle(&mut self) -> &mut Oracle {
        self.oracle.as_mut().expect("a round has begun")
    }

    /// Takes a frame through the programs that it meets.
    fn send(&mut self, sent: &Sent) -> Result<(), String> {
        let uplink = self.lab.uplink();
        if sent.side == Side::Uplink && self.meet_edge(&sent.frame)? {
            return Ok(());
        }
        let (program, at, hook) = match (sent.side, self.stack(&sent.frame)) {
            (Side::Pod(name), _) => {
                let ifindex = self.lab.pod(name).ifindex;
                (Program::FromPod, At { ifindex, ingress: ifindex }, Hook::FromPod(ifindex))
            }
            (Side::Uplink, _) => {
                (Program::FromUplink, At { ifindex: uplink, ingress: uplink }, Hook::FromUplink)
            }
            (Side::Node, Some(ifindex)) => {
                (Program::ToPod, At { ifindex, ingress: 0 }, Hook::NodeToPod(ifindex))
            }
            (Side::Node, None) => (Program::ToUplink, At { ifindex: uplink, ingress: 0 }, Hook::ToUplink),
        };
        let Some(frame) = self.judge(program, at, hook, &sent.frame)? else { return Ok(()) };
        // What the stack then gives to a pod.
        if let (Side::Uplink, Some(ifindex)) = (sent.side, self.stack(&frame)) {
            self.judge(Program::ToPod, At { ifindex, ingress: uplink }, Hook::ToPod(ifindex), &frame)?;
        }
        Ok(())
    }

    /// Takes a frame through the edge, and compares; whether it was sent on.
    fn meet_edge(&mut self, frame: &[u8]) -> Result<bool, String> {
        let expected = self.oracle().meet_edge(frame);
        match (expected, self.lab.judge_at_edge(frame)) {
            (Ok(None), Ok(None)) => Ok(false),
            (Err(reason), Err(found)) if reason == found => Ok(true),
            (Ok(Some(change)), Ok(Some(sent))) => {
                self.compare("edge", &change, frame, &sent)?;
                self.tally.edge += 1;
                self.remember(true, Hook::FromUplink, &sent);
                Ok(true)
            }
            (expected, sent) => Err(format!("edge: expected {expected:?}, got {sent:02x?}")),
        }
    }

    fn compare(&mut self, hook: &str, change: &Change, frame: &[u8], passed: &[u8]) -> Result<(), String> {
        self.tally.changed += u64::from(!change.is_none());
        self.tally.tunnelled += u64::from(change.is_of_tunnel());
        change
            .check(frame, passed)
            .map_err(|wrong| format!("{hook}: {wrong}\nout {}\nexpected {change:?}", hex(passed)))
    }

    /// The interface that the node's stack routes a packet to, if that is a pod's.
    fn stack(&mut self, frame: &[u8]) -> Option<u32> {
        self.oracle().interface(destination(frame)?)
    }

    /// Runs a program, and compares. Gives the frame when the stack gets it.
    fn judge(
        &mut self,
        program: Program,
        at: At,
        hook: Hook,
        frame: &[u8],
    ) -> Result<Option<Vec<u8>>, String> {
        if self.oracle().is_tired() {
            self.lab.forget_waiting();
            self.oracle().forget_waiting();
        }
        let expected = self.oracle().judge(hook, frame);
        let verdict = match (&expected, self.lab.offer(program, at, frame)) {
            (Expected::Waits, None) => {
                self.tally.waited += 1;
                return Ok(None);
            }
            // Its clones are lost: the interfaces are down.
            (Expected::Again(frames), None) => {
                self.tally.again += 1;
                for frame in frames {
                    self.judge(program, at, hook, frame)?;
                }
                return Ok(None);
            }
            (_, None) => return Err(format!("{hook:?}: expected {expected:?}, it was kept")),
            (_, Some(verdict)) => verdict,
        };
        self.tally.judged += 1;
        match (expected, verdict) {
            (Expected::Dropped(reason), Err(found)) if reason == found => {
                self.tally.dropped += 1;
                let answer = self.lab.answer().map(|answer| answer.frame);
                self.tally.answered += u64::from(answer.is_some());
                let frame = self.oracle().inner(hook, frame);
                answer::wrong(&frame, reason, answer.as_deref())
                    .map_or(Ok(None), |wrong| Err(format!("{hook:?}: {reason:?}: {wrong}")))
            }
            (Expected::Passed { redirected, change }, Ok(passed)) if redirected == passed.is_redirected => {
                self.compare(&format!("{hook:?}"), &change, frame, &passed.frame)?;
                self.tally.redirected += u64::from(redirected);
                self.remember(redirected, hook, &passed.frame);
                Ok((!redirected).then_some(passed.frame))
            }
            (expected, verdict) => Err(format!("{hook:?}: expected {expected:?}, got {verdict:?}")),
        }
    }

    /// Has the generator answer what was delivered.
    fn remember(&mut self, redirected: bool, hook: Hook, frame: &[u8]) {
        let Ok(Frame::Ip(packet)) = parse(frame) else { return };
        let receiver = self.oracle().interface(packet.dst);
        let to = match (receiver, hook) {
            (Some(_), Hook::FromUplink) if !redirected => return,
            (Some(ifindex), _) => {
                let pods = generate::PODS.iter();
                let Some(pod) = pods.map(|pod| pod.0).find(|pod| self.lab.pod(pod).ifindex == ifindex) else {
                    return;
                };
                Side::Pod(pod)
            }
            (None, Hook::FromPod(_) | Hook::ToUplink) => Side::Uplink,
            (None, Hook::FromUplink) if redirected => Side::Uplink,
            (None, _) => return,
        };
        if !packet.is_later() {
            self.generator.delivered(to, frame, ends(&packet), packet.protocol);
        }
    }
}

/// The destination of an IP packet, however malformed the rest is.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => <[u8; 4]>::try_from(frame.get(30..34)?).ok().map(IpAddr::from),
        [0x86, 0xdd] => <[u8; 16]>::try_from(frame.get(38..54)?).ok().map(IpAddr::from),
        _ => None,
    }
}

fn describe(seed: u64, number: u64, sent: &Sent, difference: &str) -> String {
    format!("seed {seed}, packet {number}, {:?}: {difference}\nin  {}", sent.side, hex(&sent.frame))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
