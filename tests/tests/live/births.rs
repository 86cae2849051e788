//! A thousand pods that are born and die while everybody sends. Attack 12.
//!
//! A batch at a time, each pod on a new interface with a policy: present before, or applied together with it; known before
//! it is attached, or attached first. Their namespaces and sockets stay, so that packets are under way before an
//! interface is there, while it comes up, and after.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use weir_tests::live::{Live, Pod, apply, delete, isolated, manifests, name, netns, network, wait_until};

const BIRTHS: u64 = 1000;
/// Pods born together.
const BATCH: u8 = 25;
/// Those before this one are known before they are attached; the others are attached first.
const ATTACHED_FIRST: u8 = 13;
/// `weir attach` at a time.
const AT_ONCE: usize = 4;
const PORT: u16 = 7200;

/// Between two rounds of packets.
const PAUSE: Duration = Duration::from_millis(3);

/// Who sends to whom, by the first byte of a packet. Two are denied, each with its legal twin.
const OUT: u8 = 0;
const OUT_DENIED: u8 = 1;
const IN: u8 = 2;
const IN_DENIED: u8 = 3;

#[test]
fn nothing_leaks_at_a_thousand_births() {
    isolated(|| {
        let live = Live::start(&[manifests::cluster(), policies("early")].concat());
        let pods: Vec<_> = (0..BATCH).map(pod).collect();
        netns::ip(None, &pods.iter().map(|pod| format!("netns add {}", pod.netns)).collect::<Vec<_>>())
            .unwrap();
        let traffic = Traffic::open(&live, &pods);
        thread::scope(|scope| {
            scope.spawn(|| traffic.send());
            scope.spawn(|| traffic.receive());
            let end = End(&traffic.ended);
            for _ in 0..BIRTHS / u64::from(BATCH) {
                birth(&live, &pods, &traffic);
            }
            drop(end);
        });
        traffic.check();
    });
}

/// A batch lives and dies.
fn birth(live: &Live, pods: &[Pod], traffic: &Traffic) {
    let generation = traffic.generation.fetch_add(1, Ordering::SeqCst) + 1;
    let node = &live.plan.nodes[0];
    let (known_first, attached_first) = pods.split_at(usize::from(ATTACHED_FIRST));
    thread::scope(|scope| {
        for pods in pods.chunks(pods.len().div_ceil(AT_ONCE)) {
            scope.spawn(|| pods.iter().for_each(|pod| network::build_pod(node, pod).unwrap()));
        }
    });
    let attach = |pods: &[Pod]| {
        thread::scope(|scope| {
            for pods in pods.chunks(pods.len().div_ceil(AT_ONCE)) {
                scope.spawn(|| pods.iter().for_each(|pod| drop(live.attach(pod).done())));
            }
        });
    };
    let route = |pods: &[Pod]| {
        let routes = pods.iter().flat_map(|pod| {
            let interface = pod.interface.as_deref().unwrap();
            pod.addresses.iter().map(move |address| format!("route add {address} dev {interface} scope link"))
        });
        netns::ip(Some(&node.netns), &routes.collect::<Vec<_>>()).unwrap();
    };

    attach(attached_first);
    apply(&manifest(0..ATTACHED_FIRST)).done();
    attach(known_first);
    route(known_first);
    for (slot, kind) in (ATTACHED_FIRST..BATCH).flat_map(|slot| [(slot, OUT), (slot, IN)]) {
        assert!(!traffic.arrived(slot, kind, generation), "pod {slot} is open before a manifest knows it");
    }
    apply(&manifest(ATTACHED_FIRST..BATCH)).done();
    route(attached_first);
    wait_until("every newborn hears and is heard", || {
        (0..BATCH).all(|slot| [OUT, IN].iter().all(|kind| traffic.arrived(slot, *kind, generation)))
    });

    delete(&(manifest(0..ATTACHED_FIRST) + &manifest_of_pods(ATTACHED_FIRST..BATCH))).done();
    let gone: Vec<_> =
        pods.iter().map(|pod| format!("link delete {}", pod.interface.as_ref().unwrap())).collect();
    netns::ip(Some(&node.netns), &gone).unwrap();
}

fn pod(slot: u8) -> Pod {
    let host = 100 + slot;
    Pod {
        name: name(&newborn(slot)),
        node: 0,
        netns: format!("newborn-{slot}"),
        interface: Some(format!("new{slot}")),
        addresses: vec![
            format!("10.244.1.{host}").parse().unwrap(),
            format!("fd00:10:244:1::{host}").parse().unwrap(),
        ],
        ports: [].into(),
    }
}

fn newborn(slot: u8) -> String {
    format!("newborn-{slot}")
}

/// Pods by turns under the policies that are always there, and under others that come with them.
fn manifest(slots: std::ops::Range<u8>) -> String {
    let policies = if slots.start == 0 { policies("late") } else { String::new() };
    manifest_of_pods(slots) + &policies
}

fn manifest_of_pods(slots: std::ops::Range<u8>) -> String {
    let pod = |slot: u8| {
        let labels = |app: &str| format!("{{app: {app}}}");
        let group = if slot.is_multiple_of(2) { "early" } else { "late" };
        manifests::pod(&newborn(slot), 1, 100 + slot).replace(&labels(&newborn(slot)), &labels(group))
    };
    slots.map(pod).collect()
}

/// Only `client` may send to the pods of a group, and they may send to `server` alone.
fn policies(group: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: births-{group}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: {group}}}}}
  policyTypes: [Ingress, Egress]
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]}}]
  egress: [{{to: [{{podSelector: {{matchLabels: {{app: server}}}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: births-server-{group}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: server}}}}
  policyTypes: [Ingress]
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {group}}}}}}}]}}]
"
    )
}

/// Everybody sends to everybody, as fast as one thread can.
struct Traffic {
    generation: AtomicU64,
    ended: AtomicBool,
    senders: Vec<Sender>,
    receivers: Vec<UdpSocket>,
    /// The latest generation of each pod that was heard, and that heard something.
    arrived: [[AtomicU64; BATCH as usize]; 2],
    leaked: AtomicU64,
    /// Packets that left by kind.
    sent: [AtomicU64; 4],
}

struct Sender {
    kind: u8,
    slot: u8,
    socket: UdpSocket,
    target: SocketAddr,
}

impl Traffic {
    fn open(live: &Live, pods: &[Pod]) -> Self {
        let bind = |netns: &str, local: SocketAddr| {
            let socket = netns::within(netns, || Ok(UdpSocket::bind(local)?)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let own = |target: IpAddr| match target {
            IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
        };
        let mut senders = Vec::new();
        for (slot, pod) in (0..).zip(pods) {
            for (family, address) in pod.addresses.iter().enumerate() {
                let target = |pod: &str| live.at(pod, PORT)[family];
                let own_target = SocketAddr::new(*address, PORT);
                for (kind, netns, target) in [
                    (OUT, pod.netns.as_str(), target("server")),
                    (OUT_DENIED, &pod.netns, target("client")),
                    (IN, live.netns("client"), own_target),
                    (IN_DENIED, live.netns("denied"), own_target),
                ] {
                    senders.push(Sender { kind, slot, socket: bind(netns, own(*address)), target });
                }
            }
        }
        let all = (Ipv6Addr::UNSPECIFIED, PORT).into();
        let namespaces = ["server", "client"].map(|pod| live.netns(pod)).into_iter();
        let namespaces = namespaces.chain(pods.iter().map(|pod| pod.netns.as_str()));
        Self {
            senders,
            receivers: namespaces.map(|netns| bind(netns, all)).collect(),
            generation: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            arrived: Default::default(),
            leaked: AtomicU64::new(0),
            sent: Default::default(),
        }
    }

    /// Sends until the end.
    fn send(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            let generation = self.generation.load(Ordering::SeqCst);
            for Sender { kind, slot, socket, target } in &self.senders {
                let packet = [&[*kind, *slot][..], &generation.to_be_bytes()].concat();
                // While there is no interface, or it is down, nothing leaves.
                if socket.send_to(&packet, target).is_ok() {
                    self.sent[usize::from(*kind)].fetch_add(1, Ordering::Relaxed);
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// Receives until the end.
    fn receive(&self) {
        let mut packet = [0; 10];
        while !self.ended.load(Ordering::SeqCst) {
            for socket in &self.receivers {
                while let Ok(10) = socket.recv(&mut packet) {
                    let [kind, slot, generation @ ..] = packet;
                    match kind {
                        OUT | IN => self.arrived[usize::from(kind / 2)][usize::from(slot)]
                            .store(u64::from_be_bytes(generation), Ordering::SeqCst),
                        _ => drop(self.leaked.fetch_add(1, Ordering::SeqCst)),
                    }
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// Whether something from or to a pod of this generation has arrived.
    fn arrived(&self, slot: u8, kind: u8, generation: u64) -> bool {
        self.arrived[usize::from(kind / 2)][usize::from(slot)].load(Ordering::SeqCst) == generation
    }

    fn check(&self) {
        for kind in [OUT_DENIED, IN_DENIED] {
            let sent = self.sent[usize::from(kind)].load(Ordering::SeqCst);
            assert!(sent > BIRTHS, "only {sent} packets tried to leak");
        }
        assert_eq!(self.leaked.load(Ordering::SeqCst), 0, "leaked");
    }
}

/// Ends the traffic, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
