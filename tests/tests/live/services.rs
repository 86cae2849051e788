//! Services: every kind of client, and backends that come and go.

use std::{collections::BTreeSet, net::SocketAddr};

use weir::cluster::Protocol;
use weir_tests::live::{
    Live, Outcome, apply, delete, isolated,
    manifests::{self, TCP, UDP, endpoints, service},
    traffic::{Connection, Echo, Sender, Sink, spray},
};

const PORT: u16 = 7000;

/// Port 80 over TCP and port 53 over UDP of service `number`, in both families.
fn frontends(number: u8) -> [(Protocol, SocketAddr); 4] {
    let address = |ipv6| if ipv6 { format!("[fd00:10:96::{number}]") } else { format!("10.96.0.{number}") };
    let at = |ipv6, port| format!("{}:{port}", address(ipv6)).parse().unwrap();
    [
        (Protocol::Tcp, at(false, 80)),
        (Protocol::Udp, at(false, 53)),
        (Protocol::Tcp, at(true, 80)),
        (Protocol::Udp, at(true, 53)),
    ]
}

fn answers(live: &Live, from: &str, service: u8, pod: &str) {
    for (protocol, to) in frontends(service) {
        let outcome = live.probe(from, protocol, to);
        assert_eq!(outcome, Outcome::Answer(format!("shop/{pod}")), "{from} to {to}/{protocol}");
    }
}

fn is_silent(live: &Live, from: &str, service: u8) {
    for (protocol, to) in frontends(service) {
        let outcome = live.probe(from, protocol, to);
        assert!(!matches!(outcome, Outcome::Answer(_)), "{from} to {to}/{protocol}: {outcome:?}");
    }
}

#[test]
fn a_service_answers_pods_and_nodes_from_local_and_remote_backends() {
    isolated(|| {
        let services = [
            service("local", 1) + &endpoints("local", &[(1, 20)], TCP, UDP),
            service("remote", 2) + &endpoints("remote", &[(2, 10)], TCP, UDP),
            service("own", 3) + &endpoints("own", &[(1, 10)], TCP, UDP),
        ];
        let live = Live::start(&(manifests::cluster() + &services.concat()));
        answers(&live, "client", 1, "server");
        answers(&live, "client", 2, "far");
        answers(&live, "far", 1, "server");
        // A node may reach its own pods whatever the policies say.
        answers(&live, "node-1", 1, "server");
        answers(&live, "node-2", 2, "far");
        // Hairpin: the pod is its own backend.
        answers(&live, "client", 3, "client");
        // Policy judges the backend, not the service's address.
        is_silent(&live, "denied", 1);
        is_silent(&live, "denied", 2);
    });
}

#[test]
fn a_node_reaches_a_service_with_backends_on_another_node() {
    isolated(|| {
        let open = service("open", 4) + &endpoints("open", &[(1, 10)], TCP, UDP);
        let live = Live::start(&(manifests::cluster() + &open));
        answers(&live, "node-2", 4, "client");
        answers(&live, "node-1", 4, "client");
    });
}

#[test]
fn flows_follow_the_endpoints_of_a_service() {
    isolated(|| {
        let pods = [(1, 10, "client"), (1, 30, "denied"), (2, 20, "distant")];
        let scaled = |count: usize| {
            endpoints("svc", &pods[..count].iter().map(|pod| (pod.0, pod.1)).collect::<Vec<_>>(), PORT, PORT)
        };
        let more = [manifests::pod("distant", 2, 20), service("svc", 5), scaled(3)];
        // TCP connections as kube-proxy has them; the packet tests have the resets.
        let settings = "resetGoneBackends: false\n  podCIDRs: [10.244.0.0/16";
        let cluster = manifests::cluster().replace("podCIDRs: [10.244.0.0/16", settings);
        let live = Live::start(&(cluster + &more.concat()));
        let sinks = pods.map(|pod| Sink::open(live.netns(pod.2), PORT));
        let _echoes = pods.map(|pod| Echo::open(live.netns(pod.2), PORT));
        let [tcp, udp, tcp6, udp6] = frontends(5).map(|(_, to)| to);

        // Many flows, so that each backend has some.
        let client = live.netns("server");
        let mut senders: Vec<_> =
            (0..8).map(|flow| Sender::start(client, if flow % 2 == 0 { udp } else { udp6 })).collect();
        let mut connections: Vec<_> =
            (0..8).map(|flow| Connection::open(client, if flow % 2 == 0 { tcp } else { tcp6 })).collect();
        senders.iter().for_each(|sender| sender.advance(30));
        assert!(connections.iter_mut().all(Connection::is_alive));
        let backends: Vec<BTreeSet<usize>> = senders
            .iter()
            .map(|sender| (0..3).filter(|&sink| !sinks[sink].from(sender).is_empty()).collect())
            .collect();
        assert!(backends.iter().all(|used| used.len() == 1), "a flow has one backend: {backends:?}");
        for to in [udp, udp6] {
            let many = spray(client, to, 150);
            let shares = sinks.each_ref().map(|sink| sink.from(&many).len());
            assert_eq!(shares.iter().sum::<usize>(), 150, "all arrive: {shares:?}");
            assert!(shares.iter().all(|share| *share > 150 / 6), "each has its share: {shares:?}");
        }

        // From three to one: UDP leaves the dead backends with its next packet, TCP stays where it is.
        apply(&scaled(1)).done();
        let marks: Vec<_> = senders.iter().map(Sender::sent).collect();
        senders.iter().for_each(|sender| sender.advance(30));
        assert!(connections.iter_mut().all(Connection::is_alive), "established connections stay");
        for (sender, mark) in senders.iter().zip(&marks) {
            for sink in &sinks[1..] {
                let late: Vec<u64> = sink.from(sender).into_iter().filter(|number| number > mark).collect();
                assert_eq!(late, [0; 0], "to a backend that is gone");
            }
        }

        // To none: nobody answers.
        apply(&scaled(0)).done();
        let marks: Vec<_> = senders.iter().map(Sender::sent).collect();
        senders.iter().for_each(|sender| sender.advance(30));
        for (sender, mark) in senders.iter().zip(&marks) {
            assert_eq!(sinks[0].from(sender).range(mark + 1..).count(), 0, "to a backend that is gone");
        }
        is_silent(&live, "server", 5);

        // And to one again.
        apply(&scaled(1)).done();
        let marks: Vec<_> = senders.iter().map(Sender::sent).collect();
        senders.iter().for_each(|sender| sender.advance(30));
        for (sender, mark) in senders.iter_mut().zip(&marks) {
            let sent = sender.finish();
            let arrived = sinks[0].from(sender);
            assert!(
                (mark + 1..=sent).all(|number| arrived.contains(&number)),
                "to the backend that came back"
            );
        }
        delete(&service("svc", 5)).done();
        is_silent(&live, "server", 5);
    });
}
