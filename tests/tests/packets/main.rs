//! The loaded programs and packets that somebody may send: each attack with its reason, and with its legal
//! twin, which is delivered.

mod addresses;
mod affinity;
mod capacity;
mod chains;
mod counters;
mod doors;
mod early;
mod edge;
mod exposed;
mod extensions;
mod external;
mod flips;
mod floods;
mod flows;
mod fragments;
mod frames;
mod icmp;
mod ipv4;
mod lengths;
mod manifests;
mod masquerade;
mod neighbours;
mod path_mtu;
mod policy;
mod processors;
mod reject;
mod reset;
mod rings;
mod semantics;
mod services;
mod tags;
mod too_big;
mod waiting;

use weir_common::reason::Reason;
use weir_tests::packets::{Ends, Lab, Passed, in_lab};

const CLUSTER: &str = include_str!("cluster.yaml");

const CLIENT: &str = "t/client";
const SERVER: &str = "t/server";
const OTHER: &str = "t/other";

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// Addresses of one family.
#[derive(Clone, Copy)]
struct Family {
    client: &'static str,
    server: &'static str,
    other: &'static str,
    remote: &'static str,
    node: &'static str,
    outside: &'static str,
    /// Services: of the server, of the client itself, of the pod on the other node.
    web: &'static str,
    itself: &'static str,
    far: &'static str,
    unallocated: &'static str,
}

const V4: Family = Family {
    client: "10.244.1.10",
    server: "10.244.1.20",
    other: "10.244.1.30",
    remote: "10.244.2.10",
    node: "192.168.50.11",
    outside: "203.0.113.9",
    web: "10.96.0.10",
    itself: "10.96.0.20",
    far: "10.96.0.30",
    unallocated: "10.96.0.99",
};
const V6: Family = Family {
    client: "fd00:10:244:1::10",
    server: "fd00:10:244:1::20",
    other: "fd00:10:244:1::30",
    remote: "fd00:10:244:2::10",
    node: "fd00:50::11",
    outside: "2001:db8::9",
    web: "fd00:10:96::10",
    itself: "fd00:10:96::20",
    far: "fd00:10:96::30",
    unallocated: "fd00:10:96::99",
};
const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    /// A new connection from client to server.
    fn to_server(self, dport: u16) -> Ends {
        Ends::new(self.client, self.server, dport)
    }
}

/// Runs a test on node n1.
fn on_node(test: impl FnOnce(&mut Lab) + Send) {
    in_lab("n1", CLUSTER, test);
}

/// A packet that must be handed over to a pod of this node.
#[track_caller]
fn handed_over(verdict: Result<Passed, Reason>, what: &str) -> Vec<u8> {
    match verdict {
        Ok(Passed { is_redirected: true, frame }) => frame,
        other => panic!("{what}: {other:?}"),
    }
}

/// A packet that must go on through the stack.
#[track_caller]
fn through_stack(verdict: Result<Passed, Reason>, what: &str) -> Vec<u8> {
    match verdict {
        Ok(Passed { is_redirected: false, frame }) => frame,
        other => panic!("{what}: {other:?}"),
    }
}

/// A packet that must be dropped for this reason.
#[track_caller]
fn dropped(verdict: Result<Passed, Reason>, reason: Reason, what: &str) {
    match verdict {
        Err(found) if found == reason => {}
        other => panic!("{what}: {other:?} instead of {reason:?}"),
    }
}

/// Sets the TTL or hop limit.
fn set_hops(frame: &mut [u8], left: u8) {
    if frame[14] >> 4 == 4 {
        frame[22] = left;
        weir_tests::packets::mend_v4(frame);
    } else {
        frame[21] = left;
    }
}
