//! Echo replies, and ICMP errors about the packets that they quote (attack test 20).

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, l4_offset, read_tuple, wrong_checksums};

use super::{
    ACK, CLIENT, FAMILIES, Family, OTHER, SERVER, SYN, V4, dropped, handed_over, on_node, set_hops,
    through_stack,
};

#[test]
fn an_echo_reply_needs_its_request() {
    on_node(|lab| {
        for family in FAMILIES {
            let request = family.to_server(0);
            // In an echo's flow the identifier stands for the port of the one who asks.
            let reply = Ends { sport: 0, dport: request.sport, ..request.back() };
            dropped(lab.send(SERVER, &reply.echo_reply()), Reason::IcmpUnrelated, "before it is asked");
            handed_over(lab.send(CLIENT, &request.echo_request()), "request");
            let other = Ends { dport: request.sport ^ 1, ..reply };
            dropped(lab.send(SERVER, &other.echo_reply()), Reason::IcmpUnrelated, "another identifier");
            let from_other = Ends { src: family.other.parse().unwrap(), ..reply };
            dropped(lab.send(OTHER, &from_other.echo_reply()), Reason::IcmpUnrelated, "another pod");
            handed_over(lab.send(SERVER, &reply.echo_reply()), "reply");
        }
    });
}

#[test]
fn other_icmp_types_are_not_passed() {
    on_node(|lab| {
        // Redirects, source quench, timestamps, address masks, router discovery, and what nobody knows.
        for kind in (0..=255_u8).filter(|kind| ![0, 3, 8, 11, 12].contains(kind)) {
            let frame = V4.to_server(0).icmp(kind, 0, 1, &[0; 28]);
            dropped(lab.send(CLIENT, &frame), Reason::IcmpUnsupported, &format!("ICMP type {kind}"));
        }
        let family = FAMILIES[1];
        for kind in (0..=255_u8).filter(|kind| !(1..=4).contains(kind) && !(128..=129).contains(kind)) {
            let expected = match kind {
                133..=136 => Reason::InvalidNeighbour,
                _ => Reason::IcmpUnsupported,
            };
            let frame = family.to_server(0).icmp(kind, 0, 1, &[0; 28]);
            dropped(lab.send(CLIENT, &frame), expected, &format!("ICMPv6 type {kind}"));
        }
        handed_over(lab.send(CLIENT, &V4.to_server(0).echo_request()), "echo request");
    });
}

/// The frame that an ICMP error quotes, with an Ethernet header in front of it.
fn quoted(error: &[u8]) -> Vec<u8> {
    [&error[..14], &error[l4_offset(error) + 8..]].concat()
}

/// The server's answer "port unreachable" to a packet, as its kernel writes it.
fn answer(lab: &Lab, family: &Family, received: &[u8]) -> Vec<u8> {
    let error = Ends::new(family.server, family.client, 0).unreachable(received);
    handed_over(lab.send(SERVER, &error), "the error")
}

#[test]
fn an_error_about_a_live_flow_reaches_its_sender() {
    on_node(|lab| {
        for family in FAMILIES {
            let flow = family.to_server(80);
            let received = handed_over(lab.send(CLIENT, &flow.tcp(SYN)), "opened");
            let error = answer(lab, &family, &received);
            assert_eq!(wrong_checksums(&error), [""; 0]);
            assert_eq!(read_tuple(&quoted(&error)), flow);
        }
    });
}

#[test]
fn an_error_about_a_service_speaks_of_the_service() {
    on_node(|lab| {
        for family in FAMILIES {
            for (ask, frame) in [
                (Ends::new(family.client, family.web, 80), Ends::tcp as fn(&Ends, u8) -> Vec<u8>),
                (Ends::new(family.client, family.web, 53), |ends: &Ends, _| ends.udp(b"query")),
            ] {
                let received = handed_over(lab.send(CLIENT, &frame(&ask, SYN)), "opened");
                let error = answer(lab, &family, &received);
                let outer = read_tuple(&error);
                assert_eq!((outer.src, outer.dst), (family.web.parse().unwrap(), ask.src));
                assert_eq!(wrong_checksums(&error), [""; 0]);
                let quote = quoted(&error);
                assert_eq!(read_tuple(&quote), ask, "as the client knows it");
                if family.client == V4.client {
                    let header = etherparse::Ipv4Header::from_slice(&quote[14..]).unwrap().0;
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                }
            }
        }
    });
}

#[test]
fn an_error_that_ends_within_its_quote_is_dropped() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.client, family.web, 80);
            let received = handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "opened");
            let needed = l4_offset(&received) + 8;
            for len in 14..=received.len() {
                // What the error no longer says still stands behind it.
                let mut error = Ends::new(family.server, family.client, 0).unreachable(&received[..len]);
                error.extend(&received[len..]);
                let what = format!("{len} bytes of the frame quoted, {needed} needed");
                if len < needed {
                    dropped(lab.send(SERVER, &error), Reason::IcmpUnrelated, &what);
                } else {
                    let passed = handed_over(lab.send(SERVER, &error), &what);
                    assert_eq!(wrong_checksums(&passed), [""; 0], "{what}");
                }
            }
        }
    });
}

#[test]
fn an_error_whose_hops_run_out_goes_to_the_stack_as_it_came() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.client, family.web, 80);
            let received = handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "opened");
            let mut error = Ends::new(family.server, family.client, 0).unreachable(&received);
            set_hops(&mut error, 2);
            handed_over(lab.send(SERVER, &error), "two left");
            set_hops(&mut error, 1);
            assert_eq!(through_stack(lab.send(SERVER, &error), "one left"), error);
        }
    });
}

#[test]
fn an_error_of_a_router_outside_is_translated_too() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.client, family.far, 80);
            let sent = through_stack(lab.send(CLIENT, &ask.tcp(SYN)), "opened");
            // Time exceeded, of a router on the way.
            let router = Ends::new(family.outside, family.client, 0);
            let kind = if family.client == V4.client { 11 } else { 3 };
            let error = router.icmp(kind, 0, 0, &sent[14..]);
            let passed = handed_over(lab.arrive(&error), "by the uplink");
            assert_eq!((read_tuple(&passed).src, wrong_checksums(&passed)), (router.src, vec![]));
            assert_eq!(read_tuple(&quoted(&passed)), ask);
        }
    });
}

#[test]
fn forged_errors_are_dropped() {
    on_node(|lab| {
        for family in FAMILIES {
            let flow = family.to_server(80);
            let received = handed_over(lab.send(CLIENT, &flow.tcp(SYN)), "opened");
            let unrelated = |verdict, what: &str| dropped(verdict, Reason::IcmpUnrelated, what);

            let from_other = Ends::new(family.other, family.client, 0);
            unrelated(lab.send(OTHER, &from_other.unreachable(&received)), "another pod, a live flow");
            let from_server = Ends::new(family.server, family.client, 0);
            let other_flow = flow.again().tcp(SYN);
            unrelated(lab.send(SERVER, &from_server.unreachable(&other_flow)), "no such flow");
            let to_other = Ends::new(family.server, family.other, 0);
            unrelated(lab.send(SERVER, &to_other.unreachable(&received)), "to another than it quotes");
            // A pod may not report about packets that it sent itself.
            let from_client = Ends::new(family.client, family.server, 0);
            unrelated(lab.send(CLIENT, &from_client.unreachable(&flow.tcp(ACK))), "the wrong direction");
            let spoofed = Ends::new(family.server, family.client, 0);
            let verdict = lab.send(OTHER, &spoofed.unreachable(&received));
            dropped(verdict, Reason::InvalidSource, "under the server's address");
            let outside = Ends::new(family.outside, family.client, 0);
            unrelated(lab.receive(CLIENT, &outside.unreachable(&received)), "from outside");
            for len in [0, 8, 19] {
                let short = [&received[..14], &received[14..14 + len]].concat();
                unrelated(lab.send(SERVER, &from_server.unreachable(&short)), "a quote cut short");
            }
            answer(lab, &family, &received);
        }
    });
}

#[test]
fn an_error_about_a_flow_that_was_cut_is_dropped() {
    on_node(|lab| {
        for family in FAMILIES {
            let flow = family.to_server(80);
            let received = handed_over(lab.send(CLIENT, &flow.tcp(SYN)), "opened");
            let error = Ends::new(family.server, family.client, 0).unreachable(&received);
            lab.commit(&super::CLUSTER.replacen("        - {port: 80, protocol: TCP}\n", "", 1));
            dropped(lab.send(SERVER, &error), Reason::IcmpUnrelated, "denied meanwhile");
            lab.commit(super::CLUSTER);
            handed_over(lab.send(CLIENT, &flow.tcp(ACK)), "allowed again");
            handed_over(lab.send(SERVER, &flow.back().tcp(ACK)), "and answered");
            handed_over(lab.send(SERVER, &error), "the error");
        }
    });
}

#[test]
fn an_error_about_a_packet_of_this_revision_passes_before_any_answer_does() {
    on_node(|lab| {
        for family in FAMILIES {
            let ask = Ends::new(family.client, family.far, 80);
            through_stack(lab.send(CLIENT, &ask.tcp(SYN)), "opened");
            // Any commit: the way back is of the revision before until something comes along it. A packet
            // too big for a link on the way never gets an answer, only the error.
            lab.commit(&super::CLUSTER.replacen("        - {port: 65535, protocol: TCP}\n", "", 1));
            let sent = through_stack(lab.send(CLIENT, &ask.tcp(ACK)), "too big");
            let router = Ends::new(family.outside, family.client, 0);
            let (kind, code) = if family.client == V4.client { (3, 4) } else { (2, 0) };
            handed_over(lab.arrive(&router.icmp(kind, code, 0, &sent[14..])), "the error");
            lab.commit(super::CLUSTER);
        }
    });
}

#[test]
fn an_error_of_the_node_about_a_services_answer_takes_the_way_to_the_backend() {
    on_node(|lab| {
        for family in FAMILIES {
            for (service, backend) in [(family.web, family.server), (family.far, family.remote)] {
                let ask = Ends::new(family.node, service, 80);
                let there = read_tuple(&handed_over(lab.leave(&ask.tcp(SYN)), "there"));
                let back = there.back().tcp(SYN | ACK);
                let back = if backend == family.server {
                    lab.send(SERVER, &back).expect("back").frame
                } else {
                    lab.arrive(&back).expect("back").frame
                };
                // Its route is the service's: it must not go there.
                let error = Ends::new(family.node, service, 0).unreachable(&back);
                let sent = handed_over(lab.leave(&error), "the error");
                assert_eq!(read_tuple(&sent).dst, there.dst);
                assert_eq!(read_tuple(&quoted(&sent)), there.back());
                assert_eq!(wrong_checksums(&sent), [""; 0]);
            }
        }
    });
}
