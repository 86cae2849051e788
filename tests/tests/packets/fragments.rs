//! Fragments of both families (attack tests 7, 8, 9). Port 80 is allowed, 9999 is not.

use weir_common::{header::protocol, reason::Reason};
use weir_tests::packets::{Ends, fragment_v4, fragment_v6, ip_chain_v6};

use super::{
    ACK, CLIENT, FAMILIES, Family, OTHER, SYN, V4, V6, dropped,
    early::{offer, waits},
    handed_over, on_node,
};

/// A fragment of the family of `ends`.
pub(super) fn fragment(ends: &Ends, number: u8, id: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let build = if ends.src.is_ipv4() { fragment_v4 } else { fragment_v6 };
    build(ends, number, id, offset, more, data)
}

/// A TCP segment with `data` bytes of data.
fn segment(ends: &Ends, data: usize) -> Vec<u8> {
    ends.tcp_segment(SYN, &[], &vec![7; data])
}

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;

#[test]
fn fragments_of_an_allowed_connection_pass_in_order() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(80);
            let whole = segment(&ends, 40);
            for (offset, end) in [(0, 32), (32, 48), (48, 60)] {
                let piece = fragment(&ends, TCP, 1, offset, end != 60, &whole[offset..end]);
                handed_over(lab.send(CLIENT, &piece), &format!("{offset}..{end}"));
            }
            // The first once more, as after a loss on the way.
            handed_over(lab.send(CLIENT, &fragment(&ends, TCP, 1, 0, true, &whole[..32])), "repeated");
            let ends = family.to_server(53);
            let whole = ends.udp_segment(&[7; 24]);
            for (offset, end) in [(0, 8), (8, 24), (24, 32)] {
                let piece = fragment(&ends, UDP, 2, offset, end != 32, &whole[offset..end]);
                handed_over(lab.send(CLIENT, &piece), &format!("UDP {offset}..{end}"));
            }
        }
    });
}

#[test]
fn fragments_of_a_denied_connection_are_all_dropped() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(9999);
            let whole = segment(&ends, 40);
            // Only a first fragment opens a flow, so that the others find none.
            for (offset, end, reason) in [
                (0, 32, Reason::PolicyDenied),
                (32, 48, Reason::FragmentNotFound),
                (48, 60, Reason::FragmentNotFound),
            ] {
                let piece = fragment(&ends, TCP, 1, offset, end != 60, &whole[offset..end]);
                dropped(lab.send(CLIENT, &piece), reason, &format!("{offset}..{end}"));
            }
        }
    });
}

#[test]
fn a_first_fragment_holds_the_whole_transport_header() {
    on_node(|lab| {
        for (family, port) in FAMILIES.into_iter().flat_map(|family| [(family, 80), (family, 9999)]) {
            // The flags of TCP stand in the second word pair: cut before, and after, and in the options.
            let ends = family.to_server(port);
            let whole = ends.tcp_segment(SYN, &[1; 12], &[7; 40]);
            for len in [0, 8, 16, 24] {
                let first = fragment(&ends, TCP, 3, 0, true, &whole[..len]);
                dropped(
                    lab.send(CLIENT, &first),
                    Reason::FragmentTooShort,
                    &format!("TCP {len} port {port}"),
                );
                let second = fragment(&ends, TCP, 3, len.max(8), false, &whole[len.max(8)..]);
                waits(lab, CLIENT, &second, "what follows");
            }
            let whole = ends.sctp_segment(1);
            let first = fragment(&ends, protocol::SCTP, 4, 0, true, &whole[..8]);
            dropped(lab.send(CLIENT, &first), Reason::FragmentTooShort, "SCTP");
            let first = fragment(&ends, UDP, 4, 0, true, &[]);
            dropped(lab.send(CLIENT, &first), Reason::FragmentTooShort, "UDP");
        }
        for family in FAMILIES {
            let ends = family.to_server(80);
            let whole = ends.tcp_segment(SYN, &[1; 12], &[7; 40]);
            handed_over(lab.send(CLIENT, &fragment(&ends, TCP, 5, 0, true, &whole[..32])), "TCP 32");
            let ends = family.to_server(53);
            let whole = ends.udp_segment(&[7; 40]);
            handed_over(lab.send(CLIENT, &fragment(&ends, UDP, 5, 0, true, &whole[..8])), "UDP 8");
        }
    });
}

#[test]
fn a_later_fragment_needs_its_first() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(80);
            let whole = segment(&ends, 40);
            let later = |id| fragment(&ends, TCP, id, 32, false, &whole[32..]);
            waits(lab, OTHER, &later(6), "of another pod, before");
            handed_over(lab.send(CLIENT, &fragment(&ends, TCP, 6, 0, true, &whole[..32])), "first");
            waits(lab, CLIENT, &later(7), "another identification");
            let udp = fragment(&ends, UDP, 6, 32, false, &whole[32..]);
            waits(lab, CLIENT, &udp, "another protocol");
            // From another interface: neither under its own address nor under the client's.
            waits(lab, OTHER, &later(6), "another pod");
            let own = Ends::new(family.other, family.server, 80);
            let piece = fragment(&own, TCP, 6, 32, false, &whole[32..]);
            waits(lab, OTHER, &piece, "another source");
            handed_over(lab.send(CLIENT, &later(6)), "later");
        }
    });
}

#[test]
fn a_fragment_does_not_overlap_the_first() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(80);
            let whole = segment(&ends, 40);
            handed_over(lab.send(CLIENT, &fragment(&ends, TCP, 8, 0, true, &whole[..32])), "first");
            for offset in [8, 16, 24] {
                let over = fragment(&ends, TCP, 8, offset, false, &whole[offset..]);
                dropped(lab.send(CLIENT, &over), Reason::FragmentOverlap, &format!("at {offset}"));
            }
            let longer = fragment(&ends, TCP, 8, 0, true, &whole[..40]);
            dropped(lab.send(CLIENT, &longer), Reason::FragmentOverlap, "a first that ends elsewhere");
            handed_over(lab.send(CLIENT, &fragment(&ends, TCP, 8, 32, false, &whole[32..])), "beside");
        }
    });
}

#[test]
fn a_second_first_fragment_cannot_change_the_port() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(80);
            let whole = segment(&ends, 40);
            handed_over(lab.send(CLIENT, &fragment(&ends, TCP, 9, 0, true, &whole[..32])), "port 80");
            for other in [Ends { dport: 9999, ..ends }, Ends { sport: 1, ..ends }] {
                let first = fragment(&ends, TCP, 9, 0, true, &segment(&other, 40)[..32]);
                dropped(lab.send(CLIENT, &first), Reason::FragmentOverlap, "other ports");
            }
            // The other way round: what follows a denied first fragment is of the denied flow.
            let denied = family.to_server(9999);
            let first = fragment(&denied, TCP, 10, 0, true, &segment(&denied, 40)[..32]);
            dropped(lab.send(CLIENT, &first), Reason::PolicyDenied, "port 9999");
            let first = fragment(&ends, TCP, 10, 0, true, &whole[..32]);
            dropped(lab.send(CLIENT, &first), Reason::FragmentOverlap, "port 80 over it");
            let later = fragment(&ends, TCP, 10, 32, false, &whole[32..]);
            dropped(lab.send(CLIENT, &later), Reason::FragmentNotFound, "what follows");
        }
    });
}

#[test]
fn one_identification_serves_flows_of_two_protocols() {
    on_node(|lab| {
        for family in FAMILIES {
            let (allowed, denied) = (family.to_server(53), family.to_server(9999));
            let (udp, tcp) = (allowed.udp_segment(&[7; 40]), segment(&denied, 40));
            handed_over(lab.send(CLIENT, &fragment(&allowed, UDP, 11, 0, true, &udp[..32])), "UDP");
            let first = fragment(&denied, TCP, 11, 0, true, &tcp[..32]);
            dropped(lab.send(CLIENT, &first), Reason::PolicyDenied, "TCP");
            let later = fragment(&denied, TCP, 11, 32, false, &tcp[32..]);
            dropped(lab.send(CLIENT, &later), Reason::FragmentNotFound, "more TCP");
            handed_over(lab.send(CLIENT, &fragment(&allowed, UDP, 11, 32, false, &udp[32..])), "more UDP");
        }
    });
}

#[test]
fn echo_requests_may_be_fragmented_and_errors_may_not() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(0);
            let number = ends.icmp_protocol();
            let (request, error) = if family.client == V4.client { (8, 3) } else { (128, 1) };
            let echo = ends.icmp_segment(request, 0, ends.sport, &[7; 40]);
            handed_over(lab.send(CLIENT, &fragment(&ends, number, 12, 0, true, &echo[..24])), "first");
            handed_over(lab.send(CLIENT, &fragment(&ends, number, 12, 24, false, &echo[24..])), "later");
            let quoting = ends.icmp_segment(error, 1, 0, &[0x45; 40]);
            let first = fragment(&ends, number, 13, 0, true, &quoting[..24]);
            dropped(lab.send(CLIENT, &first), Reason::IcmpUnsupported, "an error");
            let short = fragment(&ends, number, 14, 0, true, &[]);
            dropped(lab.send(CLIENT, &short), Reason::FragmentTooShort, "without its header");
        }
    });
}

#[test]
fn the_reserved_flag_of_ipv4_is_refused() {
    on_node(|lab| {
        let frame = V4.to_server(80).tcp(SYN);
        let mut reserved = frame.clone();
        reserved[20] |= 0x80;
        dropped(lab.send(CLIENT, &reserved), Reason::InvalidPacket, "reserved");
        handed_over(lab.send(CLIENT, &frame), "don't fragment");
    });
}

#[test]
fn a_flood_of_fragments_is_bounded_and_a_new_datagram_still_passes() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(53);
            let whole = ends.udp_segment(&[7; 40]);
            let first = |id| fragment(&ends, UDP, id, 0, true, &whole[..32]);
            let later = |id| fragment(&ends, UDP, id, 32, false, &whole[32..]);
            // The table of the test holds 64.
            for id in 100..1_100 {
                handed_over(lab.send(CLIENT, &first(id)), "first of many");
            }
            let passes = |id: &u16| matches!(offer(lab, CLIENT, &later(*id)), Some(Ok(_)));
            let remembered = (100..1_100).filter(passes).count();
            assert!((1..=64).contains(&remembered), "{remembered} of 1000 are remembered");
            handed_over(lab.send(CLIENT, &first(2_000)), "first");
            handed_over(lab.send(CLIENT, &later(2_000)), "later");
        }
    });
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    on_node(|lab| {
        let atomic = |ends: &Ends, data: &[u8]| fragment_v6(ends, TCP, 15, 0, false, data);
        let (allowed, denied) = (V6.to_server(80), V6.to_server(9999));
        handed_over(lab.send(CLIENT, &atomic(&allowed, &segment(&allowed, 0))), "allowed");
        dropped(lab.send(CLIENT, &atomic(&denied, &segment(&denied, 0))), Reason::PolicyDenied, "denied");
        // It leaves nothing behind that a later fragment could refer to.
        let later = fragment_v6(&allowed, TCP, 15, 32, false, &[7; 8]);
        waits(lab, CLIENT, &later, "later");
        dropped(lab.send(CLIENT, &atomic(&allowed, &[0; 8])), Reason::InvalidPacket, "too short");
    });
}

#[test]
fn fragment_headers_come_last_and_once() {
    on_node(|lab| {
        let ends = V6.to_server(80);
        let whole = segment(&ends, 40);
        let options = || (protocol::DESTINATION_OPTIONS, vec![0, 0, 1, 4, 0, 0, 0, 0]);
        let piece = |id, more| (protocol::FRAGMENT, vec![0, 0, 0, u8::from(more), 0, 0, 0, id]);
        let first = &whole[..32];
        handed_over(
            lab.send(CLIENT, &ip_chain_v6(&ends, &[options(), piece(16, true)], TCP, first)),
            "before",
        );
        for (what, chain) in [
            ("options after", vec![piece(17, true), options()]),
            ("two", vec![piece(18, true), piece(18, true)]),
            ("two, both atomic", vec![piece(19, false), piece(19, false)]),
            ("options after an atomic one", vec![piece(20, false), options()]),
        ] {
            let frame = ip_chain_v6(&ends, &chain, TCP, first);
            dropped(lab.send(CLIENT, &frame), Reason::InvalidExtensionHeader, what);
        }
        for number in [59, 50, 51, 43, 0, 253] {
            let frame = ip_chain_v6(&ends, &[piece(21, true)], number, first);
            dropped(lab.send(CLIENT, &frame), Reason::InvalidExtensionHeader, &format!("before {number}"));
        }
    });
}

#[test]
fn fragments_to_a_service_go_to_one_backend() {
    on_node(|lab| {
        for family in FAMILIES {
            let Family { client, web, server, .. } = family;
            let ends = Ends::new(client, web, 53);
            let whole = ends.udp_segment(&[7; 40]);
            for (offset, end) in [(0, 32), (32, 48)] {
                let piece = fragment(&ends, UDP, 22, offset, end != 48, &whole[offset..end]);
                let frame = handed_over(lab.send(CLIENT, &piece), "to the backend");
                let (at, octets) = match server.parse().unwrap() {
                    std::net::IpAddr::V4(server) => (30, server.octets().to_vec()),
                    std::net::IpAddr::V6(server) => (38, server.octets().to_vec()),
                };
                assert_eq!(frame[at..at + octets.len()], octets);
            }
        }
    });
}

#[test]
fn a_fragment_cannot_join_an_established_flow_without_its_header() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(80);
            handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "opened");
            let whole = ends.tcp_segment(ACK, &[], &[7; 40]);
            let first = fragment(&ends, TCP, 23, 0, true, &whole[..16]);
            dropped(lab.send(CLIENT, &first), Reason::FragmentTooShort, "too short");
            let later = fragment(&ends, TCP, 23, 32, false, &whole[32..]);
            waits(lab, CLIENT, &later, "no first");
        }
    });
}
