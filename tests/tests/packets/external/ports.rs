//! Ports of the node that clients are given: they tell flows apart, and run out in sight.

use std::collections::BTreeSet;

use weir_tests::packets::in_lab_of;

use super::{
    super::exposed::{Exposed, TWIN},
    *,
};

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
