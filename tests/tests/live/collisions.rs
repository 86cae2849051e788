//! Flows that would have the same answers (promise P7): two services with one backend, a service and its backend.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use weir_tests::live::{
    Live,
    crowd::Host,
    isolated,
    manifests::{self, endpoints, service},
    netns,
    traffic::Sink,
};

const PORT: u16 = 7000;
const FROM: u16 = 45_000;
const PATIENCE: Duration = Duration::from_secs(5);

/// The doors to one pod: two services, and itself.
fn doors(live: &Live, pod: &str, services: [u8; 2], ipv6: bool, port: u16) -> [SocketAddr; 3] {
    let front =
        |number: u8| if ipv6 { format!("[fd00:10:96::{number}]") } else { format!("10.96.0.{number}") };
    let [one, other] = services.map(|number| format!("{}:{port}", front(number)).parse().unwrap());
    [one, other, live.at(pod, PORT)[usize::from(ipv6)]]
}

/// `client` (node 1) with services for `server` (node 1) and `far` (node 2), two each.
fn start() -> Live {
    let pair = |numbers: [u8; 2], backend: (u8, u8)| {
        numbers.map(|number| {
            let name = format!("door-{number}");
            service(&name, number) + &endpoints(&name, &[backend], PORT, PORT)
        })
    };
    let doors = [pair([11, 12], (1, 20)), pair([13, 14], (2, 10))].concat().concat();
    Live::start(&(manifests::cluster() + &doors))
}

const TARGETS: [(&str, [u8; 2]); 2] = [("server", [11, 12]), ("far", [13, 14])];

#[test]
fn datagrams_from_one_port_through_every_door_are_answered_by_the_door() {
    isolated(|| {
        let live = start();
        let mut from = FROM;
        for (pod, services) in TARGETS {
            let sink = Sink::open(live.netns(pod), PORT);
            for ipv6 in [false, true] {
                from += 1;
                let local = SocketAddr::new(live.at("client", 0)[usize::from(ipv6)].ip(), from);
                let socket = netns::within(live.netns("client"), || Ok(UdpSocket::bind(local)?)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                for round in 0..5_u128 {
                    for (number, door) in doors(&live, pod, services, ipv6, 53).into_iter().enumerate() {
                        let payload = (round << 8 | number as u128).to_be_bytes();
                        socket.send_to(&payload, door).unwrap();
                        let mut answer = [0; 16];
                        let (_, by) =
                            socket.recv_from(&mut answer).unwrap_or_else(|error| panic!("{door}: {error}"));
                        assert_eq!((by, answer), (door, payload));
                    }
                }
            }
            drop(sink);
        }
    });
}

#[test]
fn connections_from_one_port_through_every_door_live_side_by_side() {
    isolated(|| {
        let live = start();
        let _hosts = [Host::open(live.netns("server"), PORT, 1), Host::open(live.netns("far"), PORT, 2)];
        let mut from = FROM;
        for ((pod, services), number) in TARGETS.into_iter().zip([1, 2]) {
            for ipv6 in [false, true] {
                from += 1;
                let client = live.at("client", 0)[usize::from(ipv6)].ip();
                let mut streams = doors(&live, pod, services, ipv6, 80).map(|door| {
                    let open = || Ok(connect(client, from, door));
                    netns::within(live.netns("client"), open).unwrap()
                });
                for _ in 0..3 {
                    for stream in &mut streams {
                        let mut answer = [0];
                        stream.write_all(b"?").unwrap();
                        stream.read_exact(&mut answer).unwrap();
                        assert_eq!(answer, [number], "{stream:?}");
                    }
                }
            }
        }
    });
}

fn connect(from: IpAddr, port: u16, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::new(from, port).into()).unwrap();
    socket.connect_timeout(&to.into(), PATIENCE).unwrap_or_else(|error| panic!("{to}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
