//! Masquerade: what leaves the cluster has the node's address, and its answers find their way back.

use std::collections::BTreeSet;

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, in_lab, in_lab_of, read_tuple, wrong_checksums};

use super::{ACK, CLIENT, CLUSTER, FAMILIES, FIN, Family, SYN, V4, dropped, handed_over, through_stack};

/// Runs a test on node n1 of a cluster that masquerades.
fn on_node(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", &cluster(), test);
}

fn cluster() -> String {
    CLUSTER.replacen("spec:\n  podCIDRs", "spec:\n  masquerade: true\n  podCIDRs", 1)
}

fn outside(family: Family) -> Ends {
    Ends::new(family.client, family.outside, 443)
}

#[test]
fn a_connection_to_the_outside_has_the_nodes_address_and_its_answers_come_back() {
    on_node(|lab| {
        for family in FAMILIES {
            for number in [6, 17] {
                let ask = outside(family).again();
                let frame =
                    |ends: &Ends, flags| if number == 6 { ends.tcp(flags) } else { ends.udp(b"data") };
                let sent = handed_over(lab.send(CLIENT, &frame(&ask, SYN)), "out");
                let seen = read_tuple(&sent);
                assert_eq!((seen.src, seen.dst, seen.dport), (family.node.parse().unwrap(), ask.dst, 443));
                assert!(
                    (10_000..30_000).contains(&seen.sport),
                    "port {} may be a socket's of the node",
                    seen.sport
                );
                assert_eq!(wrong_checksums(&sent), [""; 0]);

                let back = handed_over(lab.arrive(&frame(&seen.back(), SYN | ACK)), "back");
                assert_eq!(read_tuple(&back), ask.back());
                assert_eq!(wrong_checksums(&back), [""; 0]);

                let again = handed_over(lab.send(CLIENT, &frame(&ask, ACK)), "once more");
                assert_eq!(read_tuple(&again), seen, "a flow keeps its port");
            }
        }
    });
}

#[test]
fn an_echo_is_told_apart_by_its_identifier() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = outside(family);
            let sent = handed_over(lab.send(CLIENT, &ask.echo_request()), "out");
            assert_eq!(read_tuple(&sent).src, family.node.parse::<std::net::IpAddr>().unwrap());
            assert_eq!(wrong_checksums(&sent), [""; 0]);
        }
    });
}

#[test]
fn sctp_has_the_nodes_address_and_a_port_and_a_crc_of_its_own() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = outside(family);
            let sent = handed_over(lab.send(CLIENT, &ask.sctp()), "out");
            let seen = read_tuple(&sent);
            assert!(
                seen.src == family.node.parse::<std::net::IpAddr>().unwrap()
                    && (10_000..30_000).contains(&seen.sport)
            );
            assert_eq!(wrong_checksums(&sent), [""; 0]);
            let back = handed_over(lab.arrive(&seen.back().sctp()), "back");
            assert_eq!((read_tuple(&back), wrong_checksums(&back)), (ask.back(), vec![]));
        }
    });
}

#[test]
fn two_pods_with_one_port_are_told_apart() {
    on_node(|lab| {
        for family in FAMILIES {
            let mut ports = BTreeSet::new();
            for (pod, address) in [(CLIENT, family.client), (super::OTHER, family.other)] {
                let ask = Ends { src: address.parse().unwrap(), ..outside(family) };
                ports.insert(read_tuple(&handed_over(lab.send(pod, &ask.tcp(SYN)), pod)).sport);
            }
            assert_eq!(ports.len(), 2, "{ports:?}");
        }
    });
}

#[test]
fn what_stays_in_the_cluster_keeps_its_source() {
    on_node(|lab| {
        for family in FAMILIES {
            for inside in [family.remote, "192.168.50.12", "fd00:50::12"] {
                let is_v6 = |address: &str| address.contains(':');
                if is_v6(inside) != is_v6(family.client) {
                    continue;
                }
                let ask = Ends::new(family.client, inside, 80);
                assert_eq!(read_tuple(&through_stack(lab.send(CLIENT, &ask.tcp(SYN)), inside)), ask);
            }
        }
    });
}

#[test]
fn an_answer_to_nobody_is_not_let_in() {
    on_node(|lab| {
        for family in FAMILIES {
            let sent = handed_over(lab.send(CLIENT, &outside(family).tcp(SYN)), "out");
            let seen = read_tuple(&sent);
            // Another host, and another port of the same one: the node's own business, if anybody's.
            let stranger = Ends { sport: 444, ..seen.back() };
            assert_eq!(read_tuple(&through_stack(lab.arrive(&stranger.tcp(ACK)), "another port")), stranger);
            handed_over(lab.arrive(&seen.back().tcp(SYN | ACK)), "its twin");
            let forged = Ends { src: family.node.parse().unwrap(), ..outside(family) };
            dropped(
                lab.send(CLIENT, &forged.tcp(SYN)),
                Reason::InvalidSource,
                "the node's address from a pod",
            );
        }
    });
}

#[test]
fn ports_of_flows_that_have_ended_are_given_out_again() {
    // Room for all of them: none has its port because another was forgotten.
    in_lab_of(1 << 13, "n1", &cluster(), |lab| {
        for _ in 0..10_000 {
            let ask = outside(V4);
            handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "opened");
            handed_over(lab.send(CLIENT, &ask.tcp(FIN | ACK)), "ended");
        }
    });
}
