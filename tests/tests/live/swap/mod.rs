//! Ten thousand swaps of a policy under load, by the agent's own commit on the maps of a running node. Attack 14.
//!
//! One thread on one CPU sends, so that the kernel decides packets in the order in which they are sent. Each round ends
//! with a packet that is always allowed and goes the longest way: once it is there, all before it have been decided.
//! What became of each must be right by a version that was in force meanwhile, and versions only go forward: for the new
//! flows into an address of a pod, whoever opens them, and for each flow that goes on.

mod place;
mod witness;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use weir::{
    cluster::Objects,
    compile::{Numbers, compile},
    datapath::Datapath,
    kernel::{Kernel, Options},
    manifest,
    plan::{Interface, Sizes},
};
use weir_tests::{
    live::{
        Live, PATIENCE, isolated,
        manifests::{self, ingress},
        netns,
    },
    packets::object,
};

use self::{
    place::{interfaces, stay_on_this_cpu},
    witness::Witness,
};

const SWAPS: u64 = 10_000;
/// Pods whose policies are swapped, all by each commit: most of a commit is waiting for programs that still run.
const SERVERS: u8 = 5;
const FIRST_PORT: u16 = 7100;
/// Ports of the server, and sockets of each client for each family.
const PORTS: u16 = 16;
const SOCKETS: usize = 16;
/// Rounds after which a pair of them comes again. Until then each packet is the first of its flow.
const CYCLE: u64 = 2 * PORTS as u64 * SOCKETS as u64;

/// How far the committing thread is. The version after commit number n is n modulo 2; number 0 is done before the start.
#[derive(Default)]
struct Progress {
    started: AtomicU64,
    done: AtomicU64,
    ended: AtomicBool,
}

#[test]
fn ten_thousand_swaps_show_no_packet_both_versions_or_neither() {
    isolated(|| {
        let servers = (0..SERVERS).map(|number| manifests::pod(&server(number), 1, 50 + number));
        let cluster: String =
            [manifests::cluster(), manifests::pod("always", 2, 40)].into_iter().chain(servers).collect();
        let mut live = Live::start(&cluster);
        // `always` is in both versions, `denied` in neither.
        let versions = ["client", "far"].map(|peer| {
            let policy = |number| ingress(&server(number), &server(number), &[peer, "always"]);
            [&cluster].into_iter().cloned().chain((0..SERVERS).map(policy)).collect::<String>()
        });
        let interfaces = interfaces(&live);
        live.agent("node-1").kill();
        let progress = Progress::default();
        thread::scope(|scope| {
            let mut load = Load::open(&live);
            let progress = &progress;
            let node = live.netns("node-1");
            let committing =
                scope.spawn(move || netns::within(node, || swap(&versions, &interfaces, progress)).unwrap());
            while progress.done.load(Ordering::SeqCst) == 0 && !committing.is_finished() {
                thread::yield_now();
            }
            stay_on_this_cpu();
            while !progress.ended.load(Ordering::SeqCst) && !committing.is_finished() {
                load.round(progress);
            }
            committing.join().unwrap();
            load.check();
        });
    });
}

/// Commits the versions in turn.
fn swap(
    versions: &[String; 2],
    interfaces: &BTreeMap<IpAddr, Interface>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut kernel = Kernel::open(
        &object()?,
        &Options {
            pins: "/sys/fs/bpf/weir/node-1".into(),
            sizes: Sizes::default(),
            log_level: 0,
            attach_mode: None,
            xdp_mode: weir::kernel::XdpMode::Auto,
            events: 0,
        },
    )?;
    let mut numbers = Numbers::default();
    let datapaths = versions.each_ref().map(|manifest| datapath(manifest, &mut numbers));
    for number in 0..=SWAPS / u64::from(SERVERS) {
        progress.started.store(number, Ordering::SeqCst);
        kernel.commit(&datapaths[(number % 2) as usize], interfaces)?;
        progress.done.store(number, Ordering::SeqCst);
    }
    progress.ended.store(true, Ordering::SeqCst);
    Ok(())
}

fn datapath(manifest: &str, numbers: &mut Numbers) -> Datapath {
    let mut objects = Objects::default();
    objects.insert_all(manifest::from_text("cluster.yaml", manifest).unwrap());
    compile(&objects.build().unwrap(), "node-1", numbers).unwrap()
}

fn server(number: u8) -> String {
    format!("server-{number}")
}

/// Who sends, in the order of a round.
const NEW_CLIENT: usize = 0;
const NEW_FAR: usize = 1;
const OLD_CLIENT: usize = 2;
const OLD_FAR: usize = 3;
const DENIED: usize = 4;
const ALWAYS: usize = 5;
const SENDERS: [&str; 6] = ["client", "far", "client", "far", "denied", "always"];

/// Everybody's sockets, and what was seen.
struct Load {
    servers: Vec<Server>,
    /// By sender and family. Old flows have one socket each, and one port.
    clients: Vec<[Vec<UdpSocket>; 2]>,
    /// The last round, whose packets are decided but may be still on their way into the pods.
    before: Option<Round>,
    rounds: u64,
    /// Round in which a commit was first seen to be done.
    fresh: (u64, u64),
}

struct Server {
    sockets: Vec<UdpSocket>,
    targets: [IpAddr; 2],
    /// What decided new flows, by family.
    new: [Witness; 2],
    /// What decided the old flow of each client, by family.
    old: [[Witness; 2]; 2],
    /// How often each sender's packets arrived.
    arrived: [u64; 6],
}

/// The packets of a round, and what was in force meanwhile.
struct Round {
    number: u64,
    done: u64,
    started: u64,
    arrived: [[bool; 6]; SERVERS as usize],
}

impl Load {
    fn open(live: &Live) -> Self {
        let bind = |pod: &str, local: SocketAddr| {
            let socket = netns::within(live.netns(pod), || Ok(UdpSocket::bind(local)?)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let servers = (0..SERVERS).map(server).map(|pod| Server {
            sockets: (0..PORTS)
                .map(|port| bind(&pod, (Ipv6Addr::UNSPECIFIED, FIRST_PORT + port).into()))
                .collect(),
            targets: live.at(&pod, 0).map(|target| target.ip()),
            new: Default::default(),
            old: Default::default(),
            arrived: [0; 6],
        });
        let own = [SocketAddr::from(([0; 4], 0)), SocketAddr::from(([0; 16], 0))];
        let clients = SENDERS.iter().enumerate().map(|(sender, pod)| {
            let sockets = if is_old(sender) { 1 } else { SOCKETS };
            own.map(|own| (0..sockets).map(|_| bind(pod, own)).collect())
        });
        let (servers, clients) = (servers.collect(), clients.collect());
        Self { servers, clients, before: None, rounds: 0, fresh: (0, 0) }
    }

    /// A packet of each sender to each server; waits until all are decided.
    fn round(&mut self, progress: &Progress) {
        let done = progress.done.load(Ordering::SeqCst);
        if done != self.fresh.1 {
            self.fresh = (self.rounds, done);
        } else if self.rounds - self.fresh.0 > CYCLE / 2 {
            // A flow that comes again before the next commit would not be new.
            thread::yield_now();
            return;
        }
        self.rounds += 1;
        let arrived = [[false; 6]; SERVERS as usize];
        let mut round = Round { number: self.rounds, done, started: done, arrived };
        for sender in 0..SENDERS.len() {
            (0..self.servers.len()).for_each(|server| self.send(round.number, sender, server));
        }
        let deadline = Instant::now() + PATIENCE;
        while round.arrived.iter().any(|arrived| !arrived[ALWAYS]) {
            assert!(Instant::now() < deadline, "what is always allowed does not arrive");
            self.receive(&mut round);
        }
        round.started = progress.started.load(Ordering::SeqCst);
        if let Some(before) = self.before.replace(round) {
            self.judge(&before);
        }
    }

    fn send(&self, number: u64, sender: usize, server: usize) {
        let sockets = &self.clients[sender][family(number)];
        let port = if is_old(sender) { 0 } else { port(number) };
        let target = SocketAddr::new(self.servers[server].targets[family(number)], FIRST_PORT + port as u16);
        let payload = [&number.to_be_bytes()[..], &[sender as u8, server as u8]].concat();
        sockets[(number / 2) as usize % sockets.len()].send_to(&payload, target).unwrap();
    }

    /// Takes what has arrived at the ports that this round and the one before went to.
    fn receive(&mut self, round: &mut Round) {
        let mut payload = [0; 10];
        let ports = [0, port(round.number - 1), port(round.number)];
        for (server, port) in (0..self.servers.len()).flat_map(|server| ports.map(|port| (server, port))) {
            loop {
                match self.servers[server].sockets[port].recv(&mut payload) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    received => assert_eq!(received.unwrap(), payload.len()),
                }
                let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
                assert_eq!(usize::from(payload[9]), server, "a packet for another pod");
                let rounds = [Some(&mut *round), self.before.as_mut()];
                let its = rounds.into_iter().flatten().find(|round| round.number == number);
                let its = its.expect("a packet of this round or the one before");
                its.arrived[server][usize::from(payload[8])] = true;
            }
        }
    }

    fn judge(&mut self, round: &Round) {
        let Round { number, done, started, ref arrived } = *round;
        let family = family(number);
        for ((number_of, server), arrived) in self.servers.iter_mut().enumerate().zip(arrived) {
            let what = |sender: usize| {
                format!("round {number}, {} to server {number_of}, of packets {arrived:?}", SENDERS[sender])
            };
            assert!(!arrived[DENIED], "{}: never allowed, and arrived", what(DENIED));
            for (sender, &arrived) in arrived.iter().enumerate() {
                server.arrived[sender] += u64::from(arrived);
                // Version 0 is for the client, version 1 for the one far away.
                let is_far = usize::from(matches!(sender, NEW_FAR | OLD_FAR));
                let version = if arrived { is_far } else { 1 - is_far } as u64;
                let witness = match sender {
                    NEW_CLIENT | NEW_FAR => &mut server.new[family],
                    OLD_CLIENT | OLD_FAR => &mut server.old[is_far][family],
                    _ => continue,
                };
                witness.see(version, done, started, &what(sender));
            }
        }
    }

    /// The load was one: each client had its time at each server, and rounds fell between the commits.
    fn check(&self) {
        assert!(self.rounds > SWAPS / u64::from(SERVERS), "only {} rounds", self.rounds);
        for server in &self.servers {
            for sender in [NEW_CLIENT, NEW_FAR, OLD_CLIENT, OLD_FAR] {
                let arrived = server.arrived[sender];
                assert!(arrived > self.rounds / 10, "{arrived} of {}, {}", self.rounds, SENDERS[sender]);
            }
        }
    }
}

/// Which of a server's ports new flows go to.
const fn port(round: u64) -> usize {
    (round / 2) as usize / SOCKETS % PORTS as usize
}

const fn is_old(sender: usize) -> bool {
    matches!(sender, OLD_CLIENT | OLD_FAR)
}

/// Odd rounds are IPv6.
const fn family(round: u64) -> usize {
    (round % 2) as usize
}
