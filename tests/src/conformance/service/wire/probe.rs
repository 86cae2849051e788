//! Packets of connections, with a number that no program changes on the way.

use weir_common::{
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol, tcp_flags},
    policy::Protocol,
};

use crate::{
    conformance::loaded::packet::{frame, later, number},
    packets::{Ends, crc32c, l4_offset, read_tuple, transport_check},
};

const TCP_FLAGS: usize = 13;
const TCP_CHECK: usize = 16;
const SCTP_CHECK: usize = 8;

/// A packet of a connection, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    First,
    Answer,
    Later,
}

/// A packet that carries the number `id`.
pub(super) fn probe(ends: &Ends, by: Protocol, kind: Kind, id: u16) -> Vec<u8> {
    let mut frame = match (by, kind) {
        (Protocol::Udp, _) => ends.udp(&u32::from(id).to_be_bytes()),
        (_, Kind::First) => frame(ends, by, true),
        (_, Kind::Answer) => frame(ends, by, false),
        (_, Kind::Later) => later(ends, by),
    };
    if matches!(by, Protocol::Tcp | Protocol::Sctp) {
        // The sequence number, and the verification tag.
        set_word(&mut frame, 4, id.into());
    }
    match by {
        Protocol::Tcp => mend(&mut frame),
        Protocol::Sctp => mend_sctp(&mut frame),
        Protocol::Udp | Protocol::Echo => {}
    }
    frame
}

/// The answer of a server to this SYN, from its own numbers.
pub(super) fn syn_ack(syn: &[u8]) -> Vec<u8> {
    let mut answer = read_tuple(syn).back().tcp(tcp_flags::SYN | tcp_flags::ACK);
    set_word(&mut answer, 8, word(syn, 4).wrapping_add(1));
    mend(&mut answer);
    answer
}

/// The number in a packet.
pub(super) fn id(frame: &[u8], by: Protocol) -> u16 {
    match by {
        Protocol::Udp => word(frame, 8) as u16,
        Protocol::Tcp | Protocol::Sctp => word(frame, 4) as u16,
        Protocol::Echo => (word(frame, 4) >> 16) as u16,
    }
}

/// The TCP flags of a segment.
pub(super) fn flags(frame: &[u8]) -> u8 {
    frame[l4_offset(frame) + TCP_FLAGS]
}

/// Whether a frame has a packet of this protocol, without options.
pub(super) fn is(frame: &[u8], by: Protocol) -> bool {
    let icmpv6 = by == Protocol::Echo && ethertype(frame) == ETHERTYPE_IPV6;
    protocol_of(frame) == Some(if icmpv6 { protocol::ICMPV6 } else { number(by) })
}

/// Whether a frame has an ICMP error.
pub(super) fn is_icmp_error(frame: &[u8]) -> bool {
    match protocol_of(frame) {
        Some(protocol::ICMP) => matches!(frame[l4_offset(frame)], 3 | 11 | 12),
        Some(protocol::ICMPV6) => frame[l4_offset(frame)] < 128,
        _ => false,
    }
}

fn protocol_of(frame: &[u8]) -> Option<u8> {
    let (at, len) = match ethertype(frame) {
        ETHERTYPE_IPV4 => (23, 42),
        ETHERTYPE_IPV6 => (20, 62),
        _ => return None,
    };
    if frame.len() < len { None } else { Some(frame[at]) }
}

fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

/// The word this far into the transport header.
fn word(frame: &[u8], at: usize) -> u32 {
    let at = l4_offset(frame) + at;
    frame.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn set_word(frame: &mut [u8], at: usize, value: u32) {
    let at = l4_offset(frame) + at;
    frame[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn mend(frame: &mut [u8]) {
    let (ends, at) = (read_tuple(frame), l4_offset(frame));
    frame[at + TCP_CHECK..at + TCP_CHECK + 2].fill(0);
    let check = transport_check(ends.src, ends.dst, protocol::TCP, &frame[at..]);
    frame[at + TCP_CHECK..at + TCP_CHECK + 2].copy_from_slice(&check.to_be_bytes());
}

fn mend_sctp(frame: &mut [u8]) {
    let at = l4_offset(frame);
    let segment = &mut frame[at..];
    segment[SCTP_CHECK..SCTP_CHECK + 4].fill(0);
    let check = crc32c(segment);
    segment[SCTP_CHECK..SCTP_CHECK + 4].copy_from_slice(&check.to_le_bytes());
}
