//! Rejects: what a client is told, byte by byte, and whom nothing is told (attack tests 20, 22).

use weir_common::{event::kind, header::protocol, reason::Reason};
use weir_tests::packets::{Answered, Ends, Lab, fragment_v4, fragment_v6, ip, read_tuple, wrong_answer};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, Family, SYN, V4, dropped, handed_over, manifests, on_node, through_stack,
};

impl Family {
    fn empty(self) -> &'static str {
        if self.client == V4.client { "10.96.0.40" } else { "fd00:10:96::40" }
    }

    fn elsewhere(self) -> &'static str {
        if self.client == V4.client { "10.96.0.50" } else { "fd00:10:96::50" }
    }
}

/// With a service without endpoints, and one whose endpoints are elsewhere and not to be used from here.
fn with_empty(test: impl FnOnce(&mut Lab) + Send) {
    let empty = manifests::service(
        "empty",
        40,
        "  ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]",
    );
    let elsewhere = manifests::service(
        "elsewhere",
        50,
        "  internalTrafficPolicy: Local\n  ports: [{name: http, port: 80, targetPort: 8080}]",
    );
    let slices = manifests::slices("elsewhere", "{name: http, port: 8080, protocol: TCP}", &[(2, 10, "")]);
    on_node(|lab| {
        lab.commit(&[CLUSTER, &empty, &elsewhere, &slices].concat());
        test(lab);
    });
}

/// The answer to the last packet, `sent`: whole in itself, and quoting it.
#[track_caller]
fn check_told(lab: &Lab, sent: &[u8], reason: Reason) {
    let Some(Answered { reason: found, frame }) = lab.answer() else { panic!("no answer") };
    assert_eq!(found, reason);
    assert_eq!(wrong_answer(sent, Some(&frame), true), None);
}

#[test]
fn a_client_is_told_that_a_service_has_no_endpoint() {
    with_empty(|lab| {
        for family in FAMILIES {
            let (tcp, udp) =
                (Ends::new(family.client, family.empty(), 80), Ends::new(family.client, family.empty(), 53));
            // Odd lengths and even ones, and such as are quoted in part.
            for data in [0, 1, 2, 3, 500, 511, 512, 513, 600, 1180, 1181, 1182, 1183, 1184, 1400] {
                let data = vec![0xa5; data];
                for frame in [ip(tcp.src, tcp.dst, 6, &tcp.tcp_segment(SYN, &[], &data)), udp.udp(&data)] {
                    dropped(lab.send(CLIENT, &frame), Reason::ServiceNoBackend, "no endpoint");
                    check_told(lab, &frame, Reason::ServiceNoBackend);
                }
            }
            let web = Ends::new(family.client, family.web, 80);
            handed_over(lab.send(CLIENT, &web.tcp(SYN)), "a service with an endpoint");
        }
    });
}

#[test]
fn a_client_is_told_that_a_service_does_not_have_the_port() {
    with_empty(|lab| {
        for family in FAMILIES {
            let to = |port| Ends::new(family.client, family.web, port);
            for frame in
                [to(81).tcp(SYN), to(81).tcp(ACK), to(80).udp(b"q"), to(80).sctp(), to(0).echo_request()]
            {
                dropped(lab.send(CLIENT, &frame), Reason::ServicePortUnknown, "another port");
                check_told(lab, &frame, Reason::ServicePortUnknown);
            }
        }
    });
}

#[test]
fn the_node_is_told_as_if_the_answer_had_come_in() {
    with_empty(|lab| {
        for family in FAMILIES {
            for (to, port, reason) in
                [(family.empty(), 80, Reason::ServiceNoBackend), (family.web, 81, Reason::ServicePortUnknown)]
            {
                let frame = Ends::new(family.node, to, port).tcp(SYN);
                dropped(lab.leave(&frame), reason, "the node");
                check_told(lab, &frame, reason);
                let back = lab.answer().unwrap().frame;
                through_stack(lab.arrive(&back), "and the answer reaches its stack");
            }
            handed_over(lab.leave(&Ends::new(family.node, family.web, 80).tcp(SYN)), "its port");
            for other in [
                Ends::new(family.node, family.outside, 80).tcp(SYN),
                Ends::new(family.node, family.outside, 0).echo_reply(),
            ] {
                through_stack(lab.leave(&other), "what is not for a service");
            }
        }
    });
}

#[test]
fn a_pod_that_is_told_takes_the_answer_for_its_own_connection_only() {
    with_empty(|lab| {
        for family in FAMILIES {
            let frame = Ends::new(family.client, family.empty(), 80).tcp(SYN);
            dropped(lab.send(CLIENT, &frame), Reason::ServiceNoBackend, "no endpoint");
            let back = lab.answer().unwrap().frame;
            let tuple = read_tuple(&back);
            assert_eq!(
                (tuple.src, tuple.dst),
                (family.empty().parse().unwrap(), family.client.parse().unwrap())
            );
            // The same, forged by another pod.
            dropped(lab.send(super::OTHER, &back), Reason::InvalidSource, "forged");
        }
    });
}

#[test]
fn endpoints_that_this_node_may_not_use_are_no_reason_to_tell() {
    with_empty(|lab| {
        for family in FAMILIES {
            let frame = Ends::new(family.client, family.elsewhere(), 80).tcp(SYN);
            dropped(lab.send(CLIENT, &frame), Reason::ServiceNotLocal, "none here");
            assert_eq!(lab.answer(), None);
            let frame = Ends::new(family.client, family.unallocated, 80).tcp(SYN);
            dropped(lab.send(CLIENT, &frame), Reason::ServiceUnallocated, "nobody's");
            assert_eq!(lab.answer(), None);
        }
    });
}

#[test]
fn what_was_sent_to_all_of_a_link_is_not_answered() {
    with_empty(|lab| {
        for family in FAMILIES {
            let mut frame = Ends::new(family.client, family.empty(), 80).tcp(SYN);
            for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
                frame[..6].copy_from_slice(&group);
                dropped(lab.send(CLIENT, &frame), Reason::ServiceNoBackend, "to a group");
                assert_eq!(lab.answer(), None, "{group:?}");
            }
        }
    });
}

#[test]
fn errors_and_later_fragments_are_not_answered_and_first_ones_are() {
    with_empty(|lab| {
        for family in FAMILIES {
            let ends = Ends::new(family.client, family.empty(), 53);
            let error = ends.unreachable(&ends.back().udp(b"q"));
            dropped(lab.send(CLIENT, &error), Reason::IcmpUnrelated, "an error");
            assert_eq!(lab.answer(), None);
            let whole = ends.udp_segment(&[7; 40]);
            let build = if family.client == V4.client { fragment_v4 } else { fragment_v6 };
            let first = build(&ends, protocol::UDP, 7, 0, true, &whole[..32]);
            dropped(lab.send(CLIENT, &first), Reason::ServiceNoBackend, "the first");
            check_told(lab, &first, Reason::ServiceNoBackend);
            let later = build(&ends, protocol::UDP, 7, 32, false, &whole[32..]);
            assert!(lab.send(CLIENT, &later).is_err());
            assert_eq!(lab.answer(), None);
        }
    });
}

#[test]
fn padding_of_the_frame_is_not_quoted() {
    with_empty(|lab| {
        for family in FAMILIES {
            let frame = Ends::new(family.client, family.empty(), 53).udp(b"q");
            let padded = [frame.clone(), vec![0xee; 17]].concat();
            dropped(lab.send(CLIENT, &padded), Reason::ServiceNoBackend, "padded");
            check_told(lab, &frame, Reason::ServiceNoBackend);
        }
    });
}

#[test]
fn an_event_says_that_the_client_was_told() {
    with_empty(|lab| {
        lab.events();
        let told = Ends::new(V4.client, V4.empty(), 80).tcp(SYN);
        dropped(lab.send(CLIENT, &told), Reason::ServiceNoBackend, "told");
        let silent = Ends::new(V4.client, V4.elsewhere(), 80).tcp(SYN);
        dropped(lab.send(CLIENT, &silent), Reason::ServiceNotLocal, "silent");
        let seen: Vec<_> = lab.events().iter().map(|event| (event.kind, event.reason, event.len)).collect();
        let expected = [
            (kind::REJECT, Reason::ServiceNoBackend as u8, told.len() as u32),
            (kind::DROP, Reason::ServiceNotLocal as u8, silent.len() as u32),
        ];
        assert_eq!(seen, expected);
    });
}
