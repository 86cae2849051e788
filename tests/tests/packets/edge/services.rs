//! Services of other kinds: masqueraded, of this node's pods, for some clients only, with affinity.

use weir::kernel::Program;
use weir_common::{
    addr::Be16,
    event::{Event, kind},
    reason::Hook,
};
use weir_tests::packets::At;

use super::*;

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
