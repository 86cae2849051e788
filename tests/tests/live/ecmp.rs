//! Services that a router reaches by several nodes at once (ECMP): flows, streams, and a node that dies.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use serde_json::Value;
use weir_lab::demo::outside::{CLIENT, OUTSIDE};
use weir_tests::live::{
    Live,
    crowd::{Crowd, Host},
    edge::{self, frontends},
    isolated, kernel,
    manifests::{self, pod},
    netns, network, weir,
};

const PORT: u16 = 7000;
/// Bytes of a stream.
const LENGTH: usize = 4 << 20;
/// How long a stream may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service with these backends (node and host number), a client outside, and a router that knows a way to the
/// service by the first so many nodes.
fn start(forwarding: &str, mode: &str, backends: &[(u8, u8)], edges: usize) -> Live {
    let pods = backends.iter().enumerate().map(|(number, (node, host))| pod(&name(number), *node, *host));
    let nodes = backends.iter().map(|(node, _)| *node).max().expect("a backend");
    let endpoints = manifests::endpoints("edge", backends, PORT, PORT);
    let manifests =
        manifests::nodes(nodes) + &pods.collect::<String>() + &edge::service(forwarding) + &endpoints;
    edge::start(&manifests, mode, 0..edges)
}

fn name(backend: usize) -> String {
    format!("backend-{backend}")
}

/// How many connections through the service a node knows.
fn known(node: &str) -> usize {
    let filter =
        ["get", "connections", "--node", node, "--service", "shop/edge", "--limit", "0", "-o", "json"];
    let list: Value = serde_json::from_str(&weir(&filter).done()).unwrap();
    list["items"].as_array().expect("a list").len()
}

#[test]
fn an_edge_dies_under_two_hundred_connections_of_a_dsr_service_and_none_breaks() {
    isolated(|| {
        let backends = [(2, 10), (3, 10), (3, 20)];
        let mut live = start("dsr", "generic", &backends, 2);
        let host = |number: usize| Host::open(live.netns(&name(number)), PORT, number as u8);
        let _hosts: Vec<_> = (0..backends.len()).map(host).collect();
        let crowd = Crowd::open(OUTSIDE, &frontends(), 200, Duration::from_millis(100));
        crowd.advance(3);
        // No backend is on node 1: whatever it knows, it took.
        let by_first = known("node-1");
        assert!((50..=150).contains(&by_first), "node 1 took {by_first} of 200, node 2 the others");
        let used: BTreeSet<u8> = crowd.stories().into_iter().flat_map(|story| story.servers).collect();
        assert_eq!(used, BTreeSet::from([0, 1, 2]), "each backend has connections");

        live.agent("node-1").kill();
        fs::remove_dir_all(Path::new(kernel::BPFFS).join("weir/node-1")).unwrap();
        netns::ip(Some(live.netns("node-1")), &["link set uplink down".to_owned()]).unwrap();
        // It takes a while until the router notices.
        thread::sleep(Duration::from_millis(300));
        edge::route(&live, 1..2);

        crowd.advance(20);
        crowd.assert_unbroken();
    });
}

/// Takes in whole streams, one after the other, and gives each back; says whose they were.
fn give_back(netns: &str, streams: usize) -> thread::JoinHandle<Vec<IpAddr>> {
    let listener = netns::within(netns, || Ok(TcpListener::bind(("::", PORT))?)).unwrap();
    thread::spawn(move || {
        let take = |_| {
            let (mut stream, client) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            client.ip().to_canonical()
        };
        (0..streams).map(take).collect()
    })
}

fn comes_back_whole(to: SocketAddr) {
    let mut sent = vec![0; LENGTH];
    fastrand::Rng::with_seed(1).fill(&mut sent);
    let mut stream = netns::within(OUTSIDE, || Ok(TcpStream::connect_timeout(&to, PATIENCE)?)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), sent.len());
    assert!(back == sent, "the stream was changed on its way");
}

/// With the edge at XDP; and without it, with packets that the client's kernel leaves to the device to cut up.
#[test]
fn streams_of_megabytes_go_to_another_nodes_backend_and_come_back_whole() {
    for (forwarding, mode) in [("dsr", "generic"), ("dsr", "off"), ("snat", "generic"), ("snat", "off")] {
        isolated(move || {
            let mut live = start(forwarding, mode, &[(2, 10)], 1);
            // Room for the header of a tunnel.
            netns::ip(Some(OUTSIDE), &["link set eth0 mtu 1460".to_owned()]).unwrap();
            if mode == "off" {
                network::offload(OUTSIDE, "eth0", "tx", true).unwrap();
            }
            let server = give_back(live.netns(&name(0)), 2);
            frontends().into_iter().for_each(comes_back_whole);
            let masquerade = live.plan.nodes[0].addresses.clone();
            let seen = if forwarding == "dsr" { CLIENT.to_vec() } else { masquerade };
            assert_eq!(server.join().unwrap(), seen, "{forwarding} {mode}");
            // Two streams of some 3,000 segments.
            let by_edge = live.agent("node-1").forwarded("edge");
            assert_eq!(by_edge > 5_000, mode == "generic", "{forwarding} {mode}: {by_edge} packets by XDP");
        });
    }
}
