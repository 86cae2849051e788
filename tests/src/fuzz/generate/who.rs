//! Who sends to whom: addresses, ports, protocols, flags.

use fastrand::Rng;
use weir_common::header::protocol;

use super::{ACK, FIN, Generator, PSH, RST, SYN};
use crate::{fuzz::Side, packets::Ends};

/// Addresses of IPv4 and IPv6 of everybody who may send or be sent to.
pub const PODS: [(&str, [&str; 2]); 3] = [
    ("t/a", ["10.244.1.10", "fd00:10:244:1::10"]),
    ("t/b", ["10.244.1.20", "fd00:10:244:1::20"]),
    ("t/c", ["10.244.1.30", "fd00:10:244:1::30"]),
];
pub(super) const REMOTE: [[&str; 2]; 2] =
    [["10.244.2.10", "fd00:10:244:2::10"], ["10.244.2.20", "fd00:10:244:2::20"]];
pub(super) const NODES: [[&str; 2]; 2] = [["192.168.50.11", "fd00:50::11"], ["192.168.50.12", "fd00:50::12"]];
pub(super) const OUTSIDE: [[&str; 2]; 3] =
    [["203.0.113.9", "2001:db8::9"], ["203.0.113.200", "2001:db8:1::9"], ["198.51.100.7", "2001:db8:2::7"]];
pub(super) const SERVICES: [[&str; 2]; 13] = [
    ["10.96.0.10", "fd00:10:96::10"],
    ["10.96.0.20", "fd00:10:96::20"],
    ["10.96.0.30", "fd00:10:96::30"],
    ["10.96.0.40", "fd00:10:96::40"],
    ["10.96.0.50", "fd00:10:96::50"],
    ["10.96.0.60", "fd00:10:96::60"],
    ["10.96.0.70", "fd00:10:96::70"],
    ["10.96.0.80", "fd00:10:96::80"],
    ["10.96.0.90", "fd00:10:96::90"],
    ["198.51.100.60", "2001:db8:60::1"],
    ["198.51.100.61", "2001:db8:60::2"],
    SHOP,
    ["198.51.100.90", "2001:db8:90::1"],
];
/// From here on, those that the outside knows.
pub(super) const VIPS: usize = 9;
/// What the outside calls the service that is forwarded by DSR.
pub(super) const SHOP: [&str; 2] = ["198.51.100.80", "2001:db8:80::1"];
/// Addresses that nobody may have, and those of nobody.
pub(super) const STRANGE: [[&str; 2]; 4] =
    [["127.0.0.1", "::1"], ["224.0.0.1", "ff02::1"], ["0.0.0.0", "::"], ["10.96.9.9", "fd00:10:96::9:9"]];
pub(super) const PORTS: [u16; 12] = [80, 8080, 8081, 8082, 53, 5353, 443, 0, 30080, 30081, 30082, 30083];

impl Generator {
    pub(super) fn side(&mut self) -> Side {
        match self.rng.u8(..8) {
            0 => Side::Node,
            1..3 => Side::Uplink,
            _ => Side::Pod(self.rng.choice(PODS).expect("some").0),
        }
    }

    /// Somebody, and an address, mostly his own.
    pub(super) fn source(&mut self, family: usize) -> (Side, &'static str) {
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

    pub(super) fn destination(&mut self, family: usize) -> &'static str {
        let of = |all: &[[&'static str; 2]], rng: &mut Rng| all[rng.usize(..all.len())][family];
        match self.rng.u8(..16) {
            0..4 => self.rng.choice(PODS).expect("some").1[family],
            4..6 => of(&REMOTE, &mut self.rng),
            6..12 => of(&SERVICES, &mut self.rng),
            12 => of(&NODES, &mut self.rng),
            13..15 => of(&OUTSIDE, &mut self.rng),
            _ => of(&STRANGE, &mut self.rng),
        }
    }

    /// Few enough for flows to meet.
    pub(super) fn sport(&mut self) -> u16 {
        if self.rng.u8(..16) == 0 { self.dport() } else { 40_000 + self.rng.u16(..64) }
    }

    pub(super) fn dport(&mut self) -> u16 {
        *self.rng.choice(&PORTS).expect("some")
    }

    pub(super) fn protocol(&mut self, ends: &Ends) -> u8 {
        match self.rng.u8(..16) {
            0..7 => protocol::TCP,
            7..13 => protocol::UDP,
            13 => protocol::SCTP,
            _ => ends.icmp_protocol(),
        }
    }

    pub(super) fn flags(&mut self, usual: u8) -> u8 {
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
