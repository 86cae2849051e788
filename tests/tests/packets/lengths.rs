//! Packets cut short at every length, and transport lengths that lie (attack test 11).

use weir_common::{header::protocol, reason::Reason};
use weir_tests::packets::{Ends, ip, ip_chain_v6, ip_options_v4, l4_offset, mend_v4, read_tuple, set_ip_len};

use super::{ACK, CLIENT, FAMILIES, Family, OTHER, SYN, V4, V6, dropped, handed_over, on_node};

/// The kernel runs no program on less than an IP header of the family that the frame is said to be of.
fn shortest(frame: &[u8]) -> usize {
    l4_offset(frame)
}

/// Packets to allowed ports, and how much of each must be there: all of its transport header, and for UDP
/// all that its length says.
fn shapes(family: &Family) -> Vec<(&'static str, Vec<u8>, usize)> {
    let to = |port| family.to_server(port);
    let tcp = to(80);
    let options = ip(tcp.src, tcp.dst, protocol::TCP, &to(80).tcp_segment(SYN, &[1; 12], &[7; 9]));
    let (plain, udp) = (to(80).tcp(SYN), to(53).udp(&[7; 9]));
    let (sctp, echo) = (to(80).sctp(), to(0).echo_request());
    let l4 = l4_offset(&plain);
    vec![
        ("TCP", plain, l4 + 20),
        ("TCP with options and data", options, l4 + 32),
        ("UDP", udp, l4 + 17),
        ("SCTP", sctp, l4 + 12),
        ("echo", echo, l4 + 8),
    ]
}

#[test]
fn a_packet_shorter_than_it_says_is_dropped() {
    on_node(|lab| {
        for family in FAMILIES {
            for (what, frame, _) in shapes(&family) {
                for len in shortest(&frame)..frame.len() {
                    let what = format!("{what} cut at {len} of {}", frame.len());
                    dropped(lab.send(CLIENT, &frame[..len]), Reason::InvalidPacket, &what);
                }
                handed_over(lab.send(CLIENT, &frame), what);
            }
        }
    });
}

#[test]
fn a_packet_that_says_how_short_it_is_needs_its_transport_header() {
    on_node(|lab| {
        for family in FAMILIES {
            for (what, frame, needed) in shapes(&family) {
                let ip_header = l4_offset(&frame);
                for len in ip_header..=frame.len() {
                    let mut cut = frame[..len].to_vec();
                    set_ip_len(&mut cut);
                    let what = format!("{what} of {len} bytes, {needed} needed");
                    let verdict = lab.send(CLIENT, &cut);
                    if len < needed {
                        dropped(verdict, Reason::InvalidPacket, &what);
                    } else {
                        handed_over(verdict, &what);
                    }
                }
            }
        }
    });
}

#[test]
fn headers_cut_short_before_the_transport_are_dropped() {
    on_node(|lab| {
        let (four, six) = (V4.to_server(80), V6.to_server(80));
        let options = ip_options_v4(&four, protocol::TCP, &[1; 8], &four.tcp_segment(SYN, &[], &[]));
        let chain = vec![(protocol::DESTINATION_OPTIONS, vec![0, 0, 1, 4, 0, 0, 0, 0]); 3];
        let chain = ip_chain_v6(&six, &chain, protocol::TCP, &six.tcp_segment(SYN, &[], &[]));
        for (what, frame) in [("IPv4 options", &options), ("IPv6 extensions", &chain)] {
            for len in shortest(frame)..frame.len() {
                let verdict = lab.send(CLIENT, &frame[..len]);
                assert_eq!(verdict, Err(Reason::InvalidPacket), "{what} cut at {len}");
                // With a length that fits, the chain itself is cut.
                if what == "IPv6 extensions" && len >= 54 {
                    let mut cut = frame[..len].to_vec();
                    set_ip_len(&mut cut);
                    let verdict = lab.send(CLIENT, &cut);
                    let is_refused =
                        matches!(verdict, Err(Reason::InvalidPacket | Reason::InvalidExtensionHeader));
                    assert!(is_refused, "{what} of {len}: {verdict:?}");
                }
            }
            handed_over(lab.send(CLIENT, frame), what);
        }
    });
}

#[test]
fn the_tcp_header_has_its_length_and_fits() {
    on_node(|lab| {
        for family in FAMILIES {
            let frame = family.to_server(80).tcp(SYN);
            let at = l4_offset(&frame) + 12;
            for words in (0..16_u8).filter(|words| *words != 5) {
                let mut lying = frame.clone();
                lying[at] = words << 4;
                dropped(lab.send(CLIENT, &lying), Reason::InvalidPacket, &format!("{words} words"));
            }
            handed_over(lab.send(CLIENT, &frame), "5 words");
        }
    });
}

#[test]
fn the_udp_length_fits_the_packet() {
    on_node(|lab| {
        for family in FAMILIES {
            let frame = family.to_server(53).udp(&[7; 12]);
            let at = l4_offset(&frame) + 4;
            let lying = |len: u16| {
                let mut frame = frame.clone();
                frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
                frame
            };
            for len in (0..8).chain([21, 22, 100, 65535]) {
                dropped(lab.send(CLIENT, &lying(len)), Reason::InvalidPacket, &format!("{len} bytes"));
            }
            for len in [8, 19, 20] {
                handed_over(lab.send(CLIENT, &lying(len)), &format!("{len} bytes"));
            }
        }
    });
}

#[test]
fn an_ipv6_payload_length_fits_the_frame() {
    on_node(|lab| {
        let frame = V6.to_server(80).tcp(SYN);
        let lying = |len: u16| {
            let mut frame = frame.clone();
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            frame
        };
        for len in (0..20).chain([21, 22, 1500, 65535]) {
            dropped(lab.send(CLIENT, &lying(len)), Reason::InvalidPacket, &format!("{len} bytes"));
        }
        let mut trailing = frame.clone();
        trailing.extend([0xff; 50]);
        handed_over(lab.send(CLIENT, &trailing), "what follows is not looked at");
        handed_over(lab.send(CLIENT, &frame), "20 bytes");
    });
}

#[test]
fn every_prefix_of_every_packet_is_judged_without_harm() {
    on_node(|lab| {
        // What came through a hook is at most what was sent: nothing is invented, whatever is cut off.
        for family in FAMILIES {
            let quoted = Ends::new(family.client, family.far, 80).tcp(SYN);
            let error = Ends::new(family.outside, family.client, 0).unreachable(&quoted);
            for len in shortest(&error)..error.len() {
                assert!(lab.receive(CLIENT, &error[..len]).is_err(), "an error cut at {len}");
            }
            let from_outside = Ends::new(family.outside, family.client, 80).tcp(SYN);
            for len in shortest(&from_outside)..from_outside.len() {
                assert!(lab.receive(CLIENT, &from_outside[..len]).is_err(), "to_pod, cut at {len}");
                // The uplink leaves what it does not understand to the pod's own hook, as it is.
                let passed = lab.arrive(&from_outside[..len]).expect("the uplink passes it on");
                assert_eq!((passed.is_redirected, &passed.frame[..]), (false, &from_outside[..len]));
            }
        }
    });
}

/// A packet that a pod leaves to the kernel to cut into segments: a raw socket takes any headers for one.
fn to_be_cut(ends: &Ends, number: u8, data: usize) -> Vec<u8> {
    let segment = match number {
        protocol::TCP => ends.tcp_segment(ACK, &[], &vec![7; data]),
        _ => ends.udp_segment(&vec![7; data]),
    };
    ip(ends.src, ends.dst, number, &segment)
}

#[test]
fn a_packet_to_be_cut_into_segments_is_judged_like_any_other() {
    on_node(|lab| {
        for (family, (number, port)) in FAMILIES
            .into_iter()
            .flat_map(|family| [(family, (protocol::TCP, 80)), (family, (protocol::UDP, 53))])
        {
            // Segments of a byte, as usual, of all there is, and longer than the packet and than any packet.
            for segment in [1, 536, 1448, 2800, 2801, 65535] {
                for (server, target) in
                    [(family.server, port), (family.web, if port == 80 { 8080 } else { 5353 })]
                {
                    let allowed = Ends::new(family.client, server, port);
                    let sent = lab.send_merged(CLIENT, segment, &to_be_cut(&allowed, number, 2800));
                    let there = Ends { dst: family.server.parse().unwrap(), dport: target, ..allowed };
                    assert_eq!(read_tuple(&handed_over(sent, "to the server")), there);
                    let denied = Ends::new(family.other, server, port);
                    let verdict = lab.send_merged(OTHER, segment, &to_be_cut(&denied, number, 2800));
                    dropped(verdict, Reason::PolicyDenied, "from another");
                    let forged = lab.send_merged(OTHER, segment, &to_be_cut(&allowed.again(), number, 2800));
                    dropped(forged, Reason::InvalidSource, "under the client's address");
                }
            }
        }
    });
}

#[test]
fn a_packet_to_be_cut_into_segments_has_the_length_that_it_says() {
    on_node(|lab| {
        for (family, (number, port)) in FAMILIES
            .into_iter()
            .flat_map(|family| [(family, (protocol::TCP, 80)), (family, (protocol::UDP, 53))])
        {
            let frame = to_be_cut(&Ends::new(family.client, family.server, port), number, 2800);
            let send = |frame: &[u8]| lab.send_merged(CLIENT, 1400, frame);
            let (l4, header) = (l4_offset(&frame), if number == protocol::TCP { 20 } else { 8 });
            // More than there is: as much as its segments would have in the end, or all that the field can say.
            let (at, before) = if family.client == V4.client { (16, l4 - 14) } else { (18, 0) };
            let in_field = |length: usize| {
                let mut frame = frame.clone();
                frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
                if before != 0 {
                    mend_v4(&mut frame);
                }
                frame
            };
            let says = |payload: usize| in_field(before + payload);
            let whole = frame.len() - l4;
            for payload in [whole + 1, whole + header, 2 * whole, 65535 - before] {
                dropped(send(&says(payload)), Reason::InvalidPacket, &format!("{payload} of {whole} bytes"));
            }
            // Less than a transport header.
            for payload in [1, header - 1] {
                dropped(send(&says(payload)), Reason::InvalidPacket, &format!("{payload} bytes"));
            }
            // Of one that says nothing the kernel takes all for the packet, and so it is judged.
            handed_over(send(&in_field(0)), "more than 64 KiB have no length");
            dropped(lab.send(CLIENT, &in_field(0)), Reason::InvalidPacket, "others have one");
            // The length of UDP is for the kernel to write, into each segment.
            handed_over(send(&frame), "the truth");
        }
    });
}
