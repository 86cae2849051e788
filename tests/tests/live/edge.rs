//! Services for the outside at the edge: XDP by the driver, generic XDP, and TC alone do the same.

use std::{net::SocketAddr, ops::Range};

use weir_lab::demo::outside::OUTSIDE;
use weir_tests::live::{
    Live,
    edge::{self, frontends},
    isolated,
    manifests::{self, pod},
    netns, network,
    traffic::{Connection, Echo, Sender, Sink},
};

const PORT: u16 = 7000;

/// A service with an address for the outside, forwarded so, with backends on node 3, which let in the one client.
fn cluster(forwarding: &str) -> String {
    let policy = format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: edge, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: one}}}}
  ingress: [{{from: [{{ipBlock: {{cidr: 203.0.113.9/32}}}}, {{ipBlock: {{cidr: \"2001:db8::9/128\"}}}}{}]}}]
",
        // Under a node's address the client is not to be known.
        if forwarding == "dsr" {
            ""
        } else {
            ", {ipBlock: {cidr: 172.18.0.0/16}}, {ipBlock: {cidr: \"fd00:172:18::/64\"}}"
        }
    );
    [
        manifests::nodes(3),
        pod("one", 3, 10),
        pod("two", 3, 20),
        edge::service(forwarding),
        policy,
        manifests::endpoints("edge", &[(3, 10), (3, 20)], PORT, PORT),
    ]
    .concat()
}

fn start(forwarding: &str, mode: &str, edges: Range<usize>) -> Live {
    edge::start(&cluster(forwarding), mode, edges)
}

/// How the edge of a node is attached; empty when it is not.
fn attached(live: &mut Live, node: &str) -> String {
    let status = live.agent(node).status();
    let programs = status["programs"].as_array().expect("a list").clone();
    let edge = programs.iter().find(|program| program["program"] == "edge");
    edge.map_or_else(String::new, |edge| edge["mode"].as_str().expect("text").to_owned())
}

#[test]
fn the_outside_reaches_backends_of_another_node_in_every_mode() {
    for forwarding in ["dsr", "snat"] {
        for (mode, expected) in [("auto", "XDP generic"), ("off", "")] {
            isolated(move || {
                let mut live = start(forwarding, mode, 0..1);
                assert_eq!(attached(&mut live, "node-1"), expected);
                let pods = ["one", "two"].map(|pod| live.netns(pod).to_owned());
                let _echoes = pods.clone().map(|pod| Echo::open(&pod, PORT));
                for vip in frontends() {
                    let mut connections: Vec<_> = (0..8).map(|_| Connection::open(OUTSIDE, vip)).collect();
                    for round in 0..3 {
                        for connection in &mut connections {
                            assert!(connection.is_alive(), "{forwarding} {mode} {vip}, round {round}");
                        }
                    }
                }
                let by_edge = live.agent("node-1").forwarded("edge");
                assert_eq!(by_edge > 50, mode != "off", "{forwarding} {mode}: {by_edge} packets by XDP");
            });
        }
    }
}

#[test]
fn of_two_edges_one_may_go_and_no_connection_breaks() {
    isolated(|| {
        let mut live = start("dsr", "auto", 0..2);
        let pods = ["one", "two"].map(|pod| live.netns(pod).to_owned());
        let _echoes = pods.clone().map(|pod| Echo::open(&pod, PORT));
        let sinks = pods.map(|pod| Sink::open(&pod, PORT));
        let mut connections: Vec<_> = frontends()
            .into_iter()
            .flat_map(|vip| (0..32).map(move |_| Connection::open(OUTSIDE, vip)))
            .collect();
        for connection in &mut connections {
            assert!(connection.is_alive());
        }
        for node in ["node-1", "node-2"] {
            assert!(live.agent(node).forwarded("edge") > 20, "{node} has its share");
        }
        let mut datagrams = Sender::start(OUTSIDE, frontends()[0]);
        datagrams.advance(100);

        // The first one dies, and the router takes the other.
        live.agent("node-1").kill();
        netns::ip(Some(live.netns("node-1")), &["link set uplink down".to_owned()]).unwrap();
        edge::route(&live, 1..2);
        datagrams.advance(100);
        for connection in &mut connections {
            assert!(connection.is_alive(), "a connection broke");
        }
        datagrams.finish();
        let used = sinks.iter().filter(|sink| !sink.from(&datagrams).is_empty()).count();
        assert_eq!(used, 1, "one socket's datagrams go to one backend, whichever edge they come by");
    });
}

/// What the client's node says of its way to a service.
fn way_to(vip: SocketAddr) -> String {
    netns::within(OUTSIDE, || {
        let output =
            std::process::Command::new("ip").args(["route", "get", &vip.ip().to_string()]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    })
    .unwrap()
}

#[test]
fn a_client_learns_what_fits_into_the_tunnel() {
    // By packets that the edge sees one by one, and by such as the kernel sends as one.
    for (mode, is_offloaded) in [("auto", false), ("off", true)] {
        isolated(move || {
            let mut live = start("dsr", mode, 0..1);
            for feature in ["tx", "sg", "tso", "gso"] {
                network::offload(OUTSIDE, "eth0", feature, is_offloaded).unwrap();
            }
            let pods = ["one", "two"].map(|pod| live.netns(pod).to_owned());
            let _echoes = pods.map(|pod| Echo::open(&pod, PORT));
            let data: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
            for (vip, mtu) in frontends().into_iter().zip(["mtu 1480", "mtu 1460"]) {
                assert!(!way_to(vip).contains("mtu"), "nothing is known of the way yet");
                let mut connection = Connection::open(OUTSIDE, vip);
                assert!(connection.carries(&data), "{mode} {vip}: what does not fit is lost");
                assert!(way_to(vip).contains(mtu), "{mode} {vip}: {}", way_to(vip));
            }
            let status = live.agent("node-1").status();
            let drops = status["drops"].as_array().expect("a list").clone();
            let told = drops.iter().find(|drop| drop["reason"] == "FRAG_NEEDED");
            assert_eq!(told.expect("packets that did not fit")["hook"], "from_uplink");
        });
    }
}
