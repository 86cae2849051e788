//! Policies and the labels that they name, changed by one commit while packets are judged: each packet is judged
//! by the old ones or by the new ones. Attack 14.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use weir::kernel::{Program, sys::Packet};
use weir_tests::packets::{
    At, Ends, Programs,
    action::{REDIRECT, SHOT},
};

use super::{ACK, CLIENT, CLUSTER, FAMILIES, OTHER, SYN, on_node};

const COMMITS: usize = 400;
/// Should the commits come to no end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the two labels apart whoever has them, so that the pods' identities change with them.
const BOTH: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: both, namespace: t}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - {from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 7001}]}
    - {from: [{podSelector: {matchLabels: {app: other}}}], ports: [{port: 7002}]}
";

/// The cluster, and the same with the labels of client and other exchanged, in the pods and in the policies. Who
/// may go to port 80 is the same.
fn clusters() -> [String; 2] {
    let moved = CLUSTER.replace("app: client", "app: nobody").replace("app: other", "app: client");
    [CLUSTER.to_owned() + BOTH, moved.replace("app: nobody", "app: other") + BOTH]
}

/// What became of the packets that were sent meanwhile.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// New flows of the client, and packets of one that goes on.
    allowed: [u64; 2],
    /// New flows of the other pod.
    denied: u64,
    /// All else.
    wrong: Vec<(&'static str, Ends, u32)>,
}

/// Sends until it is told to end.
fn watch(programs: &Programs, client: At, other: At, has_ended: &AtomicBool) -> Seen {
    let (mut seen, begun) = (Seen::default(), Instant::now());
    let run = |at, frame: &[u8]| {
        programs
            .run(Program::FromPod, at, Packet { data: frame, ..Packet::default() })
            .expect("the program runs")
            .verdict
    };
    let held = FAMILIES.map(|family| family.to_server(80));
    for flow in &held {
        assert_eq!(run(client, &flow.tcp(SYN)), REDIRECT);
    }
    while !has_ended.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
        for (family, flow) in FAMILIES.iter().zip(&held) {
            let ends = family.to_server(80);
            match run(client, &ends.tcp(SYN)) {
                REDIRECT => seen.allowed[0] += 1,
                verdict => seen.wrong.push(("a new flow of the client", ends, verdict)),
            }
            match run(client, &flow.tcp(ACK)) {
                REDIRECT => seen.allowed[1] += 1,
                verdict => seen.wrong.push(("one that goes on", *flow, verdict)),
            }
            let ends = Ends::new(family.other, family.server, 80);
            match run(other, &ends.tcp(SYN)) {
                SHOT => seen.denied += 1,
                verdict => seen.wrong.push(("a new flow of another", ends, verdict)),
            }
        }
    }
    seen
}

#[test]
fn labels_and_policies_that_change_together_never_meet_each_others_old_state() {
    on_node(|lab| {
        let at = |pod: &str| At { ifindex: lab.pod(pod).ifindex, ingress: lab.pod(pod).ifindex };
        let (programs, client, other) = (lab.node().programs(), at(CLIENT), at(OTHER));
        let has_ended = AtomicBool::new(false);
        let (mut before, mut changed) = (lab.datapath().identities.clone(), 0);
        let clusters = clusters();
        let seen = thread::scope(|scope| {
            let watching = scope.spawn(|| watch(&programs, client, other, &has_ended));
            for commit in 0..COMMITS {
                lab.commit(&clusters[commit % 2]);
                changed += usize::from(before != lab.datapath().identities);
                before.clone_from(&lab.datapath().identities);
            }
            has_ended.store(true, Ordering::Relaxed);
            watching.join().expect("it ends")
        });
        let [new, held] = seen.allowed;
        assert!(new > 1000 && held > 1000 && seen.denied > 1000, "hardly anything was sent: {seen:?}");
        assert_eq!(changed, COMMITS, "each gave other identities");
        assert_eq!(seen.wrong, []);
    });
}
