//! Datagrams in fragments that come in any order, on the wire: the server gets them whole, or not at all.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use weir_common::header::protocol;
use weir_lab::demo::plan::UNDERLAY;
use weir_tests::{
    live::{
        Live, isolated,
        manifests::{self, TCP, endpoints, pod, service},
        netns,
    },
    packets::{Ends, fragment_v4, fragment_v6},
};

use super::external::{OUTSIDE, inhabit_the_outside};

/// Where the servers listen.
const PORT: u16 = 7000;
/// What a datagram carries: three packets' worth.
const LEN: usize = 4000;
/// Data of one fragment.
const PIECE: usize = 1440;
/// Length of an Ethernet header, which a raw socket adds by itself.
const ETH_LEN: usize = 14;
/// `IPPROTO_RAW`.
const RAW: i32 = 255;
const ORDERS: [[usize; 3]; 5] = [[2, 1, 0], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1]];

/// A service of these pods on a node port.
fn exposed(name: &str, number: u8, node_port: u16, pods: &[(u8, u8)]) -> String {
    let service = service(name, number)
        .replace("type: ClusterIP", "type: NodePort")
        .replace("port: 53, protocol:", &format!("port: 53, nodePort: {node_port}, protocol:"));
    service + &endpoints(name, pods, TCP, PORT)
}

/// A server in a namespace.
fn server(netns: &str) -> UdpSocket {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let socket = netns::within(netns, || Ok(UdpSocket::bind(address)?)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Sends a datagram in pieces in this order. Gives what it carries.
fn send(netns: &str, src: IpAddr, to: SocketAddr, order: [usize; 3]) -> Vec<u8> {
    static NUMBER: AtomicU16 = AtomicU16::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let data: Vec<u8> = (0..LEN).map(|at| (at as u16 ^ number) as u8).collect();
    let ends = Ends { src, dst: to.ip(), sport: 40_000 + number, dport: to.port() };
    let segment = ends.udp_segment(&data);
    let (build, domain) = match src {
        IpAddr::V4(_) => (fragment_v4 as fn(&Ends, u8, u16, usize, bool, &[u8]) -> Vec<u8>, Domain::IPV4),
        IpAddr::V6(_) => (fragment_v6 as _, Domain::IPV6),
    };
    // It takes packets with their IP header.
    let socket = || Ok(Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?);
    let socket = netns::within(netns, socket).unwrap();
    for piece in order {
        let chunk = segment.chunks(PIECE).nth(piece).unwrap();
        let frame = build(&ends, protocol::UDP, number, piece * PIECE, piece < 2, chunk);
        socket.send_to(&frame[ETH_LEN..], &SocketAddr::new(to.ip(), 0).into()).unwrap();
    }
    data
}

/// What a server gets next.
fn received(server: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = vec![0; LEN + 1];
    let len = server.recv(&mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// The address of the same family as `to`.
fn of_family(addresses: &[IpAddr], to: SocketAddr) -> IpAddr {
    *addresses.iter().find(|address| address.is_ipv4() == to.is_ipv4()).unwrap()
}

fn addresses(texts: [String; 2]) -> [SocketAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

#[test]
fn datagrams_in_fragments_of_any_order_arrive_whole_or_not_at_all() {
    isolated(|| {
        let services = [
            pod("open", 2, 30),
            exposed("guarded", 21, 30081, &[(1, 20)]),
            exposed("near", 22, 30082, &[(1, 10)]),
            exposed("away", 23, 30083, &[(2, 30)]),
        ];
        let live = Live::start(&(manifests::cluster() + &services.concat()));
        inhabit_the_outside();
        let outside: Vec<IpAddr> = OUTSIDE.map(|text| text.parse().unwrap()).to_vec();
        let [guarded, near, away] = ["server", "client", "open"].map(|pod| server(live.netns(pod)));
        let cluster_ip =
            |number| addresses([format!("10.96.0.{number}:53"), format!("[fd00:10:96::{number}]:53")]);
        let node_port =
            |port| addresses([format!("172.18.0.10:{port}"), format!("[fd00:172:18::10]:{port}")]);
        let at_node = |server, port| (server, "the outside", node_port(port));
        let ways = [
            (&guarded, "client", live.at("server", PORT)),
            (&guarded, "far", live.at("server", PORT)),
            (&guarded, "client", cluster_ip(21)),
            (&guarded, "far", cluster_ip(21)),
            (&away, "client", cluster_ip(23)),
            at_node(&near, 30082),
            at_node(&away, 30083),
        ];
        let sender = |from| match from {
            "the outside" => (UNDERLAY, &outside),
            pod => (live.netns(pod), &live.pod(pod).addresses),
        };
        for (server, from, targets) in ways {
            let (netns, own) = sender(from);
            for (to, order) in targets.into_iter().flat_map(|to| ORDERS.map(|order| (to, order))) {
                let sent = send(netns, of_family(own, to), to, order);
                let what = format!("{from} to {to} in the order {order:?}");
                assert!(received(server).is_some_and(|whole| whole == sent), "{what}");
            }
        }
        guarded.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let denied = [
            ("denied", live.at("server", PORT)),
            ("denied", cluster_ip(21)),
            ("the outside", node_port(30081)),
        ];
        for (from, targets) in denied {
            let (netns, own) = sender(from);
            for (to, order) in targets.into_iter().flat_map(|to| ORDERS.map(|order| (to, order))) {
                send(netns, of_family(own, to), to, order);
                assert_eq!(received(&guarded), None, "{from} to {to} in the order {order:?}");
            }
        }
    });
}
