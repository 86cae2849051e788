//! Backends that are replaced, and agents that are, under connections that go on (promise P7).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use weir_tests::live::{
    Live, apply,
    crowd::{Crowd, Host, Visit, Visitors},
    isolated,
    manifests::{self, pod, service},
    traffic::{Sender, Sink},
};

const PORT: u16 = 7000;
const SERVICE: u8 = 7;
/// Node and host number of each backend; its number is its place here.
const BACKENDS: [(u8, u8); 8] = [(1, 41), (2, 41), (1, 42), (2, 42), (1, 43), (2, 43), (1, 44), (2, 44)];

/// What the slices say of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Ready,
    Terminating,
}

fn tcp() -> [SocketAddr; 2] {
    [format!("10.96.0.{SERVICE}:80"), format!("[fd00:10:96::{SERVICE}]:80")].map(|text| text.parse().unwrap())
}

fn udp() -> [SocketAddr; 2] {
    tcp().map(|address| SocketAddr::new(address.ip(), 53))
}

fn pods() -> String {
    let name = |number: usize| format!("backend-{number}");
    BACKENDS.iter().enumerate().map(|(number, (node, host))| pod(&name(number), *node, *host)).collect()
}

/// The slices of the service.
fn slices(states: [State; 8]) -> String {
    let slice = |family: &str| {
        let endpoint = |((node, host), state): (&(u8, u8), State)| {
            let conditions = match state {
                State::Absent => return None,
                State::Ready => "ready: true, serving: true, terminating: false",
                State::Terminating => "ready: false, serving: true, terminating: true",
            };
            let address = match family {
                "IPv4" => format!("10.244.{node}.{host}"),
                _ => format!("fd00:10:244:{node}::{host}"),
            };
            Some(format!(
                "  - {{addresses: [\"{address}\"], nodeName: node-{node}, conditions: {{{conditions}}}}}\n"
            ))
        };
        let endpoints: String = BACKENDS.iter().zip(states).filter_map(endpoint).collect();
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: busy-{}
  namespace: {}
  labels: {{kubernetes.io/service-name: busy}}
addressType: {family}
ports: [{{name: tcp, port: {PORT}, protocol: TCP}}, {{name: udp, port: {PORT}, protocol: UDP}}]
endpoints:
{endpoints}",
            family.to_lowercase(),
            manifests::NAMESPACE,
        )
    };
    slice("IPv4") + &slice("IPv6")
}

/// The first four backends ready, the others not there yet.
const BEFORE: [State; 8] = [
    State::Ready,
    State::Ready,
    State::Ready,
    State::Ready,
    State::Absent,
    State::Absent,
    State::Absent,
    State::Absent,
];

fn start() -> (Live, Vec<Host>) {
    let live = Live::start(&(manifests::cluster() + &pods() + &service("busy", SERVICE) + &slices(BEFORE)));
    let host = |number: usize| Host::open(live.netns(&format!("backend-{number}")), PORT, number as u8);
    let hosts = (0..BACKENDS.len()).map(host).collect();
    (live, hosts)
}

fn ready(states: [State; 8]) -> BTreeSet<u8> {
    (0..8).filter(|number| states[usize::from(*number)] == State::Ready).collect()
}

/// Every visit must have been answered by a backend that was ready at that time. `changes` are, in order, times at
/// which a change began and ended, and which backends were ready from then on.
fn check_visits(visits: &[Visit], before: &BTreeSet<u8>, changes: &[(Instant, Instant, BTreeSet<u8>)]) {
    for Visit { begun, server } in visits {
        let server = server.as_ref().unwrap_or_else(|error| panic!("a new connection fails: {error}"));
        let mut may = before.clone();
        for (began, ended, then) in changes {
            if begun >= ended {
                may.clone_from(then);
            } else if begun >= began || (*began - *begun) < Duration::from_millis(500) {
                // The packet may come after the change although the call came before.
                may.extend(then);
            }
        }
        assert!(may.contains(server), "a new connection goes to {server} when {may:?} are ready");
    }
}

#[test]
fn every_backend_is_replaced_under_two_thousand_connections_and_none_breaks() {
    isolated(|| {
        let (live, _hosts) = start();
        let pause = Duration::from_secs(1);
        let crowds = ["client", "far"].map(|from| Crowd::open(live.netns(from), &tcp(), 1000, pause));
        let visitors = Visitors::start(live.netns("client"), tcp()[0], Duration::from_millis(10));
        let used: BTreeSet<u8> =
            crowds.iter().flat_map(Crowd::stories).flat_map(|story| story.servers).collect();
        assert_eq!(used, ready(BEFORE), "each backend has connections");

        let (mut states, mut changes) = (BEFORE, Vec::new());
        for place in 0..4 {
            (states[place], states[place + 4]) = (State::Terminating, State::Ready);
            let began = Instant::now();
            apply(&slices(states)).done();
            changes.push((began, Instant::now(), ready(states)));
            visitors.advance(30);
        }
        crowds.iter().for_each(|crowd| crowd.advance(2));

        crowds.iter().for_each(Crowd::assert_unbroken);
        let visits = visitors.visits();
        check_visits(&visits, &ready(BEFORE), &changes);
        let last: BTreeSet<u8> =
            visits.iter().rev().take(20).filter_map(|visit| visit.server.clone().ok()).collect();
        assert!(last.is_subset(&ready(states)) && last.len() > 1, "{last:?}");
    });
}

#[test]
fn an_agent_restarted_twenty_times_under_load_loses_and_misroutes_nothing() {
    isolated(|| {
        let (mut live, _hosts) = start();
        let pause = Duration::from_millis(200);
        let crowds = ["client", "far"].map(|from| Crowd::open(live.netns(from), &tcp(), 100, pause));
        let visitors = Visitors::start(live.netns("client"), tcp()[1], Duration::from_millis(10));
        let sinks: Vec<_> =
            (0..4).map(|number| Sink::open(live.netns(&format!("backend-{number}")), PORT)).collect();
        let mut senders: Vec<_> = udp()
            .into_iter()
            .flat_map(|to| [Sender::start(live.netns("client"), to), Sender::start(live.netns("far"), to)])
            .collect();
        senders.iter().for_each(|sender| sender.advance(20));

        for _ in 0..20 {
            let agent = live.agent("node-1");
            agent.kill();
            visitors.advance(3);
            live.agent("node-1").restart();
        }

        crowds.iter().for_each(|crowd| crowd.advance(1));
        crowds.iter().for_each(Crowd::assert_unbroken);
        check_visits(&visitors.visits(), &ready(BEFORE), &[]);
        for sender in &mut senders {
            let sent = sender.finish();
            let whole = (1..=sent).collect::<BTreeSet<u64>>();
            let arrived: Vec<_> =
                sinks.iter().map(|sink| sink.from(sender)).filter(|seen| !seen.is_empty()).collect();
            assert_eq!(arrived.len(), 1, "a flow has one backend");
            assert_eq!((arrived[0].len(), sender.answered().len()), (whole.len(), whole.len()), "of {sent}");
        }
    });
}
