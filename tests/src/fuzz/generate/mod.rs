//! Random packets: conversations between everybody, the answers to them, the errors about them, fragments,
//! and then bytes changed at random.

mod odd;
mod who;

use std::net::IpAddr;

use fastrand::Rng;
use weir_common::header::protocol;

pub use self::who::PODS;
use self::who::{NODES, OUTSIDE, SERVICES, SHOP, VIPS};
use super::Side;
use crate::packets::{Ends, ip, ip_chain_v6, ip_options_v4};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

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
            0..30 => self.opening(),
            30..57 => self.answer(),
            57..67 => self.again(),
            67..74 => self.error(),
            74..81 => self.fragmented(),
            81..88 => self.outsider(),
            88..95 => self.tunnelled(),
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

    /// From a client of the outside to a service that it knows, mostly that which is forwarded by DSR.
    fn outsider(&mut self) -> Sent {
        let family = self.rng.usize(..2);
        let client = self.rng.choice(OUTSIDE).expect("some")[family];
        let dst = match self.rng.u8(..4) {
            0 => self.rng.choice(&SERVICES[VIPS..]).expect("some")[family],
            _ => SHOP[family],
        };
        let (src, dst, sport) = (address(client), address(dst), self.sport());
        let is_tcp = self.rng.bool();
        let usual = if is_tcp { 80 } else { 53 };
        let dport = if self.rng.u8(..8) == 0 { self.dport() } else { usual };
        let ends = Ends { src, dst, sport, dport };
        let number = if is_tcp { protocol::TCP } else { protocol::UDP };
        let flags = self.flags(SYN);
        remember(&mut self.rng, &mut self.sent, (Side::Uplink, ends, number));
        Sent { side: Side::Uplink, frame: self.transport(&ends, number, flags) }
    }

    /// What another node sends to the backend of a service that is forwarded by DSR, or somebody in its name.
    fn tunnelled(&mut self) -> Sent {
        let known = self.sent.iter().filter(|sent| sent.0 == Side::Uplink);
        let known: Vec<_> = known.map(|sent| (sent.1, sent.2)).collect();
        let inner = match self.rng.u8(..8) {
            0 => self.error().frame,
            1 => self.fragmented().frame,
            2..4 if let Some((ends, number)) = self.rng.choice(&known).copied() => {
                let flags = self.flags(ACK);
                self.transport(&ends, number, flags)
            }
            _ => self.outsider().frame,
        };
        let family = usize::from(inner[12..14] == [0x86, 0xdd]);
        let src = if self.rng.u8(..8) > 0 { NODES[1][family] } else { self.destination(family) };
        let dst = if self.rng.u8(..4) > 0 { PODS[1].1[family] } else { self.destination(family) };
        let frame = ip(address(src), address(dst), [4, 41][family], &inner[14..]);
        Sent { side: Side::Uplink, frame }
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
