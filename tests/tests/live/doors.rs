//! The doors of a service on the wire: what policy denies none of them opens (attack tests 21, 24 and 25).

use std::net::SocketAddr;

use weir::cluster::Protocol;
use weir_tests::live::{
    Live, Outcome, isolated,
    manifests::{self, TCP, UDP, endpoints, service},
};

const NODE_PORT: u16 = 30080;

/// A service of the pod that lets in `client` and `far` only, on a node port too.
fn start() -> Live {
    let exposed = service("guarded", 21)
        .replace("type: ClusterIP", "type: NodePort")
        .replace("port: 80,", &format!("port: 80, nodePort: {NODE_PORT},"));
    Live::start(&(manifests::cluster() + &exposed + &endpoints("guarded", &[(1, 20)], TCP, UDP)))
}

/// The node port at the addresses of a node.
fn node_ports(node: u8) -> [SocketAddr; 2] {
    [format!("172.18.0.{node}0:{NODE_PORT}"), format!("[fd00:172:18::{node}0]:{NODE_PORT}")]
        .map(|text| text.parse().unwrap())
}

fn answers(live: &Live, from: &str, to: SocketAddr) -> bool {
    matches!(live.probe(from, Protocol::Tcp, to), Outcome::Answer(_))
}

#[test]
fn a_denied_pod_finds_every_door_shut_and_an_allowed_one_does_not() {
    isolated(|| {
        let live = start();
        let cluster_ips = ["10.96.0.21:80", "[fd00:10:96::21]:80"].map(|text| text.parse().unwrap());
        for door in cluster_ips.into_iter().chain(node_ports(1)) {
            assert!(answers(&live, "client", door), "{door}");
            assert!(!answers(&live, "denied", door), "{door}");
        }
        // By the other node's port it comes with that node's address, which no rule names.
        for door in node_ports(2) {
            assert!(!answers(&live, "denied", door), "{door}");
        }
    });
}

#[test]
fn node_ports_answer_at_the_nodes_address_and_not_at_loopback() {
    isolated(|| {
        let live = start();
        for door in node_ports(1) {
            assert!(answers(&live, "node-1", door), "{door}");
        }
        for loopback in ["127.0.0.1", "[::1]"] {
            let door = format!("{loopback}:{NODE_PORT}").parse().unwrap();
            assert!(!answers(&live, "node-1", door), "{door}");
        }
        for setting in ["all", "lo", "uplink"] {
            let path = format!("/proc/sys/net/ipv4/conf/{setting}/route_localnet");
            assert_eq!(live.command("node-1", "cat", &[&path]).trim(), "0", "{path}");
        }
    });
}
