//! How a frame is to be changed, and whether it was.

use std::{net::IpAddr, ops::Range};

use super::parse::{ETH, Packet, be16};
use crate::packets::{Ends, wrong_checksums};

/// A checksum, and what it covers beside itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    at: usize,
    covers: Vec<Range<usize>>,
    /// Zero means that there is none: UDP, over IPv6 too (RFC 6936).
    may_be_absent: bool,
}

/// What is to happen to a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Bytes written at these offsets.
    pub(super) writes: Vec<(usize, Vec<u8>)>,
    /// Checksums that cover what is written.
    pub(super) checks: Vec<Check>,
    /// The receiver's MAC address; the sender's becomes the one that the frame was sent to.
    pub mac: Option<[u8; 6]>,
    /// The kernel writes MAC addresses later.
    pub any_mac: bool,
    /// The hop limit is one less.
    pub takes_hop: bool,
    /// Bytes that only a checksum over all of the packet can tell about.
    pub(super) free: Option<Range<usize>>,
}

impl Change {
    /// Nothing changes.
    pub const NONE: Self = Self {
        writes: Vec::new(),
        checks: Vec::new(),
        mac: None,
        any_mac: false,
        takes_hop: false,
        free: None,
    };

    /// Whether the packet stays as it is.
    pub fn is_none(&self) -> bool {
        self.writes.is_empty()
    }

    /// What is wrong with `after`, which `before` became; `packet` is what the frame carries.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self, before: &[u8], after: &[u8], packet: Option<&Packet>) -> Result<(), String> {
        let mut expected = before.to_vec();
        if let Some(mac) = self.mac {
            expected.copy_within(..6, 6);
            expected[..6].copy_from_slice(&mac);
        }
        for (at, bytes) in &self.writes {
            expected[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let mut checks = self.checks.clone();
        if let Some(packet) = packet.filter(|_| self.takes_hop) {
            expected[ETH + if packet.src.is_ipv4() { 8 } else { 7 }] -= 1;
            if packet.src.is_ipv4() {
                checks.push(of_header(packet));
            }
        }
        let mut free: Vec<usize> = checks.iter().flat_map(|check| [check.at, check.at + 1]).collect();
        free.extend(self.free.iter().cloned().flatten());
        if self.any_mac {
            free.extend(0..12);
        }
        if expected.len() != after.len() {
            return Err(format!("{} bytes became {}", expected.len(), after.len()));
        }
        let differs = |at: &usize| expected[*at] != after[*at] && !free.contains(at);
        if let Some(at) = (0..after.len()).find(differs) {
            return Err(format!("byte {at} is {:#04x} instead of {:#04x}", after[at], expected[at]));
        }
        checks.iter().try_for_each(|check| check.compare(before, after))?;
        // What was right stays right.
        let is_checkable = packet.is_some_and(|packet| packet.piece.is_none());
        match is_checkable && wrong_checksums(before).is_empty() {
            true => wrong_checksums(after).first().map_or(Ok(()), |wrong| Err(wrong.clone())),
            false => Ok(()),
        }
    }
}

impl Check {
    /// A checksum and what it covers have one sum, before and after (RFC 1624).
    fn compare(&self, before: &[u8], after: &[u8]) -> Result<(), String> {
        if self.may_be_absent && be16(before, self.at) == 0 {
            return if be16(after, self.at) == 0 {
                Ok(())
            } else {
                Err("a checksum where none was".to_owned())
            };
        }
        let sum = |frame: &[u8]| {
            let covered = self.covers.iter().flat_map(|range| frame[range.clone()].chunks(2));
            let words = covered.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
            words.fold(u32::from(be16(frame, self.at)), |sum, word| (sum + word) % 0xffff)
        };
        if sum(before) == sum(after) { Ok(()) } else { Err(format!("the checksum at {} is wrong", self.at)) }
    }
}

/// What turns a packet's addresses and ports into `to`.
pub fn translation(packet: &Packet, to: &Ends) -> Change {
    let (addresses, l4) = (addresses(packet), packet.l4);
    let mut change = Change { writes: vec![(addresses.start, octets(to))], ..Change::NONE };
    if packet.src.is_ipv4() {
        change.checks.push(of_header(packet));
    }
    if packet.is_later() {
        return change;
    }
    let ports = [to.sport.to_be_bytes(), to.dport.to_be_bytes()].concat();
    let (check, covers_addresses) = match packet.protocol {
        6 => (16, true),
        17 => (6, true),
        // Its CRC does not cover addresses, and is looked at as a whole.
        132 => {
            change.writes.push((l4, ports));
            if packet.sport != to.sport || packet.dport != to.dport {
                change.free = Some(l4 + 8..l4 + 12);
            }
            return change;
        }
        _ => (2, packet.src.is_ipv6()),
    };
    if matches!(packet.protocol, 6 | 17) {
        change.writes.push((l4, ports));
    } else {
        change.writes.push((l4 + 4, (to.sport | to.dport).to_be_bytes().to_vec()));
    }
    let mut covers = vec![l4..l4 + check, l4 + check + 2..packet.end];
    covers.extend(covers_addresses.then_some(addresses));
    let may_be_absent = packet.protocol == 17;
    change.checks.push(Check { at: l4 + check, covers, may_be_absent });
    change
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted {
    /// Its addresses and ports.
    pub ends: Ends,
    /// Its transport protocol.
    pub protocol: u8,
}

/// What undoes a translation in an ICMP error: packets of the flow that it is about go to `to`, and the
/// packet that it quotes went the other way.
pub fn quotation(packet: &Packet, quoted: &Quoted, to: &Ends) -> Change {
    let outer = addresses(packet);
    let inner_header = packet.l4 + 8;
    let (length, at) = if packet.src.is_ipv4() { (20, 12) } else { (40, 8) };
    // Only the flow's own server has another address to its client.
    let src = if packet.src == quoted.ends.dst { to.src } else { packet.src };
    let moved = Ends { src, dst: to.dst, ..*to };
    let back = to.back();
    let mut change = Change {
        writes: vec![(outer.start, octets(&moved)), (inner_header + at, octets(&back))],
        ..Change::NONE
    };
    // An echo has no ports to undo.
    if matches!(quoted.protocol, 6 | 17 | 132) {
        let ports = [back.sport.to_be_bytes(), back.dport.to_be_bytes()].concat();
        change.writes.push((inner_header + length, ports));
    }
    let mut covers = vec![packet.l4..packet.l4 + 2, packet.l4 + 4..packet.end];
    if length == 20 {
        change.checks.push(of_header(packet));
        let inner = inner_header..inner_header + 20;
        change.checks.push(Check {
            at: inner.start + 10,
            covers: vec![inner.start..inner.start + 10, inner.start + 12..inner.end],
            may_be_absent: false,
        });
    } else {
        covers.push(outer);
    }
    change.checks.push(Check { at: packet.l4 + 2, covers, may_be_absent: false });
    change
}

/// The checksum of an IPv4 header, options and all.
fn of_header(packet: &Packet) -> Check {
    Check { at: ETH + 10, covers: vec![ETH..ETH + 10, ETH + 12..packet.l4], may_be_absent: false }
}

/// Where source and destination stand.
fn addresses(packet: &Packet) -> Range<usize> {
    if packet.src.is_ipv4() { ETH + 12..ETH + 20 } else { ETH + 8..ETH + 40 }
}

/// Source and destination as a header has them.
fn octets(ends: &Ends) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [octets(ends.src), octets(ends.dst)].concat()
}
