//! The flow table under several processors: both directions of many flows on all of them at once, in a table
//! so small that nearly every packet finds its flow evicted, moved, or being written.
//!
//! Every flow is translated to a port that follows from its service's address, so an entry that is torn, or is
//! another flow's, shows in the packet.

use std::{
    env,
    fmt::Write as _,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use weir::{kernel::Program, plan::Interface};
use weir_common::reason::Reason;
use weir_tests::packets::{
    At, Ends, Lab, NODE_MAC, Node,
    action::{REDIRECT, SHOT},
    in_lab_of, mend_v4, read_tuple, wrong_checksums,
};

use super::ACK;

/// Packets of one run; $WEIR_STRESS_PACKETS says otherwise.
const PACKETS: u64 = 1_000_000;
/// Sets of the flow tables: 32 entries for each family.
const SETS: u32 = 4;
/// Services, one flow to each.
const SERVICES: u8 = 48;
/// What their ports lead to, one after the other.
const TARGETS: u16 = 8000;

/// A direction of a flow: a frame, where it is sent, and what must come of it.
struct Direction {
    at: At,
    frame: Vec<u8>,
    becomes: Vec<u8>,
    /// Whether it is dropped where the flow is not known.
    is_answer: bool,
}

#[test]
fn no_packet_is_sent_by_a_torn_entry_or_by_that_of_another_flow() {
    in_lab_of(SETS, "n1", &cluster(), |lab| {
        let packets = env::var("WEIR_STRESS_PACKETS").map_or(PACKETS, |text| text.parse().unwrap());
        let (directions, node) = (directions(lab), lab.node());
        let processors = processors();
        let [answered, unknown, refused] = [const { AtomicU64::new(0) }; 3];
        thread::scope(|scope| {
            for processor in &processors {
                let (directions, answered, unknown, refused) = (&directions, &answered, &unknown, &refused);
                let count = packets / processors.len() as u64;
                scope.spawn(move || {
                    stay_on(*processor);
                    let mut state = 0x9e37_79b9_7f4a_7c15 ^ *processor as u64;
                    for _ in 0..count {
                        let direction = &directions[next(&mut state) as usize % directions.len()];
                        let passed = send(node, direction);
                        let counter = match (direction.is_answer, passed) {
                            (true, true) => answered,
                            (true, false) => unknown,
                            (false, false) => refused,
                            (false, true) => continue,
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let [answered, unknown, refused] = [answered, unknown, refused].map(AtomicU64::into_inner);
        // Where two processors want one way three times in a row, the packet that opens a flow waits for its successor.
        let expected = [(Reason::PolicyDenied, unknown), (Reason::FlowTableFailed, refused)];
        for (reason, packets) in drops(node) {
            assert!(
                expected.contains(&(reason, packets)),
                "{packets} packets dropped: {reason:?}, not {expected:?}"
            );
        }
        assert!(refused < packets / 1000, "{refused} flows were not recorded");
        assert!(
            answered > packets / 50 && unknown > packets / 50,
            "{answered} answers met their flow and {unknown} met none: the table is not what it should be"
        );
    });
}

/// Sends a packet; whether it passed. What passes is right in every byte.
fn send(node: &Node, direction: &Direction) -> bool {
    let Direction { at, frame, becomes, .. } = direction;
    let outcome = node.run(Program::FromPod, *at, frame).expect("the program runs");
    match outcome.verdict {
        REDIRECT if outcome.data == *becomes => true,
        REDIRECT => {
            panic!("{:?} instead of {:?}", read_tuple(&outcome.data), read_tuple(becomes))
        }
        SHOT => false,
        verdict => {
            panic!("{:?}: the program returned {verdict}", read_tuple(frame))
        }
    }
}

/// Why packets were dropped so far.
fn drops(node: &Node) -> Vec<(Reason, u64)> {
    let drops = node.kernel().drops().expect("counters").into_iter();
    let drops = drops.map(|(_, reason, counter)| (reason, counter.packets));
    drops.filter(|(_, packets)| *packets != 0).collect()
}

fn directions(lab: &Lab) -> Vec<Direction> {
    let (client, server) = (lab.pod("t/client"), lab.pod("t/server"));
    let of_service = |number: u8| {
        [4, 6].map(|family| {
            let ask = Ends::new(&pod(family, 10), &service(family, number).to_string(), 80);
            let backend = pod(family, 20).parse().unwrap();
            let there = Ends { dst: backend, dport: TARGETS + u16::from(number), ..ask };
            [
                direction(client, server, ask, there, false),
                direction(server, client, there.back(), ask.back(), true),
            ]
        })
    };
    (1..=SERVICES).flat_map(of_service).flatten().collect()
}

fn direction(from: Interface, to: Interface, sent: Ends, becomes: Ends, is_answer: bool) -> Direction {
    let mut expected = becomes.tcp(ACK);
    expected[..6].copy_from_slice(&to.mac);
    expected[6..12].copy_from_slice(&NODE_MAC);
    if becomes.src.is_ipv4() {
        expected[22] -= 1;
        mend_v4(&mut expected);
    } else {
        expected[21] -= 1;
    }
    assert_eq!(wrong_checksums(&expected), [""; 0]);
    let at = At { ifindex: from.ifindex, ingress: from.ifindex };
    Direction { at, frame: sent.tcp(ACK), becomes: expected, is_answer }
}

pub fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap()).collect()
}

pub fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

const fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 16
}

fn pod(family: u8, host: u8) -> String {
    if family == 4 { format!("10.244.1.{host}") } else { format!("fd00:10:244:1::{host}") }
}

fn service(family: u8, number: u8) -> IpAddr {
    let address = if family == 4 { format!("10.96.1.{number}") } else { format!("fd00:10:96::{number:x}") };
    address.parse().unwrap()
}

/// Nobody opens a flow to the client: an answer passes by the entry of its flow, or not at all.
fn cluster() -> String {
    let mut text = String::from(
        "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.50.11}]}
---
apiVersion: weir.dev/v1alpha1
kind: WeirConfiguration
metadata: {name: cluster}
spec:
  podCIDRs: [10.244.0.0/16, \"fd00:10:244::/48\"]
  serviceCIDRs: [10.96.0.0/16, \"fd00:10:96::/112\"]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: t}
spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress]}
",
    );
    for (name, host) in [("client", 10), ("server", 20)] {
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: t, labels: {{app: {name}}}}}
spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}
status: {{phase: Running, podIPs: [{{ip: {}}}, {{ip: \"{}\"}}]}}
",
            pod(4, host),
            pod(6, host)
        );
    }
    for number in 1..=SERVICES {
        let (v4, v6) = (service(4, number), service(6, number));
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Service
metadata: {{name: s{number}, namespace: t}}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: {v4}
  clusterIPs: [{v4}, \"{v6}\"]
  ports: [{{name: p, port: 80}}]
"
        );
        for (family, kind) in [(4, "IPv4"), (6, "IPv6")] {
            let _ = write!(
                text,
                "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number}-v{family}, namespace: t, labels: {{kubernetes.io/service-name: s{number}}}}}
addressType: {kind}
ports: [{{name: p, port: {}, protocol: TCP}}]
endpoints: [{{addresses: [\"{}\"], nodeName: n1}}]
",
                TARGETS + u16::from(number),
                pod(family, 20)
            );
        }
    }
    text
}
