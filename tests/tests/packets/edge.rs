//! The edge: what it sends on at XDP and what it leaves to the stack.

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketHeaders};
use weir::kernel::Program;
use weir_common::{
    addr::Be16,
    event::{Event, kind},
    reason::{Hook, Reason},
};
use weir_tests::packets::{
    At, Ends, Lab, NODE_MAC, ROUTER_MAC, in_lab, ip, ip_options_v4, mend_v4, read_tuple, wrong_checksums,
};

use super::{ACK, CLUSTER, FAMILIES, Family, SYN, V4, dropped, early, handed_over};

pub(super) const SERVICE: &str = include_str!("edge.yaml");

/// Addresses of the service that the outside knows.
pub(super) const VIPS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// The service's endpoints of IPv4, and more of them.
const ONE: &str = "endpoints: [{addresses: [10.244.2.10], nodeName: n2}]";
const THREE: &str = "endpoints: [{addresses: [10.244.2.10], nodeName: n2}, {addresses: [10.244.2.11], nodeName: n2}, {addresses: [10.244.2.12], nodeName: n2}]";

/// Runs a test on node n1, to which the whole world is behind one router.
pub(super) fn on_edge(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", &[CLUSTER, SERVICE].concat(), |lab| {
        lab.route_out();
        test(lab);
    });
}

pub(super) fn families() -> impl Iterator<Item = (Family, &'static str)> {
    FAMILIES.into_iter().zip(VIPS)
}

/// Where the TTL or hop limit stands.
fn hops_at(frame: &[u8]) -> usize {
    if frame[14] >> 4 == 4 { 22 } else { 21 }
}

/// Takes the header of a tunnel off a frame: source, destination, and the frame inside.
pub(super) fn unwrap(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
    let inner = |at: usize| [&frame[..14], &frame[at..]].concat();
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    match headers.net.expect("an IP packet") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(
                (ip.protocol.0, ip.dont_fragment, usize::from(ip.total_len)),
                (4, true, frame.len() - 14)
            );
            (ip.source.into(), ip.destination.into(), inner(34))
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!((ip.next_header.0, usize::from(ip.payload_length)), (41, frame.len() - 54));
            (ip.source.into(), ip.destination.into(), inner(54))
        }
        other => panic!("{other:?}"),
    }
}

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

/// What `frame` must have become on its way to the backend.
#[track_caller]
pub(super) fn check_tunnel(family: Family, frame: &[u8], sent: &[u8]) {
    let (from, to, inner) = unwrap(sent);
    assert_eq!((from, to), (family.node.parse().unwrap(), family.remote.parse().unwrap()));
    let mut expected = frame.to_vec();
    expected[hops_at(frame)] -= 1;
    if frame[14] >> 4 == 4 {
        mend_v4(&mut expected);
    }
    assert_eq!(inner[12..], expected[12..]);
    assert_eq!(wrong_checksums(&inner), [""; 0]);
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

/// What the node n1 sends to the backend of the service.
pub(super) fn tunnelled(family: Family, from: &str, to: &str, inner: &[u8]) -> Vec<u8> {
    let number = if family.node.contains(':') { 41 } else { 4 };
    ip(from.parse().unwrap(), to.parse().unwrap(), number, &inner[14..])
}

/// Runs a test on node n2, where the backend is.
fn at_backend(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n2", &[CLUSTER, SERVICE].concat(), test);
}

#[test]
fn a_tunnel_ends_at_the_backend_which_answers_the_client_itself() {
    at_backend(|lab| {
        for (family, vip) in families() {
            for (port, backend_port) in [(80, 8080), (53, 5353)] {
                let ends = Ends::new(family.outside, vip, port);
                let there = Ends { dst: family.remote.parse().unwrap(), dport: backend_port, ..ends };
                let frame = |ends: &Ends, flags| if port == 80 { ends.tcp(flags) } else { ends.udp(b"q") };
                for flags in [SYN, ACK] {
                    let inner = frame(&ends, flags);
                    let arrived = tunnelled(family, family.node, family.remote, &inner);
                    let sent = handed_over(lab.arrive(&arrived), "to the backend");
                    assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (there, vec![]));
                    assert_eq!(sent.len(), inner.len());
                }
                let back =
                    handed_over(lab.send("t/remote", &frame(&there.back(), SYN | ACK)), "past the stack");
                assert_eq!((read_tuple(&back), wrong_checksums(&back)), (ends.back(), vec![]));
            }
        }
    });
}

#[test]
fn fragments_out_of_a_tunnel_follow_their_first_and_do_not_wait_for_it() {
    at_backend(|lab| {
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 53);
            let by = |id, piece: usize| {
                let inner = &early::datagram(&ends, id)[piece];
                lab.arrive(&tunnelled(family, family.node, family.remote, inner))
            };
            handed_over(by(1, 0), "the first");
            handed_over(by(1, 1), "behind it");
            dropped(by(2, 1), Reason::FragmentNotFound, "before it");
            handed_over(by(2, 0), "its first");
        }
    });
}

#[test]
fn what_comes_out_of_a_tunnel_is_for_a_backend_of_its_service_or_dropped() {
    at_backend(|lab| {
        for (family, vip) in families() {
            let to = |address, port| Ends::new(family.outside, address, port);
            let legal = to(vip, 80).tcp(SYN);
            let by = |from, inner: &[u8]| lab.arrive(&tunnelled(family, from, family.remote, inner));
            for forged in [family.outside, family.other, family.remote, family.unallocated] {
                dropped(by(forged, &legal), Reason::InvalidTunnel, "from no node");
            }
            dropped(by(family.node, &to(vip, 81).tcp(SYN)), Reason::InvalidTunnel, "no port of the service");
            dropped(by(family.node, &to(family.far, 80).tcp(SYN)), Reason::InvalidTunnel, "no DSR service");
            dropped(
                by(family.node, &to(family.remote, 8080).tcp(SYN)),
                Reason::InvalidTunnel,
                "the pod itself",
            );
            dropped(by(family.node, &to(vip, 80).tcp(0)), Reason::InvalidTcpFlags, "no TCP");
            // A pod elsewhere and here, a node, a service of the cluster, and an address for services.
            let inside = [family.client, family.remote, family.node, family.web, family.unallocated];
            for source in inside {
                for frame in [Ends::new(source, vip, 80).tcp(SYN), Ends::new(source, vip, 53).udp(b"q")] {
                    dropped(by(family.node, &frame), Reason::InvalidSource, source);
                }
            }
            handed_over(by(family.node, &legal), "the legal one");
            // What is no pod's is the node's own business.
            let own = tunnelled(family, family.node, family.unallocated, &legal);
            assert_eq!(super::through_stack(lab.arrive(&own), "another tunnel"), own);
        }
    });
}

/// What somebody sends in the name of services, and what the legal ones are: a port that is none of the service's
/// may be a client's that the router hides behind the same address.
fn in_the_name_of_services(family: Family, vip: &str) -> ([Vec<u8>; 4], [Vec<u8>; 2]) {
    let (http, dns) =
        (Ends { sport: 80, ..Ends::new(vip, vip, 80) }, Ends { sport: 53, ..Ends::new(vip, vip, 53) });
    let of = |source| Ends::new(source, vip, 80).tcp(SYN);
    let legal = [of(family.outside), Ends { sport: 50_080, ..http }.tcp(SYN)];
    ([http.tcp(SYN), dns.udp(b"q"), of(family.web), of(family.unallocated)], legal)
}

#[test]
fn services_send_nothing_to_one_another() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let (forged, legal) = in_the_name_of_services(family, vip);
            for frame in forged {
                dropped(lab.arrive(&frame), Reason::InvalidSource, "a service");
            }
            for frame in legal {
                check_tunnel(family, &frame, &handed_over(lab.arrive(&frame), "a client"));
            }
        }
    });
}

#[test]
fn whom_the_edge_takes_for_a_client_the_backends_node_looks_at_again() {
    let mut sent = [Vec::new(), Vec::new()];
    on_edge(|lab| {
        for (family, vip) in families() {
            let (forged, legal) = in_the_name_of_services(family, vip);
            sent[0].extend(forged.iter().filter_map(|frame| lab.meet_edge(frame)));
            sent[1].extend(legal.iter().map(|frame| lab.meet_edge(frame).expect("a client")));
        }
    });
    at_backend(|lab| {
        let [forged, legal] = &sent;
        assert!(!forged.is_empty(), "the edge does not look at the source");
        for frame in forged {
            dropped(lab.arrive(frame), Reason::InvalidSource, "a service");
        }
        for frame in legal {
            handed_over(lab.arrive(frame), "a client");
        }
    });
}

#[test]
fn a_tunnel_to_a_pod_that_is_no_backend_is_dropped() {
    let away =
        SERVICE.replace("10.244.2.10", "10.244.2.11").replace("fd00:10:244:2::10", "fd00:10:244:2::11");
    in_lab("n2", &[CLUSTER, &away].concat(), |lab| {
        for (family, vip) in families() {
            let inner = Ends::new(family.outside, vip, 80).tcp(SYN);
            let frame = tunnelled(family, family.node, family.remote, &inner);
            dropped(lab.arrive(&frame), Reason::InvalidTunnel, "no backend");
        }
        lab.commit(&[CLUSTER, SERVICE].concat());
        for (family, vip) in families() {
            let inner = Ends::new(family.outside, vip, 80).tcp(SYN);
            handed_over(lab.arrive(&tunnelled(family, family.node, family.remote, &inner)), "a backend");
        }
    });
}

#[test]
fn policy_judges_the_client_behind_a_tunnel() {
    // The server lets in the client pod alone.
    let local =
        SERVICE.replace("10.244.2.10", "10.244.1.20").replace("fd00:10:244:2::10", "fd00:10:244:1::20");
    let world = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: world, namespace: t}\nspec:\n  podSelector: {matchLabels: {app: server}}\n  ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/28}}, {ipBlock: {cidr: \"2001:db8::/125\"}}]}]\n";
    in_lab("n1", &[CLUSTER, &local, world].concat(), |lab| {
        for ((_, vip), (denied, allowed)) in
            families().zip([("203.0.113.99", "203.0.113.9"), ("2001:db8::9", "2001:db8::7")])
        {
            let family = if vip.contains(':') { super::V6 } else { V4 };
            let node = if vip.contains(':') { "fd00:50::12" } else { "192.168.50.12" };
            let by = |client| {
                let inner = Ends::new(client, vip, 80).tcp(SYN);
                lab.arrive(&tunnelled(family, node, family.server, &inner))
            };
            dropped(by(denied), Reason::PolicyDenied, "nobody lets it in");
            handed_over(by(allowed), "let in by its address");
        }
    });
}

#[test]
fn a_pod_makes_no_tunnels() {
    on_edge(|lab| {
        for (family, vip) in families() {
            let inner = Ends::new(family.outside, vip, 80).tcp(SYN);
            let frame = tunnelled(family, family.client, family.remote, &inner);
            let reason =
                if vip.contains(':') { Reason::InvalidExtensionHeader } else { Reason::UnsupportedL4 };
            dropped(lab.send(super::CLIENT, &frame), reason, "a tunnel of a pod's");
            handed_over(
                lab.send(super::CLIENT, &Ends::new(family.client, family.web, 80).tcp(SYN)),
                "its own",
            );
        }
    });
}

#[test]
fn a_masqueraded_flow_is_sent_on_both_ways_once_tc_has_opened_it() {
    let service = SERVICE.replace("forwarding: dsr", "forwarding: snat");
    in_lab("n1", &[CLUSTER, &service].concat(), |lab| {
        lab.route_out();
        for (family, vip) in families() {
            for (port, backend_port) in [(80, 8080), (53, 5353)] {
                let ends = Ends::new(family.outside, vip, port);
                let frame = |ends: &Ends, flags| if port == 80 { ends.tcp(flags) } else { ends.udp(b"odd") };
                assert_eq!(lab.meet_edge(&frame(&ends, SYN)), None, "TC opens it");
                let there = read_tuple(&handed_over(lab.arrive(&frame(&ends, SYN)), "by TC"));
                assert_eq!(
                    (there.src, there.dst),
                    (family.node.parse().unwrap(), family.remote.parse().unwrap())
                );
                assert_eq!(there.dport, backend_port);

                for (sent, expected) in [(ends, there), (there.back(), ends.back())] {
                    let sent = lab.meet_edge(&frame(&sent, ACK)).expect("it is sent on");
                    assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (expected, vec![]));
                    assert_eq!((&sent[..6], &sent[6..12]), (&ROUTER_MAC[..], &NODE_MAC[..]));
                    assert_eq!(sent[hops_at(&sent)], 63, "a hop was taken");
                }
                // And TC goes on with it as well.
                let again = handed_over(lab.arrive(&frame(&ends, ACK)), "by TC");
                assert_eq!((read_tuple(&again), wrong_checksums(&again)), (there, vec![]));
            }
        }
    });
}

#[test]
fn a_flow_to_a_pod_of_this_node_is_left_to_tc() {
    let local =
        SERVICE.replace("10.244.2.10", "10.244.1.10").replace("fd00:10:244:2::10", "fd00:10:244:1::10");
    in_lab("n1", &[CLUSTER, &local].concat(), |lab| {
        lab.route_out();
        // Not up the uplink, as in a network without a route to the pod.
        weir_tests::packets::ip_command("route add 10.244.1.10/32 dev lo");
        weir_tests::packets::ip_command("route add fd00:10:244:1::10/128 dev lo");
        for (family, vip) in families() {
            let ends = Ends::new(family.outside, vip, 80);
            let there = Ends { dst: family.client.parse().unwrap(), dport: 8080, ..ends };
            for flags in [SYN, ACK] {
                assert_eq!(lab.meet_edge(&ends.tcp(flags)), None);
                assert_eq!(read_tuple(&handed_over(lab.arrive(&ends.tcp(flags)), "to the pod")), there);
            }
        }
    });
}

/// The service, for some clients only.
fn ranged() -> String {
    let ranges = "type: LoadBalancer\n  loadBalancerSourceRanges: [203.0.113.0/28, \"2001:db8::/64\", 192.168.50.12/32]";
    SERVICE.replace("type: LoadBalancer", ranges)
}

#[test]
fn who_is_in_no_source_range_is_dropped_at_the_edge() {
    for service in [ranged(), ranged().replace("forwarding: dsr", "forwarding: snat")] {
        in_lab("n1", &[CLUSTER, &service].concat(), |lab| {
            lab.route_out();
            for ((family, vip), (stranger, pod)) in
                families().zip([("203.0.113.16", "10.244.2.11"), ("2001:db8:0:1::9", "fd00:10:244:2::11")])
            {
                for denied in [stranger, pod] {
                    let (tcp, udp) = (Ends::new(denied, vip, 80), Ends::new(denied, vip, 53));
                    for frame in [tcp.tcp(SYN), tcp.tcp(ACK), udp.udp(b"q")] {
                        assert_eq!(lab.judge_at_edge(&frame), Err(Reason::SourceRange), "{denied}");
                        dropped(lab.arrive(&frame), Reason::SourceRange, "and at TC");
                    }
                }
                // As with kube-proxy, they are about the load balancer's address.
                let port = Ends::new(stranger, family.node, 30080).tcp(SYN);
                let by_edge = lab.judge_at_edge(&port).expect("a node port is everybody's");
                assert_eq!(by_edge.is_some(), service.contains("dsr"));
                let legal = Ends::new(family.outside, vip, 80);
                match lab.judge_at_edge(&legal.tcp(SYN)) {
                    Ok(Some(sent)) => check_tunnel(family, &legal.tcp(SYN), &sent),
                    Ok(None) if service.contains("snat") => {
                        handed_over(lab.arrive(&legal.tcp(SYN)), "by TC");
                        assert!(lab.meet_edge(&legal.tcp(ACK)).is_some());
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    }
}

#[test]
fn of_a_flood_from_a_denied_source_every_packet_is_counted_and_some_are_told_of() {
    in_lab("n1", &[CLUSTER, &ranged()].concat(), |lab| {
        lab.route_out();
        lab.events();
        let ends = Ends::new("203.0.113.16", VIPS[0], 80);
        let at = At { ifindex: lab.uplink(), ingress: lab.uplink() };
        for _ in 0..10_000 {
            lab.node().run(Program::Edge, at, &ends.tcp(SYN)).expect("the program runs");
        }
        let counted = lab.node().kernel().drops().expect("counters").into_iter();
        let counted =
            counted.filter(|(hook, reason, _)| (*hook, *reason) == (Hook::Edge, Reason::SourceRange));
        assert_eq!(counted.map(|(.., counter)| counter.packets).sum::<u64>(), 10_000);
        let is_it = |event: &&Event| {
            (event.kind, event.hook, event.reason, event.sport)
                == (kind::DROP, Hook::Edge as u8, Reason::SourceRange as u8, Be16::new(ends.sport))
        };
        let told = lab.events().iter().filter(is_it).count();
        assert!((100..5_000).contains(&told), "{told} events of 10,000 packets");
    });
}

#[test]
fn a_client_with_affinity_keeps_its_backend_by_the_edge_and_by_tc() {
    let sticky = SERVICE
        .replace(
            "type: LoadBalancer",
            "type: LoadBalancer\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}",
        )
        .replace(ONE, THREE);
    in_lab("n1", &[CLUSTER, &sticky].concat(), |lab| {
        lab.route_out();
        let by_edge = |ends: &Ends| unwrap(&lab.meet_edge(&ends.tcp(SYN)).expect("a new flow")).1;
        let by_tc = |ends: &Ends| unwrap(&handed_over(lab.arrive(&ends.tcp(SYN)), "a new flow")).1;
        let mut used = std::collections::BTreeSet::new();
        for client in 1..=15 {
            let ends = Ends::new(&format!("203.0.113.{client}"), VIPS[0], 80);
            // Either may be the first to see a client.
            let backend = if client % 2 == 0 { by_edge(&ends) } else { by_tc(&ends) };
            for _ in 0..4 {
                assert_eq!((by_edge(&ends.again()), by_tc(&ends.again())), (backend, backend));
            }
            used.insert(backend);
        }
        assert_eq!(used.len(), 3, "clients are spread");
    });
}
