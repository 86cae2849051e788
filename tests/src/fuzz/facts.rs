//! What follows from a packet alone.

use std::net::IpAddr;

use weir_common::{
    addr::{Addr, Be16, V4, V6},
    flow::FlowKey,
};

use super::{
    parse::{Packet, be16},
    rewrite::Quoted,
};
use crate::packets::Ends;

/// Reads the packet that an ICMP error quotes: a transport header must follow the IP header, with eight bytes of it there.
pub(super) fn quoted(frame: &[u8], packet: &Packet) -> Option<Quoted> {
    let at = packet.l4 + 8;
    let header = if packet.src.is_ipv4() { 20 } else { 40 };
    let ip = frame[..packet.end].get(at..at + header + 8)?;
    let (src, dst, protocol) = if header == 20 {
        if ip[0] != 0x45 || be16(ip, 6) & 0x1fff != 0 {
            return None;
        }
        let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).map(IpAddr::from);
        (address(12).ok()?, address(16).ok()?, ip[9])
    } else {
        if ip[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).map(IpAddr::from);
        (address(8).ok()?, address(24).ok()?, ip[6])
    };
    let transport = &ip[header..];
    let (sport, dport) = match (protocol, header, transport[0]) {
        (6 | 17 | 132, ..) => (be16(transport, 0), be16(transport, 2)),
        (1, 20, 8) | (58, 40, 128) => (be16(transport, 4), 0),
        (1, 20, 0) | (58, 40, 129) => (0, be16(transport, 4)),
        _ => return None,
    };
    Some(Quoted { ends: Ends { src, dst, sport, dport }, protocol })
}

/// Addresses and ports of a packet.
pub(super) fn ends(packet: &Packet) -> Ends {
    Ends { src: packet.src, dst: packet.dst, sport: packet.sport, dport: packet.dport }
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// No unicast packet crosses a router to or from it.
pub(super) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first == 0 || first == 127 || first >= 224 || address.is_link_local()
        }
        IpAddr::V6(address) => {
            let segments = address.segments();
            let is_embedded = segments[..4] == [0; 4] && matches!(segments[4..6], [0, 0] | [0, 0xffff]);
            address.is_multicast() || is_link_local(address.into()) || is_embedded
        }
    }
}

/// The one thing that is shared with the programs: every node and every test chooses by this hash.
pub(super) fn hash(packet: &Packet, scope: u32) -> u64 {
    fn of<A: Addr>(packet: &Packet, src: A, dst: A, scope: u32) -> u64 {
        let (sport, dport) = (Be16::new(packet.sport), Be16::new(packet.dport));
        FlowKey { src, dst, sport, dport, scope, protocol: packet.protocol.into() }.hash()
    }
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            of(packet, V4::from_octets(src.octets()), V4::from_octets(dst.octets()), scope)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            of(packet, V6::from_octets(src.octets()), V6::from_octets(dst.octets()), scope)
        }
        _ => unreachable!("one packet has one family"),
    }
}

/// The number that chooses the slot of a ring.
pub(super) fn slot(packet: &Packet) -> u32 {
    (hash(packet, 0) >> 32) as u32
}
