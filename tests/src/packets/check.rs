//! Reading frames with code that is not weir's.

use std::{net::IpAddr, ops::Range};

use etherparse::{Icmpv4Type, Icmpv6Type, NetHeaders, PacketHeaders, TransportHeader, icmpv4, icmpv6};
use weir_common::header::protocol;

use super::{Ends, build::crc32c, l4_offset};

const ETH_LEN: usize = 14;

/// Addresses and ports of a frame; the identifier of an echo stands where its flow has it.
pub fn read_tuple(frame: &[u8]) -> Ends {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let (src, dst): (IpAddr, IpAddr) = match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => (ip.source.into(), ip.destination.into()),
        Some(NetHeaders::Ipv6(ip, _)) => (ip.source.into(), ip.destination.into()),
        other => panic!("no IP packet: {other:?}"),
    };
    let (sport, dport) = match &headers.transport {
        Some(TransportHeader::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(TransportHeader::Udp(udp)) => (udp.source_port, udp.destination_port),
        Some(TransportHeader::Icmpv4(icmp)) => match &icmp.icmp_type {
            Icmpv4Type::EchoRequest(echo) => (echo.id, 0),
            Icmpv4Type::EchoReply(echo) => (0, echo.id),
            _ => (0, 0),
        },
        Some(TransportHeader::Icmpv6(icmp)) => match &icmp.icmp_type {
            Icmpv6Type::EchoRequest(echo) => (echo.id, 0),
            Icmpv6Type::EchoReply(echo) => (0, echo.id),
            _ => (0, 0),
        },
        Some(TransportHeader::Igmp(_)) => (0, 0),
        None => {
            // SCTP is not known there; its ports stand first.
            let payload = headers.payload.slice();
            let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            (port(0), port(2))
        }
    };
    Ends { src, dst, sport, dport }
}

/// What is wrong with the answer to a frame that was refused, or with there being one or none.
pub fn wrong_answer(sent: &[u8], answer: Option<&[u8]>, is_due: bool) -> Option<String> {
    match answer {
        None => is_due.then(|| "no answer".to_owned()),
        Some(answer) if is_due => wrong_unreachable(sent, answer),
        Some(answer) => Some(format!("answered: {answer:02x?}")),
    }
}

/// What is wrong with an ICMP port unreachable about `sent`, which goes back where that came from.
fn wrong_unreachable(sent: &[u8], answer: &[u8]) -> Option<String> {
    let kind = if sent[14] >> 4 == 4 { [3, 3] } else { [1, 4] };
    wrong_error(sent, answer, kind, 0)
}

/// What is wrong with an ICMP error that says of `sent` that `mtu` bytes get through, and goes back where that
/// came from.
pub fn wrong_too_big(sent: &[u8], answer: &[u8], mtu: u16) -> Option<String> {
    let kind = if sent[14] >> 4 == 4 { [3, 4] } else { [2, 0] };
    wrong_error(sent, answer, kind, mtu)
}

/// What is wrong with an ICMP error about `sent`, whose last word says `rest`.
fn wrong_error(sent: &[u8], answer: &[u8], kind: [u8; 2], rest: u16) -> Option<String> {
    // IP header, longest error.
    let (ip_len, most) = if sent[14] >> 4 == 4 { (20, 576) } else { (40, 1280) };
    let rest = [[0; 2], rest.to_be_bytes()].concat();
    let addresses = |frame: &[u8]| match frame[14] >> 4 {
        4 => (frame[26..30].to_vec(), frame[30..34].to_vec()),
        _ => (frame[22..38].to_vec(), frame[38..54].to_vec()),
    };
    let sent_len = match ip_len {
        20 => usize::from(u16::from_be_bytes([sent[16], sent[17]])),
        _ => usize::from(u16::from_be_bytes([sent[18], sent[19]])) + 40,
    };
    let quoted = sent_len.min(most - ip_len - 8);
    let ((asker, asked), (from, to)) = (addresses(sent), addresses(answer));
    let checks = [
        (answer.len() == 14 + ip_len + 8 + quoted, "its length"),
        (answer[..6] == sent[6..12] && answer[6..12] == sent[..6], "its MAC addresses"),
        (
            answer[12..15] == [&sent[12..14], &[if ip_len == 20 { 0x45 } else { 0x60 }]].concat(),
            "its kind of packet",
        ),
        ((&from, &to) == (&asked, &asker), "its addresses"),
        (answer.get(14 + ip_len..16 + ip_len) == Some(&kind), "its type and code"),
        (answer.get(18 + ip_len..22 + ip_len) == Some(&rest), "what it says"),
        (answer.get(22 + ip_len..) == sent.get(14..14 + quoted), "what it quotes"),
    ];
    let wrong = checks.into_iter().find(|(is_right, _)| !is_right).map(|(_, what)| what.to_owned());
    wrong.or_else(|| wrong_checksums(answer).pop()).map(|wrong| format!("{wrong}: {answer:02x?}"))
}

/// Whether a frame says that the port of another one is unreachable, which it quotes, to its sender.
pub fn is_port_unreachable(frame: &[u8], sent: &[u8]) -> bool {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let says_so = match &headers.transport {
        Some(TransportHeader::Icmpv4(icmp)) => {
            matches!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port))
        }
        Some(TransportHeader::Icmpv6(icmp)) => {
            matches!(icmp.icmp_type, Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port))
        }
        _ => false,
    };
    // Addresses of the header, and the first bytes of what follows it.
    let (quoted, packet) = (headers.payload.slice(), &sent[ETH_LEN..]);
    let (addresses, start) = if packet[0] >> 4 == 4 { (12..20, 20..28) } else { (8..40, 40..48) };
    let is_same = |range: Range<usize>| quoted.get(range.clone()).is_some_and(|part| part == &packet[range]);
    says_so && read_tuple(frame).dst == read_tuple(sent).src && is_same(addresses) && is_same(start)
}

/// The checksums of a frame that etherparse, or for SCTP [`crc32c`], computes otherwise. A UDP checksum of zero means none in IPv4.
pub fn wrong_checksums(frame: &[u8]) -> Vec<String> {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    let payload = headers.payload.slice();
    let mut found = Vec::new();
    let mut compare = |name: &str, is: u16, expected: u16| {
        if is != expected {
            found.push(format!("{name}: {is:#06x} instead of {expected:#06x}"));
        }
    };
    match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), transport) => {
            compare("IPv4", ip.header_checksum, ip.calc_header_checksum());
            match transport {
                Some(TransportHeader::Tcp(tcp)) => {
                    compare("TCP", tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap());
                }
                Some(TransportHeader::Udp(udp)) if udp.checksum != 0 => {
                    compare("UDP", udp.checksum, udp.calc_checksum_ipv4(ip, payload).unwrap());
                }
                Some(TransportHeader::Icmpv4(icmp)) => {
                    compare("ICMP", icmp.checksum, icmp.icmp_type.calc_checksum(payload));
                }
                _ => {}
            }
        }
        (Some(NetHeaders::Ipv6(ip, _)), transport) => match transport {
            Some(TransportHeader::Tcp(tcp)) => {
                compare("TCP", tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap());
            }
            Some(TransportHeader::Udp(udp)) => {
                compare("UDP", udp.checksum, udp.calc_checksum_ipv6(ip, payload).unwrap());
            }
            Some(TransportHeader::Icmpv6(icmp)) => {
                let expected = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
                compare("ICMPv6", icmp.checksum, expected);
            }
            _ => {}
        },
        _ => panic!("no IP packet"),
    }
    let number = if frame[14] >> 4 == 4 { frame[23] } else { frame[20] };
    if number == protocol::SCTP {
        let mut segment = frame[l4_offset(frame)..].to_vec();
        let is = u32::from_le_bytes(segment[8..12].try_into().expect("four bytes"));
        segment[8..12].fill(0);
        let expected = crc32c(&segment);
        if is != expected {
            found.push(format!("SCTP: {is:#010x} instead of {expected:#010x}"));
        }
    }
    found
}
