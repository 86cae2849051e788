//! To a DSR service: what the edge sends on through a tunnel, and what it leaves to the stack and to TC.

use weir_tests::packets::ip_options_v4;

use super::*;

/// A packet that must go to the backend of the other node as it came, but for a hop.
#[track_caller]
fn check_tunnelled(lab: &Lab, family: Family, frame: &[u8]) {
    let sent = lab.meet_edge(frame).expect("it is sent on");
    assert_eq!(
        (&sent[..6], &sent[6..12]),
        (&ROUTER_MAC[..], &NODE_MAC[..]),
        "to the next hop, from the node"
    );
    check_tunnel(family, frame, &sent);
}

#[test]
fn packets_to_a_dsr_service_go_to_the_backends_node_as_they_came() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let tcp = Ends::new(family.outside, vip, 80);
            for flags in [SYN, ACK, ACK] {
                check_tunnelled(lab, family, &tcp.tcp(flags));
            }
            let udp = Ends::new(family.outside, vip, 53);
            for data in [&[][..], b"a", &[7; 1000]] {
                check_tunnelled(lab, family, &udp.udp(data));
            }
            check_tunnelled(lab, family, &Ends::new(family.outside, family.node, 30080).tcp(SYN));
            assert_eq!(read_tuple(&tcp.tcp(SYN)), tcp);
        }
    });
}

#[test]
fn what_is_not_plain_or_not_for_the_edge_is_left_to_the_stack() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let to = |address, port| Ends::new(family.outside, address, port);
            let mut group = to(vip, 80).tcp(SYN);
            group[0] |= 1;
            for (what, frame) in [
                ("another port", to(vip, 81).tcp(SYN)),
                ("another protocol", to(vip, 80).udp(b"q")),
                ("a ClusterIP", to(family.web, 80).tcp(SYN)),
                ("a pod", to(family.server, 8080).tcp(SYN)),
                ("the node", to(family.node, 22).tcp(SYN)),
                ("an echo", to(vip, 0).echo_request()),
                ("a frame to a group", group),
                ("a client of the cluster", Ends::new(family.remote, vip, 80).tcp(SYN)),
                (
                    "a martian",
                    Ends::new(if vip.contains(':') { "::1" } else { "127.0.0.1" }, vip, 80).tcp(SYN),
                ),
            ] {
                assert_eq!(lab.meet_edge(&frame), None, "{what}");
            }
            check_tunnelled(lab, family, &to(vip, 80).tcp(SYN));
        }
        let ends = Ends::new(V4.outside, VIPS[0], 80);
        let options = ip_options_v4(&ends, 6, &[1; 4], &ends.tcp_segment(SYN, &[], &[]));
        assert_eq!(lab.meet_edge(&options), None, "options");
        let fragment =
            weir_tests::packets::fragment_v4(&ends, 6, 7, 0, true, &ends.tcp_segment(SYN, &[], &[0; 64]));
        assert_eq!(lab.meet_edge(&fragment), None, "a fragment");
        check_tunnelled(lab, V4, &ends.tcp(SYN));
    });
}

#[test]
fn the_last_hop_is_left_to_the_stack_to_report() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 80);
            for left in [0, 1, 2] {
                let mut frame = ends.tcp(SYN);
                let at = hops_at(&frame);
                frame[at] = left;
                if at == 22 {
                    mend_v4(&mut frame);
                }
                match left {
                    2 => check_tunnelled(lab, family, &frame),
                    _ => assert_eq!(lab.meet_edge(&frame), None, "{left} hops left"),
                }
            }
        }
    });
}

#[test]
fn a_packet_that_the_tunnel_has_no_room_for_is_left_to_tc() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 53);
            let header = if vip.contains(':') { 40 } else { 20 };
            let of_len = |len: usize| ends.udp(&vec![0; len - header - 8]);
            check_tunnelled(lab, family, &of_len(1500 - header));
            assert_eq!(lab.meet_edge(&of_len(1501 - header)), None);
        }
    });
}

#[test]
fn a_flow_keeps_its_backend_when_the_ring_changes() {
    on_edge(|lab| {
        let flows: Vec<_> = (0..32).map(|_| Ends::new(V4.outside, VIPS[0], 80)).collect();
        for ends in &flows {
            check_tunnelled(lab, V4, &ends.tcp(SYN));
        }
        lab.commit(&[CLUSTER, &SERVICE.replace(ONE, THREE)].concat());
        for ends in &flows {
            // The revision is new: TC decides whether the flow may stay, and then the edge goes on.
            assert_eq!(lab.meet_edge(&ends.tcp(ACK)), None);
        }
        let others: std::collections::BTreeSet<_> = flows
            .iter()
            .map(|ends| unwrap(&lab.meet_edge(&ends.again().tcp(SYN)).expect("a new flow")).1)
            .collect();
        assert_eq!(others.len(), 3, "new flows are spread: {others:?}");
    });
}

#[test]
fn tc_does_what_the_edge_leaves_to_it() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 80);
            for flags in [SYN, ACK] {
                let frame = ends.tcp(flags);
                check_tunnel(family, &frame, &handed_over(lab.arrive(&frame), "a tunnel"));
            }
            // The edge goes on with a flow of TC's, and TC with one of the edge's.
            check_tunnelled(lab, family, &ends.tcp(ACK));
            let ends = Ends::new(family.outside, vip, 53);
            check_tunnelled(lab, family, &ends.udp(b"q"));
            check_tunnel(family, &ends.udp(b"q"), &handed_over(lab.arrive(&ends.udp(b"q")), "a tunnel"));
        }
        let ends = Ends::new(V4.outside, VIPS[0], 80);
        let options = ip_options_v4(&ends, 6, &[1; 4], &ends.tcp_segment(SYN, &[], &[]));
        let sent = handed_over(lab.arrive(&options), "options");
        assert_eq!(unwrap(&sent).2[34..], options[34..]);
    });
}
