//! Chains of IPv6 extension headers (attack test 10).

use weir_common::{header::protocol, reason::Reason};
use weir_tests::packets::{ip, ip_chain_v6};

use super::{CLIENT, SYN, V6, dropped, handed_over, on_node};

/// Most extension headers that pass.
const MAX_EXTENSIONS: usize = 6;

const HBH: u8 = protocol::HOP_BY_HOP;
const DST: u8 = protocol::DESTINATION_OPTIONS;
const TCP: u8 = protocol::TCP;

/// An options header of eight bytes, all padding.
fn options(kind: u8) -> (u8, Vec<u8>) {
    (kind, vec![0, 0, 1, 4, 0, 0, 0, 0])
}

/// A SYN to the server behind these headers.
fn behind(chain: &[(u8, Vec<u8>)], port: u16) -> Vec<u8> {
    let ends = V6.to_server(port);
    ip_chain_v6(&ends, chain, TCP, &ends.tcp_segment(SYN, &[], &[]))
}

#[test]
fn a_chain_of_any_length_is_walked_to_its_end_or_refused() {
    on_node(|lab| {
        for len in 0..=40 {
            let chain = vec![options(DST); len];
            let what = format!("{len} headers");
            if len <= MAX_EXTENSIONS {
                handed_over(lab.send(CLIENT, &behind(&chain, 80)), &what);
                dropped(lab.send(CLIENT, &behind(&chain, 9999)), Reason::PolicyDenied, &what);
            } else {
                for port in [80, 9999] {
                    dropped(lab.send(CLIENT, &behind(&chain, port)), Reason::InvalidExtensionHeader, &what);
                }
            }
        }
    });
}

#[test]
fn long_headers_are_walked() {
    on_node(|lab| {
        for units in [1, 2, 5, 30] {
            let long = || {
                let mut bytes = vec![0; 8 * (units + 1)];
                bytes[1] = units as u8;
                (DST, bytes)
            };
            let what = format!("{} bytes", 8 * (units + 1));
            handed_over(lab.send(CLIENT, &behind(&[long()], 80)), &what);
            dropped(lab.send(CLIENT, &behind(&[long()], 9999)), Reason::PolicyDenied, &what);
        }
    });
}

#[test]
fn hop_by_hop_options_come_first_or_not_at_all() {
    on_node(|lab| {
        handed_over(lab.send(CLIENT, &behind(&[options(HBH)], 80)), "first");
        handed_over(lab.send(CLIENT, &behind(&[options(HBH), options(DST)], 80)), "before others");
        for (what, chain) in [
            ("second", vec![options(DST), options(HBH)]),
            ("twice", vec![options(HBH), options(HBH)]),
            ("last", vec![options(DST), options(DST), options(HBH)]),
        ] {
            dropped(lab.send(CLIENT, &behind(&chain, 80)), Reason::InvalidExtensionHeader, what);
        }
    });
}

#[test]
fn headers_that_are_not_passed_on_are_refused_wherever_they_stand() {
    on_node(|lab| {
        // Routing, ESP, authentication, mobility, HIP, shim6, experiments, reserved; IPv4's ICMP.
        for kind in [43, 50, 51, 135, 139, 140, 253, 254, 255, 1, 4, 41, 47] {
            for chain in
                [vec![options(kind)], vec![options(DST), options(kind)], vec![options(kind), options(DST)]]
            {
                let what = format!("{kind} in a chain of {}", chain.len());
                dropped(lab.send(CLIENT, &behind(&chain, 80)), Reason::InvalidExtensionHeader, &what);
            }
        }
        // A routing header of type 0 with and without segments left.
        for left in [0, 1] {
            let mut header = vec![0, 2, 0, left, 0, 0, 0, 0];
            header.extend([0xfd; 16]);
            dropped(lab.send(CLIENT, &behind(&[(43, header)], 80)), Reason::InvalidExtensionHeader, "RH0");
        }
        handed_over(lab.send(CLIENT, &behind(&[options(DST)], 80)), "destination options");
    });
}

#[test]
fn no_next_header_is_no_transport() {
    on_node(|lab| {
        let ends = V6.to_server(80);
        let segment = ends.tcp_segment(SYN, &[], &[]);
        let bare = ip(ends.src, ends.dst, 59, &segment);
        dropped(lab.send(CLIENT, &bare), Reason::InvalidExtensionHeader, "at once");
        let empty = ip(ends.src, ends.dst, 59, &[]);
        dropped(lab.send(CLIENT, &empty), Reason::InvalidExtensionHeader, "empty");
        for len in 1..=7 {
            let frame = ip_chain_v6(&ends, &vec![options(DST); len], 59, &segment);
            dropped(lab.send(CLIENT, &frame), Reason::InvalidExtensionHeader, &format!("behind {len}"));
        }
        handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "TCP");
    });
}

#[test]
fn a_header_longer_than_the_packet_is_refused() {
    on_node(|lab| {
        // The packet is 28 bytes of headers: one unit of eight fits twice more.
        for units in 3..=255_u8 {
            let mut header = options(DST);
            header.1[1] = units;
            let verdict = lab.send(CLIENT, &behind(&[header], 80));
            assert_eq!(verdict, Err(Reason::InvalidPacket), "{units} units");
        }
        // The first eight bytes of TCP taken for options: what is left is no whole header.
        let mut header = options(DST);
        header.1[1] = 1;
        dropped(lab.send(CLIENT, &behind(&[header], 80)), Reason::InvalidPacket, "TCP too short");
        handed_over(lab.send(CLIENT, &behind(&[options(DST)], 80)), "the true length");
    });
}

#[test]
fn the_version_must_be_six() {
    on_node(|lab| {
        let frame = V6.to_server(80).tcp(SYN);
        for version in (0..16).filter(|version| *version != 6) {
            let mut other = frame.clone();
            other[14] = version << 4;
            dropped(lab.send(CLIENT, &other), Reason::InvalidPacket, &format!("version {version}"));
        }
        handed_over(lab.send(CLIENT, &frame), "version 6");
    });
}
