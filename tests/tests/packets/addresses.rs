//! Sources that are not the sender's, destinations that are nobody's (attack tests 1, 2, 28).

use weir_common::reason::Reason;
use weir_tests::packets::Ends;

use super::{CLIENT, FAMILIES, OTHER, SYN, V4, V6, dropped, handed_over, on_node, through_stack};

/// Addresses that no packet between pods, nodes and the outside may carry.
const MARTIANS_V4: [&str; 9] = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
];
const MARTIANS_V6: [&str; 9] = [
    "::",
    "::1",
    "::10.244.1.10",
    "::ffff:10.244.1.10",
    "::ffff:0:0",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "ff0e::1",
];

/// A packet of each transport protocol.
fn every_protocol(ends: &Ends) -> [(&'static str, Vec<u8>); 4] {
    [("TCP", ends.tcp(SYN)), ("UDP", ends.udp(b"data")), ("SCTP", ends.sctp()), ("echo", ends.echo_request())]
}

#[test]
fn a_pod_sends_under_its_own_addresses_only() {
    on_node(|lab| {
        for (family, martians) in [(V4, MARTIANS_V4), (V6, MARTIANS_V6)] {
            let unowned = if family.client == V4.client { "10.244.1.99" } else { "fd00:10:244:1::99" };
            let outside = if family.client == V4.client { "8.8.8.8" } else { "2001:4860:4860::8888" };
            let taken = [
                family.client,
                family.server,
                family.remote,
                family.node,
                family.web,
                family.unallocated,
                unowned,
                outside,
                family.outside,
            ];
            for source in taken.into_iter().chain(martians) {
                for (protocol, frame) in every_protocol(&Ends::new(source, family.client, 80)) {
                    let what = format!("{protocol} from {source}");
                    dropped(lab.send(OTHER, &frame), Reason::InvalidSource, &what);
                }
            }
            for (protocol, frame) in every_protocol(&Ends::new(family.other, family.client, 80)) {
                handed_over(lab.send(OTHER, &frame), protocol);
            }
        }
        assert!(lab.flows().iter().all(|flow| {
            let others = [V4.other, V6.other].map(|address| address.parse().unwrap());
            others.contains(&flow.src.ip()) || others.contains(&flow.dst.ip())
        }));
    });
}

#[test]
fn a_pod_cannot_use_the_flow_of_another() {
    on_node(|lab| {
        for family in FAMILIES {
            let flow = family.to_server(80);
            handed_over(lab.send(CLIENT, &flow.tcp(SYN)), "its own");
            for flags in [SYN, super::ACK, super::RST] {
                dropped(lab.send(OTHER, &flow.tcp(flags)), Reason::InvalidSource, "another's");
            }
            handed_over(lab.send(CLIENT, &flow.tcp(super::ACK)), "its own, afterwards");
        }
    });
}

#[test]
fn a_pod_without_a_manifest_sends_and_receives_nothing() {
    on_node(|lab| {
        // The uplink's number stands for an interface that no pod hangs on.
        let at = weir_tests::packets::At { ifindex: lab.uplink(), ingress: lab.uplink() };
        for family in FAMILIES {
            let ends = Ends::new(family.other, family.client, 80);
            let verdict = lab.judge(weir::kernel::Program::FromPod, at, &ends.tcp(SYN));
            dropped(verdict, Reason::InvalidSource, "sent");
            let ends = Ends::new(family.outside, family.client, 80);
            dropped(
                lab.judge(weir::kernel::Program::ToPod, at, &ends.tcp(SYN)),
                Reason::UnknownEndpoint,
                "received",
            );
        }
    });
}

#[test]
fn nothing_from_outside_carries_an_inside_source() {
    on_node(|lab| {
        for (family, martians) in [(V4, MARTIANS_V4), (V6, MARTIANS_V6)] {
            let inside = [family.other, family.server, family.client, family.node];
            for source in inside.into_iter().chain(martians) {
                for (protocol, frame) in every_protocol(&Ends::new(source, family.client, 80)) {
                    let what = format!("{protocol} from {source}");
                    dropped(lab.receive(CLIENT, &frame), Reason::InvalidSource, &what);
                }
            }
            for source in [family.outside, family.remote] {
                for (protocol, frame) in every_protocol(&Ends::new(source, family.client, 80)) {
                    through_stack(lab.receive(CLIENT, &frame), protocol);
                }
            }
        }
    });
}

#[test]
fn a_pod_receives_only_what_is_for_it() {
    on_node(|lab| {
        for family in FAMILIES {
            let frame = Ends::new(family.outside, family.client, 80).tcp(SYN);
            dropped(lab.receive(OTHER, &frame), Reason::UnknownEndpoint, "another's");
            through_stack(lab.receive(CLIENT, &frame), "its own");
        }
    });
}

#[test]
fn martians_and_ones_own_address_are_no_destination() {
    on_node(|lab| {
        for (family, martians) in [(V4, MARTIANS_V4), (V6, MARTIANS_V6)] {
            for destination in martians.into_iter().chain([family.client]) {
                for (protocol, frame) in every_protocol(&Ends::new(family.client, destination, 80)) {
                    let what = format!("{protocol} to {destination}");
                    dropped(lab.send(CLIENT, &frame), Reason::InvalidDestination, &what);
                }
            }
            for destination in [family.outside, family.remote, family.node] {
                for (protocol, frame) in every_protocol(&Ends::new(family.client, destination, 80)) {
                    through_stack(lab.send(CLIENT, &frame), protocol);
                }
            }
        }
    });
}

#[test]
fn a_pod_serves_no_leases() {
    on_node(|lab| {
        let mut offer = Ends::new(V4.other, "255.255.255.255", 68);
        offer.sport = 67;
        dropped(lab.send(OTHER, &offer.udp(&[2; 240])), Reason::InvalidDestination, "DHCP");
        let mut offer = Ends::new(V6.other, "ff02::1", 546);
        offer.sport = 547;
        dropped(lab.send(OTHER, &offer.udp(&[7; 60])), Reason::InvalidDestination, "DHCPv6");
        handed_over(lab.send(OTHER, &Ends::new(V4.other, V4.client, 68).udp(&[2; 240])), "to one pod");
    });
}
