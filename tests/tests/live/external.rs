//! Services for the outside, by real sockets. The namespace of the underlay, between the nodes, is the outside.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use weir::cluster::Protocol;
use weir_lab::demo::plan::UNDERLAY;
use weir_tests::live::{
    Live, Outcome, Worker, isolated,
    manifests::{self, TCP, UDP, endpoints, pod, service},
    netns,
};

/// Addresses of the outside.
pub const OUTSIDE: [&str; 2] = ["203.0.113.9", "2001:db8::9"];

/// Gives the outside its addresses: the underlay's router has none that may cross it.
pub fn inhabit_the_outside() {
    let [v4, v6] = OUTSIDE;
    let mut lines =
        vec![format!("address add {v4}/32 dev br0"), format!("address add {v6}/128 dev br0 nodad")];
    for number in 1..=2 {
        lines.push(format!("route replace 172.18.0.{number}0 dev br0 src {v4}"));
        lines.push(format!("route replace fd00:172:18::{number}0 dev br0 src {v6}"));
    }
    netns::ip(Some(UNDERLAY), &lines).unwrap();
}

/// A service on node ports, with one number for TCP and UDP.
fn exposed(name: &str, number: u8, node_port: u16) -> String {
    service(name, number)
        .replace("type: ClusterIP", "type: NodePort")
        .replace("protocol:", &format!("nodePort: {node_port}, protocol:"))
}

/// A node port of node 1, over both protocols and families.
fn doors(port: u16) -> [(Protocol, SocketAddr); 4] {
    let [v4, v6] = [format!("172.18.0.10:{port}"), format!("[fd00:172:18::10]:{port}")];
    let [v4, v6] = [v4.parse().unwrap(), v6.parse().unwrap()];
    [(Protocol::Tcp, v4), (Protocol::Tcp, v6), (Protocol::Udp, v4), (Protocol::Udp, v6)]
}

#[test]
fn node_ports_answer_everybody_from_backends_here_and_there() {
    isolated(|| {
        let services = [
            pod("open", 2, 30),
            exposed("near", 6, 30080) + &endpoints("near", &[(1, 10)], TCP, UDP),
            exposed("away", 7, 30081) + &endpoints("away", &[(2, 30)], TCP, UDP),
        ];
        let live = Live::start(&(manifests::cluster() + &services.concat()));
        inhabit_the_outside();
        // What comes back to the node's own client has the node's address as its source.
        netns::sysctl(live.netns("node-1"), &[("ipv4/conf/lo/accept_local", "1")]).unwrap();
        let outside = Worker::start(UNDERLAY, &[]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (port, backend) in [(30080, "shop/client"), (30081, "shop/open")] {
            for (protocol, to) in doors(port) {
                let answer = Outcome::Answer(backend.to_owned());
                let outcome = runtime.block_on(outside.probe(protocol, to));
                assert_eq!(outcome, answer, "the outside to {to}/{protocol}");
                for from in ["node-1", "node-2", "client", "denied", "far", "open"] {
                    assert_eq!(live.probe(from, protocol, to), answer, "{from} to {to}/{protocol}");
                }
            }
        }
    });
}

#[test]
fn a_pod_reaches_the_outside_under_its_nodes_address() {
    isolated(|| {
        let settings =
            manifests::cluster().replacen("spec:\n  podCIDRs", "spec:\n  masquerade: true\n  podCIDRs", 1);
        let live = Live::start(&settings);
        inhabit_the_outside();
        let listen = || Ok(TcpListener::bind("[::]:7001")?);
        let listener = netns::within(UNDERLAY, listen).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, client) = listener.accept().unwrap();
            stream.write_all(b"welcome").unwrap();
            client.ip().to_canonical()
        });
        let connect = || {
            let mut stream = TcpStream::connect_timeout(
                &SocketAddr::new(OUTSIDE[0].parse().unwrap(), 7001),
                Duration::from_secs(5),
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        assert_eq!(netns::within(live.netns("client"), connect).unwrap(), "welcome");
        assert_eq!(server.join().unwrap(), "172.18.0.10".parse::<std::net::IpAddr>().unwrap());
    });
}
