//! The edge: what it sends on at XDP and what it leaves to the stack.

mod dsr;
mod services;
mod tunnels;

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketHeaders};
use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, NODE_MAC, ROUTER_MAC, in_lab, mend_v4, read_tuple, wrong_checksums};

use super::{ACK, CLUSTER, FAMILIES, Family, SYN, V4, dropped, handed_over};

pub(super) const SERVICE: &str = include_str!("../edge.yaml");

/// Addresses of the service that the outside knows.
pub(super) const VIPS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// The service's endpoints of IPv4, and more of them.
const ONE: &str = "endpoints: [{addresses: [10.244.2.10], nodeName: n2}]";
const THREE: &str = "endpoints: [{addresses: [10.244.2.10], nodeName: n2}, {addresses: [10.244.2.11], nodeName: n2}, {addresses: [10.244.2.12], nodeName: n2}]";

/// Runs a test on node n1, to which the whole world is behind one router.
pub(super) fn on_edge(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", &[CLUSTER, SERVICE].concat(), |lab| {
        lab.route_out();
        test(lab);
    });
}

pub(super) fn families() -> impl Iterator<Item = (Family, &'static str)> {
    FAMILIES.into_iter().zip(VIPS)
}

/// Where the TTL or hop limit stands.
fn hops_at(frame: &[u8]) -> usize {
    if frame[14] >> 4 == 4 { 22 } else { 21 }
}

/// Takes the header of a tunnel off a frame: source, destination, and the frame inside.
pub(super) fn unwrap(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
    let inner = |at: usize| [&frame[..14], &frame[at..]].concat();
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a whole packet");
    match headers.net.expect("an IP packet") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(
                (ip.protocol.0, ip.dont_fragment, usize::from(ip.total_len)),
                (4, true, frame.len() - 14)
            );
            (ip.source.into(), ip.destination.into(), inner(34))
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!((ip.next_header.0, usize::from(ip.payload_length)), (41, frame.len() - 54));
            (ip.source.into(), ip.destination.into(), inner(54))
        }
        other => panic!("{other:?}"),
    }
}

/// What `frame` must have become on its way to the backend.
#[track_caller]
pub(super) fn check_tunnel(family: Family, frame: &[u8], sent: &[u8]) {
    let (from, to, inner) = unwrap(sent);
    assert_eq!((from, to), (family.node.parse().unwrap(), family.remote.parse().unwrap()));
    let mut expected = frame.to_vec();
    expected[hops_at(frame)] -= 1;
    if frame[14] >> 4 == 4 {
        mend_v4(&mut expected);
    }
    assert_eq!(inner[12..], expected[12..]);
    assert_eq!(wrong_checksums(&inner), [""; 0]);
}
