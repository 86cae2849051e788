//! Services for the outside at the edge: XDP by the driver, generic XDP, and TC alone do the same.

use std::net::SocketAddr;

use weir_tests::live::{
    Live, isolated,
    manifests::{self, pod},
    netns,
    traffic::{Connection, Echo, Sender, Sink},
};
use xtask::demo::plan::UNDERLAY;

const PORT: u16 = 7000;
const OUTSIDE: &str = "edge-outside";
const VIPS: [&str; 2] = ["198.51.100.7:80", "[2001:db8:7::7]:80"];

/// A service with an address for the outside, forwarded so, with backends on node 3, which let in the one client.
fn cluster(forwarding: &str) -> String {
    let service = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: edge, namespace: shop, annotations: {{weir.dev/forwarding: {forwarding}}}}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.96.0.50
  clusterIPs: [10.96.0.50, \"fd00:10:96::50\"]
  ports:
    - {{name: tcp, port: 80, nodePort: 30080, protocol: TCP}}
    - {{name: udp, port: 80, nodePort: 30080, protocol: UDP}}
status: {{loadBalancer: {{ingress: [{{ip: 198.51.100.7}}, {{ip: \"2001:db8:7::7\"}}]}}}}
---
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
        service,
        manifests::endpoints("edge", &[(3, 10), (3, 20)], PORT, PORT),
    ]
    .concat()
}

/// A client outside, whose router has a way to the service by each of these nodes, of equal cost.
fn outside(edges: &[u8]) {
    let hops = |via: &dyn Fn(u8) -> String| {
        edges.iter().map(|edge| format!(" nexthop via {} dev br0 onlink", via(*edge))).collect::<String>()
    };
    let to = |lines: &[String], netns| netns::ip(netns, lines).unwrap();
    to(&[format!("netns add {OUTSIDE}")], None);
    let router = [
        format!("link add name out0 type veth peer name eth0 netns {OUTSIDE}"),
        "link set out0 up".to_owned(),
        "address add 203.0.113.1/24 dev out0".to_owned(),
        "address add 2001:db8::1/64 dev out0 nodad".to_owned(),
        format!("route replace 198.51.100.7/32{}", hops(&|edge| format!("172.18.0.{edge}0"))),
        format!("route replace 2001:db8:7::7/128{}", hops(&|edge| format!("fd00:172:18::{edge}0"))),
    ];
    netns::sysctl(
        UNDERLAY,
        &[("ipv4/fib_multipath_hash_policy", "1"), ("ipv6/fib_multipath_hash_policy", "1")],
    )
    .unwrap();
    to(&router, Some(UNDERLAY));
    let client = [
        "link set lo up",
        "link set eth0 up",
        "address add 203.0.113.9/24 dev eth0",
        "address add 2001:db8::9/64 dev eth0 nodad",
        "route add default via 203.0.113.1",
        "route add default via 2001:db8::1",
    ];
    to(&client.map(str::to_owned), Some(OUTSIDE));
    ethtool(OUTSIDE, "eth0", "tx", "off");
}

/// XDP sees the checksum as it is on the wire, so the sender fills it in.
fn ethtool(netns: &str, device: &str, what: &str, value: &str) {
    netns::within(netns, || {
        let status = std::process::Command::new("ethtool").args(["-K", device, what, value]).status()?;
        assert!(status.success());
        Ok(())
    })
    .unwrap();
}

fn start(forwarding: &str, mode: &str, edges: &[u8]) -> Live {
    let live = Live::with_options(&cluster(forwarding), &["--xdp-mode", mode]);
    outside(edges);
    live
}

/// Packets that the edge of a node has sent on.
fn sent_on(live: &mut Live, node: &str) -> u64 {
    let status = live.agent(node).status();
    let hooks = status["forwarded"].as_array().expect("a list").clone();
    let edge = hooks.iter().find(|hook| hook["hook"] == "edge").expect("every hook");
    edge["packets"].as_u64().expect("a number")
}

/// How the edge of a node is attached; empty when it is not.
fn attached(live: &mut Live, node: &str) -> String {
    let status = live.agent(node).status();
    let programs = status["programs"].as_array().expect("a list").clone();
    let edge = programs.iter().find(|program| program["program"] == "edge");
    edge.map_or_else(String::new, |edge| edge["mode"].as_str().expect("text").to_owned())
}

fn vips() -> [SocketAddr; 2] {
    VIPS.map(|vip| vip.parse().unwrap())
}

#[test]
fn the_outside_reaches_backends_of_another_node_in_every_mode() {
    for forwarding in ["dsr", "snat"] {
        for (mode, expected) in [("auto", "XDP generic"), ("off", "")] {
            isolated(move || {
                let mut live = start(forwarding, mode, &[1]);
                assert_eq!(attached(&mut live, "node-1"), expected);
                let pods = ["one", "two"].map(|pod| live.netns(pod).to_owned());
                let _echoes = pods.clone().map(|pod| Echo::open(&pod, PORT));
                for vip in vips() {
                    let mut connections: Vec<_> = (0..8).map(|_| Connection::open(OUTSIDE, vip)).collect();
                    for round in 0..3 {
                        for connection in &mut connections {
                            assert!(connection.is_alive(), "{forwarding} {mode} {vip}, round {round}");
                        }
                    }
                }
                let by_edge = sent_on(&mut live, "node-1");
                assert_eq!(by_edge > 50, mode != "off", "{forwarding} {mode}: {by_edge} packets by XDP");
            });
        }
    }
}

#[test]
fn of_two_edges_one_may_go_and_no_connection_breaks() {
    isolated(|| {
        let mut live = start("dsr", "auto", &[1, 2]);
        let pods = ["one", "two"].map(|pod| live.netns(pod).to_owned());
        let _echoes = pods.clone().map(|pod| Echo::open(&pod, PORT));
        let sinks = pods.map(|pod| Sink::open(&pod, PORT));
        let mut connections: Vec<_> =
            vips().into_iter().flat_map(|vip| (0..32).map(move |_| Connection::open(OUTSIDE, vip))).collect();
        for connection in &mut connections {
            assert!(connection.is_alive());
        }
        for node in ["node-1", "node-2"] {
            assert!(sent_on(&mut live, node) > 20, "{node} has its share");
        }
        let mut datagrams = Sender::start(OUTSIDE, vips()[0]);
        datagrams.advance(100);

        // The first one dies, and the router takes the other.
        live.agent("node-1").kill();
        netns::ip(Some(live.netns("node-1")), &["link set uplink down".to_owned()]).unwrap();
        let reroute = [
            "route replace 198.51.100.7/32 via 172.18.0.20 dev br0 onlink".to_owned(),
            "route replace 2001:db8:7::7/128 via fd00:172:18::20 dev br0 onlink".to_owned(),
        ];
        netns::ip(Some(UNDERLAY), &reroute).unwrap();
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
    for (mode, offload) in [("auto", "off"), ("off", "on")] {
        isolated(move || {
            let mut live = start("dsr", mode, &[1]);
            for what in ["tx", "sg", "tso", "gso"] {
                ethtool(OUTSIDE, "eth0", what, offload);
            }
            let pods = ["one", "two"].map(|pod| live.netns(pod).to_owned());
            let _echoes = pods.map(|pod| Echo::open(&pod, PORT));
            let data: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
            for (vip, mtu) in vips().into_iter().zip(["mtu 1480", "mtu 1460"]) {
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
