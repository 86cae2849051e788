//! The packets of a connection.

use std::net::IpAddr;

use weir_common::{
    addr::{Addr, Be16, V4, V6},
    flow::FlowKey,
    header::{protocol, tcp_flags},
    policy::Protocol,
};

use crate::packets::Ends;

/// The first packet of a connection, or its answer.
pub(in crate::conformance) fn frame(ends: &Ends, by: Protocol, is_first: bool) -> Vec<u8> {
    match by {
        Protocol::Tcp if is_first => ends.tcp(tcp_flags::SYN),
        Protocol::Tcp => ends.tcp(tcp_flags::SYN | tcp_flags::ACK),
        Protocol::Udp => ends.udp(b"probe"),
        Protocol::Sctp => ends.sctp(),
        Protocol::Echo if is_first => ends.echo_request(),
        Protocol::Echo => ends.echo_reply(),
    }
}

/// A packet of a connection that is open, in either direction.
pub(in crate::conformance) fn later(ends: &Ends, by: Protocol) -> Vec<u8> {
    match by {
        Protocol::Tcp => ends.tcp(tcp_flags::ACK),
        Protocol::Sctp => ends.sctp_data(),
        Protocol::Udp | Protocol::Echo => frame(ends, by, true),
    }
}

/// The IP protocol number.
pub(in crate::conformance) fn number(by: Protocol) -> u8 {
    match by {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
        Protocol::Sctp => protocol::SCTP,
        Protocol::Echo => protocol::ICMP,
    }
}

/// The hash by which the programs choose a backend.
pub(in crate::conformance) fn hash(ends: &Ends, number: u8) -> u64 {
    fn of<A: Addr>(src: A, dst: A, ends: &Ends, number: u8) -> u64 {
        let (sport, dport) = (Be16::new(ends.sport), Be16::new(ends.dport));
        FlowKey { src, dst, sport, dport, scope: 0, protocol: u32::from(number) }.hash()
    }
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            of(V4::from_octets(src.octets()), V4::from_octets(dst.octets()), ends, number)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            of(V6::from_octets(src.octets()), V6::from_octets(dst.octets()), ends, number)
        }
        _ => 0,
    }
}
