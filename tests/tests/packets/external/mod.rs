//! Node ports, external addresses and load balancers: every door from outside, from pods and from the node
//! itself, to backends here and there, and the way back.

mod ports;
mod reached;
mod refused;

use std::net::IpAddr;

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, in_lab, read_tuple, wrong_checksums};

use super::{
    ACK, CLIENT, FAMILIES, Family, OTHER, SYN, dropped,
    exposed::{self, AWAY, KEPT, NEAR, TARGET},
    handed_over, through_stack,
};

fn on_node(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", &exposed::cluster(), test);
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A connection from `client` to a door.
fn to(client: &str, (address, port): &(String, u16)) -> Ends {
    Ends::new(client, address, *port)
}

/// Checks that `sent` is `ask` with the node's address, for `backend`, and right in its checksums.
#[track_caller]
fn check_masqueraded(family: Family, ask: &Ends, sent: &[u8], backend: &str) -> Ends {
    let seen = read_tuple(sent);
    assert_eq!((seen.src, seen.dst, seen.dport), (address(family.node), address(backend), TARGET), "{ask:?}");
    assert!((10_000..30_000).contains(&seen.sport), "port {} may be a socket's of the node", seen.sport);
    assert_eq!(wrong_checksums(sent), [""; 0]);
    seen
}

/// Checks that `back` is the answer to `ask`.
#[track_caller]
fn check_answer(ask: &Ends, back: &[u8]) {
    assert_eq!((read_tuple(back), wrong_checksums(back)), (ask.back(), vec![]));
}
