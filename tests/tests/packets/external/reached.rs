//! Who reaches which backend by which door, and the way back.

use super::{super::exposed::ELSEWHERE, *};

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
