//! Packets that are not whole, not right, or not like others.

use weir_common::header::protocol;

use super::{Generator, SYN, Sent, address};
use crate::packets::{Ends, fragment_v4, fragment_v6, ip, mend_v4};

impl Generator {
    /// A datagram in pieces: in any order, doubled, overlapping, with one left out.
    pub(super) fn fragmented(&mut self) -> Sent {
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
    pub(super) fn oddity(&mut self) -> Sent {
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
    pub(super) fn damage(&mut self, frame: &mut Vec<u8>) {
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
}
