//! Flows through a service whose backend is gone for good: both sides of a connection are told, what was never
//! answered goes elsewhere.

use weir::{
    cluster::Name,
    datapath::{Backend, Target},
};
use weir_common::{event::kind, flow::state, header::protocol, reason::Reason};
use weir_tests::packets::{
    Ends, Lab, fragment_v4, fragment_v6, ip, ip_chain_v6, ip_options_v4, read_tuple, wrong_checksums,
};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, FIN, Family, PSH, RST, SERVER, SYN, V4, dropped, handed_over, manifests,
    on_node, through_stack,
};

/// The slices of service `web`, of one more endpoint when asked, with their own in this state.
fn endpoints(own: Option<&str>) -> String {
    let ports = "{name: http, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}";
    let own = own.map(|conditions| (1, 20, conditions));
    manifests::slices("web", ports, &[(2, 10, "")].into_iter().chain(own).collect::<Vec<_>>())
}

/// The cluster with other slices of service `web`.
fn cluster(own: Option<&str>) -> String {
    let documents = CLUSTER.split("---\n").filter(|text| !text.contains("name: web-v"));
    documents.collect::<Vec<_>>().join("---\n") + &endpoints(own)
}

/// A connection of the client through the service, established. Both its directions.
fn connect(lab: &Lab, family: Family) -> (Ends, Ends) {
    let ask = Ends::new(family.client, family.web, 80);
    let there = Ends { dst: family.server.parse().unwrap(), dport: 8080, ..ask };
    handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there");
    handed_over(lab.send(SERVER, &there.back().tcp(SYN | ACK)), "back");
    handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "established");
    (ask, there)
}

/// The answer to the last packet is the reset that `sent` asks for.
#[track_caller]
fn check_reset(lab: &Lab, sent: &[u8], ends: &Ends, segment: &[u8]) {
    let frame = lab.answer().expect("an answer").frame;
    assert_eq!((&frame[..6], &frame[6..12], &frame[12..14]), (&sent[6..12], &sent[..6], &sent[12..14]));
    assert_eq!(read_tuple(&frame), ends.back());
    assert_eq!(wrong_checksums(&frame), [""; 0]);
    let header = if ends.src.is_ipv4() { 20 } else { 40 };
    assert_eq!(frame.len(), 14 + header + 20);
    let tcp = &frame[14 + header..];
    assert_eq!(tcp[4..8], segment[8..12], "the sequence number is what was acknowledged");
    assert_eq!((tcp[12], tcp[13]), (0x50, RST));
}

fn acknowledging(ends: &Ends, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = ends.tcp_segment(flags, &[], data);
    segment[8..12].copy_from_slice(&[0xfe, 0xdc, 0xba, 0x98]);
    let zeroed = [&segment[..16], &[0, 0], &segment[18..]].concat();
    let check = weir_tests::packets::transport_check(ends.src, ends.dst, protocol::TCP, &zeroed);
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    segment
}

#[test]
fn both_sides_of_a_connection_are_reset_when_its_backend_is_gone() {
    on_node(|lab| {
        for family in FAMILIES {
            lab.commit(CLUSTER);
            let (ask, there) = connect(lab, family);
            let other = connect(lab, family).0;
            // While it is an endpoint, in whatever state, connections may come to their end.
            for own in ["ready: false, serving: true, terminating: true", "ready: false, serving: false"] {
                lab.commit(&cluster(Some(own)));
                handed_over(lab.send(CLIENT, &ask.tcp(ACK)), own);
                handed_over(lab.send(SERVER, &there.back().tcp(ACK)), own);
            }
            lab.commit(&cluster(None));
            for (pod, ends) in [(CLIENT, ask), (SERVER, there.back()), (CLIENT, ask)] {
                for (flags, data) in [(ACK, &b""[..]), (ACK | PSH, b"data"), (ACK | FIN, &[7; 1400])] {
                    let segment = acknowledging(&ends, flags, data);
                    let frame = ip(ends.src, ends.dst, protocol::TCP, &segment);
                    dropped(lab.send(pod, &frame), Reason::ServiceBackendGone, pod);
                    check_reset(lab, &frame, &ends, &segment);
                }
            }
            let flows = lab.flows();
            let mut own =
                flows.iter().filter(|flow| flow.src.port() == ask.sport || flow.dst.port() == ask.sport);
            assert!(own.all(|flow| flow.state == state::CLOSING), "{flows:?}");
            // The same port may be used for another connection at once.
            let again = through_stack(lab.send(CLIENT, &ask.tcp(SYN)), "to the other backend");
            assert_eq!(read_tuple(&again).dst, family.remote.parse::<std::net::IpAddr>().unwrap());
            // A reset is not answered by one.
            dropped(lab.send(CLIENT, &other.tcp(RST)), Reason::ServiceBackendGone, "a reset");
            assert_eq!(lab.answer(), None);
        }
    });
}

#[test]
fn options_and_extension_headers_are_not_in_the_reset() {
    on_node(|lab| {
        for family in FAMILIES {
            lab.commit(CLUSTER);
            let ask = connect(lab, family).0;
            lab.commit(&cluster(None));
            let segment = acknowledging(&ask, ACK, b"data");
            let options = vec![0, 0, 1, 4, 0, 0, 0, 0];
            let frame = if family.client == V4.client {
                ip_options_v4(&ask, protocol::TCP, &[1; 12], &segment)
            } else {
                ip_chain_v6(&ask, &[(protocol::DESTINATION_OPTIONS, options)], protocol::TCP, &segment)
            };
            dropped(lab.send(CLIENT, &frame), Reason::ServiceBackendGone, "with options");
            check_reset(lab, &frame, &ask, &segment);
            let build = if family.client == V4.client { fragment_v4 } else { fragment_v6 };
            let first = build(&ask, protocol::TCP, 7, 0, true, &segment);
            dropped(lab.send(CLIENT, &first), Reason::ServiceBackendGone, "a first fragment");
            check_reset(lab, &first, &ask, &segment);
            let later = build(&ask, protocol::TCP, 7, 24, false, &[7; 8]);
            dropped(lab.send(CLIENT, &later), Reason::ServiceBackendGone, "a later one");
            assert_eq!(lab.answer(), None);
        }
    });
}

#[test]
fn connections_that_went_there_directly_or_whose_service_is_gone_stay() {
    on_node(|lab| {
        for family in FAMILIES {
            lab.commit(CLUSTER);
            let (ask, there) = connect(lab, family);
            let direct = Ends::new(family.client, family.server, 8080);
            handed_over(lab.send(CLIENT, &direct.tcp(SYN)), "direct");
            lab.commit(&cluster(None));
            handed_over(lab.send(CLIENT, &direct.tcp(ACK)), "direct, with the endpoint gone");
            lab.commit(CLUSTER);
            handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "the endpoint is back");
            let without = CLUSTER.split("---\n").filter(|text| !text.contains("name: web"));
            lab.commit(&without.collect::<Vec<_>>().join("---\n"));
            handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "without the service");
            handed_over(lab.send(SERVER, &there.back().tcp(ACK)), "and back");
        }
    });
}

#[test]
fn nothing_is_reset_where_the_cluster_says_so() {
    on_node(|lab| {
        let keep =
            |text: &str| text.replace("spec:\n  podCIDRs", "spec:\n  resetGoneBackends: false\n  podCIDRs");
        for family in FAMILIES {
            lab.commit(&keep(CLUSTER));
            let ask = connect(lab, family).0;
            lab.commit(&keep(&cluster(None)));
            handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "as with kube-proxy");
            lab.commit(&cluster(None));
            dropped(lab.send(CLIENT, &ask.tcp(ACK)), Reason::ServiceBackendGone, "by default");
        }
    });
}

#[test]
fn an_event_says_that_a_connection_was_reset() {
    on_node(|lab| {
        let ask = connect(lab, V4).0;
        lab.commit(&cluster(None));
        lab.events();
        dropped(lab.send(CLIENT, &ask.tcp(ACK)), Reason::ServiceBackendGone, "told");
        let seen: Vec<_> = lab.events().iter().map(|event| (event.kind, event.reason)).collect();
        assert_eq!(seen, [(kind::REJECT, Reason::ServiceBackendGone as u8)]);
    });
}

/// Packets that a client sends through service `web` until it is answered, each with its backend's port.
fn unanswered(family: Family) -> impl Iterator<Item = (Ends, u16, Vec<u8>)> {
    (41_000..41_008).flat_map(move |sport| {
        [(80, 8080), (53, 5353)].map(|(port, target)| {
            let ask = Ends { sport, ..Ends::new(family.client, family.web, port) };
            (ask, target, if port == 80 { ask.tcp(SYN) } else { ask.udp(b"q") })
        })
    })
}

/// All of them are sent on to this endpoint of service `web`, none to the other.
fn check_sent_to(lab: &Lab, family: Family, server: &str) {
    for (ask, target, frame) in unanswered(family) {
        let verdict = lab.send(CLIENT, &frame);
        let there = Ends { dst: server.parse().unwrap(), dport: target, ..ask };
        assert_eq!(read_tuple(&verdict.expect("it passes").frame), there);
    }
}

#[test]
fn what_was_never_answered_leaves_a_backend_that_serves_no_more() {
    on_node(|lab| {
        for family in FAMILIES {
            for own in [Some("ready: false, serving: false"), None] {
                lab.forget_all();
                lab.commit(CLUSTER);
                check_sent_to(lab, family, family.server);
                // It stays while its backend serves, where the ring would send some elsewhere.
                lab.commit(&cluster(Some("ready: true")));
                check_sent_to(lab, family, family.server);
                lab.commit(&cluster(own));
                check_sent_to(lab, family, family.remote);
                for (ask, target, _) in unanswered(family) {
                    let there = Ends { dst: family.remote.parse().unwrap(), dport: target, ..ask };
                    let answer =
                        if target == 8080 { there.back().tcp(SYN | ACK) } else { there.back().udp(b"a") };
                    assert_eq!(read_tuple(&handed_over(lab.arrive(&answer), "its answer")), ask.back());
                }
            }
        }
    });
}

#[test]
fn what_was_never_answered_leaves_a_backend_that_fails_its_checks() {
    on_node(|lab| {
        let failing = |server: &str| Target {
            service: Name { namespace: "t".into(), name: "web".into() },
            backend: Backend { address: server.parse().unwrap(), port: 8080 },
        };
        for family in FAMILIES {
            lab.commit(CLUSTER);
            let answered = connect(lab, family).0;
            let ask = Ends::new(family.client, family.web, 80);
            let goes_to = |lab: &Lab| {
                read_tuple(&lab.send(CLIENT, &ask.tcp(SYN)).expect("it passes").frame).dst.to_string()
            };
            assert_eq!(goes_to(lab), family.server);
            lab.commit_with(&cluster(Some("ready: true")), &[failing(family.remote)].into());
            assert_eq!(goes_to(lab), family.server);
            lab.commit_with(&cluster(Some("ready: true")), &[failing(family.server)].into());
            assert_eq!(goes_to(lab), family.remote);
            handed_over(lab.send(CLIENT, &answered.tcp(ACK)), "a connection stays");
        }
    });
}

#[test]
fn an_answer_under_way_is_not_too_late() {
    on_node(|lab| {
        for family in FAMILIES {
            lab.commit(CLUSTER);
            let ask = Ends::new(family.client, family.web, 80);
            let there = Ends { dst: family.server.parse().unwrap(), dport: 8080, ..ask };
            handed_over(lab.send(CLIENT, &ask.tcp(SYN)), "there");
            lab.commit(&cluster(Some("ready: false, serving: false")));
            handed_over(lab.send(SERVER, &there.back().tcp(SYN | ACK)), "back");
            handed_over(lab.send(CLIENT, &ask.tcp(ACK)), "established");
        }
    });
}
