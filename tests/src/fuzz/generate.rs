//! Random packets: conversations between everybody, the answers to them, the errors about them, fragments,
//! and then bytes changed at random.

use std::net::IpAddr;

use fastrand::Rng;
use weir_common::header::protocol;

use super::Side;
use crate::packets::{Ends, fragment_v4, fragment_v6, ip, ip_chain_v6, ip_options_v4, mend_v4};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Addresses of IPv4 and IPv6 of everybody who may send or be sent to.
pub(super) const PODS: [(&str, [&str; 2]); 3] = [
    ("t/a", ["10.244.1.10", "fd00:10:244:1::10"]),
    ("t/b", ["10.244.1.20", "fd00:10:244:1::20"]),
    ("t/c", ["10.244.1.30", "fd00:10:244:1::30"]),
];
const REMOTE: [[&str; 2]; 2] = [["10.244.2.10", "fd00:10:244:2::10"], ["10.244.2.20", "fd00:10:244:2::20"]];
const NODES: [[&str; 2]; 2] = [["192.168.50.11", "fd00:50::11"], ["192.168.50.12", "fd00:50::12"]];
const OUTSIDE: [[&str; 2]; 3] =
    [["203.0.113.9", "2001:db8::9"], ["203.0.113.200", "2001:db8:1::9"], ["198.51.100.7", "2001:db8:2::7"]];
const SERVICES: [[&str; 2]; 9] = [
    ["10.96.0.10", "fd00:10:96::10"],
    ["10.96.0.20", "fd00:10:96::20"],
    ["10.96.0.30", "fd00:10:96::30"],
    ["10.96.0.40", "fd00:10:96::40"],
    ["10.96.0.50", "fd00:10:96::50"],
    ["10.96.0.60", "fd00:10:96::60"],
    ["10.96.0.70", "fd00:10:96::70"],
    ["198.51.100.60", "2001:db8:60::1"],
    ["198.51.100.61", "2001:db8:60::2"],
];
/// Addresses that nobody may have, and those of nobody.
const STRANGE: [[&str; 2]; 4] =
    [["127.0.0.1", "::1"], ["224.0.0.1", "ff02::1"], ["0.0.0.0", "::"], ["10.96.9.9", "fd00:10:96::9:9"]];
const PORTS: [u16; 10] = [80, 8080, 8081, 8082, 53, 5353, 443, 0, 30080, 30081];

/// A frame, and where it turns up.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Whose it is.
    pub side: Side,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What has been delivered, to be answered.
#[derive(Clone, Debug)]
struct Delivered {
    to: Side,
    frame: Vec<u8>,
    ends: Ends,
    protocol: u8,
}

/// Makes packets.
pub struct Generator {
    rng: Rng,
    delivered: Vec<Delivered>,
    sent: Vec<(Side, Ends, u8)>,
    /// Pieces that are still to be sent, the next one last.
    pieces: Vec<Sent>,
}

/// How many packets are remembered.
const MEMORY: usize = 512;

impl Generator {
    /// The same packets for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), delivered: Vec::new(), sent: Vec::new(), pieces: Vec::new() }
    }

    /// The next packet.
    pub fn packet(&mut self) -> Sent {
        if !self.pieces.is_empty() && self.rng.u8(..4) > 0 {
            return self.pieces.pop().expect("there is one");
        }
        let mut sent = match self.rng.u8(..100) {
            0..40 => self.opening(),
            40..70 => self.answer(),
            70..78 => self.again(),
            78..86 => self.error(),
            86..94 => self.fragmented(),
            _ => self.oddity(),
        };
        if self.rng.u8(..12) == 0 {
            self.damage(&mut sent.frame);
        }
        sent
    }

    /// Remembers a frame that reached `to`, so that it can be answered.
    pub fn delivered(&mut self, to: Side, frame: &[u8], ends: Ends, protocol: u8) {
        let delivered = Delivered { to, frame: frame.to_vec(), ends, protocol };
        remember(&mut self.rng, &mut self.delivered, delivered);
    }

    fn opening(&mut self) -> Sent {
        let family = self.rng.usize(..2);
        let (side, src) = self.source(family);
        let dst = self.destination(family);
        let ends = Ends { src: address(src), dst: address(dst), sport: self.sport(), dport: self.dport() };
        let protocol = self.protocol(&ends);
        let flags = self.flags(SYN);
        remember(&mut self.rng, &mut self.sent, (side, ends, protocol));
        Sent { side, frame: self.transport(&ends, protocol, flags) }
    }

    /// From the one who got it, to the one it came from.
    fn answer(&mut self) -> Sent {
        let Some(got) = self.rng.choice(&self.delivered).cloned() else { return self.opening() };
        let ends = got.ends.back();
        let flags = self.flags(SYN | ACK);
        let frame = if got.protocol == ends.icmp_protocol() {
            // An echo's identifier stands where its flow has it.
            if got.ends.sport != 0 { ends.echo_reply() } else { ends.echo_request() }
        } else {
            self.transport(&ends, got.protocol, flags)
        };
        Sent { side: got.to, frame }
    }

    /// More of what was sent before.
    fn again(&mut self) -> Sent {
        let Some((side, ends, protocol)) = self.rng.choice(&self.sent).copied() else {
            return self.opening();
        };
        let flags = self.flags(ACK);
        Sent { side, frame: self.transport(&ends, protocol, flags) }
    }

    /// An ICMP error about something that was delivered: from its receiver, from a router, or from a liar.
    fn error(&mut self) -> Sent {
        let Some(got) = self.rng.choice(&self.delivered).cloned() else { return self.opening() };
        let family = usize::from(got.ends.src.is_ipv6());
        let mut quoted = got.frame[14..].to_vec();
        if self.rng.u8(..6) == 0 {
            let at = self.rng.usize(..quoted.len());
            quoted[at] ^= 1 << self.rng.u8(..8);
        }
        quoted.truncate(self.rng.usize(20..200));
        let src = match self.rng.u8(..4) {
            0 => address(self.rng.choice(OUTSIDE).expect("some")[family]),
            _ => got.ends.dst,
        };
        let dst = if self.rng.u8(..8) == 0 { address(self.destination(family)) } else { got.ends.src };
        let ends = Ends { src, dst, sport: 0, dport: 0 };
        let kinds: &[(u8, u8)] = if family == 0 {
            &[(3, 3), (3, 4), (3, 1), (11, 0), (12, 0), (5, 0), (4, 0)]
        } else {
            &[(1, 4), (2, 0), (3, 0), (4, 1), (137, 0), (100, 0)]
        };
        let (kind, code) = *self.rng.choice(kinds).expect("some");
        let side = if self.rng.u8(..8) == 0 { self.side() } else { got.to };
        Sent { side, frame: ends.icmp(kind, code, 0, &quoted) }
    }

    /// A datagram in pieces: in any order, doubled, overlapping, with one left out.
    fn fragmented(&mut self) -> Sent {
        let family = self.rng.usize(..2);
        let (side, src) = self.source(family);
        let dst = self.destination(family);
        let ends = Ends { src: address(src), dst: address(dst), sport: self.sport(), dport: self.dport() };
        let data: Vec<u8> = (0..self.rng.usize(1..120)).map(|_| self.rng.u8(..)).collect();
        let (number, segment) = match self.rng.u8(..4) {
            0 => (protocol::TCP, ends.tcp_segment(SYN, &[], &data)),
            1 => (
                ends.icmp_protocol(),
                ends.icmp_segment(if family == 0 { 8 } else { 128 }, 0, ends.sport, &data),
            ),
            _ => (protocol::UDP, ends.udp_segment(&data)),
        };
        let id = self.rng.u16(..16);
        let size = self.rng.usize(1..8) * 8;
        let count = segment.len().div_ceil(size);
        let piece = |number_of: usize, shift: usize, data: &[u8]| {
            let offset = (number_of * size).saturating_sub(shift);
            let more = number_of + 1 < count;
            if family == 0 {
                fragment_v4(&ends, number, id, offset, more, data)
            } else {
                fragment_v6(&ends, number, id, offset, more, data)
            }
        };
        let mut pieces = Vec::new();
        for (index, data) in segment.chunks(size).enumerate() {
            match self.rng.u8(..20) {
                0 => continue,
                1 => pieces.push(Sent { side, frame: piece(index, 8, data) }),
                2 => pieces.push(Sent { side, frame: piece(index, 0, data) }),
                3 => {
                    let mut other = data.to_vec();
                    other[0] ^= 1;
                    pieces.push(Sent { side, frame: piece(index, 0, &other) });
                }
                _ => {}
            }
            pieces.push(Sent { side, frame: piece(index, 0, data) });
        }
        if self.rng.u8(..3) == 0 {
            self.rng.shuffle(&mut pieces);
        }
        pieces.reverse();
        self.pieces.extend(pieces);
        self.pieces.pop().unwrap_or(Sent { side, frame: ends.udp(&data) })
    }

    /// What few hosts send.
    fn oddity(&mut self) -> Sent {
        let family = self.rng.usize(..2);
        let (side, src) = self.source(family);
        let dst = self.destination(family);
        let ends = Ends { src: address(src), dst: address(dst), sport: self.sport(), dport: self.dport() };
        let frame = match self.rng.u8(..5) {
            0 => {
                let mut frame = ends.udp(b"enough for an IPv6 header");
                let ethertype =
                    *self.rng.choice(&[0x8100_u16, 0x88a8, 0x0806, 0x1234, 0x0800, 0x86dd]).expect("some");
                frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
                frame
            }
            1 => ip(ends.src, ends.dst, self.rng.u8(..), &[0; 40]),
            2 => ends.icmp(self.rng.u8(..), 0, ends.sport, b"data of an ICMP message, long enough"),
            3 => {
                // Neighbour discovery, which must not be routed.
                let mut frame = ends.icmp(self.rng.u8(133..137), 0, 0, &[0xfd; 16]);
                if family == 1 && self.rng.bool() {
                    frame[21] = 255;
                }
                frame
            }
            _ => {
                let mut frame = ends.tcp(SYN);
                let at = if family == 0 { 22 } else { 21 };
                frame[at] = self.rng.u8(..3);
                if family == 0 {
                    mend_v4(&mut frame);
                }
                frame
            }
        };
        Sent { side, frame }
    }

    /// Changes bits, cuts, or pads.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        match self.rng.u8(..4) {
            // The kernel runs no program on less than an IP header.
            0 => {
                let header = if frame[12..14] == [0x86, 0xdd] { 54 } else { 34 };
                frame.truncate(self.rng.usize(header..=frame.len().max(header)));
            }
            1 => frame.extend(vec![0; self.rng.usize(1..40)]),
            _ => {
                for _ in 0..self.rng.usize(1..4) {
                    let at = self.rng.usize(12..frame.len().min(90));
                    frame[at] ^= 1 << self.rng.u8(..8);
                }
            }
        }
    }

    fn transport(&mut self, ends: &Ends, number: u8, flags: u8) -> Vec<u8> {
        let data: Vec<u8> = (0..self.rng.usize(..40)).map(|_| self.rng.u8(..)).collect();
        let segment = match number {
            protocol::TCP => {
                ends.tcp_segment(flags, if self.rng.bool() { &[1, 1, 1, 1] } else { &[] }, &data)
            }
            protocol::UDP => {
                let mut segment = ends.udp_segment(&data);
                if ends.src.is_ipv4() && self.rng.u8(..8) == 0 {
                    segment[6..8].fill(0);
                }
                segment
            }
            protocol::SCTP => ends.sctp_segment(flags),
            _ => ends.icmp_segment(if ends.src.is_ipv4() { 8 } else { 128 }, 0, ends.sport, &data),
        };
        match (self.rng.u8(..8), ends.src.is_ipv4()) {
            (0, true) => {
                let options: &[u8] = self
                    .rng
                    .choice([
                        &[1, 1, 1, 0][..],
                        &[148, 4, 0, 0],
                        &[131, 3, 4, 0],
                        &[7, 7, 4, 0, 0, 0, 0, 1],
                        &[1; 20],
                    ])
                    .expect("some");
                ip_options_v4(ends, number, options, &segment)
            }
            (0, false) => {
                let header = vec![0, 0, 1, 4, 0, 0, 0, 0];
                let chain: &[u8] = self
                    .rng
                    .choice([&[60][..], &[0], &[0, 60], &[60, 60], &[43], &[60; 6], &[60; 7], &[60, 0]])
                    .expect("some");
                let chain: Vec<_> = chain.iter().map(|kind| (*kind, header.clone())).collect();
                ip_chain_v6(ends, &chain, number, &segment)
            }
            _ => ip(ends.src, ends.dst, number, &segment),
        }
    }

    fn side(&mut self) -> Side {
        match self.rng.u8(..8) {
            0 => Side::Node,
            1..3 => Side::Uplink,
            _ => Side::Pod(self.rng.choice(PODS).expect("some").0),
        }
    }

    /// Somebody, and an address, mostly his own.
    fn source(&mut self, family: usize) -> (Side, &'static str) {
        let side = self.side();
        let own = match side {
            Side::Pod(name) => PODS.iter().find(|pod| pod.0 == name).expect("it is one of them").1[family],
            Side::Node => NODES[0][family],
            Side::Uplink => match self.rng.u8(..4) {
                0 => NODES[1][family],
                1 => self.rng.choice(REMOTE).expect("some")[family],
                _ => self.rng.choice(OUTSIDE).expect("some")[family],
            },
        };
        (side, if self.rng.u8(..16) == 0 { self.destination(family) } else { own })
    }

    fn destination(&mut self, family: usize) -> &'static str {
        let of = |all: &[[&'static str; 2]], rng: &mut Rng| all[rng.usize(..all.len())][family];
        match self.rng.u8(..16) {
            0..5 => self.rng.choice(PODS).expect("some").1[family],
            5..7 => of(&REMOTE, &mut self.rng),
            7..12 => of(&SERVICES, &mut self.rng),
            12 => of(&NODES, &mut self.rng),
            13..15 => of(&OUTSIDE, &mut self.rng),
            _ => of(&STRANGE, &mut self.rng),
        }
    }

    /// Few enough for flows to meet.
    fn sport(&mut self) -> u16 {
        if self.rng.u8(..16) == 0 { self.dport() } else { 40_000 + self.rng.u16(..64) }
    }

    fn dport(&mut self) -> u16 {
        *self.rng.choice(&PORTS).expect("some")
    }

    fn protocol(&mut self, ends: &Ends) -> u8 {
        match self.rng.u8(..16) {
            0..7 => protocol::TCP,
            7..13 => protocol::UDP,
            13 => protocol::SCTP,
            _ => ends.icmp_protocol(),
        }
    }

    fn flags(&mut self, usual: u8) -> u8 {
        match self.rng.u8(..16) {
            0..9 => usual,
            9..12 => ACK | PSH,
            12 => FIN | ACK,
            13 => RST,
            14 => SYN,
            _ => self.rng.u8(..),
        }
    }
}

fn remember<T>(rng: &mut Rng, all: &mut Vec<T>, one: T) {
    if all.len() < MEMORY {
        all.push(one);
    } else {
        let at = rng.usize(..MEMORY);
        all[at] = one;
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
