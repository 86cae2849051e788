//! Path MTU discovery: what a router says of a packet that was too big for its way reaches the one who sent it, in
//! the words that this one knows, by every way through a service and in both directions.

use weir_tests::packets::{Ends, Lab, Verdict, in_lab, l4_offset, read_tuple, wrong_checksums};

use super::{
    ACK, CLIENT, CLUSTER, FAMILIES, Family, OTHER, SYN, V4, dropped,
    edge::{SERVICE, families, on_edge, tunnels::tunnelled, unwrap},
    exposed::{self, AWAY, KEPT, NEAR},
    handed_over, through_stack,
};
use weir_common::reason::Reason;

/// The next hop's MTU, as routers say it.
const MTU: u16 = 1400;

/// A router on the way.
fn router(family: Family) -> &'static str {
    if family.client == V4.client { "203.0.113.200" } else { "2001:db8::200" }
}

/// What a router tells `to`, from which it had `frame`.
fn too_big(family: Family, to: &Ends, frame: &[u8]) -> Vec<u8> {
    let ends = Ends::new(router(family), &to.src.to_string(), 0);
    let quoted = &frame[14..];
    if family.client == V4.client {
        // Where an echo's sequence number stands; the identifier is unused.
        let mut segment = ends.icmp_segment(3, 4, 0, quoted);
        segment[6..8].copy_from_slice(&MTU.to_be_bytes());
        segment[2..4].fill(0);
        let check = weir_tests::packets::transport_check(ends.src, ends.dst, ends.icmp_protocol(), &segment);
        segment[2..4].copy_from_slice(&check.to_be_bytes());
        return weir_tests::packets::ip(ends.src, ends.dst, ends.icmp_protocol(), &segment);
    }
    let mut segment = ends.icmp_segment(2, 0, 0, quoted);
    segment[4..8].copy_from_slice(&u32::from(MTU).to_be_bytes());
    segment[2..4].fill(0);
    let check = weir_tests::packets::transport_check(ends.src, ends.dst, ends.icmp_protocol(), &segment);
    segment[2..4].copy_from_slice(&check.to_be_bytes());
    weir_tests::packets::ip(ends.src, ends.dst, ends.icmp_protocol(), &segment)
}

/// `told` is what a router said, for the one who had sent `of`.
#[track_caller]
fn check_told(family: Family, told: &[u8], of: &Ends) {
    let (l4, outer) = (l4_offset(told), read_tuple(told));
    assert_eq!((outer.src.to_string(), outer.dst), (router(family).to_owned(), of.src));
    assert_eq!(wrong_checksums(told), [""; 0]);
    let mtu = if family.client == V4.client {
        [&[3, 4][..], &told[l4 + 6..l4 + 8]]
    } else {
        [&[2, 0], &told[l4 + 6..l4 + 8]]
    };
    assert_eq!([&told[l4..l4 + 2], mtu[1]], [mtu[0], &MTU.to_be_bytes()]);
    assert_eq!(read_tuple(&[&told[..14], &told[l4 + 8..]].concat()), *of, "as its sender knows it");
}

/// An error about a packet of `sent` comes in by the uplink: it is told to the one who sent it as `of`.
#[track_caller]
fn check_by_uplink(
    lab: &Lab,
    family: Family,
    frame: &[u8],
    of: &Ends,
    hand_over: fn(Verdict, &str) -> Vec<u8>,
) {
    let sent = read_tuple(frame);
    check_told(family, &hand_over(lab.arrive(&too_big(family, &sent, frame)), "the error"), of);
    // About a flow that is none the same says nothing to anybody here.
    let other = Ends { sport: sent.sport ^ 1, ..sent };
    let forged = too_big(family, &sent, &other.tcp(ACK));
    assert_eq!(lab.arrive(&forged).map(|passed| (passed.is_redirected, passed.frame)), Ok((false, forged)));
}

#[test]
fn a_pod_is_told_about_what_it_sends_to_a_backend_elsewhere() {
    in_lab("n1", &exposed::cluster(), |lab| {
        for family in FAMILIES {
            for (address, port) in AWAY.doors(family) {
                let ask = Ends::new(family.client, &address, port);
                let sent = lab.send(CLIENT, &ask.tcp(SYN)).expect("to the other node").frame;
                check_by_uplink(lab, family, &sent, &ask, handed_over);
            }
        }
    });
}

#[test]
fn the_node_is_told_about_what_it_sends_to_a_backend_elsewhere() {
    in_lab("n1", &exposed::cluster(), |lab| {
        for family in FAMILIES {
            for (address, port) in [AWAY.doors(family)[1].clone(), AWAY.doors(family)[3].clone()] {
                let ask = Ends::new(family.node, &address, port);
                let sent = handed_over(lab.leave(&ask.tcp(SYN)), "to the other node");
                check_by_uplink(lab, family, &sent, &ask, through_stack);
            }
        }
    });
}

#[test]
fn a_client_outside_is_told_about_what_goes_on_to_another_node() {
    in_lab("n1", &exposed::cluster(), |lab| {
        for family in FAMILIES {
            for (address, port) in AWAY.doors(family) {
                let ask = Ends::new(family.outside, &address, port);
                let sent = handed_over(lab.arrive(&ask.tcp(SYN)), "to the other node");
                check_by_uplink(lab, family, &sent, &ask, handed_over);
            }
        }
    });
}

#[test]
fn a_backend_is_told_about_its_answers_by_every_door() {
    in_lab("n1", &exposed::cluster(), |lab| {
        for family in FAMILIES {
            for service in [NEAR, AWAY, KEPT] {
                for (address, port) in service.doors(family) {
                    let ask = Ends::new(family.outside, &address, port);
                    let there = read_tuple(&handed_over(lab.arrive(&ask.tcp(SYN)), "there"));
                    let answer = there.back().tcp(SYN | ACK);
                    let back = match there.dst.to_string() == family.other {
                        true => lab.send(OTHER, &answer),
                        false => lab.arrive(&answer),
                    };
                    let back = handed_over(back, "back");
                    assert_eq!(read_tuple(&back), ask.back());
                    check_by_uplink(lab, family, &back, &there.back(), handed_over);
                }
            }
        }
    });
}

#[test]
fn a_backend_that_answers_by_itself_is_told_by_the_way_of_its_clients_packets() {
    // The router's word comes to the service's address, and so to any edge: from there by the tunnel.
    let mut by_tunnel = Vec::new();
    on_edge(|lab| {
        for (family, vip) in families() {
            let ask = Ends { sport: 41_000, ..Ends::new(family.outside, vip, 80) };
            handed_over(lab.arrive(&ask.tcp(SYN)), "to the backend's node");
            let error = too_big(family, &ask.back(), &ask.back().tcp(SYN | ACK));
            let sent = handed_over(lab.arrive(&error), "the error");
            let (from, to, inner) = unwrap(&sent);
            assert_eq!(
                (from.to_string(), to.to_string()),
                (family.node.to_owned(), family.remote.to_owned())
            );
            check_told(family, &inner, &ask.back());
            by_tunnel.push((family, vip, sent));
        }
    });
    in_lab("n2", &[CLUSTER, SERVICE].concat(), |lab| {
        for (family, vip, error) in by_tunnel {
            let ask = Ends { sport: 41_000, ..Ends::new(family.outside, vip, 80) };
            dropped(lab.arrive(&error), Reason::IcmpUnrelated, "before there is such a flow");
            let syn = tunnelled(family, family.node, family.remote, &ask.tcp(SYN));
            let there = read_tuple(&handed_over(lab.arrive(&syn), "to the backend"));
            handed_over(lab.send("t/remote", &there.back().tcp(SYN | ACK)), "to the client itself");
            check_told(family, &handed_over(lab.arrive(&error), "the error"), &there.back());
        }
    });
}
