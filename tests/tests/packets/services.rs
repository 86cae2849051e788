//! ClusterIPs: translation there and back, every checksum checked by other code.

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, NODE_MAC, read_tuple, wrong_checksums};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, FIN, Family, SERVER, SYN, V4, V6, dropped, handed_over,
    manifests::service, on_node, through_stack,
};

/// Where the TTL or hop limit stands.
fn hops(frame: &[u8]) -> u8 {
    if frame[14] >> 4 == 4 { frame[22] } else { frame[21] }
}

/// A frame that the node handed to `pod`.
fn check_delivered(lab: &Lab, pod: &str, frame: &[u8], tuple: &Ends) {
    assert_eq!(read_tuple(frame), *tuple);
    assert_eq!(wrong_checksums(frame), [""; 0]);
    assert_eq!((&frame[..6], &frame[6..12]), (&lab.pod(pod).mac[..], &NODE_MAC[..]));
    assert_eq!(hops(frame), 63, "a hop was taken");
}

#[test]
fn tcp_and_udp_are_translated_there_and_back() {
    on_node(|lab| {
        for family in FAMILIES {
            let Family { client, web, server, .. } = family;
            for (number, port, backend_port) in [(6, 80, 8080), (17, 53, 5353)] {
                let frame = |ends: &Ends, flags, data: &[u8]| match number {
                    6 => weir_tests::packets::ip(ends.src, ends.dst, 6, &ends.tcp_segment(flags, &[], data)),
                    _ => ends.udp(data),
                };
                let ask = Ends::new(client, web, port);
                let there = Ends { dst: server.parse().unwrap(), dport: backend_port, ..ask };
                // Odd and even lengths; data that makes the sum fold.
                for data in [&[][..], b"a", b"ab", &[0xff; 33], &[0; 64]] {
                    let sent = handed_over(lab.send(CLIENT, &frame(&ask, SYN, data)), "there");
                    check_delivered(lab, SERVER, &sent, &there);
                    let back = handed_over(lab.send(SERVER, &frame(&there.back(), SYN | ACK, data)), "back");
                    check_delivered(lab, CLIENT, &back, &ask.back());
                }
            }
        }
    });
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    on_node(|lab| {
        let ask = Ends::new(V4.client, V4.web, 53);
        let there = Ends { dst: V4.server.parse().unwrap(), dport: 5353, ..ask };
        let without = |ends: &Ends| {
            let mut frame = ends.udp(b"query");
            frame[40..42].fill(0);
            frame
        };
        let sent = handed_over(lab.send(CLIENT, &without(&ask)), "there");
        check_delivered(lab, SERVER, &sent, &there);
        assert_eq!(sent[40..42], [0, 0]);
        let back = handed_over(lab.send(SERVER, &without(&there.back())), "back");
        check_delivered(lab, CLIENT, &back, &ask.back());
        assert_eq!(back[40..42], [0, 0]);
    });
}

#[test]
fn a_udp_checksum_that_becomes_zero_is_written_as_all_ones() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.client, family.web, 53);
            let there = Ends { dst: family.server.parse().unwrap(), dport: 5353, ..ask };
            // Two bytes of data that make the sum after the translation 0xffff, its complement 0.
            let bare = there.udp_segment(&[0, 0]);
            let data = [bare[6], bare[7]];
            let sent = handed_over(lab.send(CLIENT, &ask.udp(&data)), "there");
            let at = weir_tests::packets::l4_offset(&sent) + 6;
            assert_eq!(sent[at..at + 2], [0xff, 0xff], "no checksum at all is another statement");
            check_delivered(lab, SERVER, &sent, &there);
        }
    });
}

#[test]
fn packets_between_pods_are_not_translated() {
    on_node(|lab| {
        for family in FAMILIES {
            let ends = family.to_server(80);
            let sent = handed_over(lab.send(CLIENT, &ends.tcp(SYN)), "there");
            check_delivered(lab, SERVER, &sent, &ends);
            let back = handed_over(lab.send(SERVER, &ends.back().tcp(SYN | ACK)), "back");
            check_delivered(lab, CLIENT, &back, &ends.back());
        }
    });
}

/// Attack 21, by the ClusterIP.
#[test]
fn policy_judges_the_backend_and_not_the_service() {
    on_node(|lab| {
        for family in FAMILIES {
            let denied = Ends::new(family.other, family.web, 80);
            dropped(lab.send(super::OTHER, &denied.tcp(SYN)), Reason::PolicyDenied, "another");
            let allowed = Ends::new(family.client, family.web, 80);
            handed_over(lab.send(CLIENT, &allowed.tcp(SYN)), "the client");
        }
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_node(|lab| {
        for family in FAMILIES {
            let Family { client, node, itself, .. } = family;
            let ask = Ends::new(client, itself, 80);
            let sent = handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there");
            let sport = read_tuple(&sent).sport;
            let there = Ends { src: node.parse().unwrap(), dst: client.parse().unwrap(), sport, dport: 8080 };
            check_delivered(lab, CLIENT, &sent, &there);
            let back = handed_over(lab.send(CLIENT, &there.back().tcp(SYN | ACK)), "back");
            check_delivered(lab, CLIENT, &back, &ask.back());
        }
    });
}

#[test]
fn a_backend_on_another_node_is_reached_by_the_stack_and_answers_by_the_uplink() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.client, family.far, 80);
            let there = Ends { dst: family.remote.parse().unwrap(), dport: 8080, ..ask };
            let sent = through_stack(lab.send(CLIENT, &ask.tcp(SYN)), "there");
            assert_eq!((read_tuple(&sent), hops(&sent)), (there, 64), "the stack takes the hop");
            assert_eq!(wrong_checksums(&sent), [""; 0]);
            let back = handed_over(lab.arrive(&there.back().tcp(SYN | ACK)), "back");
            check_delivered(lab, CLIENT, &back, &ask.back());
        }
    });
}

#[test]
fn the_node_reaches_a_service_and_gets_its_answer() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.node, family.web, 80);
            let sent = handed_over(lab.leave(&ask.tcp(SYN)), "there");
            let sport = read_tuple(&sent).sport;
            assert!(
                (10_000..30_000).contains(&sport),
                "port {sport} may be that of another socket of the node"
            );
            let there = Ends { dst: family.server.parse().unwrap(), sport, dport: 8080, ..ask };
            assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (there, vec![]));
            let back = through_stack(lab.send(SERVER, &there.back().tcp(SYN | ACK)), "back");
            assert_eq!((read_tuple(&back), wrong_checksums(&back)), (ask.back(), vec![]));
        }
    });
}

#[test]
fn the_last_hop_is_left_to_the_stack_to_report() {
    on_node(|lab| {
        for family in FAMILIES {
            for destination in [family.web, family.server] {
                for (left, is_redirected) in [(0, false), (1, false), (2, true)] {
                    let mut frame = Ends::new(family.client, destination, 80).tcp(SYN);
                    let at = if frame[14] >> 4 == 4 { 22 } else { 21 };
                    frame[at] = left;
                    if at == 22 {
                        weir_tests::packets::mend_v4(&mut frame);
                    }
                    let passed = lab.send(CLIENT, &frame).expect("allowed");
                    assert_eq!(passed.is_redirected, is_redirected, "{left} hops left");
                    if is_redirected {
                        assert_eq!((hops(&passed.frame), wrong_checksums(&passed.frame)), (1, vec![]));
                    } else {
                        assert_eq!(passed.frame, frame, "unchanged, so that the error quotes what was sent");
                    }
                }
            }
        }
    });
}

#[test]
fn an_address_of_the_service_range_has_its_ports_or_nothing() {
    on_node(|lab| {
        for family in FAMILIES {
            let to = |address, port| Ends::new(family.client, address, port);
            for frame in
                [to(family.web, 81).tcp(SYN), to(family.web, 80).udp(b"q"), to(family.web, 0).tcp(SYN)]
            {
                dropped(lab.send(CLIENT, &frame), Reason::ServicePortUnknown, "another port");
            }
            dropped(lab.send(CLIENT, &to(family.web, 0).echo_request()), Reason::ServicePortUnknown, "echo");
            let free = to(family.unallocated, 80).tcp(SYN);
            dropped(lab.send(CLIENT, &free), Reason::ServiceUnallocated, "no service");
            handed_over(lab.send(CLIENT, &to(family.web, 80).tcp(SYN)), "its port");
        }
    });
}

#[test]
fn an_address_is_a_services_from_the_commit_on_and_no_longer() {
    let late = service("late", 77, "  ports: [{port: 80}]");
    on_node(|lab| {
        let check = |lab: &Lab, reason, when| {
            for (family, address) in [(V4, "10.96.0.77"), (V6, "fd00:10:96::77")] {
                dropped(lab.send(CLIENT, &Ends::new(family.client, address, 81).tcp(SYN)), reason, when);
                handed_over(lab.send(CLIENT, &Ends::new(family.client, family.web, 80).tcp(SYN)), when);
            }
        };
        // Of the two numbers that an identity has, each round's first commit writes another.
        for _ in 0..3 {
            lab.begin_commit(&format!("{CLUSTER}{late}"));
            check(lab, Reason::ServicePortUnknown, "there");
            lab.end_commit().unwrap();
            check(lab, Reason::ServicePortUnknown, "still there");
            lab.begin_commit(CLUSTER);
            check(lab, Reason::ServiceUnallocated, "gone");
            lab.end_commit().unwrap();
            check(lab, Reason::ServiceUnallocated, "still gone");
        }
    });
}

#[test]
fn a_way_back_that_was_lost_is_found_again() {
    on_node(|lab| {
        let ask = Ends::new(V4.client, V4.web, 80);
        let there = Ends { dst: V4.server.parse().unwrap(), dport: 8080, ..ask };
        handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there");
        handed_over(lab.send(SERVER, &there.back().tcp(SYN | ACK)), "back");
        lab.forget(&there.back());

        // What the client sends next changes the flow's state, and looks after its other direction.
        handed_over(lab.send(CLIENT, &ask.tcp(FIN | ACK)), "there once more");

        let back = handed_over(lab.send(SERVER, &there.back().tcp(ACK)), "back once more");
        check_delivered(lab, CLIENT, &back, &ask.back());
    });
}
