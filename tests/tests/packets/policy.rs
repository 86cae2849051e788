//! Port edges (attack test 30), and which protocol a rule is about.

use weir_common::reason::Reason;
use weir_tests::packets::Ends;

use super::{CLIENT, FAMILIES, OTHER, SERVER, SYN, dropped, handed_over, on_node, through_stack};

#[test]
fn ports_are_allowed_to_the_number() {
    on_node(|lab| {
        for family in FAMILIES {
            for port in [1, 80, 8080, 32767, 32768, 65535] {
                handed_over(lab.send(CLIENT, &family.to_server(port).tcp(SYN)), &format!("port {port}"));
            }
            for port in [0, 2, 79, 81, 8079, 8081, 32766, 32769, 65534] {
                let frame = family.to_server(port).tcp(SYN);
                dropped(lab.send(CLIENT, &frame), Reason::PolicyDenied, &format!("port {port}"));
            }
        }
    });
}

#[test]
fn a_rule_is_about_its_protocol_only() {
    on_node(|lab| {
        for family in FAMILIES {
            let to = |port| family.to_server(port);
            handed_over(lab.send(CLIENT, &to(53).udp(b"q")), "UDP 53");
            handed_over(lab.send(CLIENT, &to(80).sctp()), "SCTP 80");
            for (what, frame) in [
                ("UDP 80", to(80).udp(b"q")),
                ("UDP 0", to(0).udp(b"q")),
                ("TCP 53", to(53).tcp(SYN)),
                ("SCTP 53", to(53).sctp()),
                ("SCTP 8080", to(8080).sctp()),
            ] {
                dropped(lab.send(CLIENT, &frame), Reason::PolicyDenied, what);
            }
        }
    });
}

#[test]
fn the_source_port_opens_nothing() {
    on_node(|lab| {
        for family in FAMILIES {
            for sport in [0, 1, 53, 80, 65535] {
                let from = |port| Ends { sport, ..family.to_server(port) };
                handed_over(lab.send(CLIENT, &from(80).tcp(SYN)), &format!("from {sport} to 80"));
                dropped(
                    lab.send(CLIENT, &from(9999).tcp(SYN)),
                    Reason::PolicyDenied,
                    &format!("from {sport}"),
                );
            }
        }
    });
}

#[test]
fn peers_that_no_rule_names_are_denied_on_every_way() {
    on_node(|lab| {
        for family in FAMILIES {
            let from_other = Ends::new(family.other, family.server, 80);
            dropped(lab.send(OTHER, &from_other.tcp(SYN)), Reason::PolicyDenied, "a pod of this node");
            for source in [family.remote, family.outside] {
                let frame = Ends::new(source, family.server, 80).tcp(SYN);
                dropped(lab.receive(SERVER, &frame), Reason::PolicyDenied, source);
            }
            let from_node = Ends::new(family.node, family.server, 9999).tcp(SYN);
            through_stack(lab.receive_from_node(SERVER, &from_node), "its own node");
            handed_over(lab.send(CLIENT, &family.to_server(80).tcp(SYN)), "the client");
        }
    });
}

#[test]
fn echo_requests_follow_the_peers() {
    on_node(|lab| {
        for family in FAMILIES {
            let request = family.to_server(0);
            handed_over(lab.send(CLIENT, &request.echo_request()), "of the client");
            let denied = Ends::new(family.other, family.server, 0);
            dropped(lab.send(OTHER, &denied.echo_request()), Reason::PolicyDenied, "of another");
            let outside = Ends::new(family.outside, family.server, 0);
            dropped(lab.receive(SERVER, &outside.echo_request()), Reason::PolicyDenied, "from outside");
        }
    });
}
