//! Connections whose backend is gone for good, by real sockets.

use std::{io::ErrorKind, net::SocketAddr};

use weir_tests::live::{
    Live, apply, isolated,
    manifests::{self, endpoints, pod, service},
    traffic::{Connection, Echo},
};

const PORT: u16 = 7000;

/// Services by name and number, each with one backend: node and host number. The last one keeps it.
const SERVICES: [(&str, u8, (u8, u8)); 3] =
    [("near", 31, (1, 41)), ("away", 32, (2, 41)), ("stays", 33, (2, 42))];

fn cluster() -> String {
    let backends = pod("one", 1, 41) + &pod("two", 2, 41) + &pod("three", 2, 42);
    let services = SERVICES
        .map(|(name, number, backend)| service(name, number) + &endpoints(name, &[backend], PORT, PORT));
    manifests::cluster() + &backends + &services.concat()
}

/// Connections of a pod and of its node, over both families: to backends that go, and to the one that stays.
fn connect(live: &Live) -> (Vec<Connection>, Vec<Connection>) {
    let to = |number: u8| -> [SocketAddr; 2] {
        [format!("10.96.0.{number}:80"), format!("[fd00:10:96::{number}]:80")]
            .map(|text| text.parse().unwrap())
    };
    let of = |number| {
        let pairs = ["client", "node-1"].into_iter().flat_map(move |from| to(number).map(|to| (from, to)));
        pairs.map(|(from, to)| Connection::open(live.netns(from), to)).collect::<Vec<_>>()
    };
    ([of(31), of(32)].into_iter().flatten().collect(), of(33))
}

fn say(connections: &mut [Connection]) -> Vec<Result<(), ErrorKind>> {
    connections.iter_mut().map(|connection| connection.says().map_err(|error| error.kind())).collect()
}

/// Opens connections, and takes the endpoints away from all services but the last.
fn lose_backends(manifests: &str, check: impl FnOnce(Vec<Result<(), ErrorKind>>) + Send) {
    isolated(|| {
        let live = Live::start(manifests);
        let _echoes = ["one", "two", "three"].map(|pod| Echo::open(live.netns(pod), PORT));
        let (mut going, mut staying) = connect(&live);
        assert_eq!((say(&mut going), say(&mut staying)), (vec![Ok(()); 8], vec![Ok(()); 4]));
        apply(&SERVICES[..2].iter().map(|(name, ..)| endpoints(name, &[], PORT, PORT)).collect::<String>())
            .done();
        check(say(&mut going));
        assert_eq!(say(&mut staying), [Ok(()); 4]);
    });
}

#[test]
fn a_connection_to_a_backend_that_is_gone_is_reset() {
    lose_backends(&cluster(), |said| assert_eq!(said, [Err(ErrorKind::ConnectionReset); 8]));
}

#[test]
fn a_connection_to_a_backend_that_is_gone_stays_where_the_cluster_says_so() {
    let keeping = cluster().replacen("spec:\n  podCIDRs", "spec:\n  resetGoneBackends: false\n  podCIDRs", 1);
    lose_backends(&keeping, |said| assert_eq!(said, [Ok(()); 8]));
}
