//! Node ports, external addresses and load balancers: every door from outside, from pods and from the node
//! itself, to backends here and there, and the way back.

use std::{collections::BTreeSet, net::IpAddr};

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, in_lab, in_lab_of, read_tuple, wrong_checksums};

use super::{
    ACK, CLIENT, FAMILIES, Family, OTHER, SERVER, SYN, dropped,
    exposed::{self, AWAY, ELSEWHERE, EMPTY, Exposed, GUARDED, HTTP, KEPT, NEAR, RANGED, TARGET, TWIN},
    handed_over, through_stack,
};

fn on_node(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", &exposed::cluster(), test);
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A connection from `client` to a door.
fn to(client: &str, (address, port): &(String, u16)) -> Ends {
    Ends::new(client, address, *port)
}

/// Checks that `sent` is `ask` with the node's address, for `backend`, and right in its checksums.
#[track_caller]
fn check_masqueraded(family: Family, ask: &Ends, sent: &[u8], backend: &str) -> Ends {
    let seen = read_tuple(sent);
    assert_eq!((seen.src, seen.dst, seen.dport), (address(family.node), address(backend), TARGET), "{ask:?}");
    assert!((10_000..30_000).contains(&seen.sport), "port {} may be a socket's of the node", seen.sport);
    assert_eq!(wrong_checksums(sent), [""; 0]);
    seen
}

/// Checks that `back` is the answer to `ask`.
#[track_caller]
fn check_answer(ask: &Ends, back: &[u8]) {
    assert_eq!((read_tuple(back), wrong_checksums(back)), (ask.back(), vec![]));
}

#[test]
fn the_outside_reaches_a_local_backend_by_every_door() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in NEAR.doors(family) {
                let ask = to(family.outside, &door);
                let sent = handed_over(lab.arrive(&ask.tcp(SYN)), &door.0);
                let seen = check_masqueraded(family, &ask, &sent, family.other);
                assert_eq!(sent[..6], lab.pod(OTHER).mac, "straight into the pod");

                let back = handed_over(lab.send(OTHER, &seen.back().tcp(SYN | ACK)), "back");
                check_answer(&ask, &back);
                let again = handed_over(lab.arrive(&ask.tcp(ACK)), "once more");
                assert_eq!(read_tuple(&again), seen, "a flow keeps its port");
            }
        }
    });
}

#[test]
fn the_outside_reaches_a_backend_on_another_node_by_every_door() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in AWAY.doors(family) {
                let ask = to(family.outside, &door);
                let sent = handed_over(lab.arrive(&ask.tcp(SYN)), &door.0);
                let seen = check_masqueraded(family, &ask, &sent, family.remote);
                let back = handed_over(lab.arrive(&seen.back().tcp(SYN | ACK)), "back");
                check_answer(&ask, &back);
            }
        }
    });
}

#[test]
fn datagrams_go_by_node_ports_there_and_back() {
    on_node(|lab| {
        for family in FAMILIES {
            for (service, pod) in [(NEAR, Some(OTHER)), (AWAY, None)] {
                let ask = to(family.outside, &service.node_port(family));
                let sent = handed_over(lab.arrive(&ask.udp(b"query")), "there");
                let seen = read_tuple(&sent);
                assert_eq!((seen.src, seen.dport), (address(family.node), 5353));
                assert_eq!(wrong_checksums(&sent), [""; 0]);
                let answer = seen.back().udp(b"answer");
                let back = match pod {
                    Some(pod) => lab.send(pod, &answer),
                    None => lab.arrive(&answer),
                };
                check_answer(&ask, &handed_over(back, "back"));
            }
        }
    });
}

#[test]
fn sctp_goes_by_every_door_there_and_back() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in AWAY.doors(family) {
                let ask = to(family.outside, &door);
                let sent = handed_over(lab.arrive(&ask.sctp()), &door.0);
                let seen = check_masqueraded(family, &ask, &sent, family.remote);
                check_answer(&ask, &handed_over(lab.arrive(&seen.back().sctp()), "back"));
            }
            // Only the port of the destination changes.
            let ask = to(family.outside, &KEPT.node_port(family));
            let sent = handed_over(lab.arrive(&ask.sctp()), "a local backend");
            let there = Ends { dst: address(family.other), dport: TARGET, ..ask };
            assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (there, vec![]));
        }
    });
}

#[test]
fn a_crc_that_is_left_to_the_device_stays_so() {
    on_node(|lab| {
        for family in FAMILIES {
            let mut frame = to(family.client, &NEAR.doors(family)[3]).sctp();
            let check = weir_tests::packets::l4_offset(&frame) + 8;
            frame[check..check + 4].fill(0);
            let sent = handed_over(lab.send(CLIENT, &frame), "to the service");
            assert_eq!((read_tuple(&sent).dport, &sent[check..check + 4]), (TARGET, &[0; 4][..]));
        }
    });
}

#[test]
fn the_policy_local_keeps_the_clients_address_and_uses_local_backends_only() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in &KEPT.doors(family)[..3] {
                for _ in 0..8 {
                    let ask = to(family.outside, door);
                    let there = Ends { dst: address(family.other), dport: TARGET, ..ask };
                    let sent = handed_over(lab.arrive(&ask.tcp(SYN)), &door.0);
                    assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (there, vec![]));
                    let back = handed_over(lab.send(OTHER, &there.back().tcp(SYN | ACK)), "back");
                    check_answer(&ask, &back);
                }
            }
            let without = to(family.outside, &ELSEWHERE.node_port(family));
            dropped(lab.arrive(&without.tcp(SYN)), Reason::ServiceNotLocal, "no local backend");
            let cluster_ip = to(family.outside, &ELSEWHERE.doors(family)[3]);
            handed_over(lab.arrive(&cluster_ip.tcp(SYN)), "the policy is not about its ClusterIP");
        }
    });
}

#[test]
fn pods_reach_every_door() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in &NEAR.doors(family)[..3] {
                let ask = to(family.client, door);
                let sent = handed_over(lab.send(CLIENT, &ask.tcp(SYN)), &door.0);
                let seen = check_masqueraded(family, &ask, &sent, family.other);
                let back = handed_over(lab.send(OTHER, &seen.back().tcp(SYN | ACK)), "back");
                check_answer(&ask, &back);
            }
            for door in &AWAY.doors(family)[..3] {
                let ask = to(family.client, door);
                let sent = handed_over(lab.send(CLIENT, &ask.tcp(SYN)), &door.0);
                let seen = check_masqueraded(family, &ask, &sent, family.remote);
                let back = handed_over(lab.arrive(&seen.back().tcp(SYN | ACK)), "back");
                check_answer(&ask, &back);
            }
            // Local is about the outside: pods keep their address, and get every backend.
            let ask = to(family.client, &ELSEWHERE.node_port(family));
            let there = Ends { dst: address(family.remote), dport: TARGET, ..ask };
            let sent = through_stack(lab.send(CLIENT, &ask.tcp(SYN)), "a pod's");
            assert_eq!((read_tuple(&sent), wrong_checksums(&sent)), (there, vec![]));
            check_answer(&ask, &handed_over(lab.arrive(&there.back().tcp(SYN | ACK)), "back"));
        }
    });
}

#[test]
fn a_pod_that_is_its_own_backend_is_reached_by_its_node_port() {
    on_node(|lab| {
        for family in FAMILIES {
            for service in [NEAR, KEPT] {
                // Local: pods may get a backend elsewhere, and only the one of their own is masqueraded.
                let asks = (0..64).map(|_| to(family.other, &service.node_port(family)));
                let sent = asks.map(|ask| (ask, lab.send(OTHER, &ask.tcp(SYN)).expect("allowed").frame));
                let mut to_itself = sent.filter(|(_, frame)| read_tuple(frame).dst == address(family.other));
                let (ask, sent) = to_itself.next().expect("64 connections and two backends");
                let seen = check_masqueraded(family, &ask, &sent, family.other);
                check_answer(&ask, &handed_over(lab.send(OTHER, &seen.back().tcp(SYN | ACK)), "back"));
            }
        }
    });
}

#[test]
fn the_node_reaches_its_own_node_ports_and_gets_its_answers() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = to(family.node, &NEAR.node_port(family));
            let sent = handed_over(lab.loop_back(&ask.tcp(SYN)), "a local backend");
            let seen = check_masqueraded(family, &ask, &sent, family.other);
            check_answer(&ask, &handed_over(lab.send(OTHER, &seen.back().tcp(SYN | ACK)), "back"));

            let ask = to(family.node, &AWAY.node_port(family));
            let sent = handed_over(lab.loop_back(&ask.tcp(SYN)), "a remote backend");
            let seen = check_masqueraded(family, &ask, &sent, family.remote);
            check_answer(&ask, &handed_over(lab.arrive(&seen.back().tcp(SYN | ACK)), "back"));

            let own = Ends::new(family.node, family.node, 22).tcp(SYN);
            assert_eq!(through_stack(lab.loop_back(&own), "its own port"), own);
        }
    });
}

#[test]
fn the_node_reaches_addresses_for_the_outside() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in &AWAY.doors(family)[1..] {
                let ask = to(family.node, door);
                let sent = handed_over(lab.leave(&ask.tcp(SYN)), &door.0);
                let seen = check_masqueraded(family, &ask, &sent, family.remote);
                check_answer(&ask, &through_stack(lab.arrive(&seen.back().tcp(SYN | ACK)), "back"));
            }
        }
    });
}

#[test]
fn only_source_ranges_may_use_the_load_balancers_address() {
    on_node(|lab| {
        for family in FAMILIES {
            let stranger = if family.node.contains(':') { "2001:db8:0:1::9" } else { "192.0.2.9" };
            let balancer = RANGED.balancer(family);
            handed_over(lab.arrive(&to(family.outside, &balancer).tcp(SYN)), "in the ranges");
            dropped(
                lab.arrive(&to(stranger, &balancer).tcp(SYN)),
                Reason::SourceRange,
                "outside of the ranges",
            );
            dropped(
                lab.send(CLIENT, &to(family.client, &balancer).tcp(SYN)),
                Reason::SourceRange,
                "a pod is in none either",
            );
            handed_over(lab.arrive(&to(stranger, &RANGED.node_port(family)).tcp(SYN)), "its node port");
            handed_over(lab.arrive(&to(stranger, &NEAR.balancer(family)).tcp(SYN)), "another service");
        }
    });
}

/// Attack 21, by every other door; Attack 24.
#[test]
fn policy_judges_the_real_client_behind_every_door() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in GUARDED.doors(family) {
                let denied = to(family.outside, &door);
                dropped(lab.arrive(&denied.tcp(SYN)), Reason::PolicyDenied, &door.0);
                dropped(
                    lab.send(OTHER, &to(family.other, &door).tcp(SYN)),
                    Reason::PolicyDenied,
                    "another pod",
                );
                let allowed = handed_over(lab.send(CLIENT, &to(family.client, &door).tcp(SYN)), "the client");
                assert_eq!(allowed[..6], lab.pod(SERVER).mac);
            }
        }
    });
}

#[test]
fn a_service_without_endpoints_is_not_routed_out() {
    on_node(|lab| {
        for family in FAMILIES {
            for door in EMPTY.doors(family) {
                let no_backend = Reason::ServiceNoBackend;
                dropped(lab.arrive(&to(family.outside, &door).tcp(SYN)), no_backend, "from outside");
                dropped(lab.send(CLIENT, &to(family.client, &door).tcp(SYN)), no_backend, "from a pod");
                dropped(lab.leave(&to(family.node, &door).tcp(SYN)), no_backend, "from the node");
            }
            let free = Ends::new(family.outside, family.unallocated, HTTP).tcp(SYN);
            dropped(lab.arrive(&free), Reason::ServiceUnallocated, "an address of no service");
            let free = Ends::new(family.node, family.unallocated, HTTP).tcp(SYN);
            dropped(lab.leave(&free), Reason::ServiceUnallocated, "the node's");
            let other = Ends::new(family.outside, family.web, 81).tcp(SYN);
            dropped(lab.arrive(&other), Reason::ServicePortUnknown, "another port");
            let own = Ends::new(family.outside, family.node, 22).tcp(SYN);
            assert_eq!(through_stack(lab.arrive(&own), "the node's own port"), own);
        }
    });
}

#[test]
fn a_source_that_cannot_be_outside_is_refused() {
    on_node(|lab| {
        for family in FAMILIES {
            let door = NEAR.node_port(family);
            for forged in [family.node, family.client, family.web, family.unallocated] {
                dropped(lab.arrive(&to(forged, &door).tcp(SYN)), Reason::InvalidSource, forged);
            }
            handed_over(lab.arrive(&to(family.remote, &door).tcp(SYN)), "a pod of another node");
        }
    });
}

#[test]
fn the_last_hop_ends_at_the_node() {
    on_node(|lab| {
        for family in FAMILIES {
            let mut frame = to(family.outside, &NEAR.node_port(family)).tcp(SYN);
            set_hops(&mut frame, 2);
            handed_over(lab.arrive(&frame), "two left");
            set_hops(&mut frame, 1);
            dropped(lab.arrive(&frame), Reason::TtlExceeded, "one left");
            let mut frame = to(family.outside, &NEAR.balancer(family)).tcp(SYN);
            set_hops(&mut frame, 1);
            assert_eq!(through_stack(lab.arrive(&frame), "for the stack to report"), frame);
        }
    });
}

fn set_hops(frame: &mut [u8], left: u8) {
    if frame[14] >> 4 == 4 {
        frame[22] = left;
        weir_tests::packets::mend_v4(frame);
    } else {
        frame[21] = left;
    }
}

/// Opens `first` and then `second`, both from the pod client, with their answers from the pod other.
fn open_both(lab: &Lab, first: &Ends, second: &Ends) {
    let seen = [first, second].map(|ask| read_tuple(&handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there")));
    assert_ne!(seen[0], seen[1], "their answers could not be told apart");
    for _ in 0..2 {
        for (ask, seen) in [first, second].into_iter().zip(seen) {
            check_answer(ask, &handed_over(lab.send(OTHER, &seen.back().tcp(SYN | ACK)), "back"));
            let again = handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "again");
            assert_eq!((read_tuple(&again), wrong_checksums(&again)), (seen, vec![]));
        }
    }
}

#[test]
fn two_services_with_one_backend_and_one_client_port_are_told_apart() {
    on_node(|lab| {
        for family in FAMILIES {
            let cluster_ip = |service: Exposed| address(&service.doors(family)[3].0);
            let first = to(family.client, &NEAR.doors(family)[3]);
            let second = Ends { dst: cluster_ip(TWIN), ..first };
            open_both(lab, &first, &second);
        }
    });
}

#[test]
fn a_service_and_its_backend_may_be_asked_from_one_port() {
    on_node(|lab| {
        for family in FAMILIES {
            let by_service = to(family.client, &NEAR.doors(family)[3]);
            let direct = Ends { dst: address(family.other), dport: TARGET, ..by_service };
            open_both(lab, &by_service, &direct);
            let by_service = by_service.again();
            let direct = Ends { sport: by_service.sport, ..direct };
            open_both(lab, &direct, &by_service);
        }
    });
}

#[test]
fn a_client_outside_may_ask_a_node_port_and_its_backend_from_one_port() {
    on_node(|lab| {
        for family in FAMILIES {
            for direct_first in [false, true] {
                // One of two backends, and this is about the local one.
                let by_port = to(family.outside, &KEPT.node_port(family));
                let direct = Ends { dst: address(family.other), dport: TARGET, ..by_port };
                let open = |ask: &Ends| match ask.dst == direct.dst {
                    true => through_stack(lab.receive(OTHER, &ask.tcp(SYN)), "direct"),
                    false => handed_over(lab.arrive(&ask.tcp(SYN)), "by the node port"),
                };
                let order = if direct_first { [direct, by_port] } else { [by_port, direct] };
                let seen = order.map(|ask| read_tuple(&open(&ask)));
                assert_ne!(seen[0], seen[1]);
                for (ask, seen) in order.iter().zip(seen) {
                    let back = lab.send(OTHER, &seen.back().tcp(SYN | ACK)).expect("back");
                    check_answer(ask, &back.frame);
                }
            }
        }
    });
}

#[test]
fn ports_run_out_in_sight() {
    in_lab_of(1 << 15, "n1", &exposed::cluster(), |lab| {
        let (family, mut ports, mut refused) = (FAMILIES[0], BTreeSet::new(), 0);
        let ask = to(family.outside, &AWAY.node_port(family));
        for sport in 1024..22_024 {
            match lab.arrive(&Ends { sport, ..ask }.tcp(SYN)) {
                Ok(passed) => {
                    let is_new = ports.insert(read_tuple(&passed.frame).sport);
                    assert!(is_new, "a port was given out twice");
                }
                Err(reason) => {
                    assert_eq!(reason, Reason::NoFreePort);
                    refused += 1;
                }
            }
        }
        assert!(refused >= 1000, "{refused} refused of 21000 flows, with 20000 ports");
    });
}
