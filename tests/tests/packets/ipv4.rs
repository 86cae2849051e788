//! IPv4 headers: options and lengths (attack test 11).

use weir_common::{header::protocol, reason::Reason};
use weir_tests::packets::{ip_options_v4, mend_v4};

use super::{CLIENT, SYN, V4, dropped, handed_over, on_node};

/// Most options, no-operations among them, that a header may have.
const MAX_OPTIONS: usize = 16;

fn with_options(options: &[u8], port: u16) -> Vec<u8> {
    let ends = V4.to_server(port);
    ip_options_v4(&ends, protocol::TCP, options, &ends.tcp_segment(SYN, &[], &[]))
}

/// Options filled up to whole words with the end of the list.
fn padded(options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

#[test]
fn well_formed_options_do_not_hide_the_port() {
    on_node(|lab| {
        for (what, options) in [
            ("router alert", vec![148, 4, 0, 0]),
            ("record route", [&[7, 39, 4][..], &[0; 36]].concat()),
            ("timestamp", [&[68, 36, 5, 0][..], &[0; 32]].concat()),
            ("security", padded(&[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            ("unknown", vec![94, 4, 0, 0]),
            ("longest", [&[94, 40][..], &[0; 38]].concat()),
            ("end at once, rubbish after it", vec![0, 131, 255, 255]),
            ("no-operation and router alert", padded(&[1, 148, 4, 0, 0])),
        ] {
            let options = padded(&options);
            handed_over(lab.send(CLIENT, &with_options(&options, 80)), what);
            dropped(lab.send(CLIENT, &with_options(&options, 9999)), Reason::PolicyDenied, what);
        }
    });
}

#[test]
fn options_of_every_length_are_walked_or_refused() {
    on_node(|lab| {
        for words in 0..=10 {
            let options = vec![1; words * 4];
            let what = format!("{} no-operations", options.len());
            if options.len() <= MAX_OPTIONS {
                handed_over(lab.send(CLIENT, &with_options(&options, 80)), &what);
                dropped(lab.send(CLIENT, &with_options(&options, 9999)), Reason::PolicyDenied, &what);
            } else {
                dropped(lab.send(CLIENT, &with_options(&options, 80)), Reason::InvalidIpOption, &what);
            }
        }
    });
}

#[test]
fn malformed_options_and_source_routes_are_refused() {
    on_node(|lab| {
        for (what, options) in [
            ("loose source route", vec![131, 7, 4, 10, 244, 1, 20, 0]),
            ("strict source route", vec![137, 7, 4, 10, 244, 1, 20, 0]),
            ("source route after a no-operation", vec![1, 131, 7, 4, 10, 244, 1, 20]),
            ("source route after an option", vec![148, 4, 0, 0, 131, 3, 4, 0]),
            ("length 0", vec![148, 0, 0, 0]),
            ("length 1", vec![148, 1, 0, 0]),
            ("one byte too long", vec![148, 5, 0, 0]),
            ("far too long", vec![148, 255, 0, 0]),
            ("length beyond the header", vec![1, 1, 1, 148]),
        ] {
            dropped(lab.send(CLIENT, &with_options(&options, 80)), Reason::InvalidIpOption, what);
        }
        handed_over(lab.send(CLIENT, &with_options(&[148, 4, 0, 0], 80)), "router alert");
    });
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    on_node(|lab| {
        let frame = V4.to_server(80).tcp(SYN);
        let changed = |at: usize, bytes: &[u8]| {
            let mut frame = frame.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            mend_v4(&mut frame);
            frame
        };
        let total = |len: u16| changed(16, &len.to_be_bytes());
        for ihl in 0..5 {
            dropped(
                lab.send(CLIENT, &changed(14, &[0x40 | ihl])),
                Reason::InvalidPacket,
                &format!("IHL {ihl}"),
            );
        }
        for version in [0, 1, 5, 6, 15] {
            let what = format!("version {version}");
            dropped(lab.send(CLIENT, &changed(14, &[version << 4 | 5])), Reason::InvalidPacket, &what);
        }
        // The header claims to be longer than the packet, or than the frame; what it covers are no options.
        for ihl in 11..=15 {
            let verdict = lab.send(CLIENT, &changed(14, &[0x40 | ihl]));
            assert!(
                matches!(verdict, Err(Reason::InvalidPacket | Reason::InvalidIpOption)),
                "IHL {ihl}: {verdict:?}"
            );
        }
        for len in (0..40).chain([41, 42, 60, 1500, 65535]) {
            dropped(lab.send(CLIENT, &total(len)), Reason::InvalidPacket, &format!("total length {len}"));
        }
        handed_over(lab.send(CLIENT, &total(40)), "the true length");
    });
}

#[test]
fn what_follows_the_packet_is_not_looked_at() {
    on_node(|lab| {
        for trailing in [1, 6, 18, 100, 1_000] {
            for port in [80, 9999] {
                let mut frame = V4.to_server(port).tcp(SYN);
                // Another segment, to the other port, behind the end of the packet.
                let other = V4.to_server(80).tcp(SYN);
                frame.extend(other[34..].iter().cycle().take(trailing));
                let verdict = lab.send(CLIENT, &frame);
                match port {
                    80 => drop(handed_over(verdict, "allowed")),
                    _ => dropped(verdict, Reason::PolicyDenied, "denied"),
                }
            }
        }
    });
}

#[test]
fn other_protocols_are_not_passed() {
    on_node(|lab| {
        let ends = V4.to_server(80);
        let supported = [1, 6, 17, 132];
        for number in (0..=255_u8).filter(|number| !supported.contains(number)) {
            let frame = ip_options_v4(&ends, number, &[], &ends.tcp_segment(SYN, &[], &[]));
            dropped(lab.send(CLIENT, &frame), Reason::UnsupportedL4, &format!("protocol {number}"));
        }
        handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "TCP");
    });
}
