//! What clients of a service without endpoints see.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use weir_tests::live::{
    Live, isolated,
    manifests::{self, service},
    netns,
};

/// TCP takes the answer to its first SYN for a hint while `connect` still holds the socket, as it does in one run
/// from a pod to its node and back; it sends the second SYN, whose answer ends it, after a second.
const SECOND_SYN: Duration = Duration::from_secs(3);
/// UDP takes it at once.
const AT_ONCE: Duration = Duration::from_millis(500);

/// How a connection ends, and how long that takes.
fn connect(netns: &str, to: SocketAddr) -> (ErrorKind, Duration) {
    let start = Instant::now();
    let error = netns::within(netns, || Ok(TcpStream::connect_timeout(&to, SECOND_SYN).map(|_| ()))).unwrap();
    (error.expect_err("nobody is there").kind(), start.elapsed())
}

/// What a socket says that has sent a datagram.
fn ask(netns: &str, to: SocketAddr) -> Result<usize, ErrorKind> {
    let local: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = netns::within(netns, || Ok(UdpSocket::bind(local)?)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket.send(b"anybody?").and_then(|_| socket.recv(&mut [0; 16])).map_err(|error| error.kind())
}

#[test]
fn connections_to_a_service_without_endpoints_are_refused() {
    isolated(|| {
        let live = Live::start(&(manifests::cluster() + &service("empty", 1)));
        for from in ["client", "node-1"] {
            let netns = live.netns(from);
            for address in ["10.96.0.1", "[fd00:10:96::1]"] {
                let at = |port: u16| format!("{address}:{port}").parse::<SocketAddr>().unwrap();
                // No endpoint, and no such port.
                for to in [at(80), at(81)] {
                    let (error, after) = connect(netns, to);
                    assert_eq!(error, ErrorKind::ConnectionRefused, "{from} to {to}: after {after:?}");
                }
                for to in [at(53), at(54)] {
                    assert_eq!(ask(netns, to), Err(ErrorKind::ConnectionRefused), "{from} to {to}");
                }
            }
        }
    });
}
